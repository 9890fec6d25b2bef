//! Sites as tests describe them: a few files in a directory of their own.
#![allow(dead_code, reason = "each test file uses the part that it needs")]
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::fs;
use std::path::Path;

use gridgate::config::problem::Problems;
use gridgate::config::site::Site;
use gridgate::config::{LoadOptions, Loaded, load};
use tempfile::TempDir;

/// A directory with these files, by their paths below it.
pub fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

/// With values as the command line gives them.
pub fn options(set: &[&str]) -> LoadOptions {
    LoadOptions { set: set.iter().map(|s| (*s).to_owned()).collect(), ..LoadOptions::default() }
}

/// The site of these files, and where its values come from.
pub fn loaded_with(files: &[(&str, &str)], options: &LoadOptions) -> Loaded {
    let dir = directory(files);
    load(dir.path(), options).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The site of these files, wherever they are.
pub fn loaded(files: &[(&str, &str)]) -> Site {
    Site { dir: "".into(), ..loaded_with(files, &LoadOptions::default()).site }
}

/// `path:line:column: message` of all problems, paths below the site's directory.
pub fn told_with(files: &[(&str, &str)], options: &LoadOptions) -> Vec<String> {
    let dir = directory(files);
    let problems = load(dir.path(), options).expect_err("this site has problems");
    shown(&problems, dir.path())
}

/// The same of a site that is loaded as it is.
pub fn told(files: &[(&str, &str)]) -> Vec<String> {
    told_with(files, &LoadOptions::default())
}

/// `path:line:column: message` of each.
pub fn shown(problems: &Problems, dir: &Path) -> Vec<String> {
    let prefix = format!("{}/", dir.display());
    problems.iter().map(|p| format!("{}: {}", p.origin, p.message).replace(&prefix, "")).collect()
}
