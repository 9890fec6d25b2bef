//! Whatever the shell-variable reader accepts, bash reads the same, and dash where dash knows the syntax.
//!
//! Files found on this system, generated ones, and damaged copies of both go through the reader; those that it accepts
//! are sourced by a real shell in an empty environment, many to a process.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gridgate::config::shell;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

type Variables = BTreeMap<String, Vec<u8>>;

/// Every file that the reader accepts, with what it read.
fn accepted(files: &[Vec<u8>]) -> Vec<(&Vec<u8>, Variables)> {
    let read =
        |file| shell::parse(file).ok().map(|s| s.variables.into_iter().map(|v| (v.name, v.value)).collect());
    files.iter().filter_map(|file| Some((file, read(file)?))).collect()
}

/// Printed behind each file's variables.
const END: &[u8] = b"@@next@@";

/// Sources each file in a fresh subshell of one shell, and gives the variables that were set by it: of all names that
/// bash knows, or, as dash cannot list names, of those that stand in the file.
fn source(program: &str, files: &[(&Vec<u8>, Variables)]) -> Vec<Result<Variables, String>> {
    let dir = tempfile::tempdir().unwrap();
    let mut script = String::new();
    let names_in_bash =
        || ('A'..='Z').chain('a'..='z').chain(['_']).map(|c| format!("${{!{c}*}}")).collect::<Vec<_>>();
    for (number, (content, read)) in files.iter().enumerate() {
        fs::write(dir.path().join(format!("{number}")), content).unwrap();
        let names = match program {
            "bash" => names_in_bash().join(" "),
            _ => words(content).into_iter().chain(read.keys().cloned()).collect::<Vec<_>>().join(" "),
        };
        script.push_str(&format!(
            "( . ./{number} >out{number} 2>err{number}; printf '%s\\0' @ $?\n\
             for __n in {names}; do eval \"[ \\\"\\${{$__n+x}}\\\" ] && printf '%s\\\\0%s\\\\0' $__n \\\"\\$$__n\\\"\"; done )\n\
             printf '@@next@@\\0'\n"
        ));
    }
    fs::write(dir.path().join("script"), script).unwrap();
    let output = Command::new(program)
        .args(["script"])
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let mut fields = output.stdout.split(|b| *b == 0).map(<[u8]>::to_vec);
    let mut results = Vec::new();
    for (number, (_, read)) in files.iter().enumerate() {
        let of_file: Vec<Vec<u8>> = fields.by_ref().take_while(|field| field != END).collect();
        let said = fs::read(dir.path().join(format!("err{number}"))).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        // A locale that is not installed is told of, and changes nothing.
        let clean = said.is_empty() || said.contains("setlocale: ") && !said.contains("error");
        let Some(([mark, status], fields)) = of_file.split_first_chunk().filter(|_| clean) else {
            results.push(Err(said.into_owned()));
            continue;
        };
        assert_eq!(mark, b"@");
        if status != b"0" {
            results.push(Err(format!("status {}: {said}", status.escape_ascii())));
            continue;
        }
        let named = fields
            .chunks_exact(2)
            .map(|pair| (String::from_utf8_lossy(&pair[0]).into_owned(), pair[1].clone()));
        results.push(Ok(named.filter(|(name, _)| !set_at_start(name) || read.contains_key(name)).collect()));
    }
    results
}

/// Names in a file that could be variables.
fn words(content: &[u8]) -> Vec<String> {
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let words = content.split(|b| !is_name(b)).filter(|w| w.first().is_some_and(|b| !b.is_ascii_digit()));
    let mut words: Vec<String> = words.map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    words.sort();
    words.dedup();
    words
}

/// Variables that a shell has before it reads anything, here.
fn set_at_start(name: &str) -> bool {
    let fixed = [
        "_",
        "__n",
        "COMP_WORDBREAKS",
        "DIRSTACK",
        "EPOCHREALTIME",
        "EPOCHSECONDS",
        "EUID",
        "FUNCNAME",
        "GROUPS",
        "HISTCMD",
        "HOSTNAME",
        "HOSTTYPE",
        "IFS",
        "LC_ALL",
        "LINENO",
        "MACHTYPE",
        "OLDPWD",
        "OPTERR",
        "OPTIND",
        "OSTYPE",
        "PATH",
        "PPID",
        "PS1",
        "PS2",
        "PS4",
        "PWD",
        "RANDOM",
        "SECONDS",
        "SHELL",
        "SHELLOPTS",
        "SHLVL",
        "SRANDOM",
        "TERM",
        "UID",
        "PIPESTATUS",
    ];
    fixed.contains(&name) || name.starts_with("BASH")
}

