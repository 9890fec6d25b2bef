//! From a spec to a running guest: this process lays out disk, cable and terminal, and then becomes the hypervisor.
//!
//! ```text
//! spec.json -> lock -> cable (tap or namespace) -> terminal -> run.json -> console holder -> exec
//! ```
//!
//! Whatever is made on the way belongs to this process and goes with it: the lock and the tap are file descriptors, the
//! mount of a tree lives in a namespace of this process's own. A launch that fails half way leaves nothing.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use rustix::io::FdFlags;
use rustix::mount::{MountPropagationFlags, MoveMountFlags};
use rustix::termios::{OptionalActions, Winsize};
use rustix::thread::UnshareFlags;

use crate::backend::spec::Spec;
use crate::backend::{Backend, Plug, PlugKind, Wires, backend};
use crate::config::site::ReadyCheck;
use crate::console::client;
use crate::console::heard::vsock::{self, Vsock};
use crate::console::record::RunRecord;
use crate::host::net::Port;
use crate::host::{Host, Live, filesystem};
use crate::identity::addresses::INTERFACE;
use crate::names::{GuestName, IfName};
use crate::paths::Paths;
use crate::plan::network::names;
use crate::service::{self, limits};

/// Starts the guest in this process; returns only if that fails.
pub fn launch(paths: &Paths, guest: &GuestName) -> Result<Infallible> {
    let what = || format!("starting guest '{guest}'");
    become_guest(paths, guest).with_context(what)
}

fn become_guest(paths: &Paths, guest: &GuestName) -> Result<Infallible> {
    let host = Live;
    let Some(mut spec) = Spec::read(&host, paths, guest)? else {
        bail!("it was never brought up here; try: gridgate up {guest}")
    };
    spec.limits = limits::over(&host, paths, guest, spec.limits)?;
    // A session of its own, so that the end of whoever started it, or a terminal's, is not the guest's. A process that
    // leads a session already (under systemd) may not make another, and need not.
    let _ = rustix::process::setsid();
    let lock = lock(paths, guest)?;
    let backend = backend(&spec.engine);
    let cable = plug(&host, &spec, backend, &names::guest_alias(&paths.id(), guest))?;
    let tree = if backend.wants_tree() { Some(mount_tree(paths, &spec)?) } else { None };
    let terminal = Terminal::open()?;

    let plug = match backend.plug() {
        PlugKind::Tap => Plug::Tap(cable.as_raw_fd()),
        PlugKind::Namespace => Plug::Namespace(cable.as_raw_fd()),
    };
    let speaks = |check: &ReadyCheck| matches!(check, ReadyCheck::Notify | ReadyCheck::Heartbeat(_));
    let vsock = (spec.ready.iter().any(speaks) && vsock::is_possible()).then(|| Vsock::of(paths, guest));
    let wires = Wires { plug, run_dir: paths.run_guest(guest), tree, vsock };
    let program = backend.program(&spec, &wires);
    for fd in [lock.as_fd(), cable.as_fd(), terminal.master.as_fd()] {
        keep_over_exec(fd)?;
    }
    // Only the record's reader knows whether the last one's sockets are still somebody's; the lock says nobody's.
    host_clean(&wires)?;
    let record = RunRecord::of_this_process(backend.name(), terminal.master.as_raw_fd(), spec.netns.clone())?;
    record.write(paths, guest)?;
    limits::at_launch(&host, paths, &spec, &record)?;
    // Without a holder the guest starts all the same: the next holder finds the terminal in this very process.
    if let Err(error) =
        client::adopt(paths, guest, Some(service::settings(&host, &spec)), terminal.master.as_fd())
    {
        eprintln!("ignoring that the console holder did not answer: {error:#}");
    }
    rustix::stdio::dup2_stdin(&terminal.slave)?;
    rustix::stdio::dup2_stdout(&terminal.slave)?;
    tell_systemd(&format!("READY=1\nSTATUS=runs by {}", spec.engine));
    let error = program.command().exec();
    let _ = std::fs::remove_file(paths.run_record(guest));
    Err(error).with_context(|| format!("running '{}'", program.name))
}

fn host_clean(wires: &Wires) -> Result<()> {
    use crate::host::files::Files;
    for left in ["uml", "qmp.sock", "qmp-events.sock", "agent.sock", "stop.json", "end.json"] {
        Live.remove(&wires.run_dir.join(left))?;
    }
    Live.make_dir(&wires.run_dir.join("uml"), 0o700)
}

