//! QEMU: a whole machine, with KVM where it really works.

use anyhow::Result;
use serde_json::json;

use super::spec::{Engine, Spec};
use super::{Backend, OWN, Order, Plug, PlugKind, Taken, Target, Wires, qmp};
use crate::console::ready;
use crate::host::programs::Program;
use crate::names::Bytes;

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
        PlugKind::Taps
    }

    fn program(&self, spec: &Spec, wires: &Wires) -> Program {
        let mut append = String::from("root=/dev/vda rw console=ttyS0");
        if !spec.kernel_args.trim().is_empty() {
            append.push(' ');
            append.push_str(spec.kernel_args.trim());
        }
        let translated = match spec.limits.memory_bytes {
            Some(limit) => format!("tcg,tb-size={}", translations(limit, spec.memory_bytes)),
            None => "tcg".to_owned(),
        };
        let accel = match &spec.engine {
            Engine::Qemu { kvm: true, .. } => ["-accel", "kvm", "-cpu", "host"],
            _ => ["-accel", &translated, "-cpu", "max"],
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
        if let Plug::Taps(taps) = &wires.plug {
            for (at, (card, fd)) in spec.cards().iter().zip(taps).enumerate() {
                program = program
                    .args(["-netdev", &format!("tap,id=net{at},fd={fd}")])
                    .args(["-device", &format!("virtio-net-pci,netdev=net{at},mac={}", card.mac)]);
            }
        }
        let socket = |name: &str| comma_safe(&wires.run_dir.join(OWN).join(name).to_string_lossy());
        if let Some(vsock) = wires.vsock {
            let credential = format!("io.systemd.credential:vmm.notify_socket={}", vsock.notify_socket());
            program = program
                .args(["-device", &format!("vhost-vsock-pci,guest-cid={}", vsock.cid)])
                .args(["-smbios", &format!("type=11,value={credential}")]);
        }
        program
            // signal=off: Ctrl-C on the console is the guest's.
            .args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", socket("qmp.sock"))])
            // QEMU serves one client a socket: the console holder listens to events on its own.
            .args(["-qmp", &format!("unix:{},server=on,wait=off", socket("qmp-events.sock"))])
            .args(["-device", "virtio-serial-pci", "-chardev"])
            .arg(format!("socket,id=agent,path={},server=on,wait=off", socket("agent.sock")))
            .args(["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"])
            // A guest's panic must not look like a shutdown.
            .args(["-device", "pvpanic-pci", "-action", "panic=exit-failure"])
            .args(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"])
    }

    fn order(&self, order: Order, target: &Target<'_>) -> Result<Taken> {
        let mut qmp = qmp::Client::connect(&target.run_dir.join(OWN).join("qmp.sock"), target.patience)?;
        let sysrq = |key: &str| {
            let keys = ["alt", "sysrq", key].map(|code| json!({ "type": "qcode", "data": code }));
            json!({ "keys": keys })
        };
        match order {
            Order::Ask => qmp.execute("system_powerdown", &json!({}))?,
            Order::Sync => qmp.execute("send-key", &sysrq("s"))?,
            Order::Remount => qmp.execute("send-key", &sysrq("u"))?,
            Order::Quit => qmp.execute("quit", &json!({}))?,
            Order::Agent => {
                let lines = qmp.execute("query-chardev", &json!({}))?;
                let mut lines = lines.as_array().into_iter().flatten();
                // Nobody in the guest has the agent's line open.
                if !lines.any(|line| line["label"] == "agent" && line["frontend-open"] == true) {
                    return Ok(Taken::Nobody);
                }
                ready::shut_down_by_agent(&target.run_dir.join(OWN).join("agent.sock"), target.patience)?;
                return Ok(Taken::Yes);
            }
        };
        Ok(Taken::Yes)
    }
}

/// Mebibytes for translated code, of what a limit leaves beside the guest's memory. Unbounded it grows to an eighth of the
/// host's memory (a guest of 256M was seen to hold 680M after its boot), and the guest would be killed for it.
fn translations(limit: u64, memory: Bytes) -> u64 {
    const OTHERWISE: u64 = 96;
    (limit / (1 << 20)).saturating_sub(memory.mib() + OTHERWISE).clamp(32, 1024)
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
        let wires = Wires { plug: Plug::Taps(vec![7]), run_dir: "/run/g/ce".into(), tree: None, vsock: None };
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
    fn translated_code_has_what_a_limit_leaves_beside_the_memory() {
        let size = |limit: u64| translations(limit << 20, Bytes(256 << 20));
        assert_eq!((size(448), size(300), size(9000)), (96, 32, 1024));
        let mut spec =
            spec(Engine::Qemu { kvm: false, kernel: "/i/vmlinuz".into(), initrd: "/i/initrd".into() });
        spec.limits.memory_bytes = Some(512 << 20);
        let wires = Wires { plug: Plug::Taps(vec![7]), run_dir: "/run/g/ce".into(), tree: None, vsock: None };
        assert!(Qemu.program(&spec, &wires).typed().contains("-accel tcg,tb-size=160 -cpu max"));
    }

    #[test]
    fn a_comma_in_a_path_cannot_add_an_option() {
        assert_eq!(comma_safe("/a,snapshot=on"), "/a,,snapshot=on");
    }
}
