use std::path::Path;

use nsmc_experiment::{rename_folder_durably, sha256_folder};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{make, remove};

/// The model of an epoch that is about to be kept.
pub(crate) const INCOMING: &str = "incoming";
const LAST: &str = "last";
const BEST: &str = "best";

/// Which models a training has kept in `checkpoint/`: sha256 of the folders there.
///
/// It is written down, with the model beside the others in `incoming/`, before the model takes their
/// place: wherever that is cut off, what it takes to finish it is on the disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedModels {
    /// Of the last epoch's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    /// Of the best epoch's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    best: Option<String>,
}

impl SavedModels {
    /// Notes the model in `incoming/` as the last and, if it is, as the best.
    pub(crate) fn announce(&mut self, checkpoints: &Path, best: bool) -> std::io::Result<()> {
        let sha256 = sha256_folder(&checkpoints.join(INCOMING))?;
        if best {
            self.best = Some(sha256.clone());
        }
        self.last = Some(sha256);
        Ok(())
    }

    /// Puts the model in `incoming/`, which is on the disk, into its places.
    pub(crate) fn put(&self, checkpoints: &Path) -> std::io::Result<()> {
        let incoming = checkpoints.join(INCOMING);
        if self.best == self.last {
            let best = checkpoints.join("incoming-best");
            remove(&best)?;
            make(&best)?;
            for entry in fs_err::read_dir(&incoming)? {
                let file = entry?.path();
                let target = best.join(file.file_name().unwrap_or_default());
                // The files are never written to again: a second name takes no second copy.
                if std::fs::hard_link(&file, &target).is_err() {
                    fs_err::copy(&file, &target)?;
                }
            }
            rename_folder_durably(&best, &checkpoints.join(BEST))?;
        }
        rename_folder_durably(&incoming, &checkpoints.join(LAST))
    }

    /// Whether the best model is there, whole; the last may be another, for a training that goes on
    /// writes it again.
    pub(crate) fn best_is_there(&self, checkpoints: &Path) -> std::io::Result<bool> {
        let there = || is_there(checkpoints, BEST, self.best.as_ref());
        Ok(there()? || self.finish(checkpoints)? && there()?)
    }

    /// Whether all models are there, whole.
    pub(crate) fn all_are_there(&self, checkpoints: &Path) -> std::io::Result<bool> {
        let there = || -> std::io::Result<bool> {
            Ok(is_there(checkpoints, BEST, self.best.as_ref())?
                && is_there(checkpoints, LAST, self.last.as_ref())?)
        };
        Ok(there()? || self.finish(checkpoints)? && there()?)
    }

    /// Puts a model into its places where that was cut off; whether it could.
    fn finish(&self, checkpoints: &Path) -> std::io::Result<bool> {
        let whole = self.last.is_some() && is_there(checkpoints, INCOMING, self.last.as_ref())?;
        if whole {
            self.put(checkpoints)?;
        }
        Ok(whole)
    }
}

/// Whether a folder holds what it is said to; of what no hash is known, nothing is said.
fn is_there(checkpoints: &Path, name: &str, sha256: Option<&String>) -> std::io::Result<bool> {
    let Some(sha256) = sha256 else { return Ok(true) };
    let folder = checkpoints.join(name);
    Ok(folder.is_dir() && sha256_folder(&folder)? == *sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(checkpoints: &Path, weights: &str) {
        let incoming = checkpoints.join(INCOMING);
        fs_err::create_dir(&incoming).unwrap();
        fs_err::write(incoming.join("model"), weights).unwrap();
    }

    fn read(checkpoints: &Path, name: &str) -> String {
        fs_err::read_to_string(checkpoints.join(name).join("model")).unwrap()
    }

    #[test]
    fn a_model_takes_its_places_wherever_that_was_cut_off() {
        for best in [false, true] {
            // Cut off before anything, after the old best was removed, after the new one is there,
            // after the old last was removed, and not at all.
            for cut in 0..5 {
                let folder = tempfile::tempdir().unwrap();
                let checkpoints = folder.path();
                let mut kept = SavedModels::default();
                model(checkpoints, "first");
                kept.announce(checkpoints, true).unwrap();
                kept.put(checkpoints).unwrap();
                model(checkpoints, "second");
                kept.announce(checkpoints, best).unwrap();
                if cut > 0 && best {
                    remove(&checkpoints.join(BEST)).unwrap();
                }
                if cut > 1 && best {
                    fs_err::create_dir(checkpoints.join(BEST)).unwrap();
                    let file = |name| checkpoints.join(name).join("model");
                    fs_err::hard_link(file(INCOMING), file(BEST)).unwrap();
                }
                if cut > 2 {
                    remove(&checkpoints.join(LAST)).unwrap();
                }
                if cut > 3 {
                    fs_err::rename(checkpoints.join(INCOMING), checkpoints.join(LAST)).unwrap();
                }
                assert!(kept.best_is_there(checkpoints).unwrap(), "{best}, {cut}");
                assert!(kept.all_are_there(checkpoints).unwrap(), "{best}, {cut}");
                let expected = if best { "second" } else { "first" };
                assert_eq!(read(checkpoints, BEST), expected, "{cut}");
                assert_eq!(read(checkpoints, LAST), "second", "{best}, {cut}");
                assert!(!checkpoints.join(INCOMING).exists());
            }
        }
    }

    #[test]
    fn a_changed_model_is_not_there_and_an_unknown_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = folder.path();
        assert!(SavedModels::default().all_are_there(checkpoints).unwrap());
        let mut kept = SavedModels::default();
        model(checkpoints, "first");
        kept.announce(checkpoints, true).unwrap();
        kept.put(checkpoints).unwrap();
        model(checkpoints, "second");
        kept.announce(checkpoints, false).unwrap();
        kept.put(checkpoints).unwrap();
        fs_err::write(checkpoints.join("last/model"), "secund").unwrap();
        assert!(kept.best_is_there(checkpoints).unwrap());
        assert!(!kept.all_are_there(checkpoints).unwrap());
        fs_err::write(checkpoints.join("best/model"), "").unwrap();
        assert!(!kept.best_is_there(checkpoints).unwrap());
        remove(&checkpoints.join("best")).unwrap();
        assert!(!kept.best_is_there(checkpoints).unwrap());
    }
}
