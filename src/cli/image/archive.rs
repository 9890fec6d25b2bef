//! `gridgate image show FILE`: what is in an archive, as its manifest says.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::archive::limits::Limits;
use crate::archive::reader::Reader;
use crate::host::Host;
use crate::names::{Bytes, ImageName};
use crate::paths::Paths;

/// The image of this host that was meant, where one may name an image or an archive. One that is there is meant by its name;
/// else what has a point or a slash in it, or is there as a file, is a path.
pub(crate) fn image_meant(typed: &str, host: &dyn Host, paths: &Paths) -> Result<Option<ImageName>> {
    let Ok(name) = typed.parse::<ImageName>() else { return Ok(None) };
    let is_path = typed.contains(['/', '.']) || Path::new(typed).exists();
    let is_meant = !is_path || host.stat(&paths.image(&name))?.is_some();
    Ok(is_meant.then_some(name))
}

/// Prints the head of the manifest; nothing behind it is read.
pub(super) fn show(file: &Path, json: bool, out: &mut dyn Write) -> Result<()> {
    let what = || format!("looking at '{}'", file.display());
    let input: Box<dyn Read + Send> = match file.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(File::open(file).with_context(what)?),
    };
    let reader = Reader::open(input, Limits::default()).with_context(what)?;
    let head = &reader.manifest.head;
    let digest = blake3::hash(&reader.manifest_bytes).to_hex().to_string();
    let signed = reader.signatures.is_some();
    if json {
        let row = json!({"version": 1, "archive": head, "manifest_blake3": digest, "signed": signed});
        return Ok(writeln!(out, "{row}")?);
    }
    writeln!(out, "name        {}", head.name.escape_default())?;
    writeln!(out, "packed by   {}", head.packed_by.escape_default())?;
    if let Some(from) = &head.filesystem {
        let label =
            if from.label.0.is_empty() { "none".to_owned() } else { from.label.0.escape_ascii().to_string() };
        let (kind, uuid) = (from.kind.escape_default(), from.uuid.escape_default());
        writeln!(out, "filesystem  {kind} of {}, UUID {uuid}, label {label}", Bytes(from.size_bytes))?;
    }
    writeln!(out, "entries     {}", head.entries)?;
    writeln!(out, "content     {} ({} without holes)", Bytes(head.content_bytes), Bytes(head.data_bytes))?;
    writeln!(out, "fits on     {} or more", Bytes(head.minimum_bytes))?;
    for own in &head.own {
        writeln!(out, "{:<11} {}", own.name.name(), Bytes(own.len))?;
    }
    writeln!(out, "blake3      {digest} (of the manifest)")?;
    writeln!(out, "signed      {}", if signed { "yes, which 'image verify' looks at" } else { "no" })?;
    let keys = &head.audit.private_keys;
    writeln!(
        out,
        "keys        {}",
        if keys.is_empty() { "none found".to_owned() } else { format!("{}", keys.len()) }
    )?;
    for key in keys {
        writeln!(out, "  /{}", key.0.escape_ascii())?;
    }
    if !head.audit.identity.is_empty() {
        writeln!(out, "identity    {} places hold what belongs to one machine", head.audit.identity.len())?;
    }
    for place in &head.audit.identity {
        writeln!(out, "  /{}", place.0.escape_ascii())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;

    #[test]
    fn a_name_is_an_images_unless_a_path_was_meant_and_one_that_is_there_always() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let meant = |typed: &str| image_meant(typed, &Live, &paths).unwrap().is_some();
        assert!(meant("debian-12"));
        for path in ["a.tar.zst", "./debian-12", "/tmp/x", "dir/x", "-"] {
            assert!(!meant(path), "{path}");
        }
        let name: ImageName = "debian-12.1".parse().unwrap();
        assert!(!meant(name.as_str()));
        std::fs::create_dir_all(paths.image(&name)).unwrap();
        assert!(meant(name.as_str()));
    }
}
