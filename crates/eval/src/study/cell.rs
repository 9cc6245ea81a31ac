use std::sync::Arc;

use nsmc_experiment::{ExperimentConfig, MethodKind, Rows, RunStatus};

use super::{Answers, Plan, StudyRun, cell_identity, factors};
use crate::results::{PAPER_DATASET, names_papers_data, paper_row};
use crate::statistics::{Interval, SeedSummary, wilson_interval};
use crate::{EvalError, PaperRow};

/// What makes a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellKey {
    /// Model and test set, in words.
    pub setting: String,
    /// The recipe; empty if there is none.
    pub recipe: String,
    /// The method.
    pub method: MethodKind,
    /// The method as tables show it, with what tells it from others of that name.
    pub label: String,
    /// LoRA's rank.
    pub rank: Option<usize>,
    /// Training reviews.
    pub train_size: Rows,
    /// [`cell_identity`].
    pub identity: String,
}

/// A recipe, a method and a training size: runs that differ in their seeds alone.
#[derive(Clone, Debug)]
pub struct Cell {
    /// What makes it.
    pub key: CellKey,
    /// Its runs by their seeds, those that failed among them.
    pub runs: Vec<Arc<StudyRun>>,
    /// Seeds of the plan that left no record.
    pub missing: Vec<u64>,
}

/// A figure that each run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Metric {
    Accuracy,
    Precision,
    Recall,
    F1,
    BatchMeanAccuracy,
    BatchMeanPrecision,
    BatchMeanRecall,
    BatchMeanF1,
    UnseenAccuracy,
    EpochSeconds,
    TotalSeconds,
    TrainableParameters,
    Parameters,
    PeakMemoryMib,
}

impl Metric {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 14] = [
        Self::Accuracy,
        Self::Precision,
        Self::Recall,
        Self::F1,
        Self::BatchMeanAccuracy,
        Self::BatchMeanPrecision,
        Self::BatchMeanRecall,
        Self::BatchMeanF1,
        Self::UnseenAccuracy,
        Self::EpochSeconds,
        Self::TotalSeconds,
        Self::TrainableParameters,
        Self::Parameters,
        Self::PeakMemoryMib,
    ];

    /// Its name in a data file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::F1 => "f1",
            Self::BatchMeanAccuracy => "batch_mean_accuracy",
            Self::BatchMeanPrecision => "batch_mean_precision",
            Self::BatchMeanRecall => "batch_mean_recall",
            Self::BatchMeanF1 => "batch_mean_f1",
            Self::UnseenAccuracy => "unseen_accuracy",
            Self::EpochSeconds => "epoch_seconds",
            Self::TotalSeconds => "total_seconds",
            Self::TrainableParameters => "trainable_parameters",
            Self::Parameters => "parameters",
            Self::PeakMemoryMib => "peak_memory_mib",
        }
    }

    /// Whether it lies from 0 to 1, whatever an interval over seeds says.
    pub(super) fn is_share(self) -> bool {
        match self {
            Self::Accuracy
            | Self::Precision
            | Self::Recall
            | Self::F1
            | Self::BatchMeanAccuracy
            | Self::BatchMeanPrecision
            | Self::BatchMeanRecall
            | Self::BatchMeanF1
            | Self::UnseenAccuracy => true,
            Self::EpochSeconds
            | Self::TotalSeconds
            | Self::TrainableParameters
            | Self::Parameters
            | Self::PeakMemoryMib => false,
        }
    }

    /// Its value for a run; none if the run failed or has none.
    pub fn of(self, run: &StudyRun) -> Option<f64> {
        let (report, results) = (run.report.as_ref()?, run.record.results.as_ref()?);
        let pooled = report.binary.unwrap_or(report.macro_average);
        let mean = report.batch_mean;
        match self {
            Self::Accuracy => Some(report.accuracy),
            Self::Precision => Some(pooled.precision),
            Self::Recall => Some(pooled.recall),
            Self::F1 => Some(pooled.f1),
            Self::BatchMeanAccuracy => mean.map(|mean| mean.accuracy),
            Self::BatchMeanPrecision => mean.map(|mean| mean.binary.precision),
            Self::BatchMeanRecall => mean.map(|mean| mean.binary.recall),
            Self::BatchMeanF1 => mean.map(|mean| mean.binary.f1),
            Self::UnseenAccuracy => report.unseen_accuracy,
            Self::EpochSeconds => results.epoch_seconds(),
            Self::TotalSeconds => Some(run.record.total_seconds),
            Self::TrainableParameters => Some(results.trainable_parameters as f64),
            Self::Parameters => Some(results.total_parameters as f64),
            Self::PeakMemoryMib => results.peak_memory_mib,
        }
    }
}

impl CellKey {
    /// Whether it is the frozen model's classifier: compared with vanilla, but in no verdict and no
    /// correction of the methods' p-values.
    pub fn is_probe(&self) -> bool {
        self.method.is_probe()
    }

