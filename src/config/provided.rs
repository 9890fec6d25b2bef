//! Keys and certificates that the site has for its guests: files of the site directory, by the table `[keys]`.
//!
//! Only their digests are kept: what is printed of a site has no secret in it. Whoever writes them into a guest reads them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::directory;
use super::guest::Draft;
use super::origin::Origin;
use super::problem::Problems;

/// One file for a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Provided {
    /// What it is.
    pub kind: ProvidedKind,
    /// Where it is on this host.
    pub file: PathBuf,
    /// BLAKE3 of its content; `None` if whoever loads the site may not read it.
    pub blake3: Option<String>,
}

/// What a provided file is, and so where it goes in the guest and who may read it there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProvidedKind {
    /// The grid host certificate, PEM.
    HostCertificate,
    /// Its private key, PEM.
    HostKey,
    /// The key that all machines of a cluster share with munged(8).
    Munge,
    /// Keys of Kerberos principals of this machine.
    Keytab,
    /// Anything else, for this path of the guest.
    File(PathBuf),
}

/// munged(8) takes no less and no more.
const MUNGE_BYTES: std::ops::RangeInclusive<usize> = 32..=1024;
/// The format that MIT Kerberos and Heimdal write, version 5.2 (MIT krb5, "Keytab file format").
const KEYTAB: [u8; 2] = [5, 2];

impl ProvidedKind {
    const SIMPLE: [(&'static str, Self); 4] = [
        ("host_certificate", Self::HostCertificate),
        ("host_key", Self::HostKey),
        ("munge", Self::Munge),
        ("keytab", Self::Keytab),
    ];

    /// Whether others than its owner must not read it, here as there.
    pub fn is_secret(&self) -> bool {
        *self != Self::HostCertificate
    }

    /// What is wrong with a content.
    fn wrong(&self, content: &[u8]) -> Option<String> {
        let has = |label: &str| memchr::memmem::find(content, format!("{label}-----").as_bytes()).is_some();
        match self {
            Self::HostCertificate if !has("CERTIFICATE") => {
                Some("has no certificate in PEM form in it".to_owned())
            }
            Self::HostCertificate if has("PRIVATE KEY") => {
                Some("has a private key in it, which everybody in the guest could read".to_owned())
            }
            Self::HostKey if has("ENCRYPTED PRIVATE KEY") || has("ENCRYPTED") => {
                Some("is encrypted, and no service could open it".to_owned())
            }
            Self::HostKey if !has("PRIVATE KEY") => Some("has no private key in PEM form in it".to_owned()),
            Self::Munge if !MUNGE_BYTES.contains(&content.len()) => Some(format!(
                "has {} bytes, and munge takes {} to {}",
                content.len(),
                MUNGE_BYTES.start(),
                MUNGE_BYTES.end()
            )),
            Self::Keytab if !content.starts_with(&KEYTAB) => Some("is no keytab".to_owned()),
            _ => None,
        }
    }
}

/// What the site has for a guest; what is wrong with it is told where it is named.
pub(super) fn read(draft: &Draft<'_>, dir: &Path, problems: &mut Problems) -> Vec<Provided> {
    let layers = draft.layers.inner("keys");
    let mut provided: Vec<Provided> = Vec::new();
    for (key, kind) in ProvidedKind::SIMPLE {
        let Some(value) = layers.pick(key).map(|entry| &entry.value) else { continue };
        let Some(path) = value.text().filter(|path| file_name(path).is_ok()) else { continue };
        provided.extend(one(draft, dir, kind, path, &value.origin, problems));
    }
    for (text, origin) in layers.pick("files").map(|entry| entry.value.texts()).unwrap_or_default() {
        let Ok((to, path)) = split(text) else { continue };
        if provided.iter().any(|other| other.kind == ProvidedKind::File(to.clone())) {
            let message = format!("two files for '{}' of guest '{}'", to.display(), draft.name);
            problems.add(origin, message, "take one away");
            continue;
        }
        provided.extend(one(draft, dir, ProvidedKind::File(to), path, origin, problems));
    }
    provided
}

fn one(
    draft: &Draft<'_>,
    dir: &Path,
    kind: ProvidedKind,
    path: &str,
    said: &Origin,
    problems: &mut Problems,
) -> Option<Provided> {
    let file = dir.join(path.replace("{name}", draft.name.as_str()).replace("{fqdn}", &draft.fqdn));
    let shown = file.display().to_string();
    let meta = match std::fs::metadata(&file) {
        Ok(meta) => meta,
        Err(error) => {
            let message = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    format!("there is no file '{shown}' for guest '{}'", draft.name)
                }
                _ => format!("looking at '{shown}': {error}"),
            };
            problems.add(
                said,
                message,
                "the path starts at the site directory; {name} and {fqdn} stand for the guest's",
            );
            return None;
        }
    };
    if kind.is_secret() && others_may_read(&meta) {
        let message = format!("'{shown}' is a secret that others on this host may read");
        problems.add(said, message, format!("chmod 600 {shown}"));
    }
    let content = match directory::read_bounded(&file) {
        Ok(Ok(content)) => content,
        Ok(Err(message)) => {
            problems.add(said, format!("'{shown}': {message}"), "");
            return None;
        }
        // Anybody may check a site; only root may personalise a guest, and meets the error then.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Some(Provided { kind, file, blake3: None });
        }
        Err(error) => {
            problems.add(said, format!("reading '{shown}': {error}"), "");
            return None;
        }
    };
    if let Some(why) = kind.wrong(&content) {
        problems.add(said, format!("'{shown}' {why}"), "");
        return None;
    }
    let blake3 = Some(blake3::hash(&content).to_hex().to_string());
    Some(Provided { kind, file, blake3 })
}

