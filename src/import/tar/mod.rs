//! A tar of anybody's, read once from its beginning to its end, as a source of files.
//!
//! ```text
//!   input --header, extended headers--> member --> Names (what is told of it)
//!                                  \----data-----> kept in a file without a name
//! ```
//!
//! Nothing of it is made anywhere before all of it was read and found to be in order: it may come from anybody.

mod acl;
mod header;
mod names;
mod pax;
mod sparse;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};

use crate::archive::entry::{Content, Entry, KEPT_FLAGS, Kind, Time};
use crate::archive::limits::Limits;
use crate::archive::source::{Sink, Source, Surveyed};
use acl::Accounts;
pub(super) use header::is_header;
use header::{BLOCK, Header};
use names::{Names, Node};
use pax::Extra;

/// An extended header, or a long name, is no longer: attributes of one file fit in many times.
const LONGEST_EXTENSION: u64 = 16 << 20;
/// What ext4 has for a file (`EXT4_MAX_LOGICAL_BLOCK` blocks of 4 KiB).
const LONGEST_FILE: u64 = (16 << 40) - 4096;
/// Accounts are looked up in files that are no larger.
const LARGEST_ACCOUNTS: u64 = 4 << 20;
const STEP: usize = 256 << 10;

/// All of a tar; see the module.
#[derive(Debug)]
pub(super) struct Tar {
    names: Names,
    kept: File,
}

/// Reads all of it. Data is kept in `kept`, an empty file; `room` is asked each time that more of it is going to be written.
pub(super) fn read(
    input: &mut dyn Read,
    kept: File,
    limits: Limits,
    room: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Tar> {
    let mut reading = Reading { input, at: 0, kept, end: 0, room, buffer: vec![0; STEP] };
    let mut names = Names::new(limits);
    reading.all(&mut names)?;
    let mut tar = Tar { names, kept: reading.kept };
    tar.settle_lists()?;
    Ok(tar)
}

struct Reading<'r> {
    input: &'r mut dyn Read,
    /// Bytes read.
    at: u64,
    kept: File,
    /// Bytes kept.
    end: u64,
    room: &'r mut dyn FnMut(u64) -> Result<()>,
    buffer: Vec<u8>,
}

/// What was said before a header, for the member that it tells of.
#[derive(Debug, Default)]
struct Before {
    extra: Option<Extra>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Reading<'_> {
    fn all(&mut self, names: &mut Names) -> Result<()> {
        let (mut global, mut before) = (Extra::default(), Before::default());
        let mut is_first = true;
        loop {
            if crate::progress::interrupted() {
                bail!("interrupted");
            }
            let at = self.at;
            let what = || format!("at byte {at} of the tar");
            let Some(block) = self.block().with_context(what)? else {
                bail!("it ends without the zeros that a tar ends with: it was cut short, or is no tar");
            };
            let Some(header) = Header::parse(&block).with_context(what)? else { break };
            match header.kind {
                b'x' => {
                    let body = self.extension(header.size).with_context(what)?;
                    let extra = before.extra.get_or_insert_with(|| global.clone());
                    extra.take(&body).with_context(what)?;
                }
                b'g' => {
                    let body = self.extension(header.size).with_context(what)?;
                    global.take(&body).with_context(what)?;
                }
                b'L' => before.path = Some(terminated(self.extension(header.size).with_context(what)?)),
                b'K' => before.link = Some(terminated(self.extension(header.size).with_context(what)?)),
                // A label of the whole.
                b'V' => self.skip(header.size.next_multiple_of(BLOCK as u64))?,
                _ => {
                    let before = std::mem::take(&mut before);
                    let name = before.name(&global, &header);
                    if std::mem::take(&mut is_first) && name.starts_with(b".gridgate/") {
                        bail!(
                            "it is an archive of gridgate's own; hint: gridgate image restore FILE --as NAME"
                        );
                    }
                    let added = self.member(names, &header, before, &global, &name, &block);
                    added.with_context(|| format!("'{}' {}", name.escape_ascii(), what()))?;
                }
            }
        }
        self.rest()
    }

