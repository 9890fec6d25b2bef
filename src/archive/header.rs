//! What stands before each thing's content in the tar: a header as POSIX has it (pax(1), ustar with extended headers), with what GNU
//! tar keeps besides.
//!
//! All of it follows from the manifest, byte by byte. So a reader makes the headers itself and compares; it never takes one apart,
//! and what a header could say otherwise is no concern.

use super::entry::{Entry, Kind, Time};

/// Everything in a tar begins at a multiple of this.
pub const BLOCK: usize = 512;
/// Zeros at the end.
pub const END: usize = 2 * BLOCK;
/// Where the archive's own files are.
const OWN: &str = ".gridgate/";

/// What fits into the header's own fields: digits of base 8.
const MOST_7: u64 = 0o777_7777;
const MOST_11: u64 = 0o777_7777_7777;
const LONGEST: usize = 100;

/// Headers of an entry, and where it is a file with holes the list of its pieces; what follows is the data of its pieces and
/// [`padding`]. `of` is the entry itself, or for a further name that of the file. Nothing for a socket: tar has no such type.
pub fn of(entry: &Entry, of: &Entry) -> Vec<u8> {
    let mut records = Records::default();
    let mut field = Field { mode: of.mode, ..Field::default() };
    let mut name = entry.path.clone();
    let mut map = Vec::new();
    let (mut stored, mut link) = (0, &[][..]);
    match &entry.kind {
        Kind::Socket => return Vec::new(),
        Kind::Directory => {
            field.kind = b'5';
            name = if name.is_empty() { b"./".to_vec() } else { [&name[..], b"/"].concat() };
        }
        Kind::File(content) => {
            field.kind = b'0';
            stored = data_len(&content.data);
            if stored != content.len {
                map = sparse_map(content.len, &content.data);
                records.add("GNU.sparse.major", b"1");
                records.add("GNU.sparse.minor", b"0");
                records.add("GNU.sparse.name", &name);
                records.add("GNU.sparse.realsize", content.len.to_string().as_bytes());
                let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                name = [b"GNUSparseFile.0/", last].concat();
                name.truncate(LONGEST);
                stored += map.len() as u64;
            }
        }
        Kind::SymbolicLink(target) => (field.kind, link) = (b'2', target),
        Kind::HardLink(target) => (field.kind, link) = (b'1', target),
        Kind::CharacterDevice(major, minor) => (field.kind, field.device) = (b'3', (*major, *minor)),
        Kind::BlockDevice(major, minor) => (field.kind, field.device) = (b'4', (*major, *minor)),
        Kind::Fifo => field.kind = b'6',
    }
    field.size = records.number("size", stored, MOST_11);
    field.uid = records.number("uid", of.uid.into(), MOST_7);
    field.gid = records.number("gid", of.gid.into(), MOST_7);
    field.modified = records.time(of.modified);
    records.long("path", &name);
    records.long("linkpath", link);
    if !matches!(entry.kind, Kind::HardLink(_)) {
        records.attributes(&entry.attributes);
    }
    let mut bytes = records.print();
    bytes.extend(header(&name, link, &field));
    bytes.extend(map);
    bytes
}

/// Headers of one of the archive's own files.
pub fn own(name: &str, len: u64) -> Vec<u8> {
    let mut records = Records::default();
    let size = records.number("size", len, MOST_11);
    let field = Field { kind: b'0', mode: 0o644, size, ..Field::default() };
    let mut bytes = records.print();
    bytes.extend(header(format!("{OWN}{name}").as_bytes(), b"", &field));
    bytes
}

/// Length of the content that the header of one of the archive's own files tells of; `None` if it is not just as [`own`] makes it.
pub fn own_len(name: &str, bytes: &[u8; BLOCK]) -> Option<u64> {
    let digits = std::str::from_utf8(bytes.get(124..135)?).ok()?;
    let len = u64::from_str_radix(digits, 8).ok()?;
    (own(name, len) == bytes).then_some(len)
}

/// Zeros that follow content of that length.
pub fn padding(len: u64) -> usize {
    (len.wrapping_neg() % BLOCK as u64) as usize
}

/// How much of a file is in the archive.
pub fn data_len(pieces: &[(u64, u64)]) -> u64 {
    pieces.iter().map(|(_, len)| len).sum()
}

#[derive(Debug, Default)]
struct Field {
    kind: u8,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    modified: u64,
    device: (u32, u32),
}

