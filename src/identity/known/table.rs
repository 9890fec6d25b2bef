//! All patterns as one automaton, so that a tree is walked once however many there are.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Result, bail};

use super::pattern::{Part, Pattern, matches};
use super::{Known, shipped};
use crate::host::root::{Entry, Kind};
use crate::host::tree::Tree;

/// A directory in which more names match is not gone through name by name: it would take memory that nothing bounds.
const MOST_NAMES: usize = 65536;

/// How far `**` goes down.
const DEEPEST: usize = 24;

/// Something known that is there.
#[derive(Debug, Clone)]
pub struct Place<'t> {
    /// Its path.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// What is known of it.
    pub known: &'t Known,
}

/// Whether what is below a place is of interest as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descend {
    /// Yes.
    Yes,
    /// No.
    No,
}

/// What is known, ready to be looked up and to be looked for.
#[derive(Debug)]
pub struct Table {
    known: Cow<'static, [Known]>,
    from_root: Automaton,
    from_home: Automaton,
    /// Entries before this one are a profile's, which says more than what is known in general.
    own: usize,
}

impl Table {
    /// What gridgate knows.
    pub fn shipped() -> &'static Self {
        static TABLE: OnceLock<Table> = OnceLock::new();
        TABLE.get_or_init(|| Self::new(Cow::Borrowed(shipped()), 0))
    }

    /// What gridgate knows, and what a profile says of it.
    pub fn with(extra: &[Known]) -> Cow<'static, Self> {
        if extra.is_empty() {
            return Cow::Borrowed(Self::shipped());
        }
        Cow::Owned(Self::new([extra, shipped()].concat().into(), extra.len()))
    }

    fn new(known: Cow<'static, [Known]>, own: usize) -> Self {
        let (mut from_root, mut from_home) = (Automaton::default(), Automaton::default());
        for (at, entry) in known.iter().enumerate() {
            for pattern in &entry.patterns {
                let automaton = if pattern.is_in_homes() { &mut from_home } else { &mut from_root };
                automaton.add(pattern, End { entry: at, weight: pattern.weight() });
            }
        }
        Self { known, from_root, from_home, own }
    }

    /// The entries.
    pub fn known(&self) -> &[Known] {
        &self.known
    }

    /// What is known of a path: of all patterns that match it, a profile's first, then the one that says most.
    pub fn best(&self, path: &Path, homes: &[PathBuf]) -> Option<&Known> {
        let mut ends = self.from_root.ends(path);
        for home in homes.iter().filter(|home| path.starts_with(home)) {
            if let Ok(rest) = path.strip_prefix(home) {
                ends.extend(self.from_home.ends(rest));
            }
        }
        let best = ends.into_iter().max_by_key(|end| (end.entry < self.own, end.weight));
        best.map(|end| &self.known[end.entry])
    }

    /// Finds what is there of the entries that are `wanted`, a directory before what is in it. Links are never followed: what
    /// is behind one belongs to another place.
    pub fn places<'t>(
        &'t self,
        tree: &dyn Tree,
        homes: &[PathBuf],
        wanted: &dyn Fn(&Known) -> bool,
        each: &mut dyn FnMut(Place<'t>) -> Result<Descend>,
    ) -> Result<()> {
        let wanted: BTreeSet<usize> = (0..self.known.len()).filter(|at| wanted(&self.known[*at])).collect();
        let mut walk = Walk { table: self, tree, homes, wanted, each };
        walk.dir(&self.from_root, Path::new("/"), &self.from_root.start(), 0)?;
        for home in homes {
            if walk.is_real_dir(home)? {
                walk.dir(&self.from_home, home, &self.from_home.start(), 0)?;
            }
        }
        Ok(())
    }
}

impl Clone for Table {
    fn clone(&self) -> Self {
        Self::new(self.known.clone(), self.own)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    entry: usize,
    weight: (bool, usize),
}

#[derive(Debug, Default)]
struct Node {
    names: BTreeMap<Vec<u8>, usize>,
    globs: Vec<(Vec<u8>, usize)>,
    /// Where `**` leads; that node is active in every directory below.
    deep: Option<usize>,
    is_deep: bool,
    ends: Vec<End>,
    /// Entries that end here or below.
    below: BTreeSet<usize>,
}

#[derive(Debug)]
struct Automaton(Vec<Node>);

impl Default for Automaton {
    fn default() -> Self {
        Self(vec![Node::default()])
    }
}

impl Automaton {
    fn add(&mut self, pattern: &Pattern, end: End) {
        let mut at = 0;
        for part in pattern.parts() {
            self.0[at].below.insert(end.entry);
            let fresh = self.0.len();
            let node = &mut self.0[at];
            at = match part {
                Part::Name(name) => *node.names.entry(name.clone()).or_insert(fresh),
                Part::Glob(glob) => match node.globs.iter().find(|(other, _)| other == glob) {
                    Some((_, next)) => *next,
                    None => {
                        node.globs.push((glob.clone(), fresh));
                        fresh
                    }
                },
                Part::Deep => *node.deep.get_or_insert(fresh),
            };
            if at == fresh {
                self.0.push(Node { is_deep: *part == Part::Deep, ..Node::default() });
            }
        }
        self.0[at].below.insert(end.entry);
        self.0[at].ends.push(end);
    }

