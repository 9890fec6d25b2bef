//! What each guest has here, and whether it runs.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::backend::spec::Spec;
use crate::config::site::Site;
use crate::console::record::{ReadyRecord, ReadyState, RunRecord};
use crate::host::Host;
use crate::identity::personalise::{self, Personalised};
use crate::names::GuestName;
use crate::paths::Paths;
use crate::profile::{self, record::Compiled};

/// One guest, as found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestFacts {
    /// Length of its disk in bytes, if it has one that can be used.
    pub disk_bytes: Option<u64>,
    /// Its disk was made just before the host went down, and may have holes: it has to be made anew.
    pub lost: bool,
    /// What it would be started with.
    pub spec: Option<Spec>,
    /// Digest of the identity that its disk was given; none if it was never finished.
    pub personalised: Option<String>,
    /// Digest of the profile that was compiled into its disk last.
    pub compiled: Option<String>,
    /// Digest of the profile that the site's files give it, or why they give none; nothing if the site does not name it.
    pub profile: Option<Result<String, String>>,
    /// The process that runs it.
    pub running: Option<RunRecord>,
    /// How far it has come since its start.
    pub ready: Option<ReadyState>,
    /// Whether anything of it is kept at all.
    pub kept: bool,
}

/// Looks at the site's guests and at whatever other guests have left something in the state directory.
pub fn gather(host: &dyn Host, paths: &Paths, site: &Site) -> Result<BTreeMap<GuestName, GuestFacts>> {
    let mut names: Vec<GuestName> = site.guests.iter().map(|guest| guest.name.clone()).collect();
    for name in host.list(&paths.guests())? {
        // What is not a guest's name was not made by gridgate.
        if let Ok(name) = name.parse::<GuestName>()
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    let mut profiles: BTreeMap<GuestName, _> = profile::digests(site).into_iter().collect();
    let look = |name: GuestName| {
        let mut facts = look(host, paths, &name)?;
        let digest = profiles.remove(&name);
        facts.profile = digest.map(|digest| digest.map_err(|problems| problems.to_string()));
        Ok((name, facts))
    };
    names.into_iter().map(look).collect()
}

/// Looks at one guest.
pub fn look(host: &dyn Host, paths: &Paths, guest: &GuestName) -> Result<GuestFacts> {
    let running = RunRecord::read(paths, guest)?.filter(RunRecord::is_alive);
    let ready = match &running {
        Some(run) => ReadyRecord::read(paths, guest)?
            .filter(|ready| ready.pid == run.pid && ready.start_ticks == run.start_ticks)
            .map(|ready| ready.state),
        None => None,
    };
    let personalised = personalise::recall(host, paths, guest)?;
    // A running guest has shown that its disk is good.
    let lost = running.is_none() && personalised.as_ref().is_some_and(Personalised::is_lost);
    Ok(GuestFacts {
        disk_bytes: host.stat(&paths.disk(guest))?.filter(|_| !lost).map(|stat| stat.len),
        spec: Spec::read(host, paths, guest)?,
        personalised: personalised.filter(|_| !lost).map(|record| record.digest),
        compiled: Compiled::recall(host, paths, guest)?.map(|compiled| compiled.answers().to_owned()),
        profile: None,
        lost,
        running,
        ready,
        kept: host.stat(&paths.guest(guest))?.is_some(),
    })
}
