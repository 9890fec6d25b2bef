//! Reading events, from the beginning or from where one stopped.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Event;
use super::log::{Head, beside};

/// A place among a site's events: `GENERATION-OFFSET`. Good for any later reading, also by another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    generation: u64,
    offset: u64,
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.generation, self.offset)
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let (generation, offset) =
            numbers.ok_or_else(|| format!("'{text}' is no token; one is printed with each event"))?;
        Ok(Self { generation, offset })
    }
}

/// What a reader comes upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An event, and the place after it.
    Event(Event, Token),
    /// What was after the reader's place is not kept any more; it goes on with the oldest that is.
    Dropped,
}

/// Reads one event after the other.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    /// Where to go on; the oldest event if none.
    at: Option<Token>,
    file: Option<(File, u64)>,
    pending: Vec<u8>,
}

const CHUNK: usize = 16 << 10;

impl Reader {
    /// From the oldest event that is kept, or from after the one with this token.
    pub fn new(path: &Path, since: Option<Token>) -> Self {
        Self { path: path.to_owned(), at: since, file: None, pending: Vec::new() }
    }

    /// Where it stands; none before the first event of a log that does not exist yet.
    pub fn token(&self) -> Option<Token> {
        self.at
    }

    /// Goes to the end: only what happens from now on is read.
    pub fn skip(&mut self) -> io::Result<()> {
        self.pending.clear();
        self.file = open(&self.path)?;
        self.at = match &self.file {
            Some((file, generation)) => {
                Some(Token { generation: *generation, offset: file.metadata()?.len() })
            }
            None => None,
        };
        Ok(())
    }

    /// The next one; `None` if there is none yet. A line that is no event is passed over.
    pub fn read(&mut self) -> io::Result<Option<Item>> {
        loop {
            if self.file.is_none() && !self.find()? {
                return Ok(Some(Item::Dropped));
            }
            let (Some((file, generation)), Some(at)) = (&self.file, &mut self.at) else { return Ok(None) };
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                at.offset += line.len() as u64;
                if let Ok(event) = serde_json::from_slice(&line) {
                    return Ok(Some(Item::Event(event, *at)));
                }
                continue;
            }
            let mut chunk = [0; CHUNK];
            let got = file.read_at(&mut chunk, at.offset + self.pending.len() as u64)?;
            self.pending.extend_from_slice(&chunk[..got]);
            if got > 0 {
                continue;
            }
            // A file that is current has no successor; of one that is not, nothing more comes.
            let generation = *generation;
            if self.is_current(generation) {
                return Ok(None);
            }
            self.file = None;
            self.pending.clear();
            self.at = Some(Token { generation: generation.saturating_add(1), offset: 0 });
        }
    }

    /// Opens the file of its place; false if that is not kept any more, and the place is then the oldest that is.
    fn find(&mut self) -> io::Result<bool> {
        let old = open(&beside(&self.path, "old"))?;
        let current = open(&self.path)?;
        let mut there: Vec<(File, u64)> = [old, current].into_iter().flatten().collect();
        let wanted = self.at;
        let place = match wanted {
            None => (!there.is_empty()).then_some(0),
            Some(at) => there.iter().position(|(file, generation)| {
                let length = file.metadata().map_or(0, |m| m.len());
                *generation == at.generation && at.offset <= length
            }),
        };
        match (place, wanted) {
            (Some(place), _) => {
                let (file, generation) = there.swap_remove(place);
                self.at = Some(wanted.unwrap_or(Token { generation, offset: 0 }));
                self.file = Some((file, generation));
                Ok(true)
            }
            (None, None) => Ok(true),
            (None, Some(_)) => {
                self.at = None;
                Ok(false)
            }
        }
    }

    fn is_current(&self, generation: u64) -> bool {
        match open(&self.path) {
            Ok(Some((_, current))) => current == generation,
            _ => true,
        }
    }
}

