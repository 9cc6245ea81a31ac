use std::collections::BTreeMap;

use nsmc_experiment::MethodKind;

use super::{Cell, Factor, Study, factors};
use crate::EvalError;
use crate::compare::{Matched, Pair, beyond_middle, compare};
use crate::statistics::{BootstrapDifference, holm};

/// Two cells of one training size on the same test reviews.
#[derive(Clone, Debug)]
pub struct Contrast {
    /// Index of the first cell in [`Study::cells`].
    pub first: usize,
    /// Index of the second.
    pub second: usize,
    /// What their configurations differ in, if they are of two recipes; empty for two methods of one.
    pub factors: Vec<Factor>,
    /// First less second; none unless both cells have a finished run on the same reviews. Its p is
    /// corrected by Holm for the number of contrasts of the recipe, or for that of all between
    /// recipes; those with a frozen model's classifier are counted by themselves.
    pub pair: Option<Pair>,
}

/// What the data say of a claim that the first of two cells is more accurate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is: the bootstrap interval of the difference lies above 0, McNemar's p, corrected by Holm,
    /// below 0.05, and of the two runs that McNemar's test compares the first is more accurate, too.
    Holds,
    /// The second is, by the same measure.
    Reversed,
    /// Neither can be said.
    Undecided,
    /// There are no runs to say it from.
    Missing,
}

impl Finding {
    /// The level that corrected p-values are compared with.
    pub const LEVEL: f64 = 0.05;

    /// That of several claims together: the worst of them.
    pub fn of_all(findings: impl IntoIterator<Item = Self>) -> Self {
        let findings: Vec<Self> = findings.into_iter().collect();
        let any = |finding| findings.contains(&finding);
        if findings.is_empty() || findings.iter().all(|found| *found == Self::Missing) {
            Self::Missing
        } else if any(Self::Reversed) {
            Self::Reversed
        } else if any(Self::Undecided) || any(Self::Missing) {
            Self::Undecided
        } else {
            Self::Holds
        }
    }
}

impl Contrast {
    /// Whether the first cell is more accurate than the second.
    pub fn finding(&self) -> Finding {
        self.pair.as_ref().map_or(Finding::Missing, finding)
    }

    /// Whether it is between two methods of one recipe.
    pub fn is_of_methods(&self) -> bool {
        self.factors.is_empty()
    }
}

/// Whether the first of a pair is more accurate than the second.
pub(super) fn finding(pair: &Pair) -> Finding {
    let interval = pair.bootstrap.interval;
    let (first, second) = (pair.agreement.only_first, pair.agreement.only_second);
    if pair.holm_p >= Finding::LEVEL {
        Finding::Undecided
    } else if interval.low > 0.0 && first > second {
        Finding::Holds
    } else if interval.high < 0.0 && first < second {
        Finding::Reversed
    } else {
        Finding::Undecided
    }
}

/// The recipe that others are compared with: the paper's.
pub const BASE_RECIPE: &str = "paper";

/// The recipe that was tuned for each method.
pub const TUNED_RECIPE: &str = "tuned";

/// Vanilla with each other method, and AdapterFusion with each LoRA, in every recipe and size; and
/// every cell of another recipe with the same of the paper's: of the same adapters, where both recipes
/// have those. Baselines are in none, so that no correction counts them.
pub(super) fn contrasts(cells: &[Cell]) -> Result<Vec<Contrast>, EvalError> {
    let mut contrasts = Vec::new();
    let runs: Vec<Option<Matched>> = cells.iter().map(matched).collect();
    // A family of tests that Holm's correction counts: a recipe, or all between recipes. A probe
    // that is run beside the paper's cells takes nothing from what can be said of those.
    let mut families: BTreeMap<(String, Option<String>, bool), Vec<usize>> = BTreeMap::new();
    for (first, a) in cells.iter().enumerate() {
        for (second, b) in cells.iter().enumerate() {
            let (one, two) = (&a.key, &b.key);
            if one.is_baseline() || two.is_baseline() {
                continue;
            }
            if first == second || (&one.setting, one.train_size) != (&two.setting, two.train_size) {
                continue;
            }
            let methods = one.recipe == two.recipe
                && match (one.method, two.method) {
                    (MethodKind::Vanilla, method) => method != MethodKind::Vanilla,
                    (MethodKind::AdapterFusion, MethodKind::Lora) => true,
                    _ => false,
                };
            let recipes = one.recipe != BASE_RECIPE
                && two.recipe == BASE_RECIPE
                && (one.method, one.rank) == (two.method, two.rank)
                && one.identity != two.identity
                && (adapters(a) == adapters(b)
                    || !has_adapters_of(cells, BASE_RECIPE, a)
                        && !has_adapters_of(cells, &one.recipe, b));
            if !methods && !recipes {
                continue;
            }
            let mut differing = Vec::new();
            if let (true, Some(one), Some(two)) = (recipes, a.config(), b.config()) {
                differing = factors(two, one);
            }
            if recipes && differing.is_empty() {
                continue;
            }
            let pair = match (&runs[first], &runs[second]) {
                (Some(one), Some(two)) if same_reviews(a, b) => {
                    Some(compare(one, two, Study::RESAMPLING)?)
                }
                _ => None,
            };
            if pair.is_some() {
                let recipe = methods.then(|| one.recipe.clone());
                let family = (one.setting.clone(), recipe, two.is_probe());
                families.entry(family).or_default().push(contrasts.len());
            }
            contrasts.push(Contrast { first, second, factors: differing, pair });
        }
    }
    for members in families.values() {
        let p =
            |index: &usize| contrasts[*index].pair.as_ref().map_or(1.0, |pair| pair.mcnemar.p());
        let p_values: Vec<f64> = members.iter().map(p).collect();
        for (&index, p) in members.iter().zip(holm(&p_values)?) {
            if let Some(pair) = &mut contrasts[index].pair {
                pair.holm_p = p;
            }
        }
    }
    Ok(contrasts)
}

