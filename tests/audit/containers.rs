//! Every form of an identity in everything that files are made of.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use gridgate::host::root::Root;
use gridgate::identity::audit::{self, Now, Old, Sort};
use gridgate::identity::scrub::Policy;

use super::{KEY, MACHINE_ID, UUID, audited, lines, old, put};

/// Text forms, one of each sort.
const FORMS: [(&str, Sort); 8] = [
    ("ce01.old.org", Sort::Name),
    ("ce01", Sort::ShortName),
    ("10.66.5.4", Sort::Address),
    ("52:54:00:ab:cd:1f", Sort::Mac),
    (MACHINE_ID, Sort::MachineId),
    (UUID, Sort::Uuid),
    ("iqn.1993-08.org.debian:01:5ca1ab1e", Sort::Label),
    ("se9.old.org", Sort::Domain),
];

fn sorts(dir: &Path) -> BTreeSet<Sort> {
    audited(dir, &old()).findings.into_iter().filter_map(|finding| finding.sort).collect()
}

fn all() -> BTreeSet<Sort> {
    FORMS.iter().map(|(_, sort)| *sort).chain([Sort::Key]).collect()
}

#[test]
fn every_form_is_found_in_text_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = FORMS.iter().map(|(form, _)| format!("x = {form}\n")).collect();
    put(dir.path(), "srv/text", format!("{text}{KEY}\n"));
    assert_eq!(sorts(dir.path()), all());
    let report = audited(dir.path(), &old());
    let found = lines(&report);
    assert!(found.contains(&"/srv/text:3: the old machine's address '10.66.5.4'".to_owned()), "{found:#?}");
    assert!(
        found.iter().any(|line| line.starts_with("/srv/text:5: the old machine's machine-id '8f3a5c7e...'"))
    );
}

#[test]
fn every_form_is_found_in_what_was_rotated_and_packed() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for (form, _) in FORMS {
        text.push_str(&format!("{}{form}\n", "padding ".repeat(9000)));
    }
    text.push_str(KEY);
    let file = dir.path().join("var/log/old");
    for (program, options) in [
        ("gzip", "-qc"),
        ("xz", "-qc"),
        ("zstd", "-qc"),
        ("bzip2", "-qc"),
        ("lz4", "-qc"),
        ("lz4", "-qlc"),
        ("lzma", "-qc"),
    ] {
        put(dir.path(), "var/log/old", &text);
        let mut packer = Command::new(program);
        if !packer.arg(options).arg(&file).output().is_ok_and(|ran| {
            fs::write(&file, &ran.stdout).unwrap();
            ran.status.success()
        }) {
            eprintln!("skipped: no {program} here");
            continue;
        }
        assert_eq!(sorts(dir.path()), all(), "{program}");
        let report = audited(dir.path(), &old());
        let address = format!("/var/log/old:3 ({program}): the old machine's address '10.66.5.4'");
        assert!(lines(&report).contains(&address), "{program}: {:#?}", lines(&report));
        assert_eq!(report.unseen, [], "{program}");
        let whole = fs::read(&file).unwrap();
        let found = |report: &audit::Report| report.findings.iter().map(|finding| finding.count).sum::<u64>();
        let once = found(&report);
        // What is behind a first one is looked into, or told of.
        fs::write(&file, [&whole[..], &whole].concat()).unwrap();
        let report = audited(dir.path(), &old());
        assert!(
            found(&report) > once || report.unseen[0].why.ends_with("something else follows it"),
            "{program}"
        );
        // Half of it, and then something else.
        fs::write(&file, [&whole[..whole.len() / 2], &[0x55; 4000]].concat()).unwrap();
        let report = audited(dir.path(), &old());
        assert!(report.unseen[0].why.contains(&format!("no {program} after all")), "{:?}", report.unseen);
    }
}

#[test]
fn every_form_is_found_in_an_initial_filesystem_behind_microcode() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = FORMS.iter().map(|(form, _)| format!("{form}\n")).collect();
    let archive = |pack: &str| {
        let script = format!(
            "mkdir -p early main boot; echo microcode >early/ucode; cat >main/conf
             (cd early && find . | cpio --quiet -o -H newc) >boot/initrd.img-6.1
             (cd main && find . | cpio --quiet -o -H newc | {pack}) >>boot/initrd.img-6.1
             rm -r early main"
        );
        let mut shell = Command::new("sh");
        shell.args(["-ec", &script]).current_dir(dir.path()).stdin(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        shell.stdin.take().unwrap().write_all(format!("{text}{KEY}\n").as_bytes()).unwrap();
        shell.wait().unwrap().success()
    };
    for pack in ["gzip", "zstd -q", "xz", "bzip2", "lzma", "lz4 -q -l", "cat"] {
        if !archive(pack) {
            eprintln!("skipped: no {pack} or cpio here");
            continue;
        }
        assert_eq!(sorts(dir.path()), all(), "{pack}");
        assert_eq!(audited(dir.path(), &old()).unseen, [], "{pack}");
    }
    // What is packed in another way is told of.
    assert!(archive("tr 0-9 k-t"));
    let report = audited(dir.path(), &old());
    assert_eq!(report.unseen[0].why, "an initial filesystem, part of which is packed");
}

