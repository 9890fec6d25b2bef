//! The files of a site directory, read as data: bounded, UTF-8, never a device or a pipe.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::origin::{Origin, Text};
use super::problem::Problems;

/// Far above any configuration that a person writes.
pub const LARGEST_FILE: u64 = 1 << 20;

const FORMS: &[&str] = &["toml", "conf"];

/// What was found under a name.
#[derive(Debug)]
pub enum Found {
    /// The one file, and its text unless that cannot be used (which has been told).
    File(Arc<str>, Option<Text>),
    /// No file, neither as TOML nor as shell variables.
    Nothing,
}

/// Looks for `STEM.toml` and `STEM.conf`; both at once is a problem.
pub fn find(dir: &Path, stem: &str, problems: &mut Problems) -> Found {
    let paths = FORMS.iter().map(|form| dir.join(format!("{stem}.{form}")));
    let present: Vec<PathBuf> = paths.filter(|path| path.symlink_metadata().is_ok()).collect();
    let Some(path) = present.first() else { return Found::Nothing };
    if let Some(second) = present.get(1) {
        let message = format!("there is '{}' for the same thing", path.display());
        problems.add(&Origin::start(&name(second)), message, "keep one of the two files");
    }
    Found::File(name(path), read(path, problems))
}

/// Reads a file; whatever keeps it from being used is told.
pub fn read(path: &Path, problems: &mut Problems) -> Option<Text> {
    let start = Origin::start(&name(path));
    let content = match read_bounded(path) {
        Ok(Ok(content)) => content,
        Ok(Err(message)) => {
            problems.add(&start, message, "");
            return None;
        }
        Err(error) => {
            problems.add(&start, format!("reading it: {error}"), "");
            return None;
        }
    };
    match String::from_utf8(content) {
        Ok(content) => Some(Text::new(name(path), content)),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
            let origin = Text::new(name(path), before).origin(good);
            problems.add(&origin, "this is not UTF-8 text", "convert it with iconv -t UTF-8");
            None
        }
    }
}

/// The content of a file, or why it is none to be read.
pub fn read_bounded(path: &Path) -> std::io::Result<Result<Vec<u8>, String>> {
    // A pipe without a writer would block the open for ever.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(Err("this is not a plain file".to_owned()));
    }
    let mut content = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST_FILE {
        return Ok(Err("this file is larger than 1 MiB, which no configuration is".to_owned()));
    }
    Ok(Ok(content))
}

/// Names of the configuration files in a directory, without their endings, sorted; none if there is no directory.
pub fn stems(dir: &Path, problems: &mut Problems) -> Vec<String> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            problems.add(&Origin::note(dir.display().to_string()), format!("listing it: {error}"), "");
            return Vec::new();
        }
    };
    let mut stems: Vec<String> = entries.flatten().filter_map(|entry| stem(&entry.path())).collect();
    stems.sort();
    stems.dedup();
    stems
}

fn stem(path: &Path) -> Option<String> {
    let form = path.extension()?.to_str()?;
    let stem = path.file_stem()?.to_str()?;
    (FORMS.contains(&form) && !stem.starts_with('.')).then(|| stem.to_owned())
}

/// Names of the TOML files in a directory; what keeps it from being listed shows when a name is missed.
pub fn definitions(dir: &Path) -> Vec<String> {
    let is_toml = |path: &PathBuf| path.extension().is_some_and(|form| form == "toml");
    entries(dir).filter(is_toml).filter_map(|path| stem(&path)).collect()
}

/// Names of the directories in a directory, but not hidden ones.
pub fn subdirectories(dir: &Path) -> Vec<String> {
    let name = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    entries(dir).filter(|path| path.is_dir()).filter_map(name).filter(|name| !name.starts_with('.')).collect()
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// A file's name as messages have it.
pub fn name(path: &Path) -> Arc<str> {
    path.display().to_string().into()
}
