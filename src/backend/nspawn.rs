//! systemd-nspawn: the guest shares the host's kernel.

use std::path::Path;

use anyhow::{Context, Result};

use super::spec::Spec;
use super::{Backend, Plug, PlugKind, Wires};
use crate::host::programs::Program;

/// See the module.
#[derive(Debug)]
pub struct Nspawn;

/// The program.
pub const PROGRAM: &str = "systemd-nspawn";

impl Backend for Nspawn {
    fn name(&self) -> &'static str {
        "nspawn"
    }

    fn plug(&self) -> PlugKind {
        PlugKind::Namespace
    }

    fn wants_tree(&self) -> bool {
        true
    }

    fn program(&self, spec: &Spec, wires: &Wires) -> Program {
        let mut program = Program::new(PROGRAM).args(["--quiet", "--boot", "--console=interactive"]);
        if let Some(tree) = &wires.tree {
            program = program.arg(format!("--directory={}", tree.display()));
        }
        program = program
            .arg(format!("--machine={}", spec.guest))
            // The unit (or the holder) already is this guest's own; registration is for whole systems with machined.
            .args(["--register=no", "--keep-unit"])
            // Identity was written beforehand; the host's own is not to be mixed in.
            .args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"]);
        if let Plug::Namespace(fd) = wires.plug {
            // The namespace is the guest's own, so that it may set addresses in it; without this networkd does not start.
            program = program.arg("--capability=CAP_NET_ADMIN");
            program = program.arg(format!("--network-namespace-path=/proc/self/fd/{fd}"));
        }
        program
    }

    fn ask_to_stop(&self, _spec: &Spec, _run_dir: &Path, pid: i32) -> Result<()> {
        // SIGTERM halts politely; a second one would end it at once, which is why the ladder asks this backend only once.
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
            .with_context(|| format!("sending SIGTERM to process {pid}"))
    }

    fn reboot_status(&self) -> Option<i32> {
        // systemd-nspawn(1) and its unit's RestartForceExitStatus=.
        Some(133)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::spec::Engine;
    use crate::backend::spec::tests::spec;

    #[test]
    fn a_guest_becomes_one_command_line() {
        let wires = Wires {
            plug: Plug::Namespace(9),
            run_dir: "/run/g/ce".into(),
            tree: Some("/run/g/ce/root".into()),
        };
        assert_eq!(
            Nspawn.program(&spec(Engine::Nspawn), &wires).typed(),
            "systemd-nspawn --quiet --boot --console=interactive --directory=/run/g/ce/root --machine=ce --register=no \
             --keep-unit --resolv-conf=off --timezone=off --link-journal=no --capability=CAP_NET_ADMIN --network-namespace-path=/proc/self/fd/9"
        );
    }
}
