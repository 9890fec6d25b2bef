//! `gridgate profile export` and `import`: profiles in other tools' forms.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use super::{document, unusable};
use crate::cli::{Context, Exit, print, print_json};
use crate::config::directory;
use crate::config::problem::Problems;
use crate::host::files::Files;
use crate::names::GuestName;
use crate::profile::{Document, Workshop, export, import};

/// Which guest, and how.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The guest
    #[arg(value_name = "GUEST")]
    pub guest: GuestName,
    /// The form
    #[arg(long, value_enum, default_value = "json")]
    pub format: export::Format,
    /// Write into this directory, each file by its usual name, instead of printing
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
}

/// Which file.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Its form
    #[arg(long, value_enum)]
    pub format: import::Format,
    /// A context of LCFG's that is on; again for further ones, those of higher priority later
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = import::context)]
    pub context: Vec<(String, String)>,
}

/// Prints or writes it.
pub(super) fn export(args: &ExportArgs, context: &Context) -> Result<Exit> {
    let site = context.site()?;
    let (_, document) = document(context, &site, &args.guest)?;
    let workshop = Workshop::open(&site).map_err(|problems| unusable("the site's profiles", &problems))?;
    let all: Result<Vec<Document>, Problems> =
        site.guests.iter().map(|guest| workshop.document(guest)).collect();
    let all = all.map_err(|problems| unusable("the site's profiles", &problems))?;
    let files = export::export(args.format, &site, &document, &all);
    for file in &files {
        match &args.to {
            Some(dir) => {
                let path = dir.join(&file.name);
                context.host.write(&path, file.content.as_bytes(), 0o644)?;
                context.progress.say(&format!("wrote '{}'", path.display()));
            }
            None if files.len() > 1 => print(&format!("==> {} <==\n{}\n", file.name, file.content))?,
            None => print(&file.content)?,
        }
    }
    Ok(Exit::Done)
}

/// Prints a profile that says what the file does.
pub(super) fn import(args: &ImportArgs, context: &Context) -> Result<Exit> {
    let what = format!("'{}'", args.file.display());
    let mut problems = Problems::default();
    let text = directory::read(&args.file, &mut problems);
    let text = match text {
        Some(text) => text,
        None => return Err(unusable(&what, &problems)),
    };
    let imported =
        import::import(args.format, &text, &args.context).map_err(|problems| unusable(&what, &problems))?;
    if context.json {
        print_json(&serde_json::json!({
            "version": 1,
            "variables": imported.variables,
            "packages": imported.packages,
            "users": imported.users,
            "groups": imported.groups,
        }))?;
        return Ok(Exit::Done);
    }
    let name = args.file.file_name().context("the file has no name")?.to_string_lossy().into_owned();
    print(&import::profile(&imported, &name))?;
    context.progress.say("hint: as 'profiles/NAME.toml' in the site it is a profile that guests can have");
    Ok(Exit::Done)
}
