use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use nsmc_eval::paragraph;
use nsmc_eval::study::{Plan, Study, StudyTable};

use crate::args::{Tables, Which};
use crate::workspace::Workspace;
use crate::{print, report, results, say};

/// What is made of a folder of results, each with how to make it.
type Render = fn(&Study) -> String;
pub(crate) const FILES: [(&str, Render); 3] =
    [("tables.md", Study::markdown), ("tables.csv", Study::csv), ("tables.tex", Study::latex)];

pub(crate) fn run(workspace: &Workspace, args: &Tables) -> Result<()> {
    if args.check {
        return check(workspace, &args.which);
    }
    if args.write {
        return write(workspace, &args.which);
    }
    let (study, _) = read(workspace, &args.which)?;
    if args.markdown {
        print(study.markdown().trim_end());
    } else if args.csv {
        print(study.csv().trim_end());
    } else if args.latex {
        print(study.latex().trim_end());
    } else {
        for table in study.tables() {
            show(&table);
        }
    }
    Ok(())
}

/// Prints a table and how to read it.
pub(crate) fn show(table: &StudyTable) {
    let StudyTable { title, note, table, .. } = table;
    let note = paragraph(&note.en);
    print(&format!("\n{}\n{}\n{note}", title.en, table.english().for_stdout()));
}

/// The study that is meant, and the folder it was read from.
pub(crate) fn read(workspace: &Workspace, which: &Which) -> Result<(Study, PathBuf)> {
    let results = match (&which.profile, &which.results) {
        (Some(profile), _) => Some(workspace.root.join("results").join(profile)),
        (None, Some(folder)) => Some(workspace.folder(folder)),
        (None, None) => None,
    };
    if let Some(folder) = results {
        if !folder.join(Plan::FILE).is_file() {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            bail!(
                "{}: no results here; `cargo xtask results --profile {name}` collects them from runs/",
                folder.display()
            );
        }
        let study = Study::read_results(&folder)
            .with_context(|| format!("results in {}", folder.display()))?;
        return Ok((study, folder));
    }
    let folder = workspace.folder(which.runs());
    let study = Study::read_runs(&folder, None)?;
    for error in &study.unreadable {
        say(&format!("left out: {error}"));
    }
    ensure!(!study.cells.is_empty(), "{}: no run has left a record here", folder.display());
    Ok((study, folder))
}

/// The collected results that are meant: those of one folder, or of each in results/.
fn collected(workspace: &Workspace, which: &Which) -> Result<Vec<(Study, PathBuf)>> {
    if which.profile.is_some() || which.results.is_some() {
        return Ok(vec![read(workspace, which)?]);
    }
    let mut folders = Vec::new();
    for entry in fs_err::read_dir(workspace.root.join("results"))? {
        let path = entry?.path();
        if path.join(Plan::FILE).is_file() {
            folders.push(path);
        }
    }
    ensure!(
        !folders.is_empty(),
        "results/: expected a folder with a {}, found none; `cargo xtask results --profile NAME` makes it",
        Plan::FILE
    );
    folders.sort();
    folders.into_iter().map(|folder| Ok((Study::read_results(&folder)?, folder))).collect()
}

/// Makes tables, plots and report of collected results anew, without the runs.
fn write(workspace: &Workspace, which: &Which) -> Result<()> {
    let runs = workspace.folder(which.runs());
    for (study, folder) in collected(workspace, which)? {
        results::write(workspace, &study, &runs, &folder)?;
        say(&format!("{}: tables, plots and report are made anew", folder.display()));
    }
    Ok(())
}

