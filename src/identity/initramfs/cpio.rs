//! Archives as the kernel unpacks them (Linux's `Documentation/driver-api/early-userspace/buffer-format.rst`), handed on entry by entry
//! with other ids in it.

use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail, ensure};

use super::rename::Renames;

const HEADER: usize = 110;
/// What the kernel takes for a path (`PATH_MAX`).
const LONGEST_NAME: u64 = 4096;
/// Larger files are programs and modules, which name no disk.
const LARGEST: u64 = 4 << 20;

/// Whether an archive begins here.
pub(super) fn begins(head: &[u8]) -> bool {
    head.starts_with(b"070701") || head.starts_with(b"070702")
}

/// One archive up to and with its trailer, zeros that fill it up not yet read; how many ids were replaced.
pub(super) fn copy(from: &mut dyn Read, to: &mut dyn Write, renames: &Renames) -> Result<u64> {
    let mut count = 0;
    loop {
        let mut header = [0; HEADER];
        from.read_exact(&mut header).context("reading an entry")?;
        ensure!(begins(&header), "an entry has no header");
        let (size, name_size) = (number(&header, 54)?, number(&header, 94)?);
        ensure!((1..=LONGEST_NAME).contains(&name_size), "an entry has a name of {name_size} bytes");
        let mut name = read(from, padded(HEADER as u64 + name_size) - HEADER as u64)?;
        if name.starts_with(b"TRAILER!!!\0") {
            to.write_all(&header)?;
            to.write_all(&name)?;
            return Ok(count);
        }
        // The zeros behind it would make it look like no text.
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        count += renames.apply(&mut name[..end]);
        if size > LARGEST {
            to.write_all(&header)?;
            to.write_all(&name)?;
            let copied = io::copy(&mut from.take(padded(size)), to)?;
            ensure!(copied == padded(size), "a file ends too early");
            continue;
        }
        let mut content = read(from, padded(size))?;
        let (file, _) = content.split_at_mut(size as usize);
        let replaced = renames.apply(file);
        if replaced > 0 && header.starts_with(b"070702") {
            let sum = file.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
            header[102..].copy_from_slice(format!("{sum:08x}").as_bytes());
        }
        count += replaced;
        to.write_all(&header)?;
        to.write_all(&name)?;
        to.write_all(&content)?;
    }
}

fn padded(len: u64) -> u64 {
    len.next_multiple_of(4)
}

fn read(from: &mut dyn Read, len: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(len).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 == len, "an entry ends too early");
    Ok(bytes)
}

/// Eight hexadecimal digits.
fn number(header: &[u8; HEADER], at: usize) -> Result<u64> {
    let digits = std::str::from_utf8(&header[at..at + 8]).context("a header is no text")?;
    match u32::from_str_radix(digits, 16) {
        Ok(number) => Ok(number.into()),
        Err(_) => bail!("a header has '{}' where a number should be", digits.escape_default()),
    }
}
