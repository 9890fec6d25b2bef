//! `make install` and `make uninstall`, for real, into a directory that stands for a machine.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use gridgate::cli::Cli;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const EXE: &str = env!("CARGO_BIN_EXE_gridgate");

/// With a binary that is there already, and without a cargo that could build another.
fn make(target: &str, machine: &Path) {
    let mut make = Command::new("make");
    make.current_dir(ROOT).args(["--silent", target, "PREFIX=/usr", "CARGO=false"]);
    make.arg(format!("GRIDGATE={EXE}")).arg(format!("DESTDIR={}", machine.display()));
    let ran = make.env_remove("MAKEFLAGS").output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.is_empty(), "make {target} said: {said}");
}

fn installed() -> tempfile::TempDir {
    let machine = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    make("install", machine.path());
    machine
}

/// All files and their modes.
fn files(machine: &Path) -> BTreeSet<(String, u32)> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![machine.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(machine).unwrap().to_str().unwrap().to_owned();
                found.insert((name, meta.permissions().mode() & 0o7777));
            }
        }
    }
    found
}

/// Words of the verbs that people type, such as `image-build`.
fn verbs() -> Vec<String> {
    below(&Cli::command(), "")
}

fn below(verb: &clap::Command, before: &str) -> Vec<String> {
    let mut names = Vec::new();
    for inner in verb.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        let name = format!("{before}{}", inner.get_name());
        names.extend(below(inner, &format!("{name}-")));
        names.push(name);
    }
    names
}

/// What bash offers for the last of these words.
fn offers(machine: &Path, words: &[&str]) -> Vec<String> {
    let completions = machine.join("usr/share/bash-completion/completions/gridgate");
    let script = format!(
        "source '{}'; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1))
         $(complete -p gridgate | sed 's/.*-F \\([^ ]*\\).*/\\1/') gridgate \"${{@: -1}}\" \"${{@: -2:1}}\"
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        completions.display()
    );
    let path = format!("{}:/usr/bin:/bin", machine.join("usr/bin").display());
    let ran =
        Command::new("bash").args(["-c", &script, "bash"]).args(words).env("PATH", path).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout)
        .unwrap()
        .lines()
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn install_puts_everything_in_its_place() {
    let machine = installed();
    let mut expected: BTreeSet<(String, u32)> = BTreeSet::new();
    let mut expect = |name: String, mode: u32| assert!(expected.insert((name, mode)));
    expect("usr/bin/gridgate".to_owned(), 0o755);
    expect("usr/lib/gridgate/fetch-uml".to_owned(), 0o755);
    // It is a link to the program; links have this mode.
    expect("usr/lib/systemd/system-generators/gridgate-generator".to_owned(), 0o777);
    expect("etc/default/gridgate".to_owned(), 0o644);
    for (from, to) in [
        ("units", "usr/lib/systemd/system"),
        ("images", "usr/share/gridgate/images"),
        ("profiles", "usr/share/gridgate/profiles"),
        ("profiles/features", "usr/share/gridgate/profiles/features"),
        ("profiles/templates", "usr/share/gridgate/profiles/templates"),
    ] {
        for entry in std::fs::read_dir(Path::new(ROOT).join(from)).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if name != "defaults" && entry.path().is_file() {
                expect(format!("{to}/{name}"), 0o644);
            }
        }
    }
    expect("usr/share/man/man1/gridgate.1".to_owned(), 0o644);
    for verb in verbs() {
        expect(format!("usr/share/man/man1/gridgate-{verb}.1"), 0o644);
    }
    for shell in [
        "bash-completion/completions/gridgate",
        "zsh/site-functions/_gridgate",
        "fish/vendor_completions.d/gridgate.fish",
    ] {
        expect(format!("usr/share/{shell}"), 0o644);
    }
    assert_eq!(files(machine.path()), expected);
    let generator = machine.path().join("usr/lib/systemd/system-generators/gridgate-generator");
    assert_eq!(
        generator.canonicalize().unwrap(),
        machine.path().join("usr/bin/gridgate").canonicalize().unwrap()
    );
}