    fn start(&self) -> Vec<usize> {
        self.closed(vec![0])
    }

    /// `**` may stand for no directory at all.
    fn closed(&self, mut active: Vec<usize>) -> Vec<usize> {
        for at in 0..active.len() {
            active.extend(self.0[active[at]].deep);
        }
        active
    }

    /// Where a name leads from the active nodes.
    fn step(&self, active: &[usize], name: &[u8]) -> Vec<usize> {
        let mut next = Vec::new();
        for node in active.iter().map(|at| &self.0[*at]) {
            next.extend(node.names.get(name));
            next.extend(node.globs.iter().filter(|(glob, _)| matches(glob, name)).map(|(_, to)| *to));
        }
        next
    }

    /// Nodes that are active in a directory of that name.
    fn enter(&self, active: &[usize], reached: &[usize]) -> Vec<usize> {
        let mut inside = self.closed(reached.to_vec());
        inside.extend(active.iter().filter(|at| self.0[**at].is_deep));
        inside.sort_unstable();
        inside.dedup();
        inside
    }

    fn ends(&self, path: &Path) -> Vec<End> {
        let mut active = self.start();
        let mut reached = Vec::new();
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            reached = self.step(&active, name.as_bytes());
            active = self.enter(&active, &reached);
        }
        reached.iter().flat_map(|at| self.0[*at].ends.iter().copied()).collect()
    }
}

struct Walk<'w, 't> {
    table: &'t Table,
    tree: &'w dyn Tree,
    homes: &'w [PathBuf],
    wanted: BTreeSet<usize>,
    each: &'w mut dyn FnMut(Place<'t>) -> Result<Descend>,
}

impl<'t> Walk<'_, 't> {
    /// Whether every level of the path is a directory and none a link.
    fn is_real_dir(&self, path: &Path) -> Result<bool> {
        let mut at = PathBuf::from("/");
        for part in path.components().skip(1) {
            at.push(part);
            if self.tree.entry(&at)? != Some(Entry::Dir) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn leads_on(&self, automaton: &Automaton, node: usize) -> bool {
        !automaton.0[node].below.is_disjoint(&self.wanted)
    }

    fn dir(&mut self, automaton: &'t Automaton, dir: &Path, active: &[usize], depth: usize) -> Result<()> {
        let active: Vec<usize> =
            active.iter().copied().filter(|node| self.leads_on(automaton, *node)).collect();
        for (name, kind) in self.names(automaton, dir, &active)? {
            let path = dir.join(OsStr::from_bytes(&name));
            let reached = automaton.step(&active, &name);
            let mut ends = reached.iter().flat_map(|node| automaton.0[*node].ends.iter());
            let mut descend = Descend::Yes;
            if ends.any(|end| self.wanted.contains(&end.entry))
                && let Some(known) = self.table.best(&path, self.homes)
            {
                descend = (self.each)(Place { path: path.clone(), kind, known })?;
            }
            if kind == Kind::Dir && descend == Descend::Yes && depth < DEEPEST {
                let inside = automaton.enter(&active, &reached);
                if !inside.is_empty() {
                    self.dir(automaton, &path, &inside, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// What is in the directory and matches something, sorted.
    fn names(&self, automaton: &Automaton, dir: &Path, active: &[usize]) -> Result<Vec<(Vec<u8>, Kind)>> {
        let nodes = || active.iter().map(|at| &automaton.0[*at]);
        let mut found = Vec::new();
        if nodes().all(|node| node.globs.is_empty() && !node.is_deep) {
            let names: BTreeMap<&Vec<u8>, usize> =
                nodes().flat_map(|node| node.names.iter().map(|(name, next)| (name, *next))).collect();
            for (name, next) in names {
                if !self.leads_on(automaton, next) {
                    continue;
                }
                let kind = match self.tree.entry(&dir.join(OsStr::from_bytes(name)))? {
                    Some(Entry::File { .. }) => Kind::File,
                    Some(Entry::Dir) => Kind::Dir,
                    Some(Entry::Link(_)) => Kind::Link,
                    Some(Entry::Special) => Kind::Special,
                    None => continue,
                };
                found.push((name.clone(), kind));
            }
            return Ok(found);
        }
        let any_dir = nodes().any(|node| node.is_deep);
        let mut too_many = false;
        self.tree.names(dir, &mut |name, kind| {
            let reached = automaton.step(active, name.as_bytes());
            let leads_on = reached.iter().any(|node| self.leads_on(automaton, *node));
            if leads_on || any_dir && kind == Kind::Dir {
                found.push((name.as_bytes().to_vec(), kind));
            }
            too_many = found.len() > MOST_NAMES;
            !too_many
        })?;
        if too_many {
            bail!(
                "'{}' holds more than {MOST_NAMES} files that may tell of a machine; hint: remove them first, or keep \
                 their class",
                dir.display()
            );
        }
        found.sort();
        Ok(found)
    }
}
