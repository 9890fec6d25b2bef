//! Ids of LVM: 32 letters and digits.

use std::fmt;

use anyhow::{Result, ensure};

/// The id of a physical volume, a volume group or a logical volume.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LvmId([u8; LEN]);

const LEN: usize = 32;
/// `_c` of LVM2's `lib/uuid/uuid.c`, without the two that it only takes and never draws.
const DRAWN: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// Where dashes are, for people.
const GROUPS: [usize; 7] = [6, 4, 4, 4, 4, 4, 6];

impl LvmId {
    /// From the form that it has in a label.
    pub(super) fn new(id: [u8; LEN]) -> Result<Self> {
        let is_known = |byte: &u8| DRAWN.contains(byte) || b"!#".contains(byte);
        ensure!(id.iter().all(is_known), "an id of LVM has odd characters");
        Ok(Self(id))
    }

    /// From the form that it has in texts, with dashes.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let id: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        let id = <[u8; LEN]>::try_from(id);
        ensure!(id.is_ok(), "'{}' is no id of LVM", text.escape_default());
        Self::new(id.unwrap_or_default())
    }

    /// Of random bytes, as LVM draws its own.
    pub fn drawn(random: [u8; LEN]) -> Self {
        Self(random.map(|byte| DRAWN[usize::from(byte) % DRAWN.len()]))
    }

    /// Without dashes, as udev(7) and devices files have it.
    pub fn compact(&self) -> String {
        self.0.iter().copied().map(char::from).collect()
    }
}

impl fmt::Display for LvmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compact = self.compact();
        let mut rest = compact.as_str();
        for (at, len) in GROUPS.into_iter().enumerate() {
            let (group, then) = rest.split_at(len);
            rest = then;
            write!(f, "{}{group}", if at > 0 { "-" } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for LvmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_shown_as_lvm_shows_it_and_read_back() {
        let id = LvmId::drawn(std::array::from_fn(|at| at as u8 * 7));
        assert_eq!(id.to_string().len(), 38);
        assert_eq!(LvmId::parse(&id.to_string()).unwrap(), id);
        assert!(LvmId::parse("AsW3Ji-BNyk").is_err() && LvmId::parse(&"é".repeat(16)).is_err());
    }
}
