//! First-boot tasks: what ran in the guest, and what people still have to do.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::generation::TOP;
use super::step::Step;
use crate::host::tree::Tree;
use crate::profile::document::Document;

/// How it stands with one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskState {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// How far it has come.
    pub state: State,
}

/// How far a task has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It ran and succeeded.
    Done,
    /// It ran and failed; it is tried again at the next boot.
    Failed,
    /// It runs at the next boot.
    Pending,
    /// People must do it.
    ByHand,
}

/// The line of a record that says so (the program is `profiles/templates/first-boot`).
const SUCCESS: &str = "status=0";

/// How it stands with the document's tasks, by the records in the guest. A record that cannot be read is none.
pub fn states(tree: &dyn Tree, document: &Document) -> Vec<TaskState> {
    let state = |name: &str| {
        let record = tree.read(&Path::new(TOP).join("done").join(name)).ok().flatten();
        match record.as_deref().map(String::from_utf8_lossy) {
            Some(text) if text.lines().any(|line| line == SUCCESS) => State::Done,
            Some(_) => State::Failed,
            None => State::Pending,
        }
    };
    let task = |task: &crate::profile::document::Task| TaskState {
        name: task.name.clone(),
        about: task.about.clone(),
        state: if task.command.is_empty() { State::ByHand } else { state(&task.name) },
    };
    document.tasks.iter().map(task).collect()
}

/// The step that removes all records.
pub(super) fn forget() -> Step {
    Step::RemoveTree { path: Path::new(TOP).join("done") }
}
