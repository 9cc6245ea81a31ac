use nsmc_experiment::Rows;

use super::{Cell, Contrast, Metric, Study, Verdict};
use crate::compare::p_value;
use crate::statistics::{Interval, SeedSummary};
use crate::{Table, minutes_and_seconds, with_thousands};

/// A table of a study, with what must be known to read it.
#[derive(Clone, Debug)]
pub struct StudyTable {
    /// A short name, for labels.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// How to read it.
    pub note: String,
    /// The table.
    pub table: Table,
}

const NONE: &str = "–";

impl Study {
    /// Every table, in the order of reading.
    pub fn tables(&self) -> Vec<StudyTable> {
        let mut tables = self.quality_tables();
        tables.extend(self.difference_table());
        tables.extend(self.recipe_table());
        tables.push(self.cost_table());
        tables.extend(self.trouble_table());
        tables
    }

    /// Accuracy and its like, a table per setting and training size, beside the paper's.
    pub fn quality_tables(&self) -> Vec<StudyTable> {
        let mut groups: Vec<(&str, Rows)> = Vec::new();
        for cell in &self.cells {
            let group = (cell.key.setting.as_str(), cell.key.train_size);
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        let table = |(setting, size)| self.quality_table(setting, size);
        groups.into_iter().map(table).collect()
    }

    fn quality_table(&self, setting: &str, size: Rows) -> StudyTable {
        let of_group = |cell: &&Cell| cell.key.setting == setting && cell.key.train_size == size;
        let cells: Vec<&Cell> = self.cells.iter().filter(of_group).collect();
        let paper = cells.iter().find_map(|cell| cell.paper(self.paper_scale));
        let mut header: Vec<String> = [
            "recipe",
            "method",
            "runs",
            "accuracy",
            "95 % interval",
            "precision",
            "recall",
            "F1",
            "precision,\nbatches",
            "recall,\nbatches",
            "F1,\nbatches",
        ]
        .map(str::to_owned)
        .into();
        if let Some(paper) = paper {
            let whose = match self.paper_scale {
                Some(_) => format!("paper\n(mBERT,\n{})", with_thousands(paper.train_size)),
                None => "paper".into(),
            };
            let figures = ["accuracy", "precision", "recall", "F1"];
            header.extend(figures.map(|figure| format!("{whose}\n{figure}")));
        }
        let mut table = Table::new(header, 2);
        for cell in cells {
            let mut row = vec![
                recipe(cell),
                cell.key.label.clone(),
                runs(cell),
                cell.summary(Metric::Accuracy).map_or_else(|| missing(cell), spread),
                cell.accuracy_interval().map_or_else(|| NONE.into(), interval),
            ];
            for metric in [Metric::Precision, Metric::Recall, Metric::F1] {
                row.push(digits(cell.mean(metric), 4));
            }
            for metric in [Metric::BatchMeanPrecision, Metric::BatchMeanRecall, Metric::BatchMeanF1]
            {
                row.push(digits(cell.mean(metric), 3));
            }
            if paper.is_some() {
                let paper = cell.paper(self.paper_scale);
                let figures = paper.map(|row| [row.accuracy, row.precision, row.recall, row.f1]);
                row.extend((0..4).map(|index| digits(figures.map(|figures| figures[index]), 3)));
            }
            table.push(row);
        }
        let mut note = String::from(
            "Accuracy: mean ± standard deviation over seeds; its interval is Student's over seeds, or \
             Wilson's over reviews for one seed. Precision, recall and F1 are pooled over all \
             reviews; \"batches\" are means over batches, as the paper computed them.",
        );
        if self.paper_scale.is_some() && paper.is_some() {
            note += " The paper's figures are those of multilingual BERT on more reviews: comparable \
                     in order, not in level.";
        }
        if self.cells.iter().filter(of_group).any(|cell| cell.key.is_baseline()) {
            note += " A baseline has no neural network, no recipe and no seed; it is in no test of \
                     differences.";
        }
        let size_in_words = reviews(size);
        StudyTable {
            name: format!("quality-{size}"),
            title: format!("{size_in_words} to train on. {setting}"),
            note,
            table,
        }
    }

    /// The methods of each recipe and size against each other; none if there is no pair.
    pub fn difference_table(&self) -> Option<StudyTable> {
        let mut table = Table::new(
            [
                "recipe",
                "reviews",
                "first",
                "second",
                "difference",
                "95 % interval,\nbootstrap",
                "paper's\ndifference",
                "only first\nright",
                "only second\nright",
                "McNemar's\np",
                "p after\nHolm",
                "sign-flip\np",
            ],
            4,
        );
        let mut any = false;
        for contrast in self.contrasts.iter().filter(|contrast| contrast.is_of_methods()) {
            let (first, second) = (&self.cells[contrast.first], &self.cells[contrast.second]);
            let paper = first.paper(self.paper_scale).zip(second.paper(self.paper_scale));
            any = true;
            let mut row = vec![
                recipe(first),
                first.key.train_size.to_string(),
                first.key.label.clone(),
                second.key.label.clone(),
            ];
            let mut figures = contrast_figures(contrast);
            let paper = paper.map(|(first, second)| first.accuracy - second.accuracy);
            figures.insert(2, paper.map_or_else(|| NONE.into(), |paper| format!("{paper:+.3}")));
            row.extend(figures);
            table.push(row);
        }
        any.then(|| StudyTable {
            name: "differences".into(),
            title: "Differences of accuracy, first less second".into(),
            note: format!(
                "The interval is of the two-level bootstrap over seeds and reviews ({} resamples). \
                 McNemar's test and the counts compare the runs of median accuracy; its p is \
                 corrected by Holm for all comparisons of a recipe. The sign-flip test is over \
                 seeds; with n seeds its p is not below 2 to the power of 1 − n.",
                Study::RESAMPLING.resamples
            ),
            table,
        })
    }

    /// What another recipe changes, cell by cell; none if there is none.
    pub fn recipe_table(&self) -> Option<StudyTable> {
        let mut table = Table::new(
            [
                "recipe",
                "reviews",
                "method",
                "what differs from the paper's recipe",
                "accuracy",
                "difference",
                "95 % interval,\nbootstrap",
                "gap to vanilla\nclosed",
                "p after\nHolm",
            ],
            4,
        );
        let causes: Vec<_> =
            Verdict::new(self).recipes.into_iter().flat_map(|verdict| verdict.causes).collect();
        let mut any = false;
        for (index, contrast) in self.contrasts.iter().enumerate() {
            if contrast.is_of_methods() {
                continue;
            }
            any = true;
            let cell = &self.cells[contrast.first];
            let closed = causes.iter().find(|cause| cause.contrast == index);
            let closed = closed.and_then(|cause| cause.closed);
            let figures = contrast_figures(contrast);
            table.push([
                recipe(cell),
                cell.key.train_size.to_string(),
                cell.key.label.clone(),
                changes(contrast),
                cell.summary(Metric::Accuracy).map_or_else(|| missing(cell), spread),
                figures[0].clone(),
                figures[1].clone(),
                closed.map_or_else(|| NONE.into(), |closed| format!("{:.0} %", closed * 100.0)),
                figures[5].clone(),
            ]);
        }
        any.then(|| StudyTable {
            name: "recipes".into(),
            title: "What other recipes change, against the paper's".into(),
            note: "The difference is that of accuracies, less the same method with the paper's \
                   recipe. \"Gap closed\" is its share of the difference between the paper's \
                   vanilla and the paper's LoRA. Holm's correction counts all rows."
                .into(),
            table,
        })
    }

    /// Time, memory and size.
    pub fn cost_table(&self) -> StudyTable {
        let mut table = Table::new(
            [
                "recipe",
                "reviews",
                "method",
                "time per\nepoch",
                "of\nvanilla's",
                "paper",
                "paper, of\nvanilla's",
                "whole run",
                "trainable",
                "parameters",
                "peak MiB",
            ],
            3,
        );
        for cell in &self.cells {
            let vanilla = self.vanilla_of(cell);
            let seconds = |cell: &Cell| cell.mean(Metric::EpochSeconds);
            let time =
                |seconds: Option<f64>| seconds.map_or_else(|| NONE.into(), minutes_and_seconds);
            let ratio = |part: Option<f64>, whole: Option<f64>| match (part, whole) {
                (Some(part), Some(whole)) => format!("{:.2}", part / whole),
                _ => NONE.into(),
            };
            let theirs = |cell: &Cell| {
                let (low, high) = cell.paper(self.paper_scale)?.epoch_seconds;
                Some(f64::from(low + high) / 2.0)
            };
            let count = |metric| {
                cell.mean(metric)
                    .map_or_else(|| NONE.into(), |value| with_thousands(value as usize))
            };
            table.push([
                recipe(cell),
                cell.key.train_size.to_string(),
                cell.key.label.clone(),
                time(seconds(cell)),
                ratio(seconds(cell), vanilla.and_then(seconds)),
                time(theirs(cell)),
                ratio(theirs(cell), vanilla.and_then(theirs)),
                time(cell.mean(Metric::TotalSeconds)),
                count(Metric::TrainableParameters),
                count(Metric::Parameters),
                count(Metric::PeakMemoryMib),
            ]);
        }
        StudyTable {
            name: "cost".into(),
            title: "Time, memory and size".into(),
            note:
                "Means over seeds. Time per epoch is of training steps alone; AdapterFusion's is \
                   that of its second stage, and the whole run has both, validation and test. The \
                   paper's times are of one V100."
                    .into(),
            table,
        }
    }

    /// Runs that failed, are stuck at chance, or were planned and not made; none if there are none.
    pub fn trouble_table(&self) -> Option<StudyTable> {
        let mut table = Table::new(["recipe", "method", "reviews", "seed", "what"], 5);
        let mut any = false;
        for cell in &self.cells {
            let chance = cell.at_chance().into_iter().map(|seed| (seed, "at chance".to_owned()));
            let failed =
                cell.failed().into_iter().map(|(seed, why)| (seed, format!("failed: {why}")));
            let missing = cell.missing.iter().map(|&seed| (seed, "not run".to_owned()));
            for (seed, what) in chance.chain(failed).chain(missing) {
                any = true;
                table.push([
                    recipe(cell),
                    cell.key.label.clone(),
                    cell.key.train_size.to_string(),
                    seed.to_string(),
                    what,
                ]);
            }
        }
        any.then(|| StudyTable {
            name: "trouble".into(),
            title: "Runs to know of".into(),
            note:
                "\"At chance\": the interval of its accuracy reaches down to the share of the most \
                   frequent class. Such runs count like all others."
                    .into(),
            table,
        })
    }

    /// Vanilla of a cell's recipe and size; of the paper's recipe where its own has none.
    pub fn vanilla_of(&self, cell: &Cell) -> Option<&Cell> {
        let find = |recipe: &str| {
            self.cells.iter().find(|other| {
                let key = &other.key;
                (key.method.as_str(), key.recipe.as_str()) == ("vanilla", recipe)
                    && (&key.setting, key.train_size) == (&cell.key.setting, cell.key.train_size)
            })
        };
        find(&cell.key.recipe).or_else(|| find(super::contrast::BASE_RECIPE))
    }

    /// All tables as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n", self.name);
        for StudyTable { title, note, table, .. } in self.tables() {
            text += &format!("\n## {title}\n\n{}\n\n{note}\n", table.markdown());
        }
        text
    }

