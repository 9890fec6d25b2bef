//! Which backends really work here, found out by booting a probe guest with each, and remembered in `STATE/host.json`
//! until the kernel, the processor or a program changes.

use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::probe_guest;
use crate::backend::uml::MEMORY_DIR;
use crate::host::Host;
use crate::host::programs::{Program, Ran};
use crate::host::temporary::Maker;
use crate::paths::Paths;

/// What was found out about each backend of this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backends {
    /// Form of the file.
    pub version: u32,
    /// Kernel, processor and programs that it was found out with.
    pub fingerprint: String,
    /// QEMU in software (TCG).
    pub qemu: Probe,
    /// QEMU with KVM.
    pub kvm: Probe,
    /// User-mode Linux.
    pub uml: Probe,
    /// The kernel of user-mode Linux that works, or the one that was tried.
    pub uml_kernel: Option<PathBuf>,
    /// Whether that kernel can use seccomp instead of ptrace, which is faster.
    pub uml_seccomp: bool,
    /// systemd-nspawn.
    pub nspawn: Probe,
}

/// How one probe went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Whether the guest said its word.
    pub works: bool,
    /// If not, why.
    pub why: String,
    /// The command that mends it, where one is known.
    pub mend: Option<String>,
    /// How long it took.
    pub took_ms: u64,
}

const VERSION: u32 = 1;
/// A probe guest says its word within a second here. At the first boot of a machine, which is itself emulated on a busy host,
/// ten were too few, and its guests stayed down; what does not work at all mostly says so at once.
const LIMIT_SECONDS: &str = "60";
/// A KVM that works takes under two seconds even on a slow machine, and one that does not is waited for to the end.
const KVM_LIMIT_SECONDS: &str = "4";

/// What is remembered, if it still holds; else what probing finds, which is remembered then.
pub fn backends(host: &dyn Host, paths: &Paths) -> Result<Backends> {
    let fingerprint = fingerprint(host, paths);
    if let Some(bytes) = host.read(&remembered(paths))?
        && let Ok(known) = serde_json::from_slice::<Backends>(&bytes)
        && known.version == VERSION
        && known.fingerprint == fingerprint
    {
        return Ok(known);
    }
    probe_backends(host, paths)
}

/// Boots a probe guest with each backend, at the same time, and remembers what was found. Takes a second or two where
/// all works, and up to ten where something hangs.
pub fn probe_backends(host: &dyn Host, paths: &Paths) -> Result<Backends> {
    let fingerprint = fingerprint(host, paths);
    // Not under /run, which often forbids execution; without root, wherever files may be made.
    let place = if rustix::process::geteuid().is_root() { paths.state.clone() } else { std::env::temp_dir() };
    let dir = place.join(Maker::this().name("probe"));
    host.remove(&dir)?;
    host.make_dir(&dir, 0o700)?;
    let found = probe_all(host, paths, &dir, fingerprint);
    let removed = host.remove(&dir);
    let found = found.context("probing the backends")?;
    removed?;
    // Nothing depends on it being remembered, and a plain user may not write there.
    if let Ok(text) = serde_json::to_vec_pretty(&found) {
        let _ = host.write(&remembered(paths), &text, 0o644);
    }
    Ok(found)
}

fn remembered(paths: &Paths) -> PathBuf {
    paths.state.join("host.json")
}

fn probe_all(host: &dyn Host, paths: &Paths, dir: &Path, fingerprint: String) -> Result<Backends> {
    let sector = dir.join("sector");
    host.write(&sector, &probe_guest::boot_sector(), 0o644)?;
    let ramdisk = dir.join("ramdisk");
    host.write(&ramdisk, &probe_guest::ramdisk(), 0o644)?;
    let root = dir.join("root");
    // systemd-nspawn refuses a tree without usr/.
    host.make_dir(&root.join("usr"), 0o755)?;
    host.write(&root.join("probe"), &probe_guest::program(), 0o755)?;
    std::thread::scope(|scope| {
        let qemu = scope.spawn(|| qemu(host, &sector, "tcg", LIMIT_SECONDS));
        let kvm = scope.spawn(|| kvm(host, &sector));
        let uml = scope.spawn(|| uml(host, paths, dir, &ramdisk));
        let nspawn = scope.spawn(|| nspawn(host, &root));
        let (uml, uml_kernel, uml_seccomp) = joined(uml)?;
        Ok(Backends {
            version: VERSION,
            fingerprint,
            qemu: joined(qemu)?,
            kvm: joined(kvm)?,
            uml,
            uml_kernel,
            uml_seccomp,
            nspawn: joined(nspawn)?,
        })
    })
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("a probe came to no end"))
}

/// Runs with a limit that ends the whole process group, politely and then not, so that no child keeps the output open.
fn limited(seconds: &str, program: &Path) -> Program {
    Program::new("timeout").args(["--kill-after=1", seconds]).arg(program)
}

