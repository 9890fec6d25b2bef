//! Names of groups and volumes.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};

/// A logical volume by its group's name and its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeName {
    /// The group.
    pub group: String,
    /// The volume.
    pub volume: String,
}

impl FromStr for VolumeName {
    type Err = anyhow::Error;

    /// `GROUP/VOLUME`, also below `/dev`, as people have it in their files.
    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix("/dev/").unwrap_or(text).split_once('/') {
            Some((group, volume)) if is_name(group) && is_name(volume) => {
                Ok(Self { group: group.to_owned(), volume: volume.to_owned() })
            }
            _ => bail!("'{text}' is no logical volume; hint: GROUP/VOLUME, for example vg0/root"),
        }
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.volume)
    }
}

/// As lvm(8) allows them.
pub(super) fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
    (1..128).contains(&name.len()) && name.chars().all(is_part) && !name.starts_with(['-', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_named_by_its_group_and_itself() {
        let name: VolumeName = "/dev/vg-a/root".parse().unwrap();
        assert_eq!(name.to_string(), "vg-a/root");
        for odd in ["root", "a/b/c", "../x", "vg0/", "/dev/mapper"] {
            assert!(odd.parse::<VolumeName>().is_err(), "{odd}");
        }
    }
}
