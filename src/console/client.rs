//! Asking the holder.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::de::DeserializeOwned;

use crate::console::protocol::{Answer, ConsoleState, Event, For, Launch, Request, Settings, Told};
use crate::host::Live;
use crate::host::files::Files;
use crate::names::GuestName;
use crate::paths::Paths;

/// For requests that are answered at once.
const AT_ONCE: Duration = Duration::from_secs(30);

/// Connects to the holder.
pub fn connect(paths: &Paths) -> Result<UnixStream> {
    let socket = paths.holder_socket();
    UnixStream::connect(&socket)
        .with_context(|| format!("asking the console holder at '{}'", socket.display()))
}

/// Whether a holder answers.
pub fn holder_runs(paths: &Paths) -> bool {
    connect(paths).is_ok()
}

/// Hands a guest's console over: the pty master of the process that `run.json` names. The process must keep its own
/// descriptor of the master open, under the number in the record.
pub fn adopt(
    paths: &Paths,
    guest: &GuestName,
    settings: Option<Settings>,
    master: BorrowedFd<'_>,
) -> Result<()> {
    let request = Request::Adopt { guest: guest.clone(), settings };
    ask(paths, &request, Some(master), Some(AT_ONCE))
}

/// Has the holder start a guest's launcher. Returns when the guest's console has been adopted; fails with the end of what
/// the launcher said if it ended before. The limit is for the launcher.
pub fn spawn(
    paths: &Paths,
    guest: &GuestName,
    launch: Launch,
    settings: Settings,
    limit: Duration,
) -> Result<()> {
    ask(paths, &Request::Spawn { guest: guest.clone(), launch, settings }, None, Some(limit))
}

/// Tells the holder that the guest's end is wanted.
pub fn stopping(paths: &Paths, guest: &GuestName) -> Result<()> {
    ask(paths, &Request::Stopping { guest: guest.clone() }, None, Some(AT_ONCE))
}

/// All running guests' consoles.
pub fn list(paths: &Paths) -> Result<Vec<ConsoleState>> {
    ask(paths, &Request::List, None, Some(AT_ONCE))
}

/// Shows a line to everybody who is attached to this guest's console, or to any.
pub fn broadcast(paths: &Paths, guest: Option<&GuestName>, text: &str) -> Result<Vec<Told>> {
    let request = Request::Broadcast { guest: guest.cloned(), text: text.to_owned() };
    ask(paths, &request, None, Some(AT_ONCE))
}

/// Guests that the holder is starting.
pub fn starting(paths: &Paths) -> Result<Vec<GuestName>> {
    ask(paths, &Request::Starting, None, Some(AT_ONCE))
}

/// Ends the holder, which is gone when this returns; refused as long as a guest is running.
pub fn quit(paths: &Paths) -> Result<()> {
    ask::<()>(paths, &Request::Quit, None, Some(AT_ONCE))?;
    // Its lock goes with the last of it.
    Live.lock(&paths.holder_lock(), AT_ONCE).map(drop).context("waiting for the console holder's end")
}

/// Waits for a guest; `None` if the limit came first. Waiting for [`For::Ready`] also ends with the guest
/// ([`Event::Stopped`]). A guest that is not there may still come, but an end at or after `since_ms` (milliseconds since 1970) counts as its end.
/// A holder that ends meanwhile is waited for.
pub fn wait_event(
    paths: &Paths,
    guest: &GuestName,
    what: For,
    since_ms: Option<u64>,
    limit: Duration,
) -> Result<Option<Event>> {
    let deadline = Instant::now() + limit;
    let request = Request::Wait { guest: guest.clone(), what, since_ms };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        match ask(paths, &request, None, Some(left)) {
            Ok(event) => return Ok(Some(event)),
            Err(e) if e.downcast_ref::<TimedOut>().is_some() => return Ok(None),
            // Its successor's socket takes the same name; there is nothing to wait on until then.
            Err(e) if e.downcast_ref::<Gone>().is_some() => {
                std::thread::sleep(left.min(Duration::from_millis(50)))
            }
            Err(e) if e.downcast_ref::<std::io::Error>().is_some() && left < limit => {
                std::thread::sleep(left.min(Duration::from_millis(50)));
            }
            Err(e) => return Err(e),
        }
    }
}

