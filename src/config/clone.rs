//! A new guest's file, made of another guest's file or of an image, and its place in the site's list. Only reads.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::directory::{self, Found};
use super::edit::{self, Change};
use super::keys::{self, Key};
use super::origin::Text;
use super::problem::Problems;
use crate::names::{GuestName, ImageName};

/// What the new guest is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// A guest of the site.
    Guest(GuestName),
    /// A golden image.
    Image(ImageName),
}

/// A file of the site with its new content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Below the site directory.
    pub path: PathBuf,
    /// All of it.
    pub content: String,
    /// It is not there yet.
    pub new: bool,
}

/// Keys that are one guest's own: another with the same would be taken for it.
const OWN: [&str; 4] = ["hostname", "address", "mac", "count"];

/// The files that make `to` a guest of the site, the new one first. `set` are `KEY=VALUE` words for its file; what only one
/// guest can have, such as an address, it has from there or gets one derived.
pub fn files(dir: &Path, from: &From, to: &GuestName, set: &[String]) -> Result<Vec<File>> {
    let mut changes = set.iter().map(|word| Change::read(word)).collect::<Result<Vec<_>>>()?;
    if changes.iter().any(|change| change.key().name == "count") {
        bail!("a clone is one guest, without a count");
    }
    let own: Vec<&'static Key> = OWN.iter().filter_map(|name| keys::find(keys::GUEST, name)).collect();
    for key in own {
        if changes.iter().all(|change| change.key().name != key.name) {
            changes.push(Change::Remove(key));
        }
    }
    let site = read(dir, "site")?.with_context(|| format!("there is no site in '{}'", dir.display()))?;
    let (old, behind) = match from {
        From::Guest(guest) => file_of(dir, guest)?,
        From::Image(image) => {
            // In the form that the site is written in.
            let form = if site.file().ends_with(".conf") { "conf" } else { "toml" };
            changes.insert(0, Change::read(&format!("image={image}"))?);
            let name = dir.join(format!("guests/{to}.{form}"));
            let content = format!("# Made of the image {image}.\n");
            (Text::new(name.display().to_string().into(), content), String::new())
        }
    };
    let form = if old.file().ends_with(".conf") { "conf" } else { "toml" };
    let path = PathBuf::from(format!("guests/{to}.{form}"));
    let mut files = vec![File { path, content: edit::guest(&old, &changes)?, new: true }];
    if let Some(content) = edit::list(&site, to.as_str(), &behind)? {
        let name = Path::new(&**site.file()).file_name().map(PathBuf::from);
        files.push(File { path: name.context("the site file has no name")?, content, new: false });
    }
    Ok(files)
}

/// A guest's file and its name without the ending; for one of several that are counted, the file of all.
fn file_of(dir: &Path, guest: &GuestName) -> Result<(Text, String)> {
    let guests = dir.join("guests");
    let name = guest.as_str();
    for stem in [name, name.trim_end_matches(|c: char| c.is_ascii_digit())] {
        if let Some(text) = read(&guests, stem)? {
            return Ok((text, stem.to_owned()));
        }
    }
    bail!("guest '{guest}' has no file in '{}'", guests.display())
}

fn read(dir: &Path, stem: &str) -> Result<Option<Text>> {
    let mut problems = Problems::default();
    match directory::find(dir, stem, &mut problems) {
        Found::File(_, Some(text)) if problems.is_empty() => Ok(Some(text)),
        Found::Nothing if problems.is_empty() => Ok(None),
        _ => bail!("{problems}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::example::{self, Format};
    use crate::config::{LoadOptions, load};

    fn example(format: Format) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("guests")).unwrap();
        for (path, content) in example::files(format) {
            std::fs::write(dir.path().join(path), content).unwrap();
        }
        dir
    }

    fn name(text: &str) -> GuestName {
        text.parse().unwrap()
    }

    #[test]
    fn a_clone_of_a_guest_is_a_guest_of_its_own_in_both_forms() {
        for (format, form) in [(Format::Toml, "toml"), (Format::Shell, "conf")] {
            let dir = example(format);
            let set = ["role=wn".to_owned(), "memory=512M".to_owned()];
            let files = files(dir.path(), &From::Guest(name("ui")), &name("wn2"), &set).unwrap();
            let paths: Vec<String> = files.iter().map(|file| file.path.display().to_string()).collect();
            assert_eq!(paths, [format!("guests/wn2.{form}"), format!("site.{form}")]);
            assert!(files[0].content.starts_with("# The user interface: where people log in"));
            for file in &files {
                std::fs::write(dir.path().join(&file.path), &file.content).unwrap();
            }
            let site = load(dir.path(), &LoadOptions::default()).unwrap().site;
            let names: Vec<&str> = site.guests.iter().map(|guest| guest.name.as_str()).collect();
            assert_eq!(names, ["ce", "se", "ui", "wn2", "wn"]);
            let (ui, clone) = (site.guest(&name("ui")).unwrap(), site.guest(&name("wn2")).unwrap());
            assert_eq!((clone.role.as_str(), clone.memory_bytes.0), ("wn", 512 << 20));
            assert_eq!(clone.description, ui.description);
            assert!(clone.address != ui.address && clone.mac != ui.mac && clone.fqdn != ui.fqdn);
        }
    }

    #[test]
    fn a_clone_of_a_counted_guest_is_one_and_of_an_image_has_a_file_of_its_own() {
        let dir = example(Format::Toml);
        let wn = dir.path().join("guests/wn.toml");
        let text = std::fs::read_to_string(&wn).unwrap().replace("# count = 4", "count = 4");
        std::fs::write(&wn, text).unwrap();
        let one = files(dir.path(), &From::Guest(name("wn2")), &name("spare"), &[]).unwrap();
        assert!(!one[0].content.contains("\ncount"), "{}", one[0].content);
        assert!(one[1].content.contains("\"wn\", \"spare\"]"));
        let image = From::Image("debian-13".parse().unwrap());
        let set = ["role=ui".to_owned(), "address=10.77.0.99".to_owned()];
        let made = files(dir.path(), &image, &name("ui2"), &set).unwrap();
        let expected = "# Made of the image debian-13.\nimage = \"debian-13\"\nrole = \"ui\"\naddress = \"10.77.0.99\"\n";
        assert_eq!(made[0].content, expected);
    }

    #[test]
    fn a_guest_without_a_file_or_a_count_is_refused() {
        let dir = example(Format::Toml);
        let refused = |from: &str, set: &str| {
            let set = [set.to_owned()];
            format!("{:#}", files(dir.path(), &From::Guest(name(from)), &name("x"), &set).unwrap_err())
        };
        assert!(refused("nosuch", "role=wn").starts_with("guest 'nosuch' has no file in "));
        assert_eq!(refused("wn", "count=2"), "a clone is one guest, without a count");
    }
}
