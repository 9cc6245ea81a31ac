//! A file over HTTP: taken up where it stopped, and checked before it gets its name.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use nsmc_experiment::{FileLock, git_blob_sha1, sha256_file};
use ureq::config::RedirectAuthHeaders;
use ureq::http::response::Parts;
use ureq::http::{HeaderMap, Response, StatusCode, Uri, header};
use ureq::{Agent, Body};

use crate::say;

/// How many redirects within its host [`Client::head`] follows. The hub needs two: from a repository's
/// old name, and to its cache of small files.
const MAX_REDIRECTS: usize = 5;

/// What a file must turn out to be before it gets its name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    pub(crate) sha256: Option<String>,
    /// As git, and so the Hugging Face hub, calls a small file.
    pub(crate) git_sha1: Option<String>,
    pub(crate) bytes: Option<u64>,
}

/// How long a server is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Attempts in a row that bring nothing.
    pub(crate) attempts: u32,
    /// Before the second attempt; it doubles with each.
    pub(crate) pause: Duration,
    /// The longest wait that a server may ask for.
    pub(crate) longest_wait: Duration,
    /// How long nothing may come.
    pub(crate) stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            pause: Duration::from_secs(1),
            longest_wait: Duration::from_mins(5),
            stall: Duration::from_secs(30),
        }
    }
}

/// Fetches files. Proxies come from the environment: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`,
/// `NO_PROXY`.
pub(crate) struct Client {
    agent: Agent,
    patience: Patience,
}

/// How an attempt failed.
enum Failure {
    /// It may go through next time.
    Again {
        error: Error,
        /// What the server asks for.
        wait: Option<Duration>,
        /// How much of the file was there in the end.
        reached: u64,
    },
    /// It will not.
    Final(Error),
}

impl Failure {
    fn again(error: impl Into<Error>) -> Self {
        Self::Again { error: error.into(), wait: None, reached: 0 }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Final(error.into())
    }
}

impl Client {
    pub(crate) fn new(patience: Patience) -> Self {
        let agent = Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(patience.stall))
            .timeout_per_read(Some(patience.stall))
            // A token goes to no other host.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            // A file that is packed for its way has another length, and nothing here unpacks it.
            .accept_encoding("identity")
            .http_status_as_error(false)
            .build()
            .into();
        Self { agent, patience }
    }

    /// Fetches `url` to `target`. Processes that want the same file wait for each other; `is_there`
    /// says whether another one has brought it.
    pub(crate) fn fetch(
        &self,
        url: &str,
        token: Option<&str>,
        target: &Path,
        lock: &Path,
        expected: &Expected,
        is_there: impl Fn() -> Result<bool>,
    ) -> Result<()> {
        let _lock = FileLock::acquire(lock, || {
            say(&format!("waiting for another process that fetches {}", target.display()));
        })?;
        if is_there()? {
            return Ok(());
        }
        let partial = Partial::of(target);
        self.persist(url, || {
            let resumed = self.transfer(url, token, &partial, expected)?;
            let Err(error) = partial.check(expected) else { return Ok(()) };
            partial.remove()?;
            // What an earlier attempt left may be what is wrong with it.
            Err(if resumed { Failure::again(error) } else { Failure::Final(error) })
        })?;
        partial.publish(target)
    }

    /// What a server says of `url`, without the file.
    ///
    /// Redirects are followed within the host (`/path`), and the last answer is the one that counts.
    /// One to another place is an answer itself: the hub sends those to the storage of large files,
    /// and tells in the same headers what the file is.
    pub(crate) fn head(&self, url: &str, token: Option<&str>) -> Result<Parts> {
        self.persist(url, || {
            let mut url = url.to_owned();
            for _ in 0..=MAX_REDIRECTS {
                let mut request = self.agent.head(&url).config().max_redirects(0).build();
                if let Some(token) = token {
                    request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
                }
                let response = request.call().map_err(Failure::again)?;
                let status = response.status();
                if !status.is_success() && !status.is_redirection() {
                    return Err(refused(&response));
                }
                match within_host(&url, &response) {
                    Some(next) => url = next,
                    None => return Ok(response.into_parts().0),
                }
            }
            Err(Failure::Final(anyhow!(
                "expected the file after at most {MAX_REDIRECTS} redirects, the server goes on to \
                 {url}: if HF_ENDPOINT is set, see whether it is the hub's address"
            )))
        })
    }

    /// Attempts something until it is done, or nothing has come of it for too often.
    fn persist<T>(&self, url: &str, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        let Patience { attempts, pause, longest_wait, .. } = self.patience;
        let (mut failures, mut furthest) = (0, 0);
        loop {
            let (error, wait, reached) = match attempt() {
                Ok(done) => return Ok(done),
                Err(Failure::Final(error)) => return Err(error.context(url.to_owned())),
                Err(Failure::Again { error, wait, reached }) => (error, wait, reached),
            };
            failures = if reached > furthest { 1 } else { failures + 1 };
            furthest = furthest.max(reached);
            if failures >= attempts {
                let error = error.context(format!("{failures} attempts in a row failed"));
                return Err(error.context(url.to_owned()));
            }
            let wait = wait.unwrap_or(pause * 2_u32.pow(failures - 1));
            if wait > longest_wait {
                let error = error.context(format!("it asks for {} s of patience", wait.as_secs()));
                return Err(error.context(url.to_owned()));
            }
            say(&format!("{url}: {error:#}; again in {:.1} s", wait.as_secs_f64()));
            std::thread::sleep(wait);
        }
    }

    /// Brings what is missing of a file. Whether some of it was there before.
    fn transfer(
        &self,
        url: &str,
        token: Option<&str>,
        partial: &Partial,
        expected: &Expected,
    ) -> Result<bool, Failure> {
        let mut file = partial.open()?;
        let mut have = file.metadata()?.len();
        let etag = partial.etag();
        let hashed = expected.sha256.is_some() || expected.git_sha1.is_some();
        let known = etag.is_some() || hashed;
        if have > 0 && (!known || expected.bytes.is_some_and(|bytes| have > bytes)) {
            file.set_len(0)?;
            have = 0;
        }
        if have > 0 && expected.bytes == Some(have) {
            return Ok(true);
        }
        let mut request = self.agent.get(url);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
            // If the file is another one by now, the server sends all of it.
            if let Some(etag) = &etag {
                request = request.header(header::IF_RANGE, etag);
            }
        }
        let response = request.call().map_err(Failure::again)?;
        if response.status().is_success()
            && let Some(encoding) = encoding(response.headers())
        {
            return Err(Failure::Final(anyhow!(
                "expected the file as it is, the server sends it with Content-Encoding: \
                 {encoding}: see whether a proxy or mirror on the way packs files"
            )));
        }
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let other = etag.is_some() && text(&response, header::ETAG) != etag.as_deref();
                if other || range_start(&response) != Some(have) {
                    file.set_len(0)?;
                    return Err(Failure::again(anyhow!("the server does not resume the transfer")));
                }
                have
            }
            StatusCode::OK => {
                file.set_len(0)?;
                partial.remember(text(&response, header::ETAG))?;
                0
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                file.set_len(0)?;
                return Err(Failure::again(anyhow!("the server does not resume the transfer")));
            }
            _ => return Err(refused(&response)),
        };
        let offered = text(&response, header::CONTENT_LENGTH)
            .and_then(|length| start.checked_add(length.parse().ok()?));
        if let (Some(offered), Some(wanted)) = (offered, expected.bytes)
            && offered != wanted
        {
            partial.remove()?;
            return Err(Failure::Final(anyhow!(
                "expected {wanted} bytes, the server offers {offered}: the file has changed"
            )));
        }
        let total = expected.bytes.or(offered);
        receive(response.into_body(), &mut file, start, total, partial)?;
        Ok(start > 0)
    }
}

