//! `gridgate site show`: what is in a bundle.

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::archive::manifest::OwnName;
use crate::archive::reader::Reader;
use crate::cli::{Context, Exit, print, print_json};
use crate::host::source;
use crate::machine::bundle::contents::{self, Contents, LONGEST};
use crate::names::Bytes;

/// Show what is in a bundle
#[derive(Debug, Clone, clap::Args)]
pub struct ShowArgs {
    /// Bundle: a file, `-` for standard input, or an http(s) URL
    #[arg(value_name = "BUNDLE")]
    pub bundle: String,
}

/// Prints what it says of itself; nothing behind that is read, and nobody is asked who signed it.
pub fn run(args: &ShowArgs, context: &Context) -> Result<Exit> {
    let what = || format!("looking at '{}'", args.bundle);
    let input = source::open(&context.host, &args.bundle)?;
    let reader = Reader::open(input, contents::limits()).with_context(what)?;
    contents::check(&reader.manifest).with_context(what)?;
    let manifest = reader.manifest.clone();
    let digest = blake3::hash(&reader.manifest_bytes).to_hex().to_string();
    let signed = reader.signatures.is_some();
    let contents = Contents::parse(&reader.own(OwnName::Bundle, LONGEST).with_context(what)?)?;
    contents.check(&manifest).with_context(what)?;
    if context.json {
        print_json(&json!({"version": 1, "bundle": contents, "packed_by": manifest.head.packed_by,
            "data_bytes": manifest.head.data_bytes, "manifest_blake3": digest, "signed": signed}))?;
        return Ok(Exit::Done);
    }
    let (version, architecture) = (&contents.program.version, &contents.program.architecture);
    let mut text =
        format!("gridgate    {} for {}\n", version.escape_default(), architecture.escape_default());
    for site in &contents.sites {
        text += &format!(
            "site        {}: host {} from image '{}'\n",
            site.name,
            site.fqdn.escape_default(),
            site.image
        );
        for guest in &site.guests {
            let (name, role, image) = (&guest.name, guest.role.escape_default(), &guest.image);
            text += &format!("  guest     {name:<12} {role:<8} image '{image}', {}\n", guest.backend.name());
        }
        for path in &site.left_out {
            text += &format!("  left out  {} (secret: --keys)\n", path.escape_default());
        }
        if site.has_identities {
            text += "  keys      its machines' private keys are in it\n";
        }
    }
    for image in &contents.images {
        let (name, size, packages) = (&image.name, Bytes(image.size_bytes), image.packages);
        let digest: String = image.blake3.escape_default().take(16).collect();
        text += &format!("image       {name:<12} {size:>6}, {packages} packages, {digest}\n");
    }
    text += &format!("uml kernel  {}\n", if contents.has_uml_kernel { "yes" } else { "no" });
    text += &format!("unpacked    {}\n", Bytes(manifest.head.data_bytes));
    text += &format!("blake3      {digest} (of the manifest)\n");
    text += &format!("signed      {}\n", if signed { "yes, which 'site install' looks at" } else { "no" });
    print(&text)?;
    Ok(Exit::Done)
}
