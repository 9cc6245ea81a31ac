//! The runs of a grid as jobs of Slurm: one array for those that can start, one more for each set of
//! trials that others wait for, or several where the cluster takes fewer tasks in one. Slurm decides what
//! runs where and when; what it runs is a process of `nsmc train` per run, with the run directories of any
//! other launcher.

mod queue;
mod script;
mod submission;
mod task;
#[cfg(all(test, unix))]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nsmc_eval::Table;
use nsmc_experiment::FileLock;

use crate::args::Options;
use crate::grid::{Plan, State};
use crate::nsmc::Nsmc;
use crate::train::Run;
use crate::workspace::Workspace;
use crate::{print, say};
use queue::{Queue, Slurm};
use submission::{Place, Submission, Task};

pub(crate) use task::run as task;

/// How runs are submitted.
pub(crate) struct Submitting<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) options: &'a Options,
    /// Options of `sbatch`, as they were given.
    pub(crate) sbatch: &'a [String],
    /// The most runs of an array at once; none leaves it to Slurm.
    pub(crate) at_once: Option<u16>,
}

/// The folder of a profile's submissions, in that of its runs.
fn folder(runs: &Path, plan: &Plan) -> PathBuf {
    runs.join("slurm").join(&plan.profile.name)
}

/// Whether runs of the last submission are queued or at work.
pub(crate) fn is_queued(plan: &Plan, runs: &Path) -> Result<bool> {
    let Some(submission) = Submission::read(&folder(runs, plan))? else { return Ok(false) };
    let queue = Slurm::of_path().queue()?;
    Ok(submission.tasks().any(|(job, task, _)| queue.holds(job, task)))
}

/// Why an option of `sbatch` cannot be given; none if it can. `--clusters` may be written shorter, and
/// there is `--cluster-constraint`, too.
fn refused(option: &str) -> Option<&'static str> {
    let name = option.split(['=', ' ']).next().unwrap_or_default();
    let short = |letter: &str| !option.starts_with("--") && option.starts_with(letter);
    if short("-M") || ["--cluster", "--clusters"].contains(&name) {
        Some(
            "the queue would be asked of this machine's own cluster; set SLURM_CLUSTERS, which \
             `sbatch` and `squeue` both heed",
        )
    } else if short("-a") || name == "--array" {
        Some("which runs there are is the profile's matter; `--jobs` limits how many run at once")
    } else if short("-d") || name == "--dependency" {
        Some("it would take the place of what makes a run wait for its trials")
    } else {
        None
    }
}

