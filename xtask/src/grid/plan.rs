use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nsmc_experiment::{Cell, Profile, RunRecord, Trials};

use crate::args::Options;
use crate::preflight;
use crate::train::Run;
use crate::workspace::Workspace;

/// The runs of a profile, in the order they are started, and what each waits for.
pub(crate) struct Plan {
    pub(crate) profile: Profile,
    pub(crate) jobs: Vec<Job>,
    /// What trials that are done have chosen, for a person.
    pub(crate) choices: Vec<String>,
}

/// One run of a plan.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) cell: Cell,
    /// As far as it is known: a cell that waits for trials takes their choice when they are done.
    pub(crate) run: Run,
    /// Places in the plan of the trials that decide the run's configuration.
    pub(crate) waits_for: Vec<usize>,
    /// What it comes to by each of those, in their order: known beforehand, so that an edit of a file
    /// while a grid is at work changes nothing of it.
    pub(crate) candidates: Vec<Run>,
    /// The cell's place in the profile: tables are in its order.
    pub(crate) place: usize,
    /// Other cells that the run stands for, of recipes that mean the same by it: place and recipe.
    pub(crate) also: Vec<(usize, String)>,
}

impl Job {
    fn new(cell: Cell, run: Run, place: usize) -> Self {
        let (waits_for, candidates, also) = (Vec::new(), Vec::new(), Vec::new());
        Self { cell, run, waits_for, candidates, place, also }
    }

    /// Takes in a cell whose run is this one. No recipe says anything of a baseline.
    fn stands_for(&mut self, same: &Self) {
        let (own, recipe) = (&self.run.config, &same.run.config.recipe);
        let known = own.recipe == *recipe || self.also.iter().any(|(_, other)| other == recipe);
        if !known && !own.method.is_baseline() {
            self.also.push((same.place, recipe.clone()));
        }
    }

    /// The run's name; of one that waits for trials, as much of it as is known.
    pub(crate) fn shown_id(&self) -> String {
        let id = self.run.config.run_id();
        if self.waits_for.is_empty() {
            return id;
        }
        let known = id.rsplit_once('-').map_or(id.as_str(), |(known, _)| known);
        format!("{known}-…")
    }

    pub(crate) fn state(&self) -> State {
        if !self.waits_for.is_empty() {
            return State::Waits;
        }
        if self.run.is_done() {
            return State::Done;
        }
        match self.run.is_begun() {
            true => State::Stopped,
            false => State::New,
        }
    }
}

/// How far a job was when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has a record.
    Done,
    /// It was stopped, and goes on.
    Stopped,
    /// It is not known yet: trials come first.
    Waits,
    /// It has not been started.
    New,
}

impl Plan {
    /// The baselines, then every cell with every seed: all cells with the first seed, then all with the next, so that a
    /// grid that is stopped has whole tables; before a cell, the trials that it waits for. A
    /// configuration that stands in the profile twice is run once, and is a row of each recipe.
    pub(crate) fn make(
        workspace: &Workspace,
        profile: &Profile,
        seeds: &[u64],
        options: &Options,
    ) -> Result<Self> {
        let mut plan = Self { profile: profile.clone(), jobs: Vec::new(), choices: Vec::new() };
        let mut known = HashMap::new();
        let mut add = |plan: &mut Self, job: Job| {
            let key = (job.run.config.identity(), job.waits_for.clone());
            let place = *known.entry(key).or_insert(plan.jobs.len());
            match plan.jobs.get_mut(place) {
                Some(same) => same.stands_for(&job),
                None => plan.jobs.push(job),
            }
            place
        };
        if let Some(trials) = &profile.trials {
            ensure!(
                !seeds.contains(&trials.seed),
                "`--seeds`: the seed {} is that of the trials of the profile `{}`; a run cannot be \
                 both a trial and a row of a table",
                trials.seed,
                profile.name
            );
        }
        // A baseline takes seconds and stands last in the tables.
        for (place, cell) in (profile.cells.len()..).zip(&profile.baselines) {
            let Some(&seed) = seeds.first() else { continue };
            let run = Run::resolve(workspace, profile, cell, seed, options)?;
            add(&mut plan, Job::new(cell.clone(), run, place));
        }
        for &seed in seeds {
            for (place, cell) in profile.cells.iter().enumerate() {
                let resolve =
                    |cell: &Cell, seed| Run::resolve(workspace, profile, cell, seed, options);
                let mut job = Job::new(cell.clone(), resolve(cell, seed)?, place);
                if let Some(trials) = &profile.trials {
                    for (candidate, trial) in trials.before(cell).into_iter().enumerate() {
                        let run = resolve(&trial, trials.seed)?;
                        preflight::validates(profile, &run.config)?;
                        job.waits_for.push(add(&mut plan, Job::new(trial, run, place)));
                        job.candidates.push(resolve(&cell.taking(trials, candidate), seed)?);
                    }
                    differ(profile, trials, &job)?;
                }
                let job = plan.settled(job)?;
                add(&mut plan, job);
            }
        }
        Ok(plan)
    }

