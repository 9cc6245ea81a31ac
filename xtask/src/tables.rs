use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nsmc_eval::study::{Plan, Study, StudyTable};

use crate::args::{Tables, Which};
use crate::workspace::Workspace;
use crate::{print, report, say};

/// What is made of a folder of results, each with how to make it.
type Render = fn(&Study) -> String;
pub(crate) const FILES: [(&str, Render); 3] =
    [("tables.md", Study::markdown), ("tables.csv", Study::csv), ("tables.tex", Study::latex)];

pub(crate) fn run(workspace: &Workspace, args: &Tables) -> Result<()> {
    if args.check {
        return check(workspace, &args.which);
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
    print(&format!("\n{}\n{}\n{}", title.en, table.english().terminal(None), note.en));
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
    let folder = workspace.folder(which.runs.as_deref().unwrap_or(Path::new("runs")));
    let study = Study::read_runs(&folder, None)?;
    for error in &study.unreadable {
        say(&format!("left out: {error}"));
    }
    ensure!(!study.cells.is_empty(), "{}: no run has left a record here", folder.display());
    Ok((study, folder))
}

/// Makes tables and plots again and compares them with those in the folder; a report, which may quote
/// reviews that are not here, has to be there.
fn check(workspace: &Workspace, which: &Which) -> Result<()> {
    let mut folders = Vec::new();
    if which.profile.is_some() || which.results.is_some() {
        folders.push(read(workspace, which)?.1);
    } else {
        for entry in fs_err::read_dir(workspace.root.join("results"))? {
            let path = entry?.path();
            if path.join(Plan::FILE).is_file() {
                folders.push(path);
            }
        }
        folders.sort();
    }
    let mut drifted = Vec::new();
    for folder in &folders {
        let study = Study::read_results(folder)?;
        for (name, render) in FILES {
            let path = folder.join(name);
            if fs_err::read_to_string(&path).ok().as_ref() != Some(&render(&study)) {
                drifted.push(path.strip_prefix(&workspace.root).unwrap_or(&path).to_path_buf());
            }
        }
        let report = nsmc_report::Report { study: &study, texts: BTreeMap::new() };
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
            folders.len()
        ));
        return Ok(());
    }
    let drifted: Vec<String> = drifted.iter().map(|path| path.display().to_string()).collect();
    bail!(
        "not what the runs beside them say, or not there: {}; `cargo xtask results --profile NAME` \
         writes them",
        drifted.join(", ")
    )
}
