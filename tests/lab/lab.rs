//! A whole machine: Debian's own kernel and systemd in QEMU, and gridgate installed in it. A test reads as configure,
//! boot, tell, assert:
//!
//! ```text
//! let Some(mut lab) = Lab::configure("name", |machine| machine.file("etc/gridgate/site.toml", SITE)) else { return };
//! lab.boot();
//! lab.tell("gridgate up");
//! lab.power_cut();
//! lab.boot();
//! assert_eq!(lab.status("ce"), RUNNING);
//! lab.shut_down();
//! lab.look(|tree| ...);
//! ```
//!
//! Its disks are layers over those that `scripts/lab-image` made. A layer keeps in QEMU's memory where a block that was
//! written for the first time lies, until the machine flushes: with QEMU killed, what was not flushed is lost, as it is in
//! a disk's own cache. Its network leads nowhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gridgate::facts::backends::backends;
use gridgate::host::Live;
use gridgate::paths::Paths;

use crate::agent::Agent;
use crate::installed::{Installed, Ran, clone_disk, install, succeeds, with_own_mounts};

/// Longer than anything takes there on a busy host: emulated, all is ten times slower.
pub(crate) const LIMIT: Duration = Duration::from_secs(1200);
/// As `tests/lab/images/lab.toml` has it.
const ROOT_BYTES: u64 = 2 << 30;
/// What tells why it went wrong is near the end.
const TAIL_LINES: usize = 60;

/// Left out of the processor: a fifth level of page tables and virtualisation only cost time. A fast console for what the
/// kernel says is not needed, since little is said.
pub(crate) const MACHINE: [&str; 14] = [
    "-nodefaults",
    "-no-reboot",
    "-display",
    "none",
    "-cpu",
    "max,la57=off,svm=off",
    "-smp",
    "2",
    "-m",
    "2048",
    "-device",
    "virtio-rng-pci",
    "-device",
    "virtio-serial-pci",
];
/// Nobody attacks the machine; without the kernel's defences it boots in half the time.
const KERNEL_ARGS: &str =
    "root=/dev/vda rw console=ttyS0 panic=-1 mitigations=off init_on_alloc=0 systemd.show_status=1";

/// One machine at a time: each wants all of the host.
pub(crate) static TURN: Mutex<()> = Mutex::new(());

/// See the module.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
    made: PathBuf,
    console: PathBuf,
    keeps: bool,
    qemu: Option<Child>,
    agent: Option<Agent>,
    _turn: MutexGuard<'static, ()>,
}

/// The machine before it is booted: its filesystem, with gridgate in it.
pub(crate) struct Setup<'a> {
    tree: &'a Path,
}

