//! A web server that knows one file.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

pub(crate) struct Server {
    port: u16,
}

impl Server {
    /// `breaks`: each answer ends after a part of what was asked for.
    pub(crate) fn of(content: Vec<u8>, breaks: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client that has gone away is none of the server's business.
                let _ = answer(client, &content, breaks);
            }
        });
        Self { port }
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }
}

fn answer(mut client: TcpStream, content: &[u8], breaks: bool) -> std::io::Result<()> {
    let mut lines = BufReader::new(client.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut from = 0;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap_or(0);
        }
        if line.is_empty() {
            break;
        }
    }
    if !first.starts_with("GET /a ") {
        return client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let rest = &content[from.min(content.len())..];
    let (status, len) = (if from > 0 { "206 Partial Content" } else { "200 OK" }, rest.len());
    let range = match from {
        0 => String::new(),
        _ => format!("Content-Range: bytes {from}-{}/{}\r\n", content.len() - 1, content.len()),
    };
    write!(client, "HTTP/1.1 {status}\r\nContent-Length: {len}\r\n{range}Connection: close\r\n\r\n")?;
    let now = if breaks { (content.len() / 3 + 1).min(len) } else { len };
    client.write_all(&rest[..now])
}
