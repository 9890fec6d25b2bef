//! `gridgate profile`: what guests are configured to be, and whether they are.

mod check;
mod disk;
mod exchange;

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Context, Ending, Exit, print, print_json};
use crate::config::problem::Problems;
use crate::config::site::{Guest, Site};
use crate::names::GuestName;
use crate::profile::{self, Document, Listed, Workshop};

/// What can be asked of profiles.
#[derive(Debug, Subcommand)]
pub enum ProfileCommand {
    /// List profiles and features that guests can have
    List,
    /// Show what a guest's profile comes to
    Show(ShowArgs),
    /// Print the files of a guest's profile as they will be in the guest
    ///
    /// With --diff, show what compiling it would change on the guest's disk, or in a tree; exit 3 if anything would.
    Render(RenderArgs),
    /// Compile a guest's profile into its disk, or into a tree
    Compile(CompileArgs),
    /// Bring back the profile that the guest's disk had before
    Rollback(RollbackArgs),
    /// Run the check commands of a guest's profile in the guest, which runs; exit 3 if one fails
    Check(check::CheckArgs),
    /// Print a guest's profile in the form of another tool
    Export(exchange::ExportArgs),
    /// Read another tool's file, and print the profile that says the same
    Import(exchange::ImportArgs),
}

/// Which guest.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The guest
    #[arg(value_name = "GUEST")]
    pub guest: GuestName,
}

/// Which files of which guest.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// The guest
    #[arg(value_name = "GUEST")]
    pub guest: GuestName,
    /// Only this file, by its path in the guest
    #[arg(value_name = "FILE")]
    pub file: Option<String>,
    /// Show what would change in the guest
    #[arg(long)]
    pub diff: bool,
    /// Compare with this directory with a root filesystem's files, instead of the guest's disk
    #[arg(long, value_name = "DIR", requires = "diff")]
    pub tree: Option<PathBuf>,
}

/// Which filesystem of which guest.
#[derive(Debug, Args)]
pub struct CompileArgs {
    /// The guest
    #[arg(value_name = "GUEST")]
    pub guest: GuestName,
    /// A directory with a root filesystem's files, instead of the guest's disk
    #[arg(long, value_name = "DIR")]
    pub tree: Option<PathBuf>,
    /// Let the guest's own compiler write only to the paths that it declares
    #[arg(long)]
    pub strict: bool,
}

/// Which filesystem of which guest.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The guest
    #[arg(value_name = "GUEST")]
    pub guest: GuestName,
    /// A directory with a root filesystem's files, instead of the guest's disk
    #[arg(long, value_name = "DIR")]
    pub tree: Option<PathBuf>,
}

#[derive(Serialize)]
struct ListReport {
    version: u32,
    profiles: Vec<Listed>,
}

#[derive(Serialize)]
struct DocumentReport<'a> {
    version: u32,
    digest: String,
    profile: &'a Document,
}

/// Runs one of them.
pub fn run(command: &ProfileCommand, context: &Context) -> Result<Exit> {
    match command {
        ProfileCommand::List => list(context),
        ProfileCommand::Show(args) => show(args, context),
        ProfileCommand::Render(args) if args.diff => disk::diff(args, context),
        ProfileCommand::Render(args) => render(args, context),
        ProfileCommand::Compile(args) => disk::compile(args, context),
        ProfileCommand::Rollback(args) => disk::rollback(args, context),
        ProfileCommand::Check(args) => check::run(args, context),
        ProfileCommand::Export(args) => exchange::export(args, context),
        ProfileCommand::Import(args) => exchange::import(args, context),
    }
}

/// Problems of profiles end a command as those of a site's files do.
pub(super) fn unusable(what: &str, problems: &Problems) -> anyhow::Error {
    Ending::error(Exit::Usage, format!("{what} cannot be used:\n{problems}"))
}

