//! A guest's programs can work in their own files, and reach nothing else. The guest is a small tree with a shell.

use std::path::Path;

use super::*;

/// Programs of this machine that the guest has, too.
const PROGRAMS: [&str; 22] = [
    "sh", "cat", "chroot", "date", "dmesg", "echo", "env", "grep", "head", "hostname", "insmod", "ls",
    "mknod", "mount", "setsid", "sleep", "tr", "true", "umount", "unshare", "wc", "yes",
];

/// A tree with this machine's own shell, some programs and their libraries; `None`, said loudly, where it cannot be.
fn guest() -> Option<(tempfile::TempDir, Root)> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: namespaces need root");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = filled(dir.path());
    Some((dir, root))
}

/// By another process: a file that this one has open for writing, and with it a child that another test forks, cannot be run.
fn copied(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

fn filled(dir: &Path) -> Root {
    for sub in ["bin", "dev", "proc", "etc", "tmp", "var/out"] {
        std::fs::create_dir_all(dir.join(sub)).unwrap();
    }
    for name in PROGRAMS {
        let places = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(|place| Path::new(place).join(name));
        let Some(program) = places.iter().find(|place| place.exists()) else { continue };
        copied(program, &dir.join("bin").join(name));
        let linked = Command::new("ldd").arg(program).output().unwrap();
        for library in
            String::from_utf8_lossy(&linked.stdout).split_whitespace().filter(|word| word.starts_with('/'))
        {
            let inside = dir.join(library.trim_start_matches('/'));
            std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
            if !inside.exists() {
                copied(Path::new(library), &inside);
            }
        }
    }
    Root::open(dir).unwrap()
}

fn sandbox(script: &str) -> Sandbox {
    Sandbox {
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("GREETING".to_owned(), "hello".to_owned())],
        writable: None,
        network: false,
        memory_bytes: 128 << 20,
        processes: 32,
        time: Duration::from_secs(90),
    }
}

fn output(root: &Root, script: &str) -> String {
    sandbox(script).run(root).unwrap().output
}

#[test]
fn a_program_works_in_the_guest_s_files_and_its_output_and_status_come_back() {
    let Some((dir, root)) = guest() else { return };
    let ended = sandbox("echo $GREETING; echo err >&2; echo x >/etc/made; exit 3").run(&root).unwrap();
    assert_eq!((ended.status, ended.output.as_str()), (3, "hello\nerr\n"));
    assert_eq!(std::fs::read_to_string(dir.path().join("etc/made")).unwrap(), "x\n");
    // Again: the tree is still there to be run in.
    assert_eq!(output(&root, "cat /etc/made"), "x\n");
    assert_eq!(sandbox("sh -c 'kill -9 $$'; exit $?").run(&root).unwrap().status, 128 + 9);
}

#[test]
#[expect(unsafe_code, reason = "a thread's namespace can be made in no other way")]
fn a_tree_on_a_shared_mount_is_worked_in_like_any_other() {
    let Some((dir, _)) = guest() else { return };
    let shared = dir.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let status = std::thread::spawn(move || {
        use rustix::mount::{MountFlags, MountPropagationFlags as Propagation, mount, mount_change};
        // SAFETY: no descriptors are unshared; the namespace ends with this thread.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
        mount_change("/", Propagation::PRIVATE | Propagation::REC).unwrap();
        mount("tmpfs", &shared, "tmpfs", MountFlags::empty(), c"size=64m").unwrap();
        mount_change(&shared, Propagation::SHARED).unwrap();
        sandbox("test -d /var/out && exit 7").run(&filled(&shared)).unwrap().status
    });
    assert_eq!(status.join().unwrap(), 7);
}

#[test]
fn nothing_of_the_host_is_seen() {
    let Some((_dir, root)) = guest() else { return };
    let script = "ls -d /proc/[0-9]* | wc -l; echo $$; ls /dev | tr '\\n' ' '; echo; ls /proc/sys /sys 2>/dev/null | wc -l; \
                  ls -d /../../bin";
    let text = output(&root, script);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1], "1", "{lines:?}");
    assert!(lines[0].parse::<u32>().unwrap() < 6, "{lines:?}");
    assert_eq!(&lines[2..], ["fd full null random stderr stdin stdout tty urandom zero ", "0", "/../../bin"]);
}

