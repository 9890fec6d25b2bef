//! What systemd must know of the site beside the unit files that every site has: for each guest a drop-in, and which of
//! them come up with the host. Pure; the generator writes it at each boot and `systemctl daemon-reload` (systemd.generator(7)).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::config::lenient::{BadGuest, Lenient};
use crate::config::limits::Limits;
use crate::config::site::{BackendChoice, Guest};
use crate::config::supervision::RestartWhen;
use crate::host::Host;
use crate::names::GuestName;
use crate::paths::Paths;
use crate::plan::order;
use crate::service::desired::Desired;
use crate::service::limits::unit_lines;

/// What the generated files depend on beside the site's own.
#[derive(Debug, Clone)]
pub struct Around<'a> {
    /// Where everything is.
    pub paths: &'a Paths,
    /// What was asked for last, of guests of which something was: a boot restores that.
    pub asked: BTreeMap<GuestName, Desired>,
    /// What guests may use, where that is not what their files say.
    pub limits: BTreeMap<GuestName, Limits>,
    /// The installed template of guests' units.
    pub template: PathBuf,
    /// Whether this host has the group that may use `/dev/kvm`; a unit with an unknown group does not start.
    pub kvm_group: bool,
}

impl Around<'_> {
    /// Where the guest's process may write what it has the permissions for: its disk, and its own sockets. Each of these is a
    /// mount that even root's part of the unit sees, so that it must not be what that removes.
    fn writable(&self, guest: &GuestName) -> String {
        let quoted = |path: PathBuf| format!("\"-{}\"", escaped(&path.to_string_lossy()));
        let (disk, run) = (self.paths.guest(guest), self.paths.run_guest(guest));
        format!("{} {}", quoted(disk), quoted(run))
    }
}

/// Files and links by their paths in the generator's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generated(BTreeMap<PathBuf, Content>);

/// What a path is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file with this text.
    File(String),
    /// A symbolic link to there.
    Link(PathBuf),
}

/// Where links to the units are that come up with the target.
pub const TARGET_WANTS: &str = "gridgate.target.wants";
/// The group that udev gives `/dev/kvm`.
pub const KVM_GROUP: &str = "kvm";
/// What is left when the ladder's last rung has failed is systemd's; a disk in trouble takes its time.
const STOP_SLACK: Duration = Duration::from_secs(60);
const DROP_IN: &str = "gridgate.conf";
const HEAD: &str = "# Made from the site's files, anew at each boot and 'systemctl daemon-reload'.\n";

/// What nspawn needs that hypervisors do not: it is root, and makes namespaces, mounts and device nodes for its guest.
const NSPAWN: &str = "\
# systemd-nspawn is no hypervisor: it has to make the container that its guest is confined by.
User=
DynamicUser=no
NoNewPrivileges=no
CapabilityBoundingSet=~
# With any device named, all others would stay closed: its disk is a loop device, and the container gets devices of its own.
DevicePolicy=auto
DeviceAllow=
ProtectSystem=no
ProtectHome=no
PrivateTmp=no
ProtectKernelTunables=no
ProtectKernelModules=no
ProtectKernelLogs=no
ProtectControlGroups=no
ProtectClock=no
ProtectHostname=no
ProtectProc=default
RestrictNamespaces=no
RestrictRealtime=no
RestrictSUIDSGID=no
LockPersonality=no
RestrictAddressFamilies=
SystemCallFilter=
SystemCallErrorNumber=
SystemCallArchitectures=
IPAddressDeny=
UMask=0022
KeyringMode=inherit
Delegate=yes
";

impl Generated {
    /// For a site as far as it can be used; a guest that cannot has a unit that fails and says why.
    pub fn of(site: &Lenient, around: &Around<'_>) -> Self {
        let mut made = Self::default();
        let guests: Vec<&Guest> = site.site.guests.iter().collect();
        let sooner = order::started_before(&guests);
        for guest in guests {
            let before = sooner.get(&guest.name).map(Vec::as_slice).unwrap_or_default();
            let text = good(guest, before, site.files.get(&guest.name), around);
            made.guest(&guest.name, text, guest.autostart, around);
        }
        for guest in &site.bad {
            made.guest(&guest.name, bad(guest, site.files.get(&guest.name)), guest.autostart, around);
        }
        made
    }

