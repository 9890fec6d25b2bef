//! A machine with systemd: a clone of the golden image, with gridgate installed, booted as a container.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::installed::{
    ENVIRONMENT, Installed, Ran, clone_disk, install, prepared, succeeds, with_own_mounts,
};

/// Longer than anything here takes on a busy host.
const LIMIT: Duration = Duration::from_secs(300);
/// Room for two guests' disks.
const DISK_BYTES: u64 = 4 << 30;
/// Each runs guests; side by side they would only wait for each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Network, disks and consoles of guests, which a container is not given by itself.
const OPEN: [&str; 7] = [
    "--private-network",
    "--bind=/dev/net/tun",
    "--bind=/dev/loop-control",
    "--capability=all",
    "--system-call-filter=@mount @swap bpf add_key keyctl pidfd_getfd",
    "--resolv-conf=off",
    "--timezone=off",
];

/// See the module.
pub(crate) struct Machine {
    dir: PathBuf,
    prepared: PathBuf,
    container: Option<Child>,
    leader: Option<Pid>,
    /// Ends the machine if the test is killed.
    watch: Option<Child>,
}

/// What the machine itself runs; its guests are always Debian 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// systemd 252.
    Debian12,
    /// systemd 257.
    Debian13,
}

impl Release {
    fn image(self) -> &'static str {
        match self {
            Self::Debian12 => "debian-12",
            Self::Debian13 => "debian-13",
        }
    }
}

