//! A second machine that is kept current.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::lab::private;
use crate::support::exe;

/// A machine with one guest that does not run.
fn machine(dir: &Path) {
    let (site, guest) = (dir.join("site"), dir.join("state/guests/ce"));
    fs::create_dir_all(site.join("guests")).unwrap();
    fs::create_dir_all(&guest).unwrap();
    let text = "name = \"dcu\"\n[networks.lan]\nmode = \"isolated\"\nsubnet = \"10.77.0.0/24\"\n";
    fs::write(site.join("site.toml"), text).unwrap();
    fs::write(site.join("guests/ce.toml"), "address = \"10.77.0.10\"\n").unwrap();
    let mut noise = vec![0; 6 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    fs::write(guest.join("disk"), noise).unwrap();
    fs::write(guest.join("identity.json"), "its keys").unwrap();
    fs::write(guest.join("desired"), "running\n").unwrap();
}

#[test]
fn a_standby_is_kept_current_with_little_and_takes_over_once() {
    private(|lab| {
        lab.install();
        let (near, far) = (lab.file("near"), lab.file("far"));
        machine(&near);
        let (site, state) = (far.join("site"), far.join("state"));
        let replicate = || {
            let mut command = std::process::Command::new(exe());
            command.env("GRIDGATE_SSH", format!("ssh -F {}", lab.file("config").display()));
            command.env("XDG_RUNTIME_DIR", lab.file("x")).env_remove("SSH_AUTH_SOCK");
            command.arg("--site").arg(near.join("site")).arg("--state").arg(near.join("state"));
            command.args(["--json", "site", "replicate", "--to", "gw", "--standby-site"]).arg(&site);
            crate::lab::Ran(command.arg("--standby-state").arg(&state).output().unwrap())
        };
        let sent = |ran: &crate::lab::Ran| {
            let document: serde_json::Value = serde_json::from_str(&ran.out()).unwrap();
            assert_eq!(document["standby"], "gw");
            document["sent_bytes"].as_u64().unwrap()
        };
        let first = replicate().exits(0).says("'gw' is current");
        let there = |path: &str| fs::read(far.join("state/guests/ce").join(path)).unwrap();
        let here = |path: &str| fs::read(near.join("state/guests/ce").join(path)).unwrap();
        assert!(there("disk") == here("disk") && there("identity.json") == here("identity.json"));
        assert_eq!(there("desired"), b"stopped\n");
        assert!(site.join("site.toml").exists());
        let mode = |path: &Path| std::os::unix::fs::MetadataExt::mode(&fs::metadata(path).unwrap()) & 0o777;
        assert_eq!(mode(&state.join("standby")), 0o700);

        let disk = fs::OpenOptions::new().write(true).open(near.join("state/guests/ce/disk")).unwrap();
        disk.write_all_at(b"something new", 1 << 20).unwrap();
        let second = replicate().exits(0);
        assert!(there("disk") == here("disk"));
        eprintln!("sent {} bytes, then {}", sent(&first), sent(&second));
        assert!(sent(&first) > 6 << 20 && sent(&second) < 60_000, "{} {}", sent(&first), sent(&second));

        // It takes over: from then on it is not to be changed from here.
        fs::write(state.join("guests/ce/desired"), "running\n").unwrap();
        fs::write(state.join("guests/ce/disk"), "what was done there").unwrap();
        replicate().exits(4).says("this machine has taken over");
        assert_eq!(there("disk"), b"what was done there");
        lab.is_quiet();
    });
}