/// Makes sure that a holder answers; starts a detached one of the given program if none does.
pub fn ensure_holder(paths: &Paths, exe: &Path) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(30);
    if connect(paths).is_ok() {
        return Ok(());
    }
    let _starting = Live.lock(&paths.run.join("holder.start"), LIMIT)?;
    if connect(paths).is_ok() {
        return Ok(());
    }
    let what = || "starting the console holder".to_owned();
    let mut command = Command::new(exe);
    command.arg("--site").arg(&paths.site).arg("--state").arg(&paths.state).args(["hold", "--detach"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(what)?;
    let (stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let status = child.wait().with_context(what)?;
    // The holder has the other end now: a line when it answers, nothing more if it has ended.
    let ready = stdout.is_some_and(|out| first_line(out, LIMIT).is_ok_and(|line| line == "ready"));
    if ready || another_answers(paths) {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(stderr) = stderr.as_mut().filter(|_| !status.success()) {
        let _ = stderr.take(4096).read_to_string(&mut said);
    }
    let log = std::fs::read_to_string(paths.holder_log()).unwrap_or_default();
    let line = said.lines().chain(log.lines()).last().unwrap_or("it did not say why");
    Err(anyhow!("{line}")).with_context(what)
}

/// The holder that was in the way may itself have been about to answer: somebody else, such as a service manager, started
/// it at the same moment.
fn another_answers(paths: &Paths) -> bool {
    const PATIENCE: Duration = Duration::from_secs(2);
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if holder_runs(paths) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn first_line(out: std::process::ChildStdout, limit: Duration) -> Result<String> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    let mut buffer = [0; 16];
    if poll(&mut [PollFd::new(&out, PollFlags::IN)], Some(&limit))? == 0 {
        bail!("no answer");
    }
    let n = rustix::io::read(&out, &mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).trim().to_owned())
}

#[derive(Debug)]
struct TimedOut;

impl std::fmt::Display for TimedOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the console holder does not answer")
    }
}

impl std::error::Error for TimedOut {}

/// Whether that went wrong because the holder ended in the middle of it, or is not there.
pub(super) fn is_gone(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    error.downcast_ref::<Gone>().is_some()
        || matches!(kind, Some(NotFound | ConnectionRefused | ConnectionReset | BrokenPipe))
}

#[derive(Debug)]
struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the console holder has ended")
    }
}

impl std::error::Error for Gone {}

fn ask<T: DeserializeOwned>(
    paths: &Paths,
    request: &Request,
    fd: Option<BorrowedFd<'_>>,
    limit: Option<Duration>,
) -> Result<T> {
    let mut stream = connect(paths)?;
    stream.set_read_timeout(limit).context("setting a limit")?;
    send(&mut stream, request, fd)?;
    let line = answer_line(&mut stream)?;
    understand(&line)
}

pub(super) fn send(stream: &mut UnixStream, request: &Request, fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let what = || "asking the console holder".to_owned();
    let mut line = serde_json::to_vec(request).with_context(what)?;
    line.push(b'\n');
    let mut sent = 0;
    if let Some(fd) = fd {
        let fds = [fd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        sent = sendmsg(&*stream, &[IoSlice::new(&line)], &mut ancillary, SendFlags::NOSIGNAL)
            .with_context(what)?;
    }
    stream.write_all(&line[sent..]).with_context(what)
}

/// Reads the holder's line, byte by byte: what follows it are frames.
pub(super) fn answer_line(stream: &mut UnixStream) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return Err(Gone.into()),
            Ok(_) if byte[0] == b'\n' => return Ok(line),
            Ok(_) => line.push(byte[0]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Err(TimedOut.into()),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Err(Gone.into()),
            Err(e) => return Err(e).context("reading the console holder's answer"),
        }
    }
}

pub(super) fn understand<T: DeserializeOwned>(line: &[u8]) -> Result<T> {
    match serde_json::from_slice(line).context("understanding the console holder's answer")? {
        Answer::Ok(value) => Ok(value),
        Answer::Error(why) => bail!("{why}"),
    }
}
