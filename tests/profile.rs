//! `gridgate profile`, for real: a site, and a tree that stands for a guest's filesystem.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    fn new(files: &[(&str, &str)]) -> Self {
        let stage = Self { dir: tempfile::tempdir().unwrap() };
        let made = stage.gridgate(&["init", stage.path("site").to_str().unwrap()]);
        assert!(made.status.success());
        for (name, text) in files {
            let path = stage.path("site").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        for sub in ["etc", "var/lib", "bin", "dev", "proc", "tmp"] {
            std::fs::create_dir_all(stage.path("tree").join(sub)).unwrap();
        }
        for (path, text) in [
            ("etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
            ("etc/group", "root:x:0:\n"),
            ("etc/motd", "old\n"),
        ] {
            std::fs::write(stage.path("tree").join(path), text).unwrap();
        }
        stage
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn gridgate(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        command.arg("--site").arg(self.path("site")).arg("--state").arg(self.path("state"));
        command.args(args).output().unwrap()
    }

    /// With the tree as the guest's filesystem.
    fn on_tree(&self, args: &[&str]) -> Output {
        let tree = self.path("tree");
        self.gridgate(&[args, &["--tree", tree.to_str().unwrap()]].concat())
    }

    /// A program of this machine and its libraries, in the tree.
    fn give(&self, program: &str) {
        let tree = self.path("tree");
        let name = Path::new(program).file_name().unwrap();
        copied(Path::new(program), &tree.join("bin").join(name));
        let linked = Command::new("ldd").arg(program).output().unwrap();
        for library in
            String::from_utf8_lossy(&linked.stdout).split_whitespace().filter(|word| word.starts_with('/'))
        {
            let inside = tree.join(library.trim_start_matches('/'));
            std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
            copied(Path::new(library), &inside);
        }
    }
}

/// By another process: a file that this one has open for writing, and with it a child that another test forks, cannot be run.
fn copied(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root gives files to others and makes namespaces");
    }
    root
}

#[test]
fn a_profile_is_shown_compared_compiled_and_taken_back() {
    if !is_root() {
        return;
    }
    let stage = Stage::new(&[]);
    let shown = stage.gridgate(&["profile", "render", "ui", "/etc/arc/client.conf"]);
    assert!(text(&shown.stdout).contains("url = https://ce.my-site.internal:443/arex\n"));
    let diff = stage.on_tree(&["profile", "render", "ui", "/etc/motd", "--diff"]);
    assert_eq!(diff.status.code(), Some(3));
    assert!(text(&diff.stdout).starts_with("/etc/motd changed\n") && text(&diff.stdout).contains("-old\n"));
    assert_eq!(std::fs::read_to_string(stage.path("tree/etc/motd")).unwrap(), "old\n");

    let compiled = stage.on_tree(&["profile", "compile", "ui"]);
    assert!(compiled.status.success(), "{}", text(&compiled.stderr));
    assert!(
        text(&compiled.stderr).contains("ui: profile 'ui' is generation 1"),
        "{}",
        text(&compiled.stderr)
    );
    assert_eq!(stage.on_tree(&["profile", "render", "ui", "--diff"]).status.code(), Some(0));

    let guest = stage.path("site/guests/ui.toml");
    let before = std::fs::read_to_string(&guest).unwrap();
    std::fs::write(&guest, format!("{before}\n[variables]\ncontact = \"us\"\n")).unwrap();
    assert_eq!(stage.on_tree(&["profile", "render", "ui", "--diff"]).status.code(), Some(3));
    assert!(stage.on_tree(&["profile", "compile", "ui"]).status.success());
    let motd = || std::fs::read_to_string(stage.path("tree/etc/motd")).unwrap();
    assert!(motd().contains("Questions: us"));
    let back = stage.on_tree(&["profile", "rollback", "ui"]);
    assert!(back.status.success(), "{}", text(&back.stderr));
    assert!(!motd().contains("Questions"));
    let current = std::fs::read_link(stage.path("tree/var/lib/gridgate/profile/current")).unwrap();
    assert_eq!(current, Path::new("1"));
}

