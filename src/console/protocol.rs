//! What is said on the holder's socket (unix, SOCK_STREAM).
//!
//! ```text
//!   client: one Request as a line of JSON          (adopt: the pty master beside it, SCM_RIGHTS)
//!   holder: one Answer as a line of JSON           {"ok": VALUE} or {"error": TEXT}
//!   after attach, both ways: frames                kind (1 byte), length (4 bytes, big endian), payload
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::site::ReadyCheck;
use crate::config::supervision::RestartPolicy;
use crate::console::record::{ExitRecord, ReadyRecord};
use crate::names::GuestName;

/// Longest request: arguments and environment of a guest's launcher fit well.
pub const REQUEST_BYTES: usize = 256 << 10;
/// Longest payload of a frame.
pub const FRAME_BYTES: usize = 64 << 10;
/// Bytes before a frame's payload.
pub const HEADER_BYTES: usize = 5;

/// What is kept and watched for a guest's console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Bound of all its logs together.
    pub log_bytes: u64,
    /// Whether what is typed is kept.
    #[serde(default)]
    pub record: bool,
    /// The group that may read its logs; `adm`, where there is one, if none.
    #[serde(default)]
    pub group: Option<String>,
    /// What must be seen before it counts as ready.
    #[serde(default)]
    pub ready: Vec<ReadyCheck>,
    /// Where TCP checks connect to; the port is each check's own.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// How long that may take, from the launch; 0 is no limit.
    #[serde(default)]
    pub ready_timeout_ms: u64,
    /// What happens when the guest ends by itself; who starts guests acts on it. Never started again if none.
    #[serde(default)]
    pub restart: Option<RestartPolicy>,
    /// Patterns of lines on the console that become events.
    #[serde(default)]
    pub console_watch: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            log_bytes: super::DEFAULT_LOG_BYTES,
            record: false,
            group: None,
            ready: Vec::new(),
            address: None,
            ready_timeout_ms: 0,
            restart: None,
            console_watch: Vec::new(),
        }
    }
}

/// How a guest's launcher is started where no service manager does it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The program (a path) and its arguments.
    pub argv: Vec<String>,
    /// Added to the holder's environment.
    pub env: BTreeMap<String, String>,
    /// Where its stdout and stderr go; begun anew.
    pub log: PathBuf,
}

/// A place in a console's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Boots count from 1.
    pub boot: u32,
    /// Bytes of that boot before this place.
    pub offset: u64,
}

/// What an attached client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Read and write.
    #[serde(rename = "rw")]
    Write,
    /// Read.
    #[serde(rename = "ro")]
    Read,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum For {
    /// Every sign of readiness was seen.
    Ready,
    /// Its process is gone.
    Stopped,
}

/// A client's first and only line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    /// Take the console of the process in the guest's `run.json`. Twice for the same process is fine.
    Adopt {
        /// Whose.
        guest: GuestName,
        /// As asked for at the spawn, or the default, if none.
        #[serde(default)]
        settings: Option<Settings>,
    },
    /// Start a guest's launcher; answered when it has been adopted or has ended.
    Spawn {
        /// Whose.
        guest: GuestName,
        /// What to start.
        launch: Launch,
        /// For its console.
        settings: Settings,
    },
    /// The guest's end is wanted: an exit that would mean "start again" does not.
    Stopping {
        /// Whose.
        guest: GuestName,
    },
    /// Show the console from the current boot's first byte.
    Attach {
        /// Whose.
        guest: GuestName,
        /// What is wanted; what is granted is in the [`Greeting`].
        mode: Mode,
        /// Become the writer even if there is one.
        #[serde(default)]
        take: bool,
        /// Who is asking, for the others.
        who: String,
        /// Where they are: an address, a terminal.
        #[serde(default)]
        origin: Option<String>,
        /// Go on from here instead.
        #[serde(default)]
        from: Option<Position>,
        /// Show no more than so many of the boot's last bytes first.
        #[serde(default)]
        tail: Option<u64>,
    },
    /// A line for everybody who is attached ([`Told`]).
    Broadcast {
        /// To this guest's console, or to all of them.
        #[serde(default)]
        guest: Option<GuestName>,
        /// The line.
        text: String,
    },
    /// Names of guests whose process is still to come: it is being started, or started again.
    Starting,
    /// Answered when it has happened ([`Event`]).
    Wait {
        /// Whose.
        guest: GuestName,
        /// What.
        #[serde(rename = "for")]
        what: For,
        /// An end at or after this time (milliseconds since 1970) counts, if the guest is not there.
        #[serde(default)]
        since_ms: Option<u64>,
    },
    /// The state of all consoles ([`ConsoleState`]).
    List,
    /// End, if no guest is left.
    Quit,
}

/// The holder's line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer<T> {
    /// Done, with what was asked for.
    Ok(T),
    /// Why not.
    Error(String),
}

/// What was waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// The guest is ready.
    Ready(ReadyRecord),
    /// The guest's process is gone; how, if that is known.
    Stopped(Option<ExitRecord>),
}

/// The answer to an attach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// What was granted.
    pub mode: Mode,
    /// The console that is shown.
    pub console: ConsoleState,
}

/// Somebody who is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientState {
    /// Who.
    pub who: String,
    /// Where they are, if that is known.
    pub origin: Option<String>,
    /// What they may do.
    pub mode: Mode,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

impl std::fmt::Display for ClientState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{} ({origin})", self.who),
            None => f.write_str(&self.who),
        }
    }
}

