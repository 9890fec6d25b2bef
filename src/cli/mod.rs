//! The command line: one file a verb, arguments in, report out. Help, manual pages and completions come from these
//! definitions.

pub mod check;
pub mod chunks;
pub mod clone;
pub mod console;
pub mod doctor;
pub mod down;
mod ending;
pub mod enter;
pub mod events;
pub mod gc;
pub mod guard;
pub mod generate;
pub mod hold;
pub mod host;
pub mod hosted;
pub mod image;
pub mod init;
pub mod launch;
pub mod lifecycle;
pub mod limit;
pub mod names;
pub mod prepare;
pub mod network;
pub mod panes;
pub mod personalise;
pub mod profile;
pub mod sign;
pub mod site;
pub mod ssh;
pub mod status;
#[cfg(test)]
mod tests;
pub mod unit;
pub mod units;
pub mod up;
pub mod wait;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde::Serialize;

pub(crate) use self::ending::refusal;
pub use self::ending::{Ending, Exit};
use crate::backup::commit;
use crate::config::site::Site;
use crate::config::{self, LoadOptions};
use crate::console::client;
use crate::host::Live;
use crate::host::files::{Files, LockGuard};
use crate::names::GuestName;
use crate::paths::Paths;
use crate::progress::{Progress, Talk};
use crate::service;

const EVERYWHERE: &str = "Options of every command";

/// A whole grid site's gateway on one box
#[derive(Debug, Parser)]
#[command(name = "gridgate", version = crate::remote::LONG_VERSION, max_term_width = 80)]
pub struct Cli {
    /// Directory with the site's files
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "GRIDGATE_SITE",
        default_value = "/etc/gridgate",
        help_heading = EVERYWHERE
    )]
    pub site: PathBuf,
    /// Directory for images, disks and logs
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "GRIDGATE_STATE",
        default_value = "/var/lib/gridgate",
        help_heading = EVERYWHERE
    )]
    pub state: PathBuf,
    /// Print data as JSON
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
    /// Say nothing but errors
    #[arg(short, long, global = true, help_heading = EVERYWHERE)]
    pub quiet: bool,
    /// Say each step
    #[arg(short, long, global = true, conflicts_with = "quiet", help_heading = EVERYWHERE)]
    pub verbose: bool,
    /// Where to do it
    #[command(flatten)]
    pub elsewhere: host::Args,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// All verbs.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "each verb's arguments carry its help")]
pub enum Command {
    Init(init::Args),
    Check(check::Args),
    /// Try what this host can really do
    Doctor,
    /// Build, look at and remove golden images
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Look at what guests are configured to be
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// Make, back up and restore whole machines of sites
    #[command(subcommand)]
    Site(site::SiteCommand),
    Plan(up::PlanArgs),
    Up(up::Args),
    Down(down::Args),
    Clone(clone::Args),
    Status(status::Args),
    Start(lifecycle::StartArgs),
    Stop(lifecycle::StopArgs),
    Restart(lifecycle::RestartArgs),
    Kill(lifecycle::KillArgs),
    Limit(limit::Args),
    Personalise(Box<personalise::Args>),
    Wait(wait::Args),
    Console(console::ConsoleArgs),
    Ssh(ssh::Args),
    Enter(enter::Args),
    Events(events::Args),
    Gc(gc::Args),
    Units(units::Args),
    #[command(hide = true)]
    Generate(generate::Args),
    /// Print the names of the site's guests
    #[command(hide = true)]
    Names,
    #[command(hide = true)]
    Launch(launch::Args),
    #[command(hide = true)]
    Hold(hold::HoldArgs),
    #[command(hide = true)]
    Guard(guard::Args),
    #[command(hide = true)]
    Hosted(hosted::Args),
    #[command(hide = true)]
    Network(network::Args),
    #[command(hide = true)]
    Unit(unit::Args),
}

/// Another command may be about to end.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// What came in between may have guests to stop, each of which takes its time.
const LOCK_PATIENCE_AGAIN: Duration = Duration::from_secs(300);

/// What every verb is given.
#[derive(Debug)]
pub struct Context {
    /// Where everything is.
    pub paths: Paths,
    /// Data as JSON.
    pub json: bool,
    /// Talk.
    pub progress: Progress,
    /// This machine.
    pub host: Live,
}

