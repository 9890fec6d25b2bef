//! The holder's beginning: one at a time, reachable, and telling so.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::epoll::{self, CreateFlags, EventFlags};
use rustix::fs::Mode;

use crate::console::inflight::Inflight;
use crate::host::files::Files;
use crate::host::{Live, notify};
use crate::paths::Paths;

use super::heal::Health;
use super::keep::Kept;
use super::vsock::Switchboard;
use super::{Holder, Token, recover};

/// A detached holder's log is begun anew when it has become longer than this.
const LOG_BYTES: u64 = 1 << 20;

/// Everything is in place and every living guest taken up when this returns; from then on the socket answers.
pub(super) fn holder(paths: &Paths, kept: Kept) -> Result<Holder> {
    Live.make_dir(&paths.run, 0o755)?;
    let lock = Live.lock(&paths.holder_lock(), Duration::ZERO).context("another holder is there already")?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.add(Signal::SIGINT);
    mask.thread_block().context("blocking signals")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&mask, flags).context("listening for signals")?;
    let epoll = epoll::create(CreateFlags::CLOEXEC).context("preparing to wait for events")?;
    let in_file = paths.holder_inflight();
    let (inflight, left) =
        Inflight::open(&in_file).with_context(|| format!("mapping '{}'", in_file.display()))?;
    if let Some(left) = left {
        recover::finish_log(paths, &left);
    }
    inflight.settle(&in_file).with_context(|| format!("replacing '{}'", in_file.display()))?;
    let socket = paths.holder_socket();
    let temporary = socket.with_extension("sock.new");
    let listener = listen(&temporary).with_context(|| format!("listening on '{}'", temporary.display()))?;
    let health = Health::new(lock)?;
    let (consoles, conns) = (BTreeMap::new(), BTreeMap::new());
    let paths = paths.clone();
    let mut holder = Holder {
        paths,
        epoll,
        listener,
        signals,
        inflight,
        kept,
        health,
        consoles,
        conns,
        switchboard: Switchboard::default(),
        next_conn: 0,
        slim_due: None,
        ending: false,
    };
    holder.recover().context("taking up running guests")?;
    holder.kept.forget_rest();
    holder.watch_fd(holder.listener.as_fd(), Token::Listener, EventFlags::IN)?;
    holder.watch_fd(holder.signals.as_fd(), Token::Signal, EventFlags::IN)?;
    Live.rename(&temporary, &socket)?;
    holder.watch_health()?;
    Ok(holder)
}

/// Another socket with the name of the one that was removed.
pub(super) fn listen_anew(paths: &Paths) -> Result<UnixListener> {
    let socket = paths.holder_socket();
    listen(&socket).with_context(|| format!("listening on '{}'", socket.display()))
}

/// Only root may connect. The socket gets its name when it answers, so that nobody meets one that does not.
fn listen(path: &Path) -> Result<UnixListener> {
    Live.remove(path)?;
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Tells whoever started this process that it answers: a line on stdout, which is closed then, and sd_notify(3).
pub(super) fn tell_ready() -> Result<()> {
    let mut out = std::io::stdout().lock();
    // Whoever started it may have gone; that is no reason to stop.
    let _ = out.write_all(b"ready\n").and_then(|()| out.flush());
    rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null").context("opening '/dev/null'")?)
        .context("letting go of stdout")?;
    notify::tell("READY=1")
}

/// Starts a holder that belongs to nobody: the caller leads a new session, starts it, and is to end then. It has the caller's
/// stdout until it answers.
pub fn detach(paths: &Paths, exe: &Path) -> Result<()> {
    // Fails for the leader of a process group, which an interactive shell's child is; then its session has to do.
    let _ = rustix::process::setsid();
    Live.make_dir(&paths.run, 0o755)?;
    let log = paths.holder_log();
    let mut options = File::options();
    let long = std::fs::metadata(&log).is_ok_and(|m| m.len() > LOG_BYTES);
    let file = options.create(true).write(true).append(!long).truncate(long).mode(0o600).open(&log);
    let file = file.with_context(|| format!("opening '{}'", log.display()))?;
    let mut command = Command::new(exe);
    command.arg("--site").arg(&paths.site).arg("--state").arg(&paths.state).arg("hold");
    command.current_dir("/").stdin(Stdio::null()).stderr(file);
    command.spawn().with_context(|| format!("starting '{}'", exe.display()))?;
    Ok(())
}
