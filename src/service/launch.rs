//! From a spec to a running guest: this process lays out disk, cable and terminal, and then becomes the hypervisor.
//!
//! ```text
//! spec.json -> lock -> cable (tap or namespace) -> terminal -> run.json -> console holder -> exec
//! ```
//!
//! Whatever is made on the way belongs to this process and goes with it: the lock and the tap are file descriptors, the
//! mount of a tree lives in a namespace of this process's own. A launch that fails half way leaves nothing.

use std::convert::Infallible;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use rustix::io::FdFlags;
use rustix::mount::{MountPropagationFlags, MoveMountFlags};
use rustix::thread::UnshareFlags;

use crate::backend::spec::Spec;
use crate::backend::{Plug, PlugKind, Wires, backend};
use crate::config::site::ReadyCheck;
use crate::console::client;
use crate::console::heard::vsock::{self, Vsock};
use crate::console::record::RunRecord;
use crate::host::net::Port;
use crate::host::programs::Program;
use crate::host::{Host, Live, filesystem, notify};
use crate::names::{GuestName, IfName};
use crate::paths::Paths;
use crate::plan::network::names;
use crate::service::terminal::Terminal;
use crate::service::{self, handover, limits, quarters};

/// Starts the guest in this process; returns only if that fails.
pub fn launch(paths: &Paths, guest: &GuestName) -> Result<Infallible> {
    let what = || format!("starting guest '{guest}'");
    match become_guest(paths, guest) {
        Err(error) if error.is::<Refused>() => Err(error),
        other => other.with_context(what),
    }
}

fn become_guest(paths: &Paths, guest: &GuestName) -> Result<Infallible> {
    let host = Live;
    let mut received = notify::received();
    if let Some(refused) = received.remove(handover::REFUSED) {
        return Err(Refused(handover::refusal(refused)?).into());
    }
    let Some(mut spec) = Spec::read(&host, paths, guest)? else {
        bail!("it was never brought up here; try: gridgate up {guest}")
    };
    spec.limits = limits::over(&host, paths, guest, spec.limits)?;
    // A session of its own, so that the end of whoever started it, or a terminal's, is not the guest's. A process that
    // leads a session already (under systemd) may not make another, and need not.
    let _ = rustix::process::setsid();
    let lock = lock(paths, guest)?;
    let backend = backend(&spec.engine);
    let mut cables = handover::cables(&mut received);
    if cables.is_empty() {
        limits::prepare(&host, paths, &spec)?;
        quarters::clean(paths, guest)?;
        cables = plug(&host, paths, &spec)?;
    }
    let tree = if backend.wants_tree() { Some(mount_tree(paths, &spec)?) } else { None };
    let terminal = Terminal::open()?;

    let plug = match backend.plug() {
        PlugKind::Taps => Plug::Taps(cables.iter().map(AsRawFd::as_raw_fd).collect()),
        PlugKind::Namespace => Plug::Namespace(cables.first().context("it has no namespace")?.as_raw_fd()),
    };
    let speaks = |check: &ReadyCheck| matches!(check, ReadyCheck::Notify | ReadyCheck::Heartbeat(_));
    let vsock = (spec.ready.iter().any(speaks) && vsock::is_possible()).then(|| Vsock::of(paths, guest));
    let wires = Wires { plug, run_dir: paths.run_guest(guest), tree, vsock };
    let program = backend.program(&spec, &wires);
    // Later there is nobody who could take back what has been told by then.
    std::fs::metadata(program.command().get_program())
        .with_context(|| format!("running '{}'", program.name))?;
    let own = [lock.as_fd(), terminal.master.as_fd()];
    for fd in own.into_iter().chain(cables.iter().map(AsFd::as_fd)) {
        keep_over_exec(fd)?;
    }
    // Where systemd has made this process the guest's user, it is root that writes down that it runs.
    let is_root = rustix::process::geteuid().is_root();
    let user = (is_root && quarters::has_user(&spec)).then(|| quarters::user(paths, guest));
    if let Some(uid) = user {
        quarters::furnish(paths, &spec, uid)?;
    }
    if is_root {
        announce(paths, &spec, &terminal)?;
    }
    let error = exec(&spec, program, &terminal, user);
    if is_root {
        // As the guest's user it cannot; whoever reads the record finds that the process has ended.
        let _ = std::fs::remove_file(paths.run_record(guest));
    }
    Err(error)
}

