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
    /// When it ended last, in seconds since 1970 by the guest's clock; none if it has not, or did not say.
    #[serde(default)]
    pub ended_at_epoch_seconds: Option<u64>,
    /// What its command ended with then.
    #[serde(default)]
    pub exit_status: Option<i32>,
}

/// How far a task has come. Later ones are further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It runs at the next boot.
    Pending,
    /// People must do it.
    ByHand,
    /// It ran and failed; it is tried again at the next boot.
    Failed,
    /// It was done.
    Done,
}

/// How it stands with the document's tasks, by the records in the guest. A record that cannot be read is none.
pub fn states(tree: &dyn Tree, document: &Document) -> Vec<TaskState> {
    let task = |task: &crate::profile::document::Task| TaskState {
        name: task.name.clone(),
        about: task.about.clone(),
        state: if task.command.is_empty() { State::ByHand } else { State::Pending },
        ended_at_epoch_seconds: None,
        exit_status: None,
    };
    let mut tasks: Vec<TaskState> = document.tasks.iter().map(task).collect();
    advance(tree, &mut tasks);
    tasks
}

/// Takes in what the records in the guest say since. No task falls back: records only go when the profile is compiled for
/// another machine, and a tree that somebody writes to meanwhile may look as if one had gone.
pub fn advance(tree: &dyn Tree, tasks: &mut [TaskState]) {
    for task in tasks {
        let record = tree.read(&Path::new(TOP).join("done").join(&task.name)).ok().flatten();
        let Some(record) = record.as_deref().map(String::from_utf8_lossy) else { continue };
        let value = |key: &str| record.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        // The program that writes it is `profiles/templates/first-boot`.
        let exit_status = value("status").and_then(|value| value.parse().ok());
        let state = match (exit_status, task.state) {
            (Some(0), _) => State::Done,
            (_, State::ByHand) => continue,
            _ => State::Failed,
        };
        if state >= task.state {
            task.state = state;
            task.exit_status = exit_status;
            task.ended_at_epoch_seconds = value("at").and_then(|value| value.parse().ok());
        }
    }
}

/// The step that removes all records.
pub(super) fn forget() -> Step {
    Step::RemoveTree { path: Path::new(TOP).join("done") }
}