/// The adapters that a cell's setup names, in its notation.
fn adapters(cell: &Cell) -> Option<String> {
    Some(cell.config()?.method.setup()?.replace(' ', ""))
}

/// Whether a recipe has the cell of the same method and size with the adapters of `cell`.
fn has_adapters_of(cells: &[Cell], recipe: &str, cell: &Cell) -> bool {
    let key = &cell.key;
    cells.iter().any(|other| {
        other.key.recipe == recipe
            && (&other.key.setting, other.key.train_size) == (&key.setting, key.train_size)
            && other.key.method == key.method
            && adapters(other) == adapters(cell)
    })
}

/// How far a cell lies beyond the middle of two others, if all have runs on the same reviews.
pub(super) fn beyond_middle_of(changed: &Cell, ends: [&Cell; 2]) -> Option<BootstrapDifference> {
    if ends.iter().any(|end| !same_reviews(changed, end)) {
        return None;
    }
    let (from, to) = (matched(ends[0])?, matched(ends[1])?);
    beyond_middle(&matched(changed)?, [&from, &to], Study::RESAMPLING).ok()
}

pub(super) fn matched(cell: &Cell) -> Option<Matched> {
    let runs: Vec<_> = cell
        .finished()
        .filter_map(|run| Some((Some(run.record.config.seed), run.answers.as_ref()?.right())))
        .collect();
    (!runs.is_empty()).then(|| Matched::new(runs, !cell.key.is_baseline()))
}

pub(super) fn same_reviews(a: &Cell, b: &Cell) -> bool {
    let (a, b) = (a.answers(), b.answers());
    let Some(reference) = a.first() else { return false };
    a.iter().chain(&b).all(|answers| answers.test == reference.test)
}

#[cfg(test)]
mod tests {
    use nsmc_experiment::MethodConfig;

    use super::*;
    use crate::study::Verdict;
    use crate::study::fabricated::{self, config, head, majority, tfidf};

    #[test]
    fn baselines_stand_in_the_tables_and_in_no_contrast() {
        let folder = tempfile::tempdir().unwrap();
        fabricated::grid(folder.path());
        let without = Study::read_runs(folder.path(), None).unwrap();
        for size in [1000, 500] {
            fabricated::run(folder.path(), &majority(config("", size, 0)), 0.5, 1.0);
            fabricated::run(folder.path(), &tfidf(config("", size, 0)), 0.84, 1.0);
        }
        let study = Study::read_runs(folder.path(), None).unwrap();
        assert_eq!(study.cells.len(), without.cells.len() + 4);
        let last: Vec<&str> =
            study.cells.iter().rev().take(4).map(|cell| cell.key.method.name()).collect();
        assert_eq!(last, ["tfidf", "tfidf", "majority", "majority"]);
        let p = |study: &Study| -> Vec<(usize, usize, u64)> {
            let holm = |contrast: &Contrast| contrast.pair.as_ref().map_or(2.0, |pair| pair.holm_p);
            let p =
                |contrast: &Contrast| (contrast.first, contrast.second, holm(contrast).to_bits());
            study.contrasts.iter().map(p).collect()
        };
        assert_eq!(p(&study), p(&without), "no correction counts a baseline");

        let table = study.quality_tables()[0].table.english().markdown();
        let lines: Vec<&str> = table.lines().collect();
        let [.., majority, tfidf] = lines.as_slice() else { panic!("{table}") };
        assert!(majority.contains("| – ") && majority.contains("Baseline: majority class"));
        assert!(!majority.contains("at chance"), "it is at chance by design: {majority}");
        assert!(tfidf.contains("Baseline: TF-IDF, logistic regression"), "{tfidf}");
        let trouble = study.trouble_table().unwrap().table.english().markdown();
        assert_eq!(trouble.lines().count(), 4, "as without");
    }

