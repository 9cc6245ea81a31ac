use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{FileLock, write_durably};

const HEADER: &str = "\
# What the models of manifest.toml were when they were first fetched: the commit that a branch was at,
# and the sha256 of each file. Written by `cargo xtask`; a later download must bring the same.
";

/// `models/lock.toml`: what was fetched under the names of the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelLock {
    /// By name.
    pub models: BTreeMap<String, LockedModel>,
}

/// A model as it was fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedModel {
    /// Its repository on the hub.
    pub repo: String,
    /// The revision that the manifest asked for.
    pub revision: String,
    /// The commit that it was.
    pub commit: String,
    /// sha256 by file.
    pub sha256: BTreeMap<String, String>,
}

impl ModelLock {
    /// Reads the file; one that is not there locks nothing.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        if !path.is_file() {
            return Ok(Self::default());
        }
        toml::from_str(&fs_err::read_to_string(path)?).map_err(|error| {
            std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("{}: {error}", path.display()),
            )
        })
    }

    /// Puts a model into the file, whatever other processes put there meanwhile.
    pub fn add(path: &Path, name: &str, model: LockedModel) -> std::io::Result<()> {
        let _lock = FileLock::acquire(&path.with_file_name(".lock.toml.lock"), || ())?;
        let mut lock = Self::read(path)?;
        lock.models.insert(name.into(), model);
        let text = toml::to_string(&lock).expect("hashes are representable in TOML");
        write_durably(path, format!("{HEADER}\n{text}"))
    }

    /// What a model was at a revision of a repository.
    pub fn find(&self, name: &str, repo: &str, revision: &str) -> Option<&LockedModel> {
        let model = self.models.get(name)?;
        (model.repo == repo && model.revision == revision).then_some(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_found_under_its_repository_and_revision_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock.toml");
        let model = |commit: &str| LockedModel {
            repo: "org/bert".into(),
            revision: "main".into(),
            commit: commit.into(),
            sha256: BTreeMap::from([("config.json".into(), "1".repeat(64))]),
        };
        assert_eq!(ModelLock::read(&path).unwrap(), ModelLock::default());
        std::thread::scope(|scope| {
            for name in ["a/b.c", "b", "c", "d"] {
                let path = &path;
                scope.spawn(move || ModelLock::add(path, name, model(name)).unwrap());
            }
        });
        let lock = ModelLock::read(&path).unwrap();
        assert_eq!(lock.models.len(), 4);
        assert_eq!(lock.find("a/b.c", "org/bert", "main"), Some(&model("a/b.c")));
        assert_eq!(lock.find("b", "org/bert", "v2"), None);
        assert_eq!(lock.find("b", "bert", "main"), None);
        fs_err::write(&path, "[a]\nrepo = 1\n").unwrap();
        assert!(ModelLock::read(&path).unwrap_err().to_string().contains("lock.toml: "));
    }
}
