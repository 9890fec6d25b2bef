//! Other programs: started with a clean idea of where each stream goes, and told of as they were typed.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::bounds::Bounds;
use super::notify;
use super::unsynced::Unsynced;

/// A program to run, as data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    /// Name (looked for in `$PATH`) or path.
    pub name: String,
    /// Arguments.
    pub args: Vec<OsString>,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
    /// What it reads on its standard input; nothing if `None`.
    pub input: Option<Vec<u8>>,
    /// Where it runs; here if `None`.
    pub dir: Option<PathBuf>,
    /// What becomes of it when the user asks for an end.
    pub on_interrupt: OnInterrupt,
    /// What it may take; what this process may, if `None`.
    pub bounds: Option<Bounds>,
    /// Whether it is told that what it writes is on stable storage before it is: whoever runs it sees to that afterwards.
    pub unsynced: bool,
}

/// What becomes of a running program when the user asks for an end ([`crate::progress::interrupted`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnInterrupt {
    /// It runs to its end: it is short, or must not be cut short.
    #[default]
    Finish,
    /// It is killed, and running it is an error that says so: what it makes is thrown away then.
    Kill,
}

impl Program {
    /// A program without arguments.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    pub fn args<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// One more variable.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// What it reads on its standard input.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// No more than that, and no way to more privileges.
    pub fn bounded(mut self, bounds: Bounds) -> Self {
        self.bounds = Some(bounds);
        self
    }

    /// It need not wait for the disk: the caller does, when it has ended.
    pub fn unsynced(mut self) -> Self {
        self.unsynced = true;
        self
    }

    /// From now on an interrupt kills it.
    pub fn killed_on_interrupt(mut self) -> Self {
        self.on_interrupt = OnInterrupt::Kill;
        self
    }

    /// The command as one would type it.
    pub fn typed(&self) -> String {
        let mut line = self.name.clone();
        for arg in &self.args {
            let arg = arg.to_string_lossy();
            line.push(' ');
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
            if !arg.is_empty() && arg.chars().all(plain) {
                line.push_str(&arg);
            } else {
                line.push('\'');
                line.push_str(&arg.replace('\'', "'\\''"));
                line.push('\'');
            }
        }
        line
    }

    /// As the standard library's command, streams not yet said. It is run from where [`Programs::find_program`] finds it: a
    /// root shell whose `$PATH` lacks the sbin directories is common.
    pub fn command(&self) -> Command {
        let mut command = Command::new(find(&self.name).unwrap_or_else(|| PathBuf::from(&self.name)));
        // What a service manager told this process is not for others.
        for name in notify::VARIABLES {
            command.env_remove(name);
        }
        command.args(&self.args).envs(self.env.iter().map(|(k, v)| (k, v)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        if let Some(bounds) = self.bounds {
            bounds.install(&mut command);
        }
        if let (true, Ok(unsynced)) = (self.unsynced, Unsynced::new()) {
            unsynced.install(&mut command);
        }
        command
    }
}

/// What came back from a program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran {
    /// Exit status; 128 + signal if a signal ended it, as shells have it.
    pub status: i32,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it said.
    pub stderr: Vec<u8>,
}

impl Ran {
    /// The output as text, with surrounding white space taken off.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
}

/// What gridgate asks of other programs.
pub trait Programs {
    /// Runs to the end, capturing both outputs; any exit status is a result, only a program that cannot be started is
    /// an error.
    fn run_any(&self, program: &Program) -> Result<Ran>;

    /// As [`Programs::run_any`], and a status other than 0 is an error that shows the command, its status and the end
    /// of what it said.
    fn run(&self, program: &Program) -> Result<Ran> {
        succeeded(program, self.run_any(program)?)
    }

    /// As [`Programs::run`], and each line that the program says (on its standard error) is handed on as it comes.
    fn run_watched(&self, program: &Program, watch: &mut dyn FnMut(&str)) -> Result<Ran> {
        let ran = self.run_any(program)?;
        String::from_utf8_lossy(&ran.stderr).lines().for_each(watch);
        succeeded(program, ran)
    }

