//! Where an archive comes from: a file, this process's standard input, or a web server.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context, Result, bail};

use super::programs::{Program, Programs};

/// Begins to read it. `-` is the standard input; what begins with `http://` or `https://` is fetched by curl(1), which knows of
/// proxies and certificates. A line that breaks is taken up again where it broke.
pub fn open(host: &dyn Programs, source: &str) -> Result<Box<dyn Read + Send>> {
    if source == "-" {
        return Ok(Box::new(io::stdin()));
    }
    if is_url(source) {
        if host.find_program("curl").is_none() {
            bail!("reading '{source}' takes 'curl', which is not here; hint: apt install curl");
        }
        return Ok(Box::new(Fetch {
            url: source.to_owned(),
            at: 0,
            failures: 0,
            running: None,
            ended: false,
        }));
    }
    let file = File::open(source).with_context(|| format!("opening '{source}'"))?;
    let meta = file.metadata().with_context(|| format!("opening '{source}'"))?;
    if meta.is_dir() {
        bail!("opening '{source}': it is a directory");
    }
    Ok(Box::new(file))
}

/// Whether it is to be fetched.
pub fn is_url(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// Whether the source is a file of that name, which it would be wrong to write to.
pub fn is_file(source: &str, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let number = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino(), meta.rdev())).ok();
    source != "-" && !is_url(source) && number(Path::new(source)).is_some_and(|own| number(path) == Some(own))
}

/// So many times in a row nothing may come.
const FAILURES: u32 = 3;

/// A download, by one curl after the other.
struct Fetch {
    url: String,
    at: u64,
    failures: u32,
    running: Option<(Child, ChildStdout)>,
    ended: bool,
}

impl Fetch {
    fn start(&self) -> io::Result<(Child, ChildStdout)> {
        let mut curl = Program::new("curl")
            .args(["--fail", "--location", "--silent", "--show-error", "--proto", "=http,https"])
            .args(["--connect-timeout", "30", "--speed-limit", "1", "--speed-time", "60"]);
        if self.at > 0 {
            curl = curl.args(["--continue-at", &self.at.to_string()]);
        }
        let mut command = curl.args(["--", &self.url]).command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or_else(|| io::Error::other("curl has no output"))?;
        Ok((child, output))
    }

    /// How curl has ended; `None` if all was well.
    fn ended(&mut self) -> io::Result<Option<String>> {
        let Some((child, output)) = self.running.take() else { return Ok(None) };
        drop(output);
        let ran = child.wait_with_output()?;
        if ran.status.success() {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&ran.stderr).trim().trim_start_matches("curl: ").to_owned()))
    }
}

impl Read for Fetch {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.ended || buffer.is_empty() {
                return Ok(0);
            }
            if self.running.is_none() {
                self.running = Some(self.start()?);
            }
            let Some((_, output)) = &mut self.running else { continue };
            let n = output.read(buffer)?;
            if n > 0 {
                (self.at, self.failures) = (self.at + n as u64, 0);
                return Ok(n);
            }
            let Some(why) = self.ended()? else {
                self.ended = true;
                continue;
            };
            self.failures += 1;
            if self.at == 0 || self.failures > FAILURES {
                return Err(io::Error::other(format!("fetching '{}': {why}", self.url)));
            }
            std::thread::sleep(std::time::Duration::from_millis(300 << self.failures));
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;

    #[test]
    fn a_file_is_read_and_what_cannot_be_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "abc").unwrap();
        let name = path.to_str().unwrap();
        let mut text = String::new();
        open(&Live, name).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        assert!(is_file(name, &path) && !is_file("-", &path) && !is_file("http://x/a", &path));
        let error = format!("{:#}", open(&Live, dir.path().to_str().unwrap()).err().unwrap());
        assert!(error.ends_with("it is a directory"), "{error}");
    }

    #[test]
    fn a_server_that_is_not_there_is_an_error_that_names_the_url() {
        if Live.find_program("curl").is_none() {
            return eprintln!("skipped: no curl here");
        }
        let mut text = String::new();
        let error = open(&Live, "http://127.0.0.1:9/a").unwrap().read_to_string(&mut text).unwrap_err();
        assert!(error.to_string().contains("'http://127.0.0.1:9/a'"), "{error}");
    }
}
