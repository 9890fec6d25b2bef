//! Content held against its digest, where it is used: what is told of a file counts when this says so.

use anyhow::{Result, bail};

use super::manifest::Manifest;
use super::stream::{self, Each, Part, Piece, Told};

/// Hears files one after another, each from its beginning to its end.
pub(super) struct Judge<'m> {
    manifest: &'m Manifest,
    /// Whether damage is passed over.
    salvages: bool,
    hasher: blake3::Hasher,
}

impl<'m> Judge<'m> {
    pub(super) fn new(manifest: &'m Manifest, salvages: bool) -> Self {
        Self { manifest, salvages, hasher: blake3::Hasher::new() }
    }

    pub(super) fn hear(&mut self, told: Told, each: Each<'_>) -> Result<()> {
        match told {
            Told::Data { part, offset, bytes } => {
                self.hasher.update(&bytes);
                each(Piece::Data { part, offset, bytes: &bytes })
            }
            Told::End { part } => match self.is_right(part) {
                true => each(Piece::End { part }),
                false => {
                    let why = "its content is not what its digest says";
                    if !self.salvages {
                        bail!("{}: {why}", stream::name(self.manifest, part));
                    }
                    each(Piece::Lost { part, why: why.to_owned() })
                }
            },
            Told::Pause => Ok(()),
            Told::Lost { part, why } => {
                self.hasher.reset();
                each(Piece::Lost { part, why })
            }
        }
    }

    fn is_right(&mut self, part: Part) -> bool {
        let found = self.hasher.finalize();
        self.hasher.reset();
        stream::content(self.manifest, part).is_some_and(|content| content.blake3 == *found.as_bytes())
    }
}
