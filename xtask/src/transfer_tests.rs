use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use nsmc_experiment::sha256_hex;

use super::*;
use crate::test_server::{Answer, Request, Server, answer, cut, file};

const BODY: &[u8] = b"id\tdocument\tlabel\n1\tgood\t1\n2\tbad\t0\n";
const OTHER: &[u8] = b"id\tdocument\tlabel\n1\tevil\t1\n2\tbad\t0\n";

/// Waits for nothing longer than it must, but for an answer as long as a busy machine may take.
pub(crate) const HASTE: Patience = Patience {
    attempts: 4,
    pause: Duration::from_millis(10),
    longest_wait: Duration::from_secs(2),
    stall: Duration::from_mins(2),
};

fn expected() -> Expected {
    let bytes = Some(BODY.len() as u64);
    Expected { sha256: Some(sha256_hex(BODY)), bytes, ..Expected::default() }
}

struct Download {
    folder: tempfile::TempDir,
}

impl Download {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("file.txt")
    }

    fn run(&self, server: &Server, expected: &Expected) -> Result<Vec<u8>, String> {
        self.run_with(HASTE, server, expected)
    }

    fn run_with(
        &self,
        patience: Patience,
        server: &Server,
        expected: &Expected,
    ) -> Result<Vec<u8>, String> {
        let target = self.target();
        let lock = lock_beside(&target);
        Client::new(patience)
            .fetch(&server.url("/file"), None, &target, &lock, expected, || Ok(false))
            .map(|()| fs_err::read(&target).unwrap())
            .map_err(|error| format!("{error:#}"))
    }

    /// What is there beside the lock.
    fn left(&self) -> Vec<String> {
        let names = fs_err::read_dir(self.folder.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name != ".file.txt.lock").collect();
        names.sort();
        names
    }
}

fn offsets(server: &Server) -> Vec<usize> {
    server.requests().iter().map(Request::offset).collect()
}

#[test]
fn a_broken_transfer_is_taken_up_where_it_stopped() {
    let server = Server::start(|index, request| match index {
        0 | 2 => cut(file(request, BODY, "\"1\""), 4),
        1 => answer("503 Service Unavailable", &[], b""),
        _ => file(request, BODY, "\"1\""),
    });
    let download = Download::new();
    assert_eq!(download.run(&server, &expected()).unwrap(), BODY);
    let length = BODY.len();
    // What broke off while nothing was left but 4 bytes brought nothing the second time.
    assert_eq!(offsets(&server), [0, length - 4, length - 4, length - 4]);
    assert!(
        server.requests()[1..].iter().all(|request| request.header("if-range") == Some("\"1\""))
    );
    assert_eq!(download.left(), ["file.txt"]);
}

#[test]
fn another_process_takes_up_what_the_first_left() {
    let server = Server::start(|index, request| match index {
        0 => cut(file(request, BODY, "\"1\""), 10),
        1..4 => answer("500 Internal Server Error", &[], b""),
        _ => file(request, BODY, "\"1\""),
    });
    let download = Download::new();
    let error = download.run(&server, &expected()).unwrap_err();
    assert!(error.contains("4 attempts in a row failed") && error.contains("500"), "{error}");
    assert_eq!(download.left(), ["file.txt.partial", "file.txt.partial.etag"]);
    assert_eq!(download.run(&server, &expected()).unwrap(), BODY);
    assert_eq!(offsets(&server).last(), Some(&(BODY.len() - 10)));
    assert_eq!(download.left(), ["file.txt"]);
}

#[test]
fn a_server_that_cannot_resume_sends_everything_again() {
    let server = Server::start(|index, _| {
        let whole = answer("200 OK", &[], BODY);
        if index == 0 { cut(whole, 4) } else { whole }
    });
    assert_eq!(Download::new().run(&server, &expected()).unwrap(), BODY);
}

