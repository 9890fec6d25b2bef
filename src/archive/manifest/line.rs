//! One entry as a line of JSON.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::archive::entry::{Content, Entry, Kind, Time};
use crate::archive::text::{Text, hex, unhex};

/// The fields, in the order in which they are written; those that say nothing are left out.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: Text,
    #[serde(rename = "type")]
    kind: Name,
    /// Digits of base 8, as chmod(1) takes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    uid: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    gid: u32,
    /// Seconds and nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtime: Option<(i64, u32)>,
    #[serde(default, skip_serializing_if = "is_zero")]
    flags: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<(Text, Text)>,
    /// Of a link: where it leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    len: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blake3: Option<String>,
    /// Only where there are holes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Vec<(u64, u64)>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    #[default]
    Dir,
    File,
    Symlink,
    Hardlink,
    Char,
    Block,
    Fifo,
    Socket,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

pub(super) fn print(entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
    let mut line = Line { path: Text(entry.path.clone()), ..Line::default() };
    match &entry.kind {
        Kind::Directory => line.kind = Name::Dir,
        Kind::File(content) => {
            line.kind = Name::File;
            line.len = Some(content.len);
            line.blake3 = Some(hex(&content.blake3));
            line.data = (content.data != whole(content.len)).then(|| content.data.clone());
        }
        Kind::SymbolicLink(target) => (line.kind, line.target) = (Name::Symlink, Some(Text(target.clone()))),
        Kind::HardLink(target) => (line.kind, line.target) = (Name::Hardlink, Some(Text(target.clone()))),
        Kind::CharacterDevice(major, minor) => {
            (line.kind, line.device) = (Name::Char, Some((*major, *minor)))
        }
        Kind::BlockDevice(major, minor) => (line.kind, line.device) = (Name::Block, Some((*major, *minor))),
        Kind::Fifo => line.kind = Name::Fifo,
        Kind::Socket => line.kind = Name::Socket,
    }
    if line.kind != Name::Hardlink {
        line.mode = Some(format!("{:04o}", entry.mode));
        line.mtime = Some((entry.modified.seconds, entry.modified.nanoseconds));
        (line.uid, line.gid, line.flags) = (entry.uid, entry.gid, entry.flags);
        line.xattrs =
            entry.attributes.iter().map(|(name, value)| (Text(name.clone()), Text(value.clone()))).collect();
    }
    Ok(serde_json::to_writer(out, &line)?)
}

pub(super) fn parse(line: &[u8]) -> Result<Entry> {
    let mut line: Line = serde_json::from_slice(line)?;
    let kind = match line.kind {
        Name::Dir => Kind::Directory,
        Name::File => {
            let len = line.len.take().context("a file without a length")?;
            let digits = line.blake3.take().context("a file without a digest")?;
            let blake3 =
                unhex(&digits).and_then(|bytes| bytes.try_into().ok()).context("a digest that is none")?;
            Kind::File(Content { len, blake3, data: line.data.take().unwrap_or_else(|| whole(len)) })
        }
        Name::Symlink => Kind::SymbolicLink(line.target.take().context("a link without a target")?.0),
        Name::Hardlink => Kind::HardLink(line.target.take().context("a link without a target")?.0),
        Name::Char | Name::Block => {
            let (major, minor) = line.device.take().context("a device without a number")?;
            if line.kind == Name::Char {
                Kind::CharacterDevice(major, minor)
            } else {
                Kind::BlockDevice(major, minor)
            }
        }
        Name::Fifo => Kind::Fifo,
        Name::Socket => Kind::Socket,
    };
    if line.target.is_some()
        || line.device.is_some()
        || line.len.is_some()
        || line.blake3.is_some()
        || line.data.is_some()
    {
        bail!("an entry with fields of another type");
    }
    let (mut mode, mut modified) = (0, Time { seconds: 0, nanoseconds: 0 });
    if line.kind == Name::Hardlink {
        if line.mode.is_some()
            || line.mtime.is_some()
            || line.uid | line.gid | line.flags != 0
            || !line.xattrs.is_empty()
        {
            bail!("a hard link with properties of its own");
        }
    } else {
        let digits = line.mode.context("no mode")?;
        let is_octal = digits.len() == 4 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
        mode = u32::from_str_radix(&digits, 8).ok().filter(|_| is_octal).context("a mode that is none")?;
        let (seconds, nanoseconds) = line.mtime.context("no time")?;
        modified = Time { seconds, nanoseconds };
    }
    let attributes = line.xattrs.into_iter().map(|(name, value)| (name.0, value.0)).collect();
    Ok(Entry {
        path: line.path.0,
        kind,
        mode,
        uid: line.uid,
        gid: line.gid,
        modified,
        attributes,
        flags: line.flags,
    })
}

/// The pieces of a file without holes.
fn whole(len: u64) -> Vec<(u64, u64)> {
    if len == 0 { Vec::new() } else { vec![(0, len)] }
}
