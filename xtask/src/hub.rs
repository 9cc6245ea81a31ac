use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nsmc_experiment::{FileLock, LockedModel, ModelEntry, ModelLock, sha256_file, write_durably};
use ureq::http::response::Parts;

use crate::say;
use crate::transfer::{self, Client, Expected, Patience};
use crate::workspace::Workspace;

/// The Hugging Face cache, shared with every other tool that uses the hub.
///
/// Its layout: `models--ORG--NAME/refs/REVISION` holds a commit, `snapshots/COMMIT/FILE` links to
/// `blobs/ETAG`.
fn cache() -> Result<PathBuf> {
    cache_by(|name| std::env::var_os(name))
}

/// [`cache`] by the variables of an environment.
fn cache_by(environment: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    let home = || std::env::home_dir().context("no home folder for the Hugging Face cache");
    // A shell has done this already, a container's settings have not.
    let folder = |value: OsString| -> Result<PathBuf> {
        let path = PathBuf::from(value);
        Ok(match path.strip_prefix("~") {
            Ok(rest) => home()?.join(rest),
            Err(_) => path,
        })
    };
    // The second is the name of before, which the hub's library heeds, too.
    if let Some(cache) = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")) {
        return folder(cache);
    }
    if let Some(home) = variable("HF_HOME") {
        return Ok(folder(home)?.join("hub"));
    }
    let cache = match variable("XDG_CACHE_HOME") {
        Some(cache) => folder(cache)?,
        None => home()?.join(".cache"),
    };
    Ok(cache.join("huggingface/hub"))
}

/// A variable of the environment that is set to something.
fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?.trim().to_owned();
    (!value.is_empty()).then_some(value)
}

/// Whether the environment forbids the network, as the hub's library reads it.
fn is_offline() -> bool {
    let offline = variable("HF_HUB_OFFLINE").or_else(|| variable("TRANSFORMERS_OFFLINE"));
    offline.is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str()))
}

fn repo_folder(cache: &Path, repo: &str) -> PathBuf {
    cache.join(format!("models--{}", repo.replace('/', "--")))
}

/// The folder of a model that is on this machine with all its files, whoever fetched it.
pub(crate) fn find(lock: &ModelLock, name: &str, entry: &ModelEntry) -> Option<PathBuf> {
    let cache = cache().ok()?;
    let locked = locked(lock, name, entry);
    entry.repos.iter().find_map(|repo| {
        let folder = repo_folder(&cache, repo);
        let branch = || fs_err::read_to_string(folder.join("refs").join(&entry.revision)).ok();
        let commit = match locked {
            Some(locked) => locked.commit.clone(),
            None if is_commit(&entry.revision) => entry.revision.clone(),
            None => branch()?.trim().to_owned(),
        };
        let snapshot = folder.join("snapshots").join(commit);
        entry.files.iter().all(|file| snapshot.join(file).is_file()).then_some(snapshot)
    })
}

/// The commit that a model's revision is, if that is known: a branch is what it was when it was
/// fetched.
pub(crate) fn commit(lock: &ModelLock, name: &str, entry: &ModelEntry) -> Option<String> {
    if is_commit(&entry.revision) {
        return Some(entry.revision.clone());
    }
    if let Some(locked) = locked(lock, name, entry) {
        return Some(locked.commit.clone());
    }
    let folder = find(lock, name, entry)?;
    folder.file_name().map(|commit| commit.to_string_lossy().into_owned())
}

/// What a branch is in a folder of the cache, whoever fetched it.
fn as_it_lies(entry: &ModelEntry, folder: &Path) -> Result<LockedModel> {
    let sha256 = |file: &String| Ok((file.clone(), sha256_file(&folder.join(file))?));
    Ok(LockedModel {
        repo: entry.repos[0].clone(),
        revision: entry.revision.clone(),
        commit: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        sha256: entry.files.iter().map(sha256).collect::<Result<_>>()?,
    })
}

