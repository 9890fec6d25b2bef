//! Other console holders, under the same load.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;

use crate::measure::{cpu, pss, talk};
use crate::support::{eventually, kill, terminal};
use crate::table::{median, millis};
use crate::{BYTES, SESSIONS};

/// How a holder is used. `DIR` stands for a directory of its own, `N` for a session's number, `SCRIPT` for what runs in it.
pub struct Peer {
    pub name: &'static str,
    start: &'static [&'static str],
    attach: &'static [&'static str],
    /// One process has all sessions, started by the first command.
    together: bool,
}

pub const ALL: &[Peer] = &[
    Peer {
        name: "dtach",
        start: &["dtach", "-n", "DIR/N", "-z", "sh", "-c", "SCRIPT"],
        attach: &["dtach", "-a", "DIR/N", "-r", "winch"],
        together: false,
    },
    Peer {
        name: "abduco",
        start: &["abduco", "-n", "DIR/N", "sh", "-c", "SCRIPT"],
        attach: &["abduco", "-a", "DIR/N"],
        together: false,
    },
    Peer {
        name: "tmux",
        start: &["tmux", "-S", "DIR/socket", "-f", "/dev/null", "new-session", "-d", "-s", "N", "SCRIPT"],
        attach: &["tmux", "-S", "DIR/socket", "attach", "-t", "N"],
        together: true,
    },
    Peer {
        name: "screen",
        start: &["screen", "-c", "/dev/null", "-S", "bench-N", "-d", "-m", "sh", "-c", "SCRIPT"],
        attach: &["screen", "-c", "/dev/null", "-x", "bench-N"],
        together: false,
    },
    Peer {
        name: "conserver",
        start: &[
            "conserver",
            "-C",
            "DIR/conserver.cf",
            "-P",
            "DIR/passwd",
            "-M",
            "127.0.0.1",
            "-p",
            "PORT",
            "-m",
            "5",
        ],
        attach: &["console", "-M", "127.0.0.1", "-p", "PORT", "-l", "bench", "-C", "/dev/null", "sN"],
        together: true,
    },
];

pub struct Measured {
    /// Seconds for all output.
    pub cpu: f64,
    /// kB, before anything was said.
    pub pss: f64,
    /// Milliseconds.
    pub first_byte: Option<f64>,
    /// kB that a client which never reads costs; `None` if it stops its guest.
    pub stuck: Option<f64>,
}

/// `None`, said loudly, if it is not installed.
pub fn measure(peer: &Peer) -> Option<Measured> {
    let paths = std::env::var_os("PATH")?;
    let mut dirs = std::env::split_paths(&paths).chain(["/usr/sbin".into()]);
    if !dirs.any(|dir| dir.join(peer.start[0]).is_file()) {
        eprintln!(
            "skipped: '{}' is not installed; scripts/setup --bench installs it where it can be had",
            peer.name
        );
        return None;
    }
    let mut site = Sessions::start(peer, BYTES / SESSIONS as u64);
    let idle = site.sum(pss);
    site.go();
    assert!(site.are_done(Duration::from_secs(60)), "{} does not end", peer.name);
    let used = site.sum(cpu);
    let first_byte = site.attach_times();
    drop(site);
    let mut site = Sessions::start(peer, BYTES / SESSIONS as u64);
    let clients: Vec<_> = (0..SESSIONS).map(|n| site.attach(n)).collect();
    // A client that is not there yet is no burden.
    for (_, screen) in &clients {
        let limit = Timespec { tv_sec: 2, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(screen, PollFlags::IN)], Some(&limit));
    }
    let before = site.sum(pss);
    site.go();
    let stuck = site.are_done(Duration::from_secs(10)).then(|| (site.sum(pss) - before) / SESSIONS as f64);
    for (mut client, _) in clients {
        let _ = client.kill();
        let _ = client.wait();
    }
    Some(Measured { cpu: used, pss: idle, first_byte, stuck })
}

struct Sessions<'a> {
    peer: &'a Peer,
    dir: tempfile::TempDir,
    port: String,
    /// In the foreground, for one that knows no other way.
    server: Option<Child>,
}