#[test]
fn uninstall_leaves_nothing_but_what_was_changed() {
    let machine = installed();
    make("install", machine.path());
    make("uninstall", machine.path());
    assert_eq!(files(machine.path()), BTreeSet::new());
    for dir in ["usr/share/gridgate", "usr/lib/gridgate"] {
        assert!(!machine.path().join(dir).exists(), "{dir}");
    }
    make("uninstall", machine.path());

    make("install", machine.path());
    let defaults = machine.path().join("etc/default/gridgate");
    std::fs::write(&defaults, "GRIDGATE_STATE=/srv/gridgate\n").unwrap();
    let own = machine.path().join("usr/share/gridgate/images/own.toml");
    std::fs::write(&own, "").unwrap();
    make("install", machine.path());
    make("uninstall", machine.path());
    assert_eq!(std::fs::read_to_string(&defaults).unwrap(), "GRIDGATE_STATE=/srv/gridgate\n");
    let left: Vec<String> = files(machine.path()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["etc/default/gridgate", "usr/share/gridgate/images/own.toml"]);
}

#[test]
fn every_manual_page_is_one() {
    let machine = installed();
    let has_man = Command::new("man").arg("--version").output().is_ok();
    if !has_man {
        eprintln!("skipped in part: no 'man' here to set the pages with");
    }
    for entry in std::fs::read_dir(machine.path().join("usr/share/man/man1")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let title = path.file_stem().unwrap().to_str().unwrap();
        for wanted in [&format!(".TH {title} 1 "), ".SH NAME\n", ".SH SYNOPSIS\n", ".SH OPTIONS\n"] {
            assert!(text.contains(wanted), "{title}: no '{wanted}'");
        }
        if has_man {
            let set = Command::new("man").args(["--warnings", "--local-file"]).arg(&path).output().unwrap();
            assert!(
                set.status.success() && set.stderr.is_empty(),
                "{title}: {}",
                String::from_utf8_lossy(&set.stderr)
            );
        }
    }
}

#[test]
fn bash_completes_verbs_and_the_names_of_guests() {
    let machine = installed();
    let script = machine.path().join("usr/share/bash-completion/completions/gridgate");
    assert!(Command::new("bash").arg("-n").arg(&script).status().unwrap().success());
    assert_eq!(offers(machine.path(), &["gridgate", "st"]), ["status", "start", "stop"]);
    let all = offers(machine.path(), &["gridgate", ""]);
    for verb in verbs().iter().filter(|verb| !verb.contains('-')) {
        assert!(all.contains(verb), "{verb} in {all:?}");
    }
    for hidden in ["launch", "hold", "unit", "network", "generate", "names"] {
        assert!(!all.iter().any(|offered| offered == hidden), "{hidden} in {all:?}");
    }

    let site = machine.path().join("site");
    assert!(Command::new(EXE).arg("init").arg(&site).output().unwrap().status.success());
    let site = site.to_str().unwrap();
    let offered =
        |verb: &str, begun: &str| offers(machine.path(), &["gridgate", "--site", site, verb, begun]);
    for verb in ["up", "down", "start", "stop", "restart", "kill", "wait", "console", "ssh", "status", "plan"]
    {
        let names = offered(verb, "");
        for guest in ["ce", "se", "ui", "wn"] {
            assert!(names.iter().any(|name| name == guest), "{guest} after {verb}: {names:?}");
        }
    }
    assert_eq!(offered("stop", "c"), ["ce"]);
    assert_eq!(offered("check", "c"), Vec::<String>::new());
    assert_eq!(
        offers(machine.path(), &["gridgate", "--site", "/nowhere", "stop", "c"]),
        Vec::<String>::new()
    );
}
