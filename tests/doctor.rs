//! The doctor on the machine at hand: what it says must be consistent, whatever this machine can do.

use gridgate::facts::backends::{backends, probe_backends};
use gridgate::facts::doctor::diagnose;
use gridgate::host::Live;
use gridgate::paths::Paths;

#[test]
fn every_check_that_fails_says_why_and_nothing_but_the_record_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path(), dir.path());
    let diagnosis = diagnose(&Live, &paths).unwrap();
    let names: Vec<&str> = diagnosis.checks.iter().take(4).map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["backend uml", "backend qemu", "backend qemu with kvm", "backend nspawn"]);
    for check in &diagnosis.checks {
        assert!(check.ok || !check.why.is_empty(), "{check:?}");
        assert!(!check.ok || check.mend.is_none(), "{check:?}");
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["host.json"]);
    // Remembered, so that the second look boots nothing.
    let remembered = backends(&Live, &paths).unwrap();
    assert_eq!(remembered.qemu.works, diagnosis.checks[1].ok);
    std::fs::write(dir.path().join("host.json"), b"{").unwrap();
    assert_eq!(backends(&Live, &paths).unwrap().fingerprint, remembered.fingerprint);
}

#[test]
fn qemu_in_software_runs_the_probe_where_it_is_installed() {
    if !std::path::Path::new("/usr/bin/qemu-system-x86_64").exists() {
        return eprintln!("skipped: QEMU is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let found = probe_backends(&Live, &Paths::new(dir.path(), dir.path())).unwrap();
    assert!(found.qemu.works, "{}", found.qemu.why);
}
