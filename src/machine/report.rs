//! What a machine is that was made: for those who send it away, and for those who receive it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::config::site::Site;
use crate::host::Host;
use crate::identity::assigned::{self, Assigned};
use crate::identity::keys;
use crate::paths::Paths;
use crate::profile::compile::tasks::State;
use crate::profile::record::Compiled;

/// Beside the site's identities.
const FILE: &str = "report.json";

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of the format.
    pub version: u32,
    /// The site.
    pub site: String,
    /// What it was written to.
    pub to: PathBuf,
    /// When: seconds since 1970.
    pub made_at_epoch_seconds: u64,
    /// The host first, then the guests.
    pub machines: Vec<Machine>,
    /// Host keys of all of them, as ssh(1) reads them.
    pub known_hosts: PathBuf,
    /// What people still have to do.
    pub manual_steps: Vec<String>,
    /// What else should be known.
    pub notes: Vec<String>,
}

/// The host or a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// First label of its name.
    pub name: String,
    /// Its full name.
    pub fqdn: String,
    /// Whether it is the host.
    pub is_host: bool,
    /// Its fixed addresses.
    pub addresses: Vec<String>,
    /// Fingerprints of its host keys.
    pub host_keys: Vec<String>,
    /// What runs at its first boot, by itself.
    pub first_boot: Vec<String>,
}

/// Made of what the centre keeps of the site; written there too, and the host's keys added to the exported ones.
pub fn of(host: &dyn Host, kept: &Paths, site: &Site, plan: &Plan, own: &Assigned) -> Result<Report> {
    let mut machines = vec![Machine {
        name: plan.host.hostname.to_string(),
        fqdn: plan.host.fqdn.clone(),
        is_host: true,
        addresses: plan.host.addresses.iter().map(|net| net.addr().to_string()).collect(),
        host_keys: fingerprints(own)?,
        first_boot: Vec::new(),
    }];
    let mut manual_steps = vec![match plan.host.addresses.is_empty() {
        true => "plug in network and power; its address comes from DHCP".to_owned(),
        false => "plug in network and power".to_owned(),
    }];
    for guest in &site.guests {
        let has = assigned::load(host, kept, &guest.name)?;
        let compiled = Compiled::recall(host, kept, &guest.name)?.unwrap_or_default();
        let mut machine = Machine {
            name: guest.name.to_string(),
            fqdn: guest.fqdn.clone(),
            is_host: false,
            addresses: guest
                .interfaces
                .iter()
                .flat_map(|nic| &nic.addresses)
                .map(|net| net.addr().to_string())
                .collect(),
            host_keys: has.as_ref().map(fingerprints).transpose()?.unwrap_or_default(),
            first_boot: Vec::new(),
        };
        if !compiled.missing_packages.is_empty() {
            let packages = compiled.missing_packages.join(" ");
            manual_steps.push(format!("{}: install what its image lacks: {packages}", guest.name));
        }
        for task in &compiled.tasks {
            match task.state {
                State::ByHand => manual_steps.push(format!("{}: {}", guest.name, task.about)),
                State::Pending | State::Failed => machine.first_boot.push(task.about.clone()),
                State::Done => {}
            }
        }
        machines.push(machine);
    }
    let known = host.read(&kept.known_hosts())?.unwrap_or_default();
    let text = own_keys(plan, own)? + &String::from_utf8_lossy(&known);
    host.write(&kept.known_hosts(), text.as_bytes(), 0o644)?;
    let report = Report {
        version: 1,
        site: site.name.to_string(),
        to: plan.to.clone(),
        made_at_epoch_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        machines,
        known_hosts: kept.known_hosts(),
        manual_steps,
        notes: plan.notes.clone(),
    };
    host.write(&file(kept), &serde_json::to_vec_pretty(&report)?, 0o644)?;
    Ok(report)
}

/// The report of the last machine that was made of the site; `None` if none was.
pub fn last(host: &dyn Host, kept: &Paths) -> Result<Option<Report>> {
    let path = file(kept);
    let Some(bytes) = host.read(&path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).with_context(|| format!("reading '{}'", path.display()))
}

fn file(kept: &Paths) -> PathBuf {
    kept.state.join(Path::new(FILE))
}

fn own_keys(plan: &Plan, own: &Assigned) -> Result<String> {
    let mut names = vec![plan.host.hostname.to_string()];
    if plan.host.fqdn != names[0] {
        names.push(plan.host.fqdn.clone());
    }
    names.extend(plan.host.addresses.iter().map(|net| net.addr().to_string()));
    let mut text = String::new();
    for key in own.public_lines()? {
        let mut words = key.split_whitespace();
        let (kind, base64) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        // Writing to a String cannot fail; so below.
        let _ = writeln!(text, "{} {kind} {base64}", names.join(","));
    }
    Ok(text)
}

fn fingerprints(assigned: &Assigned) -> Result<Vec<String>> {
    Ok(assigned.public_lines()?.iter().filter_map(|line| keys::fingerprint(line)).collect())
}

/// For people.
pub fn text(report: &Report) -> String {
    let mut text = format!("site {} on '{}'\n", report.site, report.to.display());
    for machine in &report.machines {
        let what = if machine.is_host { "host " } else { "guest" };
        let addresses = match machine.addresses.is_empty() {
            true => "DHCP".to_owned(),
            false => machine.addresses.join(" "),
        };
        let _ =
            writeln!(text, "  {what} {:<24} {addresses:<16} {}", machine.fqdn, machine.host_keys.join(" "));
        for task in &machine.first_boot {
            let _ = writeln!(text, "        at its first boot: {task}");
        }
    }
    let _ = writeln!(text, "host keys: {}", report.known_hosts.display());
    for (title, lines) in [("to do", &report.manual_steps), ("note", &report.notes)] {
        for line in lines {
            let _ = writeln!(text, "{title}: {line}");
        }
    }
    text
}
