//! Signatures in an archive: over the exact bytes of its manifest, which has digests of all else.
//!
//! By hand: `tar xf FILE .gridgate/manifest.jsonl .gridgate/signatures`, and `ssh-keygen -Y verify -n gridgate-image ...` (a
//! bundle: `gridgate-bundle`).

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};

use super::frames::{Section, replace};
use super::limits::Limits;
use super::reader::{Reader, SIGNATURES};
use super::writer;
use crate::host::Host;
use crate::host::temporary::Maker;
use crate::signature;

/// Adds a signature to those that the archive has. It is written anew beside itself and replaced by one rename; its frames are
/// copied as they are. Signed by that key already, it stays as it is, and this gives `false`.
pub fn sign(host: &dyn Host, file: &Path, key: &Path) -> Result<bool> {
    let work = || -> Result<bool> {
        let open = || -> Result<Box<File>> { Ok(Box::new(File::open(file)?)) };
        let reader = Reader::open(open()?, Limits::default())?;
        let new = signature::sign(host, &reader.manifest_bytes, key, reader.manifest.purpose())?;
        let old = reader.signatures.unwrap_or_default();
        if String::from_utf8_lossy(&old).contains(&new) {
            return Ok(false);
        }
        let all = [&old[..], new.as_bytes()].concat();
        signature::parse(&all).context("the archive's own signatures")?;
        let content = writer::part(SIGNATURES, &all);

        let name = file.file_name().context("it has no name")?.to_string_lossy().into_owned();
        let beside = match file.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        for left in host.abandoned(beside)? {
            let of = left.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if Maker::of(&of).is_some_and(|(what, _)| what == name) {
                host.remove(&left)?;
            }
        }
        let temporary = beside.join(Maker::this().name(&name));
        let write = || -> Result<()> {
            let out = BufWriter::new(File::create_new(&temporary)?);
            let (out, _) = replace(open()?, Limits::default(), out, Section::Signatures, &content)?;
            let out = out.into_inner()?;
            out.set_permissions(fs::metadata(file)?.permissions())?;
            out.sync_all()?;
            Ok(fs::rename(&temporary, file)?)
        };
        let written = write();
        if written.is_err() {
            // The first error is the one to tell.
            let _ = fs::remove_file(&temporary);
        }
        written.map(|()| true)
    };
    work().with_context(|| format!("signing '{}'", file.display()))
}