    fn guest(&mut self, name: &GuestName, text: String, autostart: bool, around: &Around<'_>) {
        let unit = unit(name);
        self.0.insert(Path::new(&format!("{unit}.d")).join(DROP_IN), Content::File(text));
        if around.asked.get(name).map_or(autostart, |asked| *asked == Desired::Running) {
            let link = Content::Link(around.template.clone());
            self.0.insert(Path::new(TARGET_WANTS).join(&unit), link);
        }
    }

    /// One after the other, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Content)> {
        self.0.iter().map(|(path, content)| (path.as_path(), content))
    }

    /// Writes it all into a directory that has none of it yet.
    pub fn write(&self, host: &dyn Host, dir: &Path) -> Result<()> {
        for (path, content) in &self.0 {
            match content {
                Content::File(text) => host.write(&dir.join(path), text.as_bytes(), 0o644),
                Content::Link(target) => host.link(&dir.join(path), target),
            }
            .context("writing what systemd is to know")?;
        }
        Ok(())
    }

    /// Whether the directory has exactly this of what is gridgate's.
    pub fn is_in(&self, host: &dyn Host, dir: &Path) -> Result<bool> {
        for (path, content) in &self.0 {
            let same = match content {
                Content::File(text) => host.read(&dir.join(path))?.as_deref() == Some(text.as_bytes()),
                Content::Link(target) => host.read_link(&dir.join(path))?.as_ref() == Some(target),
            };
            if !same {
                return Ok(false);
            }
        }
        let ours = |name: &String| name.starts_with("gridgate-guest@");
        let there = host.list(dir)?.into_iter().filter(ours).count()
            + host.list(&dir.join(TARGET_WANTS))?.into_iter().filter(ours).count();
        Ok(there == self.0.len())
    }
}

/// The unit of a guest.
pub fn unit(guest: &GuestName) -> String {
    format!("gridgate-guest@{guest}.service")
}

/// The unit that waits until a guest is ready.
pub fn ready_unit(guest: &GuestName) -> String {
    format!("gridgate-ready@{guest}.service")
}

/// The user that a guest runs as, allocated by systemd when the guest starts. A name has 31 characters at most.
pub fn user(guest: &GuestName) -> String {
    let plain = format!("gg-{guest}");
    match plain.len() <= 31 {
        true => plain,
        false => format!("{}-{}", &plain[..22], &blake3::hash(plain.as_bytes()).to_hex()[..8]),
    }
}

fn good(guest: &Guest, before: &[&GuestName], file: Option<&PathBuf>, around: &Around<'_>) -> String {
    let what = match guest.description.is_empty() {
        true => String::new(),
        false => format!(": {}", guest.description),
    };
    let mut unit = vec![described(&guest.name, &what)];
    unit.extend(source(file));
    unit.push(format!("RequiresMountsFor=\"{}\"", escaped(&around.paths.state.to_string_lossy())));
    // One that was stopped on purpose is not started for another's sake.
    let wanted = guest.needs.iter().filter(|other| around.asked.get(*other) != Some(&Desired::Stopped));
    unit.extend(wanted.map(|other| format!("Wants={}", self::unit(other))));
    // Waiting for the other's unit as well keeps the order of stopping where the other never became ready.
    for other in order::waits_for(guest) {
        unit.push(format!("After={} {}", self::unit(other), ready_unit(other)));
    }
    unit.extend(before.iter().map(|other| format!("After={}", self::unit(other))));

    let ladder: Duration = guest.supervision.stop.iter().map(|step| step.limit).sum();
    let mut service = vec![
        format!("User={}", user(&guest.name)),
        format!("TimeoutStopSec={}s", (ladder + STOP_SLACK).as_secs()),
        format!("ReadWritePaths={}", around.writable(&guest.name)),
    ];
    let held = around.limits.get(&guest.name).copied().unwrap_or(guest.limits);
    service.extend(unit_lines(&held, &around.paths.disk(&guest.name)));
    service.push(format!(
        "Restart={}",
        match guest.supervision.restart.when {
            RestartWhen::Never => "no",
            RestartWhen::OnFailure => "on-failure",
            RestartWhen::Always => "always",
        }
    ));
    match guest.backend {
        BackendChoice::Nspawn => service.push(NSPAWN.trim_end().to_owned()),
        BackendChoice::Auto | BackendChoice::Qemu if around.kvm_group => {
            service.push(format!("SupplementaryGroups={KVM_GROUP}"));
        }
        BackendChoice::Auto | BackendChoice::Qemu | BackendChoice::Uml => {}
    }
    format!("{HEAD}[Unit]\n{}\n\n[Service]\n{}\n", unit.join("\n"), service.join("\n"))
}