    /// All tables as LaTeX, for a document that loads `booktabs` and `graphicx`.
    pub fn latex(&self) -> String {
        let mut text = String::from(
            "% Needs \\usepackage{booktabs}, \\usepackage{graphicx}; \\input this file.\n",
        );
        for StudyTable { name, title, note, table } in self.tables() {
            text += &table.latex(&format!("{title}. {note}"), &format!("tab:{}-{name}", self.name));
        }
        text
    }
}

fn recipe(cell: &Cell) -> String {
    if cell.key.recipe.is_empty() { NONE.into() } else { cell.key.recipe.clone() }
}

/// How many runs a cell has, of how many, and how many of them learned nothing.
fn runs(cell: &Cell) -> String {
    let finished = cell.finished().count();
    let planned = cell.runs.len() + cell.missing.len();
    let mut text = finished.to_string();
    if finished < planned {
        text += &format!(" of {planned}");
    }
    let chance = cell.at_chance().len();
    if chance > 0 {
        text += &format!(", {chance} at chance");
    }
    text
}

fn missing(cell: &Cell) -> String {
    if cell.runs.is_empty() { "not run".into() } else { "failed".into() }
}

fn spread(summary: SeedSummary) -> String {
    match summary.spread {
        Some(spread) => format!("{:.4} ± {:.4}", summary.mean, spread.standard_deviation),
        None => format!("{:.4}", summary.mean),
    }
}