/// Becomes the hypervisor; returns only if that fails.
fn exec(spec: &Spec, program: Program, terminal: &Terminal, user: Option<u32>) -> anyhow::Error {
    let ready = || -> Result<()> {
        rustix::stdio::dup2_stdin(&terminal.slave)?;
        rustix::stdio::dup2_stdout(&terminal.slave)?;
        if let Some(uid) = user {
            quarters::move_in(spec, uid)?;
        }
        Ok(())
    };
    if let Err(error) = ready() {
        return error;
    }
    // systemd notices by itself when it is not told; there is nobody else to tell.
    let _ = notify::tell(&format!("READY=1\nSTATUS=runs by {}", spec.engine));
    anyhow::Error::from(program.command().exec()).context(format!("running '{}'", program.name))
}

/// Why the guest could not even be prepared, as it was told before.
#[derive(Debug)]
pub struct Refused(pub String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Writes down that this process is the guest, and hands its console over.
fn announce(paths: &Paths, spec: &Spec, terminal: &Terminal) -> Result<()> {
    let (name, master) = (backend(&spec.engine).name(), terminal.master.as_fd());
    let record = RunRecord::of_this_process(name, master.as_raw_fd(), spec.netns.clone())?;
    record.write(paths, &spec.guest)?;
    limits::started(&Live, paths, spec, &record)?;
    // Without a holder the guest starts all the same: the next holder finds the terminal in this very process.
    let settings = Some(service::settings(&Live, spec));
    if let Err(error) = client::adopt(paths, &spec.guest, settings, master) {
        eprintln!("ignoring that the console holder did not answer: {error:#}");
    }
    Ok(())
}

/// Held by the hypervisor's process as long as it lives: two on one disk would destroy it.
fn lock(paths: &Paths, guest: &GuestName) -> Result<File> {
    let path = paths.guest_lock(guest);
    if rustix::process::geteuid().is_root() {
        quarters::make_lock(paths, guest)?;
    }
    // A lock needs no more than a descriptor (flock(2)).
    let file = File::open(&path).with_context(|| format!("opening '{}'", path.display()))?;
    let started = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            // `is_held` has it for a moment, or the one that has it has yet to say who it is.
            Err(rustix::io::Errno::WOULDBLOCK) if started.elapsed() < patience(paths, guest) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => bail!("it runs already; look at: gridgate status {guest}"),
            Err(e) => return Err(e).with_context(|| format!("locking '{}'", path.display())),
        }
    }
}

/// Longer as long as it is not known who has the lock: on a busy machine a look takes its time.
fn patience(paths: &Paths, guest: &GuestName) -> Duration {
    match RunRecord::is_running(paths, guest) {
        true => Duration::from_millis(200),
        false => Duration::from_secs(10),
    }
}

/// Whether the guest's process, or one that is about to become it, is there.
pub fn is_held(paths: &Paths, guest: &GuestName) -> bool {
    let Ok(file) = File::open(paths.guest_lock(guest)) else { return false };
    // Shared: two that look do not see each other.
    let taken = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
    matches!(taken, Err(rustix::io::Errno::WOULDBLOCK))
}

/// Plugs a cable into a bridge for each of the guest's cards: taps, in the order of the cards, or one namespace that the other
/// ends are in. They go with the descriptors.
pub fn plug(host: &dyn Host, paths: &Paths, spec: &Spec) -> Result<Vec<OwnedFd>> {
    let ns = spec.netns.as_deref();
    let alias = names::guest_alias(&paths.id(), &spec.guest);
    let kind = backend(&spec.engine).plug();
    let mut cables = Vec::new();
    if kind == PlugKind::Namespace {
        cables.push(host.fresh_netns().context("making its network namespace")?);
    }
    for card in spec.cards() {
        let port = Port { name: &card.tap, bridge: &card.bridge, alias: &alias };
        let plugged = match (kind, cables.first()) {
            (PlugKind::Namespace, Some(namespace)) => {
                let peer: IfName = card.name.as_str().parse().context("naming the guest's interface")?;
                host.make_veth(ns, port, namespace.as_fd(), &peer, card.mac)
            }
            _ => host.open_tap(ns, port, None).map(|tap| cables.push(tap)),
        };
        plugged.with_context(|| {
            format!(
                "plugging card '{}' into bridge '{}' (is the site's network up? try: gridgate up)",
                card.name, card.bridge
            )
        })?;
    }
    Ok(cables)
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

fn keep_over_exec(fd: BorrowedFd<'_>) -> Result<()> {
    let flags = rustix::io::fcntl_getfd(fd)?;
    Ok(rustix::io::fcntl_setfd(fd, flags - FdFlags::CLOEXEC)?)
}
