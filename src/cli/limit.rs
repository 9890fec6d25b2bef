//! `gridgate limit`: what a guest may use of the host, shown and changed.

use anyhow::Result;
use clap::Args as ClapArgs;
use serde::Serialize;

use super::{Context, Ending, Exit};
use crate::backend::backend;
use crate::backend::spec::Spec;
use crate::config;
use crate::config::explain::Explain;
use crate::config::limits::{Limit, Limits, overhead};
use crate::console::record::RunRecord;
use crate::events::{self, What};
use crate::names::{Bytes, GuestName};
use crate::report;
use crate::service::limits::{self, Change, Ignored, Kept};

/// Show or change what a guest may use of the host
///
/// A change holds at once for a guest that runs, and is kept over restarts and boots. KEY is cpu (50%, of one processor),
/// cpu_weight (1 to 10000), memory (512M, of the whole hypervisor), pids, disk_read and disk_write (10M, a second),
/// disk_read_ops and disk_write_ops (a second), net_in and net_out (10M, bytes a second). VALUE `none` lifts a limit of the
/// site's files, and `site` (or nothing) goes back to them.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The guest
    #[arg(value_name = "GUEST")]
    pub guest: GuestName,
    /// What to change; shows all if nothing is named
    #[arg(value_name = "KEY=VALUE")]
    pub changes: Vec<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    guest: &'a GuestName,
    limits: Vec<Row>,
}

/// A limit, and where it comes from.
#[derive(Serialize)]
struct Row {
    limit: &'static str,
    value: Option<String>,
    amount: Option<u64>,
    origin: Origin,
    place: Option<String>,
    holds: Option<bool>,
    why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Origin {
    /// Nothing limits it.
    Nothing,
    /// The site's files.
    Site,
    /// This command.
    Kept,
}

/// What is known of a guest and its limits.
struct Known {
    spec: Option<Spec>,
    run: Option<RunRecord>,
    /// What the site's files say; those that it was started with, if they cannot be used or do not name it.
    site: Limits,
    explain: Explain,
    kept: Kept,
}

/// Exit 3 if a limit does not hold for a guest that runs, 4 for one that would kill it.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    let changes = args.changes.iter().map(|word| Change::parse(word)).collect::<Result<Vec<_>, _>>();
    let changes = changes.map_err(|why| {
        let names = Limit::ALL.map(Limit::name).join(", ");
        Ending::error(
            Exit::Usage,
            format!("{why}\nhint: for example cpu=50% or memory=none; limits are {names}"),
        )
    })?;
    if changes.is_empty() {
        let known = Known::gather(args, context)?;
        return show(args, context, &known);
    }
    context.need_root("limiting guests")?;
    let _lock = context.lock()?;
    let known = Known::gather(args, context)?;
    change(args, context, known, &changes)
}

impl Known {
    fn gather(args: &Args, context: &Context) -> Result<Self> {
        let (host, paths, guest) = (&context.host, &context.paths, &args.guest);
        let spec = Spec::read(host, paths, guest)?;
        let loaded = config::load(&paths.site, &context.load_options());
        let (site, explain) = match loaded {
            Ok(loaded) => {
                context.known_or_here(&loaded.site, std::slice::from_ref(guest))?;
                (loaded.site.guest(guest).map(|guest| guest.limits), loaded.explain)
            }
            Err(_) => {
                context.was_here(guest)?;
                context
                    .progress
                    .say("note: the site's files cannot be used; going by what the guest was started with");
                (None, Explain::default())
            }
        };
        Ok(Self {
            site: site.or_else(|| spec.as_ref().map(|spec| spec.limits)).unwrap_or_default(),
            spec,
            run: RunRecord::read(paths, guest)?.filter(RunRecord::is_alive),
            explain,
            kept: Kept::read(host, paths, guest)?,
        })
    }

    fn ignored(&self, context: &Context) -> Vec<Ignored> {
        match (&self.spec, &self.run) {
            (Some(spec), Some(run)) => limits::ignored(&context.paths, spec, &self.kept.over(self.site), run),
            _ => Vec::new(),
        }
    }
}

