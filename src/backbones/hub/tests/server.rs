//! A stand-in for the hub on a local port: a listing, files by range, and the faults that tests ask for.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::backbones::digest::hex;

pub const COMMIT: &str = "c0ffee";

#[derive(Clone, Default)]
pub struct File {
    pub bytes: Vec<u8>,
    pub etag: String,
    /// Bodies end after so many bytes, so many times.
    pub cut_after: usize,
    pub cuts: usize,
    /// The bytes lie elsewhere, under `/store/`, without the hub's own headers.
    pub moved: bool,
}

impl File {
    /// A large file: its ETag is its SHA-256.
    pub fn large(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), etag: hex(&Sha256::digest(bytes)), ..Self::default() }
    }

    /// A small file: its ETag is a 40-digit name.
    pub fn small(bytes: &[u8]) -> Self {
        Self { etag: hex(&Sha256::digest(bytes))[..40].to_owned(), bytes: bytes.to_vec(), ..Self::default() }
    }
}

#[derive(Default)]
pub struct State {
    pub files: BTreeMap<String, File>,
    /// Every request gets this status.
    pub status: Option<u16>,
    /// Paths and ranges as they came: `GET /… bytes=5-`.
    pub requests: Vec<String>,
    /// The last Authorization header.
    pub authorization: Option<String>,
}

pub struct Server {
    pub endpoint: String,
    pub state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start(files: impl IntoIterator<Item = (&'static str, File)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let files = files.into_iter().map(|(name, file)| (name.to_owned(), file)).collect();
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let shared = Arc::clone(&state);
        // Lives as long as the test's process; each connection carries one request.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = answer(stream, &shared);
            }
        });
        Self { endpoint, state }
    }

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// The ranges asked of a file's body, without the one-byte look at its headers.
    pub fn ranges(&self, file: &str) -> Vec<String> {
        let suffix = |line: &String| line.split_once(&format!("/{file} ")).map(|(_, range)| range.to_owned());
        let all: Vec<_> = self.state.lock().unwrap().requests.iter().filter_map(suffix).collect();
        all.into_iter().filter(|range| range != "bytes=0-0").collect()
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let path = lines.next().unwrap()?.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut range = String::new();
    let mut authorization = None;
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => range = value.to_owned(),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut state = state.lock().unwrap();
    state.requests.push(format!("{path} {range}"));
    state.authorization = authorization;
    if let Some(status) = state.status {
        return write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if path == "/api/models/org/name/revision/main" {
        let siblings: Vec<_> = state.files.keys().map(|name| json!({"rfilename": name})).collect();
        let body = json!({"sha": COMMIT, "siblings": siblings}).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        return stream.write_all(format!("{head}{body}").as_bytes());
    }
    let resolved = path.strip_prefix("/org/name/resolve/main/");
    let name = resolved.or_else(|| path.strip_prefix("/store/")).unwrap_or_default();
    match state.files.get_mut(name) {
        Some(file) if file.moved && resolved.is_some() => write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: http://{}/store/{name}\r\nX-Linked-ETag: \"{}\"\r\n\
             X-Repo-Commit: {COMMIT}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            stream.local_addr()?,
            file.etag
        ),
        Some(file) => send(stream, file, &range),
        None => write!(stream, "HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    }
}

fn send(mut stream: TcpStream, file: &mut File, range: &str) -> std::io::Result<()> {
    let (start, end) = range.strip_prefix("bytes=").and_then(|r| r.split_once('-')).unwrap_or(("0", ""));
    let start: usize = start.parse().unwrap_or(0);
    let end = end.parse().map_or(file.bytes.len(), |last: usize| (last + 1).min(file.bytes.len()));
    let mut body = &file.bytes[start.min(end)..end];
    write!(
        stream,
        "HTTP/1.1 206 Partial\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\nX-Linked-ETag: \"{}\"\r\n\
         ETag: \"other\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n",
        body.len(),
        end.saturating_sub(1),
        file.bytes.len(),
        file.etag
    )?;
    if file.cuts > 0 && body.len() > file.cut_after {
        file.cuts -= 1;
        body = &body[..file.cut_after];
    }
    stream.write_all(body)
}
