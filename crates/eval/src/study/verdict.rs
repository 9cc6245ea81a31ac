use nsmc_experiment::{MethodKind, Rows};

use super::contrast::{BASE_RECIPE, TUNED_RECIPE, beyond_middle_of};
use super::{Cell, Contrast, Finding, Metric, Study};
use crate::statistics::BootstrapDifference;

/// How far below vanilla LoRA must lie to be said to collapse: five points of accuracy, about a third
/// of the least gap in the paper (0.145).
pub const COLLAPSE: f64 = 0.05;

/// What a study says of the paper's conclusions.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Per setting and recipe that holds vanilla with AdapterFusion or LoRA, in the study's order.
    pub recipes: Vec<RecipeVerdict>,
}

/// What one recipe says of the paper's order, vanilla > AdapterFusion > LoRA.
#[derive(Clone, Debug)]
pub struct RecipeVerdict {
    /// Model and test set, in words.
    pub setting: String,
    /// The recipe; empty if there is none.
    pub recipe: String,
    /// Per training size, the largest first: vanilla and AdapterFusion, AdapterFusion and LoRA; where
    /// one was not planned, the two that were.
    pub orders: Vec<OrderClaim>,
    /// Whether all three were planned at every size.
    pub whole: bool,
    /// One per training size, the largest first.
    pub collapses: Vec<Collapse>,
    /// What changes the paper's LoRA, if this is the paper's recipe; the largest size first.
    pub causes: Vec<Cause>,
    /// The fewest seeds of a cell that the claims and causes are about.
    pub seeds: usize,
}

/// "At this size, this method is more accurate than that one."
#[derive(Clone, Debug)]
pub struct OrderClaim {
    /// Training reviews.
    pub train_size: Rows,
    /// The method that the paper found better.
    pub better: String,
    /// The other.
    pub worse: String,
    /// Index in [`Study::contrasts`]; none if one of the two was not planned.
    pub contrast: Option<usize>,
    /// What the data say.
    pub finding: Finding,
}

/// Whether LoRA collapses: lies [`COLLAPSE`] or more below vanilla.
#[derive(Clone, Debug)]
pub struct Collapse {
    /// Training reviews.
    pub train_size: Rows,
    /// Index of the contrast of vanilla with LoRA in [`Study::contrasts`].
    pub contrast: usize,
    /// Holds if the interval of the gap lies above [`COLLAPSE`], reversed if below.
    pub finding: Finding,
}

/// A change of the paper's LoRA and how much of its gap to vanilla it closes.
#[derive(Clone, Debug)]
pub struct Cause {
    /// Training reviews.
    pub train_size: Rows,
    /// Index in [`Study::contrasts`]: the changed LoRA with the paper's.
    pub contrast: usize,
    /// (changed − paper's LoRA) / (paper's vanilla − paper's LoRA), of mean accuracies; none if there
    /// is no gap to close.
    pub closed: Option<f64>,
    /// How far the changed LoRA lies beyond the middle of the paper's LoRA and vanilla; none without
    /// runs of all three on the same reviews.
    pub beyond_half: Option<BootstrapDifference>,
}

impl RecipeVerdict {
    /// Whether it is that of the paper's own recipe.
    pub fn is_papers(&self) -> bool {
        self.recipe == BASE_RECIPE
    }

    /// Whether it is that of the recipe that was tuned for each method.
    pub fn is_tuned(&self) -> bool {
        self.recipe == TUNED_RECIPE
    }

    /// Whether the whole order holds at every size.
    pub fn order(&self) -> Finding {
        Finding::of_all(self.orders.iter().map(|claim| claim.finding))
    }

    /// Whether LoRA collapses at every size.
    pub fn collapse(&self) -> Finding {
        Finding::of_all(self.collapses.iter().map(|collapse| collapse.finding))
    }
}

impl Cause {
    /// Whether a single key changed.
    pub fn is_single(&self, study: &Study) -> bool {
        study.contrasts[self.contrast].factors.len() == 1
    }

    /// The contrast of the paper's vanilla with the LoRA that is changed: the gap.
    pub fn gap<'a>(&self, study: &'a Study) -> Option<&'a Contrast> {
        let lora = study.contrasts[self.contrast].second;
        let recipe = &study.cells[lora].key.recipe;
        study.contrasts.iter().find(|contrast| {
            let vanilla = &study.cells[contrast.first].key;
            contrast.second == lora
                && vanilla.method == MethodKind::Vanilla
                && vanilla.recipe == *recipe
        })
    }

    /// Whether the change closes half of the gap or more: it does if the interval of
    /// [`Self::beyond_half`] lies above 0, and not if it lies below; a gain must be one beyond chance,
    /// too.
    pub fn explains(&self, study: &Study) -> Finding {
        let gap = self.gap(study).and_then(|gap| gap.pair.as_ref());
        let (Some(beyond), Some(gap)) = (self.beyond_half, gap) else { return Finding::Missing };
        if gap.bootstrap.difference <= 0.0 {
            // Nothing to close.
            Finding::Missing
        } else if beyond.interval.high < 0.0 {
            Finding::Reversed
        } else if beyond.interval.low > 0.0
            && study.contrasts[self.contrast].finding() == Finding::Holds
        {
            Finding::Holds
        } else {
            Finding::Undecided
        }
    }
}

