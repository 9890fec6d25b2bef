//! A store on a web server, through curl(1): its proxies, certificates and protocols are those that the host knows.

use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::process::{ChildStdout, Stdio};

use anyhow::{Context, Result, bail};

use super::multipart::{boundary, content_range, headers, parts, pass, value};
use super::running::Running;
use super::{Missing, Place, Sink};
use crate::host::programs::Program;

/// See the module.
#[derive(Debug)]
pub struct Http {
    base: String,
}

/// Servers refuse longer lists (Apache: 200), or longer headers.
const RANGES_AT_ONCE: usize = 100;
/// A line that brings nothing at all for so many seconds is dead.
const PATIENCE: &str = "60";

impl Http {
    /// A directory on a server.
    pub fn new(url: &str) -> Result<Self> {
        if url.chars().any(|c| c.is_control() || c.is_whitespace()) || url.contains(['?', '#']) {
            bail!("'{}' is no address of a directory on a web server", url.escape_default());
        }
        Ok(Self { base: url.trim_end_matches('/').to_owned() })
    }

    fn request(&self, name: &str, range: Option<&str>) -> Result<Answer> {
        // Told through its standard input: an address may hold a password, and arguments are everybody's.
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut config = format!("url = \"{}/{}\"\n", quoted(&self.base), quoted(name));
        if let Some(range) = range {
            config.push_str(&format!("range = \"{range}\"\n"));
        }
        let program = Program::new("curl").args([
            "--disable",
            "--silent",
            "--show-error",
            "--location",
            "--max-redirs",
            "5",
            "--proto",
            "=http,https",
            "--proto-redir",
            "=http,https",
            "--globoff",
            "--connect-timeout",
            PATIENCE,
            "--speed-limit",
            "1",
            "--speed-time",
            PATIENCE,
            "--suppress-connect-headers",
            "--include",
            "--config",
            "-",
        ]);
        let mut command = program.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().context("running 'curl'; hint: apt install curl")?;
        let mut running = Running(child);
        let mut stdin = running.0.stdin.take().context("curl has no standard input")?;
        // A curl that has ended already says why.
        let _ = stdin.write_all(config.as_bytes());
        drop(stdin);
        let mut body = BufReader::new(running.0.stdout.take().context("curl has no standard output")?);
        loop {
            // No headers: curl says why not.
            if body.fill_buf().context("reading an answer")?.is_empty() {
                ended(&mut running)?;
                bail!("no answer");
            }
            let headers = headers(&mut body)?;
            let status = headers.first().and_then(|line| line.split_whitespace().nth(1)?.parse::<u16>().ok());
            match status {
                Some(100..=199) => continue,
                Some(300..=399) if value(&headers, "location").is_some() => continue,
                Some(status) => return Ok(Answer { status, headers, body, running }),
                None => bail!("the answer has no status"),
            }
        }
    }

    fn some(&self, name: &str, wanted: &[Range<u64>], sink: &mut Sink<'_>) -> Result<()> {
        let list: Vec<String> = wanted.iter().map(|r| format!("{}-{}", r.start, r.end - 1)).collect();
        let mut answer = self.request(name, Some(&list.join(",")))?;
        let end = wanted.last().map_or(0, |range| range.end);
        let reached = match answer.status {
            // The server does not know ranges: the whole file comes, from its first byte.
            200 => pass(&mut answer.body, 0, end, sink)?,
            206 => match value(&answer.headers, "content-type").and_then(boundary) {
                Some(boundary) => {
                    parts(&mut answer.body, &boundary, wanted, sink)?;
                    true
                }
                None => {
                    let range = value(&answer.headers, "content-range").and_then(content_range);
                    let range = range.context("the answer does not say what part of the file it is")?;
                    if range.start > end || range.start < wanted.first().map_or(0, |r| r.start) {
                        bail!("the answer is a part of the file that was not asked for");
                    }
                    pass(&mut answer.body, range.start, range.end.min(end), sink)?
                }
            },
            status => return Err(self.refused(name, status)),
        };
        // What else a server sends nobody waits for.
        if reached { Ok(()) } else { ended(&mut answer.running) }
    }

    fn refused(&self, name: &str, status: u16) -> anyhow::Error {
        match status {
            404 | 410 => Missing(format!("'{}/{name}' is not there", self.shown())).into(),
            status => anyhow::anyhow!("the server answered {status} for '{name}'"),
        }
    }
}

impl Place for Http {
    fn shown(&self) -> String {
        match self.base.split_once("://") {
            Some((scheme, rest)) => match rest.split_once('@') {
                Some((user, host)) if !user.contains('/') => format!("{scheme}://{host}"),
                _ => self.base.clone(),
            },
            None => self.base.clone(),
        }
    }

    fn get(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let mut answer = self.request(name, None)?;
        if answer.status != 200 {
            return Err(self.refused(name, answer.status));
        }
        let mut bytes = Vec::new();
        let complete = pass(&mut answer.body, 0, limit + 1, &mut |_, piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        if complete {
            bail!("'{name}' has more than {limit} bytes");
        }
        ended(&mut answer.running)?;
        Ok(bytes)
    }

    fn ranges(&self, name: &str, wanted: &[Range<u64>], sink: &mut Sink<'_>) -> Result<()> {
        wanted.chunks(RANGES_AT_ONCE).try_for_each(|some| self.some(name, some, sink))
    }

    fn names(&self, _dir: &str) -> Result<Vec<String>> {
        bail!("a web server does not tell what it has; hint: a directory, or ssh://[user@]host/dir")
    }
}

struct Answer {
    status: u16,
    headers: Vec<String>,
    body: BufReader<ChildStdout>,
    running: Running,
}

/// Its end is an error if it says so.
fn ended(running: &mut Running) -> Result<()> {
    match running.end()? {
        (0, _) => Ok(()),
        (_, said) => bail!("{}", said.trim_start_matches("curl: ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(Http::new("https://me:secret@host/x/").unwrap().shown(), "https://host/x");
        assert_eq!(Http::new("https://host/a@b").unwrap().shown(), "https://host/a@b");
        assert!(Http::new("http://host/x y").is_err());
        assert!(Http::new("http://host/?q").is_err());
    }
}
