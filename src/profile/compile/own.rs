//! The guest's own compiler: any program of the guest, run inside its filesystem once the profile lies there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::generation::TOP;
use super::step::{Owned, Step};
use crate::host::root::Root;
use crate::host::root::look::next_moment;
use crate::host::sandbox::Sandbox;
use crate::host::tree::Tree;
use crate::profile::document::{Compiler, Document};

/// What happens to changes that the compiler does not declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undeclared {
    /// They are told of.
    Told,
    /// They cannot be made: everything else is read-only to it.
    Refused,
}

/// More undeclared changes are not listed.
const MOST: usize = 1000;
/// As much of what it said as an error shows.
const SHOWN_LINES: usize = 20;

/// Runs it, unless it has succeeded with this very document and nothing was changed since; gives the paths that it changed
/// without declaring them.
pub(super) fn run(
    tree: &dyn Tree,
    document: &Document,
    compiler: &Compiler,
    changed: bool,
    undeclared: Undeclared,
) -> Result<Vec<PathBuf>> {
    let (path, mark) = (Path::new(TOP).join("compiled"), format!("{}\n", document.digest()).into_bytes());
    if !changed && tree.read(&path)?.as_ref() == Some(&mark) {
        return Ok(Vec::new());
    }
    let Some(root) = tree.as_root() else {
        bail!("the guest's own compiler needs a mount to run in\nhint: as root the disk is mounted");
    };
    let found = run_in(root, document, compiler, undeclared)?;
    Step::File { path, content: mark, owned: Some(Owned::root(0o644)) }.apply(tree)?;
    Ok(found)
}

fn run_in(
    root: &Root,
    document: &Document,
    compiler: &Compiler,
    undeclared: Undeclared,
) -> Result<Vec<PathBuf>> {
    let name = compiler.command.first().map(String::as_str).unwrap_or_default();
    for path in &compiler.writes {
        if root.entry(Path::new(path))?.is_none() {
            bail!("'{name}' declares that it writes to '{path}', which is not in the guest");
        }
    }
    let current = format!("{TOP}/current");
    let sandbox = Sandbox {
        command: compiler.command.clone(),
        env: vec![
            ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
            ("GRIDGATE_GUEST".to_owned(), document.guest.clone()),
            ("GRIDGATE_PROFILE".to_owned(), current),
        ],
        writable: (undeclared == Undeclared::Refused).then(|| compiler.writes.clone()),
        network: compiler.network,
        memory_bytes: compiler.memory_bytes,
        processes: compiler.processes,
        time: Duration::from_millis(compiler.time_ms),
    };
    let since = next_moment();
    let ended = sandbox.run(root)?;
    if ended.status != 0 {
        let lines: Vec<&str> = ended.output.lines().collect();
        let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        let said = if last.is_empty() {
            "it said nothing".to_owned()
        } else {
            format!("it said:\n{}", last.join("\n"))
        };
        bail!("the guest's compiler '{name}' ended with status {}; {said}", ended.status);
    }
    if undeclared == Undeclared::Refused {
        return Ok(Vec::new());
    }
    let changed = root.changed_since(since, MOST).context("looking for what the guest's compiler changed")?;
    let declared = |path: &Path| compiler.writes.iter().any(|declared| path.starts_with(declared));
    // A directory shows what came and went in it; the entries that are there speak for themselves.
    let within =
        |path: &Path| compiler.writes.iter().any(|declared| Path::new(declared).parent() == Some(path));
    let mut found: Vec<PathBuf> =
        changed.into_iter().filter(|path| !declared(path) && !within(path)).collect();
    found.sort();
    Ok(found)
}
