use std::path::Path;

use anyhow::{Result, ensure};
use nsmc_eval::study::{Plan, PlannedRun, Study, collect};

use crate::args::{DeviceChoice, Options, Results, Source};
use crate::workspace::Workspace;
use crate::{grid, report, say, tables};

/// The profile of the paper's own cells and recipe.
const PAPER: &str = "paper";

pub(crate) fn run(workspace: &Workspace, args: &Results) -> Result<()> {
    let profile = workspace.profile(&args.profile)?;
    let seeds: Vec<u64> =
        args.seeds.map_or_else(|| profile.seeds.clone(), |seeds| (0..seeds).collect());
    let options = Options {
        profile: Some(profile.name.clone()),
        set: args.set.clone(),
        device: DeviceChoice::Cpu,
        runs: args.runs.clone(),
        source: Source { mirror: None },
    };
    let plan = grid::Plan::make(workspace, &profile, &seeds, &options)?;
    let waiting = plan.jobs.iter().filter(|job| !job.waits_for.is_empty()).count();
    ensure!(
        waiting == 0,
        "{waiting} runs of `{}` wait for trials that are not in {}: what they are is not known yet. \
         `cargo xtask reproduce --profile {}` goes on with them",
        profile.name,
        args.runs.display(),
        profile.name
    );
    let plan = plan_of(&plan);
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

/// Prints the main tables of the runs just made, and writes their report beside them; says last
/// whether they are the paper's. `set` is what was set over the profile.
pub(crate) fn present(
    workspace: &Workspace,
    plan: &grid::Plan,
    runs: &Path,
    set: &[String],
) -> Result<()> {
    let study = Study::read_runs(runs, Some(plan_of(plan)))?;
    for error in &study.unreadable {
        say(&format!("left out: {error}"));
    }
    for table in study.quality_tables().iter().chain(study.trouble_table().iter()) {
        tables::show(table);
    }
    let path = runs.join(format!("report-{}.html", plan.profile.name));
    report::write(workspace, &study, &path, None)?;
    let name = &plan.profile.name;
    say(&format!(
        "report: {}; `cargo xtask results --profile {name}` keeps all of it in results/{name}",
        path.display()
    ));
    if let Some(not_those) = not_the_papers(name, set, &path) {
        say(&not_those);
    }
    Ok(())
}

/// That numbers are not the paper's, how to get those, and where the report of these lies; none if
/// they are.
fn not_the_papers(profile: &str, set: &[String], report: &Path) -> Option<String> {
    let how = match (profile, set.is_empty()) {
        (PAPER, true) => return None,
        (PAPER, false) => {
            format!("`cargo xtask reproduce --profile {PAPER}` makes those, without `--set`")
        }
        _ => format!(
            "`cargo xtask reproduce --profile {PAPER}` makes those, with multilingual BERT on all of \
             NSMC, fetched or from `--mirror DIR`, and wants a GPU"
        ),
    };
    Some(format!(
        "These are not the paper's numbers: {how}; the report of these is {}.",
        report.display()
    ))
}

/// The rows of a profile's tables: its runs without those that only choose a configuration.
fn plan_of(plan: &grid::Plan) -> Plan {
    let rows = plan.rows().into_iter();
    Plan {
        profile: plan.profile.name.clone(),
        paper_scale: plan.profile.paper_scale,
        runs: rows.map(|job| PlannedRun::of(&plan.jobs[job].run.config)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_other_profile_or_setting_are_said_not_to_be_the_papers() {
        let said = |profile: &str, set: &[&str]| {
            let set: Vec<String> = set.iter().map(|&one| one.to_owned()).collect();
            not_the_papers(profile, &set, Path::new("runs/report.html"))
        };
        assert_eq!(said("paper", &[]), None);
        for (profile, set) in [
            ("mini", &[][..]),
            ("tuned", &[]),
            ("mini", &["data.dataset=sample"]),
            ("paper", &["seed=1"]),
        ] {
            let said = said(profile, set).unwrap();
            for words in ["not the paper's", "reproduce --profile paper", "runs/report.html"] {
                assert!(said.contains(words), "{profile} {set:?}: {said}");
            }
            assert_eq!(said.contains("--set"), profile == "paper", "{said}");
            assert!(!said.contains('\n'), "{said}");
        }
    }
}
