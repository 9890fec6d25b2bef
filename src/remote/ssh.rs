//! The system's own ssh, and nothing that weakens it: its configuration, agent, jump hosts and checks of host keys are the
//! user's.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::SigSet;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::address::Address;
use crate::host::Live;
use crate::host::programs::{Program, Programs};

/// How long a link may say nothing before ssh asks, how often it asks in vain, and how long it tries to connect; each only
/// where the user's configuration says nothing.
const ASK_AFTER: Duration = Duration::from_secs(10);
const ASK_TIMES: u32 = 3;
const CONNECT: Duration = Duration::from_secs(30);

/// ssh to one box.
#[derive(Debug, Clone)]
pub struct Ssh {
    words: Vec<String>,
    /// The box.
    pub address: Address,
    /// Options of ours, each as `-o` takes it.
    options: Vec<String>,
    /// How the user's configuration has it.
    pub settings: Settings,
}

/// What is asked of ssh's configuration for a box.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where the user's own shared connections have their sockets, if they do.
    pub control_path: Option<String>,
    asks_if_alive: bool,
    limits_connecting: bool,
    talks_normally: bool,
}

impl Settings {
    /// Of what `ssh -G` prints: a keyword and its value a line.
    fn read(text: &str) -> Self {
        let value = |keyword: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(k, _)| k.eq_ignore_ascii_case(keyword)).map(|(_, value)| value.trim())
        };
        let set = |keyword: &str, unset: &str| value(keyword).is_some_and(|value| value != unset);
        Self {
            control_path: value("controlpath").filter(|path| *path != "none").map(str::to_owned),
            asks_if_alive: set("serveraliveinterval", "0"),
            limits_connecting: set("connecttimeout", "none"),
            talks_normally: value("loglevel").is_some_and(|level| level == "INFO"),
        }
    }
}

impl Ssh {
    /// ssh as it is to be called: words that blanks part, such as `ssh -F FILE`. Asks it how it is configured for this
    /// box; connects to nothing.
    pub fn new(command: &str, address: Address) -> Result<Self> {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let Some(program) = words.first() else { bail!("looking for ssh: $GRIDGATE_SSH is empty") };
        if Live.find_program(program).is_none() {
            bail!(
                "looking for the program '{program}': it is not there; 'apt-get install openssh-client' brings ssh"
            );
        }
        let mut ssh = Self { words, address, options: Vec::new(), settings: Settings::default() };
        let asked = Live.run(&ssh.program(&["-G"], None));
        let said = asked.with_context(|| format!("asking ssh how it would reach '{}'", ssh.address))?;
        ssh.settings = Settings::read(&said.text());
        // As scp and sftp have it: forwarded ports and commands of a login are for logins.
        for option in ["ClearAllForwardings=yes", "RemoteCommand=none", "PermitLocalCommand=no"] {
            ssh.options.push(option.to_owned());
        }
        if !ssh.settings.asks_if_alive {
            ssh.options.push(format!("ServerAliveInterval={}", ASK_AFTER.as_secs()));
            ssh.options.push(format!("ServerAliveCountMax={ASK_TIMES}"));
        }
        if !ssh.settings.limits_connecting {
            ssh.options.push(format!("ConnectTimeout={}", CONNECT.as_secs()));
        }
        Ok(ssh)
    }

    /// With one more option.
    pub fn with(&self, option: impl Into<String>) -> Self {
        let mut more = self.clone();
        more.options.push(option.into());
        more
    }

    /// Without the talk of ssh about itself, such as that a connection is closed, unless the user has asked for more.
    pub fn quiet(&self) -> Self {
        match self.settings.talks_normally {
            true => self.with("LogLevel=ERROR"),
            false => self.clone(),
        }
    }