#[test]
fn a_file_that_changes_midway_is_never_put_together_of_two() {
    for etags in [("\"1\"", "\"2\""), ("W/\"1\"", "W/\"2\"")] {
        let server = Server::start(move |index, request| match index {
            0 => cut(file(request, OTHER, etags.0), 4),
            _ => file(request, BODY, etags.1),
        });
        // With its hash, and without anything that is known of it.
        for expected in [expected(), Expected::default()] {
            assert_eq!(Download::new().run(&server, &expected).unwrap(), BODY, "{etags:?}");
        }
    }
    // A server that knows no If-Range and tells another ETag.
    let server = Server::start(|index, request| match index {
        0 => cut(file(request, OTHER, "\"1\""), 4),
        _ if request.offset() > 0 => {
            let range = format!("bytes {}-{}/{}", request.offset(), BODY.len() - 1, BODY.len());
            let headers = [("ETag", "\"2\""), ("Content-Range", range.as_str())];
            answer("206 Partial Content", &headers, &BODY[request.offset()..])
        }
        _ => file(request, BODY, "\"2\""),
    });
    assert_eq!(Download::new().run(&server, &Expected::default()).unwrap(), BODY);
    // One that tells none: the hash does.
    let server = Server::start(|index, request| match index {
        0 => cut(file(request, OTHER, ""), 4),
        _ if request.offset() > 0 => {
            let range = format!("bytes {}-{}/{}", request.offset(), BODY.len() - 1, BODY.len());
            answer("206 Partial Content", &[("Content-Range", &range)], &BODY[request.offset()..])
        }
        _ => file(request, BODY, ""),
    });
    assert_eq!(Download::new().run(&server, &expected()).unwrap(), BODY);
    assert_eq!(offsets(&server), [0, BODY.len() - 4, 0]);
}

#[test]
fn another_content_never_gets_the_name() {
    let download = Download::new();
    fs_err::write(download.target(), "what was there before").unwrap();
    let server = Server::start(|_, request| file(request, OTHER, "\"1\""));
    let error = download.run(&server, &expected()).unwrap_err();
    assert!(error.contains("expected sha256"), "{error}");
    let server = Server::start(|_, request| file(request, &OTHER[..30], "\"1\""));
    let error = download.run(&server, &expected()).unwrap_err();
    assert!(error.contains("expected 35 bytes, the server offers 30"), "{error}");
    assert_eq!(download.left(), ["file.txt"]);
    assert_eq!(fs_err::read_to_string(download.target()).unwrap(), "what was there before");
}

#[test]
fn a_lie_about_the_length_is_found_out() {
    // More than is sent: taken up, until nothing more comes.
    let long = (BODY.len() + 9).to_string();
    let server = Server::start(move |_, request| match request.offset() {
        0 => answer("200 OK", &[("Content-Length", &long), ("ETag", "\"1\"")], BODY),
        _ => answer("416 Range Not Satisfiable", &[], b""),
    });
    let download = Download::new();
    let error = download.run(&server, &Expected::default()).unwrap_err();
    assert!(error.contains("attempts in a row failed"), "{error}");
    assert!(!download.target().exists());
    // Less than the file has: what comes is not the file.
    let server = Server::start(|_, _| answer("200 OK", &[("Content-Length", "20")], BODY));
    let download = Download::new();
    let hashed = Expected { bytes: None, ..expected() };
    let error = download.run(&server, &hashed).unwrap_err();
    assert!(error.contains("expected sha256"), "{error}");
    assert_eq!(download.left(), Vec::<String>::new());
    // No length, and no end: no more than the file has is taken.
    let server = Server::start(|_, _| {
        let mut bytes = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        bytes.extend(vec![b'x'; 1 << 22]);
        Answer { bytes, silent: false }
    });
    let error = download.run(&server, &expected()).unwrap_err();
    assert!(error.contains("sends more than the 35 bytes expected"), "{error}");
    assert_eq!(download.left(), Vec::<String>::new());
}