fn locked<'a>(lock: &'a ModelLock, name: &str, entry: &ModelEntry) -> Option<&'a LockedModel> {
    lock.find(name, &entry.repos[0], &entry.revision)
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The folder of a model, fetched from the hub if it is not on this machine. What it was the first
/// time is kept in `models/lock.toml`, and must be the same every other time.
pub(crate) fn fetch(workspace: &Workspace, name: &str, entry: &ModelEntry) -> Result<PathBuf> {
    let path = workspace.model_lock();
    let lock = ModelLock::read(&path)?;
    if let Some(folder) = find(&lock, name, entry) {
        if !is_commit(&entry.revision) && locked(&lock, name, entry).is_none() {
            ModelLock::add(&path, name, as_it_lies(entry, &folder)?)?;
        }
        return Ok(folder);
    }
    if is_offline() {
        let locked = locked(&lock, name, entry);
        bail!(
            "the model `{name}`, {} at {}, is not in the Hugging Face cache {}, and HF_HUB_OFFLINE or \
             TRANSFORMERS_OFFLINE is set: unset it, or give a folder in Hugging Face layout with \
             `--set model.name=DIR`",
            entry.repos[0],
            locked.map_or(&entry.revision, |locked| &locked.commit),
            cache()?.display()
        );
    }
    say(&format!("{name}: fetching about {} MB", entry.bytes / 1_000_000));
    let hub = Hub::from_environment(Patience::default(), cache()?);
    let locked = locked(&lock, name, entry);
    let (folder, found) = hub.fetch(entry, locked).with_context(|| {
        format!(
            "the model `{name}`: without network, let any tool of Hugging Face put {} into its \
             cache, or give a folder in Hugging Face layout with `--set model.name=DIR`",
            entry.repos[0]
        )
    })?;
    if locked.is_none() {
        ModelLock::add(&path, name, found)?;
    }
    Ok(folder)
}

/// The hub, or what stands in for it.
struct Hub {
    client: Client,
    endpoint: String,
    token: Option<String>,
    cache: PathBuf,
}

impl Hub {
    /// As the hub's own library: `HF_ENDPOINT` is a mirror, `HF_TOKEN` gives access.
    fn from_environment(patience: Patience, cache: PathBuf) -> Self {
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        Self { client: Client::new(patience), endpoint, token: variable("HF_TOKEN"), cache }
    }

    /// Fetches the files of a model into the cache; also gives what they are.
    fn fetch(
        &self,
        entry: &ModelEntry,
        locked: Option<&LockedModel>,
    ) -> Result<(PathBuf, LockedModel)> {
        let repo = &entry.repos[0];
        // Whatever a branch is by now, the model is what it was.
        let mut revision = locked.map_or(&entry.revision, |locked| &locked.commit).clone();
        let mut sha256 = BTreeMap::new();
        for file in &entry.files {
            let expected = locked.and_then(|locked| locked.sha256.get(file));
            let (commit, hash) = self.fetch_one(repo, &revision, file, expected)?;
            sha256.insert(file.clone(), hash);
            // The other files are of the same commit, even if the branch moves meanwhile.
            revision = commit;
        }
        ensure!(is_commit(&revision), "{repo}: the hub names no commit");
        let folder = repo_folder(&self.cache, repo);
        if !is_commit(&entry.revision) {
            let reference = folder.join("refs").join(&entry.revision);
            fs_err::create_dir_all(reference.parent().unwrap_or(&folder))?;
            let _lock = FileLock::acquire(&self.locks(repo).join("refs.lock"), || ())?;
            write_durably(&reference, &revision)?;
        }
        let snapshot = folder.join("snapshots").join(&revision);
        let (repo, asked) = (repo.clone(), entry.revision.clone());
        Ok((snapshot, LockedModel { repo, revision: asked, commit: revision, sha256 }))
    }