impl Context {
    /// The site, loaded and checked; all its problems are one error with status 2.
    pub fn site(&self) -> Result<Site> {
        match config::load(&self.paths.site, &self.load_options()) {
            Ok(loaded) => Ok(loaded.site),
            Err(problems) => {
                let text = format!("the site in '{}' cannot be used:\n{problems}", self.paths.site.display());
                Err(Ending::error(Exit::Usage, text))
            }
        }
    }

    /// The site, or if its files cannot be used one that names nothing, and what is wrong with them. For commands that
    /// look at what is here, or end it: a box in trouble must not become unmanageable by a typing error.
    pub fn site_if_usable(&self) -> (Site, Option<anyhow::Error>) {
        match self.site() {
            Ok(site) => (site, None),
            Err(error) => (Site::of_nothing(self.paths.site.clone()), Some(error)),
        }
    }

    /// As [`Context::site_if_usable`], for a command that stops guests; says so if it must do without the site's files.
    pub fn site_to_stop(&self) -> Site {
        let (site, error) = self.site_if_usable();
        if let Some(error) = error {
            self.progress.say(&format!("{error}"));
            self.progress.say("note: going on with what the state directory knows; guests stop in no order");
        }
        site
    }

    /// What loading a site should know beside its files: golden images that are here already.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions { image_dirs: vec![self.paths.images()], ..LoadOptions::default() }
    }

    /// One command at a time changes a site, and not while a guest of a command that was killed is still on its way up.
    pub fn lock(&self) -> Result<LockGuard> {
        self.lock_within(LOCK_PATIENCE)
    }

    /// As [`Context::lock`], for a command that had it before, and gave way to others while it waited.
    pub fn lock_again(&self) -> Result<LockGuard> {
        self.lock_within(LOCK_PATIENCE_AGAIN)
    }

    fn lock_within(&self, patience: Duration) -> Result<LockGuard> {
        let lock = self.host.lock(&self.paths.lock(), patience)?;
        service::settle(&self.paths)?;
        if commit::finish(&self.host, &self.paths)? {
            self.progress.say("finished a restore that was killed");
        }
        Ok(lock)
    }

    /// Brings back a console holder that was killed while guests run, where no service manager does it.
    pub fn revive_holder(&self) -> Result<()> {
        let looked_after =
            service::direct::any_running(&self.paths) || service::direct::any_waiting(&self.paths);
        let needed = looked_after && !client::holder_runs(&self.paths);
        match needed && service::systemd::Systemd::for_site(&self.paths)?.is_none() {
            true => service::direct::Direct::new(&self.paths)?.revive(),
            false => Ok(()),
        }
    }

    /// Wrong usage if the site has no such guest.
    pub fn known(&self, site: &Site, guests: &[GuestName]) -> Result<()> {
        match guests.iter().find(|guest| site.guest(guest).is_none()) {
            Some(guest) => {
                let names: Vec<&str> = site.guests.iter().map(|guest| guest.name.as_str()).collect();
                let message =
                    format!("site '{}' has no guest '{guest}'\nhint: it has {}", site.name, names.join(", "));
                Err(Ending::error(Exit::Usage, message))
            }
            None => Ok(()),
        }
    }

    /// As [`Context::known`], but content with a guest that has left something here: its console can be read even if the
    /// site's files are broken, or name it no more.
    pub fn was_here(&self, guest: &GuestName) -> Result<()> {
        match self.left_something(guest)? {
            true => Ok(()),
            false => self.known(&self.site()?, std::slice::from_ref(guest)),
        }
    }

    /// Wrong usage if neither the site nor the state directory knows one of the guests.
    pub fn known_or_here(&self, site: &Site, guests: &[GuestName]) -> Result<()> {
        for guest in guests {
            if !self.left_something(guest)? {
                self.known(site, std::slice::from_ref(guest))?;
            }
        }
        Ok(())
    }

    fn left_something(&self, guest: &GuestName) -> Result<bool> {
        for path in [self.paths.console(guest), self.paths.run_record(guest), self.paths.spec(guest)] {
            if self.host.stat(&path)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Refuses in one sentence if this process may not do what the command needs.
    pub fn need_root(&self, doing: &str) -> Result<()> {
        if rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let hint = "hint: run it with sudo; init, check, plan and status work without root";
        Err(Ending::error(
            Exit::Failed,
            format!("{doing} needs root (mounts, networks, hypervisors)\n{hint}"),
        ))
    }
}

/// Runs one command, here or on another box; the process's exit status, which elsewhere may be another than those of
/// [`Exit`]. `words` are those that the command line was read from. The caller prints the error, if there is one.
pub fn run(cli: &Cli, words: &[OsString]) -> Result<u8> {
    let talk = match (cli.quiet, cli.verbose) {
        (true, _) => Talk::Quiet,
        (false, false) => Talk::Normal,
        (false, true) => Talk::Verbose,
    };
    let progress = Progress::new(talk);
    if let Some(status) = host::run(cli, words, &progress)? {
        return Ok(status);
    }
    match &cli.command {
        Command::Hosted(args) => hosted::run(args),
        _ => run_here(cli, progress).map(|exit| exit as u8).map_err(refusal),
    }
}

fn run_here(cli: &Cli, progress: Progress) -> Result<Exit> {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let paths = Paths::new(&absolute(&cli.site), &absolute(&cli.state));
    let context = Context { paths, json: cli.json, progress, host: Live };
    match &cli.command {
        Command::Init(args) => init::run(args, &context.host),
        Command::Check(args) => check::run(args, &context),
        Command::Doctor => {
            let works = doctor::run(&context.host, &context.paths, context.json, &mut Stdout)?;
            Ok(if works { Exit::Done } else { Exit::Differs })
        }
        Command::Image(command) => {
            crate::progress::catch_interrupts()?;
            image::run(command, &context, &mut Stdout).map(|()| Exit::Done)
        }
        Command::Profile(command) => profile::run(command, &context),
        Command::Site(command) => site::run(command, &context),
        Command::Plan(args) => up::plan(args, &context),
        Command::Up(args) => up::run(args, &context),
        Command::Down(args) => down::run(args, &context),
        Command::Clone(args) => clone::run(args, &context),
        Command::Status(args) => status::run(args, &context),
        Command::Start(args) => lifecycle::start(args, &context),
        Command::Stop(args) => lifecycle::stop(args, &context),
        Command::Restart(args) => lifecycle::restart(args, &context),
        Command::Kill(args) => lifecycle::kill(args, &context),
        Command::Limit(args) => limit::run(args, &context),
        Command::Personalise(args) => personalise::run(args, &context),
        Command::Wait(args) => wait::run(args, &context),
        Command::Console(args) => {
            if let (Some(guest), false) = (&args.guest, args.all) {
                context.was_here(guest)?;
            }
            // Under systemd the holder is a unit and comes back by itself.
            let revive = match service::systemd::Systemd::for_site(&context.paths)? {
                Some(_) => None,
                None => std::env::current_exe().ok(),
            };
            match args.all {
                true => panes::run(args, &context, revive),
                false => console::run(args, &context, revive),
            }
        }
        Command::Ssh(args) => match context.site_if_usable() {
            (site, None) => match ssh::run(args, &site, &context.paths)? {},
            (_, Some(error)) => match ssh::run_as_started(args, error, &context)? {},
        },
        Command::Events(args) => events::run(args, &context),
        Command::Enter(args) => match enter::run(args, &context.site()?, &context.paths)? {},
        Command::Gc(args) => gc::run(args, &context),
        Command::Units(args) => units::run(args, &context),
        Command::Generate(args) => generate::run(args),
        Command::Names => names::run(&context),
        Command::Launch(args) => launch::run(args, &context),
        Command::Guard(args) => guard::run(args, &context),
        Command::Hold(args) => hold::run(args, &context.paths).map(|()| Exit::Done),
        // Its end is that of the command that it runs.
        Command::Hosted(args) => hosted::run(args).map(|_| Exit::Done),
        Command::Network(args) => network::run(args, &context),
        Command::Unit(args) => unit::run(args, &context),
    }
}

/// Where data goes. A reader that has gone away is a normal end: what nobody reads is as good as printed.
struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match std::io::stdout().lock().write(bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match std::io::stdout().lock().flush() {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed,
        }
    }
}

/// Prints data.
pub fn print(text: &str) -> Result<()> {
    Ok(Stdout.write_all(text.as_bytes())?)
}

/// Prints a document.
pub fn print_json(document: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(document)?;
    text.push('\n');
    print(&text)
}
