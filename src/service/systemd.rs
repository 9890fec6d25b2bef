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
use crate::service::ladder::{Rung, Stopped};
use crate::service::{Manager, Readiness, boot_order, direct, readiness};

/// See the module.
#[derive(Debug)]
pub struct Systemd {
    paths: Paths,
}

/// The console holder's unit.
const CONSOLE: &str = "gridgate-console.service";
/// The networks' unit. Guests' units pull it in, and find the networks that `up` has made already.
const NETWORK: &str = "gridgate-network.service";

/// Where a unit may be installed (systemd.unit(5)).
const UNIT_DIRS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Where the units take the site's and state's directories from.
const DEFAULTS: &str = "/etc/default/gridgate";

impl Systemd {
    /// The manager for this site, if systemd is PID 1 here (sd_booted(3)), gridgate's units are installed, and this site
    /// is the one that they run.
    pub fn for_site(paths: &Paths) -> Result<Option<Self>> {
        if Live.stat(Path::new("/run/systemd/system"))?.is_none() {
            return Ok(None);
        }
        let mut installed = false;
        for dir in UNIT_DIRS {
            installed = installed || Live.stat(&Path::new(dir).join(unit_template()))?.is_some();
        }
        let defaults = Live.read(Path::new(DEFAULTS))?.unwrap_or_default();
        let defaults = String::from_utf8_lossy(&defaults);
        let value =
            |key: &str, otherwise: &str| environment_value(&defaults, key).unwrap_or(otherwise.to_owned());
        let ours = paths.site == Path::new(&value("GRIDGATE_SITE", "/etc/gridgate"))
            && paths.state == Path::new(&value("GRIDGATE_STATE", "/var/lib/gridgate"));
        Ok((installed && ours).then(|| Self { paths: paths.clone() }))
    }

    fn systemctl(&self, verb: &str, units: &[&str]) -> Result<()> {
        Live.run(&Program::new("systemctl").args(["--quiet", verb]).args(units)).map(|_| ())
    }

    fn end(&self, guest: &GuestName, how: How) -> Result<Stopped> {
        super::asked(&self.paths, guest, Desired::Stopped);
        let unit = unit(guest);
        let (record, started) = (self.paths.last_stop(guest), Instant::now());
        Live.remove(&record)?;
        // From now on a boot does not bring it up either.
        self.systemctl("disable", &[&unit])?;
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

fn unit_template() -> &'static str {
    "gridgate-guest@.service"
}

/// The unit of a guest.
pub fn unit(guest: &GuestName) -> String {
    format!("gridgate-guest@{guest}.service")
}

/// The unit that waits until a guest is ready.
fn ready_unit(guest: &GuestName) -> String {
    format!("gridgate-ready@{guest}.service")
}

/// A variable of an environment file, as far as ours go: plain lines, perhaps in double quotes (systemd.exec(5)).
fn environment_value(text: &str, key: &str) -> Option<String> {
    let line = text.lines().rev().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
    Some(line.trim().trim_matches('"').to_owned())
}

impl Manager for Systemd {
    fn name(&self) -> &'static str {
        "systemd"
    }

    fn prepare(&self, host: &dyn Host, site: &Site) -> Result<()> {
        if boot_order::arrange(host, site)? {
            self.systemctl("daemon-reload", &[])?;
        }
        self.systemctl("start", &[CONSOLE])
    }

    fn start(&self, guest: &GuestName) -> Result<()> {
        super::asked(&self.paths, guest, Desired::Running);
        let unit = unit(guest);
        // What ran before has no say in what is started now.
        let _ = self.systemctl("reset-failed", &[&unit, &ready_unit(guest)]);
        self.systemctl("enable", &[&unit])?;
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

    fn forget(&self, host: &dyn Host, guest: &GuestName) -> Result<()> {
        match boot_order::forget(host, guest)? {
            true => self.systemctl("daemon-reload", &[]),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_assignment_in_an_environment_file_wins() {
        let text = "# comment\nGRIDGATE_SITE=/a\nGRIDGATE_SITE=\"/b c\"\n";
        assert_eq!(environment_value(text, "GRIDGATE_SITE").as_deref(), Some("/b c"));
        assert_eq!(environment_value(text, "GRIDGATE_STATE"), None);
    }
}