/// Its unit still starts, which is how people and the journal learn what is wrong; trying again would change nothing.
fn bad(guest: &BadGuest, file: Option<&PathBuf>) -> String {
    let mut unit = vec![described(&guest.name, " (its files cannot be used)")];
    unit.extend(source(file));
    let why: Vec<String> = guest.problems.to_string().lines().map(|line| format!("# {line}")).collect();
    let service = format!("User={}\nRestart=no", user(&guest.name));
    format!("{HEAD}{}\n[Unit]\n{}\n\n[Service]\n{service}\n", why.join("\n"), unit.join("\n"))
}

fn described(guest: &GuestName, more: &str) -> String {
    format!("Description={}", escaped(&format!("Guest {guest} of the grid site{more}")))
}

/// With it `systemctl` says by itself that a file was edited and the units are older.
fn source(file: Option<&PathBuf>) -> Option<String> {
    file.map(|file| format!("SourcePath={}", escaped(&file.to_string_lossy())))
}

/// A percent sign would be a specifier, and a backslash at the end join the next line (systemd.unit(5)).
fn escaped(text: &str) -> String {
    let text = text.replace('%', "%%");
    match text.ends_with('\\') {
        true => format!("{text} "),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::Problems;
    use crate::host::files::Files;
    use crate::host::model::Model;
    use crate::identity::edits::tests::site as example;

    fn name(text: &str) -> GuestName {
        text.parse().unwrap()
    }

    /// Two guests, `wn` behind `ce` in every way there is.
    fn lenient() -> Lenient {
        let mut site = example();
        site.guests.truncate(2);
        for (guest, text) in site.guests.iter_mut().zip(["ce", "wn"]) {
            guest.name = name(text);
            (guest.after, guest.needs) = (Vec::new(), Vec::new());
            guest.backend = BackendChoice::Uml;
            guest.autostart = true;
            guest.description = "100% \\".to_owned();
        }
        site.guests[1].needs = vec![name("ce")];
        site.guests[0].supervision.priority = 60;
        Lenient { site, bad: Vec::new(), files: BTreeMap::new() }
    }

    fn around(paths: &Paths) -> Around<'_> {
        Around {
            paths,
            asked: BTreeMap::new(),
            limits: BTreeMap::new(),
            template: "/u/gridgate-guest@.service".into(),
            kvm_group: true,
        }
    }

    fn drop_in(made: &Generated, guest: &str) -> String {
        let path = PathBuf::from(format!("gridgate-guest@{guest}.service.d/gridgate.conf"));
        match &made.0[&path] {
            Content::File(text) => text.clone(),
            Content::Link(_) => panic!("a link"),
        }
    }

    #[test]
    fn order_and_policy_become_lines_of_a_drop_in() {
        let paths = Paths::new(Path::new("/etc/gridgate"), Path::new("/var/lib/gridgate"));
        let text = drop_in(&Generated::of(&lenient(), &around(&paths)), "wn");
        let expected = "[Unit]\nDescription=Guest wn of the grid site: 100%% \\ \nRequiresMountsFor=\"/var/lib/gridgate\"\n\
             Wants=gridgate-guest@ce.service\nAfter=gridgate-guest@ce.service gridgate-ready@ce.service\n\
             After=gridgate-guest@ce.service\n\n[Service]\nUser=gg-wn\nTimeoutStopSec=150s\n\
             ReadWritePaths=\"-/var/lib/gridgate/guests/wn\" \"-/run/gridgate/9b0fc87b/guests/wn\"\nRestart=on-failure\n";
        assert_eq!(text.strip_prefix(HEAD), Some(expected));
    }

    #[test]
    fn one_that_was_stopped_on_purpose_is_started_by_nobody() {
        let paths = Paths::new(Path::new("/e"), Path::new("/s"));
        let around = Around { asked: BTreeMap::from([(name("ce"), Desired::Stopped)]), ..around(&paths) };
        let made = Generated::of(&lenient(), &around);
        assert!(!drop_in(&made, "wn").contains("Wants="));
        let links: Vec<_> = made.iter().filter(|(_, content)| matches!(content, Content::Link(_))).collect();
        let wn = Path::new("gridgate.target.wants/gridgate-guest@wn.service");
        assert_eq!(links, [(wn, &Content::Link("/u/gridgate-guest@.service".into()))]);
    }

    #[test]
    fn one_that_was_asked_to_run_comes_up_again_whatever_its_file_says() {
        let paths = Paths::new(Path::new("/e"), Path::new("/s"));
        let mut site = lenient();
        site.site.guests.iter_mut().for_each(|guest| guest.autostart = false);
        let around = Around { asked: BTreeMap::from([(name("ce"), Desired::Running)]), ..around(&paths) };
        let made = Generated::of(&site, &around);
        assert!(made.0.contains_key(Path::new("gridgate.target.wants/gridgate-guest@ce.service")));
        assert!(!made.0.contains_key(Path::new("gridgate.target.wants/gridgate-guest@wn.service")));
    }

    #[test]
    fn only_nspawn_is_given_what_makes_containers() {
        let paths = Paths::new(Path::new("/e"), Path::new("/s"));
        let mut site = lenient();
        site.site.guests[0].backend = BackendChoice::Nspawn;
        site.site.guests[1].backend = BackendChoice::Qemu;
        let made = Generated::of(&site, &around(&paths));
        let (ce, wn) = (drop_in(&made, "ce"), drop_in(&made, "wn"));
        assert!(ce.contains("\nDynamicUser=no\n") && !ce.contains("SupplementaryGroups"), "{ce}");
        assert!(wn.contains("\nSupplementaryGroups=kvm\n") && !wn.contains("DynamicUser"), "{wn}");
    }

    #[test]
    fn a_bad_guest_has_a_unit_that_says_why_and_is_not_tried_again() {
        let paths = Paths::new(Path::new("/e"), Path::new("/s"));
        let mut problems = Problems::default();
        let origin = crate::config::origin::Origin::start(&"/e/guests/ui.toml".into());
        problems.add(&origin, "unknown key 'memori'", "did you mean 'memory'?");
        let mut site = lenient();
        site.bad.push(BadGuest { name: name("ui"), problems, autostart: true });
        let made = Generated::of(&site, &around(&paths));
        let text = drop_in(&made, "ui");
        assert!(
            text.contains("\n# /e/guests/ui.toml:1:1: unknown key 'memori'\n#   hint: did you mean"),
            "{text}"
        );
        assert!(text.contains("\nRestart=no\n"), "{text}");
        assert!(made.0.contains_key(Path::new("gridgate.target.wants/gridgate-guest@ui.service")));
    }

    #[test]
    fn what_was_written_is_found_again_and_a_change_is_seen() {
        let scratch = tempfile::tempdir().unwrap();
        let host = Model::new(scratch.path());
        let (dir, paths) = (Path::new("/g"), Paths::new(Path::new("/e"), Path::new("/s")));
        let mut site = lenient();
        let made = Generated::of(&site, &around(&paths));
        assert!(!made.is_in(&host, dir).unwrap());
        made.write(&host, dir).unwrap();
        host.write(Path::new("/g/own@.service.d/x.conf"), b"", 0o644).unwrap();
        assert!(made.is_in(&host, dir).unwrap());
        site.site.guests[1].autostart = false;
        assert!(!Generated::of(&site, &around(&paths)).is_in(&host, dir).unwrap(), "one link less");
        site.site.guests[0].description = "other".to_owned();
        assert!(!Generated::of(&site, &around(&paths)).is_in(&host, dir).unwrap());
    }

    #[test]
    fn the_longest_name_still_makes_a_user() {
        assert_eq!(user(&name("ce")), "gg-ce");
        let long = user(&name(&"a".repeat(32)));
        assert!(long.len() <= 31 && long != user(&name(&format!("{}b", "a".repeat(31)))), "{long}");
    }
}
