//! Where packages come from: the building host's own Debian archives, asked for another release.
//!
//! Both forms of sources.list(5) are read. Only entries of the Debian archive itself are taken: other archives have
//! other suites, and an image is built from what its definition says, not from what the host happens to use besides.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Result, bail};

use crate::host::files::Files;

/// One archive with its suites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Base addresses.
    pub uris: Vec<String>,
    /// Suites such as `bookworm-updates`.
    pub suites: Vec<String>,
    /// Components such as `main`.
    pub components: Vec<String>,
    /// Keyring, or a key itself.
    pub signed_by: Option<String>,
}

/// The host's Debian archives as sources of `release`, in the deb822 form that mmdebstrap takes.
pub fn for_release(files: &dyn Files, apt: &Path, release: &str) -> Result<String> {
    let mut found = Vec::new();
    let dir = apt.join("sources.list.d");
    let mut paths = vec![apt.join("sources.list")];
    paths.extend(files.list(&dir)?.into_iter().map(|name| dir.join(name)));
    for path in paths {
        let Some(bytes) = files.read(&path)? else { continue };
        let text = String::from_utf8_lossy(&bytes);
        match path.extension().and_then(|e| e.to_str()) {
            Some("sources") => found.extend(parse_deb822(&text)),
            Some("list") => found.extend(parse_lines(&text)),
            _ => {}
        }
    }
    let wanted = rewrite(&found, release);
    if wanted.is_empty() {
        bail!(
            "no entry of the Debian archive in '{}'; hint: give the image's definition a 'mirror' under [debian]",
            apt.display()
        );
    }
    Ok(print(&wanted))
}

/// One archive at a base address given by hand.
pub fn mirror(uri: &str, release: &str) -> String {
    let source = Source {
        uris: vec![uri.to_owned()],
        suites: vec![release.to_owned()],
        components: vec!["main".to_owned()],
        signed_by: None,
    };
    print(&[source])
}

/// Stanzas of `Field: value`, continued on lines that start with white space; disabled ones and sources of source code
/// are left out.
pub fn parse_deb822(text: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            found.extend(stanza(&std::mem::take(&mut fields)));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((key, value)) = line.split_once(':') {
            fields.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    found
}

fn stanza(fields: &[(String, String)]) -> Option<Source> {
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let words = |name: &str| -> Vec<String> {
        field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let off =
        field("enabled").is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "no" | "false" | "0"));
    if off || !words("types").iter().any(|t| t == "deb") {
        return None;
    }
    Some(Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by").map(str::to_owned),
    })
}

/// Lines of `deb [option=value ...] URI SUITE COMPONENT...`.
pub fn parse_lines(text: &str) -> Vec<Source> {
    text.lines().filter_map(one_line).collect()
}

fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t']))?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let uri = words.next()?;
    let suite = words.next()?;
    let signed_by = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by=")).map(str::to_owned);
    Some(Source { uris: vec![uri], suites: vec![suite], components: words.collect(), signed_by })
}

/// What is behind a release's name for its updates; a release that is never frozen has none of them.
const POCKETS: [&str; 3] = ["-updates", "-security", ""];

/// The Debian archive's entries with their release replaced.
pub fn rewrite(sources: &[Source], release: &str) -> Vec<Source> {
    let rolling = matches!(release, "sid" | "unstable" | "testing" | "experimental");
    let mut wanted: Vec<Source> = Vec::new();
    for source in sources.iter().filter(|s| is_debian(s)) {
        let mut suites = Vec::new();
        for suite in &source.suites {
            let pocket = POCKETS.iter().find(|pocket| suite.ends_with(**pocket)).copied().unwrap_or_default();
            let base = &suite[..suite.len() - pocket.len()];
            // Backports and proposed updates are opted into package by package, never wholesale.
            let plain = base.bytes().all(|b| b.is_ascii_lowercase());
            let new = format!("{release}{pocket}");
            if plain && (!rolling || pocket.is_empty()) && !suites.contains(&new) {
                suites.push(new);
            }
        }
        let components: Vec<String> = source.components.iter().filter(|c| *c == "main").cloned().collect();
        let new = Source { suites, components, ..source.clone() };
        if !new.suites.is_empty() && !wanted.contains(&new) {
            wanted.push(new);
        }
    }
    wanted
}