#[test]
fn there_is_no_network_unless_it_is_asked_for() {
    let Some((_dir, root)) = guest() else { return };
    let script = "ls -l /proc/self/ns/net";
    assert_eq!(output(&root, "grep -c : /proc/self/net/dev"), "1\n");
    let host = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    assert!(!output(&root, script).contains(&host));
    let with = Sandbox { network: true, ..sandbox(script) };
    assert!(with.run(&root).unwrap().output.trim().ends_with(&host));
}

#[test]
fn the_machine_cannot_be_changed_from_inside() {
    let Some((_dir, root)) = guest() else { return };
    let script = "for try in 'mount -t tmpfs x /tmp' 'umount /dev' 'mknod /etc/sda b 8 0' \
                  'chroot / true' 'unshare -m true' 'hostname evil' 'date -s 2001-01-01' 'insmod /bin/sh' \
                  'dmesg'; do $try >/dev/null 2>&1 && echo \"could $try\"; done; \
                  grep -E 'NoNewPrivs|Seccomp:|CapEff|CapBnd' /proc/self/status";
    let text = output(&root, script);
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(
        words,
        ["CapEff:", "00000000000000fb", "CapBnd:", "00000000000000fb", "NoNewPrivs:", "1", "Seccomp:", "2"]
    );
}

#[test]
fn what_it_leaves_running_dies_with_it() {
    let Some((dir, root)) = guest() else { return };
    let mark = format!("{}", std::process::id() as u64 * 7919 + 86_400);
    output(&root, &format!("setsid sleep {mark} & exit 0"));
    let running = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| {
            line.windows(mark.len()).any(|window| window == mark.as_bytes()) && line.starts_with(b"sleep")
        })
    });
    assert!(!running);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.path().to_str().unwrap()));
}

#[test]
fn one_that_takes_too_long_is_ended_and_what_it_said_is_told() {
    let Some((_dir, root)) = guest() else { return };
    let error_after = |seconds| {
        let time = Duration::from_secs(seconds);
        format!("{:#}", Sandbox { time, ..sandbox("echo working; sleep 1000") }.run(&root).unwrap_err())
    };
    // On a busy machine it takes a while until it says anything.
    let errors = [1, 5, 25, 125].into_iter().map(error_after);
    let error = errors.into_iter().find(|error| !error.ends_with("nothing")).unwrap();
    assert!(error.ends_with("it took longer than it may, and was ended; it said: working"), "{error}");
}

#[test]
fn output_without_end_is_bounded() {
    let Some((_dir, root)) = guest() else { return };
    let ended = sandbox("yes | head -c 3000000; echo; echo last").run(&root).unwrap();
    assert!(ended.output.len() <= OUTPUT && ended.output.ends_with("\nlast\n"));
}

#[test]
fn only_what_is_named_can_be_written_if_it_is_so_wanted() {
    let Some((dir, root)) = guest() else { return };
    let script = "echo x >/var/out/file; echo y 2>/dev/null >/etc/file || echo refused";
    let strict = Sandbox { writable: Some(vec!["/var/out".to_owned()]), ..sandbox(script) };
    let ended = strict.run(&root).unwrap();
    assert!(ended.output.contains("refused"), "{ended:?}");
    assert!(dir.path().join("var/out/file").exists() && !dir.path().join("etc/file").exists());
}

#[test]
fn a_guest_whose_dev_leads_elsewhere_gains_nothing() {
    let Some((dir, root)) = guest() else { return };
    std::fs::remove_dir(dir.path().join("dev")).unwrap();
    std::os::unix::fs::symlink("/../../../../etc", dir.path().join("dev")).unwrap();
    let host = std::fs::read("/etc/passwd").unwrap();
    output(&root, "echo x >/dev/passwd; echo x >/etc/passwd");
    assert_eq!(std::fs::read("/etc/passwd").unwrap(), host);
    std::fs::remove_file(dir.path().join("dev")).unwrap();
    let error = format!("{:#}", sandbox("true").run(&root).unwrap_err());
    assert!(error.contains("making /dev (has the guest such a directory?)"), "{error}");
}