    /// How many runs are done.
    pub(crate) fn done(&self) -> usize {
        self.jobs.iter().filter(|job| job.state() == State::Done).count()
    }

    /// Removes what is left of how finished runs were started.
    pub(crate) fn sweep(&self) -> Result<()> {
        let mut done = self.jobs.iter().filter(|job| job.state() == State::Done);
        done.try_for_each(|job| job.run.sweep())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.done() < self.jobs.len()
    }

    /// Fetches what the open runs need, each thing once, and resolves them with the places it lies
    /// at. Gives those that cannot run, with why.
    pub(crate) fn fetch(
        &mut self,
        workspace: &Workspace,
        options: &Options,
    ) -> BTreeMap<usize, String> {
        let mut fetched: BTreeMap<Vec<String>, Option<String>> = BTreeMap::new();
        let mut failed = BTreeMap::new();
        for place in 0..self.jobs.len() {
            let job = &self.jobs[place];
            if job.state() == State::Done {
                continue;
            }
            let needs = job.run.needs();
            // What could not be fetched for another run is not tried again for one that needs more.
            let failed_for = |(others, why): (&Vec<String>, &Option<String>)| {
                why.clone().filter(|_| others.iter().all(|name| needs.contains(name)))
            };
            let before = fetched.iter().find_map(failed_for);
            let why = fetched.entry(needs).or_insert_with(|| {
                before.or_else(|| {
                    job.run
                        .fetch(workspace, &options.source)
                        .err()
                        .map(|error| format!("{error:#}"))
                })
            });
            let resolved = || self.resolved(workspace, options, job);
            let why = match why.clone().map_or_else(resolved, |why| Err(anyhow!(why))) {
                Ok(job) => {
                    self.jobs[place] = job;
                    preflight::files(workspace, &self.jobs[place].run.config).err()
                }
                Err(error) => Some(error),
            };
            if let Some(error) = why {
                failed.insert(place, format!("{error:#}"));
            }
        }
        failed
    }

    /// A job with the places that its files lie at by now.
    fn resolved(&self, workspace: &Workspace, options: &Options, job: &Job) -> Result<Job> {
        let resolve = |cell: &Cell| {
            Run::resolve(workspace, &self.profile, cell, job.run.config.seed, options)
        };
        let candidates = match &self.profile.trials {
            Some(trials) => (0..job.candidates.len())
                .map(|candidate| resolve(&job.cell.taking(trials, candidate)))
                .collect::<Result<_>>()?,
            None => Vec::new(),
        };
        Ok(Job { run: resolve(&job.cell)?, candidates, ..job.clone() })
    }

