use anyhow::{Result, bail};
use nsmc_eval::{EvaluatedRun, Table, paper_table, results_table};
use nsmc_experiment::Cell;

use crate::args::Reproduce;
use crate::nsmc::Nsmc;
use crate::train::Run;
use crate::workspace::Workspace;
use crate::{offline, print, say};

pub(crate) fn run(workspace: &Workspace, args: &Reproduce) -> Result<()> {
    let profile = workspace.chosen_profile(&args.options)?;
    let options = if args.dry_run {
        args.options.clone()
    } else {
        offline::with_data(workspace, &profile, &args.options)?
    };
    let seeds: Vec<u64> =
        args.seeds.map_or_else(|| profile.seeds.clone(), |seeds| (0..seeds).collect());
    let mut plan: Vec<(&Cell, Run)> = Vec::new();
    for cell in &profile.cells {
        for &seed in &seeds {
            plan.push((cell, Run::resolve(workspace, &profile, cell, seed, &options)?));
        }
    }
    print(&plan_table(workspace, &plan).terminal(None));
    if args.dry_run {
        return Ok(());
    }

    let mut failures = Vec::new();
    let mut folders = Vec::new();
    let mut nsmc = None;
    for (cell, run) in plan {
        let folder = run.folder.clone();
        if !run.is_done() {
            // One run's failure is no reason to keep the others from running.
            let id = run.config.run_id();
            let outcome = run.fetch(workspace, &profile, cell, &options).and_then(|run| {
                if nsmc.is_none() {
                    nsmc = Some(Nsmc::build(workspace, args.options.device)?);
                }
                run.start(workspace, nsmc.as_ref().expect("it was just built"), false, false)
            });
            if let Err(error) = outcome {
                say(&format!("error: {error:#}"));
                failures.push(format!("{id}: {error:#}"));
            }
        }
        folders.push(folder);
    }

    let mut runs = Vec::new();
    for folder in folders.iter().filter(|folder| folder.join("record.json").is_file()) {
        runs.push(EvaluatedRun::read(folder)?);
    }
    print(&results_table(&runs).terminal(None));
    if let Some(table) = paper_table(&runs) {
        print("Beside the paper, averaged over batches as it did:");
        print(&table.terminal(None));
    }
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{} of {} runs failed\n{}", failures.len(), folders.len(), failures.join("\n"))
}

fn plan_table(workspace: &Workspace, plan: &[(&Cell, Run)]) -> Table {
    let mut table = Table::new(["run", "method", "reviews", "seed", "state", "to fetch"], 2);
    for (_, run) in plan {
        let config = &run.config;
        table.push([
            config.run_id(),
            config.method.label(),
            config.data.train_size.to_string(),
            config.seed.to_string(),
            if run.is_done() { "done".into() } else { "to run".into() },
            run.missing(workspace).join(", "),
        ]);
    }
    table
}
