//! The far end alone, with the near end played by the test; needs neither root nor ssh.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{eventually, exe};

/// `gridgate hosted` that runs a script, by `enter` in a site without guests.
struct Far {
    child: Child,
    line: Option<ChildStdin>,
    out: BufReader<ChildStdout>,
    _site: tempfile::TempDir,
}

impl Far {
    fn new(options: &[&str], script: &str) -> Self {
        let site = tempfile::tempdir().unwrap();
        std::fs::create_dir(site.path().join("guests")).unwrap();
        let text =
            "name = \"far\"\nguests = []\n[networks.lan]\nmode = \"isolated\"\nsubnet = \"10.77.0.0/24\"\n";
        std::fs::write(site.path().join("site.toml"), text).unwrap();
        // As the near end encodes it: all but letters and digits.
        let encode = |b: u8| match b.is_ascii_alphanumeric() {
            true => char::from(b).to_string(),
            false => format!("+{b:02x}"),
        };
        let script: String = script.bytes().map(encode).collect();
        // A shell in the background ignores SIGINT, so do all that it starts, and no shell can trap what was ignored.
        let mut command = Command::new("env");
        command
            .arg("--default-signal=INT,QUIT,HUP")
            .arg(exe())
            .arg("hosted")
            .args(options)
            .arg("--")
            .arg("--site")
            .arg(site.path());
        command.args(["enter", "sh", "-c", &script]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (line, out) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, line, out, _site: site }
    }

    fn hears(&mut self, frame: &[u8]) {
        self.line.as_mut().unwrap().write_all(frame).unwrap();
    }

    fn says(&mut self, expected: &str) {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert_eq!(line, expected);
    }

    fn ends(&mut self) -> Option<i32> {
        eventually("it ends", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const LASTING: &str = "trap 'echo asked; exit 5' HUP; echo running; while :; do sleep 0.02; done";

#[test]
fn a_line_that_ends_is_a_near_end_that_is_gone() {
    let mut far = Far::new(&[], LASTING);
    far.says("running\n");
    far.line = None;
    far.says("asked\n");
    assert_eq!(far.ends(), Some(5));
}

#[test]
fn a_line_that_is_silent_is_a_near_end_that_is_gone_and_a_beat_is_no_silence() {
    // A machine that stumbles may be silent itself; then once more.
    let heard = (0..10).any(|_| {
        let began = Instant::now();
        let mut far = Far::new(&["--silence", "4"], LASTING);
        far.says("running\n");
        std::thread::sleep(Duration::from_secs(1));
        let _ = far.line.as_mut().unwrap().write_all(b"b\0\0\0\0");
        let asleep = began.elapsed();
        far.says("asked\n");
        assert_eq!(far.ends(), Some(5));
        // What counts from the first second on ends one second before what counts from the beat.
        assert!(began.elapsed() >= asleep + Duration::from_secs(4) || asleep > Duration::from_secs(3));
        asleep < Duration::from_secs(3)
    });
    assert!(heard, "this machine is too busy to tell");
}

#[test]
fn what_no_gridgate_says_ends_it_too() {
    let mut far = Far::new(&[], LASTING);
    far.says("running\n");
    far.hears(b"GET / HTTP/1.1\r\n");
    far.says("asked\n");
    assert_eq!(far.ends(), Some(5));
}

#[test]
fn what_the_command_leaves_in_its_own_name_is_ended_with_it() {
    let mut far = Far::new(&[], "(trap '' HUP; while :; do echo on; sleep 0.02; done) & echo $$; sleep 1000");
    let mut text = String::new();
    while !text.contains("on\n") {
        far.out.read_line(&mut text).unwrap();
    }
    far.line = None;
    far.ends();
    // Nobody holds the other end any more.
    far.out.read_to_string(&mut text).unwrap();
}

#[test]
fn input_and_signals_reach_the_command() {
    let mut far = Far::new(
        &["--input"],
        "trap 'echo int; exit 6' INT; echo running; cat; echo over; while :; do sleep 0.02; done",
    );
    far.says("running\n");
    far.hears(b"i\0\0\0\x06hello\n");
    far.says("hello\n");
    far.hears(b"e\0\0\0\0");
    far.says("over\n");
    far.hears(b"s\0\0\0\x01\x02");
    far.says("int\n");
    assert_eq!(far.ends(), Some(6));
}
