//! `gridgate doctor`: try what this host can really do.

use std::io::Write;

use anyhow::{Context, Result};

use crate::facts::doctor::{Diagnosis, diagnose};
use crate::host::Host;
use crate::paths::Paths;

/// Tries everything and prints it; gives whether a guest could be run here at all (else the exit code is 3).
pub fn run(host: &dyn Host, paths: &Paths, json: bool, out: &mut dyn Write) -> Result<bool> {
    let diagnosis = diagnose(host, paths)?;
    if json {
        writeln!(out, "{}", serde_json::to_string(&diagnosis).context("printing the diagnosis")?)?;
    } else {
        print(&diagnosis, out)?;
    }
    Ok(diagnosis.any_backend_works())
}

fn print(diagnosis: &Diagnosis, out: &mut dyn Write) -> Result<()> {
    for check in &diagnosis.checks {
        let state = if check.ok { "works" } else { "does not" };
        let line = format!("{:<28} {state:<9} {:>5} ms  {}", check.name, check.took_ms, check.why);
        writeln!(out, "{}", line.trim_end())?;
        if let Some(mend) = &check.mend {
            writeln!(out, "{:<28} {:<9} {:>8}  mend: {mend}", "", "", "")?;
        }
    }
    Ok(())
}