impl Verdict {
    /// Of a study.
    pub fn new(study: &Study) -> Self {
        let mut recipes: Vec<RecipeVerdict> = Vec::new();
        for cell in study.cells.iter().filter(|cell| cell.key.method == MethodKind::Vanilla) {
            let (setting, recipe) = (&cell.key.setting, &cell.key.recipe);
            let known =
                |verdict: &RecipeVerdict| (&verdict.setting, &verdict.recipe) == (setting, recipe);
            if !recipes.iter().any(known) {
                recipes.extend(recipe_verdict(study, setting, recipe));
            }
        }
        Self { recipes }
    }

    /// That of the paper's own recipe.
    pub fn paper(&self) -> Option<&RecipeVerdict> {
        self.recipes.iter().find(|verdict| verdict.is_papers())
    }
}

fn recipe_verdict(study: &Study, setting: &str, recipe: &str) -> Option<RecipeVerdict> {
    let of_recipe = |cell: &&Cell| cell.key.setting == setting && cell.key.recipe == recipe;
    let cells: Vec<(usize, &Cell)> =
        study.cells.iter().enumerate().filter(|(_, cell)| of_recipe(cell)).collect();
    let mut sizes: Vec<Rows> = Vec::new();
    for (_, cell) in &cells {
        if !sizes.contains(&cell.key.train_size) {
            sizes.push(cell.key.train_size);
        }
    }
    let mut verdict = RecipeVerdict {
        setting: setting.into(),
        recipe: recipe.into(),
        orders: Vec::new(),
        whole: true,
        collapses: Vec::new(),
        causes: Vec::new(),
        seeds: usize::MAX,
    };
    for train_size in sizes {
        // Cells of a size begin with those of the highest rank.
        let find = |method: MethodKind| {
            let mut found = cells.iter();
            found.find(|(_, cell)| cell.key.method == method && cell.key.train_size == train_size)
        };
        let (vanilla, fusion, lora) =
            (find(MethodKind::Vanilla), find(MethodKind::AdapterFusion), find(MethodKind::Lora));
        let planned: Vec<_> = [vanilla, fusion, lora].into_iter().flatten().collect();
        verdict.whole &= planned.len() == 3;
        for pair in planned.windows(2) {
            let [(first, a), (second, b)] = pair else { continue };
            let contrast = contrast_of(study, *first, *second);
            let finding =
                contrast.map_or(Finding::Missing, |index| study.contrasts[index].finding());
            let (better, worse) = (a.key.label.clone(), b.key.label.clone());
            verdict.orders.push(OrderClaim { train_size, better, worse, contrast, finding });
        }
        for (_, cell) in planned {
            verdict.seeds = verdict.seeds.min(cell.finished().count());
        }
        let (Some((first, _)), Some((second, _))) = (vanilla, lora) else { continue };
        let Some(contrast) = contrast_of(study, *first, *second) else { continue };
        let finding = collapse(&study.contrasts[contrast]);
        verdict.collapses.push(Collapse { train_size, contrast, finding });
        if verdict.is_papers() {
            let of_size = |(_, cell): &&(usize, &Cell)| {
                cell.key.method == MethodKind::Lora && cell.key.train_size == train_size
            };
            for (lora, _) in cells.iter().filter(of_size) {
                let causes = causes(study, *first, *lora);
                for contrast in causes.iter().map(|cause| &study.contrasts[cause.contrast]) {
                    for cell in [contrast.first, contrast.second] {
                        verdict.seeds = verdict.seeds.min(study.cells[cell].finished().count());
                    }
                }
                verdict.causes.extend(causes);
            }
        }
    }
    (!verdict.orders.is_empty()).then_some(verdict)
}

fn contrast_of(study: &Study, first: usize, second: usize) -> Option<usize> {
    study.contrasts.iter().position(|contrast| (contrast.first, contrast.second) == (first, second))
}

