//! A shell in a running guest, with the site's own key and the host key that was written before its first boot.

use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};

use crate::backend::spec::Spec;
use crate::host::Live;
use crate::host::files::Files;
use crate::host::net::{Net, in_netns};
use crate::host::programs::Program;
use crate::network;
use crate::paths::Paths;
use crate::progress::interrupted;

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
        "ConnectTimeout=60".to_owned(),
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
    let child = begin(paths, spec, line, || (Stdio::null(), Stdio::null()));
    child.and_then(|child| wait(child, until, over)).with_context(|| what(spec, line))
}

/// What a command in a guest came to.
#[derive(Debug)]
pub struct Answer {
    /// What it ended with; none if it was given up.
    pub status: Option<i32>,
    /// What it printed and said, the beginning of it.
    pub said: Vec<u8>,
}

/// More than anybody reads; a guest that prints without end is not listened to.
const LONGEST_ANSWER: u64 = 64 << 10;
/// An end, or an interrupt, is noticed so late at most.
const SLICE: Duration = Duration::from_millis(10);

/// Runs a command in the guest as root and gives back what it said; it is given up after the limit, or on an interrupt.
pub fn ask(paths: &Paths, spec: &Spec, line: &str, limit: Duration) -> Result<Answer> {
    let act = || -> Result<Answer> {
        let (reader, writer) = std::io::pipe()?;
        let second = writer.try_clone()?;
        let child = begin(paths, spec, line, || (writer.into(), second.into()))?;
        let listen = std::thread::spawn(move || {
            let mut said = Vec::new();
            // What came before an error is what it said.
            let _ = reader.take(LONGEST_ANSWER).read_to_end(&mut said);
            said
        });
        let over = || {
            std::thread::sleep(SLICE);
            interrupted()
        };
        let status = wait(child, Instant::now() + limit, over)?;
        Ok(Answer { status, said: listen.join().unwrap_or_default() })
    };
    act().with_context(|| what(spec, line))
}

fn what(spec: &Spec, line: &str) -> String {
    format!("running '{line}' in guest '{}'", spec.guest)
}

/// Starts ssh with these outputs.
fn begin(
    paths: &Paths,
    spec: &Spec,
    line: &str,
    outputs: impl FnOnce() -> (Stdio, Stdio) + Send,
) -> Result<Child> {
    let links = Live.links(spec.netns.as_deref())?;
    let to = network::endpoint(spec.address, spec.mac, &spec.bridge, &links, 22);
    let has_key = Live.stat(&paths.site_key())?.is_some();
    let program = ssh(paths, spec.guest.as_str(), to, "root", has_key).arg(line);
    let program = Program { args: [vec!["-oBatchMode=yes".into()], program.args].concat(), ..program };
    in_netns(spec.netns.as_deref(), || start(&program.command(), outputs()))
}

fn wait(mut child: Child, until: Instant, over: impl Fn() -> bool) -> Result<Option<i32>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if Instant::now() >= until || over() {
            // It leads a group of its own.
            let _ = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
            let status = child.wait()?;
            return Ok(status.code());
        }
    }
}

fn start(command: &Command, (printed, said): (Stdio, Stdio)) -> Result<Child> {
    let mut own = Command::new(command.get_program());
    own.args(command.get_args()).process_group(0);
    own.stdin(Stdio::null()).stdout(printed).stderr(said);
    own.spawn().context("starting 'ssh'")
}
