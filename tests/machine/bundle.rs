//! Machines that are made of nothing but a bundle.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use gridgate::host::disk::held;
use serde_json::Value;

use super::server::Server;
use super::{Centre, SITE, look, succeeds, table, text};

/// A centre that has its site in a bundle, and a key that others trust.
pub(crate) struct Packed {
    pub(crate) centre: Centre,
}

impl Packed {
    pub(crate) fn new() -> Option<Self> {
        let centre = Centre::new()?;
        let key = centre.at("key");
        succeeds(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        let public = fs::read_to_string(centre.at("key.pub")).unwrap();
        fs::write(centre.at("signers"), format!("ops@example.org namespaces=\"gridgate-bundle\" {public}"))
            .unwrap();
        Some(Self { centre })
    }

    pub(crate) fn pack(&self, to: &str, more: &[&str]) -> Output {
        let to = self.centre.at(to);
        let mut command = self.centre.gridgate(&["pack", "--fast", "-o", to.to_str().unwrap()]);
        command.args(more).output().unwrap()
    }

    pub(crate) fn packed(&self, to: &str, more: &[&str]) -> PathBuf {
        let key = self.centre.at("key");
        succeeded(&self.pack(to, &[&["--sign", key.to_str().unwrap()], more].concat()));
        self.centre.at(to)
    }

    /// Elsewhere: a machine with gridgate alone.
    pub(crate) fn elsewhere(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        command.arg("--state").arg(self.centre.at("elsewhere")).args(["--json", "site"]).args(args);
        command.env_remove("GRIDGATE_SITE").stdin(Stdio::null());
        command
    }

    pub(crate) fn install(&self, bundle: &Path, to: &str, more: &[&str]) -> Output {
        let (to, signers) = (self.centre.at(to), self.centre.at("signers"));
        let mut command =
            self.elsewhere(&["install", bundle.to_str().unwrap(), "--to", to.to_str().unwrap()]);
        if !more.contains(&"--insecure-unsigned") {
            command.arg("--allowed-signers").arg(signers);
        }
        command.args(["--size", "1G"]).args(more).output().unwrap()
    }

    /// What is left of what was unpacked.
    pub(crate) fn unpacked(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.centre.at("elsewhere/bundles")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

pub(crate) fn succeeded(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn refused(output: &Output, status: i32, why: &str) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(said.contains(why), "{said}");
}

#[test]
fn a_bundle_makes_the_machine_that_its_centre_would_have_made() {
    let Some(packed) = Packed::new() else { return };
    let bundle = packed.packed("dcu.bundle", &[]);
    let listed = String::from_utf8(succeeds(Command::new("tar").arg("-tf").arg(&bundle))).unwrap();
    for path in [
        ".gridgate/manifest.jsonl",
        ".gridgate/signatures",
        ".gridgate/bundle.json",
        "images/gateway/disk.ext4",
        "images/small/manifest.json",
        "sites/dcu/site.toml",
        "sites/dcu/guests/ce.toml",
        "program/usr/local/bin/gridgate",
        "program/usr/local/lib/systemd/system/gridgate.target",
    ] {
        assert!(listed.lines().any(|line| line == path), "{path} is not in\n{listed}");
    }
    assert!(!listed.contains("identit"), "{listed}");

    let report = succeeded(&packed.install(&bundle, "out/disk", &["--site", "dcu"]));
    assert_eq!(report["site"], "dcu");
    assert_eq!(packed.unpacked(), Vec::<PathBuf>::new());
    let disk = packed.centre.at("out/disk");
    assert_eq!(table(&disk).len(), 4);
    look(&disk, "gridgate-root", |root| {
        assert_eq!(text(root, "/etc/hostname"), "gw\n");
        assert!(text(root, "/etc/gridgate/site.toml").contains("name = \"dcu\""));
        assert!(text(root, "/usr/local/lib/systemd/system/gridgate.target").contains("[Unit]"));
        let program = fs::read(held(&root.as_fd()).join("usr/local/bin/gridgate")).unwrap();
        assert!(program == fs::read(env!("CARGO_BIN_EXE_gridgate")).unwrap(), "gridgate is the bundle's");
    });
    look(&disk, "gridgate-data", |root| {
        for guest in ["ce", "ui"] {
            assert!(root.read(Path::new(&format!("/guests/{guest}/identity.json"))).unwrap().is_some());
        }
        let golden = fs::read(packed.centre.at("state/images/small/disk.ext4")).unwrap();
        let copied = fs::read(held(&root.as_fd()).join("images/small/disk.ext4")).unwrap();
        assert!(golden == copied, "the golden image is what was built");
    });
    let told = succeeded(&packed.elsewhere(&["report", "--site", "dcu"]).output().unwrap());
    assert_eq!(told, report);
    // And again: it is known by the same keys, which are kept here.
    let again = succeeded(&packed.install(&bundle, "out/disk", &["--yes"]));
    assert_eq!(report["machines"], again["machines"]);
}

#[test]
fn a_bundle_that_nobody_who_is_trusted_has_signed_is_refused() {
    let Some(packed) = Packed::new() else { return };
    succeeded(&packed.pack("unsigned", &[]));
    let unsigned = packed.centre.at("unsigned");
    refused(&packed.install(&unsigned, "out/disk", &[]), 4, "it is not signed");
    let bundle = packed.packed("signed", &[]);
    fs::rename(packed.centre.at("key"), packed.centre.at("other")).unwrap();
    succeeds(
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(packed.centre.at("key")),
    );
    let stranger = packed.packed("stranger", &[]);
    refused(&packed.install(&stranger, "out/disk", &[]), 4, "is not in");
    // One who is trusted with images alone; and a bundle that was signed afterwards is signed as one.
    let signers = fs::read_to_string(packed.centre.at("signers")).unwrap();
    fs::write(packed.centre.at("signers"), signers.replace("gridgate-bundle", "gridgate-image")).unwrap();
    refused(&packed.install(&bundle, "out/disk", &[]), 4, "sign for 'gridgate-bundle'");
    fs::write(packed.centre.at("signers"), signers).unwrap();
    let signed = packed.centre.at("signed-later");
    fs::copy(&unsigned, &signed).unwrap();
    let mut sign = Command::new(env!("CARGO_BIN_EXE_gridgate"));
    succeeds(sign.args(["image", "sign"]).arg(&signed).arg("--key").arg(packed.centre.at("other")));
    succeeded(&packed.install(&signed, "out/disk", &["--dry-run"]));
    // Nobody is known there at all.
    let mut nobody =
        packed.elsewhere(&["install", bundle.to_str().unwrap(), "--to", "/nonexistent/x", "--size", "1G"]);
    if Path::new("/etc/gridgate/allowed_signers").exists() {
        eprintln!("skipped: this machine knows signers of its own");
    } else {
        refused(&nobody.output().unwrap(), 4, "nobody is known here who may sign");
    }
    assert_eq!(packed.centre.beside(), Vec::<String>::new());
    let output = packed.install(&unsigned, "out/disk", &["--insecure-unsigned"]);
    assert!(said(&output).contains("nobody vouches for bundle"), "{}", said(&output));
    succeeded(&output);
}

#[test]
fn a_bundle_that_was_changed_or_cut_off_is_refused_and_leaves_nothing() {
    let Some(packed) = Packed::new() else { return };
    let bundle = packed.packed("dcu.bundle", &[]);
    let whole = fs::read(&bundle).unwrap();
    let broken = packed.centre.at("broken");
    for at in (0..10).map(|part| whole.len() / 10 * part + 5) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&broken, &bytes).unwrap();
        let output = packed.install(&broken, "out/disk", &[]);
        assert!(matches!(output.status.code(), Some(1 | 4)), "byte {at}: {}", said(&output));
        fs::write(&broken, &whole[..at]).unwrap();
        let output = packed.install(&broken, "out/disk", &[]);
        assert_eq!(output.status.code(), Some(1), "cut at {at}: {}", said(&output));
    }
    assert_eq!(packed.centre.beside(), Vec::<String>::new());
    assert_eq!(packed.unpacked(), Vec::<PathBuf>::new());
}

#[test]
fn the_same_inputs_give_the_same_bundle() {
    let Some(packed) = Packed::new() else { return };
    let first = fs::read(packed.packed("first", &[])).unwrap();
    // The same files, but new ones, with other times and other holes.
    for name in ["state/images/small/disk.ext4", "state/images/gateway/disk.ext4", "site/site.toml"] {
        let path = packed.centre.at(name);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let second = fs::read(packed.packed("second", &[])).unwrap();
    assert!(first == second, "{} and {} bytes", first.len(), second.len());
}

#[test]
fn a_fleet_is_in_one_bundle_and_a_table_makes_all_of_it() {
    let Some(packed) = Packed::new() else { return };
    let other = packed.centre.at("other");
    fs::create_dir_all(other.join("guests")).unwrap();
    fs::write(other.join("site.toml"), SITE.replace("\"dcu\"", "\"ucc\"")).unwrap();
    fs::write(other.join("guests/wn.toml"), "").unwrap();
    let (site, dir) = (packed.centre.at("site"), other.to_str().unwrap());
    let bundle = packed.packed("fleet", &[site.to_str().unwrap(), dir]);
    let shown = succeeded(&packed.elsewhere(&["show", bundle.to_str().unwrap()]).output().unwrap());
    let names: Vec<&Value> =
        shown["bundle"]["sites"].as_array().unwrap().iter().map(|site| &site["name"]).collect();
    assert_eq!(names, ["dcu", "ucc"]);
    assert_eq!(shown["signed"], true);

    refused(
        &packed.install(&bundle, "out/x", &[]),
        2,
        "the bundle has 2 sites, and none was named: dcu, ucc",
    );
    refused(
        &packed.install(&bundle, "out/x", &["--site", "cork"]),
        2,
        "--site (or $GRIDGATE_SITE) is the name of a site in it",
    );
    let rows = packed.centre.at("rows.csv");
    fs::write(&rows, "site,target,size\ndcu,out/dcu,1G\nucc,out/ucc,1G\n").unwrap();
    let (name, signers) = (bundle.to_str().unwrap(), packed.centre.at("signers"));
    let args =
        ["install", name, "--table", rows.to_str().unwrap(), "--allowed-signers", signers.to_str().unwrap()];
    let made = succeeded(&packed.elsewhere(&args).output().unwrap());
    let sites: Vec<&Value> =
        made["machines"].as_array().unwrap().iter().map(|made| &made["report"]["site"]).collect();
    assert_eq!(sites, ["dcu", "ucc"]);
    look(&packed.centre.at("out/ucc"), "gridgate-data", |root| {
        assert!(root.read(Path::new("/guests/wn/identity.json")).unwrap().is_some());
    });
    fs::write(&rows, "site,target,size\ncork,out/cork,1G\n").unwrap();
    refused(&packed.elsewhere(&args).output().unwrap(), 2, "the bundle has no site 'cork'");
    let twice = packed.pack("twice", &[dir, dir]);
    refused(&twice, 2, "two sites are called 'ucc'");
}

#[test]
fn a_site_that_was_meant_to_come_out_of_a_bundle_is_told_how() {
    let Some(packed) = Packed::new() else { return };
    let to = packed.centre.at("out/x");
    let mut command =
        packed.elsewhere(&["install", "--site", "dcu", "--to", to.to_str().unwrap(), "--size", "1G"]);
    let output = command.current_dir(packed.centre.at("out")).output().unwrap();
    refused(&output, 2, "gridgate site install BUNDLE --site dcu");
}

#[test]
fn secrets_stay_at_the_centre_unless_they_are_asked_for() {
    let Some(packed) = Packed::new() else { return };
    let secret = packed.centre.at("site/keys/munge.key");
    fs::create_dir_all(secret.parent().unwrap()).unwrap();
    fs::write(&secret, [b'M'; 64]).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(packed.centre.at("site/guests/ce.toml"), "[keys]\nmunge = \"keys/munge.key\"\n").unwrap();
    let first = succeeded(&packed.centre.install(&packed.centre.at("out/centre"), &["--size", "1G"]));

    let bundle = packed.packed("without", &[]);
    let shown = succeeded(&packed.elsewhere(&["show", bundle.to_str().unwrap()]).output().unwrap());
    assert_eq!(shown["bundle"]["sites"][0]["left_out"][0], "keys/munge.key");
    refused(
        &packed.install(&bundle, "out/x", &[]),
        2,
        "secret files that are not in the bundle: keys/munge.key",
    );
    let site = packed.centre.at("site");
    let made = succeeded(&packed.install(&bundle, "out/x", &["--keys", site.to_str().unwrap()]));
    assert_ne!(made["machines"][0]["host_keys"], first["machines"][0]["host_keys"]);

    let bundle = packed.packed("with", &["--with-keys"]);
    assert_eq!(fs::metadata(&bundle).unwrap().permissions().mode() & 0o777, 0o600);
    let output = packed.install(&bundle, "out/y", &[]);
    assert!(said(&output).contains("identities of the bundle are passed over"), "{}", said(&output));
    assert_eq!(succeeded(&output)["machines"], made["machines"], "what was drawn here stays");
    fs::remove_dir_all(packed.centre.at("elsewhere")).unwrap();
    assert_eq!(succeeded(&packed.install(&bundle, "out/z", &[]))["machines"], first["machines"]);

    // A key that no file of the site speaks of.
    fs::copy(packed.centre.at("key"), packed.centre.at("site/forgotten")).unwrap();
    refused(&packed.pack("never", &[]), 4, "there are private keys in it:\n  /sites/dcu/forgotten");
    assert!(!packed.centre.at("never").exists());
}

#[test]
fn a_bundle_comes_out_of_a_pipe() {
    let Some(packed) = Packed::new() else { return };
    let bundle = packed.packed("dcu.bundle", &[]);
    let (to, signers) = (packed.centre.at("out/disk"), packed.centre.at("signers"));
    let mut command = packed.elsewhere(&["install", "-", "--to", to.to_str().unwrap(), "--size", "1G"]);
    command.arg("--allowed-signers").arg(signers).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&fs::read(bundle).unwrap()).unwrap();
    drop(input);
    succeeded(&child.wait_with_output().unwrap());
    assert_eq!(table(&to).len(), 4);
}

#[test]
fn a_bundle_is_read_from_a_web_server_whose_answers_break_off() {
    let Some(packed) = Packed::new() else { return };
    if Command::new("curl").arg("-V").output().is_err() {
        return eprintln!("skipped: no curl here");
    }
    let server = Server::of(fs::read(packed.packed("dcu.bundle", &[])).unwrap(), true);
    let shown = succeeded(&packed.elsewhere(&["show", &server.url("a")]).output().unwrap());
    assert_eq!(shown["bundle"]["sites"][0]["name"], "dcu");
    succeeded(&packed.install(Path::new(&server.url("a")), "out/disk", &["--site", "dcu"]));
    assert_eq!(table(&packed.centre.at("out/disk")).len(), 4);
    refused(&packed.install(Path::new(&server.url("gone")), "out/none", &[]), 1, "404");
    assert!(!packed.centre.at("out/none").exists());
}

#[test]
fn what_is_no_bundle_is_told_apart() {
    let Some(packed) = Packed::new() else { return };
    let archive = packed.centre.at("image.tar.zst");
    let gridgate = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        command.arg("--state").arg(packed.centre.at("state")).arg("image");
        command
    };
    succeeds(gridgate().args(["pack", "small", "-o"]).arg(&archive));
    refused(
        &packed.install(&archive, "out/x", &["--insecure-unsigned"]),
        1,
        "it is an archive, but no bundle",
    );
    let bundle = packed.packed("dcu.bundle", &[]);
    let output =
        gridgate().args(["restore", "--insecure-unsigned", "--as", "x"]).arg(&bundle).output().unwrap();
    refused(&output, 2, "is a bundle of whole machines");
    let nothing = packed.centre.at("signers");
    refused(
        &packed.elsewhere(&["show", nothing.to_str().unwrap()]).output().unwrap(),
        1,
        "is not an archive",
    );
}

#[test]
fn an_image_that_has_changed_or_starts_nothing_is_not_packed() {
    let Some(packed) = Packed::new() else { return };
    refused(&packed.pack("x", &["--image", "small"]), 1, "cannot start a machine");
    let disk = packed.centre.at("state/images/small/disk.ext4");
    let mut file = File::options().read(true).write(true).open(&disk).unwrap();
    // The last byte belongs to no file and is not in a hole's neighbourhood.
    file.seek(SeekFrom::End(-1)).unwrap();
    let mut byte = [0];
    file.read_exact(&mut byte).unwrap();
    file.write_all_at(&[byte[0] ^ 1], fs::metadata(&disk).unwrap().len() - 1).unwrap();
    refused(&packed.pack("x", &[]), 1, "'disk.ext4' has changed since it was built");
    assert!(!packed.centre.at("x").exists());
}
