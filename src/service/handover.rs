//! How systemd starts a guest, in three parts: what root lays out, the user's process that becomes the hypervisor, and what
//! root writes down of it.
//!
//! ```text
//! ExecStartPre=+  prepare: disk, quarters, taps -(descriptor store)--+
//! ExecStart=      launch, as the guest's user: terminal, lock <------+--> exec
//! ExecStartPost=+ started: run.json, console holder
//! ```

use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::backend::backend;
use crate::backend::spec::{MOST_CARDS, Spec};
use crate::console::client;
use crate::console::record::RunRecord;
use crate::host::{Live, notify, users};
use crate::names::GuestName;
use crate::paths::Paths;
use crate::service::{self, generate, launch, limits, quarters};

/// The guest's cables, as systemd keeps them between two processes of a unit: this, and for further ones with a number.
const TAP: &str = "tap";
/// Why there is nothing to launch.
pub const REFUSED: &str = "refused";

/// Takes back what an earlier run of the unit may have left with systemd.
pub fn begin() -> Result<()> {
    forget_cables()?;
    notify::forget(REFUSED)?;
    notify::settle()
}

fn cable_name(at: usize) -> String {
    if at == 0 { TAP.to_owned() } else { format!("{TAP}{at}") }
}

fn forget_cables() -> Result<()> {
    (0..MOST_CARDS).try_for_each(|at| notify::forget(&cable_name(at)))
}

/// The cables among what this process was given, in the order of the guest's cards.
pub fn cables(received: &mut BTreeMap<String, OwnedFd>) -> Vec<OwnedFd> {
    (0..MOST_CARDS).map_while(|at| received.remove(&cable_name(at))).collect()
}

/// Lays out what the guest's user cannot make itself, and hands it over.
pub fn hand_over(paths: &Paths, spec: &Spec) -> Result<()> {
    until(|| match launch::is_held(paths, &spec.guest) {
        true => bail!("it runs already; look at: gridgate status {}", spec.guest),
        false => Ok(()),
    })?;
    if !quarters::has_user(spec) {
        return Ok(());
    }
    let mut spec = spec.clone();
    spec.limits = limits::over(&Live, paths, &spec.guest, spec.limits)?;
    let spec = &spec;
    quarters::clean(paths, &spec.guest)?;
    let uid = users::dynamic(&generate::user(&spec.guest))?;
    quarters::furnish(paths, spec, uid)?;
    quarters::check(spec, uid)?;
    limits::prepare(&Live, paths, spec)?;
    let cables = until(|| launch::plug(&Live, paths, spec))?;
    for (at, cable) in cables.iter().enumerate() {
        notify::store(&cable_name(at), cable.as_fd())?;
    }
    notify::settle()
}

/// The last run's lock and tap go when the kernel has taken its process apart.
fn until<T>(mut done: impl FnMut() -> Result<T>) -> Result<T> {
    const LIMIT: Duration = Duration::from_secs(2);
    let began = Instant::now();
    loop {
        match done() {
            Err(_) if began.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(20)),
            done => return done,
        }
    }
}

/// Has the unit's main process fail with this message: a unit whose preparation itself fails would be tried again and again,
/// and what is wrong here only people can mend.
pub fn refuse(why: &str) -> Result<()> {
    let what = "passing on why the guest cannot be started";
    let fd = rustix::fs::memfd_create(REFUSED, MemfdFlags::CLOEXEC).context(what)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(why.as_bytes()).context(what)?;
    notify::store(REFUSED, file.as_fd())?;
    notify::settle()
}

/// What [`refuse`] passed on.
pub fn refusal(fd: OwnedFd) -> Result<String> {
    let mut file = std::fs::File::from(fd);
    let mut why = String::new();
    file.rewind().context("reading why the guest cannot be started")?;
    file.read_to_string(&mut why).context("reading why the guest cannot be started")?;
    Ok(why)
}

/// Writes down which process runs the guest, and has its console taken up.
pub fn started(paths: &Paths, guest: &GuestName, pid: i32) -> Result<()> {
    forget_cables()?;
    let known = RunRecord::read(paths, guest)?.is_some_and(|run| run.pid == pid && run.is_alive());
    if known {
        // It was root, and has done so itself.
        return Ok(());
    }
    let Some(mut spec) = Spec::read(&Live, paths, guest)? else { bail!("it was never brought up here") };
    spec.limits = limits::over(&Live, paths, guest, spec.limits)?;
    let number = terminal(pid)?;
    let name = backend(&spec.engine).name();
    let record = RunRecord::of_process(pid, name, number, spec.netns.clone())?;
    record.write(paths, guest)?;
    limits::started(&Live, paths, &spec, &record)?;
    let process = Pid::from_raw(pid).context("it is not a process number")?;
    let process = pidfd_open(process, PidfdFlags::empty()).context("opening its process")?;
    let master = pidfd_getfd(&process, number, PidfdGetfdFlags::empty());
    let adopted = master.context("taking its terminal").and_then(|master| {
        client::adopt(paths, guest, Some(service::settings(&Live, &spec)), master.as_fd())
    });
    // The guest runs all the same: the next holder finds the terminal in its process.
    if let Err(error) = adopted {
        eprintln!("ignoring that the console was not taken up: {error:#}");
    }
    Ok(())
}

/// The number of the terminal's master in the guest's process.
fn terminal(pid: i32) -> Result<i32> {
    let dir = format!("/proc/{pid}/fd");
    let what = || format!("looking for the terminal of process {pid}");
    let mut found: Vec<i32> = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(what)? {
        let path = entry.with_context(what)?.path();
        let is_master =
            std::fs::read_link(&path).is_ok_and(|to| to.file_name() == Path::new("ptmx").file_name());
        let number = path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok());
        found.extend(number.filter(|_| is_master));
    }
    found.into_iter().min().with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_as_it_was_written() {
        let fd = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        let mut file = std::fs::File::from(fd.try_clone().unwrap());
        file.write_all(b"guests/ce.toml:1:1: no").unwrap();
        assert_eq!(refusal(fd).unwrap(), "guests/ce.toml:1:1: no");
    }

    #[test]
    fn the_first_terminal_of_a_process_is_its_console() {
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let master = rustix::pty::openpt(flags).unwrap();
        use std::os::fd::AsRawFd;
        let own = std::process::id().cast_signed();
        // Other tests of this process may have one, too.
        assert!(terminal(own).unwrap() <= master.as_raw_fd());
    }
}