fn header(name: &[u8], link: &[u8], field: &Field) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    let mut put = |at: usize, value: &[u8], most: usize| {
        let len = value.len().min(most);
        bytes[at..at + len].copy_from_slice(&value[..len]);
    };
    put(0, name, LONGEST);
    put(100, format!("{:07o}", field.mode).as_bytes(), 8);
    put(108, format!("{:07o}", field.uid).as_bytes(), 8);
    put(116, format!("{:07o}", field.gid).as_bytes(), 8);
    put(124, format!("{:011o}", field.size).as_bytes(), 12);
    put(136, format!("{:011o}", field.modified).as_bytes(), 12);
    put(148, b"        ", 8);
    put(156, &[field.kind], 1);
    put(157, link, LONGEST);
    put(257, b"ustar\x0000", 8);
    put(329, format!("{:07o}", field.device.0).as_bytes(), 8);
    put(337, format!("{:07o}", field.device.1).as_bytes(), 8);
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    bytes
}

/// Pieces of a file with holes, as GNU tar's format 1.0 has them: numbers in lines, filled up to a block.
fn sparse_map(len: u64, pieces: &[(u64, u64)]) -> Vec<u8> {
    let end = pieces.last().map_or(0, |(offset, len)| offset + len);
    // An empty piece tells how long the hole at the end is.
    let last = (end < len).then_some((len, 0));
    let count = pieces.len() + usize::from(last.is_some());
    let mut map = format!("{count}\n").into_bytes();
    for (offset, len) in pieces.iter().copied().chain(last) {
        map.extend(format!("{offset}\n{len}\n").into_bytes());
    }
    map.resize(map.len() + padding(map.len() as u64), 0);
    map
}

/// An extended header.
#[derive(Debug, Default)]
struct Records(Vec<u8>);

impl Records {
    /// `LENGTH KEY=VALUE\n`, the length counting its own digits.
    fn add(&mut self, key: impl AsRef<[u8]>, value: &[u8]) {
        let rest = key.as_ref().len() + value.len() + 3;
        let mut len = rest;
        while len != rest + len.to_string().len() {
            len = rest + len.to_string().len();
        }
        self.0.extend(format!("{len} ").into_bytes());
        self.0.extend(key.as_ref());
        self.0.push(b'=');
        self.0.extend(value);
        self.0.push(b'\n');
    }

    /// A number for the header's field: there it is 0 if it is too large for it.
    fn number(&mut self, key: &str, number: u64, most: u64) -> u64 {
        if number <= most {
            return number;
        }
        self.add(key, number.to_string().as_bytes());
        0
    }

    fn time(&mut self, time: Time) -> u64 {
        let whole = u64::try_from(time.seconds).ok().filter(|seconds| *seconds <= MOST_11);
        if let (Some(seconds), 0) = (whole, time.nanoseconds) {
            return seconds;
        }
        // A fraction is written towards zero, so that of a time before 1970 counts from the next second.
        let text = match (time.seconds, time.nanoseconds) {
            (seconds, 0) => seconds.to_string(),
            (seconds @ 0.., nanoseconds) => format!("{seconds}.{nanoseconds:09}"),
            (seconds, nanoseconds) => {
                format!("-{}.{:09}", (i128::from(seconds) + 1).unsigned_abs(), 1_000_000_000 - nanoseconds)
            }
        };
        self.add("mtime", text.as_bytes());
        whole.unwrap_or_default()
    }

    fn long(&mut self, key: &str, value: &[u8]) {
        if value.len() > LONGEST {
            self.add(key, value);
        }
    }

    fn attributes(&mut self, attributes: &[(Vec<u8>, Vec<u8>)]) {
        for (name, value) in attributes {
            // Tools set these through the library of access control lists.
            let list = match &name[..] {
                b"system.posix_acl_access" => Some("SCHILY.acl.access"),
                b"system.posix_acl_default" => Some("SCHILY.acl.default"),
                _ => None,
            };
            match list {
                Some(key) => {
                    if let Some(text) = acl_text(value) {
                        self.add(key, text.as_bytes());
                    }
                }
                None => {
                    // As GNU tar writes a name that holds these (xattrs.c).
                    let mut key = b"SCHILY.xattr.".to_vec();
                    for byte in name {
                        match byte {
                            b'%' => key.extend(b"%25"),
                            b'=' => key.extend(b"%3D"),
                            byte => key.push(*byte),
                        }
                    }
                    self.add(key, value);
                }
            }
        }
    }