impl Setup<'_> {
    /// Writes a file, by its path from the root; its directory is made.
    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Lab {
    /// A machine that is installed and set up, but not booted; `None`, said loudly, where there can be none. One at a time:
    /// it wants all of the host. What it is made of is in `$GRIDGATE_LAB`; its console is kept there as `NAME.console`.
    pub(crate) fn configure(name: &str, set_up: impl FnOnce(&Setup<'_>) + Send) -> Option<Self> {
        let Some(made) = std::env::var_os("GRIDGATE_LAB").map(PathBuf::from) else {
            eprintln!("skipped: a whole machine takes minutes; make test-lab does it");
            return None;
        };
        let needed = [kernel(&made), made.join("guests.xfs")];
        if let Some(missing) = needed.iter().find(|path| !path.exists()) {
            eprintln!("skipped: a whole machine needs '{}' (made by: scripts/lab-image)", missing.display());
            return None;
        }
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: a whole machine needs root, to be installed");
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let console = made.join(format!("{name}.console"));
        fs::write(&console, "").unwrap();
        let root = dir.path().join("root");
        clone_disk(&made.join("images/lab/disk.ext4"), &root, ROOT_BYTES);
        with_own_mounts(|| {
            let tree = mounted(dir.path(), &root, "");
            install(&tree);
            set_up(&Setup { tree: &tree });
            succeeds(Command::new("umount").arg(tree));
        });
        layer(&root, &dir.path().join("vda"));
        layer(&made.join("guests.xfs"), &dir.path().join("vdb"));
        Some(Self { dir, made, console, keeps: true, qemu: None, agent: None, _turn: turn })
    }

    /// Its disks need not outlive a power cut, and are as fast as the host's memory.
    pub(crate) fn without_power_cuts(mut self) -> Self {
        self.keeps = false;
        self
    }

    /// Switches it on, and returns when its systemd has reached its default target.
    pub(crate) fn boot(&mut self) {
        assert!(self.qemu.is_none(), "the machine is on already");
        let (socket, log) = (self.dir.path().join("agent"), self.dir.path().join("qemu.log"));
        let _ = fs::remove_file(&socket);
        // It ends with this thread.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-machine"]);
        qemu.arg(format!("q35,accel={}", accelerator(&self.made)));
        qemu.args(MACHINE).args(["-append", KERNEL_ARGS]);
        qemu.arg("-kernel")
            .arg(kernel(&self.made))
            .arg("-initrd")
            .arg(self.made.join("images/lab/initrd.img"));
        for disk in ["vda", "vdb"] {
            let disk = self.dir.path().join(disk);
            qemu.arg("-drive");
            let cache = if self.keeps { "writeback" } else { "unsafe" };
            let shape = "format=qcow2,if=virtio,cache-clean-interval=0";
            qemu.arg(format!("file={},{shape},cache={cache}", disk.display()));
        }
        qemu.arg("-chardev").arg(format!("file,id=console,path={},append=on", self.console.display()));
        qemu.args(["-serial", "chardev:console"]);
        qemu.arg("-chardev").arg(format!("socket,id=agent,path={},server=on,wait=off", socket.display()));
        qemu.args(["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]);
        qemu.args(["-netdev", "user,id=uplink,restrict=on", "-device", "virtio-net-pci,netdev=uplink"]);
        let said = fs::File::create(&log).unwrap();
        let mut qemu =
            qemu.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
        let met = Agent::meet(&socket, LIMIT, || qemu.try_wait().unwrap().is_none());
        self.qemu = Some(qemu);
        match met {
            Ok(agent) => self.agent = Some(agent),
            Err(why) => {
                panic!(
                    "the machine did not come up: {why}\n{}\n{}",
                    fs::read_to_string(log).unwrap(),
                    self.tail()
                )
            }
        }
        self.eventually("its default target", || {
            (self.show("default.target", "ActiveState") == "active").then_some(())
        });
    }

    /// Pulls its plug.
    pub(crate) fn power_cut(&mut self) {
        let mut qemu = self.qemu.take().unwrap();
        qemu.kill().unwrap();
        qemu.wait().unwrap();
        self.agent = None;
    }

    /// Shuts it down as its power button would, and returns when it is off.
    pub(crate) fn shut_down(&mut self) {
        // It may be off before anybody could ask how the command ended.
        let agent = self.agent.as_ref().expect("the machine is off");
        agent.start("systemctl poweroff", LIMIT).unwrap_or_else(|why| panic!("{why}\n{}", self.tail()));
        let deadline = Instant::now() + LIMIT;
        let qemu = self.qemu.as_mut().unwrap();
        while qemu.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the machine does not shut down:\n{}", tail(&self.console));
            std::thread::sleep(Duration::from_millis(50));
        }
        (self.qemu, self.agent) = (None, None);
    }

    /// Shows the filesystem of a machine that is off, after checking that what it is made of was left in order.
    pub(crate) fn look<T: Send>(&self, look: impl FnOnce(&Path) -> T + Send) -> T {
        assert!(self.qemu.is_none(), "the machine is on");
        let dir = self.dir.path();
        let [root, guests] = ["vda", "vdb"].map(|layered| {
            let flat = dir.join(format!("{layered}.raw"));
            succeeds(
                Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(dir.join(layered)).arg(&flat),
            );
            flat
        });
        succeeds(Command::new("e2fsck").args(["-f", "-n"]).arg(&root));
        succeeds(Command::new("xfs_repair").args(["-n"]).arg(&guests));
        with_own_mounts(|| {
            let tree = mounted(dir, &root, ",ro");
            let state = tree.join("var/lib/gridgate");
            succeeds(Command::new("mount").args(["-o", "loop,ro"]).arg(&guests).arg(state));
            look(&tree)
        })
    }

    fn tail(&self) -> String {
        tail(&self.console)
    }
}

impl Installed for Lab {
    const LIMIT: Duration = LIMIT;

    fn run(&self, command: &str) -> Ran {
        let agent = self.agent.as_ref().expect("the machine is off");
        agent.run(command, LIMIT).unwrap_or_else(|why| panic!("'{command}': {why}\n{}", self.tail()))
    }

    fn evidence(&self) -> String {
        let journal = "journalctl --no-pager --boot --lines=60 --unit='gridgate*'";
        let said = self.agent.as_ref().map(|agent| agent.run(journal, LIMIT));
        let said = said.map(|said| said.map_or_else(|why| why, |ran| ran.stdout));
        format!("{}\n{}", said.unwrap_or_default(), self.tail())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut qemu) = self.qemu.take() {
            let _ = qemu.kill();
            let _ = qemu.wait();
        }
    }
}

fn kernel(made: &Path) -> PathBuf {
    made.join("images/lab/vmlinuz")
}

/// Where `/dev/kvm` is, it may still not work: what counts is what booted.
pub(crate) fn accelerator(made: &Path) -> &'static str {
    match backends(&Live, &Paths::new(made, made)) {
        Ok(found) if found.kvm.works => "kvm",
        _ => "tcg",
    }
}

/// A disk that is as the one below it until it is written to.
pub(crate) fn layer(below: &Path, disk: &Path) {
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(below).arg(disk);
    succeeds(&mut create);
}

/// For this mount namespace only.
fn mounted(dir: &Path, disk: &Path, options: &str) -> PathBuf {
    let tree = dir.join("tree");
    fs::create_dir_all(&tree).unwrap();
    succeeds(Command::new("mount").arg("-o").arg(format!("loop{options}")).args([disk, &tree]));
    tree
}

pub(crate) fn tail(console: &Path) -> String {
    let said = fs::read(console).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    format!(
        "the console, '{}':\n{}",
        console.display(),
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    )
}
