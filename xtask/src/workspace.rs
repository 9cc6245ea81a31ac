use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use nsmc_experiment::{
    Catalog, DatasetManifest, ExperimentConfig, FileHashes, ModelConfig, ModelLock, ModelManifest,
    Profile,
};

use crate::args::Options;
use crate::{hub, say};

/// Where things lie.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    hashes: FileHashes,
}

impl Workspace {
    pub(crate) fn find() -> Self {
        // cargo sets the variable for a program it runs; the built-in path serves a copy of it.
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf);
        Self { root, hashes: FileHashes::default() }
    }

    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.into(), hashes: FileHashes::default() }
    }

    /// The sha256 of a file as it was when it was first asked for.
    pub(crate) fn sha256(&self, path: &Path) -> std::io::Result<String> {
        self.hashes.sha256(path)
    }

    pub(crate) fn datasets(&self) -> Result<DatasetManifest> {
        Ok(DatasetManifest::read(&self.root.join("datasets/manifest.toml"))?)
    }

    pub(crate) fn models(&self) -> Result<ModelManifest> {
        Ok(ModelManifest::read(&self.root.join("models/manifest.toml"))?)
    }

    /// What the models were when they were fetched.
    pub(crate) fn model_lock(&self) -> PathBuf {
        self.root.join("models/lock.toml")
    }

    /// Where a data set's files lie, relative to the root, as a run sees them.
    pub(crate) fn datasets_folder() -> &'static Path {
        Path::new("datasets")
    }

    /// Where adapters lie, relative to the root, as a run sees them.
    pub(crate) fn adapters_folder() -> &'static Path {
        Path::new("models/adapters")
    }

    /// The profile chosen, or the one that suits this machine.
    pub(crate) fn chosen_profile(&self, options: &Options) -> Result<Profile> {
        if let Some(name) = &options.profile {
            return self.profile(name);
        }
        let cuda = options.device.is_cuda();
        say(if cuda {
            "profile: paper (there is a CUDA GPU; `--profile` chooses another)"
        } else {
            "profile: mini (the paper's takes days without a CUDA GPU; `--profile paper` runs it)"
        });
        self.profile(if cuda { "paper" } else { "mini" })
    }

    pub(crate) fn profile(&self, name: &str) -> Result<Profile> {
        let path = self.root.join("configs").join(format!("{name}.toml"));
        if !path.is_file() {
            let mut known = Vec::new();
            for entry in fs_err::read_dir(self.root.join("configs"))? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "toml") {
                    known.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
                }
            }
            known.sort();
            bail!("`--profile {name}`: expected one of {}", known.join(", "));
        }
        Ok(Profile::read(&path)?)
    }

    /// Calls `with` with the catalogue of what can be named.
    pub(crate) fn with_catalog<T>(&self, with: impl FnOnce(Catalog<'_>) -> Result<T>) -> Result<T> {
        let (datasets, mut models) = (self.datasets()?, self.models()?);
        let lock = ModelLock::read(&self.model_lock())?;
        let mut folders = BTreeMap::new();
        for (name, entry) in &mut models.models {
            folders.insert(name.clone(), hub::find(&lock, name, entry));
            if let Some(commit) = hub::commit(&lock, name, entry) {
                entry.revision = commit;
            }
        }
        let model_folder = |name: &str| folders.get(name)?.clone();
        with(Catalog {
            root: &self.root,
            datasets: &datasets,
            datasets_folder: Self::datasets_folder(),
            models: &models,
            model_folder: &model_folder,
            adapters_folder: Self::adapters_folder(),
            hashes: &self.hashes,
        })
    }

    /// A configuration with its model's folder and its data as seen from here: runs see them from the
    /// root.
    pub(crate) fn located(&self, config: &ExperimentConfig) -> ExperimentConfig {
        let mut config = config.clone();
        for file in [&mut config.data.train, &mut config.data.test] {
            file.path = self.root.join(&file.path);
        }
        if let ModelConfig::Pretrained { path, .. } = &mut config.model {
            *path = self.root.join(&path);
        }
        config
    }

    /// A folder given on the command line, which may be relative to the root.
    pub(crate) fn folder(&self, folder: &Path) -> PathBuf {
        self.root.join(folder)
    }
}
