//! A source as a tree that can be asked by path: what is packed is looked at in one way, however it is read.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::entry::{Entry, Kind};
use super::source::Source;
use crate::host::root::{Change, Entry as Found, FileMode, LARGEST_READ};
use crate::host::tree::Tree;
use crate::identity::audit::Old;
use crate::identity::seal;

/// Places that [`identity`] tells of at most.
const MOST_PLACES: usize = 1000;
/// As many links in one path the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Whatever in it belongs to one machine: each path, relative to the top, that sealing would take out or change.
pub(super) fn identity(source: &dyn Source, entries: &[Entry]) -> Result<Vec<Vec<u8>>> {
    let what = "looking for the identity of a machine";
    let view = View::of(source, entries);
    let old = Old::from_tree(&view).context(what)?.without_uuids();
    let mut places = Vec::new();
    for edit in seal::edits(&view, &old, &[]).context(what)? {
        let path = edit.path();
        // What a sealed system has to have is no part of an identity.
        if view.entry(path).context(what)?.is_some() {
            places.push(path.strip_prefix("/").unwrap_or(path).as_os_str().as_bytes().to_vec());
        }
    }
    places.sort();
    places.dedup();
    places.truncate(MOST_PLACES);
    Ok(places)
}

struct View<'v> {
    source: &'v dyn Source,
    entries: HashMap<&'v [u8], &'v Entry>,
    /// Names by directory.
    names: HashMap<&'v [u8], Vec<&'v [u8]>>,
}

impl<'v> View<'v> {
    fn of(source: &'v dyn Source, all: &'v [Entry]) -> Self {
        let (mut entries, mut names) = (HashMap::new(), HashMap::<&[u8], Vec<&[u8]>>::new());
        for entry in all {
            entries.insert(&entry.path[..], entry);
            if !entry.path.is_empty() {
                let (dir, name) = match entry.path.iter().rposition(|byte| *byte == b'/') {
                    Some(slash) => (&entry.path[..slash], &entry.path[slash + 1..]),
                    None => (&b""[..], &entry.path[..]),
                };
                names.entry(dir).or_default().push(name);
            }
        }
        Self { source, entries, names }
    }

    /// What is at a path as a guest would find it; the last name's own link is followed if asked.
    fn find(&self, path: &Path, follow: bool) -> Result<Option<&'v Entry>> {
        let mut to_go: Vec<Vec<u8>> = Vec::new();
        let parts = |path: &[u8]| -> Vec<Vec<u8>> {
            let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
            parts.rev().map(<[u8]>::to_vec).collect()
        };
        to_go.extend(parts(path.as_os_str().as_bytes()));
        let (mut at, mut links) = (Vec::new(), 0);
        while let Some(part) = to_go.pop() {
            if part == b".." {
                let end = at.iter().rposition(|byte: &u8| *byte == b'/').unwrap_or(0);
                at.truncate(end);
                continue;
            }
            let dir = at.len();
            if dir > 0 {
                at.push(b'/');
            }
            at.extend(part);
            let Some(entry) = self.entries.get(&at[..]) else { return Ok(None) };
            if let Kind::SymbolicLink(target) = &self.file_of(entry).kind
                && (follow || !to_go.is_empty())
            {
                links += 1;
                if links > MOST_LINKS {
                    bail!("looking at '{}': too many links lead there", path.display());
                }
                at.truncate(if target.starts_with(b"/") { 0 } else { dir });
                to_go.extend(parts(target));
            }
        }
        Ok(self.entries.get(&at[..]).map(|entry| self.file_of(entry)))
    }

    /// A further name stands for the file.
    fn file_of(&self, entry: &'v Entry) -> &'v Entry {
        match &entry.kind {
            Kind::HardLink(first) => self.entries.get(&first[..]).copied().unwrap_or(entry),
            _ => entry,
        }
    }
}

fn only_looked_at<T>(path: &Path) -> Result<T> {
    bail!("changing '{}': it is only looked at", path.display())
}

