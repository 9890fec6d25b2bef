//! A site of the test's own: state, run directory, holder, and guests that are plain programs on ptys.
#![allow(dead_code, reason = "each test file uses the part that it needs")]
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

pub mod take_over;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gridgate::console::client;
use gridgate::console::protocol::{
    Answer, ConsoleState, Frames, Greeting, Kind, Launch, Mode, Position, Request, Settings, frame,
};
use gridgate::console::record::RunRecord;
use gridgate::names::GuestName;
use gridgate::paths::Paths;
use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Longer than anything here takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(300);

pub fn exe() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_gridgate"))
}

pub fn guest(name: &str) -> GuestName {
    name.parse().unwrap()
}

/// Calls until it gives something; the events that are waited for here have no descriptor.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub struct Site {
    pub paths: Paths,
    pub holder: Option<Child>,
    guests: Vec<Child>,
    _state: tempfile::TempDir,
}

/// A guest that runs: a program on the slave of a pty.
pub struct Guest {
    pub name: GuestName,
    pub pid: i32,
}

impl Site {
    /// A site with a running holder; `None` (said loudly) where it cannot be.
    pub fn new() -> Option<Self> {
        let mut site = Self::without_holder()?;
        site.start_holder();
        Some(site)
    }

    pub fn without_holder() -> Option<Self> {
        let state = tempfile::tempdir().unwrap();
        let paths = Paths::new(state.path(), state.path());
        if std::fs::create_dir_all(&paths.run).is_err() {
            eprintln!("skipped: this test needs to write to /run/gridgate");
            return None;
        }
        Some(Self { paths, holder: None, guests: Vec::new(), _state: state })
    }

    pub fn start_holder(&mut self) {
        let mut command = Command::new(exe());
        command.stdin(Stdio::null());
        self.start_holder_as(command);
    }

    /// By a command that is to be given the holder's own arguments.
    pub fn start_holder_as(&mut self, mut command: Command) {
        command.arg("--site").arg(&self.paths.site).arg("--state").arg(&self.paths.state).arg("hold");
        let mut holder = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        self.holder = Some(holder);
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill_holder(&mut self) {
        let mut holder = self.holder.take().unwrap();
        holder.kill().unwrap();
        holder.wait().unwrap();
    }

    pub fn holder_pid(&self) -> u32 {
        self.holder.as_ref().unwrap().id()
    }

    /// Starts a guest as a service manager would: the launcher has its console adopted and becomes `sh -c SCRIPT`.
    pub fn guest(&mut self, name: &str, script: &str, settings: Settings) -> Guest {
        let name = guest(name);
        let launch = self.launch(&name, script, "uml", Some(&settings));
        let mut command = Command::new(&launch.argv[0]);
        command.args(&launch.argv[1..]).envs(&launch.env);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pid = child.id().cast_signed();
        self.guests.push(child);
        eventually("the guest's console is adopted", || self.state(&name).filter(|s| s.pid == pid));
        Guest { name, pid }
    }

    /// How the launcher of a guest is started: this test program, told by its environment to be one ([`launcher`]).
    pub fn launch(
        &self,
        name: &GuestName,
        script: &str,
        backend: &str,
        settings: Option<&Settings>,
    ) -> Launch {
        let own = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
        let argv = [&own, "--exact", "launcher", "--nocapture", "--quiet"].map(str::to_owned).to_vec();
        let mut env = BTreeMap::from([
            ("LAUNCH_STATE", self.paths.state.to_str().unwrap().to_owned()),
            ("LAUNCH_GUEST", name.to_string()),
            ("LAUNCH_SCRIPT", script.to_owned()),
            ("LAUNCH_BACKEND", backend.to_owned()),
        ]);
        if let Some(settings) = settings {
            env.insert("LAUNCH_SETTINGS", serde_json::to_string(settings).unwrap());
        }
        let env = env.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        Launch { argv, env, log: self.paths.guest(name).join("launch.log") }
    }

    pub fn spawn(
        &self,
        name: &GuestName,
        script: &str,
        backend: &str,
        settings: Settings,
    ) -> anyhow::Result<()> {
        client::spawn(&self.paths, name, self.launch(name, script, backend, None), settings, LIMIT)
    }

    /// Waits for a guest that this test started by [`Site::guest`], so that it does not stay a zombie.
    pub fn reap(&mut self, guest: &Guest) {
        let child = self.guests.iter_mut().find(|c| c.id().cast_signed() == guest.pid).unwrap();
        child.wait().unwrap();
    }

    pub fn state(&self, name: &GuestName) -> Option<ConsoleState> {
        client::list(&self.paths).unwrap().into_iter().find(|c| c.guest == *name)
    }

    pub fn attach(&self, name: &GuestName, mode: Mode, take: bool, from: Option<Position>) -> Client {
        let mut stream = UnixStream::connect(self.paths.holder_socket()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let who = format!("{mode:?}");
        let request =
            Request::Attach { guest: name.clone(), mode, take, who, origin: None, from, tail: None };
        let mut line = serde_json::to_vec(&request).unwrap();
        line.push(b'\n');
        stream.write_all(&line).unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            answer.push(byte[0]);
        }
        let greeting = match serde_json::from_slice(&answer).unwrap() {
            Answer::<Greeting>::Ok(greeting) => greeting,
            Answer::Error(why) => panic!("attach was refused: {why}"),
        };
        Client { stream, frames: Frames::default(), greeting, seen: Seen::default() }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Guests that the holder started end with their own records; no other process is touched.
        for console in client::list(&self.paths).unwrap_or_default() {
            let record = RunRecord::read(&self.paths, &console.guest).ok().flatten();
            if let Some(record) = record.filter(RunRecord::is_alive) {
                let _ = client::stopping(&self.paths, &console.guest);
                kill(record.pid, Signal::KILL);
            }
        }
        for child in self.holder.iter_mut().chain(&mut self.guests) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.paths.run);
    }
}

