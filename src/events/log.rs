//! Writing events down.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use serde::{Deserialize, Serialize};

use super::{Event, GENERATION_BYTES, LINE_BYTES, What};
use crate::names::GuestName;
use crate::paths::Paths;

/// The first line of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) generation: u64,
}

/// Another writer needs microseconds; one that was stopped in the middle is not waited for.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_micros(200);

/// Writes an event down, now. Never fails and never waits long: a guest is not to suffer because a disk is full. A site
/// whose state directory is gone has nothing to write to.
pub fn note(paths: &Paths, guest: &GuestName, what: What) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let event = Event { at_ms, guest: guest.clone(), what };
    // There is nobody to tell it to: the caller has more important things to go on with.
    let _ = append(&paths.events(), &event, GENERATION_BYTES);
}

pub(super) fn append(path: &Path, event: &Event, bound: u64) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    if line.len() >= LINE_BYTES {
        line = serde_json::to_vec(&shortened(event))?;
    }
    line.push(b'\n');
    let mut file = open(path)?;
    if file.metadata()?.len() + line.len() as u64 > bound && turn(path, &file)? {
        file = open(path)?;
    }
    file.write_all(&line)
}

/// The current generation, locked against being turned over meanwhile; the lock goes with the file.
fn open(path: &Path) -> io::Result<File> {
    let mut attempt = 0;
    loop {
        let file = OpenOptions::new().append(true).read(true).create(true).mode(0o640).open(path)?;
        let locked = flock(&file, FlockOperation::NonBlockingLockShared).is_ok();
        attempt += 1;
        let current = std::fs::metadata(path).is_ok_and(|now| is_same(&now, &file));
        if (locked && current) || attempt > ATTEMPTS {
            if file.metadata()?.len() == 0 {
                begin(&file)?;
            }
            return Ok(file);
        }
        std::thread::sleep(PAUSE);
    }
}

fn is_same(now: &std::fs::Metadata, file: &File) -> bool {
    file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (now.dev(), now.ino()))
}

/// A log that begins here: its generation is the time, so that a token of a log that was purged fits no other.
fn begin(mut file: &File) -> io::Result<()> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let head = Head { generation: u64::try_from(since.as_nanos() / 1000).unwrap_or(1) };
    file.write_all(&[&serde_json::to_vec(&head)?[..], b"\n"].concat())
}

/// Begins the next generation, unless somebody else is at it. Whoever opens the path finds a file at any moment.
fn turn(path: &Path, file: &File) -> io::Result<bool> {
    if flock(file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    let next = Head { generation: super::reader::generation(file).map_or(1, |g| g.saturating_add(1)) };
    let fresh = beside(path, "new");
    let mut made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&fresh)?;
    made.write_all(&[&serde_json::to_vec(&next)?[..], b"\n"].concat())?;
    renameat_with(CWD, path, CWD, &fresh, RenameFlags::EXCHANGE)?;
    std::fs::rename(&fresh, beside(path, "old"))?;
    Ok(true)
}

/// `events.jsonl` and `old` give `events.old.jsonl`.
pub(super) fn beside(path: &Path, word: &str) -> PathBuf {
    path.with_extension(format!("{word}.jsonl"))
}

/// The same event with its texts cut.
fn shortened(event: &Event) -> Event {
    let cut = |text: &mut String| {
        let end = (0..=512).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        if end < text.len() {
            text.truncate(end);
            text.push_str("...");
        }
    };
    let mut event = event.clone();
    match &mut event.what {
        What::Degraded { missing } => {
            missing.truncate(4);
            missing.iter_mut().for_each(cut);
        }
        What::Stopped { how: text, .. }
        | What::Waiting { why: text, .. }
        | What::LimitChanged { limits: text }
        | What::ConsoleTrouble { why: text }
        | What::Asked { desired: text }
        | What::Started { backend: text, .. } => cut(text),
        What::ConsoleMatch { pattern, line } => {
            cut(pattern);
            cut(line);
        }
        What::Ready { .. } | What::Rebooted { .. } => {}
    }
    event
}
