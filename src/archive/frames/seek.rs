//! The seek table at the end, as zstd's seekable format has it (facebook/zstd, `contrib/seekable_format`).

/// Magic numbers of skippable frames (RFC 8878, 3.1.2): ours, and the one that a seek table has.
pub(super) const SKIPPABLE: u32 = 0x184d_2a57;
/// Of a frame that only takes up room.
const FILLER: u32 = 0x184d_2a58;
pub(super) const TABLE: u32 = 0x184d_2a5e;
const FOOTER_MAGIC: u32 = 0x8f92_eab1;
const FOOTER: usize = 9;

/// What comes before a skippable frame's content.
pub(super) fn skippable(magic: u32, len: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&magic.to_le_bytes());
    bytes[4..].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// A skippable frame of that length altogether; none is so short, or so long, as what gives `None`.
pub(in crate::archive) fn filler(len: usize) -> Option<Vec<u8>> {
    let content = u32::try_from(len.checked_sub(8)?).ok()?;
    let mut frame = skippable(FILLER, content).to_vec();
    frame.resize(len, 0);
    Some(frame)
}

/// Lengths of all that a file is made of, packed and unpacked, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct SeekTable {
    entries: Vec<u8>,
    count: u32,
}

impl SeekTable {
    pub(super) fn add(&mut self, packed: u32, plain: u32) {
        self.entries.extend(packed.to_le_bytes());
        self.entries.extend(plain.to_le_bytes());
        self.count += 1;
    }

    /// Those of another one follow.
    pub(super) fn append(&mut self, other: &Self) {
        self.entries.extend(&other.entries);
        self.count += other.count;
    }

    /// The frame that holds it.
    pub(super) fn print(&self) -> Vec<u8> {
        let mut bytes = skippable(TABLE, (self.entries.len() + FOOTER) as u32).to_vec();
        bytes.extend(&self.entries);
        bytes.extend(self.count.to_le_bytes());
        // No checksums of frames: each has its own.
        bytes.push(0);
        bytes.extend(FOOTER_MAGIC.to_le_bytes());
        bytes
    }
}