    /// Where the hub's own library, whose downloads share the cache, has its locks.
    fn locks(&self, repo: &str) -> PathBuf {
        self.cache.join(".locks").join(repo_folder(Path::new(""), repo))
    }

    /// Fetches one file; gives the commit that it belongs to and its sha256.
    fn fetch_one(
        &self,
        repo: &str,
        revision: &str,
        file: &str,
        expected: Option<&String>,
    ) -> Result<(String, String)> {
        let url = format!("{}/{repo}/resolve/{revision}/{file}", self.endpoint);
        let token = self.token.as_deref();
        // The hub itself knows the hash of a large file; the storage it redirects to does not.
        let about = About::read(&self.client.head(&url, token)?).with_context(|| url.clone())?;
        let folder = repo_folder(&self.cache, repo);
        let (blobs, locks) = (folder.join("blobs"), self.locks(repo));
        for folder in [&blobs, &locks] {
            fs_err::create_dir_all(folder)?;
        }
        let blob = blobs.join(&about.etag);
        // The hash of a file in large-file storage is its sha256; that of a small one is git's.
        let hash = |digits| (about.etag.len() == digits).then(|| about.etag.clone());
        let wanted = Expected { sha256: hash(64), git_sha1: hash(40), bytes: about.bytes };
        let lock = locks.join(format!("{}.lock", about.etag));
        self.client.fetch(&url, token, &blob, &lock, &wanted, || Ok(blob.is_file()))?;
        let sha256 = wanted.sha256.map_or_else(|| sha256_file(&blob), Ok)?;
        if let Some(expected) = expected {
            ensure!(
                *expected == sha256,
                "{url}: expected sha256 {expected} (models/lock.toml), found {sha256}: the file is \
                 not the one that was fetched under this name before"
            );
        }
        let snapshot = folder.join("snapshots").join(&about.commit);
        let link = snapshot.join(file);
        fs_err::create_dir_all(link.parent().unwrap_or(&snapshot))?;
        if !link.exists() {
            let up = "../".repeat(2 + Path::new(file).components().count() - 1);
            let target = PathBuf::from(up).join("blobs").join(&about.etag);
            let linked = link_to(&target, &blob, &link, &lock);
            // Another process may have been faster.
            ensure!(link.exists(), linked.err().unwrap_or_else(|| anyhow!("{}", link.display())));
        }
        Ok((about.commit, sha256))
    }
}

/// What the hub says of a file.
struct About {
    commit: String,
    etag: String,
    bytes: Option<u64>,
}

impl About {
    fn read(answer: &Parts) -> Result<Self> {
        let text = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let etag = text("x-linked-etag").or(text("etag")).context("the answer has no ETag")?;
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        let hexadecimal =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        let commit = text("x-repo-commit").context("the answer names no commit")?.to_owned();
        ensure!(
            hexadecimal(&etag) && hexadecimal(&commit),
            "the answer's ETag or commit is no hash"
        );
        let linked = text("x-linked-size").and_then(|size| size.parse().ok());
        Ok(Self { commit, etag, bytes: linked.or_else(|| transfer::announced(answer)) })
    }
}

#[cfg(unix)]
fn link_to(target: &Path, _: &Path, link: &Path, _: &Path) -> Result<()> {
    Ok(fs_err::os::unix::fs::symlink(target, link)?)
}

// Links need a privilege there; the hub's own library copies, too.
#[cfg(not(unix))]
fn link_to(_: &Path, blob: &Path, link: &Path, lock: &Path) -> Result<()> {
    copy_to(blob, link, lock)
}

/// Stands in for a link: a copy that has its name only when all of it is there.
#[cfg(any(not(unix), test))]
fn copy_to(blob: &Path, link: &Path, lock: &Path) -> Result<()> {
    let _lock = FileLock::acquire(lock, || ())?;
    if link.is_file() {
        return Ok(());
    }
    transfer::copy_locked(blob, link, &Expected::default())
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
