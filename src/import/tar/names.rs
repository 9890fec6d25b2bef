//! What a tar's members come to: the last of each name, with links to what was there when they came.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::archive::entry::{Entry, Kind, Time};
use crate::archive::limits::Limits;
use crate::archive::source::{First, Surveyed};

/// A thing that has one or several names.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// All but its path.
    pub entry: Entry,
    /// Where its data begins in what is kept of the tar.
    pub start: u64,
    /// Text of access lists, and the attributes that they become.
    pub lists: Vec<(Vec<u8>, Vec<u8>)>,
}

/// All names so far.
#[derive(Debug)]
pub(super) struct Names {
    limits: Limits,
    nodes: Vec<Node>,
    names: BTreeMap<Vec<u8>, usize>,
    /// Bytes of paths, links and attributes.
    held: u64,
}

impl Names {
    pub(super) fn new(limits: Limits) -> Self {
        let mut names = Self { limits, nodes: Vec::new(), names: BTreeMap::new(), held: 0 };
        names.put(Vec::new(), implied(Time { seconds: 0, nanoseconds: 0 }));
        names
    }

    /// A member. One of the same name that came before it is no more; a directory keeps what is in it.
    pub(super) fn add(&mut self, path: Vec<u8>, node: Node) -> Result<()> {
        self.hold(&path, &node)?;
        self.make_way(&path, node.entry.modified, node.entry.kind == Kind::Directory)?;
        self.put(path, node);
        Ok(())
    }

    /// A further name of a member that came before.
    pub(super) fn link(&mut self, path: Vec<u8>, to: &[u8]) -> Result<()> {
        let number = *self.names.get(to).with_context(|| {
            format!("'{}', which it is to be another name of, is not before it", to.escape_ascii())
        })?;
        let node = &self.nodes[number];
        if node.entry.kind == Kind::Directory {
            bail!("'{}', which it is to be another name of, is a directory", to.escape_ascii());
        }
        let modified = node.entry.modified;
        if path == to {
            return Ok(());
        }
        self.held += path.len() as u64;
        self.make_way(&path, modified, false)?;
        self.names.insert(path, number);
        self.bounded()
    }

    /// Makes the directories that it is in, where no member has told of them, and room for it.
    fn make_way(&mut self, path: &[u8], modified: Time, is_directory: bool) -> Result<()> {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in slashes {
            match self.kind(&path[..end]) {
                Some(Kind::Directory) => {}
                Some(_) => bail!("it is inside '{}', which is no directory", path[..end].escape_ascii()),
                None => {
                    self.held += end as u64;
                    self.put(path[..end].to_vec(), implied(modified));
                    self.bounded()?;
                }
            }
        }
        if path.is_empty() && !is_directory {
            bail!("the top is no directory");
        }
        if self.kind(path) == Some(&Kind::Directory) && !is_directory {
            let inside = [path, b"/"].concat();
            if self.names.range(inside.clone()..).next().is_some_and(|(name, _)| name.starts_with(&inside)) {
                bail!("it was a directory before, with files in it");
            }
        }
        Ok(())
    }

    fn kind(&self, path: &[u8]) -> Option<&Kind> {
        self.names.get(path).map(|number| &self.nodes[*number].entry.kind)
    }

    fn put(&mut self, path: Vec<u8>, node: Node) {
        self.names.insert(path, self.nodes.len());
        self.nodes.push(node);
    }

    fn hold(&mut self, path: &[u8], node: &Node) -> Result<()> {
        let pairs = node.entry.attributes.iter().chain(&node.lists);
        let pairs: usize = pairs.map(|(key, value)| key.len() + value.len()).sum();
        let more = match &node.entry.kind {
            Kind::SymbolicLink(target) => target.len(),
            Kind::File(content) => content.data.len() * 16,
            _ => 0,
        };
        self.held += (path.len() + pairs + more) as u64;
        self.bounded()
    }

    fn bounded(&self) -> Result<()> {
        if self.nodes.len().max(self.names.len()) as u64 > self.limits.entries
            || self.held > self.limits.manifest_bytes
        {
            bail!("there are more files in it, or more is told of them, than any filesystem of a guest has");
        }
        Ok(())
    }

    /// What has that name in the end.
    pub(super) fn get(&self, path: &[u8]) -> Option<&Node> {
        self.names.get(path).map(|number| &self.nodes[*number])
    }

    /// Every node that still has a name.
    pub(super) fn each_node(&mut self, each: &mut dyn FnMut(&mut Node) -> Result<()>) -> Result<()> {
        let mut numbers: Vec<usize> = self.names.values().copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().try_for_each(|number| each(&mut self.nodes[number]))
    }

