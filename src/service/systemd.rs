//! Guests as units of the host's systemd: `gridgate-guest@NAME.service`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::host::Live;
use crate::host::files::Files;
use crate::host::programs::{Program, Programs};
use crate::names::GuestName;
use crate::paths::Paths;
use crate::service::ladder::{Rung, Stopped};
use crate::service::{Manager, Readiness, direct, readiness};

/// See the module.
#[derive(Debug)]
pub struct Systemd {
    paths: Paths,
}

/// The console holder's unit.
pub const CONSOLE: &str = "gridgate-console.service";

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

    fn systemctl(&self, verb: &str, unit: &str) -> Result<()> {
        Live.run(&Program::new("systemctl").args(["--quiet", verb, unit])).map(|_| ())
    }

    fn end(&self, guest: &GuestName, how: impl FnOnce(&str) -> Result<()>) -> Result<Stopped> {
        let unit = unit(guest);
        let record = self.paths.last_stop(guest);
        Live.remove(&record)?;
        // From now on a boot does not bring it up either.
        self.systemctl("disable", &unit)?;
        let active =
            Live.run_any(&Program::new("systemctl").args(["is-active", "--quiet", &unit]))?.status == 0;
        how(&unit)?;
        match Live.read(&record)? {
            Some(bytes) => Ok(serde_json::from_slice(&bytes)?),
            None if active => Ok(Stopped { rung: Rung::Killed, took_ms: 0 }),
            None => Ok(Stopped::already()),
        }
    }
}

fn unit_template() -> &'static str {
    "gridgate-guest@.service"
}

/// The unit of a guest.
pub fn unit(guest: &GuestName) -> String {
    format!("gridgate-guest@{guest}.service")
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

    fn prepare(&self) -> Result<()> {
        self.systemctl("start", CONSOLE)
    }

    fn start(&self, guest: &GuestName) -> Result<()> {
        let unit = unit(guest);
        // What ran before has no say in what is started now.
        let _ = self.systemctl("reset-failed", &unit);
        self.systemctl("enable", &unit)?;
        if let Err(error) = self.systemctl("start", &unit) {
            let journal =
                Program::new("journalctl").args(["--no-pager", "--output=cat", "--lines=5", "--unit", &unit]);
            let said = Live.run_any(&journal).map(|ran| ran.text()).unwrap_or_default();
            bail!("starting guest '{guest}': {error:#}; its unit said: {}", said.replace('\n', " | "));
        }
        Ok(())
    }

    fn stop(&self, guest: &GuestName) -> Result<Stopped> {
        self.end(guest, |unit| self.systemctl("stop", unit))
    }

    fn kill(&self, guest: &GuestName) -> Result<Stopped> {
        self.end(guest, |unit| {
            let kill = Program::new("systemctl").args(["kill", "--signal=KILL", unit]);
            // Nothing to kill is fine: stopping settles it.
            let _ = Live.run_any(&kill)?;
            self.systemctl("stop", unit)
        })
    }

    fn await_ready(&self, guest: &GuestName, limit: Duration) -> Result<Readiness> {
        readiness(&self.paths, guest, limit, || Ok(()))
    }

    fn any_running(&self) -> bool {
        direct::any_running(&self.paths)
    }

    fn retire(&self) -> Result<()> {
        self.systemctl("stop", CONSOLE)
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
