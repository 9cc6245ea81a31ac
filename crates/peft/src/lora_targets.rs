use std::collections::BTreeMap;
use std::fmt;

use fancy_regex::Regex;
use nsmc_bert::{EmbeddingSite, LinearSite};
use serde::{Deserialize, Serialize};

use crate::PeftError;

/// Which layers LoRA is put on, as PEFT's `target_modules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetModules {
    /// Names: a layer whose full name is one, or ends in `.` and one.
    List(Vec<String>),
    /// A regular expression for the whole name.
    Regex(String),
    /// `"all-linear"`: every linear layer but the classifier; the pooler's among them. It can be
    /// targeted, not excluded.
    AllLinear,
}

/// A layer that LoRA can be put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LoraSite {
    /// A linear layer.
    Linear(LinearSite),
    /// An embedding table.
    Embedding(EmbeddingSite),
}

impl LoraSite {
    /// Every layer of a classifier, in transformers' order.
    pub fn all(num_hidden_layers: usize) -> impl Iterator<Item = Self> {
        EmbeddingSite::ALL
            .into_iter()
            .map(Self::Embedding)
            .chain(LinearSite::all(num_hidden_layers).map(Self::Linear))
    }

    /// The layer's name in transformers.
    pub fn name(self) -> String {
        match self {
            Self::Linear(site) => site.name(),
            Self::Embedding(site) => site.name().into(),
        }
    }

    fn layer(self) -> Option<usize> {
        match self {
            Self::Linear(
                LinearSite::Query(layer)
                | LinearSite::Key(layer)
                | LinearSite::Value(layer)
                | LinearSite::AttentionOutput(layer)
                | LinearSite::Intermediate(layer)
                | LinearSite::Output(layer),
            ) => Some(layer),
            _ => None,
        }
    }
}

impl TargetModules {
    /// Whether these, which stand at `key`, take a layer of this name.
    pub(crate) fn matches(
        &self,
        key: &'static str,
        site: LoraSite,
        name: &str,
    ) -> Result<bool, PeftError> {
        match self {
            Self::List(targets) => Ok(targets.iter().any(|target| {
                name == target
                    || name.strip_suffix(target.as_str()).is_some_and(|n| n.ends_with('.'))
            })),
            Self::Regex(pattern) => full_match(key, pattern, pattern, name),
            Self::AllLinear => {
                Ok(matches!(site, LoraSite::Linear(site) if site != LinearSite::Classifier))
            }
        }
    }
}

/// The layers of a model that are targeted, in transformers' order.
///
/// `layers_to_transform` keeps of a list's matches those in these encoder layers. Layers that are
/// excluded are left out, whatever matches them.
pub(crate) fn target_sites(
    targets: &TargetModules,
    exclude: Option<&TargetModules>,
    layers_to_transform: Option<&[usize]>,
    num_hidden_layers: usize,
) -> Result<Vec<LoraSite>, PeftError> {
    if layers_to_transform.is_some() && !matches!(targets, TargetModules::List(_)) {
        return Err(PeftError::Value {
            key: "layers_to_transform",
            message: "expected `target_modules` to be a list".into(),
        });
    }
    if exclude == Some(&TargetModules::AllLinear) {
        return Err(PeftError::Value {
            key: "exclude_modules",
            message: "expected names or a regular expression, found \"all-linear\", which is for \
                      `target_modules`"
                .into(),
        });
    }
    let mut sites = Vec::new();
    for site in LoraSite::all(num_hidden_layers) {
        let name = site.name();
        let excluded = match exclude {
            Some(exclude) => exclude.matches("exclude_modules", site, &name)?,
            None => false,
        };
        // As in PEFT, a layer that is named in full is taken whatever encoder layer it is in.
        let exact = matches!(targets, TargetModules::List(names) if names.contains(&name));
        let transformed = exact
            || layers_to_transform
                .is_none_or(|layers| site.layer().is_some_and(|layer| layers.contains(&layer)));
        if !excluded && transformed && targets.matches("target_modules", site, &name)? {
            sites.push(site);
        }
    }
    if sites.is_empty() {
        return Err(PeftError::NoTarget {
            targets: targets.to_string(),
            candidates: LoraSite::all(num_hidden_layers).map(LoraSite::name).collect(),
        });
    }
    Ok(sites)
}