    /// Whether its method is a baseline: part of tables and plots, of no contrast and no verdict.
    pub fn is_baseline(&self) -> bool {
        self.method.is_baseline()
    }
}

impl Cell {
    /// The runs that came to their end.
    pub fn finished(&self) -> impl Iterator<Item = &StudyRun> {
        self.runs.iter().map(AsRef::as_ref).filter(|run| run.report.is_some())
    }

    /// Their answers.
    pub fn answers(&self) -> Vec<&Answers> {
        self.finished().filter_map(|run| run.answers.as_ref()).collect()
    }

    /// The configuration of its first run.
    pub fn config(&self) -> Option<&ExperimentConfig> {
        self.runs.first().map(|run| &run.record.config)
    }

    /// A figure over the seeds; none if no run has it.
    pub fn summary(&self, metric: Metric) -> Option<SeedSummary> {
        let values: Vec<f64> = self.finished().filter_map(|run| metric.of(run)).collect();
        SeedSummary::new(&values).ok()
    }

    /// The mean of a figure over the seeds.
    pub fn mean(&self, metric: Metric) -> Option<f64> {
        Some(self.summary(metric)?.mean)
    }

    /// 95 % interval of the accuracy: Student's over seeds, or Wilson's over reviews for one seed.
    pub fn accuracy_interval(&self) -> Option<Interval> {
        let summary = self.summary(Metric::Accuracy)?;
        if let Some(spread) = summary.spread {
            return Some(spread.interval.of_a_share());
        }
        let right = self.answers().first()?.right();
        wilson_interval(right.iter().filter(|right| **right).count() as u64, right.len() as u64)
            .ok()
    }

    /// Seeds whose run learned nothing ([`StudyRun::is_at_chance`]).
    pub fn at_chance(&self) -> Vec<u64> {
        let stuck = self.finished().filter(|run| run.is_at_chance());
        stuck.map(|run| run.record.config.seed).collect()
    }

    /// Seeds whose run failed, and why.
    pub fn failed(&self) -> Vec<(u64, &str)> {
        let mut failed = Vec::new();
        for run in &self.runs {
            if let RunStatus::Failed { error } = &run.record.status {
                failed.push((run.record.config.seed, error.as_str()));
            }
        }
        failed
    }

    /// The paper's row for the cell: that of the paper's own cell, or with a scale that of the method
    /// at so many times the training reviews. None of other data than the paper's.
    pub fn paper(&self, scale: Option<usize>) -> Option<&'static PaperRow> {
        match (scale, self.key.train_size) {
            (Some(scale), Rows::Exactly(size)) => {
                let is_of_papers_data = match self.config() {
                    Some(config) => config.data.dataset == PAPER_DATASET,
                    None => names_papers_data(&self.key.setting),
                };
                let size = size.checked_mul(scale).filter(|_| is_of_papers_data)?;
                PaperRow::find(self.key.method, self.key.rank, size)
            }
            _ => paper_row(self.config()?),
        }
    }
}

/// The cells of a plan, recipe by recipe, the largest training size first, vanilla first and the
/// frozen model's classifier last; the baselines after all others.
pub(super) fn cells(plan: &Plan, runs: Vec<StudyRun>) -> Result<Vec<Cell>, EvalError> {
    let runs: Vec<Arc<StudyRun>> = runs.into_iter().map(Arc::new).collect();
    let mut cells: Vec<Cell> = Vec::new();
    for planned in &plan.runs {
        let found = cells.iter().position(|cell| {
            (&cell.key.recipe, &cell.key.identity) == (&planned.recipe, &planned.cell)
        });
        let index = found.unwrap_or_else(|| {
            let key = CellKey {
                setting: planned.setting.clone(),
                recipe: planned.recipe.clone(),
                method: planned.method,
                label: planned.label.clone(),
                rank: planned.rank,
                train_size: planned.train_size,
                identity: planned.cell.clone(),
            };
            cells.push(Cell { key, runs: Vec::new(), missing: Vec::new() });
            cells.len() - 1
        });
        let cell = &mut cells[index];
        match runs.iter().find(|run| run.record.identity == planned.identity) {
            Some(run) => cell.runs.push(run.clone()),
            None => cell.missing.push(planned.seed),
        }
    }
    for cell in &mut cells {
        // Not what the plan has it for: that was computed when the plan was made, perhaps by a
        // version whose configurations had fewer keys.
        let mut configs = cell.runs.iter().map(|run| &run.record.config);
        if let Some(first) = configs.next() {
            let identity = cell_identity(first);
            if let Some(other) = configs.find(|config| cell_identity(config) != identity) {
                let runs = [first, other].map(ExperimentConfig::run_id);
                return Err(EvalError::Cell { profile: plan.profile.clone(), runs });
            }
        }
        once_per_seed(cell);
    }
    let first = |seen: &[String], name: &String| seen.iter().position(|known| known == name);
    let (mut settings, mut recipes) = (Vec::new(), Vec::new());
    for cell in &cells {
        for (seen, name) in [(&mut settings, &cell.key.setting), (&mut recipes, &cell.key.recipe)] {
            if !seen.contains(name) {
                seen.push(name.clone());
            }
        }
    }
    cells.sort_by_key(|cell| {
        let key = &cell.key;
        let size = match key.train_size {
            Rows::All => usize::MAX,
            Rows::Exactly(size) => size,
        };
        (
            first(&settings, &key.setting),
            key.is_baseline().then_some(key.method),
            first(&recipes, &key.recipe),
            std::cmp::Reverse(size),
            key.method,
            std::cmp::Reverse(key.rank),
        )
    });
    tell_apart(&mut cells);
    Ok(cells)
}