/// Submits what of a plan is open, unless some of it is queued already, and says how everything
/// stands.
pub(crate) fn reproduce(plan: &mut Plan, submitting: &Submitting<'_>) -> Result<()> {
    let Submitting { workspace, options, .. } = submitting;
    for option in submitting.sbatch {
        if let Some(why) = refused(option) {
            bail!("`--slurm-option={option}`: {why}");
        }
    }
    let slurm = Slurm::of_path();
    let folder = folder(&workspace.folder(&options.runs), plan);
    fs_err::create_dir_all(&folder)?;
    let lock = FileLock::try_acquire(&folder.join(".lock"))?;
    let _lock = lock.with_context(|| {
        format!("{}: another `cargo xtask reproduce` is submitting", folder.display())
    })?;
    // Behind the lock: what another has just submitted is in it.
    let queue = slurm.queue()?;
    let earlier = Submission::read(&folder)?;
    if let Some(submission) = &earlier {
        let runs = workspace.folder(&options.runs);
        let all_done = sweep(submission, &runs)?;
        let queued = submission.tasks().filter(|(job, task, _)| queue.holds(*job, *task)).count();
        if queued > 0 || !all_done {
            print(&standing(plan, submission, &queue, &runs)?.for_stdout());
        }
        if queued > 0 {
            print(&format!(
                "{} of {} runs are done; queued or at work: {queued}. `squeue --me` follows them, \
                 `scancel {}` stops them",
                plan.done(),
                plan.jobs.len(),
                submission.jobs().join(" ")
            ));
            return Ok(());
        }
    }
    if plan.is_open() {
        let failed = plan.fetch(workspace, options);
        for (job, why) in &failed {
            say(&format!("{}: not submitted: {why}", plan.jobs[*job].run.config.run_id()));
        }
        let nsmc = Nsmc::build(workspace, options.device)?;
        submit(plan, submitting, &slurm, &nsmc, &folder, &failed.into_keys().collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Writes and submits the arrays of the open runs, but for those at `left_out` and what waits for
/// them.
fn submit(
    plan: &Plan,
    submitting: &Submitting<'_>,
    slurm: &Slurm,
    nsmc: &Nsmc,
    folder: &Path,
    left_out: &[usize],
) -> Result<()> {
    let mut submission = Submission::new(plan, submitting, nsmc, folder)?;
    let mut places = vec![None; plan.jobs.len()];
    let mut groups: Vec<Group> = Vec::new();
    for (index, job) in plan.jobs.iter().enumerate() {
        let never = |job: &usize| left_out.contains(job);
        if job.state() == State::Done || never(&index) || job.waits_for.iter().any(never) {
            continue;
        }
        match groups.iter_mut().find(|group| group.waits_for == job.waits_for) {
            Some(group) => group.jobs.push(index),
            None => groups.push(Group { waits_for: job.waits_for.clone(), jobs: vec![index] }),
        }
    }
    let root = &submitting.workspace.root;
    let place = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    // What others wait for is submitted before them.
    groups.sort_by_key(|group| !group.waits_for.is_empty());
    let most = slurm.most_tasks()?;
    let arrays = groups.iter().flat_map(|group| group.arrays(most, submitting.at_once));
    fs_err::create_dir_all(folder.join("log"))?;
    for (number, Array { waits_for, jobs, at_once }) in arrays.enumerate() {
        let after: Vec<Place> = waits_for.iter().filter_map(|&trial| places[trial]).collect();
        let tasks = jobs.len();
        let script = script::Script { plan, submitting, folder, tasks, at_once, after: &after };
        let path = folder.join(format!("array-{number}.sbatch"));
        fs_err::write(&path, script.to_string())?;
        let job = slurm.submit(&path, &script.words())?;
        for (task, &index) in jobs.iter().enumerate() {
            places[index] = Some(Place { job, task });
        }
        // At once: what is queued must be known, whatever comes next.
        submission.add(folder, job, jobs.iter().map(|&job| Task::of(plan, job)).collect())?;
        let then = match after.as_slice() {
            [] => String::new(),
            [_] => ", after 1 trial".into(),
            after => format!(", after {} trials", after.len()),
        };
        print(&format!("submitted {} as job {job}{then}: {}", runs(tasks), place(&path)));
    }
    ensure!(!groups.is_empty(), "there is nothing to submit: no open run can start");
    print(&format!(
        "`squeue --me` follows them; what they say is in {}; the same command says how they stand, \
         and prints the tables of those that are done",
        place(&folder.join("log"))
    ));
    Ok(())
}

/// Runs that wait for the same trials, or for none: places in the plan.
struct Group {
    waits_for: Vec<usize>,
    jobs: Vec<usize>,
}

/// Those of a group that are submitted together.
struct Array<'a> {
    waits_for: &'a [usize],
    jobs: &'a [usize],
    at_once: Option<usize>,
}

impl Group {
    /// As few arrays as can be of at most so many runs, about equally many in each. None waits for
    /// another, so that `at_once` is shared out among them, with at least one for each.
    fn arrays(&self, most: usize, at_once: Option<u16>) -> impl Iterator<Item = Array<'_>> {
        let runs = self.jobs.len();
        let chunks = self.jobs.chunks(runs.div_ceil(runs.div_ceil(most)));
        let count = chunks.len();
        chunks.enumerate().map(move |(place, jobs)| Array {
            waits_for: &self.waits_for,
            jobs,
            at_once: at_once.map(|most| ((usize::from(most) + place) / count).max(1)),
        })
    }
}

fn runs(count: usize) -> String {
    if count == 1 { "1 run".into() } else { format!("{count} runs") }
}

/// Removes the configurations that finished runs were started with; true if all are finished.
fn sweep(submission: &Submission, runs: &Path) -> Result<bool> {
    let mut all_done = true;
    for (.., task) in submission.tasks() {
        match task.run(runs)?.filter(Run::is_done) {
            Some(run) => run.sweep()?,
            None => all_done = false,
        }
    }
    Ok(all_done)
}

/// How the runs of a submission stand.
fn standing(plan: &Plan, submission: &Submission, queue: &Queue, runs: &Path) -> Result<Table> {
    let mut table = Table::new(["run", "job", "state"], 3);
    for (job, task, what) in submission.tasks() {
        let run = what.run(runs)?;
        let id = run.as_ref().map_or_else(|| what.id.clone(), |run| run.config.run_id());
        let state = match (queue.state(job, task), &run) {
            (Some(state), _) => state,
            (None, Some(run)) if run.is_done() => "done".into(),
            (None, Some(run)) if run.failure().is_some() => {
                format!("failed: {}", run.failure().unwrap_or_default())
            }
            (None, _) => {
                let log = folder(runs, plan).join("log").join(format!("{job}_{task}.txt"));
                match log.is_file() {
                    true => format!("not done; see {}", log.display()),
                    false => "not started".into(),
                }
            }
        };
        table.push([id, format!("{job}_{task}"), state]);
    }
    Ok(table)
}
