//! What the other box has: nothing, another version, a copy; and who it is.

use crate::lab::{User, private};
use crate::support::eventually;

#[test]
fn a_box_whose_key_is_not_known_is_refused_as_ssh_does() {
    private(|lab| {
        lab.install();
        lab.trust(false);
        let ran = lab.run(&["check"], b"").exits(1);
        let ran = ran.says("Host key verification failed.");
        ran.says("gridgate: reaching 'gw': ssh did not get through, for the reason above");
        assert_eq!(lab.logins(), 0);
    });
}

#[test]
fn a_box_without_gridgate_gets_a_copy_only_if_that_is_agreed() {
    private(|lab| {
        let site = lab.site();
        let check = ["--site", &site, "check"];
        let refused = lab.run(&check, b"").exits(4).says("there is no gridgate on 'gw'");
        refused.says("hint: --copy-binary copies this one there, as ~/.cache/gridgate/");
        assert_eq!(lab.copies(), [""; 0]);
        let copied = lab.run(&["--copy-binary", "--site", &site, "check"], b"").exits(0);
        let copied = copied.says("copied gridgate to 'gw', as ~/.cache/gridgate/");
        assert_eq!(copied.out().lines().last(), Some("site 'far' is good: 0 guests, 1 network"));
        assert_eq!(lab.copies().len(), 1);
        // It is there now.
        let logins = lab.logins();
        assert_eq!(lab.run(&check, b"").exits(0).err(), "");
        assert_eq!(lab.logins(), logins + 1);
        lab.is_quiet();
    });
}

#[test]
fn another_version_is_not_used_and_a_user_is_asked() {
    private(|lab| {
        lab.install_saying("gridgate 0.0.1 (0123456789abcdef)");
        let site = lab.site();
        let refused = lab.run(&["--site", &site, "check"], b"").exits(4);
        refused.says("on 'gw' is another version, gridgate 0.0.1 (0123456789abcdef); this is gridgate 0.");
        let mut user = User::new(lab.gridgate(&["--site", &site, "check"]));
        user.sees("/gridgate? [y/N] ");
        user.types(b"\n");
        user.sees("hint: --copy-binary");
        assert_eq!((user.ends(), lab.copies().len()), (Some(4), 0));
        let mut user = User::new(lab.gridgate(&["--site", &site, "check"]));
        user.sees("/gridgate? [y/N] ");
        user.types(b"\x03");
        user.sees("interrupted");
        assert_eq!((user.ends(), lab.copies().len()), (Some(1), 0));
        let mut user = User::new(lab.gridgate(&["--site", &site, "check"]));
        user.sees("/gridgate? [y/N] ");
        user.types(b"yes\n");
        user.sees("site 'far' is good");
        assert_eq!((user.ends(), lab.copies().len()), (Some(0), 1));
    });
}

#[test]
fn a_box_of_another_machine_gets_no_copy() {
    private(|lab| {
        lab.install_script("uname", "case $1 in -s) echo Linux ;; *) echo sparc64 ;; esac");
        let ran = lab.run(&["--copy-binary", "check"], b"").exits(1);
        ran.says("there is no gridgate on 'gw', and a copy of this one would not run there: it is Linux on sparc64");
        assert_eq!(lab.copies(), [""; 0]);
    });
}

#[test]
fn sudo_runs_it_if_that_is_asked_for() {
    private(|lab| {
        lab.install();
        lab.install_script("sudo", "[ \"$1\" = -n ] || exit 9; shift; echo 'root now' >&2; exec \"$@\"");
        let site = lab.site();
        assert_eq!(lab.run(&["--site", &site, "check"], b"").exits(0).err(), "");
        assert_eq!(lab.run(&["--sudo", "--site", &site, "check"], b"").exits(0).err(), "root now\n");
    });
}

#[test]
fn a_connection_that_the_user_shares_already_is_used_and_stays() {
    private(|lab| {
        lab.install();
        let socket = lab.file("own");
        lab.configure(&format!(" ControlPath {}\n", socket.display()));
        let mut master = std::process::Command::new("ssh");
        master.arg("-F").arg(lab.file("config")).args(["-M", "-N", "gw"]);
        let mut master = master.stdin(std::process::Stdio::null()).spawn().unwrap();
        eventually("it is connected", || socket.exists().then_some(()));
        let site = lab.site();
        lab.run(&["--site", &site, "check"], b"").exits(0);
        assert_eq!((lab.logins(), master.try_wait().unwrap()), (1, None));
        master.kill().unwrap();
        master.wait().unwrap();
    });
}