/// Writes a body to the end of a file; no more than was announced.
fn receive(
    body: Body,
    file: &mut fs_err::File,
    start: u64,
    total: Option<u64>,
    partial: &Partial,
) -> Result<(), Failure> {
    let bar = bar(&partial.name(), start, total);
    let mut body = body.into_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut have = start;
    let again = |error: Error, reached| Failure::Again { error, wait: None, reached };
    loop {
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                have += read as u64;
                if total.is_some_and(|total| have > total) {
                    partial.remove()?;
                    let error =
                        anyhow!("it sends more than the {} bytes expected", total.unwrap_or(0));
                    return Err(Failure::Final(error));
                }
                file.write_all(&buffer[..read])?;
                bar.inc(read as u64);
            }
            Err(error) => return Err(again(error.into(), have)),
        }
    }
    bar.finish_and_clear();
    match total {
        Some(total) if have < total => {
            Err(again(anyhow!("the transfer ended after {have} of {total} bytes"), have))
        }
        _ => Ok(()),
    }
}

/// What an answer other than the file means.
fn refused(response: &Response<Body>) -> Failure {
    let status = response.status();
    let seconds = text(response, header::RETRY_AFTER).and_then(|after| after.trim().parse().ok());
    let error = anyhow!("the server answered {status}");
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            Failure::Again { error, wait: seconds.map(Duration::from_secs), reached: 0 }
        }
        _ if status.is_server_error() => {
            Failure::Again { error, wait: seconds.map(Duration::from_secs), reached: 0 }
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Failure::Final(error.context(
                "no access; a gated or private repository of the hub wants a valid HF_TOKEN",
            ))
        }
        _ => Failure::Final(error),
    }
}