impl<'a> Sessions<'a> {
    fn start(peer: &'a Peer, bytes: u64) -> Self {
        let dir = tempfile::Builder::new().prefix("gg-bench-").tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        drop(listener);
        let mut site = Self { peer, dir, port, server: None };
        let script = |n: usize| {
            let at = site.dir.path().display();
            // The name of the directory marks the processes that are this peer's.
            format!(
                ": {at}; until [ -e {at}/go ]; do sleep 0.1; done; {}; touch {at}/done{n}; exec sleep 1000",
                talk(bytes)
            )
        };
        if peer.name == "conserver" {
            let mut config =
                String::from("config * { }\ndefault full { rw *; }\naccess * { trusted 127.0.0.1; }\n");
            for n in 0..SESSIONS {
                let (at, script) = (site.dir.path().display(), script(n));
                std::fs::write(site.dir.path().join(format!("{n}.sh")), script).unwrap();
                config.push_str(&format!(
                    "console s{n} {{ master localhost; type exec; exec sh {at}/{n}.sh; logfile {at}/{n}.log; rw *; }}\n"
                ));
            }
            std::fs::write(site.dir.path().join("conserver.cf"), config).unwrap();
            std::fs::write(site.dir.path().join("passwd"), "*any*:\n").unwrap();
            let mut command = site.command(peer.start, 0, "");
            command.stdout(Stdio::null()).stderr(Stdio::null());
            site.server = Some(command.spawn().unwrap());
            eventually("it listens", || {
                std::net::TcpStream::connect(format!("127.0.0.1:{}", site.port)).ok()
            });
        } else {
            for n in 0..SESSIONS {
                let script = script(n);
                assert!(site.command(peer.start, n, &script).status().unwrap().success());
            }
        }
        let want = if peer.together { 1 } else { SESSIONS };
        eventually("it runs", || (site.holders().len() >= want).then_some(()));
        site
    }

    fn command(&self, words: &[&str], n: usize, script: &str) -> Command {
        let at = self.dir.path().to_str().unwrap();
        let name = self.dir.path().file_name().unwrap().to_str().unwrap();
        let fill = |word: &&str| match *word {
            "SCRIPT" => script.to_owned(),
            "PORT" => self.port.clone(),
            "N" => format!("{n}"),
            "sN" => format!("s{n}"),
            "bench-N" => format!("{name}-{n}"),
            word => word.replace("DIR", at).replace("/N", &format!("/{n}")),
        };
        let words: Vec<String> = words.iter().map(fill).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).env_remove("TMUX").env("TERM", "xterm");
        command
    }

    /// Processes of the holder: of its name, and with our directory in their command line.
    fn holders(&self) -> Vec<u32> {
        let mark = self.dir.path().file_name().unwrap().to_str().unwrap();
        let of = |entry: std::fs::DirEntry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let line = String::from_utf8(std::fs::read(entry.path().join("cmdline")).ok()?).ok()?;
            let comm = std::fs::read_to_string(entry.path().join("comm")).ok()?.to_lowercase();
            let ours = line.contains(mark) && comm.starts_with(self.peer.name);
            (ours && !line.contains("attach") && !line.contains("-a\0") && !line.contains("-x\0"))
                .then_some(pid)
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect()
    }

    fn sum(&self, of: impl Fn(u32) -> f64) -> f64 {
        self.holders().into_iter().map(of).sum()
    }

    fn go(&mut self) {
        File::create(self.dir.path().join("go")).unwrap();
    }

    fn are_done(&self, limit: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < limit {
            if (0..SESSIONS).all(|n| self.dir.path().join(format!("done{n}")).exists()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// A client on a terminal that nobody reads.
    fn attach(&self, n: usize) -> (Child, File) {
        let (master, slave) = terminal(OpenptFlags::CLOEXEC);
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut command = self.command(self.peer.attach, n, "");
        let client = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        (client, master.into())
    }

    fn attach_times(&self) -> Option<f64> {
        let one = |_| {
            let began = Instant::now();
            let (mut client, mut screen) = self.attach(0);
            let limit = Timespec { tv_sec: 2, tv_nsec: 0 };
            let came = poll(&mut [PollFd::new(&screen, PollFlags::IN)], Some(&limit)).unwrap() == 1
                && screen.read(&mut [0; 64]).is_ok_and(|n| n > 0);
            let took = millis(began.elapsed());
            let _ = client.kill();
            let _ = client.wait();
            came.then_some(took)
        };
        let times: Vec<f64> = (0..5).filter_map(one).collect();
        (times.len() == 5).then(|| median(times))
    }
}

impl Drop for Sessions<'_> {
    fn drop(&mut self) {
        let mark = self.dir.path().to_str().unwrap().to_owned();
        for pid in self.holders() {
            kill(pid.cast_signed(), Signal::KILL);
        }
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
        // What ran in the sessions.
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if pid != std::process::id().cast_signed()
                && Path::new(&mark).exists()
                && contains(&line, mark.as_bytes())
            {
                let _ = Pid::from_raw(pid).map(|pid| rustix::process::kill_process(pid, Signal::KILL));
            }
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
