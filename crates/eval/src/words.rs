use nsmc_experiment::Rows;

use crate::{Table, with_thousands};

/// The same text in English and in Korean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// English.
    pub en: String,
    /// Korean.
    pub ko: String,
}

impl Words {
    /// A text and its translation.
    pub fn new(en: impl Into<String>, ko: impl Into<String>) -> Self {
        Self { en: en.into(), ko: ko.into() }
    }
}

/// Names and numbers are the same in both.
impl From<String> for Words {
    fn from(text: String) -> Self {
        Self { ko: text.clone(), en: text }
    }
}

impl From<&str> for Words {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// A [`Table`] in both languages.
#[derive(Clone, Debug)]
pub struct BilingualTable {
    header: Vec<Words>,
    rows: Vec<Vec<Words>>,
    left: usize,
}

impl BilingualTable {
    /// A table whose first `left` columns hold words, the others numbers.
    pub fn new<S: Into<Words>>(header: impl IntoIterator<Item = S>, left: usize) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), rows: Vec::new(), left }
    }

    /// Adds a row.
    ///
    /// # Panics
    ///
    /// If the row has not as many cells as the header.
    pub fn push(&mut self, row: impl IntoIterator<Item = Words>) {
        let row: Vec<Words> = row.into_iter().collect();
        assert_eq!(row.len(), self.header.len(), "a row has a cell per column");
        self.rows.push(row);
    }

    /// The header's cells; a cell may hold line breaks.
    pub fn header(&self) -> &[Words] {
        &self.header
    }

    /// The rows' cells.
    pub fn rows(&self) -> &[Vec<Words>] {
        &self.rows
    }

    /// How many columns hold words; the others hold numbers.
    pub fn left(&self) -> usize {
        self.left
    }

    /// The table in English.
    pub fn english(&self) -> Table {
        let mut table = Table::new(self.header.iter().map(|cell| cell.en.as_str()), self.left);
        for row in &self.rows {
            table.push(row.iter().map(|cell| cell.en.as_str()));
        }
        table
    }
}

/// Training reviews as tables show them.
pub fn size_words(size: Rows) -> Words {
    match size {
        Rows::All => Words::new("all", "전체"),
        Rows::Exactly(size) => with_thousands(size).into(),
    }
}

/// A method as tables show it ([`MethodConfig::label`](nsmc_experiment::MethodConfig::label)); its
/// particulars stay as they are.
pub fn method_words(label: &str) -> Words {
    // What begins with another stands before it.
    const NAMES: [(&str, &str); 8] = [
        ("Vanilla", "전체 미세조정(Vanilla)"),
        ("Head only", "분류기만 학습"),
        ("Head and pooler only", "분류기와 pooler만 학습"),
        ("Head and parts of the model only", "분류기와 모델 일부만 학습"),
        ("Baseline: majority class", "베이스라인: 최빈 클래스"),
        ("Baseline: TF-IDF, logistic regression", "베이스라인: TF-IDF와 로지스틱 회귀"),
        ("AdapterFusion", "AdapterFusion"),
        ("Adapter", "어댑터"),
    ];
    let known = NAMES.iter().find_map(|(en, ko)| Some((ko, label.strip_prefix(en)?)));
    known.map_or_else(|| label.into(), |(ko, rest)| Words::new(label, format!("{ko}{rest}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nsmc_experiment::{AdapterMethod, HeadOnlyMethod, MethodConfig, MethodKind, Part, Source};

    use super::*;
    use crate::study::fabricated::{config, fusion, lora, majority, tfidf};

    /// A method per way that a label is put.
    fn methods() -> Vec<MethodConfig> {
        let vanilla = config("", 1000, 0);
        let heads = [vec![Part::Head], vec![Part::Head, Part::Pooler], vec![Part::LayerNorm]];
        let heads = heads.map(|trains| MethodConfig::HeadOnly(HeadOnlyMethod { trains }));
        let MethodConfig::AdapterFusion(fusion) = fusion(vanilla.clone()).method else { panic!() };
        let mut papers = fusion.clone();
        papers.setup = format!("Fuse(ko, {})", fusion.adapter.name);
        let ko = Source {
            from: "ko/wiki@ukp".into(),
            invertible_non_linearity: fusion.adapter.non_linearity,
            path: "".into(),
            sha256: String::new(),
        };
        papers.sources.insert("ko".into(), ko);
        let adapter = AdapterMethod {
            setup: fusion.adapter.name.clone(),
            head: fusion.head,
            trains: Vec::new(),
            adapter: fusion.adapter.clone(),
            sources: fusion.sources.clone(),
        };
        let stack = AdapterMethod { setup: "Stack(ko, nsmc)".into(), ..adapter.clone() };
        let of_lora = lora(vanilla.clone(), 16, 1.0).method;
        let baselines = [majority(vanilla.clone()), tfidf(vanilla.clone())];
        let mut methods = vec![vanilla.method, of_lora];
        methods.extend(baselines.map(|config| config.method));
        methods.extend(heads);
        methods.extend([adapter, stack].map(MethodConfig::Adapter));
        methods.extend([papers, fusion].map(MethodConfig::AdapterFusion));
        methods
    }

    #[test]
    fn every_label_has_its_translation_with_and_without_particulars() {
        let methods = methods();
        let labels: BTreeSet<String> = methods.iter().map(MethodConfig::label).collect();
        assert_eq!(labels.len(), 11, "{labels:?}");
        for kind in MethodKind::ALL {
            assert!(methods.iter().any(|method| method.kind() == kind), "{kind}");
        }
        for method in &methods {
            let label = method.label();
            let Words { en, ko } = method_words(&label);
            assert_eq!(en, label);
            let is_korean = ko.chars().any(|c| ('가'..='힣').contains(&c));
            let is_a_name = matches!(method.kind(), MethodKind::AdapterFusion | MethodKind::Lora);
            assert_eq!(is_korean, !is_a_name, "{label}: {ko}");
            // As where two cells of one label are told apart.
            let of_two = method_words(&format!("{label} (weight_decay 0.01)")).ko;
            assert_eq!(of_two, format!("{ko} (weight_decay 0.01)"));
            // Nothing of the English name is left.
            for word in ["Head", "only", "Baseline", "class", "regression", "Adapter,"] {
                assert!(!ko.contains(word), "{label}: {ko}");
            }
        }
    }

    #[test]
    fn a_methods_particulars_outlive_the_translation_of_its_name() {
        let korean = |label: &str| method_words(label).ko;
        assert_eq!(
            korean("Vanilla (weight_decay 0.01)"),
            "전체 미세조정(Vanilla) (weight_decay 0.01)"
        );
        assert_eq!(korean("Adapter, Stack(ko, nsmc)"), "어댑터, Stack(ko, nsmc)");
        assert_eq!(korean("Adapter (dropout 0.1)"), "어댑터 (dropout 0.1)");
        assert_eq!(korean("AdapterFusion"), "AdapterFusion");
        assert_eq!(korean("Head and pooler only (seed 1)"), "분류기와 pooler만 학습 (seed 1)");
        assert_eq!(korean("LoRA r=16"), "LoRA r=16");
    }
}
