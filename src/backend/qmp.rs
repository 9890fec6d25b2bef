//! QEMU's machine protocol, as far as orders need it: greeting, capabilities, commands
//! (docs/interop/qmp-spec in QEMU).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use serde_json::{Value, json};

use crate::host::sockets;

/// QEMU serves one client at a time; a second one waits for the first.
const PATIENCE: Duration = Duration::from_secs(10);

/// As [`Client::execute`], for one command.
pub fn call_with(socket: &Path, command: &str, arguments: &Value) -> Result<()> {
    Client::connect(socket, PATIENCE)?.execute(command, arguments).map(drop)
}

/// A connection that takes commands.
#[derive(Debug)]
pub struct Client {
    name: String,
    reader: BufReader<UnixStream>,
    until: Instant,
}

impl Client {
    /// Connects and exchanges greetings; `patience` is for all that is ever done with it.
    pub fn connect(socket: &Path, patience: Duration) -> Result<Self> {
        let name = format!("QEMU at '{}'", socket.display());
        let until = Instant::now() + patience;
        let what = || format!("connecting to {name}");
        let flags = SocketFlags::CLOEXEC;
        let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).with_context(what)?;
        // A QEMU that hangs accepts nobody, and connecting would wait for ever (unix(7) knows this limit only).
        set_socket_timeout(&stream, Timeout::Send, Some(patience)).with_context(what)?;
        let found = sockets::find(socket).with_context(what)?;
        let address = SocketAddrUnix::new(found.path()).with_context(what)?;
        rustix::net::connect(&stream, &address).with_context(what)?;
        let mut client = Self { reader: BufReader::new(UnixStream::from(stream)), name, until };
        client
            .next(|value| value.get("QMP").is_some())
            .with_context(|| format!("greeting {}", client.name))?;
        client.execute("qmp_capabilities", &json!({}))?;
        Ok(client)
    }

    /// Gives a command and waits until QEMU has taken it; gives back what it returns.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let what = format!("asking {} for '{command}'", self.name);
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.reader.get_mut().write_all(line.as_bytes()).with_context(|| what.clone())?;
        let reply = self.next(|value| value.get("return").is_some() || value.get("error").is_some());
        let mut reply = reply.with_context(|| what.clone())?;
        if let Some(error) = reply.get("error") {
            bail!("{what}: it answered {error}");
        }
        Ok(reply["return"].take())
    }

    fn next(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let left = self.until.saturating_duration_since(Instant::now());
        // Zero would be no limit at all.
        self.reader.get_ref().set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        next(&mut self.reader, wanted)
    }
}

/// The next message that is wanted; events in between are passed over.
fn next(reader: &mut impl BufRead, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        let value: Value = serde_json::from_str(&line).context("reading its answer")?;
        if wanted(&value) {
            return Ok(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_before_the_answer_are_passed_over() {
        let mut said = "{\"event\":\"RTC_CHANGE\"}\n{\"return\":{}}\n".as_bytes();
        assert_eq!(next(&mut said, |v| v.get("return").is_some()).unwrap(), json!({"return": {}}));
    }

    #[test]
    fn a_connection_that_closes_early_is_an_error() {
        let error = next(&mut "{\"event\":1}\n".as_bytes(), |v| v.get("return").is_some()).unwrap_err();
        assert_eq!(error.to_string(), "the connection was closed");
    }
}
