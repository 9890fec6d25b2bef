//! The way into a machine: QEMU's guest agent, on a virtio port. It needs neither network nor login there, runs commands
//! side by side, and gives their output and status exactly.
//!
//! Requests and answers are lines of JSON (qemu-ga-ref(7)).

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::installed::{ENVIRONMENT, Ran};

/// How long an agent that is up takes to answer on a busy host, at most.
const ANSWER: Duration = Duration::from_secs(120);
/// From one look at a command that runs to the next, at first and at most: each look costs the machine some work.
const LOOKS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];

/// See the module.
pub(crate) struct Agent {
    stream: Mutex<BufReader<UnixStream>>,
}

impl Agent {
    /// Waits until the agent of a machine that boots answers; `alive` tells whether it still can.
    pub(crate) fn meet(
        socket: &Path,
        limit: Duration,
        mut alive: impl FnMut() -> bool,
    ) -> Result<Self, String> {
        let deadline = Instant::now() + limit;
        let mut patient = || alive() && Instant::now() < deadline;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if !patient() => {
                    return Err(format!("connecting to '{}': {error}", socket.display()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut stream = BufReader::new(stream);
        // Waits in the port until the agent opens it.
        send(&mut stream, "guest-sync", &json!({"id": 1}))
            .map_err(|error| format!("asking its agent: {error}"))?;
        let mut line = String::new();
        loop {
            match stream.read_line(&mut line) {
                Ok(0) => return Err("the machine ended before its agent was up".to_owned()),
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock && patient() => {}
                Err(error) => return Err(format!("waiting for its agent: {error}")),
            }
        }
        stream.get_ref().set_read_timeout(Some(ANSWER)).unwrap();
        Ok(Self { stream: Mutex::new(stream) })
    }

    /// Starts a command as root's shell would, which is ended after `limit`; answers with its process id.
    pub(crate) fn start(&self, command: &str, limit: Duration) -> Result<Value, String> {
        let seconds = limit.as_secs().to_string();
        // The agent's own mask would make all files private.
        let shell = "umask 022; exec timeout --kill-after=1 \"$1\" sh -c \"$2\"";
        let arguments = json!({
            "path": "/bin/sh",
            "arg": ["-c", shell, "sh", seconds, command],
            "env": ENVIRONMENT,
            "capture-output": true,
        });
        Ok(self.call("guest-exec", &arguments)?["pid"].clone())
    }

    /// Runs a command as root's shell would, and ends it after `limit` (status 124).
    pub(crate) fn run(&self, command: &str, limit: Duration) -> Result<Ran, String> {
        let pid = self.start(command, limit)?;
        let mut pause = LOOKS[0];
        let ended = loop {
            let status = self.call("guest-exec-status", &json!({ "pid": pid }))?;
            if status["exited"] == true {
                break status;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LOOKS[1]);
        };
        let text = |key: &str| {
            let bytes = base64(ended[key].as_str().unwrap_or_default());
            String::from_utf8_lossy(&bytes).trim().to_owned()
        };
        // Without a status it was ended by a signal.
        let status = ended["exitcode"].as_i64().map_or(-1, |status| status as i32);
        Ok(Ran { status, stdout: text("out-data"), stderr: text("err-data") })
    }

    fn call(&self, what: &str, arguments: &Value) -> Result<Value, String> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = String::new();
        let read = send(&mut stream, what, arguments).and_then(|()| stream.read_line(&mut line));
        match read {
            Ok(0) => return Err(format!("the machine ended during '{what}'")),
            Ok(_) => {}
            Err(error) => return Err(format!("its agent did not answer to '{what}': {error}")),
        }
        let answer: Value = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
        if answer["error"].is_null() {
            Ok(answer["return"].clone())
        } else {
            Err(format!("'{what}': {answer}"))
        }
    }
}

fn send(stream: &mut BufReader<UnixStream>, what: &str, arguments: &Value) -> std::io::Result<()> {
    let line = json!({"execute": what, "arguments": arguments}).to_string() + "\n";
    stream.get_mut().write_all(line.as_bytes())
}

/// RFC 4648, as the agent writes it.
fn base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for digit in text.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => panic!("'{}' in base64", char::from(digit)),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    bytes
}

#[test]
fn what_the_agent_encoded_is_read_back() {
    for (text, bytes) in
        [("", &b""[..]), ("Zg==", b"f"), ("Zm8=", b"fo"), ("Zm9vYmFy", b"foobar"), ("/+//", b"\xff\xef\xff")]
    {
        assert_eq!(base64(text), bytes);
    }
}