/// Leaves a cell one run per seed, of several the first that came to its end: a plan may name a run
/// twice, and two runs of one seed, tested in other batches, are one model. A baseline has one in all.
fn once_per_seed(cell: &mut Cell) {
    let baseline = cell.key.is_baseline();
    let seed = |run: &StudyRun| if baseline { 0 } else { run.record.config.seed };
    let Cell { runs, missing, .. } = cell;
    runs.sort_by_key(|run| (seed(run), run.report.is_none()));
    runs.dedup_by_key(|run| seed(run));
    missing.sort_unstable();
    missing.dedup();
    missing.retain(|missing| !runs.iter().any(|run| run.record.config.seed == *missing));
    if baseline {
        missing.truncate(usize::from(runs.is_empty()));
    }
}

/// Gives cells that would be called the same what their configurations differ in.
fn tell_apart(cells: &mut [Cell]) {
    const SHOWN: usize = 3;
    let same = |a: &CellKey, b: &CellKey| {
        (&a.setting, &a.recipe, &a.label, a.train_size)
            == (&b.setting, &b.recipe, &b.label, b.train_size)
    };
    let keys: Vec<CellKey> = cells.iter().map(|cell| cell.key.clone()).collect();
    for index in 0..cells.len() {
        let alike: Vec<usize> =
            (0..keys.len()).filter(|&other| same(&keys[other], &keys[index])).collect();
        if alike.len() < 2 {
            continue;
        }
        let mut names: Vec<String> = Vec::new();
        if let Some(own) = cells[index].config() {
            for other in alike.iter().filter_map(|&other| cells[other].config()) {
                for factor in factors(own, other) {
                    let key = factor.key.rsplit('.').next().unwrap_or_default();
                    let name = format!("{key} {}", factor.first);
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
        }
        if names.is_empty() || names.len() > SHOWN {
            names = vec![keys[index].identity.chars().take(8).collect()];
        }
        cells[index].key.label = format!("{} ({})", keys[index].label, names.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::{PlannedRun, Study, fabricated};

    #[test]
    fn what_a_plan_names_twice_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let ran = fabricated::config("paper", 1000, 0);
        let (missing, baseline) =
            (fabricated::config("paper", 1000, 1), fabricated::tfidf(ran.clone()));
        // A baseline is the same run whatever the seed.
        let again = ExperimentConfig { seed: 7, ..baseline.clone() };
        for config in [&ran, &baseline] {
            fabricated::run(folder.path(), config, 0.8, 1.0);
        }
        let planned = [&ran, &missing, &ran, &missing, &baseline, &again].map(PlannedRun::of);
        let plan = Plan { profile: "test".into(), paper_scale: None, runs: planned.into() };
        let study = Study::read_runs(folder.path(), Some(plan)).unwrap();
        let found: Vec<(usize, &[u64])> =
            study.cells.iter().map(|cell| (cell.runs.len(), cell.missing.as_slice())).collect();
        assert_eq!(found, [(1, &[1][..]), (1, &[])]);
    }

    #[test]
    fn of_the_runs_of_one_seed_that_came_to_its_end_counts() {
        let folder = tempfile::tempdir().unwrap();
        let config = fabricated::config("paper", 1000, 0);
        let mut smaller = config.clone();
        smaller.evaluation.eval_batch_size = 8;
        fabricated::failed(folder.path(), &config, "out of memory");
        fabricated::run(folder.path(), &smaller, 0.8, 1.0);
        fabricated::run(folder.path(), &fabricated::config("paper", 1000, 1), 0.8, 1.0);
        for planned in [[&config, &smaller], [&smaller, &config]] {
            let other = PlannedRun::of(&fabricated::config("paper", 1000, 1));
            let runs = planned.map(PlannedRun::of).into_iter().chain([other]).collect();
            let plan = Plan { profile: "test".into(), paper_scale: None, runs };
            let study = Study::read_runs(folder.path(), Some(plan)).unwrap();
            let [cell] = study.cells.as_slice() else { panic!("{} cells", study.cells.len()) };
            let seeds: Vec<u64> = cell.finished().map(|run| run.record.config.seed).collect();
            assert_eq!((cell.runs.len(), seeds), (2, vec![0, 1]));
        }
    }
}
