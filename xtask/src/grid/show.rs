use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use nsmc_eval::{Table, duration};
use nsmc_experiment::ExperimentConfig;

use crate::grid::estimate::{Estimate, Speeds};
use crate::grid::plan::{Job, Plan, State};
use crate::grid::room::Room;
use crate::print;
use crate::workspace::Workspace;

/// How many runs are at work at once.
pub(crate) struct AtOnce {
    /// On each GPU.
    pub(crate) jobs: usize,
    /// GPUs that were named.
    pub(crate) gpus: usize,
}

impl AtOnce {
    fn runs(&self) -> usize {
        self.jobs * self.gpus.max(1)
    }
}

/// What a plan is expected to take.
pub(crate) struct Costs {
    estimates: Vec<Option<Estimate>>,
    rooms: Vec<Option<Room>>,
    /// Whether the runs are on GPUs.
    cuda: bool,
}

impl Costs {
    /// From the records in `runs` where there are some, from the models' sizes where not.
    pub(crate) fn of(
        workspace: &Workspace,
        plan: &Plan,
        runs: &Path,
        cuda: bool,
        threads: usize,
    ) -> Result<Self> {
        let speeds = Speeds::read(runs, workspace.datasets()?, cuda)?;
        let configs: Vec<ExperimentConfig> =
            plan.jobs.iter().map(|job| workspace.located(&job.run.config)).collect();
        Ok(Self {
            estimates: configs.iter().map(|config| speeds.estimate(config, threads)).collect(),
            rooms: configs.iter().map(Room::of).collect(),
            cuda,
        })
    }

    pub(crate) fn seconds(&self) -> Vec<Option<f64>> {
        self.estimates.iter().map(|estimate| Some((*estimate)?.seconds)).collect()
    }
}

/// Prints a plan: its runs in their order, what is to be fetched, and what it takes.
pub(crate) fn show(
    workspace: &Workspace,
    plan: &Plan,
    costs: &Costs,
    runs: &Path,
    at_once: &AtOnce,
) -> Result<()> {
    let states: Vec<State> = plan.jobs.iter().map(Job::state).collect();
    let header = ["run", "recipe", "method", "reviews", "rate", "seed", "state", "time"];
    let mut table = Table::new(header, 3);
    for ((job, state), estimate) in plan.jobs.iter().zip(&states).zip(&costs.estimates) {
        table.push(row(job, *state, *estimate));
    }
    print(&table.for_stdout());
    for choice in &plan.choices {
        print(choice);
    }
    for lost in lost(plan) {
        print(&lost);
    }

    let open: Vec<usize> = (0..plan.jobs.len()).filter(|&job| states[job] != State::Done).collect();
    let count = |state| states.iter().filter(|&&found| found == state).count();
    let trials = open.iter().filter(|&&job| plan.jobs[job].cell.trial).count();
    let mut runs_line = format!("runs: {} in all, {} done", plan.jobs.len(), count(State::Done));
    for (count, what) in [
        (count(State::Stopped), "were stopped and go on"),
        (trials, "are trials, which choose what others take"),
    ] {
        if count > 0 {
            runs_line += &format!(", {count} {what}");
        }
    }
    print(&runs_line);
    print(&format!("to fetch: {}", to_fetch(workspace, plan, &open)?));
    print(&time(costs, &open, at_once));
    print(&room(costs, &open, runs, at_once));
    Ok(())
}

fn row(job: &Job, state: State, estimate: Option<Estimate>) -> [String; 8] {
    let config = &job.run.config;
    let state = match state {
        State::Done => "done".into(),
        State::Stopped => "goes on".into(),
        State::New => "to run".into(),
        State::Waits => format!("after {} trials", job.waits_for.len()),
    };
    let baseline = config.method.is_baseline();
    let rate = match job.waits_for.is_empty() {
        _ if baseline => "–".into(),
        true => format!("{:e}", config.training.learning_rate),
        false => "?".into(),
    };
    let time = match estimate {
        Some(Estimate { seconds, measured: 0 }) => format!("{} *", duration(seconds)),
        Some(Estimate { seconds, .. }) => duration(seconds),
        None => "?".into(),
    };
    [
        job.shown_id(),
        if baseline { "–".into() } else { config.recipe.clone() },
        config.method.label(),
        config.data.train_size.to_string(),
        rate,
        if baseline { "–".into() } else { config.seed.to_string() },
        state,
        time,
    ]
}

/// Runs that are done and stand in no table, for their predictions are gone, and what is to be done.
/// Those of a trial are in none anyhow.
fn lost(plan: &Plan) -> Vec<String> {
    let lost = plan.jobs.iter().filter(|job| !job.cell.trial && job.run.lacks_predictions());
    let told = lost.map(|job| {
        format!(
            "{} is done, but its predictions.tsv is gone, and no table can have it: put it back, or \
             delete {}, and the same command runs it anew",
            job.run.config.run_id(),
            job.run.folder.display()
        )
    });
    told.collect()
}

