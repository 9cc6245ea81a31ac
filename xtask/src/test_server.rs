//! A server of HTTP for tests, which answers as it is told, also what no server should.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longer than any client of a test waits.
const SILENCE: Duration = Duration::from_mins(5);

/// What a client asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) line: String,
    /// In lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }

    /// Where the range asked for starts; 0 without one.
    pub(crate) fn offset(&self) -> usize {
        let range = self.header("range").map(|range| range.trim_start_matches("bytes="));
        range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap())
    }
}

/// What the server sends, byte for byte, and then: the end, or silence.
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) silent: bool,
}

pub(crate) struct Server {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers the n-th request, from 0, with what `answer` says.
    pub(crate) fn start(
        answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (requests.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || serve(&stream.unwrap(), &seen, answer.as_ref()));
            }
        });
        Self { port, requests }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    stream: &TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &dyn Fn(usize, &Request) -> Answer,
) {
    let mut request = Request::default();
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        if line.is_empty() {
            break;
        }
        match line.split_once(": ") {
            Some((name, value)) if !request.line.is_empty() => {
                request.headers.push((name.to_lowercase(), value.to_owned()));
            }
            _ => request.line = line,
        }
    }
    let index = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    let Answer { bytes, silent } = answer(index, &request);
    let mut stream = stream;
    let _ = stream.write_all(&bytes);
    if silent {
        std::thread::sleep(SILENCE);
    }
}

/// An answer of a status, headers and a body, whose length is told unless a header tells another.
pub(crate) fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    Answer { bytes: [head.as_bytes(), b"\r\n", body].concat(), silent: false }
}

/// The file from the offset that is asked for, as a server that knows ranges sends it.
pub(crate) fn file(request: &Request, body: &[u8], etag: &str) -> Answer {
    let same = request.header("if-range").is_none_or(|asked| asked == etag);
    match request.offset() {
        0 => answer("200 OK", &[("ETag", etag)], body),
        _ if !same => answer("200 OK", &[("ETag", etag)], body),
        offset if offset >= body.len() => answer("416 Range Not Satisfiable", &[], b""),
        offset => {
            let range = format!("bytes {offset}-{}/{}", body.len() - 1, body.len());
            let headers = [("ETag", etag), ("Content-Range", range.as_str())];
            answer("206 Partial Content", &headers, &body[offset..])
        }
    }
}

/// The same, without its last bytes.
pub(crate) fn cut(mut answer: Answer, bytes: usize) -> Answer {
    answer.bytes.truncate(answer.bytes.len() - bytes);
    answer
}
