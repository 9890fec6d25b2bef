//! What stands in front of each frame.

use crate::archive::limits::Limits;

/// Which part of the tar a frame belongs to. Frames of one part are copied as they are when another one changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// The manifest.
    Manifest,
    /// Signatures of the manifest.
    Signatures,
    /// All else.
    Body,
}

const SECTIONS: [(Section, u8); 3] =
    [(Section::Manifest, b'm'), (Section::Signatures, b's'), (Section::Body, b'b')];

/// A frame's place and lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Which part of the tar it belongs to.
    pub section: Section,
    /// Where what it holds begins in that part.
    pub offset: u64,
    /// How much it holds.
    pub plain: u32,
    /// How long it is, without the label.
    pub packed: u32,
}

/// Length of a label's bytes.
pub const LEN: usize = 32;
const MARK: &[u8; 7] = b"ggframe";
const CHECK: usize = 8;

impl Label {
    /// Its bytes: mark, section, offset, lengths (least byte first), and the beginning of the BLAKE3 of all that.
    pub fn print(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..7].copy_from_slice(MARK);
        bytes[7] =
            SECTIONS.iter().find(|(section, _)| *section == self.section).map_or(0, |(_, letter)| *letter);
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.plain.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.packed.to_le_bytes());
        let digest = blake3::hash(&bytes[..LEN - CHECK]);
        bytes[LEN - CHECK..].copy_from_slice(&digest.as_bytes()[..CHECK]);
        bytes
    }

    /// `None` for what is no label, or tells of more than the limits allow.
    pub fn parse(bytes: &[u8; LEN], limits: &Limits) -> Option<Self> {
        let (section, _) = SECTIONS.into_iter().find(|(_, letter)| *letter == bytes[7])?;
        let label = Self {
            section,
            offset: u64::from_le_bytes(bytes[8..16].try_into().ok()?),
            plain: u32::from_le_bytes(bytes[16..20].try_into().ok()?),
            packed: u32::from_le_bytes(bytes[20..24].try_into().ok()?),
        };
        let is_sound = label.print() == *bytes && label.offset.checked_add(u64::from(label.plain)).is_some();
        let bounded =
            label.plain > 0 && label.plain <= limits.frame_bytes && label.packed <= limits.frame_bytes;
        (is_sound && bounded).then_some(label)
    }
}
