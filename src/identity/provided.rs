//! Keys and certificates that the site has for a machine, written where its services look for them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::config::provided::{Provided, ProvidedKind};
use crate::config::site::Guest;
use crate::host::files::Files;
use crate::host::root::{Change, FileMode};
use crate::host::tree::Tree;
use crate::identity::audit::pem;
use crate::identity::edit::Edit;
use crate::identity::found::text;
use crate::identity::network::Note;
use crate::identity::personalise::Personalisation;
use crate::identity::wanted::Identity;

/// One of them, read.
#[derive(Clone, PartialEq, Eq)]
pub struct ProvidedFile {
    /// What it is.
    pub kind: ProvidedKind,
    /// Where it came from, for messages.
    pub file: PathBuf,
    /// All that is in it.
    pub content: Vec<u8>,
}

impl std::fmt::Debug for ProvidedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} from {} ({} bytes)", self.kind, self.file.display(), self.content.len())
    }
}

/// Reads what the site has for the guest.
pub fn read(host: &dyn Files, guest: &Guest) -> Result<Vec<ProvidedFile>> {
    let one = |provided: &Provided| {
        let (kind, file) = (provided.kind.clone(), provided.file.clone());
        let content = host.read(&file)?;
        let content =
            content.with_context(|| format!("'{}' for guest '{}' is gone", file.display(), guest.name))?;
        Ok(ProvidedFile { kind, file, content })
    };
    guest.provided.iter().map(one).collect()
}

