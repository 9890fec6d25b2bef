//! A document becomes what a guest's filesystem is: gridgate's own compiler, which needs nothing of the guest, not even a
//! shell.
//!
//! First a plan is made of what the tree is; then each step makes one thing so. The new generation is built beside the old
//! one, the system's files follow, and the link to the generation is switched last: a compile that is cut short is done
//! again by the next, which finds the old generation still holding.

mod accounts;
mod files;
pub mod generation;
mod own;
mod packages;
mod step;
pub mod tasks;
mod units;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::document::Document;
use crate::host::root::Change;
use crate::host::tree::Tree;
use accounts::Accounts;
use generation::Generations;
pub use own::Undeclared;
use packages::Missing;
pub use step::{Owned, Step};

/// What a compile came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The generation that holds now.
    pub generation: u32,
    /// Paths inside the guest that were changed, in the order of the steps.
    pub changed: Vec<PathBuf>,
    /// What should be known: units and users that are not there yet, files that stay as they are.
    pub notes: Vec<String>,
    /// Packages that the profile wants and the guest does not have.
    pub missing_packages: Vec<String>,
}

/// All that is to be done to a tree, before any of it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are made.
    pub steps: Vec<Step>,
    /// What comes of it, but for the changed paths.
    pub outcome: Outcome,
}

/// Makes the tree what the document says. The second time nothing changes, not even times.
pub fn into(tree: &dyn Tree, document: &Document) -> Result<Outcome> {
    let what = || format!("compiling profile '{}' of '{}'", document.profile, document.guest);
    Plan::make(tree, document).with_context(what)?.apply(tree).with_context(what)
}

/// As [`into`], and then the guest's own compiler is run in the tree, if the profile names one.
pub fn with_own(tree: &dyn Tree, document: &Document, undeclared: Undeclared) -> Result<Outcome> {
    let mut outcome = into(tree, document)?;
    if let Some(compiler) = &document.compiler {
        let what = || format!("compiling profile '{}' of '{}'", document.profile, document.guest);
        let changed = !outcome.changed.is_empty();
        let found = own::run(tree, document, compiler, changed, undeclared).with_context(what)?;
        let note = |path: PathBuf| {
            format!("the guest's compiler changed '{}', which it does not declare", path.display())
        };
        outcome.notes.extend(found.into_iter().map(note));
    }
    Ok(outcome)
}

/// Brings back the generation before the one that holds, and gives its document. Fails if there is none.
pub fn rollback(tree: &dyn Tree) -> Result<(Document, Outcome)> {
    let (document, plan) = Plan::rollback(tree)?;
    Ok((document, plan.apply(tree).context("rolling the profile back")?))
}

impl Plan {
    /// Looks at a tree and says what makes it what the document says.
    pub fn make(tree: &dyn Tree, document: &Document) -> Result<Self> {
        let generations = Generations::look(tree)?;
        let number = generations.number_for(document);
        Self::to(tree, document, number, &generations)
    }

    /// Looks for an earlier generation and says what makes the tree that.
    pub fn rollback(tree: &dyn Tree) -> Result<(Document, Self)> {
        let generations = Generations::look(tree)?;
        let Some((current, _)) = generations.current else {
            bail!("no profile was ever compiled into it");
        };
        let earlier = generations.numbers.iter().rev().find(|number| **number < current);
        let Some(number) = earlier else {
            bail!("generation {current} of the profile is the oldest that is kept");
        };
        let document = generation::read(tree, *number)?;
        let plan = Self::to(tree, &document, *number, &generations)?;
        Ok((document, plan))
    }

    fn to(tree: &dyn Tree, document: &Document, number: u32, generations: &Generations) -> Result<Self> {
        let earlier = generations.document();
        let accounts = Accounts::merge(tree, document, earlier)?;
        let mut steps = generation::build(number, document);
        steps.extend(accounts.steps());
        let (files, mut notes) = files::steps(tree, document, earlier, &accounts)?;
        steps.extend(files);
        let (units, more) = units::steps(tree, document, earlier)?;
        steps.extend(units);
        notes.extend(more);
        // What another machine has done is not done here.
        if earlier.is_some_and(|earlier| (&earlier.site, &earlier.guest) != (&document.site, &document.guest))
        {
            steps.push(tasks::forget());
        }
        steps.push(generation::switch(number));
        steps.extend(generation::prune(tree, generations, number, document));
        let missing_packages = match packages::missing(tree, &document.packages)? {
            Missing::These(missing) => missing,
            Missing::Unknown(why) => {
                notes.push(format!("whether its packages are there is not known: {why}"));
                Vec::new()
            }
        };
        notes.dedup();
        let outcome = Outcome { generation: number, changed: Vec::new(), notes, missing_packages };
        Ok(Self { steps, outcome })
    }

    /// Files that are to hold exactly this, in the end.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.steps.iter().filter_map(|step| match step {
            Step::File { path, content, .. } => Some((path.as_path(), content.as_slice())),
            _ => None,
        })
    }

    /// Does it. What is so already is not touched.
    pub fn apply(self, tree: &dyn Tree) -> Result<Outcome> {
        let mut outcome = self.outcome;
        for step in &self.steps {
            if step.apply(tree)? == Change::Changed {
                outcome.changed.push(step.path().to_owned());
            }
        }
        Ok(outcome)
    }
}
