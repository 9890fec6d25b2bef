//! Where a store is: a directory, a web server, or a directory behind ssh.

mod dir;
mod http;
mod multipart;
mod running;
mod ssh;

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, bail};

pub use dir::Dir;
pub use http::Http;
pub use ssh::Ssh;

/// Gets bytes and their place in the file.
pub type Sink<'a> = dyn FnMut(u64, &[u8]) -> Result<()> + 'a;

/// A store that can be read.
pub trait Place {
    /// As messages name it, without a password.
    fn shown(&self) -> String;

    /// A whole file. None is the error [`Missing`]; one that is longer than the limit is an error.
    fn get(&self, name: &str, limit: u64) -> Result<Vec<u8>>;

    /// Parts of a file: ascending, not touching. More than was asked for may come, up to the end of the last part, or less:
    /// who calls has to see what is still missing. An error may come after some of it.
    fn ranges(&self, name: &str, wanted: &[Range<u64>], sink: &mut Sink<'_>) -> Result<()>;

    /// Names in a directory, in any order; none if there is no directory.
    fn names(&self, dir: &str) -> Result<Vec<String>>;
}

/// A store that can be written.
pub trait Shelf: Place {
    /// Held until it is dropped, or this process ends; one push or collection at a time.
    fn lock(&self) -> Result<Box<dyn std::any::Any>>;

    /// Makes the store for its owner alone, if it is not there yet, and marks it as one that holds secrets. `false`: others may
    /// read what is there, and nothing was done.
    fn make_private(&self) -> Result<bool>;

    /// Length of a file that is there whole.
    fn length(&self, name: &str) -> Result<Option<u64>>;

    /// Puts a file there, all at once, in place of what was there; what an earlier try has sent may be used. `tick` is told
    /// how much of it is there.
    fn put(&self, from: &Path, name: &str, tick: &mut dyn FnMut(u64)) -> Result<()>;
}

/// A store has no such file.
#[derive(Debug)]
pub struct Missing(pub String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// The mark of a store that holds secrets: a file for people.
const PRIVATE: &str = "PRIVATE";
const PRIVATE_TEXT: &str =
    "Backups in this store hold private keys: it is for its owner alone, and not to be served.\n";

/// A name of a file that is not all there yet.
pub const PARTIAL: &str = ".partial";

/// The place that a source's text means: `http://`, `https://`, `ssh://[user@]host[:port]/dir`, or a directory.
pub fn open(text: &str) -> Result<Box<dyn Place>> {
    match text.split_once("://") {
        Some(("http" | "https", _)) => Ok(Box::new(Http::new(text)?)),
        Some(("ssh", _)) => Ok(Box::new(Ssh::new(text)?)),
        Some(("file", path)) => Ok(Box::new(Dir::new(Path::new(path)))),
        Some((scheme, _)) => {
            bail!("'{scheme}://' is not known here; hint: a directory, http://, https:// or ssh://")
        }
        None => Ok(Box::new(Dir::new(Path::new(text)))),
    }
}

/// As [`open`], of a store that is written to; web servers cannot be.
pub fn open_to_write(text: &str) -> Result<Box<dyn Shelf>> {
    match text.split_once("://") {
        Some(("ssh", _)) => Ok(Box::new(Ssh::new(text)?)),
        Some(("file", path)) => Ok(Box::new(Dir::new(Path::new(path)))),
        Some(_) => bail!("'{text}' cannot be pushed to; hint: a directory, or ssh://[user@]host/dir"),
        None => Ok(Box::new(Dir::new(Path::new(text)))),
    }
}
