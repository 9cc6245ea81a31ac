//! A run directory: who works in it, and what it holds.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use nsmc_eval::study::{self, Factor};
use nsmc_experiment::{
    ConfigError, ExperimentConfig, FileLock, RunRecord, RunStatus, create_folder_durably,
    write_durably,
};
use nsmc_training::identities;

use crate::{provenance, stretches};

/// Held by the process at work in the directory.
pub(crate) const LOCK: &str = ".lock";
const CONFIG: &str = "config.toml";
/// A configuration that was not written to its end, in a directory that is still new.
const PARTIAL_CONFIG: &str = "config.toml.partial";

/// Whether a directory's configuration was damaged or missing, and was written anew.
#[must_use = "it is to be warned of when there is a log"]
pub(crate) struct Mended(Option<PathBuf>);

impl Mended {
    /// Warns of it: after [`open`], for a log begins in the open directory.
    pub(crate) fn warn(self) {
        if let Some(file) = self.0 {
            tracing::warn!(
                file = %file.display(),
                "damaged or missing: written anew, for the directory's other files are of this run"
            );
        }
    }
}

/// Makes the directory if it is not there, and locks it against every other process. One that is no
/// run's is left as it is.
pub(crate) fn lock(folder: &Path) -> Result<FileLock> {
    create_folder_durably(folder)?;
    let path = folder.join(LOCK);
    ensure!(
        path.is_file() || folder.join(CONFIG).is_file() || !is_used(folder)?,
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

/// Whether a directory holds anything but what it holds before its configuration.
fn is_used(folder: &Path) -> Result<bool> {
    for entry in fs_err::read_dir(folder)? {
        let name = entry?.file_name();
        if name != LOCK && name != PARTIAL_CONFIG {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a locked directory has nothing in it yet.
pub(crate) fn is_new(folder: &Path) -> Result<bool> {
    Ok(!is_used(folder)?)
}

/// Removes what a run has left in a directory that was new, and that directory: for one that failed
/// before its training began. One that holds anything else by now stays as it is.
pub(crate) fn remove_new(folder: &Path) {
    let partial = format!("{}.partial", stretches::FILE);
    // Without the configuration what is left would be nobody's.
    let own = ["log.txt", &partial, stretches::FILE, PARTIAL_CONFIG, CONFIG, LOCK];
    let is_own = |entry: std::io::Result<fs_err::DirEntry>| {
        entry.is_ok_and(|entry| own.iter().any(|name| entry.file_name() == *name))
    };
    if fs_err::read_dir(folder).is_ok_and(|mut entries| entries.all(is_own)) {
        // Why the run failed is the error that matters. Whoever waits for the lock finds that its file
        // has gone.
        for name in own {
            let _ = fs_err::remove_file(folder.join(name));
        }
        let _ = fs_err::remove_dir(folder);
    }
}

/// Puts the configuration into a locked directory. One in which the same run was stopped is gone on
/// in; one that holds anything else is left alone.
pub(crate) fn open(folder: &Path, config: &ExperimentConfig) -> Result<Mended> {
    let found = ExperimentConfig::read(&folder.join(CONFIG));
    let there = found.as_ref().ok().cloned();
    let (same, mended) = check(folder, found, ExperimentConfig::identity, &config.identity())?;
    let done = RunRecord::read(&folder.join("record.json"))
        .is_ok_and(|record| record.status == RunStatus::Success);
    if !same || done {
        let holds = match (same, there) {
            (true, _) => "this run, and it is done".into(),
            (false, Some(there)) => format!("another run{}", differences(&there, config)),
            (false, None) => "another run".into(),
        };
        bail!(
            "{}: the run directory holds {holds}; give another with `--out`, or delete it",
            folder.display()
        );
    }
    // What is no part of the identity may have changed: where files lie, how often to save.
    let toml = with_places(config, folder)?.to_toml();
    if fs_err::read(folder.join(CONFIG)).ok().as_deref() != Some(toml.as_bytes()) {
        write_config(folder, &toml)?;
    }
    Ok(mended)
}

/// The configuration with places that lead to the files from wherever the run is used. [`record`] looks
/// for relative ones in every folder above the run; where the current one is not among these, they
/// become absolute.
fn with_places(config: &ExperimentConfig, run: &Path) -> Result<ExperimentConfig> {
    let here = fs_err::canonicalize(".")?;
    let mut config = config.clone();
    if !fs_err::canonicalize(run)?.starts_with(&here) {
        for path in config.paths_mut() {
            if !path.as_os_str().is_empty() {
                *path = here.join(&path);
            }
        }
    }
    Ok(config)
}

/// In which keys a run is another.
fn differences(there: &ExperimentConfig, here: &ExperimentConfig) -> String {
    let factor =
        |key: &str, first: String, second: String| Factor { key: key.into(), first, second };
    // Those that a study passes over.
    let batch = |config: &ExperimentConfig| config.evaluation.eval_batch_size.to_string();
    let mut factors = vec![
        factor("seed", there.seed.to_string(), here.seed.to_string()),
        factor("evaluation.eval_batch_size", batch(there), batch(here)),
    ];
    factors.retain(|factor| factor.first != factor.second);
    factors.extend(study::factors(there, here));
    // Of another method nearly all keys are others.
    factors.sort_by_key(|factor| factor.key != "method.name");
    in_words(&factors)
}

/// Some keys in which one configuration differs from another, in brackets.
pub(crate) fn in_words(factors: &[Factor]) -> String {
    const SHOWN: usize = 4;
    let shown = factors
        .iter()
        .take(SHOWN)
        .map(|Factor { key, first, second }| format!("`{key}` is {first} there and {second} here"));
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if factors.len() > SHOWN {
        text += &format!(", and {} keys more differ", factors.len() - SHOWN);
    }
    if text.is_empty() { text } else { format!(" ({text})") }
}

/// Whether a locked directory is new or of an identity, by its configuration: what was read of it.
/// Where that is damaged or missing, the identity that the directory's other files say they are of
/// will do; the configuration is then to be mended.
pub(crate) fn check<C>(
    folder: &Path,
    found: Result<C, ConfigError>,
    of: impl Fn(&C) -> String,
    identity: &str,
) -> Result<(bool, Mended)> {
    let error = match found {
        Ok(found) => return Ok((of(&found) == identity, Mended(None))),
        Err(error) => error,
    };
    if let ConfigError::Read(error) = &error
        && !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData)
    {
        bail!("{error}");
    }
    if !is_used(folder)? {
        return Ok((true, Mended(None)));
    }
    let path = folder.join(CONFIG);
    let others = others(folder);
    if others.is_empty() && !path.is_file() {
        bail!(
            "{}: the run directory is not empty; give another with `--out`, or delete it",
            folder.display()
        );
    }
    ensure!(
        !others.is_empty(),
        "{error}\nno other file says which run the directory is of; give another with `--out`, or \
         delete it"
    );
    Ok((others.iter().all(|other| other == identity), Mended(Some(path))))
}

/// The identities that a run directory's files say they are of, but for its configuration.
fn others(folder: &Path) -> Vec<String> {
    let mut found = identities(folder);
    let record = fs_err::read(folder.join("record.json")).ok();
    let record = record.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    found.extend(record.and_then(|record| Some(record.get("identity")?.as_str()?.to_owned())));
    found
}

/// Writes `config.toml`.
pub(crate) fn write_config(folder: &Path, toml: &str) -> Result<()> {
    Ok(write_durably(&folder.join(CONFIG), toml)?)
}

/// What a finished run's directory has for a record.
pub(crate) fn saved_record(folder: &Path) -> Result<RunRecord> {
    let path = folder.join("record.json");
    ensure!(
        path.is_file(),
        "{}: expected the directory of a finished run, found no record.json in it",
        folder.display()
    );
    Ok(RunRecord::read(&path)?)
}

/// The record of a run, with the places of its files as the run directory's configuration has them, but
/// for those that were `moved`.
pub(crate) fn record(folder: &Path, moved: &[String]) -> Result<RunRecord> {
    let mut record = saved_record(folder)?;
    let path = folder.join(CONFIG);
    let has_places = path.is_file();
    if has_places {
        let config = ExperimentConfig::read(&path)?;
        ensure!(
            config.identity() == record.config.identity(),
            "{}: not the configuration of the run that record.json is of",
            path.display()
        );
        record.config = config;
    }
    record.config = provenance::relocated(&record.config, folder, moved)?;
    ensure!(
        has_places || record.config.data.train.path != PathBuf::new(),
        "{}: no such file; it says where the run's files lie",
        path.display()
    );
    Ok(record)
}

#[cfg(test)]
mod tests {
    use nsmc_experiment::{Document, MethodConfig};

    use super::*;

    #[test]
    fn a_run_that_goes_on_has_the_configuration_it_goes_on_with() {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let text = include_str!("../../../fuzz/corpus/configuration/vanilla.toml");
        let document = Document::parse(text, Path::new("vanilla.toml")).expect("it is TOML");
        let first = ExperimentConfig::from_document(&document).expect("it is valid");
        let mut second = first.clone();
        second.training.save_steps += 7;
        second.data.train.path = "elsewhere/reviews.txt".into();
        assert_eq!(first.identity(), second.identity());
        for config in [&first, &second] {
            let mended = open(folder.path(), config).expect("it is the same run");
            assert!(mended.0.is_none());
            let written = ExperimentConfig::read(&folder.path().join(CONFIG));
            let written = written.expect("it was written");
            assert_eq!(written.training.save_steps, config.training.save_steps);
            let here = fs_err::canonicalize(".").expect("there is a current folder");
            assert_eq!(written.data.train.path, here.join(&config.data.train.path));
        }
        second.seed += 1;
        let refused = open(folder.path(), &second).err().expect("it is another run");
        assert!(refused.to_string().contains("another run"), "{refused}");
    }

    #[test]
    fn another_run_is_told_by_its_keys() {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let text = include_str!("../../../fuzz/corpus/configuration/vanilla.toml");
        let document = Document::parse(text, Path::new("vanilla.toml")).expect("it is TOML");
        let there = ExperimentConfig::from_document(&document).expect("it is valid");
        let _ = open(folder.path(), &there).expect("it is new");
        let refused = |change: &dyn Fn(&mut ExperimentConfig)| {
            let mut here = there.clone();
            change(&mut here);
            let error = open(folder.path(), &here).err().expect("it is another run");
            error.to_string()
        };
        let message = refused(&|here| {
            here.seed = 9;
            here.training.learning_rate = 1e-3;
        });
        let expected = format!(
            "the run directory holds another run (`seed` is {} there and 9 here, \
             `training.learning_rate` is {:e} there and 1e-3 here); give another with `--out`",
            there.seed, there.training.learning_rate
        );
        assert!(message.contains(&expected), "{message}");
        let message = refused(&|here| here.evaluation.eval_batch_size = 3);
        assert!(message.contains("(`evaluation.eval_batch_size` is "), "{message}");
        let message = refused(&|here| {
            here.data.max_length += 1;
            here.data.validation_fraction += 0.1;
            here.training.weight_decay += 0.5;
            here.training.num_train_epochs += 1;
            here.training.train_batch_size += 1;
            here.method = MethodConfig::Majority;
        });
        assert!(
            message.contains("(`method.name` is vanilla there and majority here, "),
            "{message}"
        );
        assert!(message.contains(", and 2 keys more differ); give"), "{message}");
    }
}
