//! `SHA256SUMS` in a run directory: the hash of each of its files, as `sha256sum --check` reads it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nsmc_experiment::{is_sha256, sha256_file, sha256_hex, write_durably};

use crate::{run_directory, stretches};

pub(crate) const FILE: &str = "SHA256SUMS";

/// The files that are not of a run's results, or go on changing.
const LEFT_OUT: [&str; 4] = [FILE, run_directory::LOCK, stretches::FILE, "log.txt"];
/// What a file is called while it is written: one that a killed process left goes away when the file
/// is written again, be it this one.
const BEING_WRITTEN: &str = ".partial";

/// sha256 by path, relative to the run directory, with `/` between folders.
pub(crate) type Checksums = BTreeMap<String, String>;

/// Writes the hashes of a finished run's files; `record` is the text of the record to come.
pub(crate) fn write(run: &Path, record: &str) -> Result<()> {
    put(run, of(run)?, record)
}

/// Changes the hash of a finished run's record, and of nothing else; `record` is its text to come.
/// Without hashes there is nothing to change.
pub(crate) fn update(run: &Path, record: &str) -> Result<()> {
    match read(run)? {
        Some(files) => put(run, files, record),
        None => Ok(()),
    }
}

fn put(run: &Path, mut files: Checksums, record: &str) -> Result<()> {
    files.insert("record.json".into(), sha256_hex(record.as_bytes()));
    let lines = files.iter().fold(String::new(), |mut lines, (path, hash)| {
        lines += &format!("{hash}  {path}\n");
        lines
    });
    Ok(write_durably(&run.join(FILE), lines)?)
}

/// Reads the file; none if there is none. A line that is none is an error.
pub(crate) fn read(run: &Path) -> Result<Option<Checksums>> {
    let path = run.join(FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs_err::read_to_string(&path)?;
    let line = |(index, line): (usize, &str)| {
        let found = line.split_once("  ");
        let found = found.filter(|(hash, path)| is_sha256(hash) && !path.is_empty());
        let (hash, path) = found.with_context(|| {
            format!("{}:{}: expected a sha256 and a path", path.display(), index + 1)
        })?;
        Ok((path.to_owned(), hash.to_owned()))
    };
    text.lines().enumerate().map(line).collect::<Result<_>>().map(Some)
}

/// Refuses files of a folder of a finished run that are not those that it saved. A run of before there
/// were hashes has none to be held against.
pub(crate) fn check(run: &Path, folder: &Path) -> Result<()> {
    for (path, expected) in read(run)?.unwrap_or_default() {
        let path = run.join(path);
        if !path.starts_with(folder) {
            continue;
        }
        let found = sha256_file(&path)?;
        ensure!(
            found == expected,
            "{}: expected sha256 {expected} ({FILE}), found {found}: it is not what the run saved; \
             `nsmc verify {}` says what else is not, and `cargo xtask train` runs it again",
            path.display(),
            run.display()
        );
    }
    Ok(())
}

/// The hashes of the files as they are.
pub(crate) fn of(run: &Path) -> Result<Checksums> {
    let mut found = Checksums::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(run.join(&folder))? {
            let entry = entry?;
            let name = format!("{folder}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                folders.push(name + "/");
            } else if !LEFT_OUT.contains(&name.as_str()) && !name.ends_with(BEING_WRITTEN) {
                found.insert(name, sha256_file(&entry.path())?);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_was_writing_is_no_file_of_the_run() {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let run = folder.path();
        let put = |name: &str, text: &str| {
            fs_err::write(run.join(name), text).expect("the folder can be written to");
        };
        put("predictions.tsv", "predictions");
        for name in [FILE, stretches::FILE, "record.json", "config.toml"] {
            put(&format!("{name}.partial"), "half of");
        }
        write(run, "the record").expect("hashes are written");
        put("record.json", "the record");
        fs_err::remove_file(run.join("stretches.json.partial")).expect("it was there");
        let expected = read(run).expect("hashes are read").expect("there are some");
        assert_eq!(of(run).expect("the files are there"), expected);
        assert_eq!(expected.keys().collect::<Vec<_>>(), ["predictions.tsv", "record.json"]);
    }
}
