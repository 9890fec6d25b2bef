//! Access control lists: text in a tar, bytes in a filesystem.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

/// Tags of linux/posix_acl.h.
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// `ACL_UNDEFINED_ID`.
const NOBODY: u32 = u32::MAX;

/// Numbers of users and groups by name, as the tar's own `/etc/passwd` and `/etc/group` have them.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Accounts {
    /// Lines that are none are passed over.
    pub(super) fn parse(passwd: &[u8], group: &[u8]) -> Self {
        let read = |text: &[u8]| -> HashMap<String, u32> {
            let text = String::from_utf8_lossy(text);
            let line = |line: &str| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                Some((name.to_owned(), fields.nth(1)?.parse().ok()?))
            };
            text.lines().filter_map(line).collect()
        };
        Self { users: read(passwd), groups: read(group) }
    }

    fn id(&self, tag: u16, name: &str) -> Option<u32> {
        let known = if tag == USER { &self.users } else { &self.groups };
        known.get(name).copied()
    }
}

/// The bytes of a list as the kernel takes them (linux/posix_acl_xattr.h). Entries are parted by commas or lines; each is a tag, a
/// name or number, permissions, and in star's way the number (acl(5), star(5)).
pub(super) fn bytes(text: &[u8], accounts: &Accounts) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(text).context("an access list that is no text")?;
    let mut entries = Vec::new();
    for entry in text.split([',', '\n']) {
        let entry = entry.split('#').next().unwrap_or_default().trim();
        if !entry.is_empty() {
            let read = one(entry, accounts);
            entries.push(read.with_context(|| format!("reading '{entry}' of an access list"))?);
        }
    }
    entries.sort_unstable();
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    Ok(bytes)
}

/// Permissions as an access list has them, the mask standing for the group's (acl(5)): some programs write those of a file without
/// a list beside it. `None` if the bytes are no whole list.
pub(super) fn mode(bytes: &[u8]) -> Option<u32> {
    let of = |wanted: u16| {
        let mut entries = bytes.get(4..)?.chunks_exact(8);
        let entry = entries.find(|entry| entry[..2] == wanted.to_le_bytes())?;
        Some(u32::from(entry[2] & 7))
    };
    Some(of(USER_OBJ)? << 6 | of(MASK).or_else(|| of(GROUP_OBJ))? << 3 | of(OTHER)?)
}

fn one(entry: &str, accounts: &Accounts) -> Result<(u16, u32, u16)> {
    let mut fields: Vec<&str> = entry.split(':').collect();
    if matches!(fields.first(), Some(&"default" | &"d")) {
        fields.remove(0);
    }
    // `other:r-x` is written without the empty name, too.
    if let [tag @ ("mask" | "m" | "other" | "o"), permissions] = fields[..] {
        fields = vec![tag, "", permissions];
    }
    let (tag, name, permissions, number) = match fields[..] {
        [tag, name, permissions] => (tag, name, permissions, None),
        [tag, name, permissions, number] => (tag, name, permissions, Some(number)),
        _ => bail!("it has {} fields", fields.len()),
    };
    let tag = match (tag, name.is_empty() && number.is_none_or(str::is_empty)) {
        ("user" | "u", true) => USER_OBJ,
        ("user" | "u", false) => USER,
        ("group" | "g", true) => GROUP_OBJ,
        ("group" | "g", false) => GROUP,
        ("mask" | "m", _) => MASK,
        ("other" | "o", _) => OTHER,
        _ => bail!("'{tag}' is no tag"),
    };
    let id = match tag {
        USER | GROUP => {
            let told = number.and_then(|number| number.parse().ok()).or_else(|| name.parse().ok());
            told.or_else(|| accounts.id(tag, name)).with_context(|| {
                format!("its /etc/passwd and /etc/group know no '{name}'; hint: pack it with --xattrs-include='*', which keeps numbers")
            })?
        }
        _ => NOBODY,
    };
    let mut bits = 0;
    for letter in permissions.chars() {
        bits |= match letter {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => bail!("'{permissions}' are no permissions"),
        };
    }
    Ok((tag, id, bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_is_read_as_every_tar_writes_it() {
        let accounts = Accounts::parse(b"root:x:0:0::/:\nann:x:1234:5::/:\n", b"wheel:x:10:\n");
        let wanted =
            bytes(b"user::rw-\nuser:1234:r-x\ngroup::r--\ngroup:10:rwx\nmask::rwx\nother::---\n", &accounts);
        let wanted = wanted.unwrap();
        assert_eq!(wanted.len(), 4 + 6 * 8);
        assert_eq!(&wanted[..12], b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff");
        for same in [
            "user::rw-,user:ann:r-x:1234,group::r--,group:wheel:rwx:10,mask::rwx,other::---",
            "u::rw-,user:ann:r-x,g::r--,group:wheel:rwx,mask:rwx,other:---",
            "other::--- # all others\ngroup:wheel:rwx\nuser:ann:r-x\nmask::rwx\ngroup::r--\nuser::rw-",
        ] {
            assert_eq!(bytes(same.as_bytes(), &accounts).unwrap(), wanted, "{same}");
        }
        assert_eq!(mode(&wanted), Some(0o670));
        assert_eq!(mode(&wanted[..20]), None);
        let error = format!("{:#}", bytes(b"user:bob:r--", &accounts).unwrap_err());
        assert!(error.contains("know no 'bob'"), "{error}");
    }

    proptest! {
        #[test]
        fn any_list_is_read_or_refused(text in "[ug:rwx,0-9a-d#\n-]{0,60}", passwd: Vec<u8>) {
            let _ = bytes(text.as_bytes(), &Accounts::parse(&passwd, &passwd));
        }
    }
}
