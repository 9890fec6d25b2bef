//! Extended headers: what does not fit into a header, as pax, GNU tar, star and bsdtar write it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::sparse::{self, Map};
use crate::archive::entry::Time;

/// What extended headers say of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extra {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub modified: Option<Time>,
    pub attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Text of access control lists, by the attribute that they are to become.
    pub lists: BTreeMap<&'static [u8], Vec<u8>>,
    pub flags: u32,
    /// `GNU.sparse.major`: whether the list of pieces stands in front of the data.
    pub map_in_front: bool,
    pub map: Option<Map>,
    pub real_len: Option<u64>,
    pub device: (Option<u32>, Option<u32>),
}

/// `FS_IOC_GETFLAGS` bits by the names that bsdtar and star have for them (libarchive, `archive_entry.c`).
const FLAGS: [(&[&str], u32); 7] = [
    (&["sappnd", "sappend", "uappnd", "uappend"], 0x20),
    (&["schg", "schange", "simmutable", "uchg", "uchange", "uimmutable"], 0x10),
    (&["nodump"], 0x40),
    (&["noatime"], 0x80),
    (&["sync"], 0x8),
    (&["dirsync"], 0x1_0000),
    (&["journal-data", "journal"], 0x4000),
];

impl Extra {
    /// Takes in all that one extended header says; later ones count.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<()> {
        for (key, value) in records(bytes)? {
            let said = self.one(key, value);
            said.with_context(|| format!("reading '{}' of an extended header", key.escape_ascii()))?;
        }
        Ok(())
    }

    fn one(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let bytes = || Some(value.to_vec()).filter(|value| !value.is_empty());
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.attributes.insert(unescaped(name, &[b"%25", b"%3D"])?, value.to_vec());
            return Ok(());
        }
        if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            self.attributes.insert(unescaped(name, &[])?, base64(value)?);
            return Ok(());
        }
        match key {
            b"path" => self.path = bytes(),
            b"GNU.sparse.name" => self.path = bytes().or(self.path.take()),
            b"linkpath" => self.link = bytes(),
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = number(value)?,
            b"gid" => self.gid = number(value)?,
            b"mtime" => self.modified = if value.is_empty() { None } else { Some(time(value)?) },
            b"RHT.security.selinux" => {
                // A label ends with a zero in the filesystem, as programs set it.
                let label = [value.strip_suffix(b"\0").unwrap_or(value), b"\0"].concat();
                self.attributes.entry(b"security.selinux".to_vec()).or_insert(label);
            }
            b"SCHILY.acl.access" => _ = self.lists.insert(b"system.posix_acl_access", value.to_vec()),
            b"SCHILY.acl.default" => _ = self.lists.insert(b"system.posix_acl_default", value.to_vec()),
            b"SCHILY.fflags" => self.flags = flags(value),
            b"SCHILY.devmajor" => self.device.0 = number(value)?,
            b"SCHILY.devminor" => self.device.1 = number(value)?,
            b"GNU.sparse.major" => self.map_in_front = number::<u64>(value)? == Some(1),
            b"GNU.sparse.map" => self.map = Some(sparse::in_text(value)?),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.real_len = number(value)?,
            // Format 0.0 has a pair of them for each piece.
            b"GNU.sparse.offset" => {
                let offset = number(value)?.context("it is empty")?;
                let map = self.map.get_or_insert_default();
                if map.len() >= sparse::MOST {
                    bail!("there are too many");
                }
                map.push((offset, 0));
            }
            b"GNU.sparse.numbytes" => {
                let piece =
                    self.map.as_mut().and_then(|map| map.last_mut()).context("no offset is before it")?;
                piece.1 = number(value)?.context("it is empty")?;
            }
            // Times of access, names of owners, comments, and what other systems have.
            _ => {}
        }
        Ok(())
    }
}

/// `LENGTH KEY=VALUE\n`, one after another; a value may hold any byte.
pub(super) fn records(mut bytes: &[u8]) -> Result<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let record = || -> Option<(usize, &[u8], &[u8])> {
            let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
            let len: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            Some((len, &record[..equals], &record[equals + 1..]))
        };
        let Some((len, key, value)) = record() else { bail!("an extended header that is none") };
        records.push((key, value));
        bytes = &bytes[len..];
    }
    Ok(records)
}

fn number<N: std::str::FromStr>(value: &[u8]) -> Result<Option<N>> {
    if value.is_empty() {
        return Ok(None);
    }
    let parsed = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    Ok(Some(parsed.with_context(|| format!("'{}' is no number there", value.escape_ascii()))?))
}

