use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nsmc_experiment::{ExperimentConfig, write_durably};
use serde::{Deserialize, Serialize};

use crate::grid::{Plan, choose};
use crate::nsmc::{Nsmc, keep};
use crate::slurm::Submitting;
use crate::train::{Run, is_done};

/// What was submitted last: `submission.json`, beside the scripts and the programs they start. It
/// holds all that a task needs to know what it runs: an edit of the profile, of a method's file or of
/// a manifest changes nothing of what is queued.
#[derive(Serialize, Deserialize)]
pub(super) struct Submission {
    pub(super) profile: String,
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
    /// One of these, which its trials decide.
    Cell {
        /// The method, for a person.
        method: String,
        /// In the order of the profile.
        candidates: Vec<Candidate>,
    },
}

/// What a cell that waits for trials may take.
#[derive(Serialize, Deserialize)]
pub(super) struct Candidate {
    /// The trial that speaks for it: the name of its run.
    trial: String,
    /// The trial's identity.
    identity: String,
    /// What it sets, for a person.
    keys: String,
    /// The cell's run, if this is taken.
    run: ExperimentConfig,
}

/// What a task runs, as its trials decided.
pub(super) struct Settled {
    pub(super) run: Run,
    /// What they chose, for a person; none if there were none.
    pub(super) choice: Option<String>,
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
        let text = serde_json::to_string_pretty(self)? + "\n";
        Ok(write_durably(&folder.join(Self::FILE), text)?)
    }

    /// Slurm's numbers of the arrays.
    pub(super) fn jobs(&self) -> Vec<String> {
        self.arrays.iter().map(|array| array.job.to_string()).collect()
    }

    /// Every task, with its job and its place in it.
    pub(super) fn tasks(&self) -> impl Iterator<Item = (u64, usize, &Task)> {
        self.arrays.iter().flat_map(|array| {
            array.tasks.iter().enumerate().map(|(place, task)| (array.job, place, task))
        })
    }

    /// A task by its job and its place there; none of a job of another submission.
    pub(super) fn task(&self, job: u64, task: usize) -> Option<&Task> {
        self.arrays.iter().find(|array| array.job == job)?.tasks.get(task)
    }

    /// The program of the runs.
    pub(super) fn nsmc(&self, folder: &Path) -> Nsmc {
        Nsmc::built(folder.join(Self::NSMC), self.cuda)
    }
}

impl Task {
    /// That of a job of the plan.
    pub(super) fn of(plan: &Plan, job: usize) -> Self {
        let job = &plan.jobs[job];
        let what = match &plan.profile.trials {
            Some(trials) if !job.waits_for.is_empty() => {
                let method = job.cell.method.clone();
                let trial = job.waits_for.iter().map(|&trial| &plan.jobs[trial].run.config);
                let candidate =
                    |(place, (trial, run)): (usize, (&ExperimentConfig, &Run))| Candidate {
                        trial: trial.run_id(),
                        identity: trial.identity(),
                        keys: trials.describe(&method, place),
                        run: run.config.clone(),
                    };
                let candidates = trial.zip(&job.candidates).enumerate().map(candidate).collect();
                What::Cell { method, candidates }
            }
            _ => What::Run(Box::new(job.run.config.clone())),
        };
        Self { id: job.shown_id(), what }
    }

    /// Its run, in the folder of all; none while the trials that decide it are not done.
    pub(super) fn settled(&self, runs: &Path) -> Result<Option<Settled>> {
        let (config, choice) = match &self.what {
            What::Run(config) => (&**config, None),
            What::Cell { method, candidates } => {
                let folders: Vec<PathBuf> =
                    candidates.iter().map(|candidate| runs.join(&candidate.trial)).collect();
                let mut trials = folders.iter().zip(candidates);
                if !trials.all(|(folder, candidate)| is_done(folder, &candidate.identity)) {
                    return Ok(None);
                }
                let folders = folders.iter().map(PathBuf::as_path);
                let (taken, choice) =
                    choose(method, folders, |candidate| candidates[candidate].keys.clone())?;
                (&candidates[taken].run, Some(choice))
            }
        };
        let run = Run { config: config.clone(), folder: runs.join(config.run_id()) };
        Ok(Some(Settled { run, choice }))
    }

    /// The same run, without how it was chosen.
    pub(super) fn run(&self, runs: &Path) -> Result<Option<Run>> {
        Ok(self.settled(runs)?.map(|settled| settled.run))
    }
}
