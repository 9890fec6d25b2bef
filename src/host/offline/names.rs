//! Paths of a filesystem that is not mounted, resolved as the guest would.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};

/// As many links as the kernel follows before it gives up (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// What stands at a path without links on the way.
pub(super) enum Stands {
    /// A link and where it points.
    Link(PathBuf),
    /// Something else.
    Thing,
    /// Nothing.
    Nothing,
}

/// The path without links on the way, from the filesystem's root; its last component is not followed unless asked for. A
/// part that is not there is taken as it is. `stands` is asked for paths that are resolved already.
pub(super) fn resolve(
    path: &Path,
    follow_last: bool,
    stands: &dyn Fn(&Path) -> Result<Stands>,
) -> Result<PathBuf> {
    let mut links = 0;
    let mut done = PathBuf::from("/");
    let mut left: Vec<Vec<u8>> = parts(path);
    left.reverse();
    while let Some(part) = left.pop() {
        if part == b".." {
            done.pop();
            continue;
        }
        let at = done.join(OsStr::from_bytes(&part));
        if left.is_empty() && !follow_last {
            return Ok(at);
        }
        match stands(&at)? {
            Stands::Link(target) => {
                links += 1;
                if links > MOST_LINKS {
                    bail!("resolving '{}': too many links", path.display());
                }
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                left.extend(parts(&target).into_iter().rev());
            }
            Stands::Thing | Stands::Nothing => done = at,
        }
    }
    Ok(done)
}

fn parts(path: &Path) -> Vec<Vec<u8>> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.as_bytes().to_vec()),
        Component::ParentDir => Some(b"..".to_vec()),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn resolved(links: &[(&str, &str)], path: &str) -> Option<String> {
        let links: BTreeMap<PathBuf, PathBuf> =
            links.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        let stands =
            |at: &Path| Ok(links.get(at).map_or(Stands::Thing, |target| Stands::Link(target.clone())));
        resolve(Path::new(path), true, &stands).ok().map(|path| path.display().to_string())
    }

    #[test]
    fn links_lead_nowhere_but_into_the_filesystem() {
        let links = [("/etc", "../../usr/etc"), ("/usr/etc/hosts", "/../run/hosts")];
        assert_eq!(resolved(&links, "/etc/hosts").as_deref(), Some("/run/hosts"));
        assert_eq!(resolved(&[], "/../../a/./b").as_deref(), Some("/a/b"));
    }

    #[test]
    fn a_link_to_itself_is_an_error_and_not_a_loop() {
        assert_eq!(resolved(&[("/a", "a")], "/a"), None);
        assert_eq!(resolved(&[("/a", "b"), ("/b", "a/x")], "/a"), None);
    }

    proptest! {
        #[test]
        fn any_path_is_resolved_to_one_that_goes_down_only(path in "[./a]{0,20}", target in "[./a]{1,10}") {
            if let Some(found) = resolved(&[("/a/a", target.as_str())], &path) {
                prop_assert!(found.starts_with('/') && !found.split('/').any(|part| part == ".."));
            }
        }
    }
}