    /// Where in `$PATH` (and the sbin directories, which a plain user's `$PATH` lacks) a program is.
    fn find_program(&self, name: &str) -> Option<PathBuf>;
}

fn succeeded(program: &Program, ran: Ran) -> Result<Ran> {
    if ran.status == 0 {
        return Ok(ran);
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let lines: Vec<&str> = said.lines().rev().filter(|l| !l.trim().is_empty()).take(8).collect();
    let tail: Vec<&str> = lines.into_iter().rev().collect();
    anyhow::bail!("'{}' ended with status {}: {}", program.typed(), ran.status, tail.join(" | "))
}

/// 128 + signal if a signal ended it, as shells have it.
fn shell_status(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|s| 128 + s)).unwrap_or(1)
}

impl Programs for super::Live {
    fn run_any(&self, program: &Program) -> Result<Ran> {
        let what = || format!("running '{}'", program.typed());
        let mut command = program.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if program.input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().with_context(what)?;
        let feeder = program.input.clone().zip(child.stdin.take()).map(|(bytes, mut stdin)| {
            // A program may stop reading early; its status tells whether that was wrong.
            std::thread::spawn(move || drop(stdin.write_all(&bytes)))
        });
        let watch = Watch::over(&child, program).with_context(what)?;
        let output = child.wait_with_output().with_context(what)?;
        if let Some(feeder) = feeder {
            let _ = feeder.join();
        }
        watch.end().with_context(what)?;
        Ok(Ran { status: shell_status(output.status), stdout: output.stdout, stderr: output.stderr })
    }

    fn run_watched(&self, program: &Program, watch: &mut dyn FnMut(&str)) -> Result<Ran> {
        let what = || format!("running '{}'", program.typed());
        let mut command = program.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(what)?;
        let interrupt = Watch::over(&child, program).with_context(what)?;
        let stdout = child.stdout.take().map(|mut stdout| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                // What came before a read error is still the output.
                let _ = stdout.read_to_end(&mut bytes);
                bytes
            })
        });
        let mut said = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            let mut stderr = BufReader::new(stderr);
            let mut line = Vec::new();
            while stderr.read_until(b'\n', &mut line).with_context(what)? > 0 {
                watch(String::from_utf8_lossy(&line).trim_end());
                said.append(&mut line);
            }
        }
        let status = shell_status(child.wait().with_context(what)?);
        let stdout = stdout.and_then(|reader| reader.join().ok()).unwrap_or_default();
        interrupt.end().with_context(what)?;
        succeeded(program, Ran { status, stdout, stderr: said })
    }

    fn find_program(&self, name: &str) -> Option<PathBuf> {
        find(name)
    }
}

fn find(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|p| p.is_file());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let fixed = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(fixed).map(|dir| dir.join(name)).find(|p| p.is_file())
}

/// A thread that kills a program on an interrupt, which no blocking wait for its output would notice.
struct Watch(Option<std::thread::JoinHandle<bool>>);

/// An interrupt is noticed this late at most.
const SLICE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

impl Watch {
    fn over(child: &Child, program: &Program) -> Result<Self> {
        if program.on_interrupt == OnInterrupt::Finish {
            return Ok(Self(None));
        }
        let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        let watch = move || {
            // The signal itself may end the wait early. Any other end is the program's, or an error that a second look would
            // not mend.
            while matches!(
                poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&SLICE)),
                Ok(0) | Err(rustix::io::Errno::INTR)
            ) {
                if crate::progress::interrupted() {
                    return pidfd_send_signal(&process, Signal::KILL).is_ok();
                }
            }
            false
        };
        Ok(Self(Some(std::thread::spawn(watch))))
    }

    /// After the program's end: an error if it was killed here, or on its own by the Ctrl-C that interrupts this process.
    fn end(self) -> Result<()> {
        let Some(thread) = self.0 else { return Ok(()) };
        let killed = thread.join().unwrap_or(false);
        if killed || crate::progress::interrupted() {
            anyhow::bail!("interrupted");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;

    #[test]
    fn a_watched_program_hands_on_each_line_and_its_output() {
        let program = Program::new("sh").args(["-c", "echo out; echo one >&2; printf two >&2"]);
        let mut lines = Vec::new();
        let ran = Live.run_watched(&program, &mut |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two"]);
        assert_eq!(ran.text(), "out");
    }

    #[test]
    fn a_watched_program_that_fails_shows_the_end_of_what_it_said() {
        let program = Program::new("sh").args(["-c", "echo why >&2; exit 3"]);
        let error = Live.run_watched(&program, &mut |_| ()).unwrap_err().to_string();
        assert_eq!(error, "'sh -c 'echo why >&2; exit 3'' ended with status 3: why");
    }
}