fn has_program(program: &str) -> bool {
    let ran = Command::new(program).args(["-c", ":"]).stderr(Stdio::null()).status();
    let found = ran.is_ok_and(|s| s.success());
    if !found {
        eprintln!("skipped: there is no {program} here to compare with");
    }
    found
}

/// What dash does not know: it would read these as something else.
fn beyond_dash(content: &[u8]) -> bool {
    let joined = String::from_utf8_lossy(content).replace("\\\n", "");
    joined.as_bytes().windows(2).any(|w| w == b"+=" || w == b"$'")
}

/// The files whose reading differs, as text for a person.
fn differences(program: &str, files: &[(&Vec<u8>, Variables)]) -> Vec<String> {
    let mut found = Vec::new();
    for ((content, read), sourced) in files.iter().zip(source(program, files)) {
        if sourced.as_ref() != Ok(read) {
            let show = |v: &Variables| {
                v.iter().map(|(n, v)| format!("{n}={}", v.escape_ascii())).collect::<Vec<_>>()
            };
            let sourced = sourced.as_ref().map(show);
            found.push(format!(
                "{program} on {}\n  read {:?}\n  {sourced:?}\n",
                content.escape_ascii(),
                show(read)
            ));
        }
    }
    found
}

fn compare(files: &[Vec<u8>]) -> usize {
    let accepted = accepted(files);
    let mut found = Vec::new();
    if has_program("bash") {
        found.extend(differences("bash", &accepted));
    }
    if has_program("dash") {
        let known: Vec<_> = accepted.iter().filter(|(content, _)| !beyond_dash(content)).cloned().collect();
        found.extend(differences("dash", &known));
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found[..found.len().min(10)].join("\n"));
    accepted.len()
}

fn walk(dir: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth > 0 {
            walk(&entry.path(), depth - 1, found);
        } else if kind.is_file() && entry.metadata().is_ok_and(|m| m.len() < 64 << 10) {
            found.push(entry.path());
        }
    }
}

/// Small files of this system in which somebody assigns something.
fn real_files() -> Vec<Vec<u8>> {
    let mut paths = Vec::new();
    walk(Path::new("/etc"), 4, &mut paths);
    let mut shared = Vec::new();
    for dir in ["/usr/share", "/usr/lib"] {
        walk(Path::new(dir), 3, &mut shared);
    }
    let likely = |p: &PathBuf| {
        let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
        [".conf", ".sh", ".env", ".cfg", ".config", "default", "release"]
            .iter()
            .any(|part| name.contains(part))
    };
    paths.extend(shared.into_iter().filter(likely));
    paths.extend(["/usr/lib/os-release", "/etc/os-release"].map(PathBuf::from));
    paths.sort();
    let read = paths.into_iter().filter_map(|p| fs::read(p).ok());
    read.filter(|content| content.contains(&b'=') || content.starts_with(b"#")).collect()
}

#[test]
fn files_of_this_system_are_read_as_a_shell_reads_them() {
    let files = real_files();
    let with_values = accepted(&files).iter().filter(|(_, v)| !v.is_empty()).count();
    compare(&files);
    eprintln!("{} files, {with_values} accepted with assignments", files.len());
    for must in ["/usr/lib/os-release", "/etc/adduser.conf", "/etc/default/useradd", "/etc/default/ssh"] {
        if let Ok(content) = fs::read(must) {
            assert!(shell::parse(&content).is_ok(), "{must} is a plain list of assignments");
        }
    }
}

fn runner() -> TestRunner {
    let seed = std::env::var("GRIDGATE_SEED").ok().and_then(|s| s.parse::<u64>().ok()).unwrap_or(7);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn cases(usual: usize) -> usize {
    std::env::var("GRIDGATE_CASES").ok().and_then(|s| s.parse().ok()).unwrap_or(usual)
}

fn generate<S: Strategy>(strategy: &S, count: usize) -> Vec<S::Value> {
    let mut runner = runner();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[A-E]",
        3 => prop::sample::select(vec!["IPADDR", "_x", "a1", "HOSTNAME", "PATH", "LANG", "Z_9", "export1", "ifx"])
            .prop_map(str::to_owned),
        1 => prop::sample::select(vec!["UID", "IFS", "PS1", "LC_ALL", "TERM", "OPTIND"]).prop_map(str::to_owned),
    ]
}