/// What is not on this machine, with sizes.
fn to_fetch(workspace: &Workspace, plan: &Plan, open: &[usize]) -> Result<String> {
    let (datasets, models) = (workspace.datasets()?, workspace.models()?);
    let mut missing: BTreeMap<String, Option<u64>> = BTreeMap::new();
    for &job in open {
        for name in plan.jobs[job].run.missing(workspace) {
            let data = datasets.datasets.get(&name);
            let bytes = data.map(|data| data.train.bytes + data.test.bytes);
            let bytes = bytes.or_else(|| Some(models.models.get(&name)?.bytes));
            missing.insert(name, bytes);
        }
    }
    if missing.is_empty() {
        return Ok("nothing".into());
    }
    let lines = missing.iter().map(|(name, size)| match size {
        Some(size) => format!("{name} ({})", bytes(*size as f64)),
        None if models.adapters.contains_key(name) => name.clone(),
        None => format!("{name} (no manifest names it: it is to be put there first)"),
    });
    Ok(lines.collect::<Vec<_>>().join(", "))
}

fn time(costs: &Costs, open: &[usize], at_once: &AtOnce) -> String {
    if open.is_empty() {
        return "time: none, everything is done".into();
    }
    let estimates: Vec<Estimate> = open.iter().filter_map(|&job| costs.estimates[job]).collect();
    let seconds: f64 = estimates.iter().map(|estimate| estimate.seconds).sum::<f64>();
    let guessed = estimates.iter().filter(|estimate| estimate.measured == 0).count();
    let unknown = open.len() - estimates.len();
    let runs = at_once.runs();
    // What one GPU gains by several runs at once is not known beforehand.
    let beside = if costs.cuda { at_once.gpus.max(1) } else { runs };
    let most = if beside < runs { "at most " } else { "" };
    if estimates.is_empty() {
        return "time: not known, for the model's size is not, or the number of reviews".into();
    }
    let time = duration(seconds / beside.min(open.len()) as f64);
    let mut line = format!("time: {most}about {time}");
    if runs > 1 {
        line += &format!(", {runs} runs at once");
    }
    if at_once.gpus > 1 {
        line += &format!(" on {} GPUs", at_once.gpus);
    }
    line += match guessed {
        0 => "; by earlier runs on this machine",
        _ if guessed == estimates.len() => "; * a guess by the models' sizes, for no like run was",
        _ => "; by earlier runs on this machine, and * a guess by the models' sizes where none was",
    };
    if unknown > 0 {
        line += &format!(
            "; {unknown} runs not counted, for their model's size is not known, or the number of \
             reviews"
        );
    }
    line
}

fn room(costs: &Costs, open: &[usize], runs: &Path, at_once: &AtOnce) -> String {
    let rooms: Vec<Room> = open.iter().filter_map(|&job| costs.rooms[job]).collect();
    let largest = |part: fn(&Room) -> f64, jobs: usize| {
        let mut parts: Vec<f64> = rooms.iter().map(part).collect();
        parts.sort_by(f64::total_cmp);
        parts.iter().rev().take(jobs).sum::<f64>()
    };
    let kept: f64 = rooms.iter().map(|room| room.kept).sum();
    let disk = kept + largest(|room| room.passing, at_once.runs());
    // That of each GPU.
    let beside = if costs.cuda { at_once.jobs } else { at_once.runs() };
    let memory = largest(|room| room.memory, beside);
    let free =
        |free: Option<f64>| free.map_or(String::new(), |free| format!(" of {} free", bytes(free)));
    let (of, free_memory) = match costs.cuda {
        true => ("the GPU's memory", None),
        false => ("memory", free_memory()),
    };
    format!(
        "room: about {} on disk{}, {} in {of}{}",
        bytes(disk),
        free(free_disk(runs)),
        bytes(memory),
        free(free_memory)
    )
}

/// Bytes free for this user where `folder` is or will be.
#[cfg(unix)]
fn free_disk(folder: &Path) -> Option<f64> {
    let existing = folder.ancestors().find(|folder| folder.is_dir())?;
    let found = nix::sys::statvfs::statvfs(existing).ok()?;
    Some(found.blocks_available() as f64 * found.fragment_size() as f64)
}

#[cfg(not(unix))]
fn free_disk(_: &Path) -> Option<f64> {
    None
}

/// Bytes that Linux says are available.
fn free_memory() -> Option<f64> {
    let text = fs_err::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024.0)
}

/// Bytes in the unit that suits them.
fn bytes(bytes: f64) -> String {
    match bytes {
        // The sum of nothing is −0.
        bytes if bytes < 1e6 => format!("{:.0} kB", (bytes / 1e3).ceil() + 0.0),
        bytes if bytes < 9.95e8 => format!("{:.0} MB", bytes / 1e6),
        bytes => format!("{:.1} GB", bytes / 1e9),
    }
}