/// Who owns a file in the guest.
enum Owner {
    Root,
    /// This user of the guest's own and its first group.
    User(&'static str),
    /// Whoever owned the file before, with the mode that it had.
    AsBefore,
}

/// What is to be done about all of them.
#[derive(Debug, Default)]
pub struct Rendered {
    /// The files.
    pub edits: Vec<Edit>,
    /// What is wrong with the files themselves.
    pub notes: Vec<Note>,
    /// Files whose users are not there.
    pub ownerless: Vec<Note>,
}

/// Files for the machine that the tree is to be.
pub fn render(identity: &Identity, tree: &dyn Tree) -> Result<Rendered> {
    let mut rendered = Rendered::default();
    for provided in &identity.provided {
        // Modes as the services insist on them: Globus refuses a host key that is more open, munged(8) one that is not its own.
        let (path, mode, owner) = match &provided.kind {
            ProvidedKind::HostCertificate => {
                (Path::new("/etc/grid-security/hostcert.pem"), 0o644, Owner::Root)
            }
            ProvidedKind::HostKey => (Path::new("/etc/grid-security/hostkey.pem"), 0o400, Owner::Root),
            ProvidedKind::Munge => (Path::new("/etc/munge/munge.key"), 0o400, Owner::User("munge")),
            ProvidedKind::Keytab => (Path::new("/etc/krb5.keytab"), 0o600, Owner::Root),
            ProvidedKind::File(path) => (path.as_path(), 0o600, Owner::AsBefore),
        };
        if provided.kind == ProvidedKind::HostCertificate && !names(&provided.content, identity) {
            let (file, fqdn) = (provided.file.display(), &identity.fqdn);
            rendered.notes.push(Note(format!("the certificate in '{file}' does not name '{fqdn}'")));
        }
        let (mode, owner) = match owner {
            Owner::AsBefore => (FileMode::KeepOr(mode), None),
            Owner::Root => (FileMode::Exactly(mode), Some((0, 0))),
            Owner::User(user) => {
                let found = account(tree, user)?;
                if found.is_none() {
                    let text =
                        format!("'{}' belongs to root, as the guest has no user '{user}'", path.display());
                    rendered.ownerless.push(Note(text));
                }
                (FileMode::Exactly(mode), found.or(Some((0, 0))))
            }
        };
        let (path, content) = (path.to_owned(), provided.content.clone());
        rendered.edits.push(Edit::Write { path, content, mode, owner, secret: provided.kind.is_secret() });
    }
    Ok(rendered)
}

/// Hands the files to their users once more, when all else is done: a profile may have made the users only now.
pub fn hand_over(identity: &Identity, tree: &dyn Tree, done: &mut Personalisation) -> Result<()> {
    let rendered = render(identity, tree)?;
    for edit in &rendered.edits {
        if edit.apply(tree)? == Change::Changed && !done.changed.iter().any(|path| path == edit.path()) {
            done.changed.push(edit.path().to_owned());
        }
    }
    done.notes.extend(rendered.ownerless);
    Ok(())
}

/// Whether a certificate is for that machine: its name, or a wildcard for its domain, stands in it (RFC 5280 has names as plain
/// text in the subject and in the alternative names).
fn names(certificate: &[u8], identity: &Identity) -> bool {
    let wanted = [identity.fqdn.to_lowercase(), format!("*.{}", identity.domain.to_lowercase())];
    pem::blocks(certificate).iter().any(|der| {
        let der = der.to_ascii_lowercase();
        wanted.iter().any(|name| memchr::memmem::find(&der, name.as_bytes()).is_some())
    })
}

/// The numbers of a user and its first group (passwd(5)).
fn account(tree: &dyn Tree, user: &str) -> Result<Option<(u32, u32)>> {
    let passwd = text(tree, "/etc/passwd")?.unwrap_or_default();
    let ids = |line: &str| {
        let mut fields = line.split(':');
        (fields.next()? == user).then_some(())?;
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Ok(passwd.lines().find_map(ids))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Root;
    use crate::identity::edits::tests::identity;
    use crate::identity::personalise::{Plan, Scrubbing};
    use std::os::unix::fs::MetadataExt;

    fn with(kind: ProvidedKind, content: &[u8]) -> Identity {
        let file = ProvidedFile { kind, file: "keys/x".into(), content: content.to_vec() };
        Identity { provided: vec![file], ..identity(0) }
    }

    #[test]
    fn a_key_of_the_site_takes_the_old_ones_place_and_belongs_to_its_service() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: giving a file to another user takes root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/munge")).unwrap();
        std::fs::write(dir.path().join("etc/munge/munge.key"), "old").unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut identity = with(ProvidedKind::Munge, &[7; 64]);
        let mut personalise = |profile: &dyn Fn()| {
            let plan = Plan::make(&root, &mut identity, None, &Scrubbing::default()).unwrap();
            let mut done = plan.apply(&root).unwrap();
            profile();
            hand_over(&identity, &root, &mut done).unwrap();
            done
        };
        let of_munge =
            |done: &Personalisation| done.notes.iter().any(|note| note.0.contains("no user 'munge'"));
        assert!(of_munge(&personalise(&|| ())));
        let accounts = "root:x:0:0::/:\nmunge:x:113:114::/:\n";
        let profile = || std::fs::write(dir.path().join("etc/passwd"), accounts).unwrap();
        assert!(!of_munge(&personalise(&profile)));
        let key = dir.path().join("etc/munge/munge.key");
        let meta = std::fs::metadata(&key).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (113, 114, 0o400));
        assert_eq!(std::fs::read(&key).unwrap(), [7; 64]);
        assert_eq!(personalise(&|| ()).changed, Vec::<PathBuf>::new());
    }

    #[test]
    fn a_certificate_of_another_machine_is_told_of() {
        let root = Root::open(tempfile::tempdir().unwrap().path()).unwrap();
        let pem = |text: &str| {
            let base64 = text.bytes().collect::<Vec<u8>>();
            let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            let mut body = String::new();
            for three in base64.chunks(3) {
                let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
                    << (8 * (3 - three.len()));
                (0..=three.len())
                    .for_each(|at| body.push(letters[(bits >> (18 - 6 * at) & 63) as usize].into()));
            }
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        let notes = |name: &str| {
            render(&with(ProvidedKind::HostCertificate, pem(name).as_bytes()), &root).unwrap().notes
        };
        assert_eq!(notes("CN=ce.example.org"), []);
        assert_eq!(notes("DNS:*.EXAMPLE.org"), []);
        assert_eq!(notes("CN=se.example.org").len(), 1);
    }

    #[test]
    fn no_key_is_shown_when_it_is_printed_for_debugging() {
        let shown = format!("{:?}", with(ProvidedKind::HostKey, b"-----BEGIN PRIVATE KEY-----").provided);
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }
}
