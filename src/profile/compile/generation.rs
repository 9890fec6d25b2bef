//! Where compiled profiles lie in a guest: one directory each, and a link to the one that holds.
//!
//! ```text
//! /var/lib/gridgate/profile/
//!   1/ 2/ 3/               document.json, task-NAME; for a compiler of the guest's own profile.xml, .sh, quattor.json
//!   current -> 3           switched by one rename
//!   originals/etc/...      what the guest had before a profile first wrote there
//!   done/NAME              how a first-boot task ended; NAME.log, what it said
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::step::{Owned, Step};
use crate::host::root::Entry;
use crate::host::tree::Tree;
use crate::profile::document::{Document, FORMAT};
use crate::profile::export;
use crate::profile::render::shell_line;

/// All of it.
pub const TOP: &str = "/var/lib/gridgate/profile";

/// Older generations than these are removed.
const KEPT: usize = 5;

/// Generations of a guest.
#[derive(Debug, Default)]
pub(super) struct Generations {
    /// Their numbers, ascending.
    pub numbers: Vec<u32>,
    /// The one that holds, and its document if that can be read.
    pub current: Option<(u32, Option<Document>)>,
}

impl Generations {
    /// Looks for them. What is damaged counts as not there: it is built anew.
    pub(super) fn look(tree: &dyn Tree) -> Result<Self> {
        let mut numbers: Vec<u32> =
            tree.list(Path::new(TOP))?.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        let current = match tree.entry(&Path::new(TOP).join("current"))? {
            Some(Entry::Link(target)) => target.to_str().and_then(|target| target.parse().ok()),
            _ => None,
        };
        let current = current.map(|number| (number, read(tree, number).ok()));
        Ok(Self { numbers, current })
    }

    /// The document that holds.
    pub(super) fn document(&self) -> Option<&Document> {
        self.current.as_ref()?.1.as_ref()
    }

    /// The number for a document: the current one if that is the same to the letter, else a new one.
    pub(super) fn number_for(&self, document: &Document) -> u32 {
        match &self.current {
            Some((number, Some(current))) if current == document => *number,
            _ => self.numbers.last().copied().unwrap_or(0).saturating_add(1),
        }
    }
}

/// The document of a generation.
pub(super) fn read(tree: &dyn Tree, number: u32) -> Result<Document> {
    let path = dir(number).join("document.json");
    let what = || format!("reading generation {number} of the profile");
    let text = tree.read(&path).with_context(what)?.with_context(|| format!("{}: it is gone", what()))?;
    let document: Document = serde_json::from_slice(&text).with_context(what)?;
    if document.format != FORMAT {
        bail!("{}: it has format {}, this gridgate knows {FORMAT}", what(), document.format);
    }
    Ok(document)
}

/// The directory of a generation.
pub(super) fn dir(number: u32) -> PathBuf {
    Path::new(TOP).join(number.to_string())
}

/// Steps that build a generation, which nobody uses yet. The document may hold what is nobody else's business.
pub(super) fn build(number: u32, document: &Document) -> Vec<Step> {
    let dir = dir(number);
    let file = |name: String, content: String, mode: u32| Step::File {
        path: dir.join(name),
        content: content.into_bytes(),
        owned: Some(Owned::root(mode)),
    };
    let mut steps = vec![
        Step::Dir { path: TOP.into(), owned: Owned::root(0o755) },
        Step::Dir { path: dir.clone(), owned: Owned::root(0o755) },
    ];
    for task in document.tasks.iter().filter(|task| !task.command.is_empty()) {
        let text = format!("# {}\nexec {}\n", task.about, shell_line(&task.command));
        steps.push(file(format!("task-{}", task.name), text, 0o600));
    }
    if document.compiler.is_some() {
        for (name, content) in export::for_compilers(document) {
            steps.push(file(name.to_owned(), content, 0o600));
        }
    }
    steps.push(file("document.json".to_owned(), document.text(), 0o600));
    steps
}

/// The step that makes a generation hold.
pub(super) fn switch(number: u32) -> Step {
    Step::Switch { path: Path::new(TOP).join("current"), target: number.to_string().into() }
}

/// Steps that remove the oldest generations, but not the two that are being switched; and, once that is done, those that were
/// another machine's: nobody rolls back to them, and they tell of it.
pub(super) fn prune(tree: &dyn Tree, generations: &Generations, new: u32, document: &Document) -> Vec<Step> {
    let current = generations.current.as_ref().map(|(number, _)| *number);
    let others: Vec<u32> = generations.numbers.iter().copied().filter(|number| *number != new).collect();
    let surplus = (others.len() + 1).saturating_sub(KEPT);
    let is_foreign = |number: &u32| {
        let earlier = read(tree, *number);
        earlier.is_ok_and(|earlier| (&earlier.site, &earlier.guest) != (&document.site, &document.guest))
    };
    let goes =
        |(at, number): &(usize, u32)| (*at < surplus && Some(*number) != current) || is_foreign(number);
    let gone = others.into_iter().enumerate().filter(goes);
    gone.map(|(_, number)| Step::RemoveTree { path: dir(number) }).collect()
}