    fn member(
        &mut self,
        names: &mut Names,
        header: &Header,
        before: Before,
        global: &Extra,
        name: &[u8],
        block: &[u8; BLOCK],
    ) -> Result<()> {
        let is_pax = before.extra.is_some();
        let link = before.link;
        let extra = before.extra.unwrap_or_else(|| global.clone());
        let path = names::path(name)?;
        let size = extra.size.unwrap_or(header.size);
        let link = || {
            let link = extra.link.clone().or(link).unwrap_or_else(|| header.link.clone());
            if link.is_empty() { Err(anyhow::anyhow!("it is a link to nothing")) } else { Ok(link) }
        };
        let device = (extra.device.0.unwrap_or(header.device.0), extra.device.1.unwrap_or(header.device.1));
        let mut start = self.end;
        let kind = match header.kind {
            // The oldest programs tell a directory by its name alone.
            b'0' | 0 if name.ends_with(b"/") && extra.map.is_none() && !extra.map_in_front => {
                self.skip(size.next_multiple_of(BLOCK as u64))?;
                Kind::Directory
            }
            b'0' | 0 | b'7' | b'S' => {
                let content;
                (content, start) = self.file(&extra, size, header.kind == b'S', block)?;
                Kind::File(content)
            }
            b'1' => {
                let target = names::path(&link()?)?;
                // Only pax(1) has a second copy of the data there; others leave the length of the file, and no data.
                if is_pax {
                    self.skip(size.next_multiple_of(BLOCK as u64))?;
                }
                return names.link(path, &target);
            }
            b'2' => Kind::SymbolicLink(link()?),
            b'3' => Kind::CharacterDevice(device.0, device.1),
            b'4' => Kind::BlockDevice(device.0, device.1),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            // A list of what was in a directory, of GNU tar's incremental backups.
            b'D' => {
                self.skip(size.next_multiple_of(BLOCK as u64))?;
                Kind::Directory
            }
            b'M' => bail!("it continues a file of another volume; hint: put the volumes together"),
            kind => bail!("it is of type '{}', which is none that is known", kind.escape_ascii()),
        };
        let id = |told: Option<u32>, number: i128| -> Result<u32> {
            told.map_or_else(|| u32::try_from(number), Ok).context("it belongs to a number that is no user's")
        };
        let seconds = i64::try_from(header.modified).context("it has a time that is none")?;
        let can_have_flags = matches!(kind, Kind::Directory | Kind::File(_));
        // A list that is there as the kernel has it, too, needs no names to be looked up.
        let mut lists: Vec<_> = extra.lists.into_iter().map(|(key, text)| (key.to_vec(), text)).collect();
        lists.retain(|(key, _)| !extra.attributes.contains_key(key));
        let entry = Entry {
            path: Vec::new(),
            mode: header.mode,
            uid: id(extra.uid, header.uid)?,
            gid: id(extra.gid, header.gid)?,
            modified: extra.modified.unwrap_or(Time { seconds, nanoseconds: 0 }),
            attributes: extra.attributes.into_iter().collect(),
            flags: if can_have_flags { extra.flags & KEPT_FLAGS } else { 0 },
            kind,
        };
        names.add(path, Node { entry, start, lists })
    }

    /// A file's data, kept; where it begins is told, too.
    fn file(
        &mut self,
        extra: &Extra,
        size: u64,
        is_old_sparse: bool,
        block: &[u8; BLOCK],
    ) -> Result<(Content, u64)> {
        let mut stored = size;
        let (map, len) = if is_old_sparse {
            let (mut map, mut more, len) = sparse::in_header(block)?;
            while more {
                let (further, and_more) = sparse::in_block(&self.need_block()?)?;
                map.extend(further);
                more = and_more;
                if map.len() > sparse::MOST {
                    bail!("it has too many pieces");
                }
            }
            (Some(map), len)
        } else if extra.map_in_front {
            let (map, blocks) = sparse::in_front(&mut || self.need_block())?;
            let listed = blocks * BLOCK as u64;
            stored = size.checked_sub(listed).context("its list of pieces is longer than itself")?;
            (Some(map), extra.real_len.context("its length is not told")?)
        } else {
            (extra.map.clone(), extra.real_len.unwrap_or(size))
        };
        if len > LONGEST_FILE {
            bail!("it has {len} bytes, which no file of ext4 has");
        }
        let whole = || if size > 0 { vec![(0, size)] } else { Vec::new() };
        let map = map.unwrap_or_else(whole);
        let data = sparse::pieces(&map, len, stored)?;
        let start = self.keep(stored)?;
        self.skip(stored.next_multiple_of(BLOCK as u64) - stored)?;
        Ok((Content { len, blake3: [0; 32], data }, start))
    }

