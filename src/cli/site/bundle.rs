//! Bundles as the site verbs take them: opened, trusted, unpacked, and a site chosen.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::InstallArgs;
use crate::archive::reader::Reader;
use crate::cli::image::restore::{Trust, signed};
use crate::cli::{Context, Ending, Exit};
use crate::config::site::Site;
use crate::host::Live;
use crate::host::source;
use crate::machine::bundle::contents::{self, PackedSite};
use crate::machine::bundle::unpack::{Unpacked, unpack};
use crate::machine::stock::Stock;
use crate::names::{ImageName, SiteName};
use crate::paths::Paths;
use crate::progress::Progress;
use crate::signature::Purpose;

/// What `--site` is where nobody gave it.
const NO_SITE: &str = "/etc/gridgate";

/// Opens a bundle and asks who signed it; nothing but its manifest is read.
pub fn open(bundle: &str, trust: &Trust, context: &Context) -> Result<Reader> {
    // `--site` names one in the bundle, and none of this host whose signers could count.
    let paths = Paths::new(Path::new(NO_SITE), &context.paths.state);
    let policy = trust.policy(&context.host, &paths, Purpose::Bundle)?;
    let input = source::open(&context.host, bundle)?;
    let what = || format!("'{bundle}'");
    let reader = Reader::open(input, contents::limits()).with_context(what)?;
    contents::check(&reader.manifest).with_context(what)?;
    let signer = signed(&reader, &format!("bundle '{bundle}'"), &policy, &context.host)?;
    match signer {
        Some(signer) => {
            let (name, print) = (&signer.principal, &signer.fingerprint);
            context.progress.say(&format!("bundle '{bundle}' is signed by {name} ({print})"));
        }
        None => context.progress.say(&format!(
            "note: nobody vouches for bundle '{bundle}': whoever could write to it decides what runs on these machines, as root"
        )),
    }
    Ok(reader)
}

/// The one of the bundle's sites that `--site` names; without it, the only one.
pub fn chosen(there: &[SiteName], context: &Context) -> Result<SiteName> {
    let names: Vec<&str> = there.iter().map(SiteName::as_str).collect();
    let has = names.join(", ");
    let given = &context.paths.site;
    if given == Path::new(NO_SITE) {
        return match there {
            [only] => Ok(only.clone()),
            _ => Err(Ending::error(
                Exit::Usage,
                format!(
                    "the bundle has {} sites, and none was named: {has}\nhint: --site {}",
                    there.len(),
                    names[0]
                ),
            )),
        };
    }
    let name = given.file_name().unwrap_or_default().to_string_lossy();
    named(there, &name)
}

/// The one of that name.
pub fn named(there: &[SiteName], name: &str) -> Result<SiteName> {
    let found = there.iter().find(|site| site.as_str() == name);
    found.cloned().ok_or_else(|| {
        let names: Vec<&str> = there.iter().map(SiteName::as_str).collect();
        let has = names.join(", ");
        let text = format!(
            "the bundle has no site '{name}'; it has {has}\nhint: with a bundle --site (or $GRIDGATE_SITE) is the name of a \
             site in it, not a directory"
        );
        Ending::error(Exit::Usage, text)
    })
}

/// Unpacks it.
pub fn unpacked(reader: Reader, context: &Context) -> Result<Unpacked> {
    let unpacked = unpack(&context.host, &context.paths.state, reader, &context.progress)?;
    let (its, own) = (&unpacked.contents.program.version, env!("CARGO_PKG_VERSION"));
    if its != own {
        let its = its.escape_default();
        context.progress.say(&format!("note: the machines get gridgate {its} of the bundle; this is {own}"));
    }
    Ok(unpacked)
}

/// A site of the bundle, loaded, and what its machine is made of. `keys` is the directory that has what the bundle leaves out.
pub fn load(
    bundle: &Unpacked,
    name: &SiteName,
    keys: Option<&Path>,
    context: &Context,
) -> Result<(Site, Stock, PackedSite)> {
    let packed = bundle.contents.site(name)?.clone();
    fill_in(bundle, &packed, keys, context)?;
    let stock = bundle.stock(name, &context.paths.state);
    let own =
        Context { paths: stock.paths.clone(), json: context.json, progress: Progress::silent(), host: Live };
    let site = own.site()?;
    anyhow::ensure!(site.name == *name, "site '{name}' of the bundle calls itself '{}'", site.name);
    Ok((site, stock, packed))
}

/// Secrets that are not in the bundle come from a directory beside it.
fn fill_in(bundle: &Unpacked, packed: &PackedSite, keys: Option<&Path>, context: &Context) -> Result<()> {
    if packed.left_out.is_empty() {
        return Ok(());
    }
    let (name, list) = (&packed.name, packed.left_out.join(", "));
    let Some(keys) = keys else {
        let text = format!(
            "site '{name}' has secret files that are not in the bundle: {list}\nhint: --keys DIR names a directory that has \
             them, such as the site's own; with several sites DIR/{name}"
        );
        return Err(Ending::error(Exit::Usage, text));
    };
    for path in &packed.left_out {
        let places = [keys.join(name).join(path), keys.join(path)];
        let mut content = None;
        for place in &places {
            content = content.or(std::fs::read(place).ok());
        }
        let Some(content) = content else {
            let (first, second) = (places[0].display(), places[1].display());
            let text = format!("site '{name}' needs '{path}', and there is neither '{first}' nor '{second}'");
            return Err(Ending::error(Exit::Usage, text));
        };
        bundle.add(&context.host, name, path, &content)?;
    }
    Ok(())
}

/// Which image a host is made of.
pub fn image(args: &InstallArgs, packed: Option<&PackedSite>) -> Result<ImageName> {
    match args.image.clone().or(packed.map(|packed| packed.image.clone())) {
        Some(image) => Ok(image),
        None => Ok(super::USUAL_IMAGE.parse()?),
    }
}