    /// Every name.
    pub(super) fn each(&self, each: &mut dyn FnMut(Surveyed) -> Result<()>) -> Result<()> {
        let mut counts = vec![0u32; self.nodes.len()];
        self.names.values().for_each(|number| counts[*number] += 1);
        for (path, number) in &self.names {
            let entry = Entry { path: path.clone(), ..self.nodes[*number].entry.clone() };
            let inode = (counts[*number] > 1).then_some(*number as u64);
            each(Surveyed { entry, inode, first: First::default() })?;
        }
        Ok(())
    }
}

/// A directory that is there because something is in it.
fn implied(modified: Time) -> Node {
    let entry = Entry {
        path: Vec::new(),
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        modified,
        attributes: Vec::new(),
        flags: 0,
    };
    Node { entry, start: 0, lists: Vec::new() }
}

/// A member's name as a path inside the top; the first slash and points count for nothing, and one that climbs is refused.
pub(super) fn path(name: &[u8]) -> Result<Vec<u8>> {
    let mut path = Vec::with_capacity(name.len());
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => bail!("its name climbs out of the top"),
            part => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(part);
            }
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(kind: Kind) -> Node {
        let mut node = implied(Time { seconds: 7, nanoseconds: 0 });
        node.entry.kind = kind;
        node
    }

    fn listed(names: &Names) -> Vec<(String, Option<u64>)> {
        let mut found = Vec::new();
        let each = &mut |thing: Surveyed| {
            found.push((thing.entry.path.escape_ascii().to_string(), thing.inode));
            Ok(())
        };
        names.each(each).unwrap();
        found
    }

    #[test]
    fn names_lose_slashes_and_points_and_may_not_climb() {
        for (name, wanted) in [("./a//b/", "a/b"), ("/etc/passwd", "etc/passwd"), (".", ""), ("a/./b", "a/b")]
        {
            assert_eq!(path(name.as_bytes()).unwrap(), wanted.as_bytes(), "{name}");
        }
        for bad in ["..", "a/../b", "/../etc"] {
            assert!(path(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_last_of_a_name_counts_and_links_keep_what_was_there() {
        let mut names = Names::new(Limits::default());
        names.add(b"a/x".to_vec(), node(Kind::Fifo)).unwrap();
        names.link(b"y".to_vec(), b"a/x").unwrap();
        names.link(b"z".to_vec(), b"y").unwrap();
        names.add(b"a/x".to_vec(), node(Kind::Socket)).unwrap();
        let wanted = [("", None), ("a", None), ("a/x", None), ("y", Some(2)), ("z", Some(2))];
        assert_eq!(listed(&names), wanted.map(|(name, inode)| (name.to_owned(), inode)));
        assert_eq!(names.get(b"y").unwrap().entry.kind, Kind::Fifo);
        assert_eq!(names.get(b"a").unwrap().entry.modified.seconds, 7);
    }

    #[test]
    fn nothing_is_put_behind_a_link_or_in_place_of_a_full_directory() {
        let mut names = Names::new(Limits::default());
        names.add(b"lib".to_vec(), node(Kind::SymbolicLink(b"/etc".to_vec()))).unwrap();
        let error = names.add(b"lib/passwd".to_vec(), node(Kind::Fifo)).unwrap_err().to_string();
        assert_eq!(error, "it is inside 'lib', which is no directory");
        names.add(b"d/f".to_vec(), node(Kind::Fifo)).unwrap();
        assert!(names.add(b"d".to_vec(), node(Kind::Fifo)).is_err());
        assert!(names.link(b"d".to_vec(), b"d/f").is_err());
        assert!(names.link(b"e".to_vec(), b"d").is_err());
        assert!(names.link(b"e".to_vec(), b"none").is_err());
        assert!(names.add(Vec::new(), node(Kind::Fifo)).is_err());
        names.add(b"d".to_vec(), node(Kind::Directory)).unwrap();
        assert!(names.get(b"d/f").is_some());
    }

    #[test]
    fn more_members_than_are_believed_are_refused() {
        let mut names = Names::new(Limits { entries: 4, ..Limits::default() });
        assert!(names.add(b"a/b/c/d/e/f".to_vec(), node(Kind::Fifo)).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_every_name_is_inside_a_directory(members in proptest::collection::vec(("[ab./]{0,6}", "[ab/]{0,4}", 0u8..4), 0..20)) {
            let mut names = Names::new(Limits::default());
            for (name, target, kind) in members {
                let (Ok(name), Ok(target)) = (path(name.as_bytes()), path(target.as_bytes())) else { continue };
                let _ = match kind {
                    0 => names.add(name, node(Kind::Directory)),
                    1 => names.add(name, node(Kind::Fifo)),
                    2 => names.add(name, node(Kind::SymbolicLink(target))),
                    _ => names.link(name, &target),
                };
            }
            let all = listed(&names);
            for (name, _) in &all {
                if let Some((dir, _)) = name.rsplit_once('/') {
                    prop_assert_eq!(&names.get(dir.as_bytes()).unwrap().entry.kind, &Kind::Directory);
                }
            }
            prop_assert_eq!(&names.get(b"").unwrap().entry.kind, &Kind::Directory);
        }
    }
}