impl Tree for View<'_> {
    fn entry(&self, path: &Path) -> Result<Option<Found>> {
        Ok(self.find(path, false)?.map(|entry| match &entry.kind {
            Kind::Directory => Found::Dir,
            Kind::File(content) => Found::File { mode: entry.mode, len: content.len },
            Kind::SymbolicLink(target) => Found::Link(PathBuf::from(OsStr::from_bytes(target))),
            _ => Found::Special,
        }))
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let what = || format!("reading '{}'", path.display());
        let Some(entry) = self.find(path, true)? else { return Ok(None) };
        let Kind::File(content) = &entry.kind else { bail!("{}: it is no regular file", what()) };
        if content.len > LARGEST_READ {
            bail!("{}: it has {} bytes, more than are read", what(), content.len);
        }
        let mut data = Vec::new();
        let each = &mut |piece: &[u8]| {
            data.extend_from_slice(piece);
            Ok(())
        };
        self.source.data(entry, content, each).with_context(what)?;
        let (mut bytes, mut rest) = (vec![0; content.len as usize], &data[..]);
        for (offset, len) in &content.data {
            let (from, to) = (*offset as usize, (*offset + *len) as usize);
            let piece = rest.split_at_checked(*len as usize).zip(bytes.get_mut(from..to));
            let ((piece, later), place) = piece.with_context(what)?;
            place.copy_from_slice(piece);
            rest = later;
        }
        Ok(Some(bytes))
    }

    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let Some(entry) = self.find(path, true)? else { return Ok(Vec::new()) };
        let names = self.names.get(&entry.path[..]).map(Vec::as_slice).unwrap_or_default();
        let mut names: Vec<PathBuf> =
            names.iter().map(|name| PathBuf::from(OsStr::from_bytes(name))).collect();
        names.sort();
        Ok(names)
    }

    fn owner(&self, path: &Path) -> Result<Option<(u32, u32)>> {
        Ok(self.find(path, false)?.map(|entry| (entry.uid, entry.gid)))
    }

    fn is_labelled(&self) -> Result<bool> {
        let has = |entry: &&Entry| entry.attributes.iter().any(|(key, _)| key == b"security.selinux");
        Ok(self.entries.get(&b""[..]).is_some_and(has))
    }

    fn volume_label(&self) -> Result<Option<String>> {
        Ok(None)
    }

    fn make_dir(&self, path: &Path, _mode: u32) -> Result<Change> {
        only_looked_at(path)
    }

    fn write(&self, path: &Path, _content: &[u8], _mode: FileMode) -> Result<Change> {
        only_looked_at(path)
    }

    fn link(&self, path: &Path, _target: &Path) -> Result<Change> {
        only_looked_at(path)
    }

    fn remove(&self, path: &Path) -> Result<Change> {
        only_looked_at(path)
    }

    fn own(&self, path: &Path, _uid: u32, _gid: u32, _mode: u32) -> Result<Change> {
        only_looked_at(path)
    }

    fn switch(&self, path: &Path, _target: &Path) -> Result<Change> {
        only_looked_at(path)
    }

    fn set_label(&self, path: &Path, _label: &str) -> Result<()> {
        only_looked_at(path)
    }

    fn set_volume_label(&self, _label: &str) -> Result<Change> {
        only_looked_at(Path::new("/"))
    }

    fn remove_tree(&self, path: &Path) -> Result<Change> {
        only_looked_at(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::order;
    use crate::host::root::Root;
    use crate::progress::Progress;
    use std::os::unix::fs::symlink;

    /// A tree with files by path, and what is asked of a view of it.
    fn viewed(links: &[(&str, &str)], ask: &dyn Fn(&View<'_>, &Root)) {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("etc/hostname", "ce01\n"),
            ("etc/machine-id", ""),
            ("etc/fstab", "none"),
            ("usr/lib/os-release", "ID=x\n"),
            ("root/notes", "mine"),
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        for (path, target) in links {
            symlink(target, dir.path().join(path)).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        let entries = order::collect(&root, "it", &Progress::silent()).unwrap();
        ask(&View::of(&root, &entries), &root);
    }

    #[test]
    fn a_view_answers_as_the_tree_itself_does() {
        let links = [
            ("etc/os-release", "../usr/lib/os-release"),
            ("lib", "/usr/lib"),
            ("up", "../../../etc"),
            ("loop", "loop"),
            ("nowhere", "/none"),
        ];
        viewed(&links, &|view, root| {
            for path in [
                "/",
                "/etc",
                "/etc/hostname",
                "/etc/os-release",
                "/lib/os-release",
                "/lib",
                "/up/hostname",
                "/none",
                "/etc/hostname/x",
                "/loop",
                "/nowhere",
                "/root/../etc/fstab",
            ] {
                let path = Path::new(path);
                if path != Path::new("/") {
                    assert_eq!(view.entry(path).unwrap(), Tree::entry(root, path).unwrap(), "{path:?}");
                }
                assert_eq!(view.read(path).ok(), Tree::read(root, path).ok(), "{path:?}");
                assert_eq!(view.list(path).ok(), Tree::list(root, path).ok(), "{path:?}");
            }
            assert!(view.write(Path::new("/x"), b"", FileMode::KeepOr(0o644)).is_err());
        });
    }

    #[test]
    fn what_belongs_to_one_machine_is_told_by_its_path() {
        viewed(&[], &|view, _| {
            let entries: Vec<Entry> = view.entries.values().map(|entry| (*entry).clone()).collect();
            assert_eq!(identity(view.source, &entries).unwrap(), [b"etc/hostname".to_vec()]);
        });
    }
}
