//! What systemd thinks of a guest's unit, asked of its own analyst, offline.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const EXE: &str = env!("CARGO_BIN_EXE_gridgate");

/// The exposure of each guest's unit, from 0 (none) to 10.
fn exposure(root: &Path, guest: &str) -> f64 {
    let unit = format!("gridgate-guest@{guest}.service");
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=yes", "--no-pager", "--root"]).arg(root).arg(&unit);
    let ran = analyze.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let verdict = said.lines().find(|line| line.contains("Overall exposure level")).map(str::to_owned);
    let verdict = verdict.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&ran.stderr)));
    verdict.rsplit_once(": ").unwrap().1.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn the_unit_of_a_hypervisor_is_hardly_exposed() {
    let analyst = Command::new("systemd-analyze").args(["security", "--help"]).output();
    if !analyst.is_ok_and(|ran| String::from_utf8_lossy(&ran.stdout).contains("--offline")) {
        eprintln!("skipped: needs systemd-analyze that knows 'security --offline' (systemd 250)");
        return;
    }
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let site = root.path().join("site");
    assert!(Command::new(EXE).arg("init").arg(&site).output().unwrap().status.success());
    let units = root.path().join("etc/systemd/system");
    for (guest, backend) in [("ce", "uml"), ("se", "qemu")] {
        let file = site.join(format!("guests/{guest}.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("backend = \"{backend}\"\n{text}")).unwrap();
    }
    let made =
        Command::new(EXE).arg("--site").arg(&site).args(["units", "--to"]).arg(&units).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let template = Path::new(ROOT).join("units/gridgate-guest@.service");
    for guest in ["ce", "se"] {
        assert!(units.join(format!("gridgate-guest@{guest}.service.d/gridgate.conf")).is_file());
        // The analyst reads units, not templates.
        std::fs::copy(&template, units.join(format!("gridgate-guest@{guest}.service"))).unwrap();
        let exposure = exposure(root.path(), guest);
        assert!(exposure <= 3.0, "{guest}: {exposure}");
    }
}
