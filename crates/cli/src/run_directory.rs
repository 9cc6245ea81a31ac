//! A run directory: who works in it, and what it holds.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use nsmc_experiment::{ExperimentConfig, FileLock, RunRecord, RunStatus};

/// Held by the process at work in the directory.
pub(crate) const LOCK: &str = ".lock";

/// Makes the directory if it is not there, and locks it against every other process. One that is no
/// run's is left as it is.
pub(crate) fn lock(folder: &Path) -> Result<FileLock> {
    fs_err::create_dir_all(folder)?;
    let path = folder.join(LOCK);
    ensure!(
        path.is_file() || folder.join("config.toml").is_file() || !is_used(folder)?,
        "{}: the run directory is not empty; give another with `--out`, or delete it",
        folder.display()
    );
    let Some(lock) = FileLock::try_acquire(&path)? else {
        let holder = FileLock::holder(&path).map(|pid| format!(" ({pid})")).unwrap_or_default();
        bail!(
            "{}: another process{holder} is at work in this run directory; wait for it, stop it, or \
             give another directory with `--out`",
            folder.display()
        );
    };
    Ok(lock)
}

/// Whether a locked directory holds anything but its lock.
pub(crate) fn is_used(folder: &Path) -> Result<bool> {
    for entry in fs_err::read_dir(folder)? {
        if entry?.file_name() != LOCK {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Puts the configuration into a locked directory. One in which the same run was stopped is gone on
/// in; one that holds anything else is left alone.
pub(crate) fn open(folder: &Path, config: &ExperimentConfig) -> Result<()> {
    let path = folder.join("config.toml");
    if path.is_file() {
        let same =
            ExperimentConfig::read(&path).is_ok_and(|found| found.identity() == config.identity());
        let done = RunRecord::read(&folder.join("record.json"))
            .is_ok_and(|record| record.status == RunStatus::Success);
        if !same || done {
            bail!(
                "{}: the run directory holds {}; give another with `--out`, or delete it",
                folder.display(),
                if same { "this run, and it is done" } else { "another run" }
            );
        }
        return Ok(());
    }
    ensure!(
        !is_used(folder)?,
        "{}: the run directory is not empty; give another with `--out`, or delete it",
        folder.display()
    );
    write_config(folder, &config.to_toml())
}

/// Writes `config.toml`, which appears whole or not at all.
pub(crate) fn write_config(folder: &Path, toml: &str) -> Result<()> {
    // Beside the directory: one that holds anything else is not taken for a new one.
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let partial = folder.with_file_name(format!("{name}.config.partial"));
    fs_err::write(&partial, toml)?;
    Ok(fs_err::rename(partial, folder.join("config.toml"))?)
}

/// The record of a run, with the places of its files as the run directory's configuration has them.
pub(crate) fn record(folder: &Path) -> Result<RunRecord> {
    let mut record = RunRecord::read(&folder.join("record.json"))?;
    let path = folder.join("config.toml");
    if path.is_file() {
        let config = ExperimentConfig::read(&path)?;
        ensure!(
            config.identity() == record.config.identity(),
            "{}: not the configuration of the run that record.json is of",
            path.display()
        );
        record.config = config;
    } else {
        ensure!(
            record.config.data.train.path != PathBuf::new(),
            "{}: no such file; it says where the run's files lie",
            path.display()
        );
    }
    Ok(record)
}
