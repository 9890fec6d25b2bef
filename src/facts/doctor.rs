//! `gridgate doctor`: what this host can really do, and the command that mends what it cannot.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use serde::Serialize;

use super::backends::{self, Backends, Probe};
use crate::backend::uml::MEMORY_DIR;
use crate::console::record::can_take_over;
use crate::host::Host;
use crate::host::cgroups::{CONTROLLERS, Tree};
use crate::host::programs::Program;
use crate::host::trial;
use crate::names::Bytes;
use crate::paths::Paths;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was tried.
    pub name: String,
    /// Whether it works.
    pub ok: bool,
    /// If it works, a detail worth knowing; if not, why.
    pub why: String,
    /// The command that mends it, where one is known.
    pub mend: Option<String>,
    /// How long it took.
    pub took_ms: u64,
}

/// All that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    /// Form of the data.
    pub version: u32,
    /// In a fixed order, backends first.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Whether a guest could be run here at all.
    pub fn any_backend_works(&self) -> bool {
        self.checks.iter().any(|check| check.ok && check.name.starts_with(BACKEND))
    }
}

const BACKEND: &str = "backend ";

/// Programs that gridgate runs, their Debian packages, and what stands still without them.
const PROGRAMS: [(&str, &str, &str); 11] = [
    ("qemu-system-x86_64", "qemu-system-x86", "guests in QEMU"),
    ("systemd-nspawn", "systemd-container", "guests in systemd-nspawn"),
    ("mmdebstrap", "mmdebstrap", "building images"),
    ("mke2fs", "e2fsprogs", "building images"),
    ("e2fsck", "e2fsprogs", "building images"),
    ("resize2fs", "e2fsprogs", "growing disks"),
    ("tune2fs", "e2fsprogs", "a new UUID, before Linux 6.0"),
    ("setpriv", "util-linux", "building images"),
    ("unshare", "util-linux", "building images"),
    ("nft", "nftables", "networks behind address translation"),
    ("ssh", "openssh-client", "gridgate ssh"),
];

/// Room for a golden image and one guest's disk made from it; a guess from Debian 12, where that is 0.6 GiB.
const STATE_BYTES: u64 = 1 << 30;
/// Room for one small guest's memory.
const MEMORY_BYTES: u64 = 256 << 20;

/// Tries everything. Nothing is left behind but `STATE/host.json`.
pub fn diagnose(host: &dyn Host, paths: &Paths) -> Result<Diagnosis> {
    let found = backends::probe_backends(host, paths)?;
    let mut checks = of_backends(&found);
    for (program, package, what) in PROGRAMS {
        checks.push(timed(&format!("program {program}"), Some(format!("apt install {package}")), || {
            let found =
                host.find_program(program).with_context(|| format!("not installed; needed for {what}"))?;
            Ok(found.display().to_string())
        }));
    }
    let run = |program: Program| host.run(&program).map(|ran| ran.text());
    let mend = |command: &str| Some(command.to_owned());
    checks.push(timed("loop devices", mend("modprobe loop"), || run(Program::new("losetup").arg("--find"))));
    checks.push(timed("tap interfaces", mend("modprobe tun"), || {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).open("/dev/net/tun").context("opening '/dev/net/tun'")?;
        Ok(String::new())
    }));
    checks.push(timed("bridges", mend("modprobe bridge"), || {
        trial::bridge()?;
        Ok(String::new())
    }));
    checks.push(timed("nftables", mend("apt install nftables && modprobe nf_tables"), || {
        let rules = "table ip probe { chain c { type nat hook postrouting priority 100; masquerade; }; }";
        run(Program::new("unshare").args(["--net", "nft", rules]))
    }));
    checks.push(timed("network rates", mend("modprobe -a sch_tbf cls_u32 act_mirred ifb"), || {
        trial::rates()?;
        Ok(String::new())
    }));
    let unify = mend("boot with systemd.unified_cgroup_hierarchy=1");
    checks.push(timed("control groups", unify, || {
        let found = Tree::find().context("guests run without limits")?.controllers();
        let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !found.contains(name)).collect();
        anyhow::ensure!(
            missing.is_empty(),
            "guests run without limits: no controller for {}",
            missing.join(", ")
        );
        Ok(found.join(", "))
    }));
    let allow = mend("systemd-nspawn --system-call-filter=pidfd_getfd ... (where this container is started)");
    checks.push(timed("console take-over", allow, || {
        can_take_over().context("a console holder that is killed loses the consoles of running guests")?;
        Ok(String::new())
    }));
    checks.push(timed("openat2", None, || {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(rustix::fs::CWD, "/", flags, Mode::empty(), ResolveFlags::IN_ROOT)
            .context("the kernel is older than 5.6")?;
        Ok(String::new())
    }));
    checks.push(space(host, "space for disks", &paths.state, STATE_BYTES));
    checks.push(space(host, "space for memory", Path::new(MEMORY_DIR), MEMORY_BYTES));
    checks.push(timed("memory directory", mend(&format!("mount -o remount,exec {MEMORY_DIR}")), || {
        let flags = rustix::fs::statvfs(MEMORY_DIR).context("looking at it")?.f_flag;
        anyhow::ensure!(!flags.contains(StatVfsMountFlags::NOEXEC), "it forbids execution");
        Ok(MEMORY_DIR.to_owned())
    }));
    Ok(Diagnosis { version: 1, checks })
}

fn of_backends(found: &Backends) -> Vec<Check> {
    let check = |name: &str, probe: &Probe, detail: String| Check {
        name: format!("{BACKEND}{name}"),
        ok: probe.works,
        why: if probe.works { detail } else { probe.why.clone() },
        mend: probe.mend.clone(),
        took_ms: probe.took_ms,
    };
    let kernel = found.uml_kernel.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let way = if found.uml_seccomp { "seccomp" } else { "ptrace" };
    vec![
        check("uml", &found.uml, format!("{kernel}, {way}")),
        check("qemu", &found.qemu, "in software (TCG)".to_owned()),
        check("qemu with kvm", &found.kvm, "in hardware".to_owned()),
        check("nspawn", &found.nspawn, String::new()),
    ]
}

fn space(host: &dyn Host, name: &str, path: &Path, wanted: u64) -> Check {
    timed(name, None, || {
        let free = host.free_bytes(path)?;
        anyhow::ensure!(free >= wanted, "only {} free in '{}'", Bytes(free), path.display());
        Ok(format!("{} free in '{}'", Bytes(free), path.display()))
    })
}

fn timed(name: &str, mend: Option<String>, check: impl FnOnce() -> Result<String>) -> Check {
    let started = Instant::now();
    let result = check();
    let ok = result.is_ok();
    let why = result.unwrap_or_else(|e| format!("{e:#}"));
    let took_ms = started.elapsed().as_millis() as u64;
    Check { name: name.to_owned(), ok, why, mend: mend.filter(|_| !ok), took_ms }
}
