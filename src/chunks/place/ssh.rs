//! A store in a directory behind ssh: nothing but a shell and the simplest programs is needed there.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::multipart::pass;
use super::running::Running;
use super::{Missing, PARTIAL, PRIVATE, PRIVATE_TEXT, Place, Shelf, Sink};
use crate::host::programs::Program;
use crate::progress::interrupted;

/// See the module.
#[derive(Debug)]
pub struct Ssh {
    host: String,
    port: Option<u16>,
    dir: String,
}

/// What the far side's script ends with if a file is not there (EX_NOINPUT of sysexits.h).
const NO_INPUT: i32 = 66;
const RANGES_AT_ONCE: usize = 200;
/// Some ten thousand versions.
const LONGEST_LISTING: u64 = 1 << 20;

impl Ssh {
    /// `ssh://[user@]host[:port]/dir`; `/~/dir` is below the user's home.
    pub fn new(url: &str) -> Result<Self> {
        let parsed = url.strip_prefix("ssh://").and_then(|rest| {
            let (host, dir) = rest.split_once('/')?;
            let (host, port) = match host.rsplit_once(':') {
                Some((host, port)) if !host.ends_with(':') => (host, Some(port.parse().ok()?)),
                _ => (host, None),
            };
            let dir = match dir.strip_prefix("~/") {
                Some(dir) => dir.to_owned(),
                None => format!("/{dir}"),
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || "@.-_:[]%".contains(c);
            let good = !host.is_empty() && !host.starts_with('-') && host.chars().all(plain);
            (good && !dir.is_empty() && !dir.contains('\0')).then_some(Self {
                host: host.to_owned(),
                port,
                dir,
            })
        });
        parsed.with_context(|| {
            format!("'{url}' is no address of a store; hint: ssh://[user@]host[:port]/directory")
        })
    }

    fn command(&self, script: &str) -> Program {
        // As everything else here that calls ssh.
        let ssh = std::env::var("GRIDGATE_SSH").unwrap_or_else(|_| "ssh".to_owned());
        let mut words = ssh.split_whitespace();
        let mut program = Program::new(words.next().unwrap_or("ssh")).args(words);
        program = program.args(["-T", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15"]);
        if let Some(port) = self.port {
            program = program.args(["-p", &port.to_string()]);
        }
        // Whatever the login shell is, this is read by sh.
        program.arg("--").arg(&self.host).arg(format!("exec sh -c {}", quoted(script)))
    }

    /// Runs a script in the store's directory, which reads `input`; what it prints goes to the sink.
    fn run(&self, script: &str, input: Stdio, end: u64, sink: &mut Sink<'_>) -> Result<()> {
        let script = format!("cd {} 2>/dev/null || exit {NO_INPUT}; {script}", quoted(&self.dir));
        let mut command = self.command(&script).command();
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut far = Running(command.spawn().context("running 'ssh'")?);
        let stdout = far.0.stdout.take().context("ssh has no standard output")?;
        if pass(&mut BufReader::new(stdout), 0, end, sink)? {
            bail!("more came than was asked for");
        }
        ended(&mut far)
    }

    fn text(&self, script: &str) -> Result<String> {
        let mut text = Vec::new();
        self.run(script, Stdio::null(), 4096, &mut |_, bytes| {
            text.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    }

    fn length_of(&self, name: &str) -> Result<Option<u64>> {
        let found = self.text(&format!("[ -e {0} ] || exit {NO_INPUT}; wc -c < {0}", quoted(name)));
        match found {
            Ok(text) => Ok(Some(text.parse().with_context(|| format!("the far side says '{text}'"))?)),
            Err(error) if error.is::<Missing>() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

impl Place for Ssh {
    fn shown(&self) -> String {
        format!("ssh://{}/{}", self.host, self.dir.trim_start_matches('/'))
    }

    fn get(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let script = format!("[ -e {0} ] || exit {NO_INPUT}; exec cat {0}", quoted(name));
        self.run(&script, Stdio::null(), limit + 1, &mut |_, piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .with_context(|| format!("reading '{name}'"))?;
        Ok(bytes)
    }

    fn ranges(&self, name: &str, wanted: &[Range<u64>], sink: &mut Sink<'_>) -> Result<()> {
        for some in wanted.chunks(RANGES_AT_ONCE) {
            let file = quoted(name);
            let mut script = format!("[ -e {file} ] || exit {NO_INPUT};");
            for range in some {
                let len = range.end - range.start;
                script.push_str(&format!(" tail -c +{} {file} | head -c {len};", range.start + 1));
            }
            // All parts come one after the other; their lengths tell them apart.
            let mut rest = some.iter().cloned();
            let mut now = rest.next().unwrap_or(0..0);
            let mut split = |_: u64, mut bytes: &[u8]| {
                while !bytes.is_empty() {
                    if now.is_empty() {
                        now = rest.next().context("more came than was asked for")?;
                    }
                    let len = bytes.len().min((now.end - now.start) as usize);
                    let (piece, left) = bytes.split_at(len);
                    sink(now.start, piece)?;
                    now.start += len as u64;
                    bytes = left;
                }
                Ok(())
            };
            self.run(&script, Stdio::null(), u64::MAX, &mut split)
                .with_context(|| format!("reading '{name}'"))?;
        }
        Ok(())
    }

    fn names(&self, dir: &str) -> Result<Vec<String>> {
        let mut text = Vec::new();
        let script = format!("[ -d {0} ] || exit {NO_INPUT}; exec ls -A {0}", quoted(dir));
        let listed = self.run(&script, Stdio::null(), LONGEST_LISTING, &mut |_, piece| {
            text.extend_from_slice(piece);
            Ok(())
        });
        match listed {
            Err(error) if error.is::<Missing>() => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("listing '{dir}'")),
            Ok(()) => Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()),
        }
    }
}

impl Shelf for Ssh {
    fn make_private(&self) -> Result<bool> {
        let dir = quoted(&self.dir);
        let script = format!(
            "umask 077; if [ -z \"$(ls -A {dir} 2>/dev/null)\" ]; then mkdir -p {dir} && chmod 700 {dir} || exit 1; fi; cd {dir} || exit \
             1; case $(ls -ld .) in d???------*) cat > {PRIVATE} && echo private;; *) echo open;; esac"
        );
        let mut command = self.command(&script).command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut far = Running(command.spawn().context("running 'ssh'")?);
        // What a far side that has ended says of it tells more than this error.
        let _ = far.0.stdin.take().map(|mut stdin| stdin.write_all(PRIVATE_TEXT.as_bytes()));
        let mut said = String::new();
        far.0.stdout.take().context("ssh has no standard output")?.take(100).read_to_string(&mut said)?;
        ended(&mut far).with_context(|| format!("making '{}'", self.shown()))?;
        Ok(said.trim() == "private")
    }

    fn lock(&self) -> Result<Box<dyn std::any::Any>> {
        // The lock goes with the connection: what holds it ends when its input does.
        let dir = quoted(&self.dir);
        let script = format!(
            "mkdir -p {dir} && cd {dir} || exit 1; if command -v flock >/dev/null; then exec 9>>.lock; \
             flock -w 300 9 || exit 75; fi; echo locked; exec cat >/dev/null"
        );
        let mut command = self.command(&script).command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut far = Running(command.spawn().context("running 'ssh'")?);
        let mut said = [0; 7];
        let read = far.0.stdout.as_mut().context("ssh has no standard output")?.read_exact(&mut said);
        if read.is_ok() && said == *b"locked\n" {
            return Ok(Box::new(far));
        }
        match far.end()? {
            (75, _) => {
                bail!("another push is at work in '{}'; hint: try again when it has ended", self.shown())
            }
            (_, why) => bail!("making '{}': {why}", self.shown()),
        }
    }

    fn length(&self, name: &str) -> Result<Option<u64>> {
        self.length_of(name)
    }

    fn put(&self, from: &Path, name: &str, tick: &mut dyn FnMut(u64)) -> Result<()> {
        let mut send = || -> Result<()> {
            let mut file = File::open(from)?;
            let len = file.metadata()?.len();
            let partial = format!("{name}{PARTIAL}");
            // Only what is named by its content is the same thing when it is sent again.
            let resumable = name.starts_with("packs/");
            let there =
                if resumable { self.length_of(&partial)?.filter(|there| *there <= len) } else { None };
            let start = there.unwrap_or(0);
            file.seek(SeekFrom::Start(start))?;
            let how = if there.is_some() { ">>" } else { ">" };
            let dir =
                Path::new(name).parent().map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default();
            let (partial, name, dir) = (quoted(&partial), quoted(name), quoted(&dir));
            let script = format!(
                "cd {} && case $(ls -ld .) in d???------*) umask 077;; esac && mkdir -p {dir} && cat {how} {partial} && [ \"$(wc -c < {partial})\" -eq {len} ] && \
                 {{ sync {partial} 2>/dev/null || sync; }} && mv -f {partial} {name}",
                quoted(&self.dir)
            );
            let mut command = self.command(&script).command();
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
            let mut far = Running(command.spawn().context("running 'ssh'")?);
            let mut stdin = far.0.stdin.take().context("ssh has no standard input")?;
            let mut buffer = vec![0; 64 << 10];
            let mut done = start;
            loop {
                let n = file.read(&mut buffer)?;
                // A line that is cut says so by its status.
                if n == 0 || stdin.write_all(&buffer[..n]).is_err() {
                    break;
                }
                if interrupted() {
                    bail!("interrupted");
                }
                done += n as u64;
                tick(done);
            }
            drop(stdin);
            ended(&mut far)
        };
        send().with_context(|| format!("sending '{name}' to '{}'", self.shown()))
    }
}

/// The end of a connection, which is an error if the far side says so.
fn ended(far: &mut Running) -> Result<()> {
    match far.end()? {
        (0, _) => Ok(()),
        (NO_INPUT, _) => Err(Missing("it is not there".to_owned()).into()),
        (status, said) if said.is_empty() => bail!("the far side ended with status {status}"),
        (_, said) => bail!("{}", said.replace('\n', " | ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_directory() {
        let ssh = Ssh::new("ssh://me@host:2222/srv/it's").unwrap();
        assert_eq!((ssh.host.as_str(), ssh.port, ssh.dir.as_str()), ("me@host", Some(2222), "/srv/it's"));
        assert_eq!(Ssh::new("ssh://host/~/images").unwrap().dir, "images");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        for bad in
            ["ssh://host", "ssh:///dir", "ssh://-oProxyCommand=x/dir", "ssh://host:port/dir", "ssh://a b/c"]
        {
            assert!(Ssh::new(bad).is_err(), "{bad}");
        }
    }
}
