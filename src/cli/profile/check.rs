//! `gridgate profile check`: whether a running guest is what its profile says, by the profile's own check commands.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::document;
use crate::backend::spec::Spec;
use crate::cli::{Context, Ending, Exit, print, print_json};
use crate::console::record::RunRecord;
use crate::console::sanitise::Filter;
use crate::names::GuestName;
use crate::service::shell;

/// Which guest, and which checks.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The guest
    #[arg(value_name = "GUEST")]
    pub guest: GuestName,
    /// Only these checks, by name
    #[arg(value_name = "CHECK")]
    pub checks: Vec<String>,
    /// Longest time for each of them
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = crate::names::parse_duration)]
    pub timeout: Duration,
}

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    guest: &'a GuestName,
    ok: bool,
    checks: Vec<Checked>,
}

/// What a check came to.
#[derive(Serialize)]
struct Checked {
    name: String,
    about: String,
    ok: bool,
    exit_status: Option<i32>,
    said: String,
}

/// Runs them one after the other, whatever comes of each.
pub(super) fn run(args: &CheckArgs, context: &Context) -> Result<Exit> {
    let (guest, document) = document(context, &context.site()?, &args.guest)?;
    let unknown = args.checks.iter().find(|name| !document.checks.iter().any(|check| check.name == **name));
    if let Some(name) = unknown {
        let all: Vec<&str> = document.checks.iter().map(|check| check.name.as_str()).collect();
        let hint = crate::config::suggest::hint(name, all, "checks");
        let message = format!("profile '{}' has no check '{name}'\nhint: {hint}", document.profile);
        return Err(Ending::error(Exit::Usage, message));
    }
    let is_up = RunRecord::read(&context.paths, &guest.name)?.is_some_and(|run| run.is_alive());
    let spec = Spec::read(&context.host, &context.paths, &guest.name)?;
    let Some(spec) = spec.filter(|_| is_up) else {
        let message = format!("guest '{0}' does not run\nhint: gridgate start {0}", guest.name);
        return Err(Ending::error(Exit::Failed, message));
    };
    crate::progress::catch_interrupts()?;
    let mut checks = Vec::new();
    for check in &document.checks {
        if !args.checks.is_empty() && !args.checks.contains(&check.name) {
            continue;
        }
        let answer = shell::ask(&context.paths, &spec, &check.line(), args.timeout)?;
        let said = harmless(&answer.said);
        if crate::progress::interrupted() {
            anyhow::bail!("checking guest '{}': interrupted", guest.name);
        }
        if answer.status == Some(shell::CUT_OFF) {
            let hint = format!("hint: gridgate ssh {} shows more", guest.name);
            return Err(Ending::error(
                Exit::Failed,
                format!("guest '{}' cannot be asked: {said}\n{hint}", guest.name),
            ));
        }
        let checked = Checked {
            name: check.name.clone(),
            about: check.about.clone(),
            ok: answer.status == Some(0),
            exit_status: answer.status,
            said,
        };
        if !context.json {
            print(&line(&checked, args.timeout))?;
        }
        checks.push(checked);
    }
    let ok = checks.iter().all(|check| check.ok);
    if context.json {
        print_json(&Report { version: 1, guest: &guest.name, ok, checks })?;
    } else if checks.is_empty() {
        context.progress.say(&format!("profile '{}' has no checks", document.profile));
    }
    Ok(if ok { Exit::Done } else { Exit::Differs })
}

/// What comes from a guest may be read on a terminal.
fn harmless(said: &[u8]) -> String {
    let (mut filter, mut plain) = (Filter::plain(), Vec::new());
    filter.push(said, &mut plain);
    filter.finish(&mut plain);
    String::from_utf8_lossy(&plain).trim_end().to_owned()
}

/// One that fails is shown with what it said.
fn line(checked: &Checked, timeout: Duration) -> String {
    let how = match checked.exit_status {
        Some(0) => return format!("ok      {}: {}\n", checked.name, checked.about),
        Some(status) => format!("ended with status {status}"),
        None => format!("did not end in {} s", timeout.as_secs()),
    };
    let mut text = format!("FAILED  {}: {} ({how})\n", checked.name, checked.about);
    for said in checked.said.lines() {
        text.push_str(&format!("        {said}\n"));
    }
    text
}
