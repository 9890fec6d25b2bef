//! What the filesystem itself has at a path: read in process, in safe code, each directory once.
//!
//! What has a number is found by it: a search for a thousand known paths asks for the same few directories again and again, and to
//! walk there from the top each time means checking the checksums of all on the way. What cannot be read so (a filesystem with
//! something in its journal, directories without end) is left to `ext4-view`, which goes by paths, as far as it knows the form.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail};
use ext4_view::{DirEntry, Ext4 as View, Ext4Error};

use crate::host::ext4::{self, Ext4, Inode};
use crate::host::root::{Entry, Kind};
use crate::host::superblock;

mod number;
mod view;

/// No directory that matters here has as many, and a hostile one must not fill memory.
const LONGEST: usize = 20_000;

/// What is at a path.
#[derive(Clone)]
pub(super) struct Own {
    pub(super) entry: Entry,
    /// Permission bits, of directories too.
    pub(super) mode: u32,
    /// User and group.
    pub(super) owner: (u32, u32),
}

/// Whom the names in a directory are told to, until he has enough and gives `false`.
pub(super) type Each<'e> = &'e mut dyn FnMut(&OsStr, Kind) -> Result<bool>;

/// What is known of a directory.
#[derive(Clone)]
enum Listing {
    /// All that is in it, by name.
    Whole(Rc<HashMap<Vec<u8>, Known>>),
    /// It has more entries than are kept: each name is looked for by itself.
    TooLong,
    /// There is no such directory.
    None,
}

/// What a directory says of a name.
#[derive(Clone)]
struct Known {
    kind: Kind,
    at: At,
}

#[derive(Clone)]
enum At {
    Number(u32),
    View(Rc<DirEntry>),
}

/// A filesystem in a file, which nobody changes meanwhile.
pub(super) struct Reading {
    /// Why it cannot be read so is told when nothing else can read it either.
    direct: Result<Ext4>,
    /// Opened for what needs it, or why it cannot be.
    view: OnceCell<Result<View, String>>,
    label: PathBuf,
    volume_label: String,
    seen: RefCell<HashMap<PathBuf, Option<Own>>>,
    listings: RefCell<HashMap<PathBuf, Listing>>,
}

impl Reading {
    /// Opens the filesystem in a file.
    pub(super) fn open(disk: &Path) -> Result<Self> {
        let found = superblock::expect(disk, 0)?;
        // debugfs leaves what stood behind the end of a shorter label.
        let volume_label = superblock::label(disk, 0, found.kind)?;
        let opened = Self {
            direct: Ext4::open(disk),
            view: OnceCell::new(),
            label: disk.to_owned(),
            volume_label: String::from_utf8_lossy(&volume_label).into_owned(),
            seen: RefCell::default(),
            listings: RefCell::default(),
        };
        match (&opened.direct, opened.view_unless_direct()) {
            (Err(_), Err(view)) if found.needs_recovery => {
                let hint = format!("hint: 'e2fsck -E journal_only {}' writes it out", disk.display());
                bail!(
                    "opening the filesystem in '{}': what was written last is in its journal only, and cannot be read there: \
                     {view}\n{hint}",
                    disk.display()
                )
            }
            (Err(direct), Err(_)) => bail!("{direct:#}"),
            _ => Ok(opened),
        }
    }

    /// The filesystem's label.
    pub(super) fn volume_label(&self) -> &str {
        &self.volume_label
    }

    /// What is at a path without links on the way.
    pub(super) fn entry(&self, path: &Path) -> Result<Option<Own>> {
        if let Some(seen) = self.seen.borrow().get(path) {
            return Ok(seen.clone());
        }
        let found = self.look(path).with_context(|| self.what("looking at", path))?;
        self.seen.borrow_mut().insert(path.to_owned(), found.clone());
        Ok(found)
    }

    /// Whether a directory is there.
    pub(super) fn is_dir(&self, path: &Path) -> Result<bool> {
        Ok(matches!(self.entry(path)?, Some(Own { entry: Entry::Dir, .. })))
    }

    /// Tells what is in a directory.
    pub(super) fn each_entry(&self, dir: &Path, each: Each<'_>) -> Result<()> {
        let what = || self.what("listing", dir);
        if let Listing::Whole(entries) = self.listing(dir).with_context(what)? {
            for (name, known) in entries.iter() {
                if !each(OsStr::from_bytes(name), known.kind)? {
                    break;
                }
            }
            return Ok(());
        }
        let view = match (self.view(), self.inode(dir)) {
            (Ok(view), _) => view,
            // Nobody else can, and it takes longer only.
            (Err(_), Ok(Some((filesystem, inode)))) => {
                let each = &mut |name: &[u8], kind, _| each(OsStr::from_bytes(name), kind);
                return number::each_name(filesystem, &inode, each).with_context(what);
            }
            (Err(view), found) => return Err(found.err().unwrap_or(view)).with_context(what),
        };
        for entry in view.read_dir(dir.as_os_str().as_bytes()).map_err(view::told).with_context(what)? {
            let entry = entry.map_err(view::told).with_context(what)?;
            let kind = view::kind(entry.file_type().map_err(view::told).with_context(what)?);
            let name = entry.file_name();
            let name = name.as_ref();
            if name != b"." && name != b".." && !each(OsStr::from_bytes(name), kind)? {
                break;
            }
        }
        Ok(())
    }