/// Runs a test with a machine that is installed and not booted, in a mount namespace of its own, so that nothing can stay
/// mounted after it; says loudly why, where that cannot be.
pub(crate) fn with_machine(release: Release, test: impl FnOnce(&mut Machine) + Send) {
    let prepared = match prepared(&["systemd-nspawn", "nsenter", "setpriv", "make", "patchelf"]) {
        Ok(prepared) => prepared,
        Err(why) => {
            eprintln!("skipped: a machine with systemd {why}");
            return;
        }
    };
    let golden = prepared.join("images").join(release.image()).join("disk.ext4");
    if !golden.exists() {
        eprintln!(
            "skipped: a machine with systemd needs '{}' (made by: scripts/test-image)",
            golden.display()
        );
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    with_own_mounts(|| {
        // systemd-nspawn leaves directories there.
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let mut machine = Machine::install(scratch.path(), &prepared, &golden.canonicalize().unwrap());
        test(&mut machine);
    });
}

impl Machine {
    fn install(dir: &Path, prepared: &Path, golden: &Path) -> Self {
        let (dir_kept, prepared) = (dir.to_owned(), prepared.to_owned());
        let machine = Self { dir: dir_kept, prepared, container: None, leader: None, watch: None };
        let (disk, tree) = (dir.join("disk"), machine.tree());
        clone_disk(golden, &disk, DISK_BYTES);
        std::fs::create_dir(&tree).unwrap();
        succeeds(Command::new("mount").args(["-o", "loop"]).args([&disk, &tree]));
        install(&tree);
        machine.install_kernel();
        succeeds(Command::new(env!("CARGO_BIN_EXE_gridgate")).arg("init").arg(tree.join("etc/gridgate")));
        // The golden image has no host keys, and nobody logs in here.
        std::fs::remove_file(tree.join("etc/systemd/system/multi-user.target.wants/ssh.service")).unwrap();
        machine
    }

    /// A copy, as `scripts/fetch-uml` would have made it there: a kernel that brought its own libc knows by a path where that
    /// is, and the units see neither /tmp nor /home, where that may be outside.
    fn install_kernel(&self) {
        const INSIDE: &str = "/var/lib/gridgate/kernels/uml";
        let kernels = self.tree().join(&INSIDE[1..]);
        std::fs::create_dir_all(kernels.parent().unwrap()).unwrap();
        succeeds(Command::new("cp").arg("-r").args([&self.prepared.join("kernels/uml"), &kernels]));
        if kernels.join("ld-linux-x86-64.so.2").exists() {
            let mut patch = Command::new("patchelf");
            patch.args([
                "--set-interpreter",
                &format!("{INSIDE}/ld-linux-x86-64.so.2"),
                "--set-rpath",
                INSIDE,
            ]);
            succeeds(patch.arg(kernels.join("linux")));
        }
    }

    /// The machine's filesystem, seen from outside.
    pub(crate) fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// Changes a file of the site.
    pub(crate) fn change(&self, file: &str, from: &str, to: &str) {
        let path = self.tree().join("etc/gridgate").join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "'{from}' in {text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    }

    /// Two guests, the second after the first.
    pub(crate) fn two_guests(&self) {
        let site = self.tree().join("etc/gridgate");
        for other in ["ui", "wn"] {
            std::fs::remove_file(site.join(format!("guests/{other}.toml"))).unwrap();
        }
        let change = |file, from, to| self.change(file, from, to);
        change("site.toml", "guests = [\"ce\", \"se\", \"ui\", \"wn\"]", "guests = [\"ce\", \"se\"]");
        change("site.toml", "backend = \"auto\"", "backend = \"uml\"");
        change("guests/se.toml", "role = \"se\"", "role = \"se\"\nafter = [\"ce\"]");
    }

    /// Boots, and returns when its systemd has reached its default target.
    pub(crate) fn boot(&mut self) {
        let socket = self.dir.join("notify");
        let _ = std::fs::remove_file(&socket);
        let notices = UnixDatagram::bind(&socket).unwrap();
        notices.set_read_timeout(Some(LIMIT)).unwrap();
        let log = std::fs::File::create(self.dir.join("console.log")).unwrap();
        let images = self.prepared.join("images").canonicalize().unwrap();
        // It ends with this thread; the machine that it has begun does not.
        let mut nspawn = Command::new("setpriv");
        nspawn.args(["--pdeathsig", "KILL", "systemd-nspawn", "--boot", "--quiet", "--console=pipe"]);
        nspawn.args(["--register=no", "--keep-unit", "--notify-ready=yes"]).args(OPEN);
        nspawn.arg(format!("--machine=gridgate-test-{}", std::process::id()));
        nspawn.arg(format!("--directory={}", self.tree().display()));
        nspawn.arg(format!("--bind-ro={}:/var/lib/gridgate/images", images.display()));
        nspawn.env("NOTIFY_SOCKET", &socket).stdin(Stdio::null());
        nspawn.stdout(log.try_clone().unwrap()).stderr(log);
        self.container = Some(nspawn.spawn().unwrap());
        let mut buffer = [0; 4096];
        loop {
            let Ok(n) = notices.recv(&mut buffer) else {
                let log = std::fs::read_to_string(self.dir.join("console.log")).unwrap();
                panic!("the machine did not come up:\n{log}");
            };
            let notice = String::from_utf8_lossy(&buffer[..n]).into_owned();
            let value = |key: &str| notice.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
            if let Some(pid) = value("X_NSPAWN_LEADER_PID=") {
                self.leader = Some(Pid::from_raw(pid.parse().unwrap()));
                self.watch = Some(watch(&pid));
            }
            if value("READY=1").is_some() {
                return;
            }
        }
    }

    /// Shuts the machine down as its power button would.
    pub(crate) fn power_off(&mut self) {
        let mut container = self.container.take().unwrap();
        let _ = self.run("systemctl poweroff");
        // Its number may soon be another process's.
        self.watch_no_more();
        let deadline = Instant::now() + LIMIT;
        while container.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                self.container = Some(container);
                panic!("the machine does not shut down:\n{}", self.evidence());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.leader = None;
    }

    fn watch_no_more(&mut self) {
        if let Some(mut watch) = self.watch.take() {
            let _ = watch.kill();
            let _ = watch.wait();
        }
    }
}

/// Kills a process when this one is gone, also if it was killed: systemd-nspawn that is killed leaves its machine running. In a
/// session of its own, since what kills a test may kill its whole group.
fn watch(pid: &str) -> Child {
    let mut watch = Command::new("setsid");
    watch.args(["sh", "-c", "read end; kill -KILL \"$0\"", pid]);
    watch.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

impl Installed for Machine {
    const LIMIT: Duration = LIMIT;

    fn run(&self, command: &str) -> Ran {
        let leader = self.leader.unwrap().to_string();
        let mut enter = Command::new("timeout");
        enter.args(["--kill-after=1", &LIMIT.as_secs().to_string(), "nsenter", "--target", &leader, "--all"]);
        enter.args(["env", "-i"]).args(ENVIRONMENT).args(["sh", "-c", command]);
        let output = enter.stdin(Stdio::null()).output().unwrap();
        Ran {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.watch_no_more();
        if let Some(mut container) = self.container.take() {
            // All processes of a PID namespace go with its first one.
            if let Some(leader) = self.leader {
                let _ = kill(leader, Signal::SIGKILL);
            }
            let _ = container.kill();
            let _ = container.wait();
        }
        let _ = umount(&self.tree());
    }
}
