//! One disk, three backends.

use crate::support::TestSite;

#[test]
fn the_same_disk_boots_in_user_mode_linux_in_qemu_and_in_a_container() {
    let Some(site) = TestSite::one("ce", "memory = \"512M\"\nbackend = \"uml\"") else { return };
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
        seen.push(ssh("echo boot >>/root/boots; hostname -f; cat /etc/machine-id"));
        assert_eq!(ssh("wc -l </root/boots"), seen.len().to_string(), "{backend}");
        site.run(&["down"]).exits(0).says("ce: shut itself down in ");
        if let Some(rung) = [("uml", "ask"), ("qemu", "command")].iter().find(|(of, _)| *of == backend) {
            assert_eq!(site.status("ce")["last_exit"]["rung"], rung.1, "{backend}");
        }
    }
    assert!(seen.iter().all(|identity| *identity == seen[0]), "{seen:?}");
}
