//! A site directory's text becomes a [`site::Site`]; reads files, changes nothing.
//!
//! ```text
//!   site.toml guests/*.toml templates/*.toml     site.conf guests/*.conf ...     --set KEY=VALUE
//!        | toml_file                                  | shell, shell_file             | overrides
//!        +--------------------> tree::Table <---------+-------------------------------+
//!                                    |   schema: each table against keys
//!                                    |   layers: shipped < site < role < template < guest < command line
//!                               guest::Draft
//!                                    |   derive: addresses, hardware addresses
//!                                    |   order, cross: what only shows when all is looked at together
//!                               site::Site           (or all Problems at once)
//! ```

pub mod clone;
#[cfg(test)]
#[path = "../../tests/support/described.rs"]
pub(crate) mod described;
pub mod example;
pub mod explain;
pub mod host_machine;
pub mod interface;
pub mod lenient;
pub mod limits;
pub mod origin;
pub mod problem;
pub mod provided;
pub mod shell;
pub mod site;
pub mod supervision;
pub mod variables;
mod wiring;

mod cards;
mod checks;
mod cross;
mod derive;
pub(crate) mod directory;
mod edit;
mod guest;
mod interfaces;
pub(crate) mod keys;
mod layers;
mod network;
mod order;
mod overrides;
pub(crate) mod schema;
pub(crate) mod shape;
mod shell_file;
pub(crate) mod shipped;
mod site_values;
pub(crate) mod suggest;
mod templates;
pub(crate) mod toml_file;
pub(crate) mod tree;

use std::path::{Path, PathBuf};

use cross::Known;
use directory::Found;
use explain::Explain;
use guest::{Draft, GuestFile, Workshop};
use keys::Scope;
use layers::Layers;
use lenient::Candidate;
use origin::Origin;
use overrides::Overrides;
use problem::Problems;
use shipped::Shipped;
use site::Site;
use templates::Templates;
use tree::Table;

/// What is known beside the site's own files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Values that win over all files: `ce.memory=1G`, `defaults.backend=uml`, `networks.lan.mode=nat`, `domain=...`.
    pub set: Vec<String>,
    /// Rehearse the whole site, whatever its files say.
    pub rehearsal: bool,
    /// Golden images that guests may have, beside those that the site defines in `images/`.
    pub images: Vec<String>,
    /// Directories whose entries are golden images: `NAME.toml` is a definition, a directory `NAME` an image.
    pub image_dirs: Vec<PathBuf>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        let images = shipped::IMAGES.map(str::to_owned).to_vec();
        Self { set: Vec::new(), rehearsal: false, images, image_dirs: Vec::new() }
    }
}

/// A site that was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The site.
    pub site: Site,
    /// Where each of its values came from.
    pub explain: Explain,
}

/// More guests than any one machine runs; a typing error in `count` should not cost minutes.
const MOST_GUESTS: usize = 2000;

/// Loads and cross-checks a site. Everything that is wrong is found at once.
pub fn load(dir: &Path, options: &LoadOptions) -> Result<Loaded, Problems> {
    let mut problems = Problems::default();
    let mut explain = Explain::default();
    let read = read(dir, options, &mut explain, &mut problems);
    match read {
        Some((site, _)) if problems.is_empty() => Ok(Loaded { site, explain }),
        _ => Err(problems.sorted()),
    }
}

/// The site with those guests that are complete, and all guests that its files speak of. What is wrong is told beside it:
/// only without a problem is the site one to go on with.
fn read(
    dir: &Path,
    options: &LoadOptions,
    explain: &mut Explain,
    problems: &mut Problems,
) -> Option<(Site, Vec<Candidate>)> {
    let (start, site_table) = site_file(dir, problems)?;
    let overrides = Overrides::read(&options.set, problems);
    check_overrides(&overrides, problems);
    let site_layers = Layers(vec![&site_table, &overrides.site]);
    let values = site_values::read(&site_layers, dir, &start, explain, problems);
    let rehearse = values.rehearsal || options.rehearsal;
    let mut networks = network::read(&site_layers.inner("networks"), rehearse, &start, explain, problems);

    let files = guest_files(dir, &site_layers, &start, problems);
    let stems: Vec<String> = files.iter().map(|f| f.stem.clone()).collect();
    let set_tables = overrides.guests.iter().map(|(.., table)| table);
    let extends =
        files.iter().filter_map(|f| f.table.as_ref()).chain(set_tables).filter_map(|t| t.get("extends"));
    let templates = Templates::read(dir, extends, problems);
    let shipped = Shipped::read();
    let defaults = site_layers.inner("defaults");

    let workshop = Workshop {
        shipped: &shipped,
        defaults: &defaults,
        templates: &templates,
        overrides: &overrides,
        networks: &networks,
        domain: &values.domain,
        variables: &site_layers.inner("variables"),
    };
    let mut drafts: Vec<Draft<'_>> = Vec::new();
    for file in &files {
        drafts.extend(workshop.drafts(file, explain, problems));
        if drafts.len() > MOST_GUESTS {
            problems.add(
                &file.start,
                format!("the site has more than {MOST_GUESTS} guests"),
                "look at 'count'",
            );
            return None;
        }
    }
    let names = || stems.iter().map(String::as_str).chain(drafts.iter().map(|d| d.name.as_str()));
    for (name, origin, _) in &overrides.guests {
        if !names().any(|known| known == name) {
            problems.add(
                origin,
                format!("unknown guest '{name}'"),
                suggest::hint(name, names(), "guests of the site"),
            );
        }
    }

    derive::addresses(&mut drafts, &mut networks, &values.dns, explain, problems);
    if let Some(name) = &values.name {
        derive::macs(&mut drafts, name, explain);
        interfaces::read(&mut drafts, &networks, name, explain, problems);
    }
    order::resolve(&mut drafts, &stems, problems);
    for draft in &mut drafts {
        draft.provided = provided::read(draft, dir, problems);
    }
    cross::each(&drafts, &networks, &known(dir, options), problems);
    cross::together(&drafts, problems);

    let mut site = values.site(dir)?;
    let mut candidates: Vec<Candidate> = Vec::new();
    for file in files.iter().filter(|file| drafts.iter().all(|draft| draft.stem != file.stem)) {
        candidates.extend(Candidate::of_file(file));
    }
    for draft in drafts {
        let candidate = Candidate::of_draft(&draft);
        match draft.finish(&networks) {
            Some(guest) => site.guests.push(guest),
            None if problems.is_empty() => {
                problems.add(&candidate.start, format!("guest '{}' is not complete", candidate.name), "")
            }
            None => {}
        }
        candidates.push(candidate);
    }
    site.networks = networks.into_iter().filter_map(|n| n.network).collect();
    host_machine::check_together(&site, &site_layers.inner("host"), problems);
    Some((site, candidates))
}

