use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nsmc_experiment::ModelEntry;
use ureq::http::HeaderMap;

use crate::download::{Expected, agent, fetch as fetch_file};
use crate::say;

/// The Hugging Face cache, shared with every other tool that uses the hub.
///
/// Its layout: `models--ORG--NAME/refs/REVISION` holds a commit, `snapshots/COMMIT/FILE` links to
/// `blobs/ETAG`.
fn cache() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = || std::env::home_dir().context("no home folder for the Hugging Face cache");
    if let Some(cache) = variable("HF_HUB_CACHE") {
        return Ok(cache.into());
    }
    if let Some(folder) = variable("HF_HOME") {
        return Ok(PathBuf::from(folder).join("hub"));
    }
    let cache = match variable("XDG_CACHE_HOME") {
        Some(cache) => cache.into(),
        None => home()?.join(".cache"),
    };
    Ok(cache.join("huggingface/hub"))
}

fn repo_folder(cache: &Path, repo: &str) -> PathBuf {
    cache.join(format!("models--{}", repo.replace('/', "--")))
}

/// The folder of a model that is on this machine with all its files, whoever fetched it.
pub(crate) fn find(entry: &ModelEntry) -> Option<PathBuf> {
    let cache = cache().ok()?;
    entry.repos.iter().find_map(|repo| {
        let folder = repo_folder(&cache, repo);
        let reference = fs_err::read_to_string(folder.join("refs").join(&entry.revision));
        let commit = reference.map_or_else(|_| entry.revision.clone(), |text| text.trim().into());
        let snapshot = folder.join("snapshots").join(commit);
        entry.files.iter().all(|file| snapshot.join(file).is_file()).then_some(snapshot)
    })
}

/// The folder of a model, fetched from the hub if it is not on this machine.
pub(crate) fn fetch(name: &str, entry: &ModelEntry) -> Result<PathBuf> {
    if let Some(folder) = find(entry) {
        return Ok(folder);
    }
    let offline = std::env::var("HF_HUB_OFFLINE").unwrap_or_default();
    if ["1", "true", "yes", "on"].contains(&offline.to_lowercase().as_str()) {
        bail!("the model `{name}` is not in the Hugging Face cache, and HF_HUB_OFFLINE is set");
    }
    say(&format!("{name}: fetching about {} MB", entry.bytes / 1_000_000));
    let repo = &entry.repos[0];
    let folder = repo_folder(&cache()?, repo);
    let mut commit = None;
    for file in &entry.files {
        let found = fetch_one(repo, entry, file, &folder).with_context(|| {
            format!(
                "the model `{name}`: without network, let any tool of Hugging Face put {repo} into \
                 its cache, or give a folder in Hugging Face layout with `--set model.name=DIR`"
            )
        })?;
        commit = Some(found);
    }
    let commit = commit.context("a model has files")?;
    let refs = folder.join("refs");
    fs_err::create_dir_all(&refs)?;
    fs_err::write(refs.join(&entry.revision), &commit)?;
    Ok(folder.join("snapshots").join(commit))
}

/// Fetches one file into the cache and returns the commit it belongs to.
fn fetch_one(repo: &str, entry: &ModelEntry, file: &str, folder: &Path) -> Result<String> {
    let endpoint = std::env::var("HF_ENDPOINT").unwrap_or_else(|_| "https://huggingface.co".into());
    let url =
        format!("{}/{repo}/resolve/{}/{file}", endpoint.trim_end_matches('/'), entry.revision);
    let token = std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty());
    let headers: Vec<(&str, String)> =
        token.map(|token| ("Authorization", format!("Bearer {token}"))).into_iter().collect();

    // The hub itself knows the hash of a large file; the storage it redirects to does not.
    let mut request = agent().head(&url).config().max_redirects(0).build();
    for (name, value) in &headers {
        request = request.header(*name, value);
    }
    let response = request.call().with_context(|| url.clone())?;
    let status = response.status();
    ensure!(status.is_success() || status.is_redirection(), "{url}: the server answered {status}");
    let about = About::read(response.headers()).with_context(|| url.clone())?;

    let blob = folder.join("blobs").join(&about.etag);
    fs_err::create_dir_all(folder.join("blobs"))?;
    if !blob.is_file() {
        // The hash of a file in large-file storage is its sha256; that of a small one is git's.
        let sha256 = (about.etag.len() == 64).then(|| about.etag.clone());
        fetch_file(&agent(), &url, &headers, &blob, &Expected { sha256, bytes: about.bytes })?;
    }
    let snapshot = folder.join("snapshots").join(&about.commit);
    fs_err::create_dir_all(&snapshot)?;
    let link = snapshot.join(file);
    if !link.exists() {
        link_to(&Path::new("../../blobs").join(&about.etag), &blob, &link)?;
    }
    Ok(about.commit)
}

/// What the hub says of a file.
struct About {
    commit: String,
    etag: String,
    bytes: Option<u64>,
}

impl About {
    fn read(headers: &HeaderMap) -> Result<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let etag = text("x-linked-etag").or(text("etag")).context("the answer has no ETag")?;
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        let hexadecimal =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        let commit = text("x-repo-commit").context("the answer names no commit")?.to_owned();
        ensure!(
            hexadecimal(&etag) && hexadecimal(&commit),
            "the answer's ETag or commit is no hash"
        );
        let size = text("x-linked-size").or(text("content-length"));
        Ok(Self { commit, etag, bytes: size.and_then(|size| size.parse().ok()) })
    }
}

#[cfg(unix)]
fn link_to(target: &Path, _: &Path, link: &Path) -> Result<()> {
    Ok(fs_err::os::unix::fs::symlink(target, link)?)
}

// Links need a privilege there; the hub's own library copies, too.
#[cfg(not(unix))]
fn link_to(_: &Path, blob: &Path, link: &Path) -> Result<()> {
    fs_err::copy(blob, link)?;
    Ok(())
}
