//! Extended attributes: behind an inode's fields, and in a block that several may share.

use anyhow::{Context, Result, bail};

use super::{Ext4, Fields};

const MAGIC: u32 = 0xea02_0000;
/// Length of what comes before the first one in a block.
const BLOCK_HEADER: usize = 32;

type Attribute = (Vec<u8>, Vec<u8>);

/// What an inode has of them.
#[derive(Default)]
pub(super) struct Found {
    /// Those that anybody sees, sorted.
    pub(super) attributes: Vec<Attribute>,
    /// `system.data`, which the kernel shows to nobody: what there is of a small file's data behind `i_block`.
    pub(super) data: Option<Vec<u8>>,
}

/// All of an inode's: `space` is what follows its fields, `block` the number of its block, 0 if there is none.
pub(super) fn all(filesystem: &Ext4, space: &[u8], block: u64) -> Result<Found> {
    let mut found = Found::default();
    if Fields(space).u32(0) == MAGIC {
        let space = &space[4..];
        list(space, space, Place::Inode, &mut found)?;
    }
    if block != 0 {
        let bytes = filesystem.read_block(block)?;
        if Fields(&bytes).u32(0) != MAGIC || Fields(&bytes).u32(8) != 1 {
            bail!("its block of attributes is damaged");
        }
        if let Some(sum) = filesystem.sum {
            sum.check_attributes(block, &bytes)?;
        }
        list(&bytes[BLOCK_HEADER..], &bytes, Place::Block, &mut found)?;
    }
    found.attributes.sort();
    Ok(found)
}

/// Where attributes stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Inode,
    Block,
}

/// Entries, whose values are counted from the beginning of `values`.
fn list(mut entries: &[u8], values: &[u8], place: Place, found: &mut Found) -> Result<()> {
    const DAMAGED: &str = "its attributes are damaged";
    while Fields(entries).u32(0) != 0 {
        let at = Fields(entries);
        let (name_len, index) = (usize::from(entries[0]), *entries.get(1).context(DAMAGED)?);
        let name = entries.get(16..16 + name_len).context(DAMAGED)?;
        if at.u32(4) != 0 {
            bail!("it has an attribute in an inode of its own, which is not read without a mount");
        }
        let (from, len) = (usize::from(at.u16(2)), at.u32(8) as usize);
        let value = from.checked_add(len).and_then(|end| values.get(from..end)).context(DAMAGED)?;
        entries = entries.get(16 + name_len.next_multiple_of(4)..).unwrap_or_default();
        let (prefix, value) = match index {
            1 => (&b"user."[..], value.to_vec()),
            2 => (&b"system.posix_acl_access"[..], access_list(value).context(DAMAGED)?),
            3 => (&b"system.posix_acl_default"[..], access_list(value).context(DAMAGED)?),
            4 => (&b"trusted."[..], value.to_vec()),
            6 => (&b"security."[..], value.to_vec()),
            7 if name == b"data" && place == Place::Inode && found.data.is_none() => {
                found.data = Some(value.to_vec());
                continue;
            }
            index => bail!("it has an attribute of kind {index}, which is not read without a mount"),
        };
        found.attributes.push(([prefix, name].concat(), value));
    }
    Ok(())
}

/// An access control list as the kernel gives it (linux/posix_acl_xattr.h), from the shorter form on disk (fs/ext4/acl.h), which leaves
/// the number out where there is none.
fn access_list(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = bytes.strip_prefix(&1u32.to_le_bytes()[..])?;
    let mut list = 2u32.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let tag = Fields(rest).u16(0);
        // Of a named user or group.
        let len = if matches!(tag, 2 | 8) { 8 } else { 4 };
        let entry = rest.get(..len)?;
        list.extend(&entry[..4]);
        list.extend(entry.get(4..8).unwrap_or(&[0xff; 4]));
        rest = &rest[len..];
    }
    Some(list)
}