#[test]
fn what_is_wrong_with_a_profile_is_found_by_check_with_its_line() {
    let stage = Stage::new(&[
        (
            "profiles/features/munge.toml",
            "description = \"x\"\n[[file]]\npath = \"/etc/x\"\ntemplate = \"own\"\n",
        ),
        ("profiles/templates/own", "a\n{{ vars.typo }}\n"),
    ]);
    let checked = stage.gridgate(&["check"]);
    assert_eq!(checked.status.code(), Some(2));
    let told = text(&checked.stderr);
    assert!(told.contains("profiles/templates/own:2:9: there is no variable 'typo'"), "{told}");
    let rendered = stage.gridgate(&["profile", "render", "ce"]);
    assert_eq!(rendered.status.code(), Some(2), "{}", text(&rendered.stderr));
    assert_eq!(stage.gridgate(&["profile", "render", "ui"]).status.code(), Some(0));
}

#[test]
fn the_guest_s_own_compiler_runs_in_its_tree_and_only_once() {
    if !is_root() {
        return;
    }
    let own =
        "description = \"own\"\n[compiler]\ncommand = [\"/bin/compile\"]\nwrites = [\"/var/lib/out\"]\n";
    let stage = Stage::new(&[("profiles/own.toml", own), ("guests/ui.toml", "profile = \"own\"\n")]);
    let tree = stage.path("tree");
    std::fs::create_dir(tree.join("var/lib/out")).unwrap();
    for program in ["/bin/sh", "/bin/ls"] {
        stage.give(program);
    }
    let compiler = |script: &str| {
        let text = stage.path("compile");
        std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).unwrap();
        copied(&text, &tree.join("bin/compile"));
    };
    compiler("echo failing; exit 7");
    let failed = stage.on_tree(&["profile", "compile", "ui"]);
    assert_eq!(failed.status.code(), Some(1));
    let told = text(&failed.stderr);
    assert!(
        told.contains("the guest's compiler '/bin/compile' ended with status 7; it said:\nfailing"),
        "{told}"
    );

    compiler("ls $GRIDGATE_PROFILE/ >>/var/lib/out/ran; echo x >/etc/sneaky");
    let compiled = stage.on_tree(&["profile", "compile", "ui"]);
    let told = text(&compiled.stderr);
    assert!(compiled.status.success(), "{told}");
    assert!(told.contains("the guest's compiler changed '/etc/sneaky', which it does not declare"), "{told}");
    assert!(!told.contains("/var/lib/out"), "{told}");
    let ran = || std::fs::read_to_string(tree.join("var/lib/out/ran")).unwrap();
    assert_eq!(ran(), "document.json\nprofile.sh\nprofile.xml\nquattor.json\n");
    let again = stage.on_tree(&["profile", "compile", "ui"]);
    assert!(text(&again.stderr).contains("0 paths changed"), "{}", text(&again.stderr));
    assert_eq!(ran().lines().count(), 4);

    std::fs::remove_file(tree.join("etc/sneaky")).unwrap();
    std::fs::write(tree.join("var/lib/gridgate/profile/compiled"), "another\n").unwrap();
    let strict = stage.on_tree(&["profile", "compile", "ui", "--strict"]);
    assert_eq!(strict.status.code(), Some(1), "{}", text(&strict.stderr));
    assert!(!tree.join("etc/sneaky").exists());
}

#[test]
fn a_guest_without_a_shell_is_told_of_and_the_built_in_compiler_needs_none() {
    if !is_root() {
        return;
    }
    let own = "description = \"own\"\nextends = \"base\"\n[compiler]\ncommand = [\"rdxprof\"]\n";
    let stage = Stage::new(&[("profiles/own.toml", own), ("guests/ui.toml", "profile = \"own\"\n")]);
    let failed = stage.on_tree(&["profile", "compile", "ui"]);
    assert_eq!(failed.status.code(), Some(1));
    let told = text(&failed.stderr);
    assert!(told.contains("the guest has no program 'rdxprof'\nhint: without [compiler]"), "{told}");
    assert!(stage.on_tree(&["profile", "compile", "wn"]).status.success());
}

