//! `gridgate ssh`: log in to a guest, without a question about its key.

use std::convert::Infallible;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::config::site::{Guest, Site};
use crate::host::Live;
use crate::host::files::Files;
use crate::host::net::{Net, become_program};
use crate::host::programs::{Program, Programs};
use crate::names::GuestName;
use crate::network;
use crate::paths::Paths;
use crate::plan::network::names;

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
    command: Vec<OsString>,
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
    let program = command_line(args, guest, endpoint, paths, Live.stat(&paths.site_key())?.is_some());
    Err(become_program(ns.as_deref(), &program))
}

/// The name in known_hosts is the guest's, whatever way leads to it. The user's own keys and agent are tried too.
fn command_line(args: &Args, guest: &Guest, to: SocketAddr, paths: &Paths, has_site_key: bool) -> Program {
    let mut ssh = Program::new("ssh")
        .args(["-o", &format!("UserKnownHostsFile=\"{}\"", unexpanded(&paths.known_hosts()))])
        .args([
            "-o",
            "GlobalKnownHostsFile=/dev/null",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "CheckHostIP=no",
        ])
        .args([
            "-o",
            &format!("HostKeyAlias={}", guest.fqdn),
            "-o",
            "IdentitiesOnly=no",
            "-o",
            "ConnectTimeout=10",
        ]);
    if has_site_key {
        ssh = ssh.args(["-i", &unexpanded(&paths.site_key())]);
    }
    let host = match to {
        SocketAddr::V6(to) if to.scope_id() != 0 => format!("{}%{}", to.ip(), to.scope_id()),
        to => to.ip().to_string(),
    };
    ssh.args(["-p", &to.port().to_string(), "-l", &args.user, "--", &host]).args(&args.command)
}

/// ssh expands `%h` and the like in file names (ssh_config(5), TOKENS).
fn unexpanded(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%%")
}