fn list(context: &Context) -> Result<Exit> {
    let what = "a profile";
    let listed = Workshop::list(&context.paths.site).map_err(|problems| unusable(what, &problems))?;
    if context.json {
        print_json(&ListReport { version: 1, profiles: listed })?;
        return Ok(Exit::Done);
    }
    let width = listed.iter().map(|one| one.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (kind, heading) in [(profile::Kind::Profile, "PROFILE"), (profile::Kind::Feature, "FEATURE")] {
        let _ = writeln!(text, "{heading:width$}  FROM     WHAT");
        for one in listed.iter().filter(|one| one.kind == kind) {
            let place = if one.place == profile::Place::Site { "site" } else { "shipped" };
            let _ = writeln!(text, "{:width$}  {place:7}  {}", one.name, one.description);
        }
    }
    print(&text)?;
    Ok(Exit::Done)
}

/// The guest and its document.
fn document(context: &Context, site: &Site, name: &GuestName) -> Result<(Guest, Document)> {
    context.known(site, std::slice::from_ref(name))?;
    let guest = site.guest(name).cloned().ok_or_else(|| anyhow::anyhow!("there is no guest '{name}'"))?;
    let document = profile::document(site, &guest)
        .map_err(|problems| unusable(&format!("profile '{}' of guest '{name}'", guest.profile), &problems))?;
    Ok((guest, document))
}

fn show(args: &ShowArgs, context: &Context) -> Result<Exit> {
    let (_, document) = document(context, &context.site()?, &args.guest)?;
    if context.json {
        print_json(&DocumentReport { version: 1, digest: document.digest(), profile: &document })?;
    } else {
        print(&summary(&document))?;
    }
    Ok(Exit::Done)
}

fn summary(document: &Document) -> String {
    let mut text = format!("{} ({}), profile '{}'\n", document.guest, document.fqdn, document.profile);
    let _ = writeln!(text, "made of: {}", document.made_of.join(", "));
    let mut section = |heading: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = writeln!(text, "\n{heading}");
            let _ = writeln!(text, "  {}", lines.join("\n  "));
        }
    };
    let pairs = document.variables.iter().map(|(name, value)| format!("{name} = {value}"));
    section("variables", pairs.collect());
    section(
        "packages",
        vec![document.packages.join(" ")].into_iter().filter(|line| !line.is_empty()).collect(),
    );
    section("groups", document.groups.iter().map(|group| format!("{} {}", group.gid, group.name)).collect());
    section("users", document.users.iter().map(|user| format!("{} {}", user.uid, user.name)).collect());
    let owned = |mode: &str, owner: &str, group: &str, path: &str| format!("{mode} {owner}:{group} {path}");
    let directories = document.directories.iter();
    section("directories", directories.map(|d| owned(&d.mode, &d.owner, &d.group, &d.path)).collect());
    let files = document.files.iter();
    section("files", files.map(|f| owned(&f.mode, &f.owner, &f.group, &f.path)).collect());
    section("files that must not be there", document.absent.clone());
    let services = &document.services;
    section("started at boot", services.enable.clone());
    section("not started at boot", services.disable.clone());
    section("never started", services.mask.clone());
    let tasks = document.tasks.iter().map(|task| {
        let how = if task.command.is_empty() { "by hand" } else { "first boot" };
        format!("{} ({how}): {}", task.name, task.about)
    });
    section("tasks", tasks.collect());
    let scrub = document.scrub.iter();
    section(
        "erased with an identity",
        scrub.map(|s| format!("{}: {}", s.class, s.paths.join(" "))).collect(),
    );
    section(
        "checks",
        document.checks.iter().map(|check| format!("{}: {}", check.name, check.about)).collect(),
    );
    text
}

fn render(args: &RenderArgs, context: &Context) -> Result<Exit> {
    let (_, document) = document(context, &context.site()?, &args.guest)?;
    let wanted = |file: &&profile::document::File| args.file.as_ref().is_none_or(|path| *path == file.path);
    let files: Vec<_> = document.files.iter().filter(wanted).collect();
    if let (Some(path), true) = (&args.file, files.is_empty()) {
        let all: Vec<&str> = document.files.iter().map(|file| file.path.as_str()).collect();
        let hint = crate::config::suggest::hint(path, all, "files");
        let message = format!("profile '{}' makes no file '{path}'\nhint: {hint}", document.profile);
        return Err(Ending::error(Exit::Usage, message));
    }
    if context.json {
        print_json(&serde_json::json!({ "version": 1, "guest": document.guest, "files": files }))?;
    } else if args.file.is_some() {
        files.iter().try_for_each(|file| print(&file.content))?;
    } else {
        for file in files {
            print(&format!("==> {} <==\n{}\n", file.path, file.content))?;
        }
    }
    Ok(Exit::Done)
}
