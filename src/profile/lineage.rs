//! What a guest's profile is made of: files in the order in which they are laid one over the other, each once.

use super::library::{Kind, Library};
use super::source::{Said, Source};
use crate::config::problem::Problems;

/// Files from the weakest to the strongest.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    /// Their names: `base`, `feature munge`, ...
    pub names: Vec<String>,
    /// What they say.
    pub sources: Vec<Source>,
}

/// Follows `extends` and `features` from a profile, and then the guest's own features.
pub(super) fn follow(
    library: &Library,
    profile: &Said,
    features: &[Said],
    problems: &mut Problems,
) -> Lineage {
    let mut walk = Walk { library, lineage: Lineage::default(), open: Vec::new(), problems };
    walk.visit(Kind::Profile, profile);
    for feature in features {
        walk.visit(Kind::Feature, feature);
    }
    walk.lineage
}

struct Walk<'a> {
    library: &'a Library,
    lineage: Lineage,
    /// Those whose own parts are being visited.
    open: Vec<String>,
    problems: &'a mut Problems,
}

impl Walk<'_> {
    fn visit(&mut self, kind: Kind, said: &Said) {
        let name = match kind {
            Kind::Profile => said.text.clone(),
            Kind::Feature => format!("feature {}", said.text),
        };
        if let Some(at) = self.open.iter().position(|open| *open == name) {
            let circle: Vec<&str> =
                self.open[at..].iter().map(String::as_str).chain([name.as_str()]).collect();
            let message = format!("profiles are made of each other in a circle: {}", circle.join(" -> "));
            self.problems.add(&said.origin, message, "take one of these words away");
            return;
        }
        if self.lineage.names.contains(&name) {
            return;
        }
        let Some(source) = self.library.source(kind, said, self.problems) else { return };
        self.open.push(name.clone());
        if let Some(extends) = &source.extends {
            self.visit(kind, extends);
        }
        for feature in &source.features {
            self.visit(Kind::Feature, feature);
        }
        self.open.pop();
        self.lineage.names.push(name);
        self.lineage.sources.push(source);
    }
}