/// Makes tables and plots again and compares them with those in the folder; a report, which may quote
/// reviews that are not here, has to be there.
fn check(workspace: &Workspace, which: &Which) -> Result<()> {
    let studies = collected(workspace, which)?;
    let mut drifted = Vec::new();
    for (study, folder) in &studies {
        for (name, render) in FILES {
            let path = folder.join(name);
            if fs_err::read_to_string(&path).ok().as_ref() != Some(&render(study)) {
                drifted.push(path.strip_prefix(&workspace.root).unwrap_or(&path).to_path_buf());
            }
        }
        let report = nsmc_report::Report { study, texts: BTreeMap::new() };
        for figure in report.plots() {
            let path = folder.join(report::PLOTS).join(format!("{}.svg", figure.name));
            if fs_err::read_to_string(&path).ok().as_ref() != Some(&figure.svg) {
                drifted.push(path.strip_prefix(&workspace.root).unwrap_or(&path).to_path_buf());
            }
        }
        if !folder.join(report::FILE).is_file() {
            drifted.push(folder.join(report::FILE));
        }
    }
    if drifted.is_empty() {
        say(&format!(
            "{} folders of results: their tables and plots are those of their runs",
            studies.len()
        ));
        return Ok(());
    }
    let drifted: Vec<String> = drifted.iter().map(|path| path.display().to_string()).collect();
    bail!(
        "not what the runs beside them say, or not there: {}; `cargo xtask tables --write` makes them \
         anew",
        drifted.join(", ")
    )
}

#[cfg(all(test, unix))]
mod tests {
    use clap::Parser as _;
    use nsmc_eval::study::{PlannedRun, collect};

    use super::*;
    use crate::args::{Args, Command};
    use crate::fabricated;

    fn tables(workspace: &Workspace, arguments: &[&str]) -> Result<(), String> {
        let args = Args::parse_from([&["xtask", "tables"][..], arguments].concat());
        let Command::Tables(args) = args.command else { panic!("another task") };
        run(workspace, &args).map_err(|error| error.to_string())
    }

    #[test]
    fn where_there_are_no_results_none_are_as_they_should_be() {
        let root = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(root.path().join("results/lost")).unwrap();
        for arguments in ["--check", "--write"] {
            let error = tables(&Workspace::at(root.path()), &[arguments]).unwrap_err();
            assert!(error.contains("expected a folder with a plan.json, found none"), "{error}");
        }
    }

    #[test]
    fn what_differs_from_the_runs_is_made_anew_without_them() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(root.path());
        let (runs, folder) = (root.path().join("runs"), root.path().join("results/own"));
        let vanilla = fabricated::config("plain", 1000, 0);
        let configs = [fabricated::lora(vanilla.clone(), 64, 1.0), vanilla];
        for (config, accuracy) in configs.iter().zip([0.62, 0.86]) {
            fabricated::run(&runs, config, accuracy, 1.0);
        }
        let planned = configs.iter().map(PlannedRun::of).collect();
        let plan = Plan { profile: "own".into(), paper_scale: None, runs: planned };
        collect(&plan, &runs, &folder).unwrap();
        fs_err::remove_dir_all(runs).unwrap();
        fs_err::create_dir_all(root.path().join("datasets")).unwrap();
        fs_err::write(root.path().join("datasets/manifest.toml"), "").unwrap();

        let tables = |arguments: &[&str]| tables(&workspace, arguments);
        let error = tables(&["--check"]).unwrap_err();
        assert!(error.contains("`cargo xtask tables --write`"), "{error}");
        tables(&["--write"]).unwrap();
        tables(&["--check"]).unwrap();
        fs_err::write(folder.join("tables.md"), "as they were worded before").unwrap();
        fs_err::remove_file(folder.join(report::FILE)).unwrap();
        let error = tables(&["--check", "--profile", "own"]).unwrap_err();
        assert!(error.contains("results/own/tables.md, "), "{error}");
        for which in [["--profile", "own"], ["--results", "results/own"]] {
            fs_err::remove_dir_all(folder.join(report::PLOTS)).unwrap();
            tables(&[&["--write"][..], &which].concat()).unwrap();
            tables(&["--check"]).unwrap();
        }
    }
}