#[test]
fn a_file_that_takes_more_memory_to_unpack_than_is_right_is_not_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    for (program, option) in
        [("xz", "--lzma2=dict=512MiB"), ("zstd", "--long=30"), ("lzma", "--lzma1=dict=512MiB")]
    {
        put(dir.path(), "srv/large", vec![b'x'; 3 << 20]);
        let file = dir.path().join("srv/large");
        // From its input, as its length would have the window made smaller.
        let ran = Command::new(program).args(["-qc", option]).stdin(fs::File::open(&file).unwrap()).output();
        let Some(ran) = ran.ok().filter(|ran| ran.status.success()) else {
            eprintln!("skipped: no {program} here, or no memory for it");
            continue;
        };
        fs::write(&file, ran.stdout).unwrap();
        let report = audited(dir.path(), &old());
        assert!(report.unseen[0].why.starts_with("damaged, too large"), "{program}: {:?}", report.unseen);
    }
}

#[test]
fn every_form_is_found_in_a_database_whose_values_stand_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("srv")).unwrap();
    let mut script = String::from("create table t(a text, b text, c text);\n");
    for form in FORMS.iter().map(|(form, _)| *form).chain([KEY, "10.66.5.40", "my-ce01.old.orgx"]) {
        script.push_str(&format!("insert into t values('9job', '{form}', '9done');\n"));
    }
    let run = |name: &str, script: &str| {
        let file = dir.path().join("srv").join(name);
        let mut child = Command::new("sqlite3").arg(file).stdin(Stdio::piped()).spawn().ok()?;
        child.stdin.take()?.write_all(script.as_bytes()).ok()?;
        child.wait().ok().filter(std::process::ExitStatus::success)
    };
    if run("db", &script).is_none() {
        return eprintln!("skipped: no sqlite3 here");
    }
    assert_eq!(sorts(dir.path()), all());
    fs::remove_file(dir.path().join("srv/db")).unwrap();
    let others = "create table t(a text, b text); insert into t values('x', '10.66.5.40');\n\
                  insert into t values('10.66.5.4', '10'), ('9', '110.66.5.4');";
    run("others", others).unwrap();
    let found = audited(dir.path(), &old()).findings;
    assert_eq!(found.iter().map(|finding| finding.count).collect::<Vec<_>>(), [1], "{found:?}");
}

#[test]
fn names_and_addresses_are_found_inside_certificates() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("srv")).unwrap();
    let openssl = |arguments: &[&str]| {
        let ran = Command::new("openssl").args(arguments).current_dir(dir.path().join("srv")).output();
        ran.is_ok_and(|ran| ran.status.success())
    };
    let made = openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "key.tmp",
        "-out",
        "cert.pem",
        "-days",
        "1",
        "-subj",
        "/O=grid/CN=host",
        "-addext",
        "subjectAltName=DNS:ce01.old.org,IP:10.66.5.4,IP:2001:db9::54",
    ]);
    if !made {
        return eprintln!("skipped: no openssl here");
    }
    assert!(openssl(&["x509", "-in", "cert.pem", "-outform", "DER", "-out", "cert.der"]));
    assert!(openssl(&[
        "pkcs12",
        "-export",
        "-in",
        "cert.pem",
        "-inkey",
        "key.tmp",
        "-out",
        "store.p12",
        "-passout",
        "pass:xxxxxx"
    ]));
    fs::remove_file(dir.path().join("srv/key.tmp")).unwrap();
    // As older Javas and many servers have them.
    let jks = ["-importkeystore", "-noprompt", "-srckeystore", "store.p12", "-srcstoretype", "pkcs12"];
    let kept = [
        "-srcstorepass",
        "xxxxxx",
        "-deststorepass",
        "xxxxxx",
        "-deststoretype",
        "JKS",
        "-destkeystore",
        "store.jks",
    ];
    let java = Command::new("keytool").args(jks).args(kept).current_dir(dir.path().join("srv")).output();
    let java = java.is_ok_and(|ran| ran.status.success());
    if !java {
        eprintln!("skipped in part: no keytool here");
    }
    let report = audited(dir.path(), &old());
    let found = |file: &str, what: &str| {
        report
            .findings
            .iter()
            .any(|f| f.path == format!("/srv/{file}") && f.found.ends_with(&format!("'{what}'")))
    };
    let root = Root::open(dir.path()).unwrap();
    let images = audit::run(&root, &old(), &Now::nobody(&[]), &Policy::same_machine(), &[]).unwrap();
    let is_key = |f: &&audit::Finding| f.sort == Some(Sort::PrivateKey);
    let stores: Vec<_> = images.findings.iter().filter(is_key).map(|f| f.path.as_str()).collect();
    assert_eq!(stores, if java { vec!["/srv/store.jks", "/srv/store.p12"] } else { vec!["/srv/store.p12"] });
    for file in ["cert.pem", "cert.der", "store.jks"] {
        if file == "store.jks" && !java {
            continue;
        }
        for what in ["ce01.old.org", "10.66.5.4", "2001:db9::54"] {
            assert!(found(file, what), "{file} {what}: {:#?}", lines(&report));
        }
    }
    let place = report.findings.iter().find(|f| f.path == "/srv/cert.pem").unwrap().place.clone().unwrap();
    assert_eq!((place.line, place.inside.as_deref()), (Some(1), Some("CERTIFICATE")));
    let closed: Vec<_> =
        report.unseen.iter().map(|unseen| (unseen.path.as_str(), unseen.why.as_str())).collect();
    assert_eq!(closed, [("/srv/store.p12", "a PKCS #12 key store: it opens with its password only")]);

    // The very certificate, wherever it was copied.
    let tree = tempfile::tempdir().unwrap();
    let pem = fs::read(dir.path().join("srv/cert.pem")).unwrap();
    put(tree.path(), "etc/grid-security/hostcert.pem", &pem);
    let old = Old::from_tree(&gridgate::host::root::Root::open(tree.path()).unwrap()).unwrap();
    let old = Old { secrets: Default::default(), ..old };
    assert_eq!(old.certificates.len(), 1);
    let mut copies = audited(dir.path(), &old).findings;
    copies.retain(|f| f.sort.is_some());
    if java {
        let jks = copies.pop().unwrap();
        assert_eq!((jks.path.as_str(), jks.sort), ("/srv/store.jks", Some(Sort::Certificate)));
    }
    assert_eq!(
        copies.iter().map(|f| (f.path.as_str(), f.sort)).collect::<Vec<_>>(),
        [("/srv/cert.der", Some(Sort::Certificate)), ("/srv/cert.pem", Some(Sort::Certificate))]
    );
}

