//! systemd-nspawn: the guest shares the host's kernel.

use anyhow::{Context, Result};

use super::spec::Spec;
use super::{Backend, Order, Plug, PlugKind, Taken, Target, Wires};
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
        // Not quiet: its last words tell a reboot from a shutdown to those who are not its parent.
        let mut program =
            Program::new(PROGRAM).args(["--boot", "--console=interactive", "--notify-ready=yes"]);
        // The guest's own words, as far as nspawn hands them on; not to the unit, which was told when the guest started.
        program = program.env("NOTIFY_SOCKET", &wires.run_dir.join("notify.sock").to_string_lossy());
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

    fn order(&self, order: Order, target: &Target<'_>) -> Result<Taken> {
        match order {
            // SIGTERM halts politely; a second one ends it at once.
            Order::Ask | Order::Quit => {
                let pid = nix::unistd::Pid::from_raw(target.pid);
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
                    .with_context(|| format!("sending SIGTERM to process {pid}"))?;
                Ok(Taken::Yes)
            }
            // Its kernel is the host's.
            Order::Agent | Order::Sync | Order::Remount => Ok(Taken::Nobody),
        }
    }

    fn asks_once(&self) -> bool {
        true
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
            vsock: None,
        };
        assert_eq!(
            Nspawn.program(&spec(Engine::Nspawn), &wires).typed(),
            "systemd-nspawn --boot --console=interactive --notify-ready=yes --directory=/run/g/ce/root --machine=ce --register=no \
             --keep-unit --resolv-conf=off --timezone=off --link-journal=no --capability=CAP_NET_ADMIN --network-namespace-path=/proc/self/fd/9"
        );
    }
}
