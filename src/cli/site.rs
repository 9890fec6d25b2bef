//! `gridgate site`: whole machines.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Result;

use super::image::restore::Trust;
use super::{Context, Ending, Exit, print, print_json, refusal};
use crate::host::target;
use crate::machine::bundle::contents;
use crate::machine::install::{self, Failure};
use crate::machine::plan::{self, Plan, Request, Target};
use crate::machine::report;
use crate::machine::stock::Stock;
use crate::names::{Bytes, ImageName, SiteName};

mod backup;
pub(super) mod bundle;
mod pack;
mod replicate;
mod restore;
mod show;
mod table;

/// The image that hosts are made of where nothing else was said.
const USUAL_IMAGE: &str = "gateway";

/// Make, back up and restore whole machines of sites
#[derive(Debug, clap::Subcommand)]
#[expect(missing_docs, reason = "each verb's arguments carry its help")]
pub enum SiteCommand {
    Pack(pack::PackArgs),
    Show(show::ShowArgs),
    Install(Box<InstallArgs>),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Replicate(replicate::ReplicateArgs),
    /// Show what the last machine is that was made of this site, and what is left to do by hand
    Report,
}

/// Make a bootable machine of a disk: host, gridgate, every guest
///
/// The disk is a device (/dev/sdb) or a file. It is divided, gets the host's own system from a golden image and every guest's
/// disk with its identity and profile, and starts by BIOS and by UEFI. Everything is done here, offline; until the end the
/// disk is no machine. Host keys are drawn once for each site and kept, so that one that is made again is known.
#[derive(Debug, Clone, clap::Args)]
pub struct InstallArgs {
    /// Bundle to make it from: a file, `-` for standard input, or an http(s) URL; --site is then the name of a site in it. Without
    /// one, images and site are those of this host
    #[arg(value_name = "BUNDLE")]
    pub bundle: Option<String>,
    /// The host's own image [default: the bundle's, else gateway]
    #[arg(long, value_name = "NAME")]
    pub image: Option<ImageName>,
    /// Device, or file, that becomes the machine's disk
    #[arg(long, value_name = "DEVICE|FILE", required_unless_present = "table")]
    pub to: Option<PathBuf>,
    /// Make a machine for each row of this table (TOML or CSV: site, target, size), side by side
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "size", "saved_partition"])]
    pub table: Option<PathBuf>,
    /// Size of a file that is made
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Bytes>,
    /// Keep this partition with its content; one named gridgate-data is used for the guests again
    #[arg(long, value_name = "NUMBER|NAME")]
    pub saved_partition: Option<String>,
    /// Do not ask before what is on the disk is destroyed
    #[arg(long)]
    pub yes: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Directory with the secret files that the bundle leaves out
    #[arg(long, value_name = "DIR", requires = "bundle")]
    pub keys: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "its text would become that of the command")]
    pub trust: Trust,
}

/// Runs the command.
pub fn run(command: &SiteCommand, context: &Context) -> Result<Exit> {
    match command {
        SiteCommand::Pack(args) => pack::run(args, context),
        SiteCommand::Show(args) => show::run(args, context),
        SiteCommand::Install(args) => install(args, context),
        SiteCommand::Backup(args) => backup::run(args, context),
        SiteCommand::Restore(args) => restore::run(args, context),
        SiteCommand::Replicate(args) => replicate::run(args, context),
        SiteCommand::Report => show(context),
    }
}

