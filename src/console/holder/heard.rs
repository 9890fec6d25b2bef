//! Listening to a guest beside its console: a socket of its own for datagrams, and QEMU's stream of events.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::epoll::{self, EventFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::console::exit::marks::{EndHint, Hint};
use crate::console::heard::Heard;
use crate::console::heard::notify::{DATAGRAM_BYTES, understand};
use crate::console::heard::qmp::{Events, HELLO};
use crate::console::logread::Event as Mark;
use crate::console::moment::Moment;
use crate::console::ready::Watch;
use crate::events::{self, What};
use crate::host::files::Files;
use crate::host::{Live, processes, sockets};
use crate::paths::OWN;

use super::{Holder, Token};

/// So many datagrams in a second are more than anybody needs; who sends more has to wait.
const A_SECOND: u32 = 100;
/// QEMU makes its socket a moment after it has started.
const QMP_SOON: Duration = Duration::from_millis(50);
/// One that does not make it for so long has other troubles.
const QMP_LATER: Duration = Duration::from_secs(5);
const QMP_TRIES: u32 = 200;
/// What a user-mode kernel says first on its console.
const KERNEL_BANNER: &[u8] = b"Linux version ";

/// The socket that a guest's datagrams come to.
pub(super) struct Notify {
    socket: UnixDatagram,
    since: Instant,
    taken: u32,
    paused_until: Option<Instant>,
}

impl Notify {
    /// Takes the name over from an earlier one. The guest's own user may send, if it has one.
    pub(super) fn bind(path: &Path) -> Result<Self> {
        let what = || format!("listening on '{}'", path.display());
        Live.remove(path)?;
        let socket = UnixDatagram::bind(path).with_context(what)?;
        socket.set_nonblocking(true).with_context(what)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).with_context(what)?;
        if let Some(owner) = path.parent().and_then(|dir| dir.join(OWN).symlink_metadata().ok()) {
            chown(path, Some(owner.uid()), Some(owner.gid())).with_context(what)?;
        }
        Ok(Self { socket, since: Instant::now(), taken: 0, paused_until: None })
    }

    /// The next datagram, if it may be taken now.
    fn next(&mut self, now: Instant) -> Option<Vec<Heard>> {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.taken) = (now, 0);
        }
        if self.taken >= A_SECOND {
            self.paused_until = Some(self.since + Duration::from_secs(1));
            return None;
        }
        let mut buffer = [0; DATAGRAM_BYTES];
        let len = self.socket.recv(&mut buffer).ok()?;
        self.taken += 1;
        Some(understand(&buffer[..len]))
    }
}

/// QEMU's events; found again when the connection is lost.
pub(super) struct Machine {
    path: PathBuf,
    stream: Option<UnixStream>,
    events: Events,
    tries: u32,
    next: Option<Instant>,
}

impl Machine {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, stream: None, events: Events::default(), tries: 0, next: Some(Instant::now()) }
    }

    fn connect(&mut self) -> Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let found = sockets::find(&self.path)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(found.path())?)?;
        let mut stream = UnixStream::from(socket);
        stream.write_all(HELLO)?;
        self.events = Events::default();
        self.stream = Some(stream);
        Ok(())
    }

    fn lost(&mut self, now: Instant) {
        self.stream = None;
        self.tries = self.tries.saturating_add(1);
        self.next = Some(now + if self.tries < QMP_TRIES { QMP_SOON } else { QMP_LATER });
    }

    /// What has come; the connection is given up if it is none any more.
    fn read(&mut self, now: Instant) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        while let Some(stream) = &mut self.stream {
            match stream.read(&mut buffer) {
                Ok(n) if n > 0 => match self.events.push(&buffer[..n]) {
                    Some(told) => heard.extend(told),
                    None => self.lost(now),
                },
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                _ => self.lost(now),
            }
        }
        heard
    }
}

/// What a running guest is listened to with, apart from its terminal.
#[derive(Default)]
pub(super) struct Ears {
    pub(super) notify: Option<Notify>,
    pub(super) machine: Option<Machine>,
}

impl Ears {
    pub(super) fn timer(&self) -> Option<Instant> {
        let notify = self.notify.as_ref().and_then(|notify| notify.paused_until);
        let machine = self.machine.as_ref().and_then(|machine| machine.next);
        notify.into_iter().chain(machine).min()
    }
}

impl Holder {
    /// Watches a guest's socket for datagrams.
    pub(super) fn listen_to(&mut self, id: u32) {
        let Some(run) = self.consoles.get(&id).and_then(|c| c.run.as_ref()) else { return };
        if let Some(notify) = &run.ears.notify {
            let token = Token::Notify(id, run.number);
            // Without it the guest is only not heard.
            let _ = epoll::add(&self.epoll, &notify.socket, token.data(), EventFlags::IN);
        }
        self.ears_tick(id, Instant::now());
    }

    /// Makes a guest's socket again if somebody has removed it.
    pub(super) fn hear_again(&mut self, id: u32) -> Result<()> {
        let Some(console) = self.consoles.get_mut(&id) else { return Ok(()) };
        let path = self.paths.notify_socket(&console.guest);
        let Some(run) = console.run.as_mut().filter(|_| !path.exists()) else { return Ok(()) };
        // Dropping the old one takes it out of epoll(7).
        run.ears.notify = Some(Notify::bind(&path)?);
        self.listen_to(id);
        Ok(())
    }