#[test]
fn other_tools_forms_go_out_and_come_in() {
    let stage = Stage::new(&[]);
    for format in ["json", "lcfg-xml", "quattor-xml", "quattor-json", "shell", "yaim"] {
        let out = stage.gridgate(&["profile", "export", "wn", "--format", format]);
        assert!(out.status.success() && out.stdout.len() > 200, "{format}: {}", text(&out.stderr));
    }
    let to = stage.path("out");
    let out = stage.gridgate(&["profile", "export", "ce", "--format", "yaim", "--to", to.to_str().unwrap()]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let users = to.join("users.conf");
    let read = stage.gridgate(&["profile", "import", "--format", "yaim", users.to_str().unwrap()]);
    assert!(read.status.success(), "{}", text(&read.stderr));
    std::fs::create_dir_all(stage.path("site/profiles")).unwrap();
    std::fs::write(stage.path("site/profiles/taken.toml"), &read.stdout).unwrap();
    std::fs::write(stage.path("site/guests/wn.toml"), "profile = \"taken\"\n").unwrap();
    let shown = stage.gridgate(&["profile", "show", "wn"]);
    assert!(text(&shown.stdout).contains("20001 grid001"), "{}", text(&shown.stderr));
    let bad = stage.path("bad.def");
    std::fs::write(&bad, "CE_HOST=$(hostname)\n").unwrap();
    let refused = stage.gridgate(&["profile", "import", "--format", "yaim", bad.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("bad.def:1:"), "{}", text(&refused.stderr));
}

/// A package that holds nothing, put into the tree's database by the machine's own rpm.
fn install_rpm(stage: &Stage) -> bool {
    let spec = "Name: present\nVersion: 1\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\nProvides: virtual\n\
                %description\nx\n%files\n";
    std::fs::write(stage.path("p.spec"), spec).unwrap();
    let run = |program: &str, args: &[&str]| {
        let ran = Command::new(program).args(args).current_dir(stage.dir.path()).output();
        ran.is_ok_and(|ran| ran.status.success())
    };
    let top = format!("_topdir {}", stage.path("rpm").display());
    if !run("rpmbuild", &["-bb", "--define", &top, "p.spec"]) {
        return false;
    }
    let tree = stage.path("tree").display().to_string();
    let made = "rpm/RPMS/noarch/present-1-1.noarch.rpm";
    let database = ["--root", &tree, "--dbpath", "/var/lib/rpm"];
    run("rpm", &[&database[..], &["--initdb"]].concat())
        && run(
            "rpm",
            &[&database[..], &["--install", "--justdb", "--nodeps", "--nosignature", made]].concat(),
        )
}

#[test]
fn missing_packages_of_a_guest_with_rpm_are_found_by_the_guests_own_rpm() {
    if !is_root() {
        return;
    }
    let feature = "description = \"x\"\npackages = [\"present\", \"virtual\", \"absent\"]\n";
    let guest = "address = \"10.77.0.12\"\nprofile = \"base\"\nfeatures = [\"trial\"]\n";
    let stage = Stage::new(&[("profiles/features/trial.toml", feature), ("guests/ui.toml", guest)]);
    let compiled = |stage: &Stage| {
        let ran = stage.on_tree(&["profile", "compile", "ui", "--json"]);
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        serde_json::from_slice::<serde_json::Value>(&ran.stdout).unwrap()
    };
    let note = compiled(&stage)["notes"].to_string();
    assert!(note.contains("whether its packages are there is not known: neither dpkg nor rpm"), "{note}");
    if !install_rpm(&stage) {
        return eprintln!("skipped in part: there is no rpmbuild here");
    }
    assert!(compiled(&stage)["notes"].to_string().contains("the guest has no program 'rpm'"));
    stage.give("/usr/bin/rpm");
    std::fs::create_dir_all(stage.path("tree/usr/lib")).unwrap();
    let config = Command::new("cp").args(["-r", "/usr/lib/rpm"]).arg(stage.path("tree/usr/lib")).status();
    assert!(config.unwrap().success());
    std::fs::create_dir_all(stage.path("tree/root")).unwrap();
    std::fs::write(stage.path("tree/root/.rpmmacros"), "%_dbpath /var/lib/rpm\n").unwrap();
    let found = compiled(&stage);
    let missing: Vec<&str> =
        found["missing_packages"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert!(missing.contains(&"absent") && !missing.contains(&"present"), "{found}");
    assert!(!missing.contains(&"virtual"), "{found}");
}
