//! What can be done to a guest's filesystem, whatever opens it: the kernel's mount, or a program of its own without one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::root::{Change, Entry, FileMode, Kind, Root};

/// A filesystem whose every path is resolved inside it, as the guest would, and never leads out of it.
///
/// Every change is of the kind "make it so": what is so already is not touched, not even its times.
pub trait Tree {
    /// What is at the path; `None` if nothing is. The path's own entry, links to its directory followed.
    fn entry(&self, path: &Path) -> Result<Option<Entry>>;
    /// A regular file's content, links followed inside; `None` if there is no such file. Anything but a regular file, or one
    /// over [`super::root::LARGEST_READ`], is an error.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>>;
    /// Names in a directory, sorted; none if there is no directory.
    fn list(&self, path: &Path) -> Result<Vec<PathBuf>>;
    /// What is in a directory, one by one, in no order, until `each` has enough and gives `false`.
    fn names(&self, path: &Path, each: &mut dyn FnMut(&OsStr, Kind) -> bool) -> Result<()> {
        for name in self.list(path)? {
            let kind = match self.entry(&path.join(&name))? {
                Some(Entry::File { .. }) => Kind::File,
                Some(Entry::Dir) => Kind::Dir,
                Some(Entry::Link(_)) => Kind::Link,
                Some(Entry::Special) => Kind::Special,
                None => continue,
            };
            if !each(name.as_os_str(), kind) {
                break;
            }
        }
        Ok(())
    }
    /// A directory, its parents too if they are missing.
    fn make_dir(&self, path: &Path, mode: u32) -> Result<Change>;
    /// A regular file with this content in place of what was there; a file hands on its owner, extended attributes and,
    /// unless told otherwise, its mode. A directory is refused.
    fn write(&self, path: &Path, content: &[u8], mode: FileMode) -> Result<Change>;
    /// A symbolic link; its target is not looked at.
    fn link(&self, path: &Path, target: &Path) -> Result<Change>;
    /// No file, link or special file there; a directory is refused.
    fn remove(&self, path: &Path) -> Result<Change>;
    /// The numbers of the user and group that the path's own entry belongs to; `None` if nothing is there.
    fn owner(&self, path: &Path) -> Result<Option<(u32, u32)>>;
    /// Gives a file or directory that is there to this user and group, with these permission bits. A link or special file is
    /// refused.
    fn own(&self, path: &Path, uid: u32, gid: u32, mode: u32) -> Result<Change>;
    /// A symbolic link in place of the one that was there, by one rename: the path is never without a link.
    fn switch(&self, path: &Path, target: &Path) -> Result<Change>;
    /// Whether files in it have SELinux labels, as far as can be seen.
    fn is_labelled(&self) -> Result<bool>;
    /// Gives the path's own entry this SELinux label.
    fn set_label(&self, path: &Path, label: &str) -> Result<()>;
    /// The label of the filesystem that it is, where it is one.
    fn volume_label(&self) -> Result<Option<String>>;
    /// Gives the filesystem that label.
    fn set_volume_label(&self, label: &str) -> Result<Change>;
    /// The directory that it is, where it is one: programs can be run only in that.
    fn as_root(&self) -> Option<&Root> {
        None
    }
    /// Nothing there; a directory goes with all that is in it. Links are removed, never followed.
    fn remove_tree(&self, path: &Path) -> Result<Change>;
    /// Nothing in the directory, which stays itself; what is no directory is left alone.
    fn clear(&self, path: &Path) -> Result<Change> {
        let mut change = Change::Same;
        if self.entry(path)? == Some(Entry::Dir) {
            for name in self.list(path)? {
                self.remove_tree(&path.join(name))?;
                change = Change::Changed;
            }
        }
        Ok(change)
    }
}

impl Tree for Root {
    fn entry(&self, path: &Path) -> Result<Option<Entry>> {
        Root::entry(self, path)
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        Root::read(self, path)
    }

    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        Root::list(self, path)
    }

    fn make_dir(&self, path: &Path, mode: u32) -> Result<Change> {
        Root::make_dir(self, path, mode)
    }

    fn write(&self, path: &Path, content: &[u8], mode: FileMode) -> Result<Change> {
        Root::write(self, path, content, mode)
    }

    fn link(&self, path: &Path, target: &Path) -> Result<Change> {
        Root::link(self, path, target)
    }

    fn remove(&self, path: &Path) -> Result<Change> {
        Root::remove(self, path)
    }

    fn owner(&self, path: &Path) -> Result<Option<(u32, u32)>> {
        Root::owner(self, path)
    }

    fn own(&self, path: &Path, uid: u32, gid: u32, mode: u32) -> Result<Change> {
        Root::own(self, path, uid, gid, mode)
    }

    fn switch(&self, path: &Path, target: &Path) -> Result<Change> {
        Root::switch(self, path, target)
    }

    fn names(&self, path: &Path, each: &mut dyn FnMut(&OsStr, Kind) -> bool) -> Result<()> {
        Root::names(self, path, each)
    }

    fn is_labelled(&self) -> Result<bool> {
        Root::is_labelled(self)
    }

    fn set_label(&self, path: &Path, label: &str) -> Result<()> {
        Root::set_label(self, path, label)
    }

    fn volume_label(&self) -> Result<Option<String>> {
        Root::volume_label(self)
    }

    fn set_volume_label(&self, label: &str) -> Result<Change> {
        Root::set_volume_label(self, label)
    }

    fn as_root(&self) -> Option<&Root> {
        Some(self)
    }

    fn remove_tree(&self, path: &Path) -> Result<Change> {
        Root::remove_tree(self, path)
    }

    fn clear(&self, path: &Path) -> Result<Change> {
        Root::clear(self, path)
    }
}