/// Held by the hypervisor's process as long as it lives: two on one disk would destroy it.
fn lock(paths: &Paths, guest: &GuestName) -> Result<File> {
    let dir = paths.run_guest(guest);
    std::fs::create_dir_all(&dir).with_context(|| format!("making directory '{}'", dir.display()))?;
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("opening '{}'", path.display()))?;
    let started = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            // `is_held` has it for a moment.
            Err(rustix::io::Errno::WOULDBLOCK) if started.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => bail!("it runs already; look at: gridgate status {guest}"),
            Err(e) => return Err(e).with_context(|| format!("locking '{}'", path.display())),
        }
    }
}

const LOCK_PATIENCE: Duration = Duration::from_millis(200);

/// Whether the guest's process, or one that is about to become it, is there.
pub fn is_held(paths: &Paths, guest: &GuestName) -> bool {
    let Ok(file) = File::open(paths.run_guest(guest).join("lock")) else { return false };
    let taken = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    matches!(taken, Err(rustix::io::Errno::WOULDBLOCK))
}

fn plug(host: &dyn Host, spec: &Spec, backend: &dyn Backend, alias: &str) -> Result<OwnedFd> {
    let ns = spec.netns.as_deref();
    let port = Port { name: &spec.tap, bridge: &spec.bridge, alias };
    match backend.plug() {
        PlugKind::Tap => host.open_tap(ns, port, None),
        PlugKind::Namespace => {
            let namespace = host.fresh_netns()?;
            let peer: IfName = INTERFACE.parse().context("naming the guest's interface")?;
            host.make_veth(ns, port, namespace.as_fd(), &peer, spec.mac)?;
            Ok(namespace)
        }
    }
    .with_context(|| {
        format!("plugging it into bridge '{}' (is the site's network up? try: gridgate up)", spec.bridge)
    })
}

/// Where a guest's disk is mounted, in its run directory.
pub const TREE: &str = "root";

/// Mounts the disk where only this process and its children see it, so that the kernel unmounts it at their end.
fn mount_tree(paths: &Paths, spec: &Spec) -> Result<PathBuf> {
    let dir = paths.run_guest(&spec.guest).join(TREE);
    let what = || format!("mounting '{}' at '{}'", spec.disk.display(), dir.display());
    std::fs::create_dir_all(&dir).with_context(what)?;
    #[expect(unsafe_code, reason = "unshare is unsafe for file descriptors, which are not unshared here")]
    // SAFETY: only the mount namespace is unshared; this process has a single thread and keeps its descriptors.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.with_context(what)?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).with_context(what)?;
    let mount = filesystem::mount_for_guest(&spec.disk).with_context(what)?;
    rustix::mount::move_mount(&mount, "", rustix::fs::CWD, &dir, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .with_context(what)?;
    Ok(dir)
}

struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
}

impl Terminal {
    fn open() -> Result<Self> {
        let what = "making a terminal for its console";
        let flags = rustix::pty::OpenptFlags::RDWR
            | rustix::pty::OpenptFlags::NOCTTY
            | rustix::pty::OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).context(what)?;
        rustix::pty::grantpt(&master).context(what)?;
        rustix::pty::unlockpt(&master).context(what)?;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).context(what)?;
        // The guest's own line discipline does the echoing; a second one would garble it.
        let mut mode = rustix::termios::tcgetattr(&slave).context(what)?;
        mode.make_raw();
        rustix::termios::tcsetattr(&slave, OptionalActions::Now, &mode).context(what)?;
        let size = Winsize { ws_row: 25, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).context(what)?;
        Ok(Self { master, slave })
    }
}

/// sd_notify(3): the unit counts as started only when all is laid out and the hypervisor is next.
fn tell_systemd(message: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Ok(socket) = std::env::var("NOTIFY_SOCKET") else { return };
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&socket),
    };
    // systemd notices by itself when it is not told; there is nobody else to tell.
    if let (Ok(address), Ok(ours)) = (address, UnixDatagram::unbound()) {
        let _ = ours.send_to_addr(message.as_bytes(), &address);
    }
}

fn keep_over_exec(fd: BorrowedFd<'_>) -> Result<()> {
    let flags = rustix::io::fcntl_getfd(fd)?;
    Ok(rustix::io::fcntl_setfd(fd, flags - FdFlags::CLOEXEC)?)
}
