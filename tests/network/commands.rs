//! `gridgate enter` and `gridgate ssh`, which become other programs, so each in a process of its own.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use gridgate::cli::{enter, ssh};
use gridgate::config::site::NetworkMode;
use gridgate::host::Live;
use gridgate::host::net::in_netns;
use gridgate::host::programs::{Program, Programs};
use gridgate::paths::Paths;
use nix::mount::{MsFlags, mount};

use crate::lab::{LIMIT, guest, private, site, up};

#[derive(Parser)]
enum Cli {
    Enter(enter::Args),
    Ssh(ssh::Args),
}

/// The child's side: becomes what the command becomes. Does nothing unless [`gridgate`] asks.
#[test]
fn the_command_in_a_process_of_its_own() {
    let Ok(words) = std::env::var("GRIDGATE_TEST_WORDS") else { return };
    let dir = |key: &str| std::env::var(key).unwrap();
    let mut paths = Paths::new(Path::new("/some/site"), Path::new(&dir("GRIDGATE_TEST_STATE")));
    paths.run = dir("GRIDGATE_TEST_RUN").into();
    let site = site(NetworkMode::Rehearsal, None);
    let cli = Cli::parse_from(std::iter::once("gridgate").chain(words.split('\n')));
    let refused = match cli {
        Cli::Enter(args) => enter::run(&args, &site, &paths),
        Cli::Ssh(args) => ssh::run(&args, &site, &paths),
    };
    println!("\nrefused: {:#}", refused.unwrap_err());
    std::process::exit(1);
}

/// Exit status, output and talk of a command.
fn gridgate(paths: &Paths, words: &[&str]) -> (i32, String, String) {
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args([
        "--exact",
        "commands::the_command_in_a_process_of_its_own",
        "--nocapture",
        "--test-threads=1",
    ]);
    test.env("GRIDGATE_TEST_RUN", &paths.run).env("GRIDGATE_TEST_STATE", &paths.state);
    test.env("GRIDGATE_TEST_WORDS", words.join("\n")).env_remove("SSH_AUTH_SOCK");
    let output = test.current_dir("/usr").stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn enter_becomes_the_command_in_the_sites_namespace() {
    private(|paths| {
        let (status, said, _) = gridgate(paths, &["enter", "true"]);
        let expected =
            "refused: site 'test' is down, so it has no network to enter; 'gridgate up' brings it up";
        assert_eq!(status, 1);
        assert!(said.contains(expected), "{said}");

        up(&site(NetworkMode::Rehearsal, None), paths);
        let script = "stat -Lc %i /proc/self/ns/net; echo $PWD $GRIDGATE_SITE $GRIDGATE_STATE; exit 7";
        let (status, said, _) = gridgate(paths, &["enter", "--", "sh", "-c", script]);
        assert_eq!(status, 7);
        let inode = std::fs::metadata(paths.netns()).unwrap().ino();
        let expected = format!("{inode}\n/usr /some/site {}\n", paths.state.display());
        assert!(said.ends_with(&expected), "{said}");
    });
}

struct Sshd(Child);

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server in the guest's namespace that lets the site's key in, and shows the host key `key`.
fn serve(guest: &Path, paths: &Paths, key: &str) -> Sshd {
    let authorized = format!("AuthorizedKeysFile={}", paths.run.join("authorized").display());
    let key = format!("HostKey={}", paths.run.join(key).display());
    let sshd = Live.find_program("sshd").unwrap();
    let mut server = Command::new(sshd);
    server.args(["-D", "-f", "/dev/null", "-o", "StrictModes=no", "-o", "PidFile=none", "-o", "UsePAM=no"]);
    server.args(["-o", &authorized, "-o", &key, "-o", "ListenAddress=192.0.2.10"]);
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = in_netns(Some(guest), || Ok(server.spawn()?)).unwrap();
    let server = Sshd(child);
    let until = Instant::now() + LIMIT;
    while in_netns(Some(guest), || Ok(std::net::TcpStream::connect("192.0.2.10:22")?)).is_err() {
        assert!(Instant::now() < until, "sshd does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    server
}

#[test]
fn ssh_logs_in_with_the_sites_key_and_only_to_the_guest_whose_key_is_known() {
    if ["sshd", "ssh", "ssh-keygen"].iter().any(|p| Live.find_program(p).is_none()) {
        eprintln!("skipped: this test logs in with OpenSSH, which is not there");
        return;
    }
    private(|paths| {
        // What sshd wants there.
        mount(None::<&str>, "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        std::fs::create_dir("/run/sshd").unwrap();
        let mut paths = paths.clone();
        paths.state = paths.run.with_file_name("100% the state");
        std::fs::create_dir_all(paths.state.join("keys")).unwrap();
        std::fs::create_dir_all(&paths.run).unwrap();
        for key in [paths.site_key(), paths.run.join("known"), paths.run.join("unknown")] {
            let make = Program::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]);
            Live.run(&make.arg(key)).unwrap();
        }
        std::fs::copy(paths.site_key().with_extension("pub"), paths.run.join("authorized")).unwrap();
        let known = std::fs::read_to_string(paths.run.join("known.pub")).unwrap();
        std::fs::write(paths.known_hosts(), format!("ce.example.org {known}")).unwrap();

        let site = site(NetworkMode::Rehearsal, None);
        let refusal = |words: &[&str]| {
            let (_, said, _) = gridgate(&paths, words);
            said.split_once("refused: ").map(|(_, why)| why.trim().to_owned()).unwrap_or(said)
        };
        assert_eq!(refusal(&["ssh", "ce"]), "site 'test' is down; 'gridgate up' brings it up");
        up(&site, &paths);
        assert_eq!(refusal(&["ssh", "se"]), "site 'test' has no guest 'se'; it has ce");
        assert_eq!(refusal(&["ssh", "ce"]), "guest 'ce' is not running; 'gridgate start ce' starts it");

        let guest = guest(&paths, &site, "192.0.2.10/24");
        let server = serve(&guest, &paths, "known");
        let (status, said, talk) = gridgate(&paths, &["ssh", "ce", "echo", "hello;", "exit", "7"]);
        assert_eq!((status, said.ends_with("hello\n")), (7, true), "{said}{talk}");
        drop(server);

        let _impostor = serve(&guest, &paths, "unknown");
        let (status, _, talk) = gridgate(&paths, &["ssh", "ce", "true"]);
        assert_eq!(status, 255);
        assert!(talk.contains("Host key verification failed"), "{talk}");
    });
}
