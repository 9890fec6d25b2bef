//! QEMU's events, as far as they tell how a guest ends or starts again (docs/interop/qmp-spec and qapi/run-state.json in
//! QEMU).

use serde_json::Value;

use super::{Heard, line};

/// To be sent before QEMU tells anything.
pub const HELLO: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n";
/// Longest line; QEMU's greeting and events are much shorter.
const LINE_BYTES: usize = 64 << 10;

/// QEMU's lines, as they come in chunks.
#[derive(Debug, Default)]
pub struct Events {
    buffer: Vec<u8>,
}

impl Events {
    /// What the lines that this chunk ends tell. `None` if the other side is not QEMU.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Vec<Heard>> {
        self.buffer.extend_from_slice(bytes);
        let mut heard = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let value: Value = serde_json::from_slice(&line).ok()?;
            heard.extend(event(&value));
        }
        (self.buffer.len() <= LINE_BYTES).then_some(heard)
    }
}

fn event(value: &Value) -> Option<Heard> {
    let data = &value["data"];
    let reason = data["reason"].as_str().unwrap_or_default();
    match value["event"].as_str()? {
        "RESET" => Some(Heard::Reset),
        "GUEST_PANICKED" => Some(Heard::Panic(line(data["info"].as_str().unwrap_or_default().as_bytes()))),
        "SHUTDOWN" => match reason {
            "guest-panic" => Some(Heard::Panic(String::new())),
            _ if data["guest"] == true => Some(Heard::Shutdown),
            _ => Some(Heard::Quit),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Recorded from QEMU 7.2.
    const GREETING: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 19, \"minor\": 2, \"major\": 7}, \
        \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n{\"return\": {}}\r\n";
    const RESET: &str = "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"RESET\", \
        \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}\r\n";
    const SHUTDOWN: &str = "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"SHUTDOWN\", \
        \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}\r\n";
    const SIGNAL: &str =
        "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": false, \"reason\": \"host-signal\"}}\r\n";
    const PANIC: &str = "{\"event\": \"GUEST_PANICKED\", \"data\": {\"action\": \"shutdown\"}}\r\n";

    #[test]
    fn events_tell_a_reboot_from_a_shutdown_and_both_from_a_signal() {
        let mut events = Events::default();
        assert_eq!(events.push(GREETING.as_bytes()), Some(vec![]));
        assert_eq!(events.push(RESET.as_bytes()), Some(vec![Heard::Reset]));
        assert_eq!(events.push(SHUTDOWN.as_bytes()), Some(vec![Heard::Shutdown]));
        assert_eq!(events.push(SIGNAL.as_bytes()), Some(vec![Heard::Quit]));
        assert_eq!(events.push(PANIC.as_bytes()), Some(vec![Heard::Panic(String::new())]));
        assert_eq!(events.push(b"hello\n"), None);
    }

    proptest! {
        #[test]
        fn lines_are_found_whatever_the_chunks(step in 1usize..40) {
            let (mut events, mut heard) = (Events::default(), Vec::new());
            for chunk in [GREETING, RESET, SHUTDOWN].concat().as_bytes().chunks(step) {
                heard.extend(events.push(chunk).unwrap());
            }
            prop_assert_eq!(heard, [Heard::Reset, Heard::Shutdown]);
        }

        #[test]
        fn any_bytes_are_events_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Events::default().push(&bytes);
        }

        #[test]
        fn any_document_is_an_event_or_not(text in "\\{\"event\":\"(RESET|SHUTDOWN|X)\",\"data\":[0-9{}\":a]{0,20}\\}") {
            let _ = Events::default().push(format!("{text}\n").as_bytes());
        }
    }
}
