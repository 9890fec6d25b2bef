//! State that belongs to one identity, as a guest's profile lists it.

use super::document::Document;

/// A path of a class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScrubPath {
    /// The class, such as `munge` or `batch-system`.
    pub class: String,
    /// An absolute path inside the guest, or a shell pattern of paths: `*` and `?` stand for anything within one name.
    pub pattern: String,
}

/// All that a profile says belongs to one identity, sorted by class and path.
pub fn scrub_paths(document: &Document) -> Vec<ScrubPath> {
    let of = |scrub: &super::document::Scrub| {
        let class = scrub.class.clone();
        scrub.paths.clone().into_iter().map(move |pattern| ScrubPath { class: class.clone(), pattern })
    };
    document.scrub.iter().flat_map(of).collect()
}