fn others_may_read(meta: &Metadata) -> bool {
    meta.mode() & 0o077 != 0
}

/// Checks the name of a file of the site.
pub(super) fn file_name(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    let rest = text.replace("{name}", "").replace("{fqdn}", "");
    if rest.contains(['{', '}']) {
        return Err("has braces around something else than name or fqdn".to_owned());
    }
    if text.chars().any(|c| c.is_control()) { Err("has a control character".to_owned()) } else { Ok(()) }
}

/// Checks `PATH FILE`.
pub(super) fn placed_file(text: &str) -> Result<(), String> {
    split(text).map(drop)
}

/// Where in the guest, and which file of the site.
fn split(text: &str) -> Result<(PathBuf, &str), String> {
    let Some((to, file)) = text.trim().split_once(char::is_whitespace) else {
        return Err("is not a path in the guest and a file of the site".to_owned());
    };
    let file = file.trim();
    file_name(file)?;
    let to = Path::new(to);
    let is_plain = to.components().skip(1).all(|part| matches!(part, std::path::Component::Normal(_)));
    if !to.is_absolute() || !is_plain || to.parent().is_none() {
        return Err(format!(
            "does not begin with the whole path of a file in the guest, as '{}' is not",
            to.display()
        ));
    }
    Ok((to.to_owned(), file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_certificate_with_a_private_key_in_it_is_refused() {
        let both = b"-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n";
        let wrong = |kind: ProvidedKind, content: &[u8]| kind.wrong(content);
        assert!(wrong(ProvidedKind::HostCertificate, both).unwrap().contains("private key"));
        assert_eq!(wrong(ProvidedKind::HostCertificate, b"-----BEGIN CERTIFICATE-----\n"), None);
        assert_eq!(wrong(ProvidedKind::HostKey, b"-----BEGIN RSA PRIVATE KEY-----\n"), None);
        assert!(wrong(ProvidedKind::HostKey, b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n").is_some());
        assert!(wrong(ProvidedKind::Munge, &[7; 31]).is_some());
        assert_eq!(wrong(ProvidedKind::Munge, &[7; 32]), None);
        assert!(wrong(ProvidedKind::Keytab, b"\x05\x01").is_some());
    }

    #[test]
    fn a_file_goes_to_a_whole_path_alone() {
        assert_eq!(split("/etc/a/b  keys/{name} x").unwrap(), (PathBuf::from("/etc/a/b"), "keys/{name} x"));
        for bad in ["/etc/x", "etc/x keys/y", "/etc/../x keys/y", "/ keys/y", "/etc/x keys/{nam}"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            let _ = split(&text);
        }
    }
}
