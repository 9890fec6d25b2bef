//! QEMU: a whole machine, with KVM where it really works.

use std::path::Path;

use anyhow::Result;

use super::spec::{Engine, Spec};
use super::{Backend, OWN, Plug, PlugKind, Wires, qmp};
use crate::host::programs::Program;

/// See the module.
#[derive(Debug)]
pub struct Qemu;

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";

impl Backend for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn plug(&self) -> PlugKind {
        PlugKind::Tap
    }

    fn program(&self, spec: &Spec, wires: &Wires) -> Program {
        let mut append = String::from("root=/dev/vda rw console=ttyS0");
        if !spec.kernel_args.trim().is_empty() {
            append.push(' ');
            append.push_str(spec.kernel_args.trim());
        }
        let accel = match &spec.engine {
            Engine::Qemu { kvm: true, .. } => ["-accel", "kvm", "-cpu", "host"],
            _ => ["-accel", "tcg", "-cpu", "max"],
        };
        let mut program = Program::new(PROGRAM)
            .args(["-name", &format!("guest={0},process=qemu-{0}", spec.guest)])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35"])
            .args(accel)
            .args(["-m", &format!("{}M", spec.memory_bytes.mib()), "-smp", &spec.cpus.to_string()]);
        if let Engine::Qemu { kernel, initrd, .. } = &spec.engine {
            program =
                program.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", &append]);
        }
        program = program
            // The format is always said: probing it is how a guest makes QEMU read the host's files.
            .arg("-drive")
            .arg(format!("file={},format=raw,if=none,id=disk0", comma_safe(&spec.disk.to_string_lossy())))
            .args(["-device", "virtio-blk-pci,drive=disk0", "-device", "virtio-rng-pci"]);
        if let Plug::Tap(fd) = wires.plug {
            program = program
                .args(["-netdev", &format!("tap,id=net0,fd={fd}")])
                .args(["-device", &format!("virtio-net-pci,netdev=net0,mac={}", spec.mac)]);
        }
        let qmp = wires.run_dir.join(OWN).join("qmp.sock");
        program
            // signal=off: Ctrl-C on the console is the guest's.
            .args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", comma_safe(&qmp.to_string_lossy()))])
            // A guest's panic must not look like a shutdown.
            .args(["-device", "pvpanic-pci", "-action", "panic=exit-failure"])
            .args(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"])
    }

    fn ask_to_stop(&self, _spec: &Spec, run_dir: &Path, _pid: i32) -> Result<()> {
        qmp::call(&run_dir.join(OWN).join("qmp.sock"), "system_powerdown")
    }
}

/// A comma in an option's value is written twice (qemu(1)).
fn comma_safe(text: &str) -> String {
    text.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::spec::tests::spec;

    fn typed(kvm: bool) -> String {
        let spec = spec(Engine::Qemu { kvm, kernel: "/i/vmlinuz".into(), initrd: "/i/initrd".into() });
        let wires = Wires { plug: Plug::Tap(7), run_dir: "/run/g/ce".into(), tree: None };
        Qemu.program(&spec, &wires).typed()
    }

    #[test]
    fn a_guest_becomes_one_command_line() {
        let line = typed(false);
        assert!(
            line.contains("-accel tcg -cpu max -m 256M -smp 1 -kernel /i/vmlinuz -initrd /i/initrd"),
            "{line}"
        );
        assert!(line.contains("file=/s/disk,format=raw,if=none"), "{line}");
        assert!(
            line.contains("tap,id=net0,fd=7 -device virtio-net-pci,netdev=net0,mac=52:54:00:00:00:10"),
            "{line}"
        );
    }

    #[test]
    fn kvm_is_used_only_where_it_was_found_to_work() {
        assert!(typed(true).contains("-accel kvm -cpu host"));
        assert!(!typed(false).contains("kvm"));
    }

    #[test]
    fn a_comma_in_a_path_cannot_add_an_option() {
        assert_eq!(comma_safe("/a,snapshot=on"), "/a,,snapshot=on");
    }
}
