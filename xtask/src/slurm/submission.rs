use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nsmc_experiment::ExperimentConfig;
use serde::{Deserialize, Serialize};

use crate::args::{DeviceChoice, Options, Source};
use crate::grid::{Job, Plan};
use crate::nsmc::Nsmc;
use crate::slurm::Submitting;
use crate::train::Run;

/// What was submitted last: `submission.json`, beside the scripts and the programs they start.
#[derive(Serialize, Deserialize)]
pub(super) struct Submission {
    pub(super) profile: String,
    pub(super) set: Vec<String>,
    pub(super) seeds: Vec<u64>,
    /// Folder of the run directories.
    pub(super) runs: PathBuf,
    /// Where to compute.
    pub(super) cuda: bool,
    arrays: Vec<Array>,
}

#[derive(Serialize, Deserialize)]
struct Array {
    /// Slurm's number.
    job: u64,
    tasks: Vec<Task>,
}

/// One run: a task of an array.
#[derive(Serialize, Deserialize)]
pub(super) struct Task {
    /// The run's name, as far as it was known.
    pub(super) id: String,
    pub(super) what: What,
}

/// What a task runs.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// This.
    Run(Box<ExperimentConfig>),
    /// A cell of the profile, with the choice of its trials.
    Cell {
        /// Its place in the profile.
        cell: usize,
        seed: u64,
    },
}

/// A task as Slurm knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) job: u64,
    pub(super) task: usize,
}

impl Submission {
    const FILE: &'static str = "submission.json";
    /// The programs, as they were when the runs were submitted: a later build changes nothing of
    /// what is queued.
    pub(super) const XTASK: &'static str = "xtask";
    const NSMC: &'static str = "nsmc";

    /// One without arrays, with the programs that its scripts start.
    pub(super) fn new(
        plan: &Plan,
        submitting: &Submitting<'_>,
        nsmc: &Nsmc,
        folder: &Path,
    ) -> Result<Self> {
        let this = std::env::current_exe().context("this program's place")?;
        keep(&this, &folder.join(Self::XTASK))?;
        keep(nsmc.path(), &folder.join(Self::NSMC))?;
        Ok(Self {
            profile: plan.profile.name.clone(),
            set: submitting.options.set.clone(),
            seeds: submitting.seeds.to_vec(),
            runs: submitting.options.runs.clone(),
            cuda: nsmc.device() == "cuda",
            arrays: Vec::new(),
        })
    }

    /// What was submitted last; none if nothing was.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(Self::FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = fs_err::read_to_string(&path)?;
        let submission = serde_json::from_str(&text).with_context(|| {
            format!(
                "{}: not what this version writes; delete it when `squeue --me` shows no job of it",
                path.display()
            )
        })?;
        Ok(Some(submission))
    }

    /// Adds an array that Slurm has taken.
    pub(super) fn add(&mut self, folder: &Path, job: u64, tasks: Vec<Task>) -> Result<()> {
        self.arrays.push(Array { job, tasks });
        let path = folder.join(Self::FILE);
        let partial = path.with_extension("json.partial");
        fs_err::write(&partial, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(fs_err::rename(partial, path)?)
    }

    /// Slurm's numbers of the arrays.
    pub(super) fn jobs(&self) -> Vec<String> {
        self.arrays.iter().map(|array| array.job.to_string()).collect()
    }

    /// Every task, with its job and its place in it.
    pub(super) fn tasks(&self) -> impl Iterator<Item = (u64, usize, &Task)> {
        let tasks = |array: &'_ Array| (array.job, array.tasks.len());
        self.arrays.iter().flat_map(move |array| {
            let (job, count) = tasks(array);
            (0..count).map(move |task| (job, task, &array.tasks[task]))
        })
    }

    /// A task by the places of its array and its own.
    pub(super) fn task(&self, array: usize, task: usize) -> Option<&Task> {
        self.arrays.get(array)?.tasks.get(task)
    }

    /// The program of the runs.
    pub(super) fn nsmc(&self, folder: &Path) -> Nsmc {
        Nsmc::built(folder.join(Self::NSMC), self.cuda)
    }

    /// The options that the plan was made with.
    pub(super) fn options(&self) -> Options {
        Options {
            profile: Some(self.profile.clone()),
            set: self.set.clone(),
            device: if self.cuda { DeviceChoice::Cuda } else { DeviceChoice::Cpu },
            runs: self.runs.clone(),
            source: Source { mirror: None },
        }
    }
}

impl Task {
    /// That of a job of the plan.
    pub(super) fn of(plan: &Plan, job: usize) -> Self {
        let job = &plan.jobs[job];
        let config = &job.run.config;
        let what = match job.waits_for.is_empty() {
            true => What::Run(Box::new(config.clone())),
            false => What::Cell { cell: job.place, seed: config.seed },
        };
        Self { id: job.shown_id(), what }
    }

    /// Its run, in the folder of all; none while the trials of a cell of the plan are not done.
    pub(super) fn run(&self, plan: &Plan, runs: &Path) -> Option<Run> {
        match &self.what {
            What::Run(config) => {
                let folder = runs.join(config.run_id());
                Some(Run { config: (**config).clone(), folder })
            }
            What::Cell { cell, seed } => {
                let is = |job: &&Job| (job.place, job.run.config.seed) == (*cell, *seed);
                let mut cells = plan.jobs.iter().filter(|job| !job.cell.trial);
                let job = cells.find(is)?;
                job.waits_for.is_empty().then(|| job.run.clone())
            }
        }
    }
}

/// A second name for a program, or where the file system has none, a copy.
fn keep(program: &Path, kept: &Path) -> Result<()> {
    if kept.exists() {
        fs_err::remove_file(kept)?;
    }
    if fs_err::hard_link(program, kept).is_err() {
        fs_err::copy(program, kept)?;
    }
    Ok(())
}