    /// The rows of the tables, each a job's place and a recipe: cells as in the profile, each with its
    /// seeds, and no trials.
    pub(crate) fn rows(&self) -> Vec<(usize, &str)> {
        let mut rows = Vec::new();
        for (index, job) in self.jobs.iter().enumerate().filter(|(_, job)| !job.cell.trial) {
            rows.push((job.place, (index, job.run.config.recipe.as_str())));
            rows.extend(job.also.iter().map(|(place, recipe)| (*place, (index, recipe.as_str()))));
        }
        rows.sort_by_key(|(place, _)| *place);
        rows.into_iter().map(|(_, row)| row).collect()
    }

    /// The job with the choice of its trials, if they are done.
    pub(crate) fn settled(&mut self, mut job: Job) -> Result<Job> {
        let trials_done = job.waits_for.iter().all(|&trial| self.jobs[trial].run.is_done());
        let (Some(trials), false, true) =
            (&self.profile.trials, job.waits_for.is_empty(), trials_done)
        else {
            return Ok(job);
        };
        let (candidate, choice) = self.choice(trials, &job)?;
        let cell = job.cell.taking(trials, candidate);
        let run = job.candidates.swap_remove(candidate);
        if !self.choices.contains(&choice) {
            self.choices.push(choice);
        }
        Ok(Job { cell, run, waits_for: Vec::new(), candidates: Vec::new(), ..job })
    }

    fn choice(&self, trials: &Trials, job: &Job) -> Result<(usize, String)> {
        let method = &job.cell.method;
        let folders = job.waits_for.iter().map(|&trial| self.jobs[trial].run.folder.as_path());
        choose(method, folders, |candidate| trials.describe(method, candidate))
    }
}

/// Refuses candidates that come to one run: there is nothing to choose, and a choice would be told.
fn differ(profile: &Profile, trials: &Trials, job: &Job) -> Result<()> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (candidate, run) in job.candidates.iter().enumerate() {
        if let Some(&same) = seen.get(&run.config.identity()) {
            let method = &job.cell.method;
            let [first, second] = [same, candidate].map(|place| trials.describe(method, place));
            bail!(
                "`[trials.candidates]` of the profile `{}`: {method} with {first} and with {second} is \
                 the same run: a `--set` of what trials choose leaves them nothing to choose; leave it \
                 out, or set it in a copy of the profile that has no `[trials]`",
                profile.name
            );
        }
        seen.insert(run.config.identity(), candidate);
    }
    Ok(())
}

/// The candidate whose trial has the highest validation accuracy, the earliest of equals, and how a
/// person is told; `trials` are the run directories, in the order of the candidates.
pub(crate) fn choose<'a>(
    method: &str,
    trials: impl ExactSizeIterator<Item = &'a Path>,
    describe: impl Fn(usize) -> String,
) -> Result<(usize, String)> {
    let accuracies = trials.map(validation_accuracy).collect::<Result<Vec<f64>>>()?;
    let mut best: Option<(usize, f64)> = None;
    for (candidate, &accuracy) in accuracies.iter().enumerate() {
        if best.is_none_or(|(_, highest)| accuracy > highest) {
            best = Some((candidate, accuracy));
        }
    }
    let (candidate, accuracy) = best.context("a cell that waits, waits for a trial")?;
    let equal = accuracies.iter().filter(|other| **other >= accuracy).count();
    let first =
        if equal > 1 { format!(", which {equal} have: the first of them") } else { String::new() };
    let told = format!(
        "{method} takes {}: validation accuracy {accuracy:.4}, the highest of {} trials{first}",
        describe(candidate),
        accuracies.len()
    );
    Ok((candidate, told))
}

fn validation_accuracy(run: &Path) -> Result<f64> {
    let path = run.join("record.json");
    let record = RunRecord::read(&path)?;
    let accuracy = record.results.as_ref().and_then(|results| {
        let epoch = results.epochs.get(results.tested_epoch.checked_sub(1)?)?;
        epoch.validation_accuracy
    });
    accuracy.with_context(|| {
        format!(
            "{}: a trial needs a validation split; set `data.validation_fraction`",
            path.display()
        )
    })
}
