use anyhow::{Context, Result, bail, ensure};

use crate::args::{Launcher, Reproduce};
use crate::grid::{self, AtOnce, Costs, Plan, Starting, Stop, show, time, to_time};
use crate::holder::PATIENCE;
use crate::nsmc::Nsmc;
use crate::slurm::Submitting;
use crate::workspace::Workspace;
use crate::{offline, results, say, slurm};

pub(crate) fn run(workspace: &Workspace, args: &Reproduce) -> Result<()> {
    let profile = workspace.chosen_profile(&args.options)?;
    let options = if args.dry_run {
        args.options.clone()
    } else {
        offline::with_data(workspace, &profile, &args.options)?
    };
    let gpus = gpus(args)?;
    let seeds: Vec<u64> =
        args.seeds.map_or_else(|| profile.seeds.clone(), |seeds| (0..seeds).collect());
    let mut plan = Plan::make(workspace, &profile, &seeds, &options)?;
    let (runs_folder, jobs) =
        (workspace.folder(&options.runs), usize::from(args.jobs.unwrap_or(1)));
    let at_once = jobs * gpus.len().max(1);
    let threads = threads_of_each(at_once)?;
    let costs = Costs::of(workspace, &plan, &runs_folder, options.device.is_cuda(), threads)?;
    let at_slurm = args.launcher == Launcher::Slurm && slurm::is_queued(&plan, &runs_folder)?;
    if args.dry_run || !at_slurm {
        show(workspace, &plan, &costs, &runs_folder, &AtOnce { jobs, gpus: gpus.len() })?;
    }
    if args.dry_run {
        return Ok(());
    }
    if args.launcher == Launcher::Slurm {
        let submitting = Submitting {
            workspace,
            options: &options,
            seeds: &seeds,
            sbatch: &args.slurm_options,
            at_once: args.jobs,
        };
        slurm::reproduce(&mut plan, &submitting)?;
        return match plan.done() {
            0 => Ok(()),
            _ => results::present(workspace, &plan, &runs_folder, &options.set),
        };
    }

    let mut failures = Vec::new();
    let shared = |plan: &Plan| if at_once > 1 { to_time(plan, threads) } else { Vec::new() };
    if plan.is_open() || !shared(&plan).is_empty() {
        let failed = plan.fetch(workspace, &options);
        let nsmc = Nsmc::build(workspace, options.device)?;
        let starting = Starting {
            workspace,
            options: &options,
            nsmc: &nsmc,
            jobs,
            gpus,
            threads: (at_once > 1).then_some(threads),
            stop: Stop::on_signal()?,
            patience: PATIENCE,
        };
        let outcome = grid::run(&mut plan, &starting, &costs.seconds(), failed)?;
        ensure!(
            !outcome.stopped,
            "stopped: {} of {} runs are done; the same command goes on",
            plan.done(),
            plan.jobs.len()
        );
        failures = outcome.failures;
        let shared = shared(&plan);
        if !shared.is_empty() {
            say(&format!("timing {} runs again, one at a time", shared.len()));
            // On one GPU: whatever else runs on the machine, is beside it.
            let nsmc = nsmc.on(gpus.get(..1).unwrap_or_default());
            time(workspace, &nsmc, &plan, &shared, &starting.stop)?;
        }
    }

    plan.sweep()?;
    results::present(workspace, &plan, &runs_folder, &options.set)?;
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{} of {} runs failed\n{}", failures.len(), plan.jobs.len(), failures.join("\n"))
}

/// The GPUs that the runs are spread over.
fn gpus(args: &Reproduce) -> Result<&[u16]> {
    ensure!(
        args.devices.is_empty() || args.launcher == Launcher::Local,
        "`--devices`: Slurm gives each run its GPU; ask it with `--slurm-option=--gres=gpu:1`"
    );
    args.options.device.gpus(&args.devices)
}

/// The threads of each of so many runs at once.
fn threads_of_each(jobs: usize) -> Result<usize> {
    let cores = match std::env::var("RAYON_NUM_THREADS") {
        Ok(text) => text.parse().with_context(|| format!("RAYON_NUM_THREADS={text}"))?,
        Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
    };
    Ok((cores / jobs).max(1))
}
