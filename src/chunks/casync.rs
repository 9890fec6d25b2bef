//! An image in the form that casync and desync fetch: an index of chunks (`.caibx`) and a directory of them (`.castr`).
//!
//! Chunks are groups of 64 KiB, which both tools take, since they read where a chunk ends in the index. A chunk of an image that
//! is there already is not written again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha512_256};

use super::blocks::{GROUP, read_to};
use crate::host::temporary::Maker;
use crate::progress::{Progress, interrupted};

/// Values of casync's caformat.h.
const FORMAT_INDEX: u64 = 0x9682_4d9c_7b12_9ff9;
const FORMAT_TABLE: u64 = 0xe75b_9e11_2f17_417d;
const TABLE_TAIL: u64 = 0x4b4f_050e_5549_ecd1;
/// As casync writes it of a file: SHA512/256, and two flags about directories that it always sets.
const FLAGS: u64 = 0xb000_0000_0000_0000;
/// The smallest, usual and largest chunk that casync makes by default; all of ours are within.
const SIZES: [u64; 3] = [16 << 10, 64 << 10, 256 << 10];
const LEVEL: i32 = 9;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The index.
    pub index: PathBuf,
    /// The directory of chunks.
    pub store: PathBuf,
    /// Chunks that were not there.
    pub new_chunks: u64,
    /// Their bytes, compressed.
    pub new_bytes: u64,
}

/// Writes a disk to `DIR/NAME.caibx` and `DIR/default.castr`. The index comes last, by one rename.
pub fn export(disk: &Path, dir: &Path, name: &str, progress: &Progress) -> Result<Exported> {
    let work = || -> Result<Exported> {
        let file = File::open(disk).with_context(|| format!("opening '{}'", disk.display()))?;
        let len = file.metadata()?.len();
        let store = dir.join("default.castr");
        fs::create_dir_all(&store).with_context(|| format!("making '{}'", store.display()))?;
        let index = dir.join(format!("{name}.caibx"));
        let mut done = Exported { index: index.clone(), store, new_chunks: 0, new_bytes: 0 };
        let mut table = header();
        let mut seen: HashMap<[u8; 32], ()> = HashMap::new();
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        let mut buffer = vec![0; GROUP as usize];
        let meter = progress.meter("exporting", Some(len));
        let mut at = 0;
        while at < len {
            if interrupted() {
                bail!("interrupted");
            }
            let wanted = (len - at).min(GROUP) as usize;
            let chunk = &mut buffer[..wanted];
            if read_to(&file, chunk, at)? < wanted {
                bail!("'{}' became shorter", disk.display());
            }
            let id: [u8; 32] = Sha512_256::digest(&*chunk).into();
            at += wanted as u64;
            table.extend(at.to_le_bytes());
            table.extend(id);
            if seen.insert(id, ()).is_none() {
                done.add(&id, &mut compressor, chunk)?;
            }
            meter.set(at);
        }
        let size = table.len() as u64 - 48 + 40;
        for number in [0, 0, 48, size, TABLE_TAIL] {
            table.extend(number.to_le_bytes());
        }
        replace(&index, &table)?;
        Ok(done)
    };
    work().with_context(|| format!("exporting to '{}'", dir.display()))
}

fn header() -> Vec<u8> {
    let numbers = [48, FORMAT_INDEX, FLAGS, SIZES[0], SIZES[1], SIZES[2], u64::MAX, FORMAT_TABLE];
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

impl Exported {
    fn add(
        &mut self,
        id: &[u8; 32],
        compressor: &mut zstd::bulk::Compressor<'_>,
        chunk: &[u8],
    ) -> Result<()> {
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = self.store.join(&hex[..4]).join(format!("{hex}.cacnk"));
        if path.exists() {
            return Ok(());
        }
        let packed = compressor.compress(chunk)?;
        self.new_chunks += 1;
        self.new_bytes += packed.len() as u64;
        replace(&path, &packed)
    }
}

fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let write = || -> Result<()> {
        let dir = path.parent().context("it has no directory")?;
        fs::create_dir_all(dir)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = dir.join(Maker::this().name(&name));
        File::create(&temporary)?.write_all(content)?;
        Ok(fs::rename(&temporary, path)?)
    };
    write().with_context(|| format!("writing '{}'", path.display()))
}
