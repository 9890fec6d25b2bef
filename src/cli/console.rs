//! `gridgate console GUEST`

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use regex::bytes::Regex;

use crate::backend::line::SerialLine;
use crate::backend::spec::Spec;
use crate::cli::{Context, Ending, Exit, print, print_json};
use crate::console::attach::{
    Ended, Escape, Options, Selection, Which, Who, attach, print_log, print_rest, show_end,
};
use crate::console::client;
use crate::console::protocol::Mode;
use crate::console::ready;
use crate::console::record::RunRecord;
use crate::console::times::Window;
use crate::console::when::{self, When};
use crate::console::writers;
use crate::names::{Bytes, GuestName};
use crate::report::text::table;

/// Attach to a guest's console, or print its log
///
/// Shows what the guest has said since it was started, and then whatever comes. One user writes, any number read. The
/// escape key leaves: Ctrl-] alone, or with a key after it: . leaves at once, b sends a break (for a system request),
/// ? lists the keys, Ctrl-] again sends itself, for a console inside a console.
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// The guest
    #[arg(required_unless_present_any = ["all", "broadcast"])]
    pub guest: Option<GuestName>,
    /// More guests, with --all
    #[arg(value_name = "GUEST", requires = "all")]
    pub more: Vec<GuestName>,
    /// Show every guest's console (or those that are named) in panes of this terminal; ? lists the keys
    #[arg(long, conflicts_with_all = ["take", "log", "raw", "tail", "wait", "writers", "broadcast"])]
    pub all: bool,
    /// Do not type, only read
    #[arg(long)]
    pub read_only: bool,
    /// Become the one who types, even if somebody else is
    #[arg(long, conflicts_with = "read_only")]
    pub take: bool,
    /// Show only so much of what was said before
    #[arg(long, value_name = "SIZE", conflicts_with = "log")]
    pub tail: Option<Bytes>,
    /// Wait for the guest's next start, now and after each end
    #[arg(long)]
    pub wait: bool,
    /// Key that leaves: ^] (twice sends it), ^a, ..., none
    #[arg(long, value_name = "KEY", default_value = "^]", env = "GRIDGATE_ESCAPE")]
    pub escape: Escape,
    /// Print the log instead of attaching
    #[arg(long, conflicts_with_all = ["read_only", "take"])]
    pub log: bool,
    /// Which boot's: 0 is the newest, -1 the one before, 7 the seventh, all
    #[arg(long, value_name = "N", requires = "log", allow_hyphen_values = true)]
    pub boot: Option<Which>,
    /// Not before: 10:00, 10:00:05, '2026-11-21 10:00', -5min, yesterday
    #[arg(long, value_name = "TIME", requires = "log", allow_hyphen_values = true)]
    pub since: Option<When>,
    /// Not after
    #[arg(long, value_name = "TIME", requires = "log", allow_hyphen_values = true)]
    pub until: Option<When>,
    /// Only lines that match; status 3 if none does
    #[arg(long, value_name = "REGEX", requires = "log")]
    pub grep: Option<String>,
    /// Go on as long as the guest runs
    #[arg(long, requires = "log", conflicts_with_all = ["boot", "until"])]
    pub follow: bool,
    /// Leave escape sequences that could harm a terminal in
    #[arg(long)]
    pub raw: bool,
    /// Print who has typed, from where, when and how much
    #[arg(long, requires = "guest", conflicts_with_all = ["log", "read_only", "take", "wait", "broadcast"])]
    pub writers: bool,
    /// Show a line to everybody who is attached, to this guest or to any
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["log", "read_only", "take", "wait"])]
    pub broadcast: Option<String>,
}

/// Attaches, prints or tells. `revive` is the program to start a holder with where no service manager does it.
pub fn run(args: &ConsoleArgs, context: &Context, revive: Option<PathBuf>) -> Result<Exit> {
    if let Some(text) = &args.broadcast {
        return broadcast(args.guest.as_ref(), text, context);
    }
    let Some(guest) = &args.guest else { bail!("no guest is named") };
    if args.writers {
        return writers(guest, context);
    }
    if args.log {
        return log(args, guest, context, revive);
    }
    let mut options = options(args, revive)?;
    options.tail = args.tail.map(|tail| tail.0);
    if !is_running(context, guest)? {
        show_end(&context.paths, guest, &mut std::io::stdout().lock(), &mut say)?;
        if !args.wait {
            let log = format!("gridgate console {guest} --log shows all that it said");
            bail!(
                "guest '{guest}' is not running; gridgate start {guest} starts it, {log}, --wait waits for its next start"
            );
        }
    }
    show(args, guest, context, &options)?;
    Ok(Exit::Done)
}

fn options(args: &ConsoleArgs, revive: Option<PathBuf>) -> Result<Options> {
    Ok(Options {
        mode: if args.read_only || args.log { Mode::Read } else { Mode::Write },
        take: args.take,
        escape: args.escape,
        raw: args.raw,
        input: !args.log,
        who: Who::calls(),
        tail: None,
        from: None,
        pattern: pattern(args)?,
        revive,
    })
}

fn pattern(args: &ConsoleArgs) -> Result<Option<Regex>> {
    let read = |text: &String| ready::pattern(text).map_err(|e| Ending::error(Exit::Usage, format!("{e:#}")));
    args.grep.as_ref().map(read).transpose()
}