fn change(args: &Args, context: &Context, mut known: Known, changes: &[Change]) -> Result<Exit> {
    let (host, paths, guest) = (&context.host, &context.paths, &args.guest);
    let (before, old) = (known.kept.over(known.site), known.kept.clone());
    changes.iter().for_each(|change| known.kept.change(*change));
    let now = known.kept.over(known.site);
    if now.memory_bytes != before.memory_bytes {
        refuse_too_little_memory(context, &known, &now)?;
    }
    known.kept.write(host, paths, guest)?;
    // A start goes by the spec, where the site's files may have changed meanwhile.
    if let Some(spec) = known.spec.as_mut().filter(|spec| spec.limits != known.site) {
        spec.limits = known.site;
        spec.write(host, paths)?;
    }
    if let (Some(spec), Some(run)) = (&known.spec, &known.run)
        && let Err(error) = limits::apply(host, paths, spec, run, &now)
    {
        old.write(host, paths, guest)?;
        // As far as it goes; the first error is the one to tell.
        let _ = limits::apply(host, paths, spec, run, &before);
        return Err(error.context(format!("limiting guest '{guest}'")));
    }
    if now != before {
        events::note(paths, guest, What::LimitChanged { limits: now.to_string() });
    }
    let said = if now.is_empty() { "no limits".to_owned() } else { now.to_string() };
    let when = if known.run.is_some() { "" } else { " (when it runs)" };
    context.progress.say(&format!("{guest}: {said}{when}"));
    let ignored = known.ignored(context);
    for Ignored { limit, why } in &ignored {
        context.progress.say(&format!("note: {guest}: {limit} is kept but does not hold: {why}"));
    }
    Ok(if ignored.is_empty() { Exit::Done } else { Exit::Differs })
}

/// The kernel would kill the guest as soon as it used the memory that it was promised.
fn refuse_too_little_memory(context: &Context, known: &Known, now: &Limits) -> Result<()> {
    let (Some(spec), Some(limit)) = (&known.spec, now.memory_bytes) else { return Ok(()) };
    let held = known.run.as_ref().and_then(|run| limits::held_memory(&context.paths, run, &spec.guest));
    if let Some(held) = held.filter(|held| *held > limit) {
        let message = format!(
            "guest '{}' holds {} of memory and would be killed for a limit of {}\nhint: stop it first; the limit can be \
             set while it is down",
            spec.guest,
            Bytes(held),
            Limit::Memory.show(limit)
        );
        return Err(Ending::error(Exit::Refused, message));
    }
    let Some(overhead) = overhead(backend(&spec.engine).name()) else { return Ok(()) };
    let least = Bytes(spec.memory_bytes.0 + overhead);
    if limit >= least.0 {
        return Ok(());
    }
    let message = format!(
        "a limit of {} is too little for guest '{}', which has {} of memory and a hypervisor besides\nhint: {} is the \
         least; or give it less memory in its file",
        Limit::Memory.show(limit),
        spec.guest,
        spec.memory_bytes,
        Limit::Memory.show(least.0)
    );
    Err(Ending::error(Exit::Refused, message))
}

fn show(args: &Args, context: &Context, known: &Known) -> Result<Exit> {
    let ignored = known.ignored(context);
    let rows: Vec<Row> = Limit::ALL.into_iter().map(|limit| row(args, known, &ignored, limit)).collect();
    if context.json {
        super::print_json(&Document { version: 1, guest: &args.guest, limits: rows })?;
    } else {
        let mut table = vec![["LIMIT", "VALUE", "FROM"].map(str::to_owned).to_vec()];
        for row in rows {
            let from = match (row.origin, row.place) {
                (Origin::Nothing, _) => String::new(),
                (Origin::Kept, _) => "kept by gridgate limit".to_owned(),
                (Origin::Site, place) => place.unwrap_or_else(|| "the site's files".to_owned()),
            };
            let from = match row.why {
                Some(why) => format!("{from}; does not hold: {why}"),
                None => from,
            };
            table.push(vec![row.limit.to_owned(), row.value.unwrap_or_else(|| "-".to_owned()), from]);
        }
        super::print(&report::text::table(&table))?;
    }
    Ok(if ignored.is_empty() { Exit::Done } else { Exit::Differs })
}

fn row(args: &Args, known: &Known, ignored: &[Ignored], limit: Limit) -> Row {
    let amount = known.kept.over(known.site).get(limit);
    let key = format!("{}.limits.{}", args.guest, limit.name());
    let explained = known.explain.find(&key).unwrap_or_default().into_iter().find(|e| e.key == key);
    let origin = match (known.kept.has(limit), known.site.get(limit).or(explained.map(|_| 0))) {
        (true, _) => Origin::Kept,
        (false, Some(_)) => Origin::Site,
        (false, None) => Origin::Nothing,
    };
    let place = explained.filter(|_| origin == Origin::Site).map(|e| e.origin.clone());
    let why = ignored.iter().find(|ignored| ignored.limit == limit.name()).map(|ignored| ignored.why.clone());
    Row {
        limit: limit.name(),
        value: amount.map(|amount| limit.show(amount)),
        amount,
        origin,
        place,
        holds: amount.and(known.run.as_ref()).map(|_| why.is_none()),
        why,
    }
}
