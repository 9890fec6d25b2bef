//! What of an old machine goes.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use crate::identity::known::Class;

/// Which classes are scrubbed, and which paths are spared whatever their class.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    classes: BTreeSet<Class>,
    /// Those of which even that goes which a new identity usually replaces.
    asked_for: BTreeSet<Class>,
    spared: BTreeSet<PathBuf>,
}

impl Policy {
    /// A filesystem becomes another machine: all that was the old one's goes, but people's own keys stay with their homes.
    pub fn another_machine() -> Self {
        let kept = [Class::Users];
        let classes = Class::ALL.into_iter().filter(|class| !kept.contains(class)).collect();
        Self { classes, ..Self::default() }
    }

    /// A machine is personalised again as itself: nothing goes.
    pub fn same_machine() -> Self {
        Self::default()
    }

    /// A filesystem becomes nobody's: everything goes.
    pub fn nobody() -> Self {
        Self { classes: Class::ALL.into_iter().collect(), ..Self::default() }
    }

    /// The same, but this class stays.
    pub fn keep(mut self, class: Class) -> Self {
        self.classes.remove(&class);
        self.asked_for.remove(&class);
        self
    }

    /// The same, and this class goes, because somebody asked for it.
    pub fn scrub(mut self, class: Class) -> Self {
        self.classes.insert(class);
        self.asked_for.insert(class);
        self
    }

    /// The same, but these paths stay, and directories that hold one of them: they are what the new identity writes.
    pub fn sparing<P: Into<PathBuf>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.spared.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Whether the class goes.
    pub fn scrubs(&self, class: Class) -> bool {
        self.classes.contains(&class)
    }

    /// Whether that goes, too, which an identity assigns if it says anything of it: how the network is set up, and who may log in.
    /// Without it a machine works on; of other classes it does not.
    pub fn scrubs_assigned(&self, class: Class) -> bool {
        matches!(class, Class::Network | Class::Ssh) && self.asked_for.contains(&class)
    }

    /// Whether the path is spared, or one inside it.
    pub fn spares(&self, path: &Path) -> Spared {
        let from = (Bound::Included(path), Bound::Unbounded);
        match self.spared.range::<Path, _>(from).next() {
            Some(found) if found == path => Spared::Itself,
            Some(found) if found.starts_with(path) => Spared::SomethingInside,
            _ => Spared::No,
        }
    }
}

/// How far a path is spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spared {
    /// Not at all.
    No,
    /// It stays.
    Itself,
    /// It is a directory that stays, with something that is in it; the rest of it goes.
    SomethingInside,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peoples_keys_stay_when_a_machine_becomes_another_and_go_when_it_becomes_nobody() {
        assert!(!Policy::another_machine().scrubs(Class::Users));
        assert!(Policy::nobody().scrubs(Class::Users));
        assert!(Class::ALL.iter().all(|class| !Policy::same_machine().scrubs(*class)));
        let chosen = Policy::another_machine().keep(Class::Logs).scrub(Class::Users);
        assert!(chosen.scrubs(Class::Users) && !chosen.scrubs(Class::Logs));
    }

    #[test]
    fn what_the_new_identity_writes_is_spared_with_the_directories_around_it() {
        let policy = Policy::another_machine().sparing(["/etc/munge/munge.key", "/etc/munge2"]);
        assert_eq!(policy.spares(Path::new("/etc/munge/munge.key")), Spared::Itself);
        assert_eq!(policy.spares(Path::new("/etc/munge")), Spared::SomethingInside);
        assert_eq!(policy.spares(Path::new("/etc/mun")), Spared::No);
        assert_eq!(policy.spares(Path::new("/etc/munge/other")), Spared::No);
    }
}