pub fn kill(pid: i32, signal: Signal) {
    let _ = rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal);
}

/// In a process that was started by [`Site::launch`]: opens a pty, has it adopted, and becomes the script. Elsewhere nothing.
pub fn launcher() {
    let Some(state) = std::env::var_os("LAUNCH_STATE").map(PathBuf::from) else { return };
    let variable = |name: &str| std::env::var(name).unwrap();
    let (script, name) = (variable("LAUNCH_SCRIPT"), guest(&variable("LAUNCH_GUEST")));
    if script == "fail" {
        eprintln!("no such kernel\nuse another");
        std::process::exit(3);
    }
    let paths = Paths::new(&state, &state);
    let settings = std::env::var("LAUNCH_SETTINGS").ok().map(|json| serde_json::from_str(&json).unwrap());
    let (master, slave) = pty();
    let record = RunRecord::of_this_process(&variable("LAUNCH_BACKEND"), master.as_raw_fd(), None).unwrap();
    record.write(&paths, &name).unwrap();
    client::adopt(&paths, &name, settings, master.as_fd()).unwrap();
    let (out, err) = (slave.try_clone().unwrap(), slave.try_clone().unwrap());
    panic!("{}", Command::new("sh").args(["-c", &script]).stdin(slave).stdout(out).stderr(err).exec());
}

/// A pty pair, the slave raw; the master is handed on through exec, as a launcher must.
pub fn pty() -> (OwnedFd, OwnedFd) {
    let (master, slave) = terminal(OpenptFlags::empty());
    let mut raw = rustix::termios::tcgetattr(&slave).unwrap();
    raw.make_raw();
    rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &raw).unwrap();
    (master, slave)
}

/// A pty pair as a user's terminal has it.
pub fn terminal(flags: OpenptFlags) -> (OwnedFd, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap();
    let path = Path::new(path.to_str().unwrap());
    let slave = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    (master, slave.into())
}

/// What a client was sent.
#[derive(Default)]
pub struct Seen {
    pub replay: Vec<u8>,
    pub live: Vec<u8>,
    pub notices: Vec<String>,
    pub positions: Vec<Position>,
    pub modes: Vec<Mode>,
    pub exit: Option<gridgate::console::record::ExitRecord>,
    pub closed: bool,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let output = self.output();
        let end = output[output.len().saturating_sub(200)..].escape_ascii();
        write!(f, "{} bytes that end in \"{end}\", notices {:?}", output.len(), self.notices)
    }
}

impl Seen {
    pub fn output(&self) -> Vec<u8> {
        [self.replay.as_slice(), &self.live].concat()
    }
}

/// A client that speaks the protocol itself.
pub struct Client {
    pub stream: UnixStream,
    frames: Frames,
    pub greeting: Greeting,
    pub seen: Seen,
}

impl Client {
    pub fn send(&mut self, kind: Kind, payload: &[u8]) {
        self.stream.write_all(&frame(kind, payload)).unwrap();
    }

    pub fn read_some(&mut self) {
        let mut buffer = [0; 65536];
        let n = self.stream.read(&mut buffer).unwrap_or_else(|e| panic!("{e}; seen so far: {:?}", self.seen));
        self.seen.closed |= n == 0;
        let seen = &mut self.seen;
        let take = |kind, payload: &[u8]| match kind {
            Kind::Replay => seen.replay.extend_from_slice(payload),
            Kind::Live => seen.live.extend_from_slice(payload),
            Kind::Notice => seen.notices.push(String::from_utf8(payload.to_vec()).unwrap()),
            Kind::Position => seen.positions.push(serde_json::from_slice(payload).unwrap()),
            Kind::Mode => seen.modes.push(serde_json::from_slice(payload).unwrap()),
            Kind::Exit => seen.exit = Some(serde_json::from_slice(payload).unwrap()),
            Kind::Input | Kind::Resize | Kind::Detach => panic!("not for a client"),
        };
        self.frames.push(&buffer[..n], take).unwrap();
    }

    pub fn read_until(&mut self, mut enough: impl FnMut(&Seen) -> bool) -> &Seen {
        while !enough(&self.seen) {
            assert!(!self.seen.closed, "closed too early: {:?}", self.seen);
            self.read_some();
        }
        &self.seen
    }
}