    /// ssh with some flags of its own, and a line for the login shell there.
    pub fn program(&self, flags: &[&str], line: Option<&str>) -> Program {
        let (name, words) = self.words.split_first().map_or(("ssh", &[][..]), |(n, w)| (n.as_str(), w));
        let mut program = Program::new(name).args(words).args(flags.iter().copied());
        for option in &self.options {
            program = program.args(["-o", option]);
        }
        if let Some(user) = &self.address.user {
            program = program.args(["-l", user]);
        }
        if let Some(port) = self.address.port {
            program = program.args(["-p".to_owned(), port.to_string()]);
        }
        program.args(["--", &self.address.host]).args(line)
    }
}

/// Where the streams of a started ssh go.
#[derive(Debug)]
pub struct Streams {
    /// Its standard input.
    pub input: Stdio,
    /// Its standard output; what it says is always our own standard error.
    pub output: Stdio,
}

/// Whether keys that the terminal makes signals of are for ssh too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// They are: it may ask for a password, or has the terminal for itself.
    Ours,
    /// They are not: they are for what runs there, which must not be cut off by them.
    Own,
}

/// Starts it, so that it ends with this process, however that ends.
#[expect(unsafe_code, reason = "both settings can only be made between fork and exec")]
pub fn start(program: &Program, streams: Streams, group: Group) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    let mut command: Command = program.command();
    command.stdin(streams.input).stdout(streams.output);
    if group == Group::Own {
        command.process_group(0);
    }
    // SAFETY: prctl(2) and sigprocmask(2) are async-signal-safe, and nothing is allocated. This process reads its signals
    // from a descriptor; the mask that this takes is not for others.
    unsafe {
        command.pre_exec(|| {
            set_parent_process_death_signal(Some(Signal::HUP))?;
            Ok(SigSet::empty().thread_set_mask()?)
        });
    }
    command.spawn().with_context(|| format!("running '{}'", program.typed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_that_ssh_prints() {
        let usual = "host gw\nserveraliveinterval 0\nconnecttimeout none\nloglevel INFO\n";
        assert_eq!(Settings::read(usual), Settings { talks_normally: true, ..Settings::default() });
        let own = "controlpath /run/x y\nserveraliveinterval 300\nconnecttimeout 5\nloglevel DEBUG\n";
        let expected = Settings {
            control_path: Some("/run/x y".to_owned()),
            asks_if_alive: true,
            limits_connecting: true,
            talks_normally: false,
        };
        assert_eq!(Settings::read(own), expected);
    }

    /// As ssh itself understands it.
    fn understood(command: &str, address: &str) -> Option<(Ssh, String)> {
        if Live.find_program("ssh").is_none() {
            eprintln!("skipped: there is no ssh");
            return None;
        }
        let ssh = Ssh::new(command, address.parse().unwrap()).unwrap();
        let said = Live.run(&ssh.program(&["-G"], None)).unwrap().text();
        Some((ssh, said))
    }

    #[test]
    fn the_users_configuration_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config");
        let text = "Host gw\n HostName 192.0.2.7\n StrictHostKeyChecking yes\n ServerAliveInterval 60\n ConnectTimeout 7\n";
        std::fs::write(&config, text).unwrap();
        let Some((_, said)) = understood(&format!("ssh -F {}", config.display()), "ann@gw:2222") else {
            return;
        };
        for line in [
            "hostname 192.0.2.7",
            "user ann",
            "port 2222",
            "stricthostkeychecking true",
            "serveraliveinterval 60",
            "connecttimeout 7",
            "clearallforwardings yes",
        ] {
            assert!(said.lines().any(|l| l == line), "'{line}' in {said}");
        }
    }

    #[test]
    fn a_link_that_is_dead_is_noticed_even_if_nobody_configured_it() {
        let Some((_, said)) = understood("ssh -F none", "gw") else { return };
        for line in ["serveraliveinterval 10", "serveralivecountmax 3", "connecttimeout 30"] {
            assert!(said.lines().any(|l| l == line), "'{line}' in {said}");
        }
    }
}
