//! `gridgate site pack`: all that machines are made of, into one file.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::archive::frames::Packing;
use crate::archive::manifest::OwnName;
use crate::archive::pack::{About, Keys, PrivateKeys};
use crate::cli::image::pack::{Output, is_stdout, write};
use crate::cli::{Context, Ending, Exit, print_json};
use crate::config::site::Site;
use crate::host::Live;
use crate::host::nameless::Nameless;
use crate::machine::bundle::goods::{Wanted, gather};
use crate::names::{Bytes, ImageName};
use crate::paths::Paths;
use crate::progress::Progress;

/// Pack all that machines of sites are made of into one file
///
/// Images of hosts and guests, the sites' files, gridgate itself: 'gridgate site install BUNDLE' makes machines of that alone,
/// wherever there is a gridgate. Private keys stay here unless --with-keys asks for them.
#[derive(Debug, Clone, clap::Args)]
pub struct PackArgs {
    /// Directories of sites; otherwise the one of --site
    #[arg(value_name = "DIR")]
    pub sites: Vec<PathBuf>,
    /// File to write; - is stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// SSH key to sign it with; a .pub file if an agent has the key
    #[arg(long, visible_alias = "key", value_name = "FILE")]
    pub sign: Option<PathBuf>,
    /// The hosts' own image
    #[arg(long, value_name = "NAME", default_value = super::USUAL_IMAGE)]
    pub image: ImageName,
    /// Be done soon rather than small
    #[arg(long)]
    pub fast: bool,
    /// Pack private keys too: the sites' secret files, and what was drawn for their machines. Whoever reads the file can then
    /// pass for any of them
    #[arg(long)]
    pub with_keys: bool,
}

/// Runs it.
pub fn run(args: &PackArgs, context: &Context) -> Result<Exit> {
    crate::progress::catch_interrupts()?;
    let Context { host, paths, json, progress } = context;
    let to_stdout = is_stdout(&args.output, *json)?;
    let sites = sites(args, context)?;
    let keys = if args.with_keys { Keys::Pack } else { Keys::Refuse };
    let wanted = Wanted { sites: &sites, image: args.image.clone(), keys };
    let refused = |error: anyhow::Error| match error.downcast_ref::<PrivateKeys>() {
        Some(_) => Ending::error(Exit::Refused, format!("{error:#}")),
        None => error,
    };
    let (goods, contents) = gather(host, paths, &wanted, progress).map_err(refused)?;
    for site in contents.sites.iter().filter(|site| !site.left_out.is_empty()) {
        let (name, list) = (&site.name, site.left_out.join(", "));
        progress.say(&format!(
            "note: secrets of site '{name}' stay here: {list}; whoever installs it brings them with --keys"
        ));
    }
    let own = Nameless::holding(&contents.print()?)?;
    let name: Vec<&str> = contents.sites.iter().map(|site| site.name.as_str()).collect();
    let about =
        About { name: name.join(","), filesystem: None, own: vec![(OwnName::Bundle, own.path())], keys };
    let output = Output {
        file: &args.output,
        packing: if args.fast { Packing::Fast } else { Packing::Usual },
        is_private: args.with_keys,
        key: args.sign.as_deref(),
        state: &paths.state,
    };
    let what = || format!("packing '{}'", about.name);
    let packed = write(host, &goods, &about, &output, progress);
    let (manifest, written) = packed.with_context(what).map_err(refused)?;
    let signed = args.sign.is_some();
    if *json {
        let digest = blake3::hash(&manifest.print()?).to_hex().to_string();
        let file = args.output.display().to_string();
        print_json(&json!({"version": 1, "file": file, "bytes": written.bytes, "manifest_blake3": digest,
            "signed": signed, "bundle": contents}))?;
        return Ok(Exit::Done);
    }
    let place = if to_stdout { String::new() } else { format!(", '{}'", args.output.display()) };
    let (data, bytes) = (Bytes(manifest.head.data_bytes), Bytes(written.bytes));
    progress.say(&format!("packed '{}': {data} in {bytes}{place}", about.name));
    if !signed {
        progress.say("note: it is not signed, and installing from it is refused; hint: gridgate image sign FILE --key KEY");
    }
    Ok(Exit::Done)
}

fn sites(args: &PackArgs, context: &Context) -> Result<Vec<Site>> {
    if args.sites.is_empty() {
        return Ok(vec![context.site()?]);
    }
    let mut sites: Vec<Site> = Vec::new();
    for dir in &args.sites {
        let own = Context {
            paths: Paths::new(&std::path::absolute(dir)?, &context.paths.state),
            json: context.json,
            progress: Progress::silent(),
            host: Live,
        };
        let site = own.site()?;
        if sites.iter().any(|other| other.name == site.name) {
            let what = format!("two sites are called '{}'\nhint: name is in each one's site.toml", site.name);
            return Err(Ending::error(Exit::Usage, what));
        }
        sites.push(site);
    }
    Ok(sites)
}
