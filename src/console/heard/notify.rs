//! Datagrams: sd_notify(3), as systemd-nspawn sends it on behalf of its guest, and the notifications of a user-mode kernel
//! (`struct mconsole_notify` in arch/um/drivers/mconsole.h), which carries what is written to `/proc/mconsole` in the guest.

use super::{Heard, line};

/// Longest datagram that is read; what is longer is cut.
pub const DATAGRAM_BYTES: usize = 4096;

const MAGIC: u32 = 0xcafe_babe;
const HEADER: usize = 16;
/// More lines than anybody means.
const LINES: usize = 32;

/// What a datagram says.
pub fn understand(datagram: &[u8]) -> Vec<Heard> {
    match word(datagram, 0) {
        Some(MAGIC) => mconsole(datagram),
        _ => lines(datagram),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
}

fn mconsole(datagram: &[u8]) -> Vec<Heard> {
    let (Some(kind), Some(len)) = (word(datagram, 8), word(datagram, 12)) else { return Vec::new() };
    let text = &datagram[HEADER..];
    let text = &text[..text.len().min(len as usize)];
    match kind {
        0 => vec![Heard::KernelUp],
        // A kernel that hangs is one that has panicked or soon will.
        1 | 2 => vec![Heard::Panic(line(text))],
        3 => lines(text),
        _ => Vec::new(),
    }
}

fn lines(text: &[u8]) -> Vec<Heard> {
    let each = text.split(|byte| *byte == b'\n').take(LINES);
    each.filter_map(|said| match line(said).as_str() {
        "READY=1" | "ready" => Some(Heard::Ready),
        "WATCHDOG=1" | "heartbeat" => Some(Heard::Beat),
        other => match other.split_once('=')? {
            ("STATUS", status) => Some(Heard::Status(status.to_owned())),
            ("X_NSPAWN_LEADER_PID", pid) => pid.parse().ok().map(Heard::Leader),
            _ => None,
        },
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(kind: u32, len: u32, text: &[u8]) -> Vec<u8> {
        let words = [MAGIC, 2, kind, len].map(u32::to_ne_bytes).concat();
        [&words, text].concat()
    }

    #[test]
    fn a_service_managers_words_are_understood() {
        let said = b"READY=1\nSTATUS=Container running: Startup finished.\nWATCHDOG=1\nX_NSPAWN_LEADER_PID=7";
        let status = Heard::Status("Container running: Startup finished.".to_owned());
        assert_eq!(understand(said), [Heard::Ready, status, Heard::Beat, Heard::Leader(7)]);
        assert_eq!(understand(b"READY=0\nreadyish"), []);
    }

    #[test]
    fn a_user_mode_kernels_notifications_are_understood() {
        assert_eq!(understand(&packet(0, 30, b"/run/g/uml/x/mconsole\0")), [Heard::KernelUp]);
        let panic = Heard::Panic("sysrq triggered crash".to_owned());
        assert_eq!(understand(&packet(1, 22, b"sysrq triggered crash\0")), [panic]);
        assert_eq!(understand(&packet(3, 6, b"ready\n")), [Heard::Ready]);
        assert_eq!(understand(&packet(3, 10, b"heartbeat\nready\n")), [Heard::Beat]);
        assert_eq!(understand(&packet(9, 0, b"")), []);
    }

    #[test]
    fn what_a_guest_says_of_itself_cannot_do_anything_to_a_terminal() {
        let said = [b"STATUS=a\x1b[2Jb".as_slice(), &[b'x'; 3000]].concat();
        let [Heard::Status(status)] = &understand(&said)[..] else { panic!("not a status") };
        assert!(status.starts_with("a [2Jb") && status.chars().count() == 200 - "STATUS=".len(), "{status}");
    }

    proptest! {
        #[test]
        fn any_datagram_is_understood_or_not(said in prop::collection::vec(any::<u8>(), 0..200), kind in 0..5u32, len in any::<u32>()) {
            prop_assert!(understand(&said).len() <= LINES);
            prop_assert!(understand(&packet(kind, len, &said)).len() <= LINES);
        }
    }
}