/// Whom a broadcast reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The console.
    pub guest: GuestName,
    /// Clients that were attached to it.
    pub clients: usize,
}

/// A console, as the holder sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    /// Whose it is.
    pub guest: GuestName,
    /// The process that runs the guest.
    pub pid: i32,
    /// What runs it.
    pub backend: String,
    /// Milliseconds since 1970.
    pub launched_at_ms: u64,
    /// Which boot this is.
    pub boot: u32,
    /// How far it has come.
    pub ready: ReadyRecord,
    /// Who may write.
    pub writer: Option<String>,
    /// Clients that are attached, the writer among them.
    pub attached: usize,
    /// They, in the order in which they came.
    #[serde(default)]
    pub clients: Vec<ClientState>,
    /// When it last said something.
    pub last_output_ms: Option<u64>,
    /// Bytes that this boot has said.
    pub output_bytes: u64,
    /// Bytes of its logs.
    pub log_bytes: u64,
    /// Bytes that its log could not keep.
    pub lost_bytes: u64,
    /// Why, if it still cannot.
    pub log_trouble: Option<String>,
}

/// Kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// To the client: output from before it came ([`Position`] and length tell where it stands).
    Replay = 1,
    /// To the client: output since.
    Live = 2,
    /// To the client: a line for its user.
    Notice = 3,
    /// To the client: the next output's [`Position`], as JSON; the first frame, and after every gap.
    Position = 4,
    /// To the client: the [`Mode`] that it has from now on, as JSON.
    Mode = 5,
    /// To the client: the guest is gone ([`ExitRecord`], as JSON), the last frame.
    Exit = 6,
    /// To the holder: typed bytes.
    Input = 16,
    /// To the holder: columns and rows of the client's window, two bytes each, big endian.
    Resize = 17,
    /// To the holder: goodbye.
    Detach = 18,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        use Kind::{Detach, Exit, Input, Live, Mode, Notice, Position, Replay, Resize};
        [Replay, Live, Notice, Position, Mode, Exit, Input, Resize, Detach]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }
}

/// What stands before a payload.
pub fn header(kind: Kind, len: usize) -> [u8; HEADER_BYTES] {
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    [kind as u8, len[0], len[1], len[2], len[3]]
}

/// A whole frame.
pub fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    [&header(kind, payload.len()), payload].concat()
}

/// Finds the frames in a stream.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
}

/// The other side does not keep to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAFrame;

impl std::fmt::Display for NotAFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the other side sent something that is not a frame")
    }
}

impl std::error::Error for NotAFrame {}

impl Frames {
    /// Takes the next chunk and gives `sink` every frame that is whole.
    pub fn push(&mut self, bytes: &[u8], mut sink: impl FnMut(Kind, &[u8])) -> Result<(), NotAFrame> {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(head) = self.buffer.get(at..at + HEADER_BYTES) {
            let kind = Kind::of(head[0]).ok_or(NotAFrame)?;
            let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            if len > FRAME_BYTES {
                return Err(NotAFrame);
            }
            let Some(payload) = self.buffer.get(at + HEADER_BYTES..at + HEADER_BYTES + len) else { break };
            sink(kind, payload);
            at += HEADER_BYTES + len;
        }
        self.buffer.drain(..at);
        if self.buffer.is_empty() {
            // Most of the time there is nothing left; then there is no buffer either.
            self.buffer = Vec::new();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_a_line_that_a_person_can_read() {
        let ask = |request: &Request| serde_json::to_string(request).unwrap();
        let guest: GuestName = "ce".parse().unwrap();
        assert_eq!(ask(&Request::List), r#"{"op":"list"}"#);
        assert_eq!(ask(&Request::Stopping { guest: guest.clone() }), r#"{"op":"stopping","guest":"ce"}"#);
        let short: Request = serde_json::from_str(r#"{"op":"adopt","guest":"ce"}"#).unwrap();
        assert_eq!(short, Request::Adopt { guest: guest.clone(), settings: None });
        let wait: Request = serde_json::from_str(r#"{"op":"wait","guest":"ce","for":"ready"}"#).unwrap();
        assert_eq!(wait, Request::Wait { guest, what: For::Ready, since_ms: None });
        assert_eq!(serde_json::to_string(&Answer::Ok(())).unwrap(), r#"{"ok":null}"#);
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused() {
        let mut frames = Frames::default();
        assert_eq!(frames.push(&[16, 0, 1, 0, 1], |_, _| ()), Err(NotAFrame));
        assert_eq!(Frames::default().push(&[99, 0, 0, 0, 0], |_, _| ()), Err(NotAFrame));
    }

    proptest! {
        #[test]
        fn frames_arrive_whole_whatever_the_chunks(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            step in 1usize..50,
        ) {
            let stream: Vec<u8> = payloads.iter().flat_map(|p| frame(Kind::Input, p)).collect();
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for chunk in stream.chunks(step) {
                frames.push(chunk, |kind, payload| seen.push((kind, payload.to_vec()))).unwrap();
            }
            let sent: Vec<_> = payloads.into_iter().map(|p| (Kind::Input, p)).collect();
            prop_assert_eq!(seen, sent);
        }

        #[test]
        fn any_bytes_are_frames_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Frames::default().push(&bytes, |_, _| ());
        }

        #[test]
        fn any_line_is_a_request_or_refused(line in "\\PC{0,120}") {
            let _ = serde_json::from_str::<Request>(&line);
        }
    }
}
