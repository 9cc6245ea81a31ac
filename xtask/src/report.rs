use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nsmc_eval::study::Study;
use nsmc_experiment::DataConfig;

use crate::args;
use crate::workspace::Workspace;
use crate::{say, tables};

/// A report's name in a folder of results.
pub(crate) const FILE: &str = "report.html";
/// The folder of its plots there.
pub(crate) const PLOTS: &str = "plots";

pub(crate) fn run(workspace: &Workspace, args: &args::Report) -> Result<()> {
    let (study, folder) = tables::read(workspace, &args.which)?;
    let path = args.out.as_ref().map_or_else(|| folder.join(FILE), |out| workspace.folder(out));
    write(workspace, &study, &path, None)?;
    say(&format!("report: {}", path.display()));
    if args.open {
        open(&path)?;
    }
    Ok(())
}

/// Writes a report, and its plots where a folder is given for them.
pub(crate) fn write(
    workspace: &Workspace,
    study: &Study,
    path: &Path,
    plots: Option<&Path>,
) -> Result<()> {
    let report = nsmc_report::Report { study, texts: texts(workspace, study)? };
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    let partial = path.with_extension("html.partial");
    fs_err::write(&partial, report.html())?;
    fs_err::rename(partial, path)?;
    if let Some(folder) = plots {
        if folder.is_dir() {
            fs_err::remove_dir_all(folder)?;
        }
        fs_err::create_dir_all(folder)?;
        for figure in report.plots() {
            fs_err::write(folder.join(format!("{}.svg", figure.name)), figure.svg)?;
        }
    }
    Ok(())
}

/// The texts of the reviews that the report quotes, from the test file if it is here.
fn texts(workspace: &Workspace, study: &Study) -> Result<BTreeMap<String, String>> {
    let Some((data, wanted)) = nsmc_report::Report::quoted(study) else {
        return Ok(BTreeMap::new());
    };
    let wanted: BTreeSet<String> = wanted.into_iter().collect();
    let path = test_file(workspace, data)?;
    if data.id_column.is_empty() || data.quoting || !path.is_file() {
        return Ok(BTreeMap::new());
    }
    let content = fs_err::read_to_string(&path)?;
    let mut lines = content.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(&data.delimiter).collect();
    let column = |name: &str| header.iter().position(|found| *found == name);
    let (Some(id), Some(text)) = (column(&data.id_column), column(&data.text_column)) else {
        return Ok(BTreeMap::new());
    };
    let mut texts = BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split(&data.delimiter).collect();
        if let (Some(id), Some(text)) = (fields.get(id), fields.get(text))
            && wanted.contains(*id)
        {
            texts.insert((*id).to_owned(), (*text).to_owned());
        }
    }
    Ok(texts)
}

/// Where the run found the test file, or, for a record names no places, where downloads put it.
fn test_file(workspace: &Workspace, data: &DataConfig) -> Result<PathBuf> {
    let path = workspace.root.join(&data.test.path);
    if path.is_file() {
        return Ok(path);
    }
    let folder = workspace.root.join(Workspace::datasets_folder()).join(&data.dataset);
    let datasets = workspace.datasets()?;
    let entry = datasets.datasets.get(&data.dataset);
    Ok(entry.map_or(path, |entry| folder.join(&entry.test.name)))
}

/// Shows a file in the browser.
fn open(path: &Path) -> Result<()> {
    let opener = match std::env::consts::OS {
        "macos" => "open",
        "windows" => "explorer",
        _ => "xdg-open",
    };
    Command::new(opener)
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| {
            format!("`{opener}` cannot be started; open {} yourself", path.display())
        })?;
    Ok(())
}