#[test]
fn an_ssh_key_is_found_inside_its_private_half() {
    use ssh_key::{
        LineEnding, PrivateKey,
        private::{Ed25519Keypair, KeypairData},
    };
    let dir = tempfile::tempdir().unwrap();
    let key = PrivateKey::new(KeypairData::from(Ed25519Keypair::from_seed(&[7; 32])), "").unwrap();
    put(dir.path(), "srv/k", format!("note\n{}", key.to_openssh(LineEnding::LF).unwrap().as_str()));
    let line = key.public_key().to_openssh().unwrap();
    let old = Old { keys: [line].into(), ..Old::default() };
    let found = lines(&audited(dir.path(), &old));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0]
            .starts_with("/srv/k:2 (OPENSSH PRIVATE KEY): the old machine's SSH key 'ssh-ed25519 SHA256:")
    );
    assert!(!found[0].contains("PRIVATE KEY-----"));
}

#[test]
fn names_of_files_and_where_links_lead_are_searched_too() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &format!("var/log/journal/{MACHINE_ID}/empty"), "");
    put(dir.path(), "srv/ce01.old.org.conf", "");
    std::os::unix::fs::symlink("/srv/ce01.old.org.conf", dir.path().join("srv/now")).unwrap();
    assert_eq!(
        lines(&audited(dir.path(), &old())),
        [
            "/srv/ce01.old.org.conf: the old machine's name 'ce01.old.org' in its own name",
            "/srv/now: a link to the old machine's name 'ce01.old.org'",
            "/var/log/journal/8f3a5c7e91b24d06a8c1e2f304152637: the old machine's machine-id '8f3a5c7e...' in its own name",
        ]
    );
}

#[test]
fn a_form_is_found_wherever_it_falls_in_a_long_file() {
    let dir = tempfile::tempdir().unwrap();
    // Around the end of what is read at a time.
    for at in [(256 << 10) - 40, (256 << 10) - 9, (256 << 10) - 1, 256 << 10, (512 << 10) - 100, 1_000_000] {
        let mut content = vec![b'\n'; at];
        content.extend(b"10.66.5.4\n");
        content.resize(1_200_000, b'.');
        put(dir.path(), "srv/long", content);
        let found = audited(dir.path(), &old()).findings;
        let place = found[0].place.clone().unwrap();
        assert_eq!(
            (found.len(), found[0].count, place.offset, place.line),
            (1, 1, at as u64, Some(at as u64 + 1))
        );
    }
}

#[test]
fn a_certificate_that_falls_between_two_reads_is_decoded_whole() {
    let dir = tempfile::tempdir().unwrap();
    // "xx ce01.old.org xx" in base64, and much else before it.
    let block = "-----BEGIN THING-----\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\neHggY2UwMS5vbGQub3JnIHh4\n-----END THING-----\n";
    for at in [(256 << 10) - 60, (256 << 10) - 20, (256 << 10) - 5, (256 << 10) + 3] {
        put(dir.path(), "srv/bundle", format!("{}{block}", ".".repeat(at)));
        let found = audited(dir.path(), &old()).findings;
        let place = found[0].place.clone().unwrap();
        assert_eq!((found.len(), place.offset, place.inside.as_deref()), (1, at as u64, Some("THING")));
    }
}
