//! A stream as it was before it was compressed: told by its first bytes, never by its name.

use std::io::{self, Cursor, Read, Write};
use std::process::{Child, ChildStdout, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;

use super::bounds::Bounds;
use super::programs::{Program, Programs};

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip(1).
    Gzip,
    /// zstd(1).
    Zstd,
    /// xz(1).
    Xz,
    /// bzip2(1).
    Bzip2,
}

/// A window of zstd that takes more memory than this is refused; what `--ultra --long=31` takes.
const LARGEST_WINDOW: u32 = 31;
/// What xz(1) or bzip2(1) may take: the largest preset of xz takes 65 MiB.
const BOUNDS: Bounds = Bounds { memory_bytes: 1 << 30, cpu_seconds: 24 * 3600 };

impl Compression {
    /// By the first bytes of a stream; a skippable frame of zstd is one of zstd's.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::None,
        }
    }
}

/// The stream, decompressed. An error of what is compressed is one of reading; so is an end before its end.
pub fn open(host: &dyn Programs, mut input: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>> {
    let mut head = Vec::new();
    input.by_ref().take(6).read_to_end(&mut head).context("reading its first bytes")?;
    let compression = Compression::of(&head);
    let whole = Box::new(Cursor::new(head).chain(input));
    let (name, package) = match compression {
        Compression::None => return Ok(whole),
        Compression::Gzip => return Ok(Box::new(MultiGzDecoder::new(whole))),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::new(whole).context("preparing to read zstd")?;
            decoder.window_log_max(LARGEST_WINDOW).context("preparing to read zstd")?;
            return Ok(Box::new(decoder));
        }
        Compression::Xz => ("xz", "xz-utils"),
        Compression::Bzip2 => ("bzip2", "bzip2"),
    };
    if host.find_program(name).is_none() {
        bail!("it is compressed with {name}, which is not here; hint: apt install {package}");
    }
    Ok(Box::new(Filter::start(Program::new(name).arg("-dc").bounded(BOUNDS), whole)?))
}

/// A program that the stream goes through.
struct Filter {
    name: String,
    child: Child,
    output: ChildStdout,
    /// What was wrong with what it is fed from.
    feeder: Option<JoinHandle<io::Result<()>>>,
    ended: bool,
}

impl Filter {
    fn start(program: Program, mut input: Box<dyn Read + Send>) -> Result<Self> {
        let what = || format!("running '{}'", program.typed());
        let mut command = program.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(what)?;
        let (stdin, output) = (child.stdin.take(), child.stdout.take());
        let (Some(mut stdin), Some(output)) = (stdin, output) else { bail!("{}: it has no pipes", what()) };
        let feeder = std::thread::spawn(move || {
            let mut buffer = vec![0; 256 << 10];
            loop {
                match input.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    // A program that stops reading tells by its status whether that was wrong.
                    Ok(count) if stdin.write_all(&buffer[..count]).is_err() => return Ok(()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        });
        Ok(Self { name: program.name, child, output, feeder: Some(feeder), ended: false })
    }

    fn end(&mut self) -> io::Result<()> {
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            let _ = stderr.take(4096).read_to_string(&mut said);
        }
        let status = self.child.wait()?;
        self.ended = true;
        let fed = self.feeder.take().and_then(|feeder| feeder.join().ok()).unwrap_or(Ok(()));
        fed?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("'{}' could not decompress it: {}", self.name, said.trim())))
    }
}

impl Read for Filter {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        match self.output.read(buffer)? {
            0 => self.end().map(|()| 0),
            count => Ok(count),
        }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // The thread that feeds it is not waited for: its pipe may never say anything more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use proptest::prelude::*;

    fn through(bytes: Vec<u8>) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        open(&Live, Box::new(Cursor::new(bytes)))?.read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn what_each_program_compresses_comes_back_and_what_is_cut_short_is_an_error() {
        let text: Vec<u8> = (0..100_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        assert_eq!(through(text.clone()).unwrap(), text);
        for name in ["gzip", "zstd", "xz", "bzip2"] {
            if Live.find_program(name).is_none() {
                eprintln!("skipped: no {name} here");
                continue;
            }
            let packed = Live.run(&Program::new(name).arg("-c").input(text.clone())).unwrap().stdout;
            assert_ne!(Compression::of(&packed), Compression::None, "{name}");
            assert!(through(packed.clone()).unwrap() == text, "{name}");
            let twice = [&packed[..], &packed[..]].concat();
            assert_eq!(through(twice).unwrap().len(), 2 * text.len(), "{name}");
            assert!(through(packed[..packed.len() / 2].to_vec()).is_err(), "{name}");
        }
    }

    #[test]
    fn a_stream_that_is_shorter_than_any_mark_is_what_it_is() {
        assert_eq!(through(b"abc".to_vec()).unwrap(), b"abc");
        assert_eq!(through(Vec::new()).unwrap(), b"");
    }

    proptest! {
        #[test]
        fn any_bytes_behind_a_mark_are_read_or_refused(mark in 0usize..2, bytes: Vec<u8>) {
            let marks: [&[u8]; 2] = [&[0x1f, 0x8b, 8], &[0x28, 0xb5, 0x2f, 0xfd]];
            let _ = through([marks[mark], &bytes].concat());
        }
    }
}
