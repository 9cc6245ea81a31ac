use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nsmc_experiment::FileLock;

use crate::nsmc::Nsmc;
use crate::say;

/// The program of a grid's runs, kept beside them for as long as the grid is at work: what is built
/// meanwhile, for another device or after an edit, changes nothing of it.
pub(crate) struct Kept {
    /// The program.
    pub(crate) nsmc: Nsmc,
    place: Place,
}

/// A folder for the program of one grid, which goes with its value.
struct Place {
    runs: PathBuf,
    folder: PathBuf,
    /// Says that the grid is at work. One that was killed has none, and the next grid removes what it
    /// has left.
    _lock: FileLock,
}

/// In the folder of the runs: a folder for each grid at work.
const FOLDER: &str = ".program";
/// In the folder of the runs, held while those folders are made or removed.
const LOCK: &str = ".program.lock";

impl Kept {
    /// Keeps a program beside the runs in `runs`.
    pub(crate) fn of(nsmc: &Nsmc, runs: &Path) -> Result<Self> {
        let place = Place::new(runs)?;
        let name = nsmc.path().file_name().context("a program has a name")?;
        let nsmc = nsmc.kept(&place.folder.join(name))?;
        Ok(Self { nsmc, place })
    }

    /// Whether another grid is at work among the same runs.
    pub(crate) fn has_company(&self) -> Result<bool> {
        for entry in fs_err::read_dir(self.place.runs.join(FOLDER))? {
            let folder = entry?.path();
            // One that is being removed has no lock any more.
            if folder != self.place.folder
                && matches!(FileLock::try_acquire(&lock_of(&folder)), Ok(None))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Place {
    fn new(runs: &Path) -> Result<Self> {
        fs_err::create_dir_all(runs)?;
        let path = runs.join(LOCK);
        let _alone = FileLock::acquire(&path, || {
            say(&format!("{}: waiting for another `cargo xtask reproduce`", path.display()));
        })?;
        let all = runs.join(FOLDER);
        fs_err::create_dir_all(&all)?;
        // Where the file system knows no locks, nothing says which of them are in use.
        if FileLock::try_acquire(&path)?.is_none() {
            remove_left(&all)?;
        }
        // Another machine, or another container, may have a process of the same number.
        let names = (0..).map(|count| format!("{}-{count}", std::process::id()));
        let mut folders = names.map(|name| all.join(name));
        let folder = folders.find(|folder| !folder.exists()).context("some name is free")?;
        fs_err::create_dir(&folder)?;
        let lock = FileLock::try_acquire(&lock_of(&folder))?;
        let lock = lock.with_context(|| {
            format!("{}: another process has locked a new folder; try again", folder.display())
        })?;
        Ok(Self { runs: runs.into(), folder, _lock: lock })
    }
}

/// A lock in a folder with the name of a run directory's would make it look like one.
fn lock_of(folder: &Path) -> PathBuf {
    folder.join("lock")
}

/// Removes the programs that no grid works with. The runs of one that was killed may still write
/// their last checkpoint: they need the program no more, and where a file in use cannot be removed, a
/// later grid does it.
fn remove_left(all: &Path) -> Result<()> {
    for entry in fs_err::read_dir(all)? {
        let folder = entry?.path();
        if let Ok(Some(_nobody)) = FileLock::try_acquire(&lock_of(&folder)) {
            let _ = fs_err::remove_dir_all(&folder);
        }
    }
    Ok(())
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next grid, and a grid that is being started
        // needs the folder of all.
        let _ = fs_err::remove_dir_all(&self.folder);
        if let Ok(Some(_alone)) = FileLock::try_acquire(&self.runs.join(LOCK)) {
            let _ = fs_err::remove_dir(self.runs.join(FOLDER));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_stays_what_it_was_while_its_grid_is_at_work_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (built, runs) = (folder.path().join("nsmc"), folder.path().join("runs"));
        fs_err::write(&built, "first").unwrap();
        let kept = |path: &Path| fs_err::read_to_string(path).unwrap();
        let first = Kept::of(&Nsmc::built(built.clone(), true), &runs).unwrap();
        assert_eq!(first.nsmc.device(), "cuda");
        // As cargo does: a new file in its place.
        fs_err::remove_file(&built).unwrap();
        fs_err::write(&built, "second").unwrap();
        let second = Kept::of(&Nsmc::built(built, false), &runs).unwrap();
        assert_eq!(kept(first.nsmc.path()), "first", "a second grid leaves the first its program");
        assert_eq!(kept(second.nsmc.path()), "second");
        assert!(first.has_company().unwrap() && second.has_company().unwrap());
        drop(first);
        assert_eq!(kept(second.nsmc.path()), "second");
        assert!(!second.has_company().unwrap());
        drop(second);
        assert!(!runs.join(FOLDER).exists());
    }

    #[test]
    fn what_a_grid_left_that_was_killed_is_removed_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let (built, runs) = (folder.path().join("nsmc"), folder.path().join("runs"));
        fs_err::write(&built, "").unwrap();
        let [killed, alive] = ["1-0", "2-0"].map(|name| runs.join(FOLDER).join(name));
        for folder in [&killed, &alive] {
            fs_err::create_dir_all(folder).unwrap();
            fs_err::write(folder.join("nsmc"), "").unwrap();
        }
        fs_err::write(lock_of(&killed), "1\n").unwrap();
        let lock = FileLock::try_acquire(&lock_of(&alive)).unwrap().unwrap();
        let kept = Kept::of(&Nsmc::at(built), &runs).unwrap();
        assert!(!killed.exists());
        assert!(alive.join("nsmc").is_file());
        assert!(kept.has_company().unwrap());
        drop(kept);
        assert!(alive.join("nsmc").is_file());
        drop(lock);
    }

    #[test]
    fn a_program_that_cannot_be_kept_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let gone = Nsmc::at(folder.path().join("gone"));
        let error = Kept::of(&gone, &runs).map(|_| ()).unwrap_err();
        assert!(format!("{error:#}").contains("gone"), "{error:#}");
        assert!(!runs.join(FOLDER).exists());
    }
}
