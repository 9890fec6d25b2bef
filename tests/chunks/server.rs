//! A web server of the test's own, that behaves as badly as it is told to.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What a server does with a request for a pack; all else it answers well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As web servers do: single and multiple ranges.
    Good,
    /// Every answer is the whole file.
    WithoutRanges,
    /// The connection ends after so many bytes of each pack's answer.
    CutAfter(usize),
    /// It goes on for ever without a byte after so many of a pack's answer.
    StallAfter(usize),
    /// One byte in the middle of each pack's answer is another one.
    Wrong,
    /// There are no packs.
    WithoutPacks,
    /// There is nothing.
    Empty,
    /// It is in trouble.
    Broken,
}

type Hook = Box<dyn FnMut(&str) + Send>;

pub struct Server {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    manner: Manner,
    requests: AtomicU64,
    bytes: AtomicU64,
    ended: AtomicBool,
    before: Mutex<Option<Hook>>,
}

impl Server {
    pub fn of(root: &Path, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            manner,
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            before: Mutex::new(None),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.ended.load(Ordering::Relaxed) {
                    return;
                }
                let serving = Arc::clone(&serving);
                // A reader that goes away is not the server's trouble.
                std::thread::spawn(move || drop(serving.answer(stream)));
            }
        });
        Self { url, shared }
    }

    /// Called with the path of each request before it is answered.
    pub fn before(&self, hook: impl FnMut(&str) + Send + 'static) {
        *self.shared.before.lock().unwrap() = Some(Box::new(hook));
    }

    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Bytes of bodies that were sent.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let path = first.split_whitespace().nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
        let mut range = None;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("range: bytes=") {
                range = Some(value.trim().to_owned());
            }
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(hook) = &mut *self.before.lock().unwrap() {
            hook(&path);
        }
        let pack = path.starts_with("packs/");
        let manner = if pack || self.manner == Manner::WithoutRanges { self.manner } else { Manner::Good };
        if self.manner == Manner::Broken {
            return write!(stream, "HTTP/1.1 503 busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        let gone = self.manner == Manner::Empty || manner == Manner::WithoutPacks;
        let Some(file) = std::fs::read(self.root.join(&path)).ok().filter(|_| !gone) else {
            return write!(stream, "HTTP/1.1 404 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        let (status, kind, mut body) = match range.filter(|_| manner != Manner::WithoutRanges) {
            None => ("200 OK", "Content-Type: x".to_owned(), file),
            Some(ranges) => parts(&file, &ranges),
        };
        if manner == Manner::Wrong {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        write!(
            stream,
            "HTTP/1.1 {status}\r\n{kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )?;
        let end = match manner {
            Manner::CutAfter(n) | Manner::StallAfter(n) => n.min(body.len()),
            _ => body.len(),
        };
        // Before the reader can have it, and go on to count.
        self.bytes.fetch_add(end as u64, Ordering::Relaxed);
        stream.write_all(&body[..end])?;
        if matches!(manner, Manner::StallAfter(_)) && end < body.len() {
            // Until the reader goes.
            let _ = reader.read_line(&mut String::new());
        }
        Ok(())
    }
}

fn parts(file: &[u8], ranges: &str) -> (&'static str, String, Vec<u8>) {
    let each = ranges.split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        (first, last.min(file.len() - 1))
    });
    let each: Vec<_> = each.collect();
    if let [(first, last)] = each[..] {
        let range = format!("Content-Range: bytes {first}-{last}/{}", file.len());
        return ("206 Partial", range, file[first..=last].to_vec());
    }
    let mut body = Vec::new();
    for (first, last) in each {
        let head = format!("\r\n--XX\r\nContent-Range: bytes {first}-{last}/{}\r\n\r\n", file.len());
        body.extend(head.as_bytes());
        body.extend(&file[first..=last]);
    }
    body.extend(b"\r\n--XX--\r\n");
    ("206 Partial", "Content-Type: multipart/byteranges; boundary=XX".to_owned(), body)
}
