//! A machine that `gridgate site install` made as a file, of nothing but its centre's signed bundle; started by its own boot
//! loader, and reached as its administrators reach it: over SSH, with the host keys that were exported when it was made.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::installed::{Installed, Ran, prepared, succeeds};
use crate::lab::{LIMIT, MACHINE, TURN, accelerator, layer, tail};

/// What starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF, with Microsoft's keys enrolled and Secure Boot on.
    SecureBoot,
}

const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";
/// Between two attempts to reach a machine that starts: each costs the host some work.
const PAUSE: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct Made {
    dir: tempfile::TempDir,
    made: PathBuf,
    console: PathBuf,
    qemu: Option<Child>,
    /// Alone, as its lab's other machines are.
    _turn: MutexGuard<'static, ()>,
}

impl Made {
    /// Makes it of the site with these files; `None`, said loudly, where there can be none. `[host]` is added, as the emulator's
    /// own network wants it.
    pub(crate) fn install(name: &str, site: &str, guests: &[(&str, &str)]) -> Option<Self> {
        let Some(made) = std::env::var_os("GRIDGATE_LAB").map(PathBuf::from) else {
            eprintln!("skipped: a whole machine takes minutes; make test-lab does it");
            return None;
        };
        let prepared = match prepared(&["qemu-img", "mkfs.fat", "mcopy", "mkfs.xfs", "patchelf"]) {
            Ok(prepared) => prepared,
            Err(why) => {
                eprintln!("skipped: making a machine {why}");
                return None;
            }
        };
        for needed in [made.join("images/gateway/manifest.json"), CODE.into(), VARIABLES.into()] {
            if !needed.exists() {
                eprintln!("skipped: making a machine needs '{}' (scripts/lab-image)", needed.display());
                return None;
            }
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("state/images")).unwrap();
        symlink(made.join("images/gateway"), at("state/images/gateway")).unwrap();
        symlink(prepared.join("images/debian-12"), at("state/images/debian-12")).unwrap();
        symlink(prepared.join("kernels"), at("state/kernels")).unwrap();
        fs::create_dir_all(at("site/guests")).unwrap();
        succeeds(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at("key")));
        fs::copy(at("key.pub"), at("site/admins.pub")).unwrap();
        fs::write(at("site/site.toml"), site).unwrap();
        for (guest, text) in guests {
            fs::write(at(&format!("site/guests/{guest}.toml")), text).unwrap();
        }
        let public = fs::read_to_string(at("key.pub")).unwrap();
        fs::write(at("signers"), format!("ops@example.org namespaces=\"gridgate-bundle\" {public}")).unwrap();
        let gridgate = || Command::new(env!("CARGO_BIN_EXE_gridgate"));
        let mut centre = gridgate();
        centre.arg("--site").arg(at("site")).arg("--state").arg(at("state")).args(["site", "pack", "--fast"]);
        succeeds(centre.arg("--sign").arg(at("key")).arg("-o").arg(at("bundle")));
        let mut away = gridgate();
        away.env_remove("GRIDGATE_SITE")
            .arg("--state")
            .arg(at("away"))
            .args(["site", "install"])
            .arg(at("bundle"));
        away.args(["--site", "made", "--size", "6G", "--to"]).arg(at("disk"));
        succeeds(away.arg("--allowed-signers").arg(at("signers")));
        fs::remove_file(at("bundle")).unwrap();
        let console = made.join(format!("{name}.console"));
        fs::write(&console, "").unwrap();
        Some(Self { dir, made, console, qemu: None, _turn: turn })
    }

    /// Switches a copy of it on, which is as it was made, and returns when its guests' target is reached.
    pub(crate) fn boot(&mut self, firmware: Firmware) {
        self.switch_off();
        let at = |name: &str| self.dir.path().join(name);
        let _ = fs::remove_file(at("layer"));
        layer(&at("disk"), &at("layer"));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::write(at("ssh_config"), self.ssh_config(port)).unwrap();
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-machine"]);
        let accelerator = accelerator(&self.made);
        match firmware {
            Firmware::Bios => qemu.arg(format!("q35,accel={accelerator}")),
            Firmware::SecureBoot => {
                fs::copy(VARIABLES, at("variables")).unwrap();
                qemu.arg(format!("q35,accel={accelerator},smm=on"));
                qemu.args(["-global", "driver=cfi.pflash01,property=secure,value=on", "-drive"]);
                qemu.arg(format!("if=pflash,format=raw,readonly=on,file={CODE}")).arg("-drive");
                qemu.arg(format!("if=pflash,format=raw,file={}", at("variables").display()))
            }
        };
        qemu.args(MACHINE).arg("-drive");
        qemu.arg(format!("file={},format=qcow2,if=virtio", at("layer").display()));
        qemu.arg("-chardev").arg(format!("file,id=console,path={},append=on", self.console.display()));
        qemu.args(["-serial", "chardev:console", "-netdev"]);
        qemu.arg(format!("user,id=uplink,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"));
        qemu.args(["-device", "virtio-net-pci,netdev=uplink,mac=52:54:00:12:34:58"]);
        let said = fs::File::create(at("qemu.log")).unwrap();
        qemu.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
        self.qemu = Some(qemu.spawn().unwrap());
        let deadline = Instant::now() + LIMIT;
        while self.run("systemctl is-active gridgate.target").status != 0 {
            let ended = self.qemu.as_mut().unwrap().try_wait().unwrap();
            let said = fs::read_to_string(self.dir.path().join("qemu.log")).unwrap();
            assert_eq!(ended, None, "QEMU ended: {said}\n{}", tail(&self.console));
            assert!(Instant::now() < deadline, "it does not start by {firmware:?}\n{}", tail(&self.console));
            std::thread::sleep(PAUSE);
        }
    }

    /// As root of the host or of a guest, by address; the host is the way to guests. Whoever has another key than the one that
    /// was exported is refused.
    pub(crate) fn ssh(&self, to: &str, command: &str) -> Ran {
        let mut ssh = Command::new("timeout");
        ssh.arg(LIMIT.as_secs().to_string()).args(["ssh", "-F"]).arg(self.dir.path().join("ssh_config"));
        let output = ssh.args([to, command]).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Ran {
            status: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// What was told of the machine when it was made.
    pub(crate) fn report(&self) -> Value {
        let report = fs::read(self.kept().join("report.json")).unwrap();
        serde_json::from_slice(&report).unwrap()
    }

    fn kept(&self) -> PathBuf {
        self.dir.path().join("away/sites/made")
    }

    fn ssh_config(&self, port: u16) -> String {
        let at = |path: &Path| path.display().to_string();
        format!(
            "Host *\n  User root\n  IdentityFile {}\n  UserKnownHostsFile {}\n  StrictHostKeyChecking yes\n  BatchMode yes\n  \
             ConnectTimeout 60\n\
             Host gw\n  HostName 127.0.0.1\n  Port {port}\n  HostKeyAlias gw.made.example.org\n\
             Host 10.77.*\n  ProxyCommand ssh -F {} -W %h:%p gw\n",
            at(&self.dir.path().join("key")),
            at(&self.kept().join("known_hosts")),
            at(&self.dir.path().join("ssh_config")),
        )
    }

    /// Pulls its plug; each start is one of a machine that was just made.
    fn switch_off(&mut self) {
        if let Some(mut qemu) = self.qemu.take() {
            let _ = qemu.kill();
            let _ = qemu.wait();
        }
    }
}

impl Installed for Made {
    const LIMIT: Duration = LIMIT;

    fn run(&self, command: &str) -> Ran {
        self.ssh("gw", command)
    }

    fn evidence(&self) -> String {
        let journal = self.run("journalctl --no-pager --boot --lines=60 --unit='gridgate*'");
        format!("{}\n{}", journal.stdout, tail(&self.console))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.switch_off();
    }
}