fn install(args: &InstallArgs, context: &Context) -> Result<Exit> {
    context.need_root("making a machine's disk")?;
    crate::progress::catch_interrupts()?;
    let to = match (&args.table, &args.to) {
        (Some(table), _) => return table::run(table, args, context),
        (None, Some(to)) => std::path::absolute(to)?,
        (None, None) => {
            let what = "--to DEVICE|FILE says what becomes the machine's disk";
            return Err(Ending::error(Exit::Usage, what));
        }
    };
    let mut request = Request {
        image: bundle::image(args, None)?,
        to,
        size: args.size,
        saved: args.saved_partition.clone(),
    };
    // What a bundle was unpacked to is there as long as this is.
    let unpacked;
    let (site, stock, packed) = match &args.bundle {
        Some(file) => {
            let reader = bundle::open(file, &args.trust, context)?;
            let name = bundle::chosen(&contents::sites(&reader.manifest), context)?;
            // Before a bundle is read to its end.
            plan::target(&request).map_err(refusal)?;
            unpacked = bundle::unpacked(reader, context)?;
            let (site, stock, packed) = bundle::load(&unpacked, &name, args.keys.as_deref(), context)?;
            (site, stock, Some(packed))
        }
        None => (own_site(context)?, Stock::own(&context.paths), None),
    };
    request.image = bundle::image(args, packed.as_ref())?;
    let plan = plan::plan(&context.host, &stock, &site, &request).map_err(refusal)?;
    if args.dry_run {
        if context.json {
            print_json(&serde_json::json!({"version": 1, "plan": plan, "steps": plan.steps()}))?;
        } else {
            for step in plan.steps() {
                print(&format!("{step}\n"))?;
            }
            plan.notes.iter().for_each(|note| context.progress.say(&format!("note: {note}")));
        }
        return Ok(Exit::Done);
    }
    consent(args, &plan, context)?;
    let report = install::install(&context.host, &stock, &site, &plan, &context.progress);
    match report {
        Ok(report) if context.json => print_json(&report)?,
        Ok(report) => print(&report::text(&report))?,
        Err(Failure { error, left: None }) => return Err(refusal(error)),
        Err(Failure { error, left: Some(left) }) => {
            return Err(Ending::error(Exit::HalfWay, format!("{error:#}\nwhat is left: {left}")));
        }
    }
    Ok(Exit::Done)
}

/// The site of `--site`. Somebody may have meant one of a bundle.
fn own_site(context: &Context) -> Result<crate::config::site::Site> {
    let dir = &context.paths.site;
    if dir.exists() {
        return context.site();
    }
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let text = format!(
        "there is no site directory '{}'\nhint: gridgate site install BUNDLE --site {name} --to ... takes a site out of a bundle",
        dir.display()
    );
    Err(Ending::error(Exit::Usage, text))
}

/// What is there is destroyed only if somebody said so.
pub(super) fn consent(args: &InstallArgs, plan: &Plan, context: &Context) -> Result<()> {
    if args.yes || plan.target == Target::NewFile {
        return Ok(());
    }
    let to = plan.to.display();
    let kept: Vec<String> =
        plan.layout.partitions.iter().filter(|part| part.kept).map(|part| part.name.clone()).collect();
    let but = if kept.is_empty() { String::new() } else { format!(" but partition '{}'", kept.join("', '")) };
    let holds = match target::content(&context.host, &plan.to)? {
        Some(holds) => format!(": {holds}"),
        None => String::new(),
    };
    let size = Bytes(plan.layout.size_bytes);
    let question = format!("all that is on '{to}' ({size}{holds}){but} is destroyed");
    if std::io::stdin().is_terminal() {
        eprint!("{question}; go on? Type yes: ");
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if answer.trim() == "yes" {
            return Ok(());
        }
        return Err(Ending::error(Exit::Refused, format!("'{to}' is left as it is")));
    }
    Err(Ending::error(
        Exit::Refused,
        format!("{question}\nhint: --yes says that this is meant, --dry-run shows more"),
    ))
}

fn show(context: &Context) -> Result<Exit> {
    let stock = Stock::own(&context.paths);
    let dir = &context.paths.site;
    // One that came in a bundle has no directory here, and is known by its name.
    let by_name = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    let name: SiteName = match by_name.filter(|_| !dir.exists()) {
        Some(name) => name,
        None => context.site()?.name,
    };
    let Some(report) = report::last(&context.host, &stock.kept_of(&name))? else {
        let hint = "hint: gridgate site install --to DEVICE makes one";
        return Err(Ending::error(
            Exit::Failed,
            format!("no machine was made of site '{name}' here\n{hint}"),
        ));
    };
    match context.json {
        true => print_json(&report)?,
        false => print(&report::text(&report))?,
    }
    Ok(Exit::Done)
}