/// The file and its generation; `None` if it is not there, or has no first line yet.
fn open(path: &Path) -> io::Result<Option<(File, u64)>> {
    match File::open(path) {
        Ok(file) => Ok(generation(&file).map(|generation| (file, generation))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

pub(super) fn generation(file: &File) -> Option<u64> {
    let mut head = [0; 64];
    let got = file.read_at(&mut head, 0).ok()?;
    let line = head[..got].split(|byte| *byte == b'\n').next()?;
    // A first line that was torn by a power cut still leaves a log that works.
    let read = serde_json::from_slice::<Head>(line).map(|head| head.generation).ok();
    read.or_else(|| file.metadata().ok().filter(|m| m.len() > 0).map(|m| m.ino()))
}

#[cfg(test)]
mod tests {
    use super::super::What;
    use super::super::log::append;
    use super::*;
    use proptest::prelude::*;

    fn event(number: u64) -> Event {
        Event { at_ms: number, guest: "ce".parse().unwrap(), what: What::Ready { after_ms: number } }
    }

    fn numbers(reader: &mut Reader) -> Vec<Option<u64>> {
        let mut seen = Vec::new();
        while let Some(item) = reader.read().unwrap() {
            seen.push(match item {
                Item::Event(event, _) => Some(event.at_ms),
                Item::Dropped => None,
            });
        }
        seen
    }

    #[test]
    fn a_reader_goes_on_where_its_token_says_also_over_a_turn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut reader = Reader::new(&path, None);
        assert_eq!(reader.read().unwrap(), None, "nothing is there yet");
        for number in 0..10 {
            append(&path, &event(number), 1 << 20).unwrap();
        }
        assert_eq!(numbers(&mut reader), (0..10).map(Some).collect::<Vec<_>>());
        let token: Token = reader.token().unwrap().to_string().parse().unwrap();
        // Twenty lines of some 60 bytes: one turn.
        for number in 10..30 {
            append(&path, &event(number), 1000).unwrap();
        }
        let expected: Vec<Option<u64>> = (10..30).map(Some).collect();
        assert_eq!(numbers(&mut reader), expected);
        assert_eq!(numbers(&mut Reader::new(&path, Some(token))), expected);
        assert!(beside(&path, "old").exists());
    }

    #[test]
    fn a_reader_that_comes_too_late_is_told_and_goes_on_with_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        append(&path, &event(0), 1000).unwrap();
        let mut reader = Reader::new(&path, None);
        assert_eq!(numbers(&mut reader), [Some(0)]);
        for number in 1..100 {
            append(&path, &event(number), 1000).unwrap();
        }
        let mut late = Reader::new(&path, reader.token());
        let seen = numbers(&mut late);
        assert_eq!((seen[0], seen[seen.len() - 1]), (None, Some(99)));
        let kept: Vec<u64> = seen.iter().flatten().copied().collect();
        assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]) && kept.len() > 10, "{kept:?}");
    }

    #[test]
    fn a_log_that_was_purged_drops_what_a_token_meant() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        append(&path, &event(0), 1000).unwrap();
        let mut reader = Reader::new(&path, None);
        assert_eq!(numbers(&mut reader), [Some(0)]);
        std::fs::remove_file(&path).unwrap();
        append(&path, &event(1), 1000).unwrap();
        assert_eq!(numbers(&mut Reader::new(&path, reader.token())), [None, Some(1)]);
    }

    #[test]
    fn writers_side_by_side_lose_nothing_and_mix_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let path = path.clone();
                std::thread::spawn(move || {
                    for number in 0..200 {
                        append(&path, &event(writer * 1000 + number), 1 << 20).unwrap();
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let mut seen: Vec<u64> = numbers(&mut Reader::new(&path, None)).into_iter().flatten().collect();
        seen.sort_unstable();
        let expected: Vec<u64> = (0..4).flat_map(|w| (0..200).map(move |n| w * 1000 + n)).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn an_event_with_a_long_text_is_cut_and_still_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let what = What::ConsoleMatch { pattern: "x".into(), line: "ä".repeat(9000) };
        append(&path, &Event { what, ..event(1) }, 1 << 20).unwrap();
        let mut reader = Reader::new(&path, None);
        let Some(Item::Event(Event { what: What::ConsoleMatch { line, .. }, .. }, _)) =
            reader.read().unwrap()
        else {
            panic!("no event")
        };
        assert_eq!(line, format!("{}...", "ä".repeat(256)));
    }

    proptest! {
        #[test]
        fn any_file_is_read_without_a_crash(bytes in proptest::collection::vec(any::<u8>(), 0..2000), token in "[0-9-]{0,20}") {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("events.jsonl");
            std::fs::write(&path, bytes).unwrap();
            let mut reader = Reader::new(&path, token.parse().ok());
            let mut items = 0;
            while reader.read().unwrap().is_some() && items < 5000 {
                items += 1;
            }
            prop_assert!(items < 5000);
        }
    }
}