/// The site file's table, checked; `None` if there is nothing to go on with.
fn site_file(dir: &Path, problems: &mut Problems) -> Option<(Origin, Table)> {
    let (file, text) = match directory::find(dir, "site", problems) {
        Found::File(file, text) => (file, text),
        Found::Nothing => {
            let origin = Origin::note(dir.display().to_string());
            let what = if dir.is_dir() {
                "there is neither site.toml nor site.conf"
            } else {
                "there is no such directory"
            };
            problems.add(
                &origin,
                what,
                format!("'gridgate init {}' writes a site to start from", dir.display()),
            );
            return None;
        }
    };
    let text = text?;
    let table = match file.ends_with(".conf") {
        true => shell_file::site(&text, problems),
        false => toml_file::read(&text, problems),
    };
    // The guests' files are worth checking even if the site file is not readable.
    let table = match table {
        Some(table) => table,
        None => {
            guest_files(dir, &Layers::default(), &Origin::start(&file), problems);
            return None;
        }
    };
    check_site_table(&table, problems);
    Some((Origin::start(&file), table))
}

fn check_site_table(table: &Table, problems: &mut Problems) {
    schema::check(table, keys::SITE, Scope::Guest, problems);
    if let Some(defaults) = table.table("defaults") {
        schema::check(defaults, keys::GUEST, Scope::Defaults, problems);
    }
    for entry in table.table("networks").iter().flat_map(|t| &t.entries) {
        if let tree::Kind::Table(network) = &entry.value.kind {
            schema::check(network, keys::NETWORK, Scope::Guest, problems);
        }
    }
}

fn check_overrides(overrides: &Overrides, problems: &mut Problems) {
    check_site_table(&overrides.site, problems);
    for (_, _, table) in &overrides.guests {
        schema::check(table, keys::GUEST, Scope::Guest, problems);
    }
}

/// The guests' files: those that `guests` lists, in its order; else all, by name.
fn guest_files(dir: &Path, site: &Layers<'_>, start: &Origin, problems: &mut Problems) -> Vec<GuestFile> {
    let guests = dir.join("guests");
    let present = directory::stems(&guests, problems);
    let listed = site.pick("guests").map(|entry| entry.value.texts());
    let wanted: Vec<(&str, &Origin)> = match &listed {
        Some(listed) => listed.iter().filter(|(name, _)| checks::label(name).is_ok()).copied().collect(),
        None => present.iter().map(|stem| (stem.as_str(), start)).collect(),
    };
    if wanted.is_empty() && site.pick("guests").is_none() {
        let hint = format!("a guest is a file '{}/NAME.toml' or NAME.conf", guests.display());
        problems.add(start, "the site has no guests", hint);
    }
    let mut files: Vec<GuestFile> = Vec::new();
    for (stem, origin) in wanted {
        if files.iter().any(|f| f.stem == stem) {
            problems.add(origin, format!("guest '{stem}' is listed twice"), "take one away");
            continue;
        }
        match directory::find(&guests, stem, problems) {
            Found::File(file, text) => {
                let table = text.and_then(|text| templates::guest_table(&text, Scope::Guest, problems));
                files.push(GuestFile { stem: stem.to_owned(), start: Origin::start(&file), table });
            }
            Found::Nothing => {
                let message = format!("there is no file 'guests/{stem}.toml' or 'guests/{stem}.conf'");
                let hint = suggest::hint(stem, present.iter().map(String::as_str), "guests with a file");
                problems.add(origin, message, hint);
                files.push(GuestFile { stem: stem.to_owned(), start: origin.clone(), table: None });
            }
        }
    }
    files
}

/// Images and profiles that guests may name.
fn known(dir: &Path, options: &LoadOptions) -> Known {
    let mut images = options.images.clone();
    images.extend(directory::definitions(&dir.join("images")));
    for dir in &options.image_dirs {
        images.extend(directory::definitions(dir));
        images.extend(directory::subdirectories(dir));
    }
    let mut profiles: Vec<String> = shipped::PROFILES.iter().map(|p| (*p).to_owned()).collect();
    profiles.extend(directory::definitions(&dir.join("profiles")));
    for names in [&mut images, &mut profiles] {
        names.sort();
        names.dedup();
    }
    Known { images, profiles }
}
