//! A golden image's filesystem as it goes into a bundle.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::archive::entry::Content;
use crate::image::store::Golden;
use crate::progress::Progress;

/// Zeros of this length, at a multiple of it, are a hole; so where there are holes depends on the content alone, not on how a
/// filesystem has laid the file out.
const GRAIN: usize = 64 << 10;
const STEP: usize = 16 * GRAIN;

/// Reads all of it: what is not as it was built is refused. Tells where it has data; its digest is still to be made.
pub(super) fn look_over(golden: &Golden, progress: &Progress) -> Result<Content> {
    let built = &golden.manifest.disk;
    let what = || format!("reading '{}'", golden.disk.display());
    let file = File::open(&golden.disk).with_context(what)?;
    let len = built.size_bytes;
    let meter = progress.meter(format!("verifying image '{}'", golden.manifest.name), Some(len));
    let mut hasher = blake3::Hasher::new();
    let (mut buffer, zeros) = (vec![0; STEP], vec![0; STEP]);
    let (mut data, mut at, mut hole) = (Vec::<(u64, u64)>::new(), 0, 0);
    while at < len {
        if crate::progress::interrupted() {
            bail!("interrupted");
        }
        let size = (len - at).min(STEP as u64) as usize;
        if at >= hole {
            hole = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
                Ok(next) => next.min(len),
                Err(Errno::NXIO) => len,
                // A filesystem that cannot tell.
                Err(_) => at,
            };
        }
        if at + size as u64 <= hole {
            hasher.update(&zeros[..size]);
        } else {
            let step = &mut buffer[..size];
            file.read_exact_at(step, at).with_context(what)?;
            hasher.update(step);
            for (number, grain) in step.chunks(GRAIN).enumerate() {
                if grain == &zeros[..grain.len()] {
                    continue;
                }
                let from = at + (number * GRAIN) as u64;
                match data.last_mut() {
                    Some((before, long)) if *before + *long == from => *long += grain.len() as u64,
                    _ => data.push((from, grain.len() as u64)),
                }
            }
        }
        at += size as u64;
        meter.set(at);
    }
    if hasher.finalize().to_hex().as_str() != built.blake3 {
        bail!(
            "'{}' has changed since it was built; hint: gridgate image build --force {}",
            built.file,
            golden.manifest.name
        );
    }
    Ok(Content { len, blake3: [0; 32], data })
}