fn reference() -> impl Strategy<Value = String> {
    let plain =
        prop_oneof![name().prop_map(|n| format!("${n}")), name().prop_map(|n| format!("${{{n}}}"))].boxed();
    let word = prop_oneof![
        "[a-c /.]{0,4}",
        "[a-c}'\"\\\\: ~={#;&|<>()*!-]{0,5}",
        plain.clone(),
        Just("'a b'".to_owned()),
        Just("\"a $A\"".to_owned()),
        Just("\\\n".to_owned()),
    ];
    let nested = (name(), prop_oneof![Just(":-"), Just("-")], word)
        .prop_map(|(n, op, w)| format!("${{{n}{op}{w}}}"))
        .boxed();
    let twice = (name(), nested.clone()).prop_map(|(n, inner)| format!("${{{n}:-{inner}}}"));
    prop_oneof![4 => plain, 4 => nested, 1 => twice]
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-z0-9./_:,@%+-]{1,6}",
        1 => "[~^*?\\[\\]{},!#=:%@-]{1,4}",
        2 => "'[^']{0,6}'",
        2 => "'[ -~\n\t]{0,6}'",
        3 => "\"[a-z '#;&|<>(){}~*?!\n=-]{0,8}\"",
        1 => "\"[a-z $'\\\\\n!\"-]{0,6}\"",
        3 => reference(),
        2 => reference().prop_map(|r| format!("\"x {r} y\"")),
        2 => "\\\\[ -~]",
        1 => "\\\\[\\x01-\\x7f]",
        2 => "\\$'[a-z é\"$]{0,3}(\\\\[abeEfnrtv'\"?\\\\]|\\\\[1-7][0-7]{0,2}|\\\\0[1-7]|\\\\x[0-9a-f]{1,3}|\\\\u[0-9a-f]{1,5}|\\\\U[0-9a-f]{1,8}|\\\\c[@-_a-z?]|\\\\[ -~]){0,3}'",
        1 => Just("\\\n".to_owned()),
        1 => "[\\x01\\x7f\\x0b\\x0céß€]",
        1 => "\\$[ ./:=%^,+~\"-]?",
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..5).prop_map(|pieces| pieces.concat())
}

fn assignment() -> impl Strategy<Value = String> {
    (name(), prop_oneof![6 => Just("="), 1 => Just("+=")], value())
        .prop_map(|(n, op, v)| format!("{n}{op}{v}"))
}

fn statement() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => assignment(),
        2 => prop::collection::vec(assignment(), 1..3).prop_map(|a| format!("export {}", a.join(" "))),
        2 => prop::collection::vec(assignment(), 2..3).prop_map(|a| a.join(" \t")),
        1 => name().prop_map(|n| format!("export {n}")),
        1 => "[ \t]*#[ -~é]{0,20}",
        1 => "[ \t]{0,3}",
        1 => (assignment(), "[ \t]+#[ -~]{0,10}").prop_map(|(a, c)| a + &c),
    ]
}

fn file() -> impl Strategy<Value = Vec<u8>> {
    let separator = prop_oneof![8 => Just("\n"), 1 => Just(";"), 1 => Just(" ; "), 1 => Just("\n\n"), 1 => Just("; \\\n")];
    let lines = prop::collection::vec((statement(), separator), 1..5);
    lines.prop_map(|lines| lines.into_iter().map(|(s, end)| s + end).collect::<String>().into_bytes())
}

#[test]
fn generated_files_are_read_as_a_shell_reads_them() {
    let files = generate(&file(), cases(3000));
    let count = compare(&files);
    eprintln!("{} files, {count} accepted", files.len());
    assert!(count * 10 >= files.len() * 4, "only {count} of {} generated files were accepted", files.len());
}

#[test]
fn damaged_files_are_read_as_a_shell_reads_them() {
    let nasty = prop::sample::select(b"'\"\\$`{}()~:-+=#;&|<> \t\n\r!*?ax\x01\x7f\xc3\xa9\xff".to_vec());
    let change = (any::<prop::sample::Index>(), 0..3_u8, nasty);
    let damaged = (file(), prop::collection::vec(change, 1..3)).prop_map(|(mut file, changes)| {
        for (place, kind, byte) in changes {
            let at = place.index(file.len() + 1);
            match kind {
                0 => file.insert(at, byte),
                1 if at < file.len() => file[at] = byte,
                _ if at < file.len() => drop(file.remove(at)),
                _ => file.push(byte),
            }
        }
        file
    });
    let files = generate(&damaged, cases(2000));
    let count = compare(&files);
    eprintln!("{} files, {count} accepted", files.len());
}
