//! Many runs as one study: cells over seeds, contrasts of methods, and what they say of the paper.
//!
//! A *cell* is a recipe, a method and a training size; its runs differ in their seeds alone. A
//! *contrast* is two cells on the same test reviews. Both come from run directories, or from a folder
//! of collected results ([`Study::read_results`]), which holds all that is needed to compute them.

mod answers;
mod calibration;
mod cell;
mod collect;
mod contrast;
mod factor;
mod long;
mod ranking;
mod run;
mod tables;
mod verdict;

#[cfg(test)]
#[path = "../../tests/fabricated/mod.rs"]
pub(crate) mod fabricated;

pub use answers::{Answer, Answers, TestSet};
pub use calibration::{Calibration, CalibrationBin};
pub use cell::{Cell, CellKey, Metric};
pub use collect::{Collected, Collection, Plan, PlannedRun, collect};
pub use contrast::{BASE_RECIPE, Contrast, Finding, TUNED_RECIPE};
pub use factor::{Factor, cell_identity, differences, factors};
pub use ranking::{Beside, Ranking};
pub use run::StudyRun;
pub use tables::{StudyTable, difference};
pub use verdict::{COLLAPSE, Cause, Collapse, OrderClaim, RecipeVerdict, Verdict};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nsmc_experiment::is_of_pretraining;

use crate::EvalError;
use crate::statistics::Resampling;

/// Runs that belong together, in cells.
#[derive(Clone, Debug)]
pub struct Study {
    /// The profile, or the folder that the runs were found in.
    pub name: String,
    /// A cell on the paper's data stands for the paper's at so many times its training reviews; none
    /// if only the paper's own model is compared with the paper.
    pub paper_scale: Option<usize>,
    /// In the order of the plan: recipe by recipe, the largest training size first.
    pub cells: Vec<Cell>,
    /// Pairs of cells of one recipe and size.
    pub contrasts: Vec<Contrast>,
    /// Which methods are the most accurate, in the order of the cells.
    pub rankings: Vec<Ranking>,
    /// Why run directories could not be read, for instance those of another version; they are in no
    /// cell.
    pub unreadable: Vec<String>,
}

impl Study {
    /// The resamples behind every interval of a difference.
    pub const RESAMPLING: Resampling = Resampling { resamples: 20_000, seed: 0 };

    /// Puts runs into the cells of a plan.
    pub fn new(plan: Plan, runs: Vec<StudyRun>) -> Result<Self, EvalError> {
        let cells = cell::cells(&plan, runs)?;
        let contrasts = contrast::contrasts(&cells)?;
        let rankings = ranking::rankings(&cells)?;
        let Plan { profile: name, paper_scale, .. } = plan;
        Ok(Self { name, paper_scale, cells, contrasts, rankings, unreadable: Vec::new() })
    }

    /// Reads the run directories in `folder`: all of them, or those of a plan.
    pub fn read_runs(folder: &Path, plan: Option<Plan>) -> Result<Self, EvalError> {
        let mut tests = BTreeMap::new();
        let (mut runs, mut unreadable) = (Vec::new(), Vec::new());
        for folder in run_folders(folder)? {
            if let Some(plan) = &plan {
                let Some(name) = folder.file_name() else { continue };
                if !plan.runs.iter().any(|run| name == run.run_id.as_str()) {
                    continue;
                }
            }
            match StudyRun::read(&folder, &mut tests) {
                Ok(run) => runs.push(run),
                // Pre-trainings leave records of another kind.
                Err(_) if is_of_pretraining(&folder.join("record.json")) => {}
                Err(error) => unreadable.push(error.to_string()),
            }
        }
        let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        let plan = plan.unwrap_or_else(|| Plan::of_runs(name, &runs));
        Ok(Self { unreadable, ..Self::new(plan, runs)? })
    }

    /// Reads a folder of collected results.
    pub fn read_results(folder: &Path) -> Result<Self, EvalError> {
        let plan = Plan::read(&folder.join(Plan::FILE))?;
        let collected = Collected::of(folder);
        let mut tests: BTreeMap<String, Arc<TestSet>> = BTreeMap::new();
        let mut runs = Vec::new();
        for planned in &plan.runs {
            let known = runs.iter().any(|run: &StudyRun| run.record.run_id == planned.run_id);
            if !known && collected.record(&planned.run_id).is_file() {
                runs.push(collected.read(&planned.run_id, &mut tests)?);
            }
        }
        Self::new(plan, runs)
    }

    /// Whether any cell stands for one of the paper's.
    pub fn is_compared_with_the_paper(&self) -> bool {
        self.cells.iter().any(|cell| cell.paper(self.paper_scale).is_some())
    }

    /// Whether the runs are of other data than the paper's and this project's: then the paper has
    /// nothing to say of them.
    pub fn is_of_own_data(&self) -> bool {
        let mut configs = self.cells.iter().filter_map(|cell| cell.config()).peekable();
        configs.peek().is_some()
            && configs.all(|config| !["nsmc", "sample"].contains(&config.data.dataset.as_str()))
    }

    /// Whether any method has runs of several seeds.
    pub fn has_several_seeds(&self) -> bool {
        self.cells.iter().any(|cell| cell.finished().count() > 1)
    }

    /// The runs, each once.
    pub fn runs(&self) -> Vec<&StudyRun> {
        let mut runs: Vec<&StudyRun> = Vec::new();
        for run in self.cells.iter().flat_map(|cell| &cell.runs) {
            if !runs.iter().any(|known| known.record.identity == run.record.identity) {
                runs.push(run);
            }
        }
        runs
    }
}

/// The run directories in a folder, in the order of their names: those that hold a record.
fn run_folders(folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    let mut folders: Vec<PathBuf> = Vec::new();
    if folder.is_dir() {
        for entry in fs_err::read_dir(folder)? {
            let path = entry?.path();
            if path.join("record.json").is_file() {
                folders.push(path);
            }
        }
    }
    folders.sort();
    Ok(folders)
}
