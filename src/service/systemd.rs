//! Guests as units of the host's systemd: `gridgate-guest@NAME.service`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::config::site::Site;
use crate::host::files::Files;
use crate::host::programs::{Program, Programs};
use crate::host::{Host, Live};
use crate::names::GuestName;
use crate::paths::Paths;
use crate::service::desired::Desired;
use crate::service::generate::{ready_unit, unit};
use crate::service::ladder::{Rung, Stopped};
use crate::service::{Manager, Readiness, boot, direct, readiness};

/// See the module.
#[derive(Debug)]
pub struct Systemd {
    paths: Paths,
}

/// The console holder's unit.
const CONSOLE: &str = "gridgate-console.service";
/// The networks' unit. Guests' units pull it in, and find the networks that `up` has made already.
const NETWORK: &str = "gridgate-network.service";

impl Systemd {
    /// The manager for this site, if systemd is PID 1 here (sd_booted(3)), gridgate's units are installed, and this site
    /// is the one that they run.
    pub fn for_site(paths: &Paths) -> Result<Option<Self>> {
        if Live.stat(Path::new("/run/systemd/system"))?.is_none() {
            return Ok(None);
        }
        let configured = boot::configured(&Live)?;
        let ours = paths.site == configured.site && paths.state == configured.state;
        Ok((ours && boot::template(&Live)?.is_some()).then(|| Self { paths: paths.clone() }))
    }

    fn systemctl(&self, verb: &str, units: &[&str]) -> Result<()> {
        Live.run(&Program::new("systemctl").args(["--quiet", verb]).args(units)).map(|_| ())
    }

    fn end(&self, guest: &GuestName, how: How) -> Result<Stopped> {
        super::asked(&self.paths, guest, Desired::Stopped);
        let unit = unit(guest);
        let (record, started) = (self.paths.last_stop(guest), Instant::now());
        Live.remove(&record)?;
        // What was asked for is on record by now; a link made by name would win over it at a boot.
        if boot::is_enabled(&Live, guest)? {
            self.systemctl("disable", &[&unit])?;
        }
        let is_active = Program::new("systemctl").args(["is-active", "--quiet", &unit]);
        let was_active = Live.run_any(&is_active)?.status == 0;
        if how == How::Killed {
            let kill = Program::new("systemctl").args(["kill", "--signal=KILL", &unit]);
            // Nothing to kill is fine: stopping settles it.
            let _ = Live.run_any(&kill)?;
        }
        self.systemctl("stop", &[&unit])?;
        // A guest that was killed on purpose is none that failed.
        let _ = self.systemctl("reset-failed", &[&unit, &ready_unit(guest)]);
        let killed = Stopped { rung: Rung::Killed, took_ms: started.elapsed().as_millis() as u64 };
        match (Live.read(&record)?, how) {
            _ if !was_active => Ok(Stopped::already()),
            // The unit's own stop may have met a guest that was just dying, and thinks that it was asked.
            (_, How::Killed) => {
                Live.write(&record, &serde_json::to_vec(&killed)?, 0o644)?;
                Ok(killed)
            }
            (Some(bytes), How::Asked) => Ok(serde_json::from_slice(&bytes)?),
            (None, How::Asked) => Ok(killed),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Asked,
    Killed,
}

impl Manager for Systemd {
    fn name(&self) -> &'static str {
        "systemd"
    }

    fn prepare(&self, host: &dyn Host, _site: &Site) -> Result<()> {
        self.agree(host)?;
        self.systemctl("start", &[CONSOLE])
    }

    fn agree(&self, host: &dyn Host) -> Result<()> {
        match boot::is_known(host, &self.paths)? {
            true => Ok(()),
            false => self.systemctl("daemon-reload", &[]),
        }
    }

    fn start(&self, guest: &GuestName) -> Result<()> {
        super::asked(&self.paths, guest, Desired::Running);
        let unit = unit(guest);
        // What ran before has no say in what is started now.
        let _ = self.systemctl("reset-failed", &[&unit, &ready_unit(guest)]);
        if let Err(error) = self.systemctl("start", &[&unit]) {
            let journal =
                Program::new("journalctl").args(["--no-pager", "--output=cat", "--lines=5", "--unit", &unit]);
            let said = Live.run_any(&journal).map(|ran| ran.text()).unwrap_or_default();
            bail!("starting guest '{guest}': {error:#}; its unit said: {}", said.replace('\n', " | "));
        }
        Ok(())
    }

    fn stop(&self, guest: &GuestName, _progress: &mut dyn FnMut(&str)) -> Result<Stopped> {
        self.end(guest, How::Asked)
    }

    fn kill(&self, guest: &GuestName) -> Result<Stopped> {
        self.end(guest, How::Killed)
    }

    fn await_ready(&self, guest: &GuestName, limit: Duration) -> Result<Readiness> {
        readiness(&self.paths, guest, limit, || Ok(()))
    }

    fn any_running(&self) -> bool {
        direct::any_running(&self.paths)
    }

    fn retire(&self) -> Result<()> {
        // The networks are gone by now; their unit has to know, or it would not make them for the next guest.
        self.systemctl("stop", &[CONSOLE, NETWORK])
    }

    fn boots_with_host(&self, host: &dyn Host) -> Result<bool> {
        boot::target_is_enabled(host)
    }
}
