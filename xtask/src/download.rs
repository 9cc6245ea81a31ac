use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use nsmc_experiment::{AdapterEntry, DatasetEntry, FileEntry, RawEntry, sha256_file};
use ureq::http::{StatusCode, header};

use crate::args::{Download, Source};
use crate::workspace::Workspace;
use crate::{hub, say};

/// Attempts at one file, with growing pauses between them.
const ATTEMPTS: u32 = 5;

pub(crate) fn run(workspace: &Workspace, args: &Download) -> Result<()> {
    let (datasets, models) = (workspace.datasets()?, workspace.models()?);
    let known =
        || datasets.datasets.keys().chain(models.models.keys()).chain(models.adapters.keys());
    for name in &args.names {
        if !known().any(|known| known == name) {
            let known: Vec<&str> = known().map(String::as_str).collect();
            bail!("`{name}`: expected one of {}", known.join(", "));
        }
    }
    let wanted = |name: &String| args.names.contains(name);
    for (name, entry) in &datasets.datasets {
        if args.names.is_empty() || wanted(name) {
            dataset(workspace, name, entry, &args.source)?;
        }
    }
    for (name, entry) in &models.models {
        if wanted(name) {
            let folder = hub::fetch(name, entry)?;
            say(&format!("{name}: {}", folder.display()));
        } else if args.names.is_empty() && hub::find(entry).is_none() {
            say(&format!(
                "{name} ({} MB) is fetched when a run needs it, or by `cargo xtask download {name}`",
                entry.bytes / 1_000_000
            ));
        }
    }
    for (name, entry) in &models.adapters {
        if wanted(name) {
            adapter(workspace, name, entry, &args.source)?;
        }
    }
    Ok(())
}

/// Puts an adapter's archive into `models/adapters/`; one that is right already is left alone.
pub(crate) fn adapter(
    workspace: &Workspace,
    name: &str,
    entry: &AdapterEntry,
    source: &Source,
) -> Result<()> {
    let folder = workspace.root.join(Workspace::adapters_folder());
    fs_err::create_dir_all(&folder)?;
    let target = folder.join(&entry.file);
    if target.is_file() && sha256_file(&target)? == entry.sha256 {
        return Ok(());
    }
    let expected = Expected { sha256: Some(entry.sha256.clone()), bytes: None };
    let mirrored = source.mirror.as_ref().map(|mirror| mirror.join("adapters").join(&entry.file));
    match mirrored.filter(|file| file.is_file()) {
        Some(file) => copy(&file, &target, &expected)?,
        None => fetch(&agent(), &entry.url, &[], &target, &expected).with_context(|| {
            format!(
                "the adapter `{name}`: without network, give a folder that holds adapters/{} with \
                 `--mirror DIR` or NSMC_MIRROR, or leave it out of `method.setup`",
                entry.file
            )
        })?,
    }
    say(&format!("{}: sha256 {}", target.display(), entry.sha256));
    Ok(())
}

/// Puts a data set's files into `datasets/<name>/`; files that are right already are left alone.
pub(crate) fn dataset(
    workspace: &Workspace,
    name: &str,
    entry: &DatasetEntry,
    source: &Source,
) -> Result<()> {
    let folder = workspace.root.join(Workspace::datasets_folder()).join(name);
    fs_err::create_dir_all(&folder)?;
    for file in [&entry.train, &entry.test] {
        let target = folder.join(&file.name);
        if target.is_file() && sha256_file(&target)? == file.sha256 {
            continue;
        }
        ensure!(
            !file.url.is_empty(),
            "{}: the file of this repository is missing or changed; `git checkout` brings it back",
            target.display()
        );
        if let Some(mirror) = &source.mirror {
            copy(&mirror.join(name).join(&file.name), &target, &expected(file))?;
        } else {
            let fetched = fetch(&agent(), &file.url, &[], &target, &expected(file));
            fetched.with_context(|| {
                format!(
                    "the data set `{name}`: without network, give a folder that holds \
                     {name}/{} with `--mirror DIR` or NSMC_MIRROR",
                    file.name
                )
            })?;
        }
        say(&format!("{}: {} rows, sha256 {}", target.display(), file.rows, file.sha256));
    }
    Ok(())
}

/// Puts a data set's archive into its folder; one that is there already is left alone.
pub(crate) fn raw(
    workspace: &Workspace,
    name: &str,
    entry: &RawEntry,
    source: &Source,
) -> Result<()> {
    let target = workspace.root.join(Workspace::datasets_folder()).join(name).join(&entry.name);
    if target.is_file() {
        return Ok(());
    }
    let expected = Expected { sha256: None, bytes: None };
    match &source.mirror {
        Some(mirror) => copy(&mirror.join(name).join(&entry.name), &target, &expected)?,
        None => fetch(&agent(), &entry.url, &[], &target, &expected).with_context(|| {
            format!(
                "the archive of `{name}`: without network, give a folder that holds {name}/{} with \
                 `--mirror DIR` or NSMC_MIRROR",
                entry.name
            )
        })?,
    }
    say(&format!("{}: there", target.display()));
    Ok(())
}