    fn print(self) -> Vec<u8> {
        if self.0.is_empty() {
            return self.0;
        }
        let size = self.0.len() as u64;
        let field = Field { kind: b'x', mode: 0o644, size, ..Field::default() };
        let mut bytes = header(b"././@PaxHeader", b"", &field).to_vec();
        bytes.extend(self.0);
        bytes.resize(bytes.len() + padding(size), 0);
        bytes
    }
}

/// An access control list as acl_from_text(3) reads it, with numbers for names; `None` if the bytes are none.
fn acl_text(bytes: &[u8]) -> Option<String> {
    // linux/posix_acl_xattr.h: a version, then entries of a tag, permissions and an id; all least byte first.
    let entries = bytes.strip_prefix(&2u32.to_le_bytes()[..])?;
    let mut text = String::new();
    for entry in entries.chunks(8) {
        let [tag, 0, permissions @ 0..=7, 0, id @ ..] = entry else { return None };
        let id = u32::from_le_bytes(id.try_into().ok()?);
        let (who, id) = match tag {
            0x01 => ("user", String::new()),
            0x02 => ("user", id.to_string()),
            0x04 => ("group", String::new()),
            0x08 => ("group", id.to_string()),
            0x10 => ("mask", String::new()),
            0x20 => ("other", String::new()),
            _ => return None,
        };
        let letter = |bit: u8, letter: char| if permissions & bit != 0 { letter } else { '-' };
        let permissions = [letter(4, 'r'), letter(2, 'w'), letter(1, 'x')];
        text += &format!("{who}:{id}:{}\n", permissions.iter().collect::<String>());
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::manifest::tests::{entry, file};

    #[test]
    fn a_record_counts_its_own_digits() {
        let mut records = Records::default();
        records.add("mtime", b"1.5");
        records.add("a", &[b'x'; 95]);
        assert_eq!(&records.0[..13], b"13 mtime=1.5\n");
        assert_eq!(&records.0[13..19], b"102 a=");
        assert_eq!(records.0.len(), 13 + 102);
    }

    #[test]
    fn times_before_1970_are_written_towards_zero() {
        for (seconds, nanoseconds, text) in [
            (-1, 500_000_000, "-0.500000000"),
            (-2, 250_000_000, "-1.750000000"),
            (-7, 0, "-7"),
            (7, 1, "7.000000001"),
            (i64::MIN, 1, "-9223372036854775807.999999999"),
        ] {
            let mut records = Records::default();
            records.time(Time { seconds, nanoseconds });
            let text = format!("mtime={text}\n");
            assert!(String::from_utf8(records.0).unwrap().ends_with(&text), "{text}");
        }
    }

    #[test]
    fn a_header_is_told_from_any_other() {
        let bytes: [u8; BLOCK] = own("manifest.jsonl", 1234).try_into().unwrap();
        assert_eq!(own_len("manifest.jsonl", &bytes), Some(1234));
        assert_eq!(own_len("signatures", &bytes), None);
        for at in 0..BLOCK {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert_eq!(own_len("manifest.jsonl", &changed), None, "{at}");
        }
    }

    #[test]
    fn an_access_control_list_becomes_text() {
        let list =
            b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x20\0\0\0\xff\xff\xff\xff";
        assert_eq!(acl_text(list).unwrap(), "user::rw-\nuser:1000:r--\nother::---\n");
        assert_eq!(acl_text(b"\x02\0\0\0\x01"), None);
        assert_eq!(acl_text(b""), None);
    }

    /// What older archives hold must stay what this program reads: another form needs another format version.
    #[test]
    fn headers_stay_as_they_are() {
        let mut all = Vec::new();
        for entry in crate::archive::manifest::tests::entries() {
            all.extend(of(&entry, &file(b"d/f", b"hello")));
        }
        let long = [b'n'; 255];
        all.extend(of(&entry(&long, Kind::SymbolicLink(vec![b't'; 300])), &entry(&long, Kind::Fifo)));
        all.extend(own("kernel", 1 << 40));
        assert_eq!(all.len() % BLOCK, 0);
        assert_eq!(
            blake3::hash(&all).to_hex().as_str(),
            "374c881a7feacda4ca89dc93da2af6cde81b3a0d80a6a12e9699f953d5adb57d"
        );
    }
}
