//! What systemd knows of the site, and has to be told: the generator's part and that of the commands.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::config::site::Guest;
use crate::config::{LoadOptions, lenient};
use crate::host::Host;
use crate::host::programs::Program;
use crate::names::GuestName;
use crate::paths::Paths;
use crate::service::generate::{Around, Generated, KVM_GROUP, TARGET_WANTS};
use crate::service::{desired, limits};

/// Where a unit may be installed (systemd.unit(5)).
const UNIT_DIRS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
const TEMPLATE: &str = "gridgate-guest@.service";
/// What systemd runs generators into, for units of ordinary priority (systemd.generator(7)).
const GENERATED: &str = "/run/systemd/generator";
/// The administrator's own units.
const OWN_UNITS: &str = "/etc/systemd/system";
/// Where the units take the site's and state's directories from.
const DEFAULTS: &str = "/etc/default/gridgate";

/// The site that the units run.
pub fn configured(host: &dyn Host) -> Result<Paths> {
    let defaults = host.read(Path::new(DEFAULTS))?.unwrap_or_default();
    let defaults = String::from_utf8_lossy(&defaults);
    let value =
        |key: &str, otherwise: &str| environment_value(&defaults, key).unwrap_or(otherwise.to_owned());
    let (site, state) =
        (value("GRIDGATE_SITE", "/etc/gridgate"), value("GRIDGATE_STATE", "/var/lib/gridgate"));
    Ok(Paths::new(Path::new(&site), Path::new(&state)))
}

/// A variable of an environment file, as far as ours go: plain lines, perhaps in double quotes (systemd.exec(5)).
fn environment_value(text: &str, key: &str) -> Option<String> {
    let line = text.lines().rev().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
    Some(line.trim().trim_matches('"').to_owned())
}