/// What a file must turn out to be before it gets its name.
pub(crate) struct Expected {
    pub(crate) sha256: Option<String>,
    pub(crate) bytes: Option<u64>,
}

fn expected(file: &FileEntry) -> Expected {
    Expected { sha256: Some(file.sha256.clone()), bytes: Some(file.bytes) }
}

fn copy(from: &Path, target: &Path, expected: &Expected) -> Result<()> {
    let partial = partial(target);
    fs_err::copy(from, &partial)?;
    publish(&partial, target, expected).with_context(|| format!("{}", from.display()))
}

/// The agent of all requests. Proxies come from the environment.
pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(15)))
        .timeout_recv_response(Some(Duration::from_mins(1)))
        .http_status_as_error(false)
        .build()
        .into()
}

/// Fetches `url` to `target`: a broken transfer is taken up where it stopped, and the file gets its
/// name only when it is what was expected.
pub(crate) fn fetch(
    agent: &ureq::Agent,
    url: &str,
    headers: &[(&str, String)],
    target: &Path,
    expected: &Expected,
) -> Result<()> {
    let partial = partial(target);
    let mut pause = Duration::from_millis(500);
    for attempt in 1..=ATTEMPTS {
        match transfer(agent, url, headers, &partial, expected) {
            Ok(()) => return publish(&partial, target, expected).with_context(|| url.to_owned()),
            Err(Transfer::Final(error)) => return Err(error),
            Err(Transfer::Again(error)) if attempt == ATTEMPTS => return Err(error),
            Err(Transfer::Again(error)) => {
                say(&format!("{error:#}; trying again"));
                std::thread::sleep(pause);
                pause *= 2;
            }
        }
    }
    unreachable!("the last attempt returns")
}

/// How a transfer failed.
enum Transfer {
    /// It may go through next time.
    Again(anyhow::Error),
    /// It will not.
    Final(anyhow::Error),
}

fn transfer(
    agent: &ureq::Agent,
    url: &str,
    headers: &[(&str, String)],
    partial: &Path,
    expected: &Expected,
) -> Result<(), Transfer> {
    let fatal = |error: std::io::Error| Transfer::Final(error.into());
    let again = |error: anyhow::Error| Transfer::Again(error.context(url.to_owned()));
    let mut file = fs_err::OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .open(partial)
        .map_err(fatal)?;
    let mut have = file.metadata().map_err(fatal)?.len();
    if expected.bytes.is_some_and(|bytes| have > bytes) {
        file.set_len(0).map_err(fatal)?;
        have = 0;
    }
    if have > 0 && expected.bytes == Some(have) {
        return Ok(());
    }
    let mut request = agent.get(url);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    if have > 0 {
        request = request.header(header::RANGE, format!("bytes={have}-"));
    }
    let response = request.call().map_err(|error| again(error.into()))?;
    let status = response.status();
    match status {
        StatusCode::PARTIAL_CONTENT if starts_at(&response, have) => {}
        // The server sends everything, or something else than was asked for: begin again.
        StatusCode::OK => file.set_len(0).map_err(fatal)?,
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
            file.set_len(0).map_err(fatal)?;
            return Err(again(anyhow::anyhow!("the server does not resume the transfer")));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            return Err(again(anyhow::anyhow!("the server answered {status}")));
        }
        _ if status.is_server_error() => {
            return Err(again(anyhow::anyhow!("the server answered {status}")));
        }
        _ => {
            return Err(Transfer::Final(anyhow::anyhow!("{url}: the server answered {status}")));
        }
    }
    let start = file.seek(SeekFrom::End(0)).map_err(fatal)?;
    let total = expected.bytes.or_else(|| {
        let length = response.headers().get(header::CONTENT_LENGTH)?;
        Some(start + length.to_str().ok()?.parse::<u64>().ok()?)
    });
    let bar = bar(partial, start, total);
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                file.write_all(&buffer[..read]).map_err(fatal)?;
                bar.inc(read as u64);
            }
            Err(error) => return Err(again(error.into())),
        }
    }
    bar.finish_and_clear();
    let have = file.metadata().map_err(fatal)?.len();
    match total {
        Some(total) if have < total => {
            Err(again(anyhow::anyhow!("the transfer ended after {have} of {total} bytes")))
        }
        _ => Ok(()),
    }
}

fn starts_at<T>(response: &ureq::http::Response<T>, start: u64) -> bool {
    response
        .headers()
        .get(header::CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|range| range.starts_with(&format!("bytes {start}-")))
}

