use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use nsmc_experiment::{AdapterEntry, DatasetEntry, FileEntry, ModelLock, RawEntry, sha256_file};

use crate::args::{Download, Source};
use crate::transfer::{Client, Expected, Patience, copy, lock_beside};
use crate::workspace::Workspace;
use crate::{hub, say};

pub(crate) fn run(workspace: &Workspace, args: &Download) -> Result<()> {
    let (datasets, models) = (workspace.datasets()?, workspace.models()?);
    let lock = ModelLock::read(&workspace.model_lock())?;
    let known =
        || datasets.datasets.keys().chain(models.models.keys()).chain(models.adapters.keys());
    for name in &args.names {
        if !known().any(|known| known == name) {
            let known: Vec<&str> = known().map(String::as_str).collect();
            bail!("`{name}`: expected one of {}", known.join(", "));
        }
    }
    let wanted = |name: &String| args.names.contains(name);
    for (name, entry) in &datasets.datasets {
        if args.names.is_empty() || wanted(name) {
            dataset(workspace, name, entry, &args.source)?;
        }
    }
    for (name, entry) in &models.models {
        if wanted(name) {
            let folder = hub::fetch(workspace, name, entry)?;
            say(&format!("{name}: {}", folder.display()));
        } else if args.names.is_empty() && hub::find(&lock, name, entry).is_none() {
            say(&format!(
                "{name} ({} MB) is fetched when a run needs it, or by `cargo xtask download {name}`",
                entry.bytes / 1_000_000
            ));
        }
    }
    for (name, entry) in &models.adapters {
        if wanted(name) {
            adapter(workspace, name, entry, &args.source)?;
        }
    }
    Ok(())
}

/// Puts an adapter's archive into `models/adapters/`; one that is right already is left alone.
pub(crate) fn adapter(
    workspace: &Workspace,
    name: &str,
    entry: &AdapterEntry,
    source: &Source,
) -> Result<()> {
    let folder = workspace.root.join(Workspace::adapters_folder());
    fs_err::create_dir_all(&folder)?;
    let target = folder.join(&entry.file);
    if is_there(&target, &entry.sha256)? {
        return Ok(());
    }
    let expected = Expected { sha256: Some(entry.sha256.clone()), ..Expected::default() };
    let mirrored = source.mirror().map(|mirror| mirror.join("adapters").join(&entry.file));
    match mirrored.filter(|file| file.is_file()) {
        Some(file) => copy(&file, &target, &expected)?,
        None => fetch(&entry.url, &target, &expected).with_context(|| {
            format!(
                "the adapter `{name}`: without network, give a folder that holds adapters/{} with \
                 `--mirror DIR` or NSMC_MIRROR, or leave it out of `method.setup`",
                entry.file
            )
        })?,
    }
    say(&format!("{}: sha256 {}", target.display(), entry.sha256));
    Ok(())
}

/// Puts a data set's files into `datasets/<name>/`; files that are right already are left alone.
pub(crate) fn dataset(
    workspace: &Workspace,
    name: &str,
    entry: &DatasetEntry,
    source: &Source,
) -> Result<()> {
    let folder = workspace.root.join(Workspace::datasets_folder()).join(name);
    fs_err::create_dir_all(&folder)?;
    for file in [&entry.train, &entry.test] {
        let target = folder.join(&file.name);
        if is_there(&target, &file.sha256)? {
            continue;
        }
        ensure!(
            !file.url.is_empty(),
            "{}: the file of this repository is missing or changed; `git checkout` brings it back",
            target.display()
        );
        if let Some(mirror) = source.mirror() {
            copy(&mirror.join(name).join(&file.name), &target, &expected(file))?;
        } else {
            let fetched = fetch(&file.url, &target, &expected(file));
            fetched.with_context(|| {
                format!(
                    "the data set `{name}`: without network, give a folder that holds \
                     {name}/{} with `--mirror DIR` or NSMC_MIRROR",
                    file.name
                )
            })?;
        }
        say(&format!("{}: {} rows, sha256 {}", target.display(), file.rows, file.sha256));
    }
    Ok(())
}

/// Puts a data set's archive into its folder; one that is there already is left alone.
pub(crate) fn raw(
    workspace: &Workspace,
    name: &str,
    entry: &RawEntry,
    source: &Source,
) -> Result<()> {
    let target = workspace.root.join(Workspace::datasets_folder()).join(name).join(&entry.name);
    if target.is_file() {
        return Ok(());
    }
    let expected = Expected::default();
    fs_err::create_dir_all(target.parent().unwrap_or(&target))?;
    match source.mirror() {
        Some(mirror) => copy(&mirror.join(name).join(&entry.name), &target, &expected)?,
        None => fetch(&entry.url, &target, &expected).with_context(|| {
            format!(
                "the archive of `{name}`: without network, give a folder that holds {name}/{} with \
                 `--mirror DIR` or NSMC_MIRROR",
                entry.name
            )
        })?,
    }
    say(&format!("{}: there", target.display()));
    Ok(())
}

fn is_there(target: &Path, sha256: &str) -> Result<bool> {
    Ok(target.is_file() && sha256_file(target)? == sha256)
}

fn expected(file: &FileEntry) -> Expected {
    Expected { sha256: Some(file.sha256.clone()), bytes: Some(file.bytes), git_sha1: None }
}

/// Fetches a file of a manifest; another process may have fetched it meanwhile.
fn fetch(url: &str, target: &Path, expected: &Expected) -> Result<()> {
    let client = Client::new(Patience::default());
    client.fetch(url, None, target, &lock_beside(target), expected, || match &expected.sha256 {
        Some(sha256) => is_there(target, sha256),
        None => Ok(target.is_file()),
    })
}