    /// All of a regular file at a path without links on the way; the caller has looked at its length.
    pub(super) fn content(&self, path: &Path) -> Result<Vec<u8>> {
        let direct = self.inode(path).and_then(|found| match found {
            Some((filesystem, inode)) => filesystem.content(&inode).map(Some),
            None => Ok(None),
        });
        let wrong = match direct {
            Ok(Some(content)) => return Ok(content),
            other => other.err(),
        };
        let content = self.view_after(wrong)?.read(path.as_os_str().as_bytes());
        content.map_err(view::told).with_context(|| self.what("reading", path))
    }

    /// Whether a file is known to have no extended attributes.
    pub(super) fn has_no_attributes(&self, path: &Path) -> bool {
        matches!(self.inode(path), Ok(Some((_, inode))) if inode.attributes.is_empty())
    }

    /// Whether what is at a path is known to have no extended attributes in a block beside it.
    pub(super) fn has_no_attribute_block(&self, path: &Path) -> bool {
        matches!(self.inode(path), Ok(Some((_, inode))) if !inode.has_attribute_block)
    }

    /// A message's beginning.
    pub(super) fn what(&self, doing: &str, path: &Path) -> String {
        format!("{doing} '{}' in '{}'", path.display(), self.label.display())
    }

    fn look(&self, path: &Path) -> Result<Option<Own>> {
        let bytes = path.as_os_str().as_bytes();
        let direct = self.inode(path).and_then(|found| match found {
            Some((filesystem, inode)) => number::entry(filesystem, &inode).map(Some),
            None => Ok(None),
        });
        let wrong = match direct {
            Ok(Some(own)) => return Ok(Some(own)),
            other => other.err(),
        };
        let mut seen = None;
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            // What is in nothing, or in what is no directory, is nothing.
            if !self.is_dir(parent)? {
                return Ok(None);
            }
            match self.listing(parent)? {
                Listing::Whole(entries) => match entries.get(name.as_bytes()) {
                    Some(Known { at: At::View(entry), .. }) => seen = Some(entry.metadata()),
                    Some(Known { at: At::Number(_), .. }) => {}
                    None => return Ok(None),
                },
                Listing::TooLong if wrong.is_none() && self.view().is_err() => return Ok(None),
                Listing::TooLong => {}
                Listing::None => return Ok(None),
            }
        }
        let view = self.view_after(wrong)?;
        match seen.unwrap_or_else(|| view.symlink_metadata(bytes)) {
            Ok(found) => view::entry(view, bytes, &found).map(Some),
            Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => Ok(None),
            Err(error) => Err(view::told(error)),
        }
    }

    /// The inode at a path without links on the way; `None` where it cannot be had by its number, and where nothing is.
    fn inode(&self, path: &Path) -> Result<Option<(&Ext4, Inode)>> {
        let Ok(filesystem) = &self.direct else { return Ok(None) };
        let number = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => {
                if !self.is_dir(parent)? {
                    return Ok(None);
                }
                match self.listing(parent)? {
                    Listing::Whole(entries) => match entries.get(name.as_bytes()) {
                        Some(Known { at: At::Number(number), .. }) => *number,
                        _ => return Ok(None),
                    },
                    Listing::TooLong if self.view().is_err() => match self.inode(parent)? {
                        Some((_, dir)) => match number::find(filesystem, &dir, name.as_bytes())? {
                            Some(number) => number,
                            None => return Ok(None),
                        },
                        None => return Ok(None),
                    },
                    Listing::TooLong | Listing::None => return Ok(None),
                }
            }
            _ => ext4::TOP,
        };
        Ok(Some((filesystem, filesystem.inode(number)?)))
    }

    /// What goes by paths.
    fn view(&self) -> Result<&View> {
        let open = || View::load_from_path(&self.label).map_err(|error| error.to_string());
        let view = self.view.get_or_init(open).as_ref();
        view.map_err(|error| anyhow!("opening the filesystem in '{}': {error}", self.label.display()))
    }

    fn view_unless_direct(&self) -> Result<()> {
        if self.direct.is_ok() { Ok(()) } else { self.view().map(|_| ()) }
    }

    /// The same; where it cannot be had, what went wrong before is the error.
    fn view_after(&self, wrong: Option<anyhow::Error>) -> Result<&View> {
        self.view().map_err(|view| wrong.unwrap_or(view))
    }

    /// What is in the directory, by its path without links on the way. Whatever calls itself `.` or `..` is left out.
    fn listing(&self, dir: &Path) -> Result<Listing> {
        if let Some(known) = self.listings.borrow().get(dir) {
            return Ok(known.clone());
        }
        let by_number = self.inode(dir).and_then(|found| match found {
            Some((filesystem, inode)) => number::list(filesystem, &inode).map(Some),
            None => Ok(None),
        });
        let read = match by_number {
            Ok(Some(read)) => read,
            other => view::list(self.view_after(other.err())?, dir).map_err(view::told)?,
        };
        self.listings.borrow_mut().insert(dir.to_owned(), read.clone());
        Ok(read)
    }
}
