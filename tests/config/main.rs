//! Site directories as people write them, right and wrong.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

#[path = "../support/described.rs"]
mod described;
mod interfaces;
mod keys;
mod limits;
mod problems;
mod random;
mod sites;

/// A site with one network, as it may stand at the start of `site.toml`.
const SITE: &str = "name = \"s\"\ndomain = \"s.test\"\n\
                    [networks.lan]\nmode = \"nat\"\nsubnet = \"10.1.0.0/24\"\n";
