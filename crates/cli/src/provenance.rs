//! What a run is made of: the program's source and the files it reads, checked against the
//! configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nsmc_experiment::{
    DataConfig, ExperimentConfig, ModelConfig, Provenance, Source, WeightsKind, combined_sha256,
    git_blob_sha1, sha256_file,
};

use crate::corpus::check_file;

/// The program's part of a run's provenance; [`inputs`] gives the rest.
pub(crate) fn of_this_program() -> Provenance {
    let versions = option_env!("NSMC_CRATES").unwrap_or_default().split(',');
    let versions = versions.filter_map(|version| version.split_once('='));
    Provenance {
        commit: option_env!("NSMC_COMMIT").map(str::to_owned),
        dirty: option_env!("NSMC_DIRTY").map(|dirty| dirty == "true"),
        lock_sha256: option_env!("NSMC_LOCK_SHA256").map(str::to_owned),
        crates: versions.map(|(name, version)| (name.into(), version.into())).collect(),
        inputs: BTreeMap::new(),
    }
}

/// sha256 of each file that a run reads, by key, after a check that the files are those that the
/// configuration means. Those of the data have been checked when they were read.
pub(crate) fn inputs(config: &ExperimentConfig) -> Result<BTreeMap<String, String>> {
    let mut inputs = data(&config.data);
    if config.method.is_baseline() {
        return Ok(inputs);
    }
    inputs.extend(model(&config.model)?);
    for (key, kind, source) in config.method.sources_by_key() {
        inputs.extend(weights(&key, kind, source)?);
    }
    Ok(inputs)
}

/// The files of weights that a method starts from, checked against their hash.
fn weights(key: &str, kind: WeightsKind, source: &Source) -> Result<BTreeMap<String, String>> {
    let (files, found) =
        hash(key, kind, &source.path).with_context(|| format!("`{key}` ({})", source.from))?;
    ensure!(
        found == source.sha256,
        "{}: expected sha256 {} (`{key}.sha256`), found {found}: the weights of \"{}\" are not those \
         that the run was configured for; `cargo xtask train` resolves the configuration anew, and \
         `cargo xtask download` fetches what a manifest names",
        source.path.display(),
        source.sha256,
        source.from
    );
    Ok(files)
}

/// The configuration with relative places that lead nowhere from the current folder, but do from one
/// above the run's, as that from which it was started often is.
fn from_above(config: &ExperimentConfig, run: &Path) -> ExperimentConfig {
    let mut config = config.clone();
    let Ok(run) = fs_err::canonicalize(run) else { return config };
    for path in config.paths_mut() {
        if path.is_relative() && !path.as_os_str().is_empty() && !path.exists() {
            let above = run.ancestors().skip(1).map(|folder| folder.join(&path));
            if let Some(there) = above.into_iter().find(|place| place.exists()) {
                *path = there;
            }
        }
    }
    config
}

/// The configuration of the run in a folder with files where `moved` says that they lie by now, after a
/// check that they are those that it read.
pub(crate) fn relocated(
    config: &ExperimentConfig,
    run: &Path,
    moved: &[String],
) -> Result<ExperimentConfig> {
    // What is found above is checked where it is read, as it is in its place.
    let config = &from_above(config, run);
    let now = config.relocated(moved)?;
    let (before, data) = (&config.data, &now.data);
    for (key, before, file) in
        [("data.train", &before.train, &data.train), ("data.test", &before.test, &data.test)]
    {
        if file.path != before.path {
            check_file(key, file, &data.dataset)?;
        }
    }
    if now.model != config.model {
        model(&now.model)?;
    }
    let sources = |config: &ExperimentConfig| -> BTreeMap<String, PathBuf> {
        let sources = config.method.sources_by_key().into_iter();
        sources.map(|(key, _, source)| (key, source.path.clone())).collect()
    };
    let before = sources(config);
    for (key, kind, source) in now.method.sources_by_key() {
        if before.get(&key) != Some(&source.path) {
            weights(&key, kind, source)?;
        }
    }
    Ok(now)
}

/// Where the files that a run reads lie, by the keys of [`inputs`].
pub(crate) fn places(config: &ExperimentConfig) -> Vec<(String, PathBuf)> {
    let mut places = vec![
        ("data.train".to_owned(), config.data.train.path.clone()),
        ("data.test".to_owned(), config.data.test.path.clone()),
    ];
    let mut weights = Vec::new();
    if let ModelConfig::Pretrained { path, .. } = &config.model
        && !config.method.is_baseline()
    {
        weights.push(("model".to_owned(), WeightsKind::Model, path));
    }
    let sources = config.method.sources_by_key().into_iter();
    weights.extend(sources.map(|(key, kind, source)| (key, kind, &source.path)));
    for (key, kind, path) in weights {
        let files = kind.files(path).unwrap_or_default();
        places.extend(files.into_iter().map(|file| (keyed(&key, &file), file)));
    }
    places
}

/// The key of a file of a folder.
fn keyed(key: &str, file: &Path) -> String {
    format!("{key}/{}", file.file_name().unwrap_or_default().to_string_lossy())
}

pub(crate) fn data(config: &DataConfig) -> BTreeMap<String, String> {
    [("data.train", &config.train), ("data.test", &config.test)]
        .map(|(key, file)| (key.to_owned(), file.sha256.clone()))
        .into()
}