fn text<T>(response: &Response<T>, name: header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// Where a redirect leads that stays on the host of `url`.
fn within_host<T>(url: &str, response: &Response<T>) -> Option<String> {
    let location =
        text(response, header::LOCATION).filter(|_| response.status().is_redirection())?;
    // `//host/path` names another host.
    if !location.starts_with('/') || location.starts_with("//") {
        return None;
    }
    let url: Uri = url.parse().ok()?;
    Some(format!("{}://{}{location}", url.scheme_str()?, url.authority()?))
}

/// What a body is packed with, if it is not the file as it is.
fn encoding(headers: &HeaderMap) -> Option<&str> {
    let encoding = headers.get(header::CONTENT_ENCODING)?.to_str().unwrap_or("?").trim();
    (!encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity")).then_some(encoding)
}

/// How long the file is that an answer without it speaks of.
pub(crate) fn announced(answer: &Parts) -> Option<u64> {
    // A redirect's length is that of its own text.
    if !answer.status.is_success() || encoding(&answer.headers).is_some() {
        return None;
    }
    answer.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Where the part that a server sends begins.
fn range_start<T>(response: &Response<T>) -> Option<u64> {
    let range = text(response, header::CONTENT_RANGE)?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.parse().ok()
}

/// A file on its way: `NAME.partial`, and beside it the ETag of what it is a part of.
struct Partial {
    path: PathBuf,
    etag: PathBuf,
}

impl Partial {
    fn of(target: &Path) -> Self {
        let with = |suffix: &str| {
            let mut name = target.file_name().unwrap_or_default().to_owned();
            name.push(suffix);
            target.with_file_name(name)
        };
        Self { path: with(".partial"), etag: with(".partial.etag") }
    }

    fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn open(&self) -> std::io::Result<fs_err::File> {
        fs_err::OpenOptions::new().create(true).append(true).open(&self.path)
    }

    fn etag(&self) -> Option<String> {
        fs_err::read_to_string(&self.etag).ok()
    }

    /// A weak ETag does not say that the bytes are the same.
    fn remember(&self, etag: Option<&str>) -> std::io::Result<()> {
        match etag.filter(|etag| !etag.starts_with("W/")) {
            Some(etag) => fs_err::write(&self.etag, etag),
            None if self.etag.exists() => fs_err::remove_file(&self.etag),
            None => Ok(()),
        }
    }

    fn remove(&self) -> std::io::Result<()> {
        self.remember(None)?;
        fs_err::remove_file(&self.path)
    }

    fn check(&self, expected: &Expected) -> Result<()> {
        check(&self.path, expected)
    }

    /// Gives a complete file its name.
    fn publish(&self, target: &Path) -> Result<()> {
        // After a power failure a file that was not synced may be empty under its name.
        open_to_sync(&self.path)?.sync_all()?;
        fs_err::rename(&self.path, target)?;
        Ok(self.remember(None)?)
    }
}

/// Windows syncs a file only for one who may write to it.
fn open_to_sync(path: &Path) -> std::io::Result<fs_err::File> {
    fs_err::OpenOptions::new().read(true).write(true).open(path)
}

/// Whether a file is what is expected.
fn check(path: &Path, expected: &Expected) -> Result<()> {
    let bytes = fs_err::metadata(path)?.len();
    if let Some(wanted) = expected.bytes {
        ensure!(bytes == wanted, "expected {wanted} bytes, found {bytes}");
    }
    let changed = "the file is damaged or has changed";
    if let Some(wanted) = &expected.sha256 {
        let found = sha256_file(path)?;
        ensure!(found == *wanted, "expected sha256 {wanted}, found {found}: {changed}");
    }
    if let Some(wanted) = &expected.git_sha1 {
        let found = git_blob_sha1(path)?;
        ensure!(found == *wanted, "expected the git hash {wanted}, found {found}: {changed}");
    }
    Ok(())
}

/// Copies a file of a mirror to `target`, with the same checks.
pub(crate) fn copy(from: &Path, target: &Path, expected: &Expected) -> Result<()> {
    let _lock = FileLock::acquire(&lock_beside(target), || {
        say(&format!("waiting for another process that copies {}", target.display()));
    })?;
    copy_locked(from, target, expected)
}

/// The same for one who keeps others from copying to `target` meanwhile.
pub(crate) fn copy_locked(from: &Path, target: &Path, expected: &Expected) -> Result<()> {
    let partial = Partial::of(target);
    // Not `fs::copy`: with a file's bytes it copies that a mirror may not be written to.
    let mut source = fs_err::File::open(from)?;
    std::io::copy(&mut source, &mut fs_err::File::create(&partial.path)?)?;
    if let Err(error) = partial.check(expected) {
        partial.remove()?;
        return Err(error).with_context(|| from.display().to_string());
    }
    partial.publish(target)
}

/// The lock of a file that is fetched.
pub(crate) fn lock_beside(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.lock"))
}

fn bar(name: &str, start: u64, total: Option<u64>) -> ProgressBar {
    let template = "{prefix} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}";
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let bar = bar.with_style(style).with_prefix(name.to_owned());
    bar.set_position(start);
    bar
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
pub(crate) mod tests;