    #[test]
    fn a_trial_stands_in_no_table_and_no_correction_counts_it() {
        let folder = tempfile::tempdir().unwrap();
        fabricated::grid(folder.path());
        let without = Study::read_runs(folder.path(), None).unwrap();
        for recipe in ["tuned, trial", "trial"] {
            let trial = config(recipe, 1000, 7);
            fabricated::run(folder.path(), &fabricated::lora(trial.clone(), 64, 8.0), 0.7, 1.0);
            fabricated::run(folder.path(), &trial, 0.8, 1.0);
        }
        let study = Study::read_runs(folder.path(), None).unwrap();
        assert_eq!(study.csv(), without.csv());
    }

    #[test]
    fn fusions_of_two_recipes_are_compared_with_that_of_their_own_adapters() {
        let fusion = |recipe: &str, setup: &str| {
            let mut config = fabricated::fusion(config(recipe, 1000, 0));
            if let MethodConfig::AdapterFusion(fusion) = &mut config.method {
                fusion.setup = setup.into();
            }
            config.training.learning_rate = if recipe == "paper" { 2e-5 } else { 3e-4 };
            config
        };
        let compared = |setups: &[(&str, &str)]| -> Vec<[String; 2]> {
            let folder = tempfile::tempdir().unwrap();
            for (recipe, setup) in setups {
                fabricated::run(folder.path(), &fusion(recipe, setup), 0.8, 1.0);
            }
            let study = Study::read_runs(folder.path(), None).unwrap();
            let setup = |cell: usize| adapters(&study.cells[cell]).unwrap();
            let pairs = study.contrasts.iter();
            let mut pairs: Vec<[String; 2]> = pairs
                .filter(|contrast| !contrast.is_of_methods())
                .map(|contrast| [setup(contrast.first), setup(contrast.second)])
                .collect();
            pairs.sort();
            pairs
        };
        let (two, three) = ("Fuse(ko, nsmc)", "Fuse(ko, stars, nsmc)");
        let pair = |first: &str, second: &str| [first, second].map(|setup| setup.replace(' ', ""));
        let of_each =
            [("paper", two), ("paper", three), ("tuned", "Fuse(ko,nsmc)"), ("tuned", three)];
        assert_eq!(compared(&of_each), [pair(two, two), pair(three, three)]);
        // What has no like of its own is held against what has none either: its adapters changed.
        assert_eq!(compared(&[("paper", two), ("tuned", three)]), [pair(three, two)]);
        let one_more = [("paper", two), ("tuned", two), ("tuned", three)];
        assert_eq!(compared(&one_more), [pair(two, two)]);
    }

    #[test]
    fn runs_that_say_the_opposite_of_the_means_decide_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fabricated::grid(folder.path());
        let study = Study::read_runs(folder.path(), None).unwrap();
        let holds = |contrast: &&Contrast| contrast.finding() == Finding::Holds;
        let mut contrast = study.contrasts.iter().find(holds).unwrap().clone();
        let agreement = &mut contrast.pair.as_mut().unwrap().agreement;
        std::mem::swap(&mut agreement.only_first, &mut agreement.only_second);
        assert_eq!(contrast.finding(), Finding::Undecided);
    }

    #[test]
    fn a_probe_stands_last_and_changes_no_p_of_the_methods() {
        let folder = tempfile::tempdir().unwrap();
        fabricated::grid(folder.path());
        let without = Study::read_runs(folder.path(), None).unwrap();
        for seed in [0, 1] {
            fabricated::run(folder.path(), &head(config("paper", 1000, seed)), 0.7, 1.0);
        }
        let study = Study::read_runs(folder.path(), None).unwrap();
        let methods: Vec<&str> = study.cells.iter().map(|cell| cell.key.method.name()).collect();
        assert_eq!(methods[..4], ["vanilla", "adapterfusion", "lora", "head"]);

        let of = |study: &Study, probes: bool| -> Vec<(String, String, u64)> {
            let label = |index: usize| format!("{:?}", study.cells[index].key);
            let holm = |contrast: &Contrast| contrast.pair.as_ref().map_or(2.0, |pair| pair.holm_p);
            let contrasts = study.contrasts.iter();
            let wanted =
                contrasts.filter(|contrast| study.cells[contrast.second].key.is_probe() == probes);
            let p = |contrast: &Contrast| {
                (label(contrast.first), label(contrast.second), holm(contrast).to_bits())
            };
            wanted.map(p).collect()
        };
        assert_eq!(of(&study, false), of(&without, false), "no correction counts the probe");
        assert_eq!(of(&study, true).len(), 1, "vanilla is compared with it");
        let [verdict, before] = [&study, &without].map(|study| Verdict::new(study).recipes);
        for (one, other) in verdict.iter().zip(&before) {
            assert_eq!((one.orders.len(), one.order()), (other.orders.len(), other.order()));
        }
    }
}