fn collapse(contrast: &Contrast) -> Finding {
    let Some(pair) = &contrast.pair else { return Finding::Missing };
    let interval = pair.bootstrap.interval;
    if interval.low > COLLAPSE {
        Finding::Holds
    } else if interval.high < COLLAPSE {
        Finding::Reversed
    } else {
        Finding::Undecided
    }
}

/// The contrasts of other recipes' LoRA with that of the paper's; single changes first.
fn causes(study: &Study, vanilla: usize, lora: usize) -> Vec<Cause> {
    let accuracy = |cell: usize| study.cells[cell].mean(Metric::Accuracy);
    let mut causes: Vec<Cause> = Vec::new();
    for (index, contrast) in study.contrasts.iter().enumerate() {
        if contrast.second != lora || contrast.is_of_methods() {
            continue;
        }
        let closed = match (accuracy(contrast.first), accuracy(vanilla), accuracy(lora)) {
            (Some(changed), Some(vanilla), Some(lora)) if vanilla > lora => {
                Some((changed - lora) / (vanilla - lora))
            }
            _ => None,
        };
        let [changed, lora, vanilla] =
            [contrast.first, lora, vanilla].map(|cell| &study.cells[cell]);
        causes.push(Cause {
            train_size: lora.key.train_size,
            contrast: index,
            closed,
            beyond_half: beyond_middle_of(changed, [lora, vanilla]),
        });
    }
    causes.sort_by_key(|cause| study.contrasts[cause.contrast].factors.len());
    causes
}

#[cfg(test)]
mod tests {
    use nsmc_experiment::ExperimentConfig;

    use super::*;
    use crate::study::fabricated;

    fn study() -> Study {
        let folder = tempfile::tempdir().unwrap();
        fabricated::grid(folder.path());
        Study::read_runs(folder.path(), None).unwrap()
    }

    #[test]
    fn the_order_holds_with_the_papers_recipe_and_is_undecided_with_tuned_rates() {
        let study = study();
        let verdict = Verdict::new(&study);
        assert_eq!(verdict.recipes.len(), 2);
        let paper = verdict.paper().unwrap();
        assert_eq!((paper.order(), paper.orders.len()), (Finding::Holds, 4));
        assert_eq!((paper.collapse(), paper.collapses.len()), (Finding::Holds, 2));
        assert_eq!(paper.seeds, 2, "a run of LoRA that failed is none");
        let tuned = verdict.recipes.iter().find(|verdict| verdict.is_tuned()).unwrap();
        assert_eq!(tuned.order(), Finding::Undecided);
        assert_eq!(tuned.collapse(), Finding::Reversed);
        assert!(tuned.causes.is_empty());
    }

    #[test]
    fn alpha_is_found_to_explain_the_collapse_and_the_head_is_not() {
        let study = study();
        let verdict = Verdict::new(&study);
        let causes = &verdict.paper().unwrap().causes;
        let cause = |key: &str| {
            let mut single = causes.iter().filter(|cause| cause.is_single(&study));
            single.find(|cause| study.contrasts[cause.contrast].factors[0].key == key).unwrap()
        };
        // The gap is 0.86 − 0.62; alpha brings LoRA to 0.82, the head to 0.64.
        let alpha = cause("method.alpha");
        assert!((alpha.closed.unwrap() - 0.2 / 0.24).abs() < 0.05, "{:?}", alpha.closed);
        assert_eq!(alpha.explains(&study), Finding::Holds);
        assert_eq!(cause("method.trains").explains(&study), Finding::Reversed);
        let rate = cause("training.learning_rate");
        assert_eq!(rate.explains(&study), Finding::Undecided, "one of its two runs is at chance");
        let gap = alpha.gap(&study).unwrap();
        let keys = [gap.first, gap.second].map(|cell| &study.cells[cell].key);
        assert_eq!(keys.map(|key| key.method), [MethodKind::Vanilla, MethodKind::Lora]);
        assert!(
            keys.iter().all(|key| key.recipe == "paper" && key.train_size == Rows::Exactly(1000))
        );
        let rate = &study.cells[study.contrasts[cause("training.learning_rate").contrast].first];
        assert_eq!(rate.at_chance(), [0]);
        let several = causes.iter().filter(|cause| !cause.is_single(&study)).count();
        assert_eq!(several, 2, "tuned LoRA differs in several keys, at two sizes");
    }

