//! User-mode Linux: the guest's kernel as an ordinary process.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::spec::{Engine, Spec};
use super::{Backend, OWN, Order, Plug, PlugKind, Taken, Target, Wires, mconsole};
use crate::host::programs::Program;

/// See the module.
#[derive(Debug)]
pub struct Uml;

/// The guest's memory is a file here, mapped executable: only a tmpfs without `noexec` will do.
pub const MEMORY_DIR: &str = "/dev/shm";

impl Backend for Uml {
    fn name(&self) -> &'static str {
        "uml"
    }

    fn plug(&self) -> PlugKind {
        PlugKind::Taps
    }

    fn program(&self, spec: &Spec, wires: &Wires) -> Program {
        let kernel = match &spec.engine {
            Engine::Uml { kernel } => kernel.to_string_lossy().into_owned(),
            // The launcher picks the backend by the engine.
            _ => "linux.uml".to_owned(),
        };
        let mut program = Program::new(kernel)
            .arg(format!("mem={}M", spec.memory_bytes.mib()))
            // `s`: each write goes to the disk before the guest hears that it is done. Its kernel would do the same when the
            // guest flushes, but up to 7.2 it drops every flush, and a power cut took what the guest had synced.
            .arg(format!("ubd0s={}", spec.disk.display()))
            .args(["root=/dev/ubda", "rw"])
            // On a terminal nobody reads, further consoles would block their writers for ever.
            .args(["con0=fd:0,fd:1", "con=null", "ssl=null"])
            // Older kernels do not know it and hand it to init, which ignores it; newer ones are faster with it.
            .arg("seccomp=auto")
            .arg(format!("umid={}", spec.guest))
            .arg(format!("uml_dir={}/", wires.run_dir.join(OWN).display()))
            // Tells that the kernel is up (again), that it panicked, and what the guest writes to /proc/mconsole.
            .arg(format!("mconsole=notify:{}", wires.run_dir.join("notify.sock").display()));
        if let Plug::Taps(taps) = &wires.plug {
            for (at, (card, fd)) in spec.cards().iter().zip(taps).enumerate() {
                program = program.arg(format!("vec{at}:transport=fd,fd={fd},vec=0,mac={}", card.mac));
            }
        }
        program = program.args(spec.kernel_args.split_whitespace());
        // Without $HOME it dies at start, although it is told where its files go.
        program.env("HOME", &wires.run_dir.join(OWN).to_string_lossy()).env("TMPDIR", MEMORY_DIR)
    }

    fn order(&self, order: Order, target: &Target<'_>) -> Result<Taken> {
        let order = match order {
            Order::Ask => "cad",
            Order::Sync => "sysrq s",
            Order::Remount => "sysrq u",
            Order::Quit => "halt",
            Order::Agent => return Ok(Taken::Nobody),
        };
        mconsole::tell(&socket(target.spec, target.run_dir), order).map(|()| Taken::Yes)
    }
}

pub(super) fn socket(spec: &Spec, run_dir: &Path) -> PathBuf {
    run_dir.join(OWN).join(&spec.guest).join("mconsole")
}

/// Whether the kernel is far enough up to take orders.
pub fn takes_orders(spec: &Spec, run_dir: &Path) -> bool {
    socket(spec, run_dir).metadata().is_ok_and(|meta| meta.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::spec::tests::{spec, storage};

    #[test]
    fn a_guest_becomes_one_command_line() {
        let mut spec = spec(Engine::Uml { kernel: "/k/linux".into() });
        spec.kernel_args = "quiet  loglevel=3".to_owned();
        let wires = Wires { plug: Plug::Taps(vec![7]), run_dir: "/run/g/ce".into(), tree: None, vsock: None };
        assert_eq!(
            Uml.program(&spec, &wires).typed(),
            "/k/linux mem=256M ubd0s=/s/disk root=/dev/ubda rw con0=fd:0,fd:1 con=null ssl=null seccomp=auto umid=ce \
             uml_dir=/run/g/ce/hv/ mconsole=notify:/run/g/ce/notify.sock \
             vec0:transport=fd,fd=7,vec=0,mac=52:54:00:00:00:10 quiet loglevel=3"
        );
    }

    #[test]
    fn each_card_has_a_tap_of_its_own() {
        let mut spec = spec(Engine::Uml { kernel: "/k/linux".into() });
        spec.further = vec![storage()];
        let plug = Plug::Taps(vec![7, 9]);
        let wires = Wires { plug, run_dir: "/run/g/ce".into(), tree: None, vsock: None };
        let line = Uml.program(&spec, &wires).typed();
        assert!(
            line.contains(
                "vec0:transport=fd,fd=7,vec=0,mac=52:54:00:00:00:10 vec1:transport=fd,fd=9,vec=0,mac=52:54:00:00:01:10"
            ),
            "{line}"
        );
    }
}