/// Attaches, again and again if that is asked for.
fn show(args: &ConsoleArgs, guest: &GuestName, context: &Context, options: &Options) -> Result<()> {
    let mut options = options.clone();
    loop {
        if !is_running(context, guest)? {
            say(&format!("waiting for the next start of {guest}, Ctrl-C leaves"));
            while !is_running(context, guest)? {
                std::thread::sleep(NEXT_LOOK);
            }
        }
        if let Some(exe) = &options.revive {
            client::ensure_holder(&context.paths, exe)?;
        }
        await_console(context, guest)?;
        let spec = Spec::read(&context.host, &context.paths, guest).ok().flatten();
        let line = SerialLine { spec, run_dir: context.paths.run_guest(guest) };
        match attach(&context.paths, guest, &options, &line)? {
            Ended::Guest(_) if args.wait => (options.tail, options.from) = (None, None),
            Ended::Detached | Ended::Guest(_) => return Ok(()),
        }
    }
}

/// Nothing tells of a start where no console holder may be; an administrator is not kept waiting noticeably.
const NEXT_LOOK: Duration = Duration::from_millis(200);
/// A holder takes a guest's console up before its first byte, and after its own end within this.
const TAKE_UP_LIMIT: Duration = Duration::from_secs(5);

/// A guest whose process has only just begun has no console yet.
fn await_console(context: &Context, guest: &GuestName) -> Result<()> {
    let began = std::time::Instant::now();
    while began.elapsed() < TAKE_UP_LIMIT && is_running(context, guest)? {
        if client::list(&context.paths).is_ok_and(|all| all.iter().any(|console| console.guest == *guest)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn is_running(context: &Context, guest: &GuestName) -> Result<bool> {
    Ok(RunRecord::read(&context.paths, guest)?.is_some_and(|run| run.is_alive()))
}

fn log(args: &ConsoleArgs, guest: &GuestName, context: &Context, revive: Option<PathBuf>) -> Result<Exit> {
    let (since_s, until_s) = when::window(args.since, args.until, &when::now())
        .map_err(|e| Ending::error(Exit::Usage, format!("the time that was asked for {e}")))?;
    let window = Window { since_s, until_s };
    // Who asks for a time has no boot in mind.
    let boots = if window.is_open() { Which::One(0) } else { Which::All };
    let selection =
        Selection { boots: args.boot.unwrap_or(boots), window, pattern: pattern(args)?, raw: args.raw };
    let mut options = options(args, revive)?;
    let follows = args.follow && (args.wait || is_running(context, guest)?);
    if follows && !has_log(context, guest)? {
        show(args, guest, context, &options)?;
        return Ok(Exit::Done);
    }
    let printed = print_log(&context.paths, guest, &selection, &mut std::io::stdout().lock(), &mut say)?;
    if follows {
        options.from = is_running(context, guest)?.then_some(printed.end);
        let shown = if options.from.is_some() || args.wait {
            show(args, guest, context, &options)
        } else {
            Err(anyhow::anyhow!("following the console of guest '{guest}': it has ended"))
        };
        if shown.is_err() && !is_running(context, guest)? {
            print_rest(&context.paths, guest, printed.end, &selection, &mut std::io::stdout().lock())?;
            return Ok(Exit::Done);
        }
        return shown.map(|()| Exit::Done);
    }
    Ok(if selection.pattern.is_some() && printed.picked == 0 { Exit::Differs } else { Exit::Done })
}

fn has_log(context: &Context, guest: &GuestName) -> Result<bool> {
    use crate::host::files::Files;
    Ok(!context.host.list(&context.paths.console(guest))?.is_empty())
}

fn broadcast(guest: Option<&GuestName>, text: &str, context: &Context) -> Result<Exit> {
    let said = format!("{}: {text}", Who::calls());
    let told = client::broadcast(&context.paths, guest, &said).context("telling those who are attached")?;
    if context.json {
        print_json(&serde_json::json!({ "version": 1, "told": told }))?;
    } else {
        let clients: usize = told.iter().map(|told| told.clients).sum();
        context.progress.say(&format!("{clients} attached to {} consoles were told", told.len()));
    }
    Ok(Exit::Done)
}

fn writers(guest: &GuestName, context: &Context) -> Result<Exit> {
    let writers = writers::writers(&context.paths.console(guest));
    if context.json {
        print_json(&serde_json::json!({ "version": 1, "writers": writers }))?;
        return Ok(Exit::Done);
    }
    let head = ["WHO", "FROM", "FIRST KEY", "LAST KEY", "BYTES", "BOOT"].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    for writer in &writers {
        let open = || "-".to_owned();
        rows.push(vec![
            writer.who.clone(),
            writer.origin.clone().unwrap_or_else(open),
            when::local(writer.began_at_ms),
            writer.ended_at_ms.map_or_else(open, when::local),
            writer.bytes.map_or_else(open, |bytes| bytes.to_string()),
            writer.boot.to_string(),
        ]);
    }
    print(&table(&rows))?;
    Ok(Exit::Done)
}

fn say(text: &str) {
    eprintln!("[gridgate: {text}]");
}