/// Gives a complete file its name, or throws it away.
fn publish(partial: &Path, target: &Path, expected: &Expected) -> Result<()> {
    let check = || -> Result<()> {
        let bytes = fs_err::metadata(partial)?.len();
        if let Some(wanted) = expected.bytes {
            ensure!(bytes == wanted, "expected {wanted} bytes, found {bytes}");
        }
        if let Some(wanted) = &expected.sha256 {
            let found = sha256_file(partial)?;
            ensure!(
                found == *wanted,
                "expected sha256 {wanted}, found {found}: the file is damaged or has changed"
            );
        }
        Ok(())
    };
    if let Err(error) = check() {
        fs_err::remove_file(partial)?;
        return Err(error);
    }
    Ok(fs_err::rename(partial, target)?)
}

fn partial(target: &Path) -> std::path::PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    target.with_file_name(name)
}

fn bar(partial: &Path, start: u64, total: Option<u64>) -> ProgressBar {
    let name = partial.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let template = "{prefix} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}";
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let bar = bar.with_style(style).with_prefix(name);
    bar.set_position(start);
    bar
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    use nsmc_experiment::sha256_hex;

    use super::*;

    /// What the server does with one request; `offset` is what a range asks for.
    type Answer = fn(body: &[u8], offset: usize) -> Vec<u8>;

    /// Answers each request in turn with the next of `answers`; gives the address and the ranges
    /// asked for.
    fn serve(body: &'static [u8], answers: Vec<Answer>) -> (String, Arc<Mutex<Vec<usize>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/file", listener.local_addr().unwrap());
        let offsets = Arc::new(Mutex::new(Vec::new()));
        let seen = offsets.clone();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut offset = 0;
                for line in BufReader::new(&stream).lines() {
                    let line = line.unwrap().to_lowercase();
                    if let Some(range) = line.strip_prefix("range: bytes=") {
                        offset = range.trim_end_matches('-').parse().unwrap();
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                seen.lock().unwrap().push(offset);
                let _ = stream.write_all(&answer(body, offset));
            }
        });
        (address, offsets)
    }

    fn whole(body: &[u8], _: usize) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }

    fn rest(body: &[u8], offset: usize) -> Vec<u8> {
        let rest = &body[offset..];
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {offset}-{}/{}\r\n\
             Connection: close\r\n\r\n",
            rest.len(),
            body.len() - 1,
            body.len()
        );
        [head.as_bytes(), rest].concat()
    }

    fn cut(body: &[u8], offset: usize) -> Vec<u8> {
        let mut answer = if offset == 0 { whole(body, 0) } else { rest(body, offset) };
        answer.truncate(answer.len() - 4);
        answer
    }

    fn busy(_: &[u8], _: usize) -> Vec<u8> {
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            .to_vec()
    }

    fn missing(_: &[u8], _: usize) -> Vec<u8> {
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
    }

    const BODY: &[u8] = b"id\tdocument\tlabel\n1\tgood\t1\n2\tbad\t0\n";

    fn download(answers: Vec<Answer>) -> (Result<Vec<u8>, String>, Vec<usize>, usize) {
        let (url, offsets) = serve(BODY, answers);
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file.txt");
        let expected = Expected { sha256: Some(sha256_hex(BODY)), bytes: Some(BODY.len() as u64) };
        let result = fetch(&agent(), &url, &[], &target, &expected)
            .map(|()| fs_err::read(&target).unwrap())
            .map_err(|error| format!("{error:#}"));
        let left = fs_err::read_dir(folder.path()).unwrap().count();
        let offsets = offsets.lock().unwrap().clone();
        (result, offsets, left)
    }

    #[test]
    fn a_broken_transfer_is_taken_up_where_it_stopped() {
        let (result, offsets, left) = download(vec![cut, busy, cut, rest]);
        assert_eq!(result.unwrap(), BODY);
        let length = BODY.len();
        assert_eq!(offsets, [0, length - 4, length - 4, length - 4]);
        assert_eq!(left, 1);
    }

    #[test]
    fn a_server_that_cannot_resume_sends_everything_again() {
        let (result, ..) = download(vec![cut, whole]);
        assert_eq!(result.unwrap(), BODY);
    }

    #[test]
    fn another_content_never_gets_the_name() {
        fn other(body: &[u8], _: usize) -> Vec<u8> {
            let mut other = body.to_vec();
            other[20] ^= 1;
            whole(&other, 0)
        }
        let (result, _, left) = download(vec![other]);
        assert!(result.unwrap_err().contains("expected sha256"));
        assert_eq!(left, 0);
    }

    #[test]
    fn a_missing_file_is_an_error_at_once() {
        let (result, offsets, _) = download(vec![missing]);
        assert!(result.unwrap_err().contains("404"));
        assert_eq!(offsets.len(), 1);
    }
}
