//! Two boxes: the near one, where the test is, and `gw`, a network namespace at the other end of a cable with a real sshd in it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use gridgate::host::Live;
use gridgate::host::net::{Net, Port, in_netns};
use gridgate::host::programs::{Program, Programs};
use gridgate::names::{IfName, MacAddr};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::support::{eventually, exe};

const NEAR: &str = "192.0.2.1/24";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// What is there is gone when it is dropped, and that is checked.
pub struct Lab {
    dir: PathBuf,
    netns: PathBuf,
    sshd: Child,
    /// The line that known_hosts needs.
    pub key_of_gateway: String,
}

/// Runs a test on a thread with namespaces of its own, the near box; does nothing, loudly, where there can be none.
pub fn private(test: impl FnOnce(&mut Lab) + Send) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: this test makes network namespaces, which needs root");
        return;
    }
    if ["ssh", "sshd", "ssh-keygen"].iter().any(|program| Live.find_program(program).is_none()) {
        eprintln!("skipped: there is no ssh, sshd or ssh-keygen");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let done = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Err(e) = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
                eprintln!("skipped: this machine gives no namespaces: {e}");
                return;
            }
            let mut lab = Lab::new(dir.path());
            test(&mut lab);
        });
        thread.join()
    });
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

/// A directory of the machine, empty and private from now on.
fn hide(dir: &str) {
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

impl Lab {
    fn new(dir: &Path) -> Self {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        // sshd writes down who logs in and needs a directory; the far gridgate is copied to the home directory.
        for place in ["/run", "/var/log", "/root"] {
            hide(place);
        }
        for place in ["/run/sshd", "/run/gridgate"] {
            fs::create_dir(place).unwrap();
        }
        let netns = dir.join("netns");
        Live.make_netns(&netns).unwrap();
        cable(&netns);
        for place in ["bin", "x"] {
            fs::create_dir(dir.join(place)).unwrap();
        }
        fs::set_permissions(dir.join("x"), PermissionsExt::from_mode(0o700)).unwrap();
        for key in ["id", "host"] {
            let make = Program::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]);
            Live.run(&make.arg(dir.join(key))).unwrap();
        }
        let public = fs::read_to_string(dir.join("host.pub")).unwrap();
        let sshd = sshd(dir, &netns);
        let mut lab =
            Self { dir: dir.to_owned(), netns, sshd, key_of_gateway: format!("{GATEWAY} {public}") };
        lab.trust(true);
        lab.configure("");
        let to = SocketAddr::from((GATEWAY, 22));
        eventually("sshd answers", || TcpStream::connect_timeout(&to, Duration::from_secs(1)).ok());
        lab
    }

    /// Puts the gateway's key where ssh looks for it, or takes it away.
    pub fn trust(&mut self, trusted: bool) {
        let text = if trusted { self.key_of_gateway.as_str() } else { "" };
        fs::write(self.dir.join("known_hosts"), text).unwrap();
    }

    /// The near user's ssh configuration; more lines for the gateway.
    pub fn configure(&self, more: &str) {
        let dir = self.dir.display();
        let text = format!(
            "Host gw\n HostName {GATEWAY}\n User root\n IdentityFile {dir}/id\n IdentitiesOnly yes\n UserKnownHostsFile {dir}/known_hosts\n \
             GlobalKnownHostsFile none\n StrictHostKeyChecking ask\n{more}\n"
        );
        fs::write(self.dir.join("config"), text).unwrap();
    }

    /// Makes the gateway have this very gridgate.
    pub fn install(&self) {
        let _ = fs::remove_file(self.dir.join("bin/gridgate"));
        symlink(exe(), self.dir.join("bin/gridgate")).unwrap();
    }

    /// Makes the gateway have a program that says this when it is asked for its version.
    pub fn install_saying(&self, version: &str) {
        self.install_script("gridgate", &format!("echo '{version}'"));
    }

    /// Makes the gateway have a program of that name, before all others.
    pub fn install_script(&self, name: &str, script: &str) {
        let text = self.dir.join("script");
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&text, PermissionsExt::from_mode(0o755)).unwrap();
        // By another process: what this one has open for writing, and with it a child that another test forks, cannot be run.
        Live.run(&Program::new("cp").arg(text).arg(self.dir.join("bin").join(name))).unwrap();
    }

    /// A file of the near user.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A site without guests, where `enter` runs anything.
    pub fn site(&self) -> String {
        let site = self.dir.join("site");
        fs::create_dir_all(site.join("guests")).unwrap();
        let text =
            "name = \"far\"\nguests = []\n[networks.lan]\nmode = \"isolated\"\nsubnet = \"10.77.0.0/24\"\n";
        fs::write(site.join("site.toml"), text).unwrap();
        site.to_str().unwrap().to_owned()
    }

    /// `gridgate --host gw` with more words.
    pub fn gridgate(&self, words: &[&str]) -> Command {
        let mut command = Command::new(exe());
        command.env("GRIDGATE_SSH", format!("ssh -F {}", self.dir.join("config").display()));
        command.env("XDG_RUNTIME_DIR", self.dir.join("x")).env_remove("SSH_AUTH_SOCK");
        command.env("GRIDGATE_SITE", "/not/there").env("GRIDGATE_STATE", "/not/there");
        command.args(["--host", "gw"]).args(words);
        command
    }

    /// Its end, with that on its standard input.
    pub fn run(&self, words: &[&str], input: &[u8]) -> Ran {
        let mut command = self.gridgate(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // No terminal to ask on, wherever the test was started.
        let mut child = command.process_group(0).spawn().unwrap();
        let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let out = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Ran(out)
    }

    /// `enter` in a site of no guests: any program, there.
    pub fn enter(&self, command: &[&str]) -> Vec<String> {
        let site = self.site();
        ["--site", &site, "enter", "--"].iter().chain(command).map(|word| (*word).to_owned()).collect()
    }

    /// Command lines of what runs on the gateway, but for the sshd that listens.
    pub fn runs_there(&self) -> Vec<String> {
        self.processes_there().into_iter().map(|(_, line)| line).collect()
    }

    fn processes_there(&self) -> Vec<(u32, String)> {
        let there = fs::metadata(&self.netns).unwrap().ino();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let Ok(meta) = fs::metadata(entry.path().join("ns/net")) else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            // A line of nothing is that of a zombie.
            if std::os::unix::fs::MetadataExt::ino(&meta) == there
                && pid != self.sshd.id()
                && !line.is_empty()
            {
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found
    }

    /// Waits until nothing runs there any more.
    pub fn is_quiet(&self) {
        eventually("nothing runs on the gateway", || self.runs_there().is_empty().then_some(()));
    }

    /// How often somebody has proved there who they are.
    pub fn logins(&self) -> usize {
        fs::read_to_string(self.dir.join("sshd.log")).unwrap().matches("Accepted publickey").count()
    }

    /// Pulls the cable.
    pub fn cut(&self) {
        Live.set_down(None, &name("far0")).unwrap();
    }

    /// The copies of gridgate in the gateway's home directory.
    pub fn copies(&self) -> Vec<String> {
        let entries = fs::read_dir("/root/.cache/gridgate").into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    /// What the near end keeps for its connections.
    pub fn kept_here(&self) -> Vec<PathBuf> {
        fs::read_dir(self.dir.join("x")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

fn cable(netns: &Path) {
    let scaffold = name("scaffold0");
    Live.make_bridge(None, &scaffold, "test").unwrap();
    let port = Port { name: &name("far0"), bridge: &scaffold, alias: "test" };
    let ns = Live.open_netns(netns).unwrap();
    Live.make_veth(None, port, ns.as_fd(), &name("eth0"), MacAddr([2, 0, 0, 0, 0, 9])).unwrap();
    Live.set_master(None, port.name, None).unwrap();
    Live.remove_link(None, &scaffold).unwrap();
    Live.add_address(None, port.name, NEAR.parse().unwrap()).unwrap();
    Live.set_up(None, port.name).unwrap();
    Live.set_up(Some(netns), &name("eth0")).unwrap();
    Live.add_address(Some(netns), &name("eth0"), format!("{GATEWAY}/24").parse().unwrap()).unwrap();
}

fn sshd(dir: &Path, netns: &Path) -> Child {
    let text = format!(
        "Port 22\nListenAddress {GATEWAY}\nHostKey {0}/host\nAuthorizedKeysFile {0}/id.pub\nPermitRootLogin yes\nStrictModes no\n\
         UsePAM no\nPidFile none\nPrintMotd no\nPrintLastLog no\nUseDNS no\nLogLevel INFO\nSetEnv PATH={0}/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
        dir.display()
    );
    let config = dir.join("sshd_config");
    fs::write(&config, text).unwrap();
    let sshd = Live.find_program("sshd").unwrap();
    let mut command = Command::new(sshd);
    command.arg("-D").arg("-f").arg(&config).arg("-E").arg(dir.join("sshd.log"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    in_netns(Some(netns), || Ok(command.spawn()?)).unwrap()
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
        // What a cut cable has left there, and what a failed test has: nobody else is in that namespace.
        for (pid, _) in self.processes_there() {
            crate::support::kill(pid.cast_signed(), rustix::process::Signal::KILL);
        }
        let _ = nix::mount::umount2(&self.netns, nix::mount::MntFlags::MNT_DETACH);
        if !std::thread::panicking() {
            assert_eq!(self.kept_here(), [""; 0].map(PathBuf::from), "left on the near box");
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran(pub Output);

impl Ran {
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.0.status.code(), Some(code), "{}", self.shown());
        self
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.err().contains(text), "it does not say '{text}': {}", self.shown());
        self
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    fn shown(&self) -> String {
        format!("{:?}\n--- out\n{}\n--- err\n{}", self.0.status, self.out(), self.err())
    }
}

/// A user at a terminal of 100 columns and 40 rows, which is the controlling one of what runs there.
pub struct User {
    screen: fs::File,
    terminal: std::os::fd::OwnedFd,
    pub child: Child,
    seen: Vec<u8>,
}

impl User {
    #[expect(unsafe_code, reason = "a controlling terminal can only be taken between fork and exec")]
    pub fn new(mut command: Command) -> Self {
        let (master, slave) = crate::support::terminal(rustix::pty::OpenptFlags::CLOEXEC);
        let size = rustix::termios::Winsize { ws_col: 100, ws_row: 40, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: both calls are async-signal-safe, and nothing is allocated.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                Ok(rustix::process::ioctl_tiocsctty(std::io::stdin())?)
            });
        }
        let child = command.spawn().unwrap();
        Self { screen: master.into(), terminal: slave, child, seen: Vec::new() }
    }

    pub fn types(&mut self, bytes: &[u8]) {
        self.screen.write_all(bytes).unwrap();
    }

    #[track_caller]
    pub fn sees(&mut self, text: &str) {
        self.sees_one_of(&[text]);
    }

    /// Which of them it is.
    #[track_caller]
    pub fn sees_one_of(&mut self, texts: &[&str]) -> usize {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let limit = Timespec { tv_sec: i64::try_from(crate::support::LIMIT.as_secs()).unwrap(), tv_nsec: 0 };
        loop {
            let is_there = |text: &&str| self.seen.windows(text.len()).any(|w| w == text.as_bytes());
            if let Some(which) = texts.iter().position(is_there) {
                return which;
            }
            let ready = poll(&mut [PollFd::new(&self.screen, PollFlags::IN)], Some(&limit)).unwrap();
            assert_eq!(ready, 1, "never saw {texts:?} but {}", self.seen.escape_ascii());
            let mut buffer = [0; 4096];
            let n = self.screen.read(&mut buffer).unwrap();
            self.seen.extend_from_slice(&buffer[..n]);
        }
    }

    /// Forgets what was seen.
    pub fn looks_away(&mut self) {
        self.seen.clear();
    }

    pub fn resizes(&self, columns: u16, rows: u16) {
        let size = rustix::termios::Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.screen, size).unwrap();
    }

    pub fn is_raw(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.terminal).unwrap().local_modes;
        !modes.contains(rustix::termios::LocalModes::ICANON)
    }

    pub fn ends(&mut self) -> Option<i32> {
        let status = eventually("it ends", || self.child.try_wait().unwrap());
        status.code()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
