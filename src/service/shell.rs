//! A shell in a running guest, with the site's own key and the host key that was written before its first boot.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};

use crate::backend::spec::Spec;
use crate::host::Live;
use crate::host::files::Files;
use crate::host::net::{Net, in_netns};
use crate::host::programs::Program;
use crate::network;
use crate::paths::Paths;

/// ssh to a guest, up to and without what is to be done there. `name` is one of the guest's in known_hosts, whatever way
/// leads to it; what the user's agent holds is tried too.
pub fn ssh(paths: &Paths, name: &str, to: SocketAddr, user: &str, has_site_key: bool) -> Program {
    let mut options = vec![
        format!("UserKnownHostsFile=\"{}\"", unexpanded(&paths.known_hosts())),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "CheckHostIP=no".to_owned(),
        format!("HostKeyAlias={name}"),
        "IdentitiesOnly=no".to_owned(),
        "ConnectTimeout=10".to_owned(),
    ];
    if has_site_key {
        // Not as '-i', which looks for the file before it puts '%' for '%%'.
        options.push(format!("IdentityFile=\"{}\"", unexpanded(&paths.site_key())));
    }
    let ssh =
        options.into_iter().fold(Program::new("ssh"), |ssh, option| ssh.args(["-o".to_owned(), option]));
    let host = match to {
        SocketAddr::V6(to) if to.scope_id() != 0 => format!("{}%{}", to.ip(), to.scope_id()),
        to => to.ip().to_string(),
    };
    ssh.args(["-p", &to.port().to_string(), "-l", user, "--", &host])
}

/// ssh expands `%h` and the like in file names (ssh_config(5), TOKENS).
fn unexpanded(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%%")
}

/// What ssh ends with when there is no connection, or not any more (ssh(1), EXIT STATUS).
pub const CUT_OFF: i32 = 255;

/// Runs a command in the guest as root, and gives back its status; none if it was given up. Given up at the time, or as soon as `over` says so,
/// which is asked again and again and may take a moment for its answer.
pub fn run(
    paths: &Paths,
    spec: &Spec,
    line: &str,
    until: Instant,
    over: impl Fn() -> bool,
) -> Result<Option<i32>> {
    let what = || format!("running '{line}' in guest '{}'", spec.guest);
    let links = Live.links(spec.netns.as_deref()).with_context(what)?;
    let to = network::endpoint(spec.address, spec.mac, &spec.bridge, &links, 22);
    let has_key = Live.stat(&paths.site_key()).with_context(what)?.is_some();
    let program = ssh(paths, spec.guest.as_str(), to, "root", has_key).arg(line);
    let program = Program { args: [vec!["-oBatchMode=yes".into()], program.args].concat(), ..program };
    let mut child = in_netns(spec.netns.as_deref(), || start(&program.command())).with_context(what)?;
    loop {
        if let Some(status) = child.try_wait().with_context(what)? {
            return Ok(status.code());
        }
        if Instant::now() >= until || over() {
            // It leads a group of its own.
            let _ = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
            let status = child.wait().with_context(what)?;
            return Ok(status.code());
        }
    }
}

fn start(command: &Command) -> Result<Child> {
    let mut own = Command::new(command.get_program());
    own.args(command.get_args()).process_group(0);
    own.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    own.spawn().context("starting 'ssh'")
}