fn said_token(ran: &Ran) -> bool {
    ran.stdout.windows(probe_guest::TOKEN.len() - 1).any(|w| w == &probe_guest::TOKEN[..w.len()])
}

fn probed(host: &dyn Host, program: &Program, judge: impl FnOnce(&Ran) -> Result<(), String>) -> Probe {
    let started = Instant::now();
    let judged = match host.run_any(program) {
        Ok(ran) => judge(&ran),
        Err(e) => Err(format!("{e:#}")),
    };
    let took_ms = started.elapsed().as_millis() as u64;
    let (works, why) = judged.map_or_else(|why| (false, why), |()| (true, String::new()));
    Probe { works, why, mend: None, took_ms }
}

fn missing(program: &str, package: &str) -> Probe {
    let mend = Some(format!("apt install {package}"));
    Probe { works: false, why: format!("'{program}' is not installed"), mend, took_ms: 0 }
}

fn qemu(host: &dyn Host, sector: &Path, accelerator: &str, seconds: &str) -> Probe {
    let name = "qemu-system-x86_64";
    let Some(path) = host.find_program(name) else { return missing(name, "qemu-system-x86") };
    let program = limited(seconds, &path)
        .args(["-accel", accelerator, "-machine", "pc", "-m", "16", "-nodefaults", "-display", "none"])
        .args(["-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-no-reboot"])
        .args(["-drive", &format!("file={},format=raw,if=floppy,snapshot=on", sector.display())]);
    probed(host, &program, |ran| match ran.status {
        probe_guest::SECTOR_STATUS if said_token(ran) => Ok(()),
        124 | 137 => Err("the probe guest did not get to 64-bit mode in time".to_owned()),
        status => Err(format!("status {status}: {}", last_line(&ran.stderr))),
    })
}

fn kvm(host: &dyn Host, sector: &Path) -> Probe {
    let probe = qemu(host, sector, "kvm", KVM_LIMIT_SECONDS);
    let node = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    match node {
        _ if probe.works || probe.mend.is_some() => probe,
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            Probe { mend: Some("adduser $USER kvm".to_owned()), ..probe }
        }
        Err(_) => Probe {
            why: "no '/dev/kvm': the processor has no virtualisation, or the firmware or the hypervisor below hides it"
                .to_owned(),
            mend: Some("modprobe kvm_intel || modprobe kvm_amd".to_owned()),
            ..probe
        },
        Ok(_) => probe,
    }
}

/// Kernels of user-mode Linux in the order they are tried: gridgate's own was fetched because the other does not work.
fn uml_kernels(host: &dyn Host, paths: &Paths) -> Vec<PathBuf> {
    let own = Some(paths.uml_kernel()).filter(|path| path.is_file());
    own.into_iter().chain(host.find_program("linux.uml")).collect()
}

fn uml(host: &dyn Host, paths: &Paths, dir: &Path, ramdisk: &Path) -> (Probe, Option<PathBuf>, bool) {
    let mut last = (missing("linux.uml", "user-mode-linux"), None, false);
    for (number, kernel) in uml_kernels(host, paths).into_iter().enumerate() {
        let mut seccomp = false;
        // The console is a pipe: a regular file cannot be one. Without HOME it dies.
        let program = limited(LIMIT_SECONDS, &kernel)
            .args(["mem=64M", "con0=fd:0,fd:1", "con=null", "ssl=null", "seccomp=auto"])
            .args([format!("umid=probe{number}"), format!("uml_dir={}/", dir.display())])
            .arg(format!("initrd={}", ramdisk.display()))
            .env("HOME", "/")
            .env("TMPDIR", MEMORY_DIR);
        let probe = probed(host, &program, |ran| {
            let said = String::from_utf8_lossy(&ran.stdout);
            seccomp = can_use_seccomp(&String::from_utf8_lossy(&ran.stderr));
            if said_token(ran) { Ok(()) } else { Err(uml_reason(&said, &ran.stderr)) }
        });
        if probe.works {
            return (probe, Some(kernel), seccomp);
        }
        let mend = Some(fetch_command(paths)).filter(|_| kernel != paths.uml_kernel());
        last = (Probe { mend, ..probe }, Some(kernel), false);
    }
    last
}

/// The script that brings a newer kernel: installed beside the program, else as it lies in the source tree.
fn fetch_command(paths: &Paths) -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let installed =
        program.parent().and_then(Path::parent).map(|prefix| prefix.join("lib/gridgate/fetch-uml"));
    let script =
        installed.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("scripts/fetch-uml"));
    let dir = paths.uml_kernel().parent().map(Path::to_owned).unwrap_or_default();
    format!("{} {}", script.display(), dir.display())
}

