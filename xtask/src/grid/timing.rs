use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nsmc_experiment::RunRecord;
use serde_json::Value;

use crate::grid::plan::{Plan, State};
use crate::grid::stop::Stop;
use crate::holder::{Attempt, Holder, PATIENCE, patiently};
use crate::nsmc::Nsmc;
use crate::say;
use crate::workspace::Workspace;

/// The rows of the tables whose runs shared the machine and were not timed again since.
pub(crate) fn to_time(plan: &Plan, threads: usize) -> Vec<usize> {
    let shared = |&job: &usize| {
        let run = &plan.jobs[job].run;
        plan.jobs[job].state() == State::Done
            && !run.config.method.is_baseline()
            && RunRecord::read(&run.folder.join("record.json")).is_ok_and(|record| {
                let alone = record.results.and_then(|results| results.epoch_seconds_alone);
                record.threads <= threads && alone.is_none()
            })
    };
    plan.rows().into_iter().filter(shared).collect()
}

/// Measures seconds per epoch of `jobs` again, one process at a time with every thread, and puts
/// them into their records: the time of a run that shared the machine says little of its method.
pub(crate) fn time(
    workspace: &Workspace,
    nsmc: &Nsmc,
    plan: &Plan,
    jobs: &[usize],
    stop: &Stop,
) -> Result<()> {
    for (done, &job) in jobs.iter().enumerate() {
        let run = &plan.jobs[job].run;
        let id = run.config.run_id();
        let record = RunRecord::read(&run.folder.join("record.json"))?;
        let shared = record.results.and_then(|results| results.epoch_seconds());
        let shared = shared.context("a run that is done has the time of its epochs")?;
        // The measurement of an xtask that was killed.
        patiently(&id, stop, PATIENCE, || {
            Ok(Holder::of(&run.folder)?.map_or(Attempt::Made(()), Attempt::Held))
        })?;
        let seconds = measure(workspace, nsmc, &run.folder).with_context(|| id.clone());
        // Ctrl-C ends the measurement, too.
        ensure!(
            stop.asked() == 0,
            "stopped: {done} of {} times are measured; the same command goes on",
            jobs.len()
        );
        let seconds = seconds?;
        say(&format!("{id}: {seconds:.1} s per epoch alone, {shared:.1} s beside others"));
    }
    Ok(())
}

fn measure(workspace: &Workspace, nsmc: &Nsmc, folder: &std::path::Path) -> Result<f64> {
    let arguments =
        ["bench".into(), "run".into(), "--run".into(), folder.into(), "--record".into()];
    let mut command = nsmc.command(workspace, &arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = nsmc.tie(command)?.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", stderr.trim());
    let line: Value = serde_json::from_slice(&output.stdout).context("the measurement's JSON")?;
    line["epoch_s"].as_f64().context("the measurement has no `epoch_s`")
}
