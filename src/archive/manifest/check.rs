//! What a manifest may say, whoever wrote it.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

use super::Manifest;
use crate::archive::entry::{Content, Entry, KEPT_FLAGS, Kind};
use crate::archive::text::unhex;

/// NAME_MAX, XATTR_NAME_MAX and XATTR_SIZE_MAX of linux/limits.h.
const LONGEST_NAME: usize = 255;
const LONGEST_ATTRIBUTE: usize = 64 << 10;
/// PATH_MAX, which bounds a link's text; a path that is walked name by name may be longer.
const LONGEST_LINK: usize = 4095;
const LONGEST_PATH: usize = 64 << 10;
/// What the numbers of a device may be (`MKDEV` of linux/kdev_t.h).
const DEVICE: (u32, u32) = (1 << 12, 1 << 20);
/// Longest file (loff_t).
const LONGEST_FILE: u64 = i64::MAX as u64;

/// What follows from the entries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) entries: u64,
    pub(super) content: u64,
    pub(super) data: u64,
}

impl Sums {
    pub(super) fn add(&mut self, entry: &Entry) -> Result<()> {
        self.entries += 1;
        if let Kind::File(content) = &entry.kind {
            let data = content.data.iter().try_fold(0u64, |sum, (_, len)| sum.checked_add(*len));
            let sums =
                (self.content.checked_add(content.len), data.and_then(|data| self.data.checked_add(data)));
            let (Some(content), Some(data)) = sums else { bail!("files are longer than any disk") };
            (self.content, self.data) = (content, data);
        }
        Ok(())
    }
}

/// Whether a filesystem can be made of them, one after the other, and of nothing outside it.
pub(super) fn entries(entries: &[Entry]) -> Result<Sums> {
    let mut seen: HashMap<&[u8], What> = HashMap::with_capacity(entries.len());
    let mut sums = Sums::default();
    for entry in entries {
        one(entry, &seen).with_context(|| format!("entry '{}'", entry.path.escape_ascii()))?;
        let what = match entry.kind {
            Kind::Directory => What::Directory,
            Kind::HardLink(_) => What::FurtherName,
            _ => What::Other,
        };
        if seen.insert(&entry.path, what).is_some() {
            bail!("'{}' is there twice", entry.path.escape_ascii());
        }
        sums.add(entry)?;
    }
    if seen.get(&b""[..]) != Some(&What::Directory) {
        bail!("the top directory is missing");
    }
    Ok(sums)
}

pub(super) fn all(manifest: &Manifest) -> Result<()> {
    let head = &manifest.head;
    let sums = entries(&manifest.entries)?;
    if sums != (Sums { entries: head.entries, content: head.content_bytes, data: head.data_bytes }) {
        bail!("its first line tells of other sums than its entries have");
    }
    for pair in head.own.windows(2) {
        if pair[0].name >= pair[1].name {
            bail!("its own files are not in order");
        }
    }
    for own in &head.own {
        if unhex(&own.blake3).is_none_or(|digest| digest.len() != 32) || own.len > LONGEST_FILE {
            bail!("its own file '{}' has a digest or length that is none", own.name.name());
        }
    }
    Ok(())
}

/// What a path that came before is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Directory,
    FurtherName,
    Other,
}

fn one(entry: &Entry, seen: &HashMap<&[u8], What>) -> Result<()> {
    path(&entry.path)?;
    if !entry.path.is_empty() {
        let parent =
            entry.path.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &entry.path[..at]);
        if seen.get(parent) != Some(&What::Directory) {
            bail!("no directory that it is in comes before it");
        }
        if parent.is_empty() && entry.path == b".gridgate" {
            bail!("that is the name of the archive's own files");
        }
    }
    if entry.mode > 0o7777 || entry.flags & !KEPT_FLAGS != 0 || entry.modified.nanoseconds > 999_999_999 {
        bail!("its mode, flags or time are none");
    }
    attributes(&entry.attributes)?;
    match &entry.kind {
        Kind::File(content) => pieces(content),
        Kind::SymbolicLink(target)
            if target.is_empty() || target.len() > LONGEST_LINK || target.contains(&0) =>
        {
            bail!("its target is none")
        }
        Kind::HardLink(target) if seen.get(&target[..]) != Some(&What::Other) => {
            bail!(
                "'{}', which it is to be another name of, is no file that comes before it",
                target.escape_ascii()
            )
        }
        Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor)
            if *major >= DEVICE.0 || *minor >= DEVICE.1 =>
        {
            bail!("its number is none")
        }
        _ => Ok(()),
    }
}

fn path(path: &[u8]) -> Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    if path.len() > LONGEST_PATH || path.contains(&0) {
        bail!("its path is none");
    }
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." | b".." => bail!("its path is not one inside the top directory"),
            _ if name.len() > LONGEST_NAME => bail!("it has a name of {} bytes", name.len()),
            _ => {}
        }
    }
    Ok(())
}

fn attributes(attributes: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
    for (name, value) in attributes {
        let is_known = [&b"user."[..], b"trusted.", b"security."]
            .iter()
            .any(|prefix| name.strip_prefix(*prefix).is_some_and(|rest| !rest.is_empty()))
            || [&b"system.posix_acl_access"[..], b"system.posix_acl_default"].contains(&&name[..]);
        if !is_known || name.len() > LONGEST_NAME || name.contains(&0) || value.len() > LONGEST_ATTRIBUTE {
            bail!("its attribute '{}' is none that is kept", name.escape_ascii());
        }
    }
    if attributes.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        bail!("its attributes are not in order");
    }
    Ok(())
}

fn pieces(content: &Content) -> Result<()> {
    if content.len > LONGEST_FILE {
        bail!("it is longer than any file");
    }
    let mut from = None;
    for (offset, len) in &content.data {
        let end = offset.checked_add(*len).filter(|end| *end <= content.len);
        let (Some(end), true) = (end, *len > 0 && from.is_none_or(|from| *offset > from)) else {
            bail!("its pieces are not in order, or not inside it");
        };
        from = Some(end);
    }
    Ok(())
}