/// The kernel says of itself, on its standard error: `Checking that seccomp filters can be installed...OK`. Kernels that
/// do not know of it do not check.
fn can_use_seccomp(said: &str) -> bool {
    let verdict =
        said.split_once("seccomp filters can be installed...").map(|(_, verdict)| verdict.trim_start());
    verdict.is_some_and(|verdict| verdict.starts_with("OK"))
}

fn uml_reason(said: &str, stderr: &[u8]) -> String {
    let telling = |line: &&str| line.contains("ptrace set fp regs failed");
    match said.lines().find(telling) {
        Some(line) => format!("{}: this kernel does not know the processor's registers (AMX)", line.trim()),
        None => {
            said.lines().find(|line| line.contains("panic")).map_or_else(|| last_line(stderr), str::to_owned)
        }
    }
}

fn nspawn(host: &dyn Host, root: &Path) -> Probe {
    let name = "systemd-nspawn";
    let Some(path) = host.find_program(name) else { return missing(name, "systemd-container") };
    if !rustix::process::geteuid().is_root() {
        return Probe {
            works: false,
            why: "it needs root".to_owned(),
            mend: Some("sudo gridgate doctor".to_owned()),
            took_ms: 0,
        };
    }
    let program = limited(LIMIT_SECONDS, &path)
        .args(["--quiet", "--register=no", "--keep-unit", "--private-network", "--pipe", "--directory"])
        .arg(root)
        .arg("/probe");
    probed(host, &program, |ran| {
        if said_token(ran) {
            Ok(())
        } else {
            Err(format!("status {}: {}", ran.status, last_line(&ran.stderr)))
        }
    })
}

fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim().to_owned()
}

/// All that a probe's result depends on and that changes without gridgate: kernel, processor, access to KVM, programs.
fn fingerprint(host: &dyn Host, paths: &Paths) -> String {
    let mut text = nix::sys::utsname::uname().map_or_else(
        |e| e.to_string(),
        |kernel| format!("{} {}", kernel.release().to_string_lossy(), kernel.version().to_string_lossy()),
    );
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    for line in cpus.lines().take_while(|line| !line.is_empty()) {
        if line.starts_with("model name") || line.starts_with("flags") || line.starts_with("microcode") {
            text.push_str(line);
        }
    }
    let user = rustix::process::geteuid().as_raw();
    let mut files = uml_kernels(host, paths);
    files.extend(["qemu-system-x86_64", "systemd-nspawn"].iter().filter_map(|name| host.find_program(name)));
    for path in files {
        // By one name, so that a state directory may share the kernel of another by a link.
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        let seen = std::fs::metadata(&path).ok().map(|m| (m.len(), m.mtime(), m.ino(), m.mode()));
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{} {seen:?}", path.display());
    }
    // A device node is made anew at each boot: only who may use it counts.
    let kvm = std::fs::metadata("/dev/kvm").ok().map(|m| (m.mode(), m.uid(), m.gid()));
    let _ = write!(text, "\n/dev/kvm {kvm:?} {user}");
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_an_old_kernel_on_a_new_processor_is_told() {
        let said =
            "Run /init\nuserspace - ptrace set fp regs failed, errno = 14\nKernel panic - not syncing: x\n";
        let reason = uml_reason(said, b"");
        assert!(reason.starts_with("userspace - ptrace set fp regs failed, errno = 14: "), "{reason}");
    }

    #[test]
    fn seccomp_is_believed_only_when_the_kernel_says_so() {
        assert!(can_use_seccomp(
            "tempdir.../dev/shm\nChecking that seccomp filters can be installed...\nOK\n"
        ));
        assert!(!can_use_seccomp("Checking that seccomp filters can be installed...missing\nOK\n"));
        assert!(!can_use_seccomp("Checking that ptrace can change system call numbers...OK\n"));
    }

    #[test]
    fn what_was_found_is_remembered_until_something_changes() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let probe = Probe { works: true, why: String::new(), mend: None, took_ms: 1 };
        let known = Backends {
            version: VERSION,
            fingerprint: fingerprint(&crate::host::Live, &paths),
            qemu: probe.clone(),
            kvm: Probe { why: "remembered".to_owned(), ..probe.clone() },
            uml: probe.clone(),
            uml_kernel: None,
            uml_seccomp: false,
            nspawn: probe,
        };
        std::fs::write(remembered(&paths), serde_json::to_vec(&known).unwrap()).unwrap();
        assert_eq!(backends(&crate::host::Live, &paths).unwrap(), known);
        std::fs::create_dir_all(dir.path().join("kernels/uml")).unwrap();
        std::fs::write(paths.uml_kernel(), b"another kernel").unwrap();
        assert_ne!(fingerprint(&crate::host::Live, &paths), known.fingerprint);
    }
}
