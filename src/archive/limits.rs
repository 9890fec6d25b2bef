//! How much of a hostile archive is believed.

/// What an archive may take. Whatever tells of more is refused before any of it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Length of the manifest. It is held in memory.
    pub manifest_bytes: u64,
    /// Entries of the manifest.
    pub entries: u64,
    /// Length of all signatures together.
    pub signature_bytes: u64,
    /// What one frame holds, compressed or not; a few of them are held at a time.
    pub frame_bytes: u32,
}

impl Default for Limits {
    /// Some millions of files; a Debian has ten thousand and a manifest of two megabytes.
    fn default() -> Self {
        Self { manifest_bytes: 512 << 20, entries: 4 << 20, signature_bytes: 1 << 20, frame_bytes: 64 << 20 }
    }
}
