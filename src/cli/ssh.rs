//! `gridgate ssh`: log in to a guest, without a question about its key.

use std::convert::Infallible;
use std::ffi::OsString;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};

use crate::config::site::Site;
use crate::host::Live;
use crate::host::files::Files;
use crate::host::net::{Net, become_program};
use crate::host::programs::{Program, Programs};
use crate::names::GuestName;
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

/// Becomes ssh, whose exit status is then this process's; returns only if that fails.
pub fn run(args: &Args, site: &Site, paths: &Paths) -> Result<Infallible> {
    let guest =
        args.guest.parse::<GuestName>().ok().and_then(|name| site.guest(&name)).with_context(|| {
            let known: Vec<&str> = site.guests.iter().map(|g| g.name.as_str()).collect();
            format!("site '{}' has no guest '{}'; it has {}", site.name, args.guest, known.join(", "))
        })?;
    if Live.find_program("ssh").is_none() {
        bail!("looking for the program 'ssh': it is not there; 'apt-get install openssh-client' brings it");
    }
    let ns = network::namespace(site, paths);
    if let Some(path) = &ns
        && !Live.netns_exists(path)?
    {
        bail!("site '{}' is down; 'gridgate up' brings it up", site.name);
    }
    let links = Live.links(ns.as_deref())?;
    let port = names::guest_alias(&paths.id(), &guest.name);
    if !links.iter().any(|l| l.alias.as_ref() == Some(&port)) {
        bail!("guest '{0}' is not running; 'gridgate start {0}' starts it", guest.name);
    }
    let endpoint = network::guest_endpoint(site, guest, &links, 22);
    let program = command_line(args, &guest.fqdn, endpoint, paths, Live.stat(&paths.site_key())?.is_some());
    Err(become_program(ns.as_deref(), &program))
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
