//! One file: what it is, and how it is looked into.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::PoisonError;

use anyhow::{Context, Result};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{MOST_LINKED, Worker, open, place};
use crate::identity::audit::needles::{Data, Sort};
use crate::identity::audit::packed::Packed;
use crate::identity::audit::private::Scan;
use crate::identity::audit::report::{Finding, MEND, Place, Verdict, class_of, shown};
use crate::identity::audit::search::{Hit, Where};
use crate::identity::audit::{keystore, pem, sqlite};
use crate::identity::initramfs;

/// What a compressed file is looked into at most; one that holds more is said to.
const MOST_UNPACKED: u64 = 512 << 20;

/// Keys, certificates and seeds are smaller.
const LARGEST_SECRET: u64 = 16 << 10;

/// What a file begins with, if it is in a form that is not looked into.
const CLOSED: [(&[u8], &str); 2] = [(b"PK\x03\x04", "a zip archive"), (b"LUKS\xba\xbe", "an encrypted disk")];

/// What was found in one file: where first, and how often.
type Hits = BTreeMap<(Sort, String), (Hit, u64)>;

impl Worker<'_> {
    pub(super) fn file(&mut self, dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
        // Not before it is known to be a regular file: opening a device may do something.
        let handle = match open(dir, name, OFlags::PATH) {
            Ok(handle) => handle,
            Err(Errno::NOENT | Errno::LOOP | Errno::XDEV) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let stat = rustix::fs::fstat(&handle)?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !regular || stat.st_size == 0 || self.was_read(&stat) {
            return Ok(());
        }
        let file = reopen(&handle)?;
        self.looked.files += 1;
        let at = Where { newer: self.shared.now.is_newer(stat.st_mtime), ..place(path) };
        let size = stat.st_size as u64;
        if let Some(digest) = self.shared.now.written.get(path)
            && size <= self.buffer.len() as u64
            && *blake3::hash(self.whole(&file, size)?).as_bytes() == *digest
        {
            return Ok(());
        }
        let mut head = [0; 100];
        let length = file.read_at(&mut head, 0)?;
        let head = &head[..length];
        let mut hits = Hits::new();
        let mut scan = self.shared.now.without_keys.then(|| Scan::of(path.as_os_str().as_bytes()));
        if size <= LARGEST_SECRET && !at.packaged && !at.newer {
            self.digests(&file, size, &mut hits)?;
        }
        let packed = Packed::of(head);
        // What a package brought is nobody's, and kernels bring a thousand packed modules.
        let to_unpack = packed.filter(|form| *form == Packed::Gzip || !at.packaged);
        let unpacked = to_unpack.map(|form| self.packed(form, &file, path, at, &mut hits)).transpose()?;
        // One that only seems to be packed holds what it holds.
        if unpacked != Some(true) {
            let locked =
                keystore::pkcs12(head).map(|_| "a PKCS #12 key store: it opens with its password only");
            let is_initial = initramfs::is_initramfs(Path::new(name)) && head.starts_with(b"0707");
            let seen = is_initial && self.behind_archives(&file, path, at, &mut hits)?;
            let initial = (is_initial && !seen).then_some("an initial filesystem, part of which is packed");
            if let Some(why) = closed(head).or(locked).or(initial).filter(|_| !at.packaged) {
                self.shared.unseen(path, why);
            }
            self.store(&file, size, path, at, &mut hits)?;
            self.plain(&file, &stat, at, &mut scan, &mut hits)?;
            if let Some(page) = sqlite::page_size(head) {
                self.database(&file, page, size, at, &mut hits)?;
            }
        }
        if scan.is_some_and(|scan| scan.found()) {
            self.shared.found(private_key(path));
        }
        if !hits.is_empty() {
            let text = is_text(&file)? || unpacked == Some(true);
            for (hit, count) in hits.into_values() {
                self.shared.found(finding(path, &hit, count, text));
            }
        }
        Ok(())
    }

    /// Whether the file was met under another name.
    fn was_read(&self, stat: &Stat) -> bool {
        if stat.st_nlink < 2 {
            return false;
        }
        let mut linked = self.shared.linked.lock().unwrap_or_else(PoisonError::into_inner);
        linked.len() < MOST_LINKED && !linked.insert((stat.st_dev, stat.st_ino))
    }

    fn whole(&mut self, file: &File, size: u64) -> Result<&[u8]> {
        let size = (size as usize).min(self.buffer.len());
        let whole = &mut self.buffer[..size];
        file.read_exact_at(whole, 0)?;
        Ok(whole)
    }

    /// Whether the whole file is one that only the old machine may have.
    fn digests(&mut self, file: &File, size: u64, hits: &mut Hits) -> Result<()> {
        let old = self.shared.old;
        if old.secrets.is_empty() && old.certificates.is_empty() {
            return Ok(());
        }
        let content = self.whole(file, size)?;
        let mut hit = |sort: Sort, shown: String| {
            let hit = Hit { sort, shown: shown.clone(), offset: 0, line: 1, inside: None };
            hits.insert((sort, shown), (hit, 1));
        };
        if old.secrets.contains(blake3::hash(content).to_hex().as_str()) {
            hit(Sort::Secret, "a copy of a file that only it may have".to_owned());
        }
        if !old.certificates.is_empty() {
            let digest = pem::sha256(content);
            if old.certificates.contains(&digest) {
                hit(Sort::Certificate, format!("SHA-256 {digest}"));
            }
        }
        Ok(())
    }

    fn plain(
        &mut self,
        file: &File,
        stat: &Stat,
        at: Where,
        scan: &mut Option<Scan>,
        hits: &mut Hits,
    ) -> Result<()> {
        let size = stat.st_size as u64;
        // Where nothing was ever written there is nothing to be found; a block is 512 bytes here (stat(2)).
        let sparse = (stat.st_blocks as u64).saturating_mul(512) < size;
        let mut from = 0;
        while from < size {
            let to = if sparse {
                let Some((start, end)) = data(file, from)? else { break };
                from = start;
                end
            } else {
                size
            };
            let mut source = file.try_clone()?;
            source.seek(SeekFrom::Start(from))?;
            let mut part = Overheard { source: source.take(to - from), scan };
            self.looked.bytes +=
                self.shared
                    .finder
                    .stream(&mut part, from, at, &mut self.buffer, &mut |hit| note(hits, hit, None))?;
            from = to.max(from + 1);
        }
        Ok(())
    }

    /// What was packed; whether it could be read to its end, or as far as anything is.
    fn packed(&mut self, form: Packed, file: &File, path: &Path, at: Where, hits: &mut Hits) -> Result<bool> {
        let done = form.reader(file).and_then(|reader| {
            let mut unpacked = reader.take(MOST_UNPACKED);
            let done = self.shared.finder.stream(&mut unpacked, 0, at, &mut self.buffer, &mut |hit| {
                note(hits, hit, Some(form.name()));
            });
            if unpacked.limit() == 0 {
                self.shared.unseen(path, format!("looked into no further than {} MiB", MOST_UNPACKED >> 20));
            }
            done
        });
        match done {
            Ok(bytes) => {
                self.looked.bytes += bytes;
                Ok(true)
            }
            Err(error) => {
                let why = format!("damaged, too large, or no {} after all: {error}", form.name());
                self.shared.unseen(path, why);
                Ok(false)
            }
        }
    }

    /// What an initial filesystem has packed behind archives that are not, such as microcode; whether it could be read.
    fn behind_archives(&mut self, file: &File, path: &Path, at: Where, hits: &mut Hits) -> Result<bool> {
        let begins = match initramfs::packed_at(file) {
            Ok(Some(begins)) => begins,
            Ok(None) => return Ok(true),
            Err(_) => return Ok(false),
        };
        let mut head = [0; 16];
        let length = file.read_at(&mut head, begins)?;
        let Some(form) = Packed::of(&head[..length]) else { return Ok(false) };
        let mut source = file;
        source.seek(SeekFrom::Start(begins))?;
        self.packed(form, file, path, at, hits)
    }

    /// A store of keys: its certificates, where they can be seen.
    fn store(&mut self, file: &File, size: u64, path: &Path, at: Where, hits: &mut Hits) -> Result<()> {
        let mut head = [0; 64];
        let length = file.read_at(&mut head, 0)?;
        if keystore::jks(&head[..length]).is_none() {
            return Ok(());
        }
        let (finder, shared) = (self.shared.finder, self.shared);
        let bytes = self.whole(file, size)?;
        if let Some(store) = keystore::jks(bytes) {
            for certificate in &store.certificates {
                // Its place among the bytes that were read.
                let offset = certificate.as_ptr().addr().saturating_sub(bytes.as_ptr().addr()) as u64;
                finder.der("JKS", certificate, (offset, 1), at, &mut |hit| note(hits, hit, None));
            }
            if !store.whole {
                shared.unseen(path, "a Java key store that is damaged, or too large to be read to its end");
            }
        }
        Ok(())
    }

    /// Values one by one; what the search through all bytes has found is not counted again.
    fn database(&mut self, file: &File, page: usize, size: u64, at: Where, hits: &mut Hits) -> Result<()> {
        let mut offset = 0;
        let mut found = Hits::new();
        while offset + page as u64 <= size {
            let bytes = &mut self.buffer[..page];
            if file.read_exact_at(bytes, offset).is_err() {
                break;
            }
            let finder = self.shared.finder;
            sqlite::values(bytes, offset == 0, &mut |start, value| {
                finder.value(value, at, Data::File, &mut |begin, needle| {
                    let offset = offset + (start + begin) as u64;
                    let (sort, shown) = (needle.sort, needle.shown.clone());
                    note(&mut found, Hit { sort, shown, offset, line: 1, inside: None }, Some("SQLite"));
                });
            });
            offset += page as u64;
        }
        for (key, hit) in found {
            hits.entry(key).or_insert(hit);
        }
        Ok(())
    }
}

