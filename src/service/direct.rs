//! Guests without a service manager: the console holder starts and reaps them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::backend::spec::Spec;
use crate::config::site::Site;
use crate::console::client;
use crate::console::protocol::{For, Launch};
use crate::console::record::RunRecord;
use crate::console::restart::Restarts;
use crate::host::files::Files;
use crate::host::{Host, Live, remains};
use crate::names::GuestName;
use crate::paths::Paths;
use crate::service::desired::Desired;
use crate::service::ladder::{self, Rung, Stopped};
use crate::service::{Manager, Readiness, delay_left, readiness, settings};

/// See the module.
#[derive(Debug)]
pub struct Direct {
    paths: Paths,
    exe: PathBuf,
}

/// A Ctrl-C is noticed this late at most.
const SLICE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Asked,
    Killed,
}

/// A launch takes tens of milliseconds; a machine in trouble takes longer.
const LAUNCH_LIMIT: Duration = Duration::from_secs(60);
/// A killed process ends within milliseconds unless it waits for a disk.
const REMAINS_LIMIT: Duration = Duration::from_secs(1);
/// The holder sees a guest's end at once; this is for a holder in trouble.
const NOTICE_LIMIT: Duration = Duration::from_secs(5);

impl Direct {
    /// Starts guests with this very program.
    pub fn new(paths: &Paths) -> Result<Self> {
        let exe = std::env::current_exe().context("finding this program's own file")?;
        Ok(Self { paths: paths.clone(), exe })
    }

    /// Starts a console holder where none answers: after a reboot, or after the last one was killed.
    pub fn revive(&self) -> Result<()> {
        client::ensure_holder(&self.paths, &self.exe)
    }

    fn wait_out_delay(&self, spec: &Spec) -> Result<()> {
        let until = Instant::now() + delay_left(&self.paths, spec)?;
        while Instant::now() < until {
            if crate::progress::interrupted() {
                bail!("interrupted before the delay of guest '{}' was over", spec.guest);
            }
            std::thread::sleep(SLICE.min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    fn end(&self, guest: &GuestName, how: How, progress: &mut dyn FnMut(&str)) -> Result<Stopped> {
        // Without a holder nobody would start it again either.
        let _ = client::stopping(&self.paths, guest);
        let Some(record) = RunRecord::read(&self.paths, guest)?.filter(RunRecord::is_alive) else {
            return Ok(Stopped::already());
        };
        let Some(spec) = Spec::read(&Live, &self.paths, guest)? else {
            bail!(
                "guest '{guest}' runs, but what it was started with is gone from '{}'",
                self.paths.spec(guest).display()
            )
        };
        let stopped = match how {
            How::Asked => ladder::stop(&self.paths, &spec, &record, progress)?,
            How::Killed => ladder::kill(&self.paths, &spec, &record)?,
        };
        if stopped.rung != Rung::Already {
            // What the holder writes about the end must be there when this returns.
            let _ = client::wait_event(
                &self.paths,
                guest,
                For::Stopped,
                Some(record.launched_at_ms),
                NOTICE_LIMIT,
            );
        }
        // What it left behind ends in its own time.
        let until = Instant::now() + REMAINS_LIMIT;
        while !remains::take_away(&Live, &self.paths, guest, record.netns.as_deref())?
            && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(stopped)
    }
}

impl Manager for Direct {
    fn name(&self) -> &'static str {
        "direct"
    }

    fn prepare(&self, _host: &dyn Host, _site: &Site) -> Result<()> {
        self.revive()
    }

    fn start(&self, guest: &GuestName) -> Result<()> {
        let Some(spec) = Spec::read(&Live, &self.paths, guest)? else {
            bail!("guest '{guest}' was never brought up here; try: gridgate up {guest}")
        };
        super::asked(&self.paths, guest, Desired::Running);
        self.wait_out_delay(&spec)?;
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let argv = vec![
            text(&self.exe),
            "--site".to_owned(),
            text(&self.paths.site),
            "--state".to_owned(),
            text(&self.paths.state),
            "launch".to_owned(),
            guest.to_string(),
        ];
        let log = self.paths.launch_log(guest);
        let launch = Launch { argv, env: BTreeMap::new(), log };
        client::spawn(&self.paths, guest, launch, settings(&Live, &spec), LAUNCH_LIMIT)
            .with_context(|| format!("starting guest '{guest}'"))
    }

    fn stop(&self, guest: &GuestName, progress: &mut dyn FnMut(&str)) -> Result<Stopped> {
        super::asked(&self.paths, guest, Desired::Stopped);
        self.end(guest, How::Asked, progress)
    }

    fn kill(&self, guest: &GuestName) -> Result<Stopped> {
        super::asked(&self.paths, guest, Desired::Stopped);
        self.end(guest, How::Killed, &mut |_| ())
    }

    fn await_ready(&self, guest: &GuestName, limit: Duration) -> Result<Readiness> {
        readiness(&self.paths, guest, limit, || self.revive())
    }

    fn any_running(&self) -> bool {
        any_running(&self.paths)
    }

    fn retire(&self) -> Result<()> {
        match client::holder_runs(&self.paths) {
            true => client::quit(&self.paths).context("ending the console holder"),
            false => Ok(()),
        }
    }

    fn agree(&self, _host: &dyn Host) -> Result<()> {
        Ok(())
    }

    /// Nothing brings them up here, and there is nothing to be told about it.
    fn boots_with_host(&self, _host: &dyn Host) -> Result<bool> {
        Ok(true)
    }
}

/// Whether any guest died and waits for its next try, which is the console holder's business.
pub fn any_waiting(paths: &Paths) -> bool {
    let names = Live.list(&paths.run.join("guests")).unwrap_or_default();
    names.iter().filter_map(|name| name.parse::<GuestName>().ok()).any(|guest| is_waiting(paths, &guest))
}

/// Whether the guest died and waits for its next try.
pub fn is_waiting(paths: &Paths, guest: &GuestName) -> bool {
    // The holder's own record goes when the guest is not to be tried any more.
    paths.console_record(guest).exists() && Restarts::read(paths, guest).next_try_ms.is_some()
}

/// Whether any guest's process lives.
pub fn any_running(paths: &Paths) -> bool {
    let names = Live.list(&paths.run.join("guests")).unwrap_or_default();
    names.iter().filter_map(|name| name.parse::<GuestName>().ok()).any(|guest| {
        RunRecord::read(paths, &guest).is_ok_and(|record| record.is_some_and(|record| record.is_alive()))
    })
}