/// Seconds with a fraction, which counts away from zero.
fn time(value: &[u8]) -> Result<Time> {
    let text = std::str::from_utf8(value).ok();
    let parse = |text: &str| -> Option<Time> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let whole: i64 = whole.parse().ok()?;
        // Finer than a nanosecond no filesystem has.
        let fraction = &fraction[..fraction.len().min(9)];
        let nanoseconds: u32 = format!("{fraction:0<9}").parse().ok()?;
        Some(match (negative, nanoseconds) {
            (false, nanoseconds) => Time { seconds: whole, nanoseconds },
            (true, 0) => Time { seconds: -whole, nanoseconds: 0 },
            (true, nanoseconds) => Time { seconds: -whole - 1, nanoseconds: 1_000_000_000 - nanoseconds },
        })
    };
    text.and_then(parse).with_context(|| format!("'{}' is no time", value.escape_ascii()))
}

/// A name whose bytes are written as `%XX`: all that are, or only those `of` these.
fn unescaped(name: &[u8], of: &[&[u8]]) -> Result<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::new(), name);
    while let [first, more @ ..] = rest {
        let coded = rest.get(..3).filter(|coded| coded[0] == b'%' && (of.is_empty() || of.contains(coded)));
        let byte = coded
            .and_then(|coded| std::str::from_utf8(&coded[1..]).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &rest[3..] } else { more };
    }
    if bytes.is_empty() {
        bail!("an attribute without a name");
    }
    Ok(bytes)
}

fn base64(text: &[u8]) -> Result<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for byte in text.iter().filter(|byte| !matches!(byte, b'=' | b'\n')) {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("a value that is no base64"),
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Ok(bytes)
}

/// Those that are kept; a filesystem has others, which tell how it has laid a file out.
fn flags(value: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(value).into_owned();
    let bit = |name: &str| FLAGS.iter().find(|(names, _)| names.contains(&name)).map_or(0, |(_, bit)| *bit);
    text.split(',').map(|name| bit(name.trim())).fold(0, |all, bit| all | bit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_may_hold_line_ends_and_zeros() {
        let read = records(b"11 a=b\n\0\n=\n6 c=d\n").unwrap();
        assert_eq!(read, [(&b"a"[..], &b"b\n\0\n="[..]), (b"c", b"d")]);
        for bad in [&b"5 a=b\n"[..], b"99 a=b\n", b"a=b\n", b"6 a b\n", b"0 a=\n", b"3 \n"] {
            assert!(records(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_have_nanoseconds_and_may_be_before_1970() {
        for (text, seconds, nanoseconds) in [
            ("7", 7, 0),
            ("7.25", 7, 250_000_000),
            ("-1.5", -2, 500_000_000),
            ("-0.000000001", -1, 999_999_999),
            ("-3", -3, 0),
            ("1.0000000019", 1, 1),
        ] {
            assert_eq!(time(text.as_bytes()).unwrap(), Time { seconds, nanoseconds }, "{text}");
        }
        for bad in ["", "-", "1.x", "1.-1", "--1", "99999999999999999999"] {
            assert!(time(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn attributes_are_read_as_gnu_tar_and_bsdtar_write_them() {
        let mut extra = Extra::default();
        extra.one(b"SCHILY.xattr.user.a%3Db%25c%20", b"\0v\n").unwrap();
        extra.one(b"LIBARCHIVE.xattr.user.a%20b", b"AHYK").unwrap();
        extra.one(b"RHT.security.selinux", b"label").unwrap();
        extra.one(b"SCHILY.fflags", b"schg,nodump,unknown").unwrap();
        let wanted = [
            (&b"security.selinux"[..], &b"label\0"[..]),
            (b"user.a b", b"\0v\n"),
            (b"user.a=b%c%20", b"\0v\n"),
        ];
        let read: Vec<(&[u8], &[u8])> = extra.attributes.iter().map(|(k, v)| (&k[..], &v[..])).collect();
        assert_eq!(read, wanted);
        assert_eq!(extra.flags, 0x50);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, key in "(path|size|uid|mtime|GNU.sparse.(map|offset|numbytes|major)|SCHILY.(xattr|acl).[%a-z0-9]{0,4}|LIBARCHIVE.xattr.%[0-9]{2})", value: Vec<u8>) {
            let mut extra = Extra::default();
            let _ = extra.take(&bytes);
            let _ = extra.one(key.as_bytes(), &value);
        }

        #[test]
        fn any_text_of_a_time_is_read_or_refused(text in "-?[0-9]{0,20}(\\.[0-9]{0,12})?") {
            let _ = time(text.as_bytes());
        }
    }
}
