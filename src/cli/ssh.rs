//! `gridgate ssh`: log in to a guest, without a question about its key.

use std::convert::Infallible;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::backend::spec::Spec;
use crate::cli::Context;
use crate::config::site::Site;
use crate::host::Live;
use crate::host::files::Files;
use crate::host::net::{Net, become_program};
use crate::host::programs::{Program, Programs};
use crate::names::{GuestName, IfName, MacAddr};
use crate::network;
use crate::paths::Paths;
use crate::plan::network::names;
use crate::service::shell;

/// Log in to a guest, or run a command there
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The guest
    guest: String,
    /// User to log in as
    #[arg(short = 'l', long = "user", default_value = "root", value_name = "USER")]
    user: String,
    /// Command for the guest's shell; a login if there is none
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Where a guest is found.
struct Way {
    /// As messages call it.
    site: String,
    guest: GuestName,
    /// Its name in the site's list of host keys.
    host_key: String,
    /// Where the bridge is that it is plugged into; the host's own namespace if none.
    netns: Option<PathBuf>,
    address: IpAddr,
    mac: MacAddr,
    bridge: IfName,
}

impl Way {
    /// As the site has it.
    fn of_site(site: &Site, name: &str, paths: &Paths) -> Result<Self> {
        let guest = name.parse::<GuestName>().ok().and_then(|name| site.guest(&name)).with_context(|| {
            let known: Vec<&str> = site.guests.iter().map(|g| g.name.as_str()).collect();
            format!("site '{}' has no guest '{name}'; it has {}", site.name, known.join(", "))
        })?;
        let network = site.network(&guest.network);
        let network =
            network.with_context(|| format!("site '{}' has no network '{}'", site.name, guest.network))?;
        Ok(Self {
            site: format!("site '{}'", site.name),
            guest: guest.name.clone(),
            host_key: guest.fqdn.clone(),
            netns: network::namespace(site, paths),
            address: guest.address,
            mac: guest.mac,
            bridge: network.bridge.clone(),
        })
    }

    /// As it was started, if it ever was.
    fn of_state(name: &str, paths: &Paths) -> Result<Option<Self>> {
        let Ok(guest) = name.parse::<GuestName>() else { return Ok(None) };
        Ok(Spec::read(&Live, paths, &guest)?.map(|spec| Self {
            site: "the site".to_owned(),
            host_key: guest.to_string(),
            guest,
            netns: spec.netns,
            address: spec.address,
            mac: spec.mac,
            bridge: spec.bridge,
        }))
    }
}

/// Becomes ssh, whose exit status is then this process's; returns only if that fails.
pub fn run(args: &Args, site: &Site, paths: &Paths) -> Result<Infallible> {
    log_in(args, &Way::of_site(site, &args.guest, paths)?, paths)
}

/// As [`run`], where the site's files cannot be used and why: a box in trouble must not become unreachable by a typing error in some
/// other guest's file.
pub fn run_as_started(args: &Args, unusable: anyhow::Error, context: &Context) -> Result<Infallible> {
    let Some(way) = Way::of_state(&args.guest, &context.paths)? else { return Err(unusable) };
    context.progress.say(&format!("{unusable}"));
    context.progress.say("note: going on with what the state directory knows");
    log_in(args, &way, &context.paths)
}

fn log_in(args: &Args, way: &Way, paths: &Paths) -> Result<Infallible> {
    if Live.find_program("ssh").is_none() {
        bail!("looking for the program 'ssh': it is not there; 'apt-get install openssh-client' brings it");
    }
    if let Some(path) = &way.netns
        && !Live.netns_exists(path)?
    {
        bail!("{} is down; 'gridgate up' brings it up", way.site);
    }
    let links = Live.links(way.netns.as_deref())?;
    let port = names::guest_alias(&paths.id(), &way.guest);
    if !links.iter().any(|l| l.alias.as_ref() == Some(&port)) {
        bail!("guest '{0}' is not running; 'gridgate start {0}' starts it", way.guest);
    }
    let endpoint = network::endpoint(way.address, way.mac, &way.bridge, &links, 22);
    let has_key = Live.stat(&paths.site_key())?.is_some();
    let program = command_line(args, &way.host_key, endpoint, paths, has_key);
    Err(become_program(way.netns.as_deref(), &program))
}

fn command_line(args: &Args, host_key: &str, to: SocketAddr, paths: &Paths, has_site_key: bool) -> Program {
    shell::ssh(paths, host_key, to, &args.user, has_site_key).args(&args.command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddrV6;
    use std::path::Path;

    /// As ssh itself understands a command line: `ssh -G` prints the settings and connects to nothing.
    fn understood(program: &Program) -> Option<String> {
        if Live.find_program("ssh").is_none() {
            eprintln!("skipped: there is no ssh");
            return None;
        }
        let mut asked = Program::new("ssh").arg("-G");
        asked.args.extend(program.args.iter().cloned());
        Some(Live.run(&asked).unwrap().text())
    }

    fn line(to: &str) -> Program {
        let args = Args { guest: "ce".into(), user: "root".into(), command: vec!["ls".into(), "-l".into()] };
        let paths = Paths::new(Path::new("/site"), Path::new("/srv/100% ours"));
        command_line(&args, "ce.example.org", to.parse().unwrap(), &paths, true)
    }

    #[test]
    fn ssh_checks_the_key_under_the_guests_name_in_the_sites_own_list() {
        let Some(said) = understood(&line("192.0.2.10:22")) else { return };
        for expected in [
            "user root",
            "hostname 192.0.2.10",
            "hostkeyalias ce.example.org",
            "stricthostkeychecking true",
            "userknownhostsfile /srv/100% ours/known_hosts",
            "identityfile /srv/100%% ours/keys/site_ed25519",
        ] {
            assert!(said.lines().any(|l| l == expected), "'{expected}' in {said}");
        }
    }

    #[test]
    fn a_link_local_address_goes_with_its_interface() {
        let to = SocketAddrV6::new("fe80::1".parse().unwrap(), 22, 0, 7);
        let typed = line(&to.to_string()).typed();
        assert!(typed.ends_with(" -- fe80::1%7 ls -l"), "{typed}");
    }
}