/// Signed with Debian's own keyring; or, where no key is named, kept under a directory that the archive's mirrors use.
fn is_debian(source: &Source) -> bool {
    let place = |uri: &String| uri.split('/').any(|part| matches!(part, "debian" | "debian-security"));
    let by_key = source.signed_by.as_ref().map(|key| key.contains("debian-archive"));
    source.components.iter().any(|c| c == "main") && by_key.unwrap_or_else(|| source.uris.iter().any(place))
}

/// In the deb822 form.
pub fn print(sources: &[Source]) -> String {
    let mut text = String::new();
    for Source { uris, suites, components, signed_by } in sources {
        if !text.is_empty() {
            text.push('\n');
        }
        let (uris, suites, components) = (uris.join(" "), suites.join(" "), components.join(" "));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "Types: deb\nURIs: {uris}\nSuites: {suites}\nComponents: {components}");
        if let Some(key) = signed_by {
            let _ = writeln!(text, "Signed-By: {key}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEB822: &str = "\
Types: deb deb-src
# the base
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites:
 bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://other.example/node
Suites: nodistro
Components: main
Signed-By: /usr/share/keyrings/other.gpg

Enabled: no
Types: deb
URIs: http://mirror.example/debian
Suites: sid
Components: main
";

    const LINES: &str = "\
# deb cdrom:[Debian]/ bookworm main
deb http://mirror.example/debian/ bookworm main non-free-firmware # the base
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] file:/srv/snap/2025 bookworm-updates main
deb-src http://mirror.example/debian/ bookworm main
deb [signed-by=/usr/share/keyrings/vendor.asc] https://apt.vendor.example/debian bookworm main
deb http://apt.vendor.example/debian bookworm stable
";

    #[test]
    fn stanzas_of_the_archive_are_asked_for_another_release() {
        let text = print(&rewrite(&parse_deb822(DEB822), "trixie"));
        assert_eq!(
            text,
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie trixie-updates\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
             Types: deb\nURIs: http://mirror.example/debian-security\nSuites: trixie-security\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        );
    }

    #[test]
    fn lines_of_other_archives_are_left_out() {
        let found = rewrite(&parse_lines(LINES), "bookworm");
        let uris: Vec<&str> = found.iter().map(|s| s.uris[0].as_str()).collect();
        assert_eq!(uris, ["http://mirror.example/debian/", "file:/srv/snap/2025"]);
        assert_eq!(found[1].suites, ["bookworm-updates"]);
        assert_eq!(found[0].components, ["main"]);
    }

    #[test]
    fn a_release_that_is_never_frozen_has_neither_updates_nor_security() {
        let found = rewrite(&parse_deb822(DEB822), "unstable");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].suites, ["unstable"]);
    }

    #[test]
    fn a_host_without_debian_is_told_what_to_do() {
        let apt = tempfile::tempdir().unwrap();
        std::fs::write(apt.path().join("sources.list"), "deb http://x.example/ubuntu noble main\n").unwrap();
        let error = for_release(&crate::host::Live, apt.path(), "bookworm").unwrap_err().to_string();
        assert!(error.contains("hint: give the image's definition a 'mirror'"), "{error}");
    }

    #[test]
    fn both_forms_are_read_from_their_files() {
        let apt = tempfile::tempdir().unwrap();
        std::fs::create_dir(apt.path().join("sources.list.d")).unwrap();
        std::fs::write(apt.path().join("sources.list"), LINES).unwrap();
        std::fs::write(apt.path().join("sources.list.d/debian.sources"), DEB822).unwrap();
        std::fs::write(apt.path().join("sources.list.d/debian.sources.bak"), DEB822).unwrap();
        let text = for_release(&crate::host::Live, apt.path(), "bookworm").unwrap();
        assert_eq!(parse_deb822(&text).len(), 4);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(suites in proptest::collection::vec("[a-z]{1,8}(-updates)?", 1..4)) {
            let source = Source {
                uris: vec!["http://mirror.example/debian".to_owned()],
                suites,
                components: vec!["main".to_owned()],
                signed_by: Some("/k/debian-archive-keyring.gpg".to_owned()),
            };
            prop_assert_eq!(parse_deb822(&print(std::slice::from_ref(&source))), vec![source]);
        }

        #[test]
        fn any_text_is_read_without_a_crash(text in "(?s)[\\PC\n]{0,200}") {
            rewrite(&parse_deb822(&text), "bookworm");
            rewrite(&parse_lines(&text), "bookworm");
        }
    }
}
