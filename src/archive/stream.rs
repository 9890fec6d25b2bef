//! The tar as it comes out of the frames, held against the manifest byte by byte.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::buffers::{Buffer, Slice};
use super::entry::{Content, Kind};
use super::header;
use super::manifest::{FurtherNames, Manifest};
use super::text::unhex;

/// A regular file of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// One of the archive's own: the number of it in [`super::manifest::Head::own`].
    Own(usize),
    /// An entry: its number in [`Manifest::entries`].
    Entry(usize),
}

/// What is told of regular files, one after another in the order of the manifest, their content not yet held against its digest.
#[derive(Debug)]
pub(super) enum Told {
    /// As [`Piece::Data`].
    Data { part: Part, offset: u64, bytes: Slice },
    /// All of the file has been told.
    End { part: Part },
    /// As [`Piece::Lost`].
    Lost { part: Part, why: String },
    /// A frame has ended, perhaps within a file. What comes next may have to wait until nothing of this one is held.
    Pause,
}

/// What is told of regular files when their content is checked, those of a thread one after another.
#[derive(Debug)]
pub enum Piece<'a> {
    /// These bytes belong at that offset. Pieces of a file come in ascending order; holes are not told of.
    Data {
        /// Which file.
        part: Part,
        /// Where in the file.
        offset: u64,
        /// What is there.
        bytes: &'a [u8],
    },
    /// All of the file has been told, and its digest is that of the manifest. Files without data have only this.
    End {
        /// Which file.
        part: Part,
    },
    /// The file is damaged; parts of it may have been told. Only where damage is passed over.
    Lost {
        /// Which file.
        part: Part,
        /// What is wrong.
        why: String,
    },
}

/// Whom pieces are told to; an error of his ends it.
pub type Each<'a> = &'a mut dyn FnMut(Piece<'_>) -> Result<()>;

/// Whom it is told to that is not checked yet.
pub(super) type Hear<'a> = &'a mut dyn FnMut(Told) -> Result<()>;

/// See the module.
pub(super) struct Stream<'m> {
    manifest: &'m Manifest,
    named: FurtherNames<'m>,
    /// Whether damage is passed over.
    salvages: bool,
    next: usize,
    current: Option<Current<'m>>,
    position: u64,
}

/// What is being gone through: headers, data, zeros.
struct Current<'m> {
    part: Option<Part>,
    name: String,
    prefix: Vec<u8>,
    content: Option<Cow<'m>>,
    data: u64,
    total: u64,
    position: u64,
    /// The piece that comes next or is gone through, and how much of it has been.
    piece: (usize, u64),
    lost: Option<String>,
}

/// Content of an entry, or of one of the archive's own files.
type Cow<'m> = std::borrow::Cow<'m, Content>;

impl<'m> Stream<'m> {
    pub(super) fn new(manifest: &'m Manifest, salvages: bool) -> Self {
        let named = manifest.further_names();
        Self { manifest, named, salvages, next: 0, current: None, position: 0 }
    }

    /// Where it is in the tar.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// More of the tar.
    pub(super) fn feed(&mut self, bytes: &Arc<Buffer>, hear: Hear<'_>) -> Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            let current = self.current()?;
            let now = (current.total - current.position).min((bytes.len() - at) as u64) as usize;
            if let Err(error) = current.take(bytes, at..at + now, hear)? {
                if !self.salvages {
                    bail!("{}: {error}", self.name());
                }
                self.lose(error);
            }
            self.went(now as u64, hear)?;
            at += now;
        }
        hear(Told::Pause)
    }

    /// So much of the tar is lost.
    pub(super) fn skip(&mut self, mut len: u64, why: &str, hear: Hear<'_>) -> Result<()> {
        while len > 0 {
            let current = self.current()?;
            let now = (current.total - current.position).min(len);
            current.lost.get_or_insert_with(|| why.to_owned());
            self.went(now, hear)?;
            len -= now;
        }
        Ok(())
    }

    /// The tar has ended. Whatever has not come is lost, or an error.
    pub(super) fn end(mut self, hear: Hear<'_>) -> Result<()> {
        while self.has_more() {
            let current = self.current()?;
            let rest = current.total - current.position;
            if rest > 0 {
                if !self.salvages {
                    bail!("it ends before {} does", self.name());
                }
                self.skip(rest, "the archive ends before it", hear)?;
            }
        }
        Ok(())
    }

    fn has_more(&self) -> bool {
        self.current.is_some() || self.next <= self.count()
    }

    /// Parts before the zeros at the end.
    fn count(&self) -> usize {
        self.manifest.head.own.len() + self.manifest.entries.len()
    }

    fn name(&self) -> String {
        self.current.as_ref().map(|current| current.name.clone()).unwrap_or_default()
    }

    fn lose(&mut self, why: String) {
        if let Some(current) = &mut self.current {
            current.lost.get_or_insert(why);
        }
    }

    /// What comes next, which is never nothing.
    fn current(&mut self) -> Result<&mut Current<'m>> {
        while self.current.is_none() {
            if self.next > self.count() {
                bail!("there is more in it than its manifest tells of");
            }
            let current = self.make(self.next)?;
            self.next += 1;
            // A socket takes nothing.
            if current.total > 0 {
                self.current = Some(current);
            }
        }
        match &mut self.current {
            Some(current) => Ok(current),
            None => bail!("there is more in it than its manifest tells of"),
        }
    }

    fn make(&self, number: usize) -> Result<Current<'m>> {
        let own = &self.manifest.head.own;
        let part = if number < own.len() { Part::Own(number) } else { Part::Entry(number - own.len()) };
        let Some(content) = content(self.manifest, part) else {
            let Part::Entry(number) = part else { bail!("its own file {number} is missing") };
            let Some(entry) = self.manifest.entries.get(number) else {
                return Ok(Current::new(None, "its end".to_owned(), vec![0; header::END], None));
            };
            let prefix = header::of(entry, self.named.file_of(entry));
            return Ok(Current::new(None, name(self.manifest, part), prefix, None));
        };
        let prefix = match part {
            Part::Own(number) => header::own(own[number].name.name(), content.len),
            Part::Entry(number) => {
                let entry = &self.manifest.entries[number];
                header::of(entry, self.named.file_of(entry))
            }
        };
        Ok(Current::new(Some(part), name(self.manifest, part), prefix, Some(content)))
    }

    fn went(&mut self, len: u64, hear: Hear<'_>) -> Result<()> {
        self.position += len;
        let Some(current) = &mut self.current else { return Ok(()) };
        current.position += len;
        if current.position < current.total {
            return Ok(());
        }
        let Some(current) = self.current.take() else { return Ok(()) };
        let Some(part) = current.part else { return Ok(()) };
        match current.lost {
            Some(why) => hear(Told::Lost { part, why }),
            None => hear(Told::End { part }),
        }
    }
}

