//! `gridgate site install --table`: a row of disks, side by side.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{InstallArgs, bundle, consent};
use crate::cli::{Context, Ending, Exit, print, print_json, refusal};
use crate::config::site::Site;
use crate::host::Live;
use crate::machine::bundle::contents;
use crate::machine::install;
use crate::machine::plan::{self, Plan, Request};
use crate::machine::report::{self, Report};
use crate::machine::rows;
use crate::machine::stock::Stock;
use crate::paths::Paths;

/// More at a time only make each other's disks wait.
const SIDE_BY_SIDE: usize = 4;

#[derive(Serialize)]
struct Document {
    version: u32,
    machines: Vec<Made>,
}

#[derive(Serialize)]
struct Made {
    target: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

struct Row {
    stock: Stock,
    site: Site,
    plan: Plan,
}

/// All rows are planned, and agreed to, before the first disk is touched. A row that fails then stops no other.
pub fn run(table: &Path, args: &InstallArgs, context: &Context) -> Result<Exit> {
    let table = std::path::absolute(table)?;
    let text = std::fs::read_to_string(&table);
    let text = text.with_context(|| format!("reading the table '{}'", table.display()))?;
    let usage = |error: anyhow::Error| Ending::error(Exit::Usage, format!("{error:#}"));
    let mut planned = Vec::new();
    let rows = rows::read(&table, &text).map_err(usage)?;
    // Unpacked once, whatever the number of machines.
    let unpacked = match &args.bundle {
        Some(file) => {
            let reader = bundle::open(file, &args.trust, context)?;
            let there = contents::sites(&reader.manifest);
            rows.iter().try_for_each(|row| bundle::named(&there, &row.name).map(drop))?;
            Some((bundle::unpacked(reader, context)?, there))
        }
        None => None,
    };
    for row in rows {
        let (site, stock, packed) = match &unpacked {
            Some((unpacked, there)) => {
                let name = bundle::named(there, &row.name)?;
                let (site, stock, packed) = bundle::load(unpacked, &name, args.keys.as_deref(), context)?;
                (site, stock, Some(packed))
            }
            None => {
                let paths = Paths::new(&row.site, &context.paths.state);
                let own = Context {
                    paths: paths.clone(),
                    json: context.json,
                    progress: crate::progress::Progress::silent(),
                    host: Live,
                };
                (own.site()?, Stock::own(&paths), None)
            }
        };
        let image = bundle::image(args, packed.as_ref())?;
        let request = Request { image, to: row.target, size: row.size, saved: None };
        let plan = plan::plan(&context.host, &stock, &site, &request).map_err(refusal)?;
        planned.push(Row { stock, site, plan });
    }
    // What the centre keeps of a site goes by its name.
    for (at, row) in planned.iter().enumerate() {
        if planned[..at].iter().any(|other| other.site.name == row.site.name) {
            let what = format!("two sites of the table are called '{}'", row.site.name);
            return Err(Ending::error(Exit::Usage, what));
        }
    }
    if args.dry_run {
        for row in &planned {
            print(&format!("{}\n", row.plan.to.display()))?;
            row.plan.steps().iter().try_for_each(|step| print(&format!("  {step}\n")))?;
        }
        return Ok(Exit::Done);
    }
    planned.iter().try_for_each(|row| consent(args, &row.plan, context))?;
    finish(make(&planned, context), context)
}

fn make(rows: &[Row], context: &Context) -> Vec<Made> {
    let next = AtomicUsize::new(0);
    let made: Mutex<Vec<(usize, Made)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE.min(rows.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(row) = rows.get(at) else { return };
                    let result =
                        install::install(&context.host, &row.stock, &row.site, &row.plan, &context.progress);
                    let target = row.plan.to.clone();
                    let one = match result {
                        Ok(report) => Made { target, report: Some(report), error: None },
                        Err(failure) => {
                            let left = failure.left.map(|left| format!("; what is left: {left}"));
                            let error = format!("{:#}{}", failure.error, left.unwrap_or_default());
                            Made { target, report: None, error: Some(error) }
                        }
                    };
                    if let Ok(mut made) = made.lock() {
                        made.push((at, one));
                    }
                }
            });
        }
    });
    let mut made = made.into_inner().unwrap_or_default();
    made.sort_by_key(|(at, _)| *at);
    made.into_iter().map(|(_, made)| made).collect()
}

fn finish(made: Vec<Made>, context: &Context) -> Result<Exit> {
    let failed: Vec<String> = made
        .iter()
        .filter_map(|one| Some(format!("'{}': {}", one.target.display(), one.error.as_ref()?)))
        .collect();
    let count = made.len();
    if context.json {
        print_json(&Document { version: 1, machines: made })?;
    } else {
        made.iter()
            .filter_map(|one| one.report.as_ref())
            .try_for_each(|report| print(&report::text(report)))?;
    }
    match failed.len() {
        0 => Ok(Exit::Done),
        // Others are made, so that it is never as if nothing had happened.
        some => Err(Ending::error(
            Exit::HalfWay,
            format!("{some} of {count} machines were not made:\n{}", failed.join("\n")),
        )),
    }
}
