//! QEMU's machine protocol, as far as a stop needs it: greeting, capabilities, one command
//! (docs/interop/qmp-spec in QEMU).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::host::sockets;

/// QEMU serves one client at a time; a second one waits for the first.
const PATIENCE: Duration = Duration::from_secs(2);

/// Gives one command without arguments and waits until QEMU has taken it.
pub fn call(socket: &Path, command: &str) -> Result<()> {
    call_with(socket, command, &json!({}))
}

/// As [`call`], with arguments.
pub fn call_with(socket: &Path, command: &str, arguments: &Value) -> Result<()> {
    let what = || format!("asking QEMU at '{}' for '{command}'", socket.display());
    let found = sockets::find(socket).with_context(what)?;
    let stream = UnixStream::connect(found.path()).with_context(what)?;
    stream.set_read_timeout(Some(PATIENCE)).with_context(what)?;
    stream.set_write_timeout(Some(PATIENCE)).with_context(what)?;
    let mut reader = BufReader::new(stream.try_clone().with_context(what)?);
    next(&mut reader, |value| value.get("QMP").is_some())
        .context("waiting for its greeting")
        .with_context(what)?;
    for (command, arguments) in [("qmp_capabilities", &json!({})), (command, arguments)] {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        (&stream).write_all(line.as_bytes()).with_context(what)?;
        let reply = next(&mut reader, |value| value.get("return").is_some() || value.get("error").is_some());
        if let Some(error) = reply.with_context(what)?.get("error") {
            bail!("{}: it answered {error}", what());
        }
    }
    Ok(())
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