/// What a part's content has to be; `None` for what has none.
pub(super) fn content(manifest: &Manifest, part: Part) -> Option<Cow<'_>> {
    match part {
        Part::Own(number) => {
            let own = manifest.head.own.get(number)?;
            let digest = unhex(&own.blake3).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
            let data = if own.len == 0 { Vec::new() } else { vec![(0, own.len)] };
            Some(Cow::Owned(Content { len: own.len, blake3: digest, data }))
        }
        Part::Entry(number) => match &manifest.entries.get(number)?.kind {
            Kind::File(content) => Some(Cow::Borrowed(content)),
            _ => None,
        },
    }
}

/// As a message names it.
pub(super) fn name(manifest: &Manifest, part: Part) -> String {
    match part {
        Part::Own(number) => {
            let own = manifest.head.own.get(number).map_or("", |own| own.name.name());
            format!("its file '{own}'")
        }
        Part::Entry(number) => {
            let path = manifest.entries.get(number).map_or(&[][..], |entry| &entry.path);
            format!("'{}'", path.escape_ascii())
        }
    }
}

impl<'m> Current<'m> {
    fn new(part: Option<Part>, name: String, prefix: Vec<u8>, content: Option<Cow<'m>>) -> Self {
        let data = content.as_ref().map_or(0, |content| header::data_len(&content.data));
        let total = prefix.len() as u64 + data + header::padding(data) as u64;
        Self { part, name, prefix, content, data, total, position: 0, piece: (0, 0), lost: None }
    }

    /// That range of a buffer is of it; what is wrong with it is inside, an error of whom it is told to outside.
    fn take(
        &mut self,
        buffer: &Arc<Buffer>,
        mut range: Range<usize>,
        hear: Hear<'_>,
    ) -> Result<Result<(), String>> {
        let mut position = self.position;
        let start = self.prefix.len() as u64;
        if position < start {
            let from = position as usize;
            let now = range.len().min(self.prefix.len() - from);
            if buffer[range.start..range.start + now] != self.prefix[from..from + now] {
                return Ok(Err("its header is not what the manifest says".to_owned()));
            }
            position += now as u64;
            range.start += now;
        }
        if let (Some(content), Some(part)) = (&self.content, self.part) {
            while position < start + self.data && !range.is_empty() {
                let Some((offset, len)) = content.data.get(self.piece.0) else { break };
                let now = range.len().min((len - self.piece.1) as usize);
                let these = range.start..range.start + now;
                if self.lost.is_none() {
                    let bytes = Slice::of(buffer, these);
                    hear(Told::Data { part, offset: offset + self.piece.1, bytes })?;
                }
                self.piece.1 += now as u64;
                if self.piece.1 == *len {
                    self.piece = (self.piece.0 + 1, 0);
                }
                position += now as u64;
                range.start += now;
            }
        }
        if buffer[range].iter().any(|byte| *byte != 0) {
            return Ok(Err("it is not followed by zeros".to_owned()));
        }
        Ok(Ok(()))
    }
}
