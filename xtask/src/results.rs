use std::path::Path;

use anyhow::{Result, ensure};
use nsmc_eval::study::{Plan, PlannedRun, Study, collect};
use nsmc_experiment::{ExperimentConfig, Profile};

use crate::args::Results;
use crate::workspace::Workspace;
use crate::{report, say, tables};

pub(crate) fn run(workspace: &Workspace, args: &Results) -> Result<()> {
    let profile = workspace.profile(&args.profile)?;
    let seeds = args.seeds.map_or_else(|| profile.seeds.clone(), |seeds| (0..seeds).collect());
    let plan = plan(workspace, &profile, &seeds, &args.set)?;
    let default = Path::new("results").join(&profile.name);
    let folder = workspace.folder(args.out.as_deref().unwrap_or(&default));
    let collection = collect(&plan, &workspace.folder(&args.runs), &folder)?;
    for failed in &collection.failed {
        say(&format!("failed: {failed}"));
    }
    for missing in &collection.missing {
        say(&format!("missing: {missing}"));
    }
    let (found, planned) =
        (collection.runs.len(), collection.runs.len() + collection.missing.len());
    ensure!(found > 0, "none of the {planned} runs of `{}` has been run", profile.name);
    let study = Study::read_results(&folder)?;
    write(workspace, &study, &folder)?;
    say(&format!("{found} of {planned} runs, with tables and report, in {}", folder.display()));
    Ok(())
}

/// Writes tables, report and plots of a study into the folder of its results.
fn write(workspace: &Workspace, study: &Study, folder: &Path) -> Result<()> {
    for (name, render) in tables::FILES {
        fs_err::write(folder.join(name), render(study))?;
    }
    report::write(workspace, study, &folder.join(report::FILE), Some(&folder.join("plots")))
}

/// Every run of a profile.
pub(crate) fn plan(
    workspace: &Workspace,
    profile: &Profile,
    seeds: &[u64],
    set: &[String],
) -> Result<Plan> {
    let mut configs = Vec::new();
    for cell in &profile.cells {
        for &seed in seeds {
            configs.push(
                workspace.with_catalog(|catalog| Ok(profile.resolve(cell, seed, set, catalog)?))?,
            );
        }
    }
    Ok(plan_of(profile, &configs))
}

/// The plan that resolved runs of a profile are.
pub(crate) fn plan_of<'a>(
    profile: &Profile,
    configs: impl IntoIterator<Item = &'a ExperimentConfig>,
) -> Plan {
    Plan {
        profile: profile.name.clone(),
        paper_scale: profile.paper_scale,
        runs: configs.into_iter().map(PlannedRun::of).collect(),
    }
}
