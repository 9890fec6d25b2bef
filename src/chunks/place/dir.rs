//! A store in a directory of this host.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Missing, PARTIAL, PRIVATE, PRIVATE_TEXT, Place, Shelf, Sink};
use crate::host::Live;
use crate::host::files::Files;
use crate::progress::interrupted;

/// See the module.
#[derive(Debug)]
pub struct Dir(PathBuf);

/// The lock's name in a store.
pub const LOCK: &str = ".lock";
/// How long the end of another push is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

const AT_ONCE: usize = 256 << 10;

impl Dir {
    /// It need not be there yet.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Whether nobody but its owner gets in.
    fn is_private(&self) -> bool {
        self.0.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o077 == 0)
    }

    fn open(&self, name: &str) -> Result<File> {
        let path = self.0.join(name);
        File::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Missing(format!("'{}' is not there", path.display())).into(),
            _ => anyhow::Error::new(error).context(format!("opening '{}'", path.display())),
        })
    }
}

impl Place for Dir {
    fn shown(&self) -> String {
        self.0.display().to_string()
    }

    fn get(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.open(name)?.take(limit + 1).read_to_end(&mut bytes);
        read.with_context(|| format!("reading '{}'", self.0.join(name).display()))?;
        match bytes.len() as u64 > limit {
            true => bail!("'{}' has more than {limit} bytes", self.0.join(name).display()),
            false => Ok(bytes),
        }
    }

    fn ranges(&self, name: &str, wanted: &[Range<u64>], sink: &mut Sink<'_>) -> Result<()> {
        let file = self.open(name)?;
        let mut buffer = vec![0; AT_ONCE];
        for range in wanted {
            let mut at = range.start;
            while at < range.end {
                if interrupted() {
                    bail!("interrupted");
                }
                let len = (range.end - at).min(AT_ONCE as u64) as usize;
                let read = file.read_at(&mut buffer[..len], at);
                let n = read.with_context(|| format!("reading '{}'", self.0.join(name).display()))?;
                if n == 0 {
                    bail!("'{}' ends after {at} bytes", self.0.join(name).display());
                }
                sink(at, &buffer[..n])?;
                at += n as u64;
            }
        }
        Ok(())
    }

    fn names(&self, dir: &str) -> Result<Vec<String>> {
        Live.list(&self.0.join(dir))
    }
}

impl Shelf for Dir {
    fn lock(&self) -> Result<Box<dyn std::any::Any>> {
        // One that is there may be its owner's alone.
        if !self.0.is_dir() {
            Live.make_dir(&self.0, 0o755)?;
        }
        Ok(Box::new(Live.lock(&self.0.join(LOCK), PATIENCE)?))
    }

    fn make_private(&self) -> Result<bool> {
        match Live.list(&self.0)?.is_empty() {
            true => Live.make_dir(&self.0, 0o700)?,
            false if !self.is_private() => return Ok(false),
            false => {}
        }
        Live.write(&self.0.join(PRIVATE), PRIVATE_TEXT.as_bytes(), 0o600)?;
        Ok(true)
    }

    fn length(&self, name: &str) -> Result<Option<u64>> {
        Ok(Live.stat(&self.0.join(name))?.map(|stat| stat.len))
    }

    fn put(&self, from: &Path, name: &str, tick: &mut dyn FnMut(u64)) -> Result<()> {
        let to = self.0.join(name);
        let partial = self.0.join(format!("{name}{PARTIAL}"));
        let mut copy = || -> Result<()> {
            if let Some(dir) = to.parent() {
                fs::create_dir_all(dir)?;
            }
            let mut source = File::open(from)?;
            let mode = if self.is_private() { 0o600 } else { 0o644 };
            let mut target =
                OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&partial)?;
            let mut buffer = vec![0; AT_ONCE];
            let mut done = 0;
            loop {
                let n = source.read(&mut buffer)?;
                if n == 0 {
                    break;
                }
                if interrupted() {
                    bail!("interrupted");
                }
                target.write_all(&buffer[..n])?;
                done += n as u64;
                tick(done);
            }
            // On the disk before it has its name: after a power cut a name stands for a whole file.
            target.sync_data()?;
            fs::rename(&partial, &to)?;
            // And what names it comes after it: `latest` is told of when it will stay.
            if let Some(dir) = to.parent() {
                File::open(dir)?.sync_all()?;
            }
            Ok(())
        };
        let result = copy();
        if result.is_err() {
            // The first error is the one to tell.
            let _ = fs::remove_file(&partial);
        }
        result.with_context(|| format!("writing '{}'", to.display()))
    }
}
