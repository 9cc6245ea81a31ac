use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nsmc_experiment::RunRecord;
use serde_json::Value;

use crate::grid::plan::{Plan, State};
use crate::grid::schedule::ERROR;
use crate::grid::stop::Stop;
use crate::holder::{Attempt, Holder, PATIENCE, patiently};
use crate::nsmc::Nsmc;
use crate::say;
use crate::train::Run;
use crate::workspace::Workspace;

/// The runs in the tables that shared the machine and were not timed again since, of those that
/// computed on one device of the kind that is at hand.
pub(crate) fn to_time(plan: &Plan, threads: usize, cuda: bool) -> Vec<usize> {
    let shared = |&job: &usize| {
        let run = &plan.jobs[job].run;
        plan.jobs[job].state() == State::Done
            && !run.config.method.is_baseline()
            && RunRecord::read(&run.folder.join("record.json")).is_ok_and(|record| {
                let results = record.results.as_ref();
                let alone = results.and_then(|results| results.epoch_seconds_alone);
                let here = record.gpus() == usize::from(cuda);
                here && record.threads <= threads && alone.is_none()
            })
    };
    // A run that is a row of two recipes is timed once.
    let mut jobs = Vec::new();
    for (job, _) in plan.rows() {
        if !jobs.contains(&job) {
            jobs.push(job);
        }
    }
    jobs.into_iter().filter(shared).collect()
}

/// How the measurements of a grid ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Timed {
    /// Runs to measure.
    pub(crate) runs: usize,
    /// Those that were.
    pub(crate) measured: usize,
    /// Those that could not be, each with why.
    pub(crate) failures: Vec<String>,
    /// A signal stopped it before the last.
    pub(crate) stopped: bool,
}

/// Measures seconds per epoch of `jobs` again, one process at a time with every thread, and puts
/// them into their records: the time of a run that shared the machine says little of its method. One
/// that cannot be measured keeps no other from it.
pub(crate) fn time(
    workspace: &Workspace,
    nsmc: &Nsmc,
    plan: &Plan,
    jobs: &[usize],
    stop: &Stop,
) -> Timed {
    let mut timed = Timed { runs: jobs.len(), ..Timed::default() };
    for &job in jobs {
        if stop.asked() > 0 {
            timed.stopped = true;
            break;
        }
        let run = &plan.jobs[job].run;
        match time_one(workspace, nsmc, run, stop) {
            Ok(()) => timed.measured += 1,
            // The signal ended the measurement, too.
            Err(_) if stop.asked() > 0 => {
                timed.stopped = true;
                break;
            }
            Err(error) => timed.failures.push(format!("{}: {error:#}", run.config.run_id())),
        }
    }
    timed
}

fn time_one(workspace: &Workspace, nsmc: &Nsmc, run: &Run, stop: &Stop) -> Result<()> {
    let id = run.config.run_id();
    // The measurement of an xtask that was killed.
    patiently(&id, stop, PATIENCE, || {
        Ok(Holder::of(&run.folder)?.map_or(Attempt::Made(()), Attempt::Held))
    })?;
    let record = RunRecord::read(&run.folder.join("record.json"))?;
    let results = record.results.context("a run that is done has results")?;
    if results.epoch_seconds_alone.is_some() {
        // Another grid, which shares the run, was faster.
        return Ok(());
    }
    let shared =
        results.epoch_seconds().context("a run that is done has the time of its epochs")?;
    let seconds = measure(workspace, nsmc, &run.folder, stop)?;
    say(&format!("{id}: {seconds:.1} s per epoch alone, {shared:.1} s beside others"));
    Ok(())
}

fn measure(workspace: &Workspace, nsmc: &Nsmc, folder: &Path, stop: &Stop) -> Result<f64> {
    let arguments =
        ["bench".into(), "run".into(), "--run".into(), folder.into(), "--record".into()];
    let mut command = nsmc.command(workspace, &arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = nsmc.tie(command)?.output(stop)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = stderr.trim();
    ensure!(output.status.success(), "{}", said.strip_prefix(ERROR).unwrap_or(said));
    let line: Value = serde_json::from_slice(&output.stdout).context("the measurement's JSON")?;
    line["epoch_s"].as_f64().context("the measurement has no `epoch_s`")
}