/// What is read for one search is heard by the other.
struct Overheard<'s, R> {
    source: R,
    scan: &'s mut Option<Scan>,
}

impl<R: Read> Read for Overheard<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        if let Some(scan) = self.scan {
            scan.feed(&buffer[..count]);
        }
        Ok(count)
    }
}

fn private_key(path: &Path) -> Finding {
    Finding {
        class: class_of(Sort::PrivateKey),
        verdict: Verdict::Suspect,
        path: shown(path),
        place: None,
        found: "a private key, which all that is made of this would share".to_owned(),
        sort: Some(Sort::PrivateKey),
        count: 1,
        mend: MEND.to_owned(),
    }
}

fn note(hits: &mut Hits, mut hit: Hit, inside: Option<&str>) {
    if let Some(outer) = inside {
        hit.inside = Some(match hit.inside.take() {
            Some(inner) => format!("{outer}, {inner}"),
            None => outer.to_owned(),
        });
    }
    hits.entry((hit.sort, hit.shown.clone())).and_modify(|(_, count)| *count += 1).or_insert((hit, 1));
}

fn finding(path: &Path, hit: &Hit, count: u64, text: bool) -> Finding {
    Finding {
        class: class_of(hit.sort),
        verdict: if hit.sort == Sort::ShortName { Verdict::Suspect } else { Verdict::Left },
        path: shown(path),
        place: Some(Place { line: text.then_some(hit.line), offset: hit.offset, inside: hit.inside.clone() }),
        found: match hit.sort {
            Sort::Secret => "a copy of a file that only the old machine may have".to_owned(),
            sort => format!("the old machine's {} '{}'", sort.as_str(), hit.shown),
        },
        sort: Some(hit.sort),
        count,
        mend: MEND.to_owned(),
    }
}

/// The very file that was looked at, for reading.
fn reopen(handle: &OwnedFd) -> Result<File> {
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(&path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::open(&path, flags, Mode::empty()),
        opened => opened,
    };
    Ok(File::from(opened.context("opening it")?))
}

/// The next part of a file that holds something, from an offset on.
fn data(file: &File, from: u64) -> Result<Option<(u64, u64)>> {
    let start = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some((start, rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start))?)))
}

fn is_text(file: &File) -> Result<bool> {
    let mut head = [0; 4096];
    let length = file.read_at(&mut head, 0)?;
    Ok(memchr::memchr(0, &head[..length]).is_none())
}

fn closed(head: &[u8]) -> Option<&'static str> {
    CLOSED.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, why)| *why)
}