/// The value of the first pattern that matches a layer's name or the end of it: PEFT's
/// `rank_pattern` and `alpha_pattern`.
///
/// Deviation: PEFT takes the first as they stand, here it is the first of the sorted. PEFT writes its
/// files sorted, so that the two are the same but for patterns that overlap and that a person wrote in
/// another order.
pub(crate) fn pattern_value<T: Copy>(
    key: &'static str,
    patterns: &BTreeMap<String, T>,
    name: &str,
) -> Result<Option<T>, PeftError> {
    for (pattern, &value) in patterns {
        // As Python's `re.match(rf"(.*\.)?({pattern})$", name)`.
        if full_match(key, pattern, &format!(r"(.*\.)?({pattern})"), name)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Whether `pattern` matches all of `name`; `written` is what stands at `key`.
fn full_match(
    key: &'static str,
    written: &str,
    pattern: &str,
    name: &str,
) -> Result<bool, PeftError> {
    let error = |error: fancy_regex::Error| PeftError::Value {
        key,
        message: format!("`{written}` is no valid regular expression: {error}"),
    };
    Regex::new(&format!("^(?:{pattern})$")).map_err(error)?.is_match(name).map_err(error)
}

impl fmt::Display for TargetModules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(targets) => write!(f, "{targets:?}"),
            Self::Regex(pattern) => write!(f, "{pattern:?}"),
            Self::AllLinear => f.write_str("\"all-linear\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(targets: &[&str]) -> TargetModules {
        TargetModules::List(targets.iter().map(|&target| target.to_owned()).collect())
    }

    fn names(targets: &TargetModules) -> Vec<String> {
        let sites = target_sites(targets, None, None, 2).unwrap();
        sites.into_iter().map(LoraSite::name).collect()
    }

    #[test]
    fn a_list_matches_whole_names_and_ends() {
        assert_eq!(
            names(&list(&["query", "value"])),
            [
                "bert.encoder.layer.0.attention.self.query",
                "bert.encoder.layer.0.attention.self.value",
                "bert.encoder.layer.1.attention.self.query",
                "bert.encoder.layer.1.attention.self.value",
            ]
        );
        // "dense" is four kinds of layer; "output.dense" two.
        assert_eq!(names(&list(&["dense"])).len(), 2 * 3 + 1);
        assert_eq!(names(&list(&["output.dense"])).len(), 2 * 2);
        assert_eq!(names(&list(&["classifier", "word_embeddings"])).len(), 2);
        // Not the end of a word.
        assert!(target_sites(&list(&["uery"]), None, None, 2).is_err());
    }

    #[test]
    fn a_string_is_a_regular_expression_for_the_whole_name() {
        let pattern = TargetModules::Regex(r".*layer\.(?!0\.)\d+\..*\.(query|key)".into());
        assert_eq!(names(&pattern).len(), 2);
        assert!(target_sites(&TargetModules::Regex("query".into()), None, None, 2).is_err());
        let message = target_sites(&TargetModules::Regex("(".into()), None, None, 2).unwrap_err();
        assert!(message.to_string().contains("no valid regular expression"), "{message}");
    }

    #[test]
    fn all_linear_has_the_pooler_but_not_the_classifier() {
        let names = names(&TargetModules::AllLinear);
        assert_eq!(names.len(), 2 * 6 + 1);
        assert!(names.contains(&"bert.pooler.dense".to_owned()));
    }

    #[test]
    fn layers_and_exclusions_narrow_the_choice() {
        let sites = target_sites(&list(&["dense"]), None, Some(&[1]), 2).unwrap();
        assert_eq!(sites.len(), 3);
        let linear = Some(&TargetModules::AllLinear);
        let message = target_sites(&list(&["dense"]), linear, None, 2).unwrap_err().to_string();
        assert!(message.starts_with("`exclude_modules`: expected names"), "{message}");
        let exclude = list(&["pooler.dense"]);
        let sites = target_sites(&TargetModules::AllLinear, Some(&exclude), None, 2).unwrap();
        assert_eq!(sites.len(), 2 * 6);
        assert!(target_sites(&TargetModules::AllLinear, None, Some(&[1]), 2).is_err());
        let sites =
            target_sites(&list(&["query", "bert.pooler.dense"]), None, Some(&[0]), 2).unwrap();
        assert_eq!(sites.len(), 2);
    }

    #[test]
    fn no_match_names_the_candidates() {
        let message = target_sites(&list(&["q_proj"]), None, None, 1).unwrap_err().to_string();
        assert!(message.contains("[\"q_proj\"]"), "{message}");
        assert!(message.contains("\n  bert.encoder.layer.0.attention.self.query"), "{message}");
    }

    #[test]
    fn a_pattern_matches_at_the_end_of_a_name() {
        let patterns =
            BTreeMap::from([("key".to_owned(), 2), (r"layer.2.output.dense".to_owned(), 3)]);
        let value = |name| pattern_value("rank_pattern", &patterns, name).unwrap();
        let bad = BTreeMap::from([("layer.(".to_owned(), 2)]);
        let message = pattern_value("alpha_pattern", &bad, "x").unwrap_err().to_string();
        assert!(message.starts_with("`alpha_pattern`: `layer.(` is no valid"), "{message}");
        assert_eq!(value("bert.encoder.layer.1.attention.self.key"), Some(2));
        assert_eq!(value("bert.encoder.layer.2.output.dense"), Some(3));
        assert_eq!(value("bert.encoder.layer.2.attention.output.dense"), None);
        assert_eq!(value("bert.encoder.layer.1.attention.self.query"), None);
    }

    #[test]
    fn of_patterns_that_overlap_the_first_of_the_sorted_counts() {
        let name = "bert.encoder.layer.1.attention.self.key";
        let value = |patterns: [(&str, f64); 2]| {
            let patterns = patterns.map(|(pattern, value)| (pattern.to_owned(), value));
            pattern_value("alpha_pattern", &BTreeMap::from(patterns), name).unwrap()
        };
        // As PEFT writes them into a file, and reads them from it.
        assert_eq!(value([("key", 2.5), ("self.key", 4.0)]), Some(2.5));
        assert_eq!(value([("self.key", 4.0), ("key", 2.5)]), Some(2.5));
        assert_eq!(value([("self.key", 4.0), ("query", 2.5)]), Some(4.0));
    }
}