/// The files of a pre-trained model, checked against its revision.
pub(crate) fn model(config: &ModelConfig) -> Result<BTreeMap<String, String>> {
    let ModelConfig::Pretrained { name, revision, path } = config else {
        return Ok(BTreeMap::new());
    };
    ensure!(
        path.is_dir(),
        "{}: no such folder; `cargo xtask download` fetches the model `{name}` if \
         models/manifest.toml names it, and of a run that is done `--set model.path=DIR` says where it \
         lies by now",
        path.display()
    );
    let (files, found) =
        hash("model", WeightsKind::Model, path).with_context(|| format!("the model `{name}`"))?;
    if is_hash(revision, 40) {
        of_the_hub(path, name, revision)?;
    } else {
        ensure!(
            found == *revision,
            "{}: expected the revision {revision} of the model `{name}` (`model.revision`), found \
             {found}: weights, configuration or tokenizer are not those that the run was configured \
             for",
            path.display()
        );
    }
    Ok(files)
}

/// The sha256 of each file, and of all.
fn hash(key: &str, kind: WeightsKind, path: &Path) -> Result<(BTreeMap<String, String>, String)> {
    let Some(files) = kind.files(path) else {
        bail!("{}: no {}", path.display(), kind.weights().join(" or "));
    };
    let hashes = files.iter().map(|file| sha256_file(file)).collect::<std::io::Result<Vec<_>>>()?;
    let all = if path.is_dir() { combined_sha256(&hashes) } else { hashes.concat() };
    let keys = files.iter().map(|file| keyed(key, file));
    Ok((keys.zip(hashes).collect(), all))
}

/// A commit of the hub: the folder must be its snapshot in the Hugging Face cache, and each file the
/// one that the hub named by its hash. A cache without links does not say, and is taken as it is.
fn of_the_hub(folder: &Path, name: &str, commit: &str) -> Result<()> {
    ensure!(
        folder.file_name().is_some_and(|last| last == commit),
        "{}: expected the snapshot {commit} (`model.revision`) of the model `{name}` in the Hugging \
         Face cache; `cargo xtask download {name}` fetches it",
        folder.display()
    );
    for file in WeightsKind::Model.files(folder).unwrap_or_default() {
        let Ok(blob) = fs_err::read_link(&file) else { continue };
        let blob = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let found = match blob.len() {
            64 => sha256_file(&file)?,
            40 => git_blob_sha1(&file)?,
            _ => continue,
        };
        ensure!(
            !is_hash(&blob, blob.len()) || found == blob,
            "{}: expected the content {blob}, found {found}: the Hugging Face cache is damaged; \
             delete this file and what it links to, and let `cargo xtask download {name}` fetch it \
             again",
            file.display()
        );
    }
    Ok(())
}

pub(crate) fn is_hash(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_knows_what_it_was_built_from() {
        let provenance = of_this_program();
        assert_eq!(provenance.crates["burn"], "0.22.1");
        assert!(provenance.crates.contains_key("tokenizers"));
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
        assert_eq!(provenance.lock_sha256, Some(sha256_file(&lock).unwrap()));
    }

    #[cfg(unix)]
    #[test]
    fn a_snapshot_of_the_hub_is_held_against_the_hashes_of_its_blobs() {
        let cache = tempfile::tempdir().unwrap();
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let (blobs, snapshot) =
            (cache.path().join("blobs"), cache.path().join("snapshots").join(commit));
        for folder in [&blobs, &snapshot] {
            fs_err::create_dir_all(folder).unwrap();
        }
        // `echo -n '{}' | git hash-object --stdin`
        let config = "9e26dfeeb6e641a33dae4961196235bdb965b21b";
        fs_err::write(blobs.join(config), "{}").unwrap();
        let weights = nsmc_experiment::sha256_hex(b"weights");
        fs_err::write(blobs.join(&weights), "weights").unwrap();
        for (name, blob) in [("config.json", config), ("model.safetensors", &weights)] {
            let blob = Path::new("../../blobs").join(blob);
            fs_err::os::unix::fs::symlink(blob, snapshot.join(name)).unwrap();
        }
        let config = |revision: &str| ModelConfig::Pretrained {
            name: "mbert".into(),
            revision: revision.into(),
            path: snapshot.clone(),
        };
        let files = model(&config(commit)).unwrap();
        assert_eq!(files["model/model.safetensors"], weights);
        assert_eq!(files.len(), 2);
        let error = model(&config(&"1".repeat(40))).unwrap_err().to_string();
        assert!(error.contains("expected the snapshot 1111"), "{error}");
        let error = model(&config("main")).unwrap_err().to_string();
        assert!(error.contains("expected the revision main"), "{error}");
        for blob in fs_err::read_dir(blobs).unwrap() {
            let blob = blob.unwrap().path();
            let whole = fs_err::read(&blob).unwrap();
            fs_err::write(&blob, "damaged").unwrap();
            let error = model(&config(commit)).unwrap_err().to_string();
            let name = blob.file_name().unwrap().to_string_lossy().into_owned();
            assert!(error.contains(&format!("expected the content {name}")), "{error}");
            fs_err::write(&blob, whole).unwrap();
        }
        model(&config(commit)).unwrap();
    }
}