    pub(super) fn notify_event(&mut self, id: u32, number: u16, now: Instant) {
        loop {
            let Some(run) = self.consoles.get_mut(&id).and_then(|c| c.run.as_mut()) else { return };
            let Some(notify) = run.ears.notify.as_mut().filter(|_| run.number == number) else { return };
            let Some(mut heard) = notify.next(now) else { break };
            let (uml, nspawn) = (run.record.backend == "uml", run.record.backend == "nspawn");
            heard.retain(|said| match said {
                Heard::Ready | Heard::Beat | Heard::Status(_) => true,
                Heard::Leader(_) => nspawn,
                // A user-mode kernel speaks of itself here; nobody else may.
                _ => uml,
            });
            self.heard(id, heard, now);
        }
        let Some(run) = self.consoles.get_mut(&id).and_then(|c| c.run.as_mut()) else { return };
        if let Some(notify) = run.ears.notify.as_ref().filter(|notify| notify.paused_until.is_some()) {
            let token = Token::Notify(id, number);
            let _ = epoll::modify(&self.epoll, &notify.socket, token.data(), EventFlags::empty());
        }
    }

    pub(super) fn machine_event(&mut self, id: u32, number: u16, now: Instant) {
        let Some(run) = self.consoles.get_mut(&id).and_then(|c| c.run.as_mut()) else { return };
        let Some(machine) = run.ears.machine.as_mut().filter(|_| run.number == number) else { return };
        let heard = machine.read(now);
        self.heard(id, heard, now);
    }

    /// Does what is due: listens again to one that was too loud, connects to QEMU.
    pub(super) fn ears_tick(&mut self, id: u32, now: Instant) {
        let Some(run) = self.consoles.get_mut(&id).and_then(|c| c.run.as_mut()) else { return };
        let number = run.number;
        if let Some(notify) = run.ears.notify.as_mut()
            && notify.paused_until.is_some_and(|at| at <= now)
        {
            notify.paused_until = None;
            let token = Token::Notify(id, number);
            let _ = epoll::modify(&self.epoll, &notify.socket, token.data(), EventFlags::IN);
        }
        if let Some(machine) = run.ears.machine.as_mut()
            && machine.next.is_some_and(|at| at <= now)
        {
            machine.next = None;
            let token = Token::Machine(id, number);
            let watched = |machine: &mut Machine, epoll: &OwnedFd| -> Result<()> {
                machine.connect()?;
                let stream = machine.stream.as_ref().context("no connection")?;
                Ok(epoll::add(epoll, stream.as_fd(), token.data(), EventFlags::IN)?)
            };
            if watched(machine, &self.epoll).is_err() {
                machine.lost(now);
            }
        }
    }

    /// Acts on what was heard.
    pub(super) fn heard(&mut self, id: u32, heard: Vec<Heard>, now: Instant) {
        for said in heard {
            let Some(console) = self.consoles.get_mut(&id) else { return };
            let said_something = console.log.end() > 0;
            let Some(run) = console.run.as_mut() else { return };
            match said {
                Heard::Ready => {
                    run.watch.told_ready();
                    run.watch.beat(now);
                }
                Heard::Beat => run.watch.beat(now),
                Heard::Status(status) => {
                    if run.watch.told(status) {
                        self.write_ready(id);
                    }
                }
                Heard::Leader(pid) => run.leader = processes::open_child(pid, run.record.pid),
                // The first time it is the launch that is heard.
                Heard::KernelUp | Heard::Reset if said_something => self.rebooted(id),
                Heard::KernelUp | Heard::Reset => {}
                Heard::Panic(why) => {
                    let told = if why.is_empty() { String::new() } else { format!(": {why}") };
                    self.hint(id, Hint::Panic { why });
                    self.tell_readers(id, &format!("the guest's kernel panicked{told}"));
                }
                Heard::Shutdown => self.hint(id, Hint::Shutdown),
                Heard::Quit => self.hint(id, Hint::Quit),
            }
        }
        self.conclude(id);
    }

    /// Writes down what was heard of the end; a panic stays one, whatever the hypervisor makes of it.
    fn hint(&self, id: u32, hint: Hint) {
        let Some(console) = self.consoles.get(&id) else { return };
        let Some(run) = console.run.as_ref() else { return };
        let launched_at_ms = run.record.launched_at_ms;
        if matches!(EndHint::read(&self.paths, &console.guest, launched_at_ms), Some(Hint::Panic { .. })) {
            return;
        }
        if let Err(e) = (EndHint { launched_at_ms, hint }).write(&self.paths, &console.guest) {
            eprintln!("guest '{}': ignoring: {e:#}", console.guest);
        }
    }

    /// The guest starts again inside the same process: the next boot begins in its log, and its readiness anew.
    pub(super) fn rebooted(&mut self, id: u32) {
        let after = self.take_output_until(id, KERNEL_BANNER);
        let Some(console) = self.consoles.get_mut(&id) else { return };
        let place = super::recover::place(&self.paths, &console.guest);
        let Some(run) = console.run.as_mut() else { return };
        console.log.mark(Mark::Rebooted);
        console.log.begin_boot(run.record.pid, run.record.start_ticks);
        let boot = console.log.boot();
        // The patterns were understood once already.
        if let Ok(watch) = Watch::new(&place, &run.record, &console.settings, Moment::now(), None) {
            run.watch = watch;
        }
        run.settle_at = None;
        let guest = console.guest.clone();
        // A panic that led to this is over.
        let _ = Live.remove(&self.paths.end_hint(&guest));
        events::note(&self.paths, &guest, What::Rebooted { boot });
        self.write_ready(id);
        self.tell_readers(id, "guest rebooted");
        self.give_output(id, &after);
        self.conclude(id);
    }
}