#[test]
fn a_server_that_falls_silent_is_not_waited_for() {
    let server = Server::start(|index, request| match index {
        // Before the answer, and within it.
        0 => Answer { bytes: Vec::new(), silent: true },
        1 => Answer { silent: true, ..cut(file(request, BODY, "\"1\""), 9) },
        _ => file(request, BODY, "\"1\""),
    });
    let patience = Patience { attempts: 10, stall: Duration::from_secs(2), ..HASTE };
    let started = Instant::now();
    assert_eq!(Download::new().run_with(patience, &server, &expected()).unwrap(), BODY);
    let seconds = started.elapsed().as_secs_f64();
    // The server itself stays silent for five minutes.
    assert!((4.0..120.0).contains(&seconds), "{seconds}");
    // On a busy machine a good answer may be given up, too, and asked for again.
    let offsets = offsets(&server);
    assert!(offsets.len() >= 3 && offsets[..2] == [0, 0], "{offsets:?}");
    assert_eq!(offsets.last(), Some(&(BODY.len() - 9)), "{offsets:?}");
}

#[test]
fn what_will_not_change_is_an_error_at_once_and_what_may_is_tried_again() {
    for (status, hint) in [("404 Not Found", "404"), ("403 Forbidden", "wants a valid HF_TOKEN")] {
        let server = Server::start(move |_, _| answer(status, &[], b""));
        let error = Download::new().run(&server, &expected()).unwrap_err();
        assert!(error.contains(hint) && error.contains("/file"), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
    for status in ["429 Too Many Requests", "500 Internal Server Error", "503 Unavailable"] {
        let server = Server::start(move |index, request| match index {
            0..3 => answer(status, &[], b""),
            _ => file(request, BODY, "\"1\""),
        });
        assert_eq!(Download::new().run(&server, &expected()).unwrap(), BODY);
    }
}

#[test]
fn a_server_that_asks_for_patience_gets_it_within_reason() {
    let server = Server::start(|index, request| match index {
        0 => answer("429 Too Many Requests", &[("Retry-After", "1")], b""),
        _ => file(request, BODY, "\"1\""),
    });
    let started = Instant::now();
    assert_eq!(Download::new().run(&server, &expected()).unwrap(), BODY);
    assert!(started.elapsed() >= Duration::from_secs(1));
    let server = Server::start(|_, _| answer("429 Too Many", &[("Retry-After", "3600")], b""));
    let error = Download::new().run(&server, &expected()).unwrap_err();
    assert!(error.contains("3600 s of patience"), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_token_goes_to_no_other_host() {
    let storage = Server::start(|_, request| file(request, BODY, "\"1\""));
    let elsewhere = format!("http://localhost:{}/file", storage.port);
    let hub = Server::start(move |_, request| match request.line.contains("/moved") {
        false => answer("307 Temporary Redirect", &[("Location", "/moved")], b""),
        true => answer("302 Found", &[("Location", &elsewhere)], b""),
    });
    let download = Download::new();
    let (target, lock) = (download.target(), lock_beside(&download.target()));
    Client::new(HASTE)
        .fetch(&hub.url("/file"), Some("secret"), &target, &lock, &expected(), || Ok(false))
        .unwrap();
    let tokens = |server: &Server| -> Vec<Option<String>> {
        let token = |request: &Request| request.header("authorization").map(str::to_owned);
        server.requests().iter().map(token).collect()
    };
    let bearer = Some("Bearer secret".to_owned());
    assert_eq!(tokens(&hub), [bearer.clone(), bearer]);
    assert_eq!(tokens(&storage), [None]);
}

#[test]
fn a_question_follows_redirects_within_the_host_and_not_for_ever() {
    let storage = Server::start(|_, _| answer("200 OK", &[("ETag", "\"storage\"")], b""));
    let elsewhere = format!("http://localhost:{}/file", storage.port);
    let hub = Server::start(move |_, request| {
        let path = request.line.split(' ').nth(1).unwrap();
        let (etag, location) = match path {
            "/old/file?download=1" => ("\"old\"", "/new/file"),
            "/new/file" => ("\"new\"", "/cache/file?etag=%22new%22"),
            "/cache/file?etag=%22new%22" => return answer("200 OK", &[("ETag", "\"file\"")], b""),
            "/large" => ("\"large\"", elsewhere.as_str()),
            _ => ("\"loop\"", "/loop"),
        };
        let headers = [("ETag", etag), ("Location", location), ("Content-Length", "262")];
        answer("307 Temporary Redirect", &headers, b"")
    });
    let head = |path: &str| Client::new(HASTE).head(&hub.url(path), Some("secret"));
    let etag = |answer: &Parts| answer.headers[header::ETAG].to_str().unwrap().to_owned();
    let found = head("/old/file?download=1").unwrap();
    assert_eq!((found.status, etag(&found)), (StatusCode::OK, "\"file\"".to_owned()));
    let found = head("/large").unwrap();
    assert_eq!((found.status.as_u16(), etag(&found)), (307, "\"large\"".to_owned()));
    assert_eq!(storage.requests().len(), 0);

    let before = hub.requests().len();
    let error = format!("{:#}", head("/loop").unwrap_err());
    assert!(error.contains("at most 5 redirects") && error.contains("HF_ENDPOINT"), "{error}");
    assert_eq!(hub.requests().len() - before, 6);
}

#[test]
fn a_file_is_asked_for_as_it_is_and_not_taken_in_another_form() {
    let server = Server::start(|_, request| match request.line.contains("/moved") {
        false => answer("307 Temporary Redirect", &[("Location", "/moved")], b""),
        true if request.header("accept-encoding") != Some("identity") => {
            answer("200 OK", &[("Content-Encoding", "gzip")], b"packed")
        }
        true => file(request, BODY, "\"1\""),
    });
    assert_eq!(Download::new().run(&server, &expected()).unwrap(), BODY);
    // One that does not listen: what comes must not pass for the file where no hash is known.
    let server = Server::start(|_, _| answer("200 OK", &[("Content-Encoding", "gzip")], b"packed"));
    for expected in [expected(), Expected::default()] {
        let download = Download::new();
        let error = download.run(&server, &expected).unwrap_err();
        assert!(error.contains("Content-Encoding: gzip") && error.contains("/file"), "{error}");
        assert!(!download.target().exists());
    }
}

#[test]
fn a_file_that_is_synced_is_open_for_writing_and_keeps_its_bytes() {
    let download = Download::new();
    fs_err::write(download.target(), BODY).unwrap();
    let mut file = open_to_sync(&download.target()).unwrap();
    // Windows refuses to sync what is open for reading alone; so would this be refused, anywhere.
    file.write_all(b"ID").unwrap();
    assert_eq!(fs_err::read(download.target()).unwrap(), [b"ID", &BODY[2..]].concat());
}

#[test]
fn two_that_want_the_same_file_fetch_it_once() {
    let body: &'static [u8] = Vec::leak(BODY.repeat(40_000));
    let server = Server::start(move |_, request| file(request, body, "\"1\""));
    let expected = Expected { sha256: Some(sha256_hex(body)), ..Expected::default() };
    let download = Download::new();
    let (target, lock) = (download.target(), lock_beside(&download.target()));
    let fetched = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let is_there = || Ok(target.is_file());
                let client = Client::new(HASTE);
                client.fetch(&server.url("/f"), None, &target, &lock, &expected, is_there).unwrap();
                assert_eq!(fs_err::read(&target).unwrap(), body);
                fetched.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!((fetched.into_inner(), server.requests().len()), (4, 1));
    assert_eq!(download.left(), ["file.txt"]);
}

#[test]
fn a_mirrors_file_is_checked_like_any_other() {
    let download = Download::new();
    let source = download.folder.path().join("source");
    fs_err::write(&source, &OTHER[..30]).unwrap();
    let error = copy(&source, &download.target(), &expected()).unwrap_err();
    assert!(format!("{error:#}").contains("expected 35 bytes, found 30"), "{error:#}");
    fs_err::write(&source, BODY).unwrap();
    // A mirror may be read only; its copy must be written to be synced.
    let mut permissions = fs_err::metadata(&source).unwrap().permissions();
    permissions.set_readonly(true);
    fs_err::set_permissions(&source, permissions).unwrap();
    copy(&source, &download.target(), &expected()).unwrap();
    assert_eq!(download.left(), ["file.txt", "source"]);
    assert!(!fs_err::metadata(download.target()).unwrap().permissions().readonly());
}