/// The installed template of guests' units.
pub fn template(host: &dyn Host) -> Result<Option<PathBuf>> {
    for dir in UNIT_DIRS {
        let path = Path::new(dir).join(TEMPLATE);
        if host.stat(&path)?.is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// What is to be generated for the site as its files are now. Its state may be on a filesystem that is not mounted yet:
/// then nobody was asked for anything.
pub fn generated(host: &dyn Host, paths: &Paths) -> Result<Generated> {
    let options = LoadOptions { image_dirs: vec![paths.images()], ..LoadOptions::default() };
    let site = lenient::load(&paths.site, &options);
    let guests = site.site.guests.iter().map(|guest| &guest.name).chain(site.bad.iter().map(|bad| &bad.name));
    let asked =
        guests.filter_map(|guest| Some((guest.clone(), desired::asked(host, paths, guest)?))).collect();
    let groups = host.read(Path::new("/etc/group"))?.unwrap_or_default();
    let entry = format!("{KVM_GROUP}:");
    // Limits that cannot be read are told of when the guest starts.
    let held = |guest: &Guest| {
        Some((guest.name.clone(), limits::over(host, paths, &guest.name, guest.limits).ok()?))
    };
    let around = Around {
        paths,
        asked,
        limits: site.site.guests.iter().filter_map(held).collect(),
        template: template(host)?.unwrap_or_else(|| Path::new(UNIT_DIRS[1]).join(TEMPLATE)),
        kvm_group: String::from_utf8_lossy(&groups).lines().any(|line| line.starts_with(&entry)),
    };
    Ok(Generated::of(&site, &around))
}

/// Whether systemd knows of the site what there is to know now. Removes, on the way, what gridgate wrote into the
/// administrator's directory before there was a generator; then it does not.
pub fn is_known(host: &dyn Host, paths: &Paths) -> Result<bool> {
    let mut known = true;
    for entry in host.list(Path::new(OWN_UNITS))? {
        if !(entry.starts_with("gridgate-guest@") && entry.ends_with(".service.d")) {
            continue;
        }
        let dir = Path::new(OWN_UNITS).join(&entry);
        let order = dir.join("order.conf");
        if host.read(&order)?.is_some_and(|text| text.starts_with(b"# Written by `gridgate up`")) {
            host.remove(&order)?;
            if host.list(&dir)?.is_empty() {
                host.remove(&dir)?;
            }
            known = false;
        }
    }
    Ok(known && generated(host, paths)?.is_in(host, Path::new(GENERATED))?)
}

/// Before the target's guests start: has systemd know what its generator could not see, since that runs before any
/// filesystem is mounted, and the state may be on one of its own. Guests that were asked to run are started then; those that
/// were stopped on purpose and are about to start are not.
pub fn catch_up(host: &dyn Host, paths: &Paths) -> Result<()> {
    if is_known(host, paths)? {
        return Ok(());
    }
    let systemctl = |args: &[&str]| Program::new("systemctl").args(["--quiet", "--no-block"]).args(args);
    let before = wanted(host)?;
    host.run(&Program::new("systemctl").arg("daemon-reload"))?;
    let after = wanted(host)?;
    for unit in after.difference(&before) {
        host.run(&systemctl(&["start", unit]))?;
    }
    for unit in before.difference(&after) {
        let by_name = host.stat(&Path::new(OWN_UNITS).join(TARGET_WANTS).join(unit))?.is_some();
        // One that runs was started by somebody.
        let runs = || host.run_any(&systemctl(&["is-active", unit])).map(|ran| ran.status == 0);
        if !by_name && !runs()? {
            host.run(&systemctl(&["stop", unit]))?;
        }
    }
    Ok(())
}

/// Units that come up with the target because the generator says so.
fn wanted(host: &dyn Host) -> Result<BTreeSet<String>> {
    Ok(host.list(&Path::new(GENERATED).join(TARGET_WANTS))?.into_iter().collect())
}

/// Whether the guest was enabled by name, as `systemctl enable` does.
pub fn is_enabled(host: &dyn Host, guest: &GuestName) -> Result<bool> {
    let link = Path::new(OWN_UNITS).join(TARGET_WANTS).join(super::generate::unit(guest));
    Ok(host.stat(&link)?.is_some())
}

/// Whether the site comes up with the host at all.
pub fn target_is_enabled(host: &dyn Host) -> Result<bool> {
    for entry in host.list(Path::new(OWN_UNITS))? {
        let pulls = entry.ends_with(".wants") || entry.ends_with(".requires");
        if pulls && host.stat(&Path::new(OWN_UNITS).join(entry).join("gridgate.target"))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::files::Files;
    use crate::host::model::Model;
    use crate::host::recorder::Recorder;

    #[test]
    fn the_last_assignment_in_an_environment_file_wins() {
        let text = "# comment\nGRIDGATE_SITE=/a\nGRIDGATE_SITE=\"/b c\"\n";
        assert_eq!(environment_value(text, "GRIDGATE_SITE").as_deref(), Some("/b c"));
        assert_eq!(environment_value(text, "GRIDGATE_STATE"), None);
    }

    #[test]
    fn what_an_older_gridgate_wrote_goes_and_what_others_wrote_beside_it_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let host = Model::new(scratch.path());
        let paths = Paths::new(&scratch.path().join("none"), scratch.path());
        let dir = Path::new(OWN_UNITS).join("gridgate-guest@ce.service.d");
        let old = b"# Written by `gridgate up` from the site's files, and again when they change.\n[Unit]\n";
        host.write(&dir.join("order.conf"), old, 0o644).unwrap();
        host.write(&dir.join("own.conf"), b"[Unit]\n", 0o644).unwrap();
        assert!(!is_known(&host, &paths).unwrap());
        assert_eq!(host.list(&dir).unwrap(), ["own.conf"]);
        assert!(is_known(&host, &paths).unwrap(), "the second time");
    }

    #[test]
    fn systemd_is_told_anew_only_of_what_it_does_not_know() {
        let scratch = tempfile::tempdir().unwrap();
        let model = Model::new(scratch.path());
        let paths = Paths::new(&scratch.path().join("none"), scratch.path());
        let told = || {
            let host = Recorder::new(&model, None);
            catch_up(&host, &paths).unwrap();
            host.calls().into_iter().filter(|call| call.starts_with("run_any")).collect::<Vec<_>>()
        };
        assert_eq!(told(), [""; 0]);
        let stale = Path::new(GENERATED).join("gridgate-guest@gone.service.d/gridgate.conf");
        model.write(&stale, b"", 0o644).unwrap();
        assert_eq!(told(), ["run_any systemctl daemon-reload"]);
    }

    #[test]
    fn a_target_that_something_pulls_in_is_enabled() {
        let scratch = tempfile::tempdir().unwrap();
        let host = Model::new(scratch.path());
        assert!(!target_is_enabled(&host).unwrap());
        let link = Path::new(OWN_UNITS).join("multi-user.target.wants/gridgate.target");
        host.link(&link, Path::new("/u/gridgate.target")).unwrap();
        assert!(target_is_enabled(&host).unwrap());
    }
}