fn interval(Interval { low, high }: Interval) -> String {
    format!("{low:.4} to {high:.4}")
}

fn digits(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| NONE.into(), |value| format!("{value:.digits$}"))
}

fn reviews(size: Rows) -> String {
    match size {
        Rows::All => "All reviews".into(),
        Rows::Exactly(size) => format!("{} reviews", with_thousands(size)),
    }
}

/// What differs, as `learning_rate 2e-5 → 1e-3`.
fn changes(contrast: &Contrast) -> String {
    let change = |factor: &super::Factor| {
        let key = factor.key.split_once('.').map_or(factor.key.as_str(), |(_, key)| key);
        format!("{key} {} → {}", factor.first, factor.second)
    };
    contrast.factors.iter().map(change).collect::<Vec<_>>().join("; ")
}

/// Difference, its interval, the two counts, McNemar's p, Holm's, the sign-flip test's.
fn contrast_figures(contrast: &Contrast) -> Vec<String> {
    let Some(pair) = &contrast.pair else { return vec![NONE.into(); 7] };
    let bootstrap = pair.bootstrap;
    vec![
        format!("{:+.4}", bootstrap.difference),
        format!("{:+.4} to {:+.4}", bootstrap.interval.low, bootstrap.interval.high),
        pair.agreement.only_first.to_string(),
        pair.agreement.only_second.to_string(),
        p_value(pair.mcnemar.p()),
        p_value(pair.holm_p),
        pair.seeds.map_or_else(|| NONE.into(), |seeds| p_value(seeds.sign_flip_p)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::fabricated;

    fn study(paper_scale: Option<usize>) -> Study {
        let folder = tempfile::tempdir().unwrap();
        fabricated::grid(folder.path());
        let mut study = Study::read_runs(folder.path(), None).unwrap();
        study.paper_scale = paper_scale;
        study
    }

    fn row<'a>(markdown: &'a str, parts: &[&str]) -> Vec<&'a str> {
        let mut lines = markdown.lines();
        let line = lines.find(|line| parts.iter().all(|part| line.contains(part)));
        line.unwrap_or_else(|| panic!("{parts:?}\nin no line of\n{markdown}"))
            .split('|')
            .map(str::trim)
            .collect()
    }

    #[test]
    fn the_papers_figures_stand_beside_ours_only_where_the_profile_says_so() {
        let without = study(None);
        for StudyTable { table, note, .. } in without.quality_tables() {
            assert!(!table.markdown().contains("paper (mBERT"));
            assert!(!note.contains("comparable in order"));
        }
        // 1,000 reviews stand for the paper's 150,000.
        let scaled = study(Some(150));
        let tables = scaled.quality_tables();
        let markdown = tables[0].table.markdown();
        assert!(markdown.contains("paper (mBERT, 150,000) accuracy"), "{markdown}");
        assert!(tables[0].note.contains("comparable in order, not in level"));
        let vanilla = row(&markdown, &["paper ", "Vanilla"]);
        assert_eq!(vanilla[12..16], ["0.871", "0.864", "0.882", "0.869"]);
        // 500 stand for 75,000, which the paper did not have.
        assert!(!tables[1].table.markdown().contains("paper (mBERT"));
        let cost = scaled.cost_table().table.markdown();
        // AdapterFusion: 749.5 of 1022.5 seconds in the paper, 0.73 here.
        let fusion = row(&cost, &["paper ", "1000", "AdapterFusion"]);
        assert_eq!((fusion[5], fusion[6], fusion[7]), ("0.73", "12:30", "0.73"));
    }

    #[test]
    fn failed_and_stuck_runs_are_shown_and_counted() {
        let study = study(None);
        let markdown = study.markdown();
        assert_eq!(row(&markdown, &["| paper ", "LoRA r=64", "2 of 3"])[3], "2 of 3");
        assert_eq!(row(&markdown, &["| lora-rate", "| at chance"])[3], "1000");
        let rate = row(&markdown, &["lora-rate", "2, 1 at chance"]);
        // The mean has the run at chance in it: (0.5 + 0.684) / 2.
        let mean: f64 = rate[4].split(' ').next().unwrap().parse().unwrap();
        assert!((mean - 0.592).abs() < 0.02, "{rate:?}");
        assert!(markdown.contains("failed: out of memory"));
    }

    #[test]
    fn a_row_between_recipes_names_the_keys_that_differ() {
        let markdown = study(None).recipe_table().unwrap().table.markdown();
        let alpha = row(&markdown, &["lora-alpha"]);
        assert_eq!(alpha[4], "alpha 1 → 128");
        assert!(alpha[8].ends_with(" %"), "{alpha:?}");
        let tuned = row(&markdown, &["tuned", "1000", "LoRA"]);
        assert_eq!(tuned[4], "alpha 1 → 128; trains [] → [head]; learning_rate 2e-5 → 3e-4");
    }

    #[test]
    fn latex_escapes_what_it_must_and_has_a_column_per_cell() {
        let latex = study(Some(150)).latex();
        assert!(latex.contains("\\toprule") && latex.contains("95 \\% interval"));
        assert!(!latex.contains("gap_"), "an underscore must be escaped");
        for block in latex.split("\\begin{tabular}").skip(1) {
            let columns = block[1..].split('}').next().unwrap().len();
            let body = block.split("\\midrule").nth(1).unwrap();
            let body = body.split("\\bottomrule").next().unwrap();
            let mut rows = 0;
            for line in body.lines().filter(|line| line.ends_with("\\\\")) {
                rows += 1;
                assert_eq!(line.matches(" & ").count() + 1, columns, "{line}");
            }
            assert!(rows > 0);
        }
    }
}