    #[test]
    fn a_change_whose_interval_holds_half_of_the_gap_decides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let paper = fabricated::config("paper", 1000, 0);
        let other = ExperimentConfig { recipe: "lora-alpha".into(), ..paper.clone() };
        fabricated::run(folder.path(), &paper, 0.86, 1.0);
        fabricated::run(folder.path(), &fabricated::fusion(paper.clone()), 0.80, 1.0);
        fabricated::run(folder.path(), &fabricated::lora(paper, 64, 1.0), 0.62, 1.0);
        // Half of 0.24 is 0.12.
        fabricated::run(folder.path(), &fabricated::lora(other, 64, 128.0), 0.742, 1.0);
        let study = Study::read_runs(folder.path(), None).unwrap();
        let verdict = Verdict::new(&study);
        let [cause] = verdict.paper().unwrap().causes.as_slice() else { panic!("one cause") };
        assert_eq!(study.contrasts[cause.contrast].finding(), Finding::Holds, "it does gain");
        assert_eq!(cause.explains(&study), Finding::Undecided, "{:?}", cause.closed);
    }

    /// LoRA gains the same with both seeds, but what half of the gap is, vanilla's do not say.
    #[test]
    fn a_gap_that_varies_with_the_seed_is_not_taken_as_known() {
        let folder = tempfile::tempdir().unwrap();
        for (seed, vanilla) in [(0, 0.90), (1, 0.82)] {
            let paper = fabricated::config("paper", 1000, seed);
            let other = ExperimentConfig { recipe: "lora-alpha".into(), ..paper.clone() };
            fabricated::run(folder.path(), &paper, vanilla, 1.0);
            fabricated::run(folder.path(), &fabricated::fusion(paper.clone()), 0.80, 1.0);
            fabricated::run(folder.path(), &fabricated::lora(paper, 64, 1.0), 0.62, 1.0);
            fabricated::run(folder.path(), &fabricated::lora(other, 64, 128.0), 0.80, 1.0);
        }
        let study = Study::read_runs(folder.path(), None).unwrap();
        let verdict = Verdict::new(&study);
        let [cause] = verdict.paper().unwrap().causes.as_slice() else { panic!("one cause") };
        let gain = study.contrasts[cause.contrast].pair.as_ref().unwrap().bootstrap;
        assert!(gain.interval.low > 0.12, "half of 0.24: {gain:?}");
        let beyond = cause.beyond_half.unwrap();
        assert!((beyond.difference - 0.06).abs() < 0.01, "{beyond:?}");
        assert_eq!(cause.explains(&study), Finding::Undecided, "{beyond:?}");
    }

    #[test]
    fn the_fewest_seeds_are_also_those_of_a_lower_rank_that_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        for seed in [0, 1] {
            let paper = fabricated::config("paper", 1000, seed);
            let other = ExperimentConfig { recipe: "lora-alpha".into(), ..paper.clone() };
            fabricated::run(folder.path(), &paper, 0.86, 1.0);
            fabricated::run(folder.path(), &fabricated::lora(paper.clone(), 64, 1.0), 0.62, 1.0);
            fabricated::run(folder.path(), &fabricated::lora(other, 16, 128.0), 0.80, 1.0);
            if seed == 0 {
                fabricated::run(folder.path(), &fabricated::lora(paper, 16, 1.0), 0.62, 1.0);
            }
        }
        let study = Study::read_runs(folder.path(), None).unwrap();
        let verdict = Verdict::new(&study);
        let paper = verdict.paper().unwrap();
        assert_eq!((paper.causes.len(), paper.seeds), (1, 1));
    }

    #[test]
    fn without_a_fusion_vanilla_is_held_against_lora() {
        let folder = tempfile::tempdir().unwrap();
        let paper = fabricated::config("paper", 1000, 0);
        fabricated::run(folder.path(), &paper, 0.86, 1.0);
        fabricated::run(folder.path(), &fabricated::lora(paper, 64, 1.0), 0.62, 1.0);
        let study = Study::read_runs(folder.path(), None).unwrap();
        let verdict = Verdict::new(&study);
        let [recipe] = verdict.recipes.as_slice() else { panic!("{verdict:?}") };
        let [claim] = recipe.orders.as_slice() else { panic!("{recipe:?}") };
        assert_eq!((claim.better.as_str(), claim.finding), ("Vanilla", Finding::Holds));
        assert!(claim.worse.starts_with("LoRA") && !recipe.whole);
        assert_eq!(recipe.collapse(), Finding::Holds);
        assert!(Verdict::new(&self::study()).recipes[0].whole);
    }

    #[test]
    fn claims_without_runs_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let paper = fabricated::config("paper", 1000, 0);
        fabricated::run(folder.path(), &paper, 0.8, 1.0);
        fabricated::failed(folder.path(), &fabricated::fusion(paper), "stopped");
        let study = Study::read_runs(folder.path(), None).unwrap();
        let verdict = Verdict::new(&study);
        assert_eq!(verdict.paper().unwrap().order(), Finding::Missing);
        assert_eq!(verdict.paper().unwrap().seeds, 0);
    }
}
