//! One disk, three backends.

use crate::interfaces::{add_storage, banner_by_storage};
use crate::support::TestSite;

#[test]
fn the_same_disk_boots_in_user_mode_linux_in_qemu_and_in_a_container() {
    // So patient that no rung but the first is needed, emulated on a busy machine.
    let file = "ready = [\"login\", \"tcp:22\"]\nstop_timeout = \"240s\"\nmemory = \"512M\"\nbackend = \"uml\"\nready_timeout = \"15m\"";
    let Some(site) = TestSite::quick(&["ce"], file) else { return };
    add_storage(&site);
    let ssh = |command: &str| site.run(&["ssh", "ce", command]).exits(0).out.trim_end().to_owned();
    let mut seen = Vec::new();
    let mut before = "uml";
    for backend in ["uml", "qemu", "nspawn"] {
        site.replace(
            "guests/ce.toml",
            &format!("backend = \"{before}\""),
            &format!("backend = \"{backend}\""),
        );
        if backend == "qemu" {
            // From now on, and over the network.
            site.replace("guests/ce.toml", "memory", "stop_command = \"systemctl poweroff\"\nmemory");
        }
        before = backend;
        let up = site.run(&["up"]);
        assert!(up.status.success(), "{backend}: {up:#?}\n{}", site.console("ce"));
        assert_eq!(site.status("ce")["backend"], backend);
        assert_eq!(
            ssh("hostname -f && cat /etc/machine-id && cat /root/boots 2>/dev/null | wc -l").lines().count(),
            3
        );
        // The first card has made it ready.
        let storage = ssh(
            "until ip -o -4 address show dev storage | grep -q inet; do sleep 0.2; done; ip -o -4 address show dev storage | awk '{ print $4 }'",
        );
        assert_eq!(
            (storage.as_str(), banner_by_storage(&site).as_str()),
            ("10.78.0.10/24", "SSH-"),
            "{backend}"
        );
        seen.push(ssh("echo boot >>/root/boots; hostname -f; cat /etc/machine-id"));
        assert_eq!(ssh("wc -l </root/boots"), seen.len().to_string(), "{backend}");
        site.run(&["down"]).exits(0).says("ce: shut itself down in ");
        if let Some(rung) = [("uml", "ask"), ("qemu", "command")].iter().find(|(of, _)| *of == backend) {
            assert_eq!(site.status("ce")["last_exit"]["rung"], rung.1, "{backend}");
        }
    }
    assert!(seen.iter().all(|identity| *identity == seen[0]), "{seen:?}");
}