    fn keep(&mut self, len: u64) -> Result<u64> {
        let start = self.end;
        let mut left = len;
        let mut buffer = std::mem::take(&mut self.buffer);
        while left > 0 {
            if crate::progress::interrupted() {
                bail!("interrupted");
            }
            let piece = &mut buffer[..left.min(STEP as u64) as usize];
            self.exactly(piece)?;
            (self.room)(piece.len() as u64)?;
            self.kept.write_all_at(piece, self.end).context("keeping the data of a tar")?;
            self.end += piece.len() as u64;
            left -= piece.len() as u64;
        }
        self.buffer = buffer;
        Ok(start)
    }

    fn extension(&mut self, len: u64) -> Result<Vec<u8>> {
        if len > LONGEST_EXTENSION {
            bail!("an extended header of {len} bytes");
        }
        let mut body = vec![0; len as usize];
        self.exactly(&mut body)?;
        self.skip(len.next_multiple_of(BLOCK as u64) - len)?;
        Ok(body)
    }

    /// The next block; `None` at the end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        match self.some(&mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => bail!("it ends within a block: it was cut short"),
        }
    }

    fn need_block(&mut self) -> Result<[u8; BLOCK]> {
        self.block()?.context("it ends there: it was cut short")
    }

    fn exactly(&mut self, bytes: &mut [u8]) -> Result<()> {
        if self.some(bytes)? != bytes.len() {
            bail!("it ends there: it was cut short");
        }
        Ok(())
    }

    /// As much as there is.
    fn some(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.at += filled as u64;
        Ok(filled)
    }

    fn skip(&mut self, mut len: u64) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        while len > 0 {
            let piece = &mut buffer[..len.min(STEP as u64) as usize];
            self.exactly(piece)?;
            len -= piece.len() as u64;
        }
        self.buffer = buffer;
        Ok(())
    }

    /// Behind the end there are zeros alone. All of it is read: a compressed one is checked at its own end.
    fn rest(&mut self) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            if crate::progress::interrupted() {
                bail!("interrupted");
            }
            let count = self.some(&mut buffer)?;
            if buffer[..count].iter().any(|byte| *byte != 0) {
                bail!(
                    "there is more behind its end; hint: tars that were put together are imported one by one"
                );
            }
            if count < buffer.len() {
                return Ok(());
            }
        }
    }
}

impl Before {
    fn name(&self, global: &Extra, header: &Header) -> Vec<u8> {
        let extra = self.extra.as_ref().unwrap_or(global);
        extra.path.clone().or_else(|| self.path.clone()).unwrap_or_else(|| header.path.clone())
    }
}

/// A text of GNU tar's, without the zero behind it.
fn terminated(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    text.truncate(end);
    text
}

impl Tar {
    /// Access lists become attributes, once the accounts that they name are known.
    fn settle_lists(&mut self) -> Result<()> {
        let accounts = Accounts::parse(&self.small(b"etc/passwd")?, &self.small(b"etc/group")?);
        self.names.each_node(&mut |node| {
            for (key, text) in std::mem::take(&mut node.lists) {
                node.entry.attributes.push((key, acl::bytes(&text, &accounts)?));
            }
            node.entry.attributes.sort();
            let is_list = |(key, _): &&(Vec<u8>, Vec<u8>)| key == b"system.posix_acl_access";
            let list = node.entry.attributes.iter().find(is_list);
            if let Some(mode) = list.and_then(|(_, list)| acl::mode(list)) {
                node.entry.mode = node.entry.mode & !0o777 | mode;
            }
            Ok(())
        })
    }

    fn small(&self, path: &[u8]) -> Result<Vec<u8>> {
        let Some(Node { entry, start, .. }) = self.names.get(path) else { return Ok(Vec::new()) };
        let Kind::File(content) = &entry.kind else { return Ok(Vec::new()) };
        if content.len > LARGEST_ACCOUNTS || content.data != [(0, content.len)] {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; content.len as usize];
        self.kept.read_exact_at(&mut bytes, *start).context("reading what was kept of the tar")?;
        Ok(bytes)
    }
}

impl Source for Tar {
    fn survey(&self, each: &mut dyn FnMut(Surveyed) -> Result<()>) -> Result<()> {
        self.names.each(each)
    }

    fn data(&self, entry: &Entry, content: &Content, each: Sink<'_>) -> Result<()> {
        let node = self.names.get(&entry.path).context("no member has that name")?;
        let mut left: u64 = content.data.iter().map(|(_, len)| len).sum();
        let mut at = node.start;
        let mut buffer = vec![0; STEP.min(left as usize)];
        while left > 0 {
            let piece = &mut buffer[..left.min(STEP as u64) as usize];
            self.kept.read_exact_at(piece, at).context("reading what was kept of the tar")?;
            each(piece)?;
            at += piece.len() as u64;
            left -= piece.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
