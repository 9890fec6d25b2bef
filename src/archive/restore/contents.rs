//! What comes out of an archive, put where it belongs.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::archive::fill::{Fill, Filling};
use crate::archive::manifest::Manifest;
use crate::archive::stream::{Part, Piece};
use crate::progress::Meter;

/// What one thread gets of it. Files come one after the other; one is open at a time.
pub(super) struct Contents<'a> {
    fill: &'a Fill<'a>,
    manifest: &'a Manifest,
    /// Where files of the archive's own go.
    own: Option<&'a Path>,
    open: Option<(Part, Open<'a>)>,
    /// Why files are lost, by number of the entry.
    why: BTreeMap<usize, String>,
    meter: &'a Meter<'a>,
}

enum Open<'a> {
    Entry(Filling<'a>),
    Own(File),
    /// Nobody wants it.
    Nowhere,
}

impl<'a> Contents<'a> {
    pub(super) fn new(
        fill: &'a Fill<'a>,
        manifest: &'a Manifest,
        own: Option<&'a Path>,
        meter: &'a Meter<'a>,
    ) -> Self {
        Self { fill, manifest, own, open: None, why: BTreeMap::new(), meter }
    }

    /// As [`crate::archive::reader::Begun::share`] tells it.
    pub(super) fn take(&mut self, piece: Piece<'_>) -> Result<()> {
        match piece {
            Piece::Data { part, offset, bytes } => {
                match self.opened(part)? {
                    Open::Entry(file) => file.write(bytes, offset)?,
                    Open::Own(file) => {
                        file.write_all_at(bytes, offset).context("writing a file of the archive's own")?
                    }
                    Open::Nowhere => {}
                }
                self.meter.add(bytes.len() as u64);
            }
            Piece::End { part } => {
                self.opened(part)?;
                if let Some((_, Open::Entry(file))) = self.open.take() {
                    file.end()?;
                }
            }
            Piece::Lost { part, why } => {
                ensure!(matches!(part, Part::Entry(_)), "what the archive has for itself is damaged: {why}");
                let Part::Entry(number) = part else { return Ok(()) };
                self.why.insert(number, why);
                match self.open.take() {
                    Some((begun, Open::Entry(file))) if begun == part => file.lose()?,
                    _ => self.fill.lose(number),
                }
            }
        }
        Ok(())
    }

    /// Why files are lost, by number of the entry.
    pub(super) fn why(self) -> BTreeMap<usize, String> {
        self.why
    }

    fn opened(&mut self, part: Part) -> Result<&mut Open<'a>> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != part) {
            let open = match part {
                Part::Entry(number) => Open::Entry(self.fill.file(number)?),
                Part::Own(number) => match (self.own, self.manifest.head.own.get(number)) {
                    (Some(dir), Some(own)) => {
                        let path = dir.join(own.name.name());
                        let file = File::create_new(&path);
                        Open::Own(file.with_context(|| format!("making '{}'", path.display()))?)
                    }
                    _ => Open::Nowhere,
                },
            };
            self.open = Some((part, open));
        }
        let (_, open) = self.open.as_mut().context("no file is open")?;
        Ok(open)
    }
}
