//! Guests among the machines that `machinectl` lists, where systemd-machined is installed (org.freedesktop.machine1(5)).

use std::path::Path;

use crate::backend::spec::{Engine, Spec};
use crate::host::Host;
use crate::host::programs::Program;

/// Started by whoever asks for it first.
const MACHINED: [&str; 2] = ["/usr/lib/systemd/systemd-machined", "/lib/systemd/systemd-machined"];

/// Registers the guest; machined forgets it by itself when its unit has ended. Nothing depends on it: what fails is passed
/// over.
pub fn register(host: &dyn Host, spec: &Spec, pid: i32) {
    let installed = MACHINED.iter().any(|path| host.stat(Path::new(path)).is_ok_and(|stat| stat.is_some()));
    if installed && let Err(error) = host.run(&call(spec, pid)) {
        eprintln!("ignoring that the guest is not registered with machined: {error:#}");
    }
}

/// Name, no id, service, class, leader, no root directory.
fn call(spec: &Spec, pid: i32) -> Program {
    let class = match spec.engine {
        Engine::Nspawn => "container",
        Engine::Uml { .. } | Engine::Qemu { .. } => "vm",
    };
    Program::new("busctl")
        .args(["--quiet", "call", "org.freedesktop.machine1", "/org/freedesktop/machine1"])
        .args(["org.freedesktop.machine1.Manager", "RegisterMachine", "sayssus"])
        .args([spec.guest.as_str(), "0", "gridgate", class, &pid.to_string(), ""])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::spec::tests::spec;

    #[test]
    fn a_hypervisor_is_a_machine_and_nspawn_a_container() {
        let typed = |engine| call(&spec(engine), 42).typed();
        let end = |class: &str| format!("RegisterMachine sayssus ce 0 gridgate {class} 42 ''");
        assert!(typed(Engine::Nspawn).ends_with(&end("container")));
        assert!(typed(Engine::Uml { kernel: "/k".into() }).ends_with(&end("vm")));
    }
}
