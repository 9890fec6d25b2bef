//! A program of a guest's own, run inside the guest's filesystem, that can reach nothing else.
//!
//! ```text
//! this process            gridgate's, reads the output, ends it when its time is over
//!   +- keeper             new mount, network, ipc and uts namespaces; dies with this process
//!        +- the program   process 1 of a new process namespace; whatever it starts dies with it
//! ```
//!
//! chroot(2) is no boundary, so the guest's tree becomes the root of a mount namespace in which there is nothing but it, a
//! `/dev` with six harmless devices and a `/proc` that shows processes and nothing else. Capabilities are those that it takes
//! to write files for others, new privileges are out of reach, and system calls that change the machine rather than files
//! are refused. Nothing has to be unmounted or killed afterwards: with the last process the namespaces go.

mod enter;
mod filter;
mod group;
mod program;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::root::Root;
use enter::Entrance;
pub use program::check;

/// What is to be run, and what it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The program, a path inside the guest or a name that is looked for in the usual directories, and its arguments.
    pub command: Vec<String>,
    /// All of its environment but `PATH`.
    pub env: Vec<(String, String)>,
    /// Paths inside the guest that it may write to, if it may not write elsewhere; everywhere if `None`.
    pub writable: Option<Vec<String>>,
    /// Whether it may use the host's network.
    pub network: bool,
    /// Memory of all its processes together where the kernel's control groups can be used, else of each.
    pub memory_bytes: u64,
    /// Processes at a time, where the kernel's control groups can be used.
    pub processes: u32,
    /// How long it may take.
    pub time: Duration,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit status; 128 and the signal's number if one ended it.
    pub status: i32,
    /// The end of what it said on both of its outputs.
    pub output: String,
}

/// As much of the output as is kept.
const OUTPUT: usize = 64 << 10;
/// Where its programs are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// An interrupt or the end of its time is noticed this late at most.
const SLICE: Duration = Duration::from_millis(100);

impl Sandbox {
    /// Runs it to its end in the guest's tree. An error is that it could not be run, or took too long; how it ended is for
    /// the caller to judge. When this returns, none of its processes is left.
    pub fn run(&self, root: &Root) -> Result<Ended> {
        let name = self.command.first().map(String::as_str).unwrap_or_default();
        let what = || format!("running '{name}' inside the guest");
        program::check(root, name, PATH)?;
        let group = group::Group::make(self.memory_bytes, self.processes);
        let entrance = Entrance::prepare(self, root, group.as_ref()).with_context(what)?;
        let (mut reader, writer) = std::io::pipe().with_context(what)?;
        let mut command = Command::new(name);
        command.args(&self.command[1..]).env_clear().env("PATH", PATH).envs(self.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(writer.try_clone().with_context(what)?).stderr(writer);
        entrance.install(&mut command);
        let spawned = command.spawn();
        // It holds the other end of the pipe.
        drop(command);
        let mut keeper = match spawned {
            Ok(keeper) => keeper,
            Err(error) => {
                let mut said = String::new();
                let _ = (&mut reader).take(OUTPUT as u64).read_to_string(&mut said);
                return Err(error).context(format!("{}: {}", what(), said.trim_end()));
            }
        };
        let output = read(&mut reader, Instant::now() + self.time);
        if output.is_err() {
            // The program dies with its keeper (prctl(2), PR_SET_PDEATHSIG).
            let _ = keeper.kill();
        }
        let status = keeper.wait().with_context(what)?;
        // The namespace is gone once nobody holds the pipe any more.
        let mut rest = Vec::new();
        if output.is_err() {
            let _ = read_to(&mut reader, &mut rest, Instant::now() + Duration::from_secs(5));
        }
        drop(group);
        let output = match output {
            Ok(output) => output,
            Err(error) => return Err(error).with_context(what),
        };
        let status = status.code().unwrap_or(128);
        Ok(Ended { status, output: String::from_utf8_lossy(&output).into_owned() })
    }
}

fn read(reader: &mut std::io::PipeReader, until: Instant) -> Result<Vec<u8>> {
    let mut output = Vec::new();
    match read_to(reader, &mut output, until)? {
        true => Ok(output),
        false => {
            let said = String::from_utf8_lossy(&output).trim_end().to_owned();
            let said = if said.is_empty() { "nothing".to_owned() } else { said };
            bail!("it took longer than it may, and was ended; it said: {said}")
        }
    }
}

/// Whether the end of the output was reached in time; only the last of it is kept.
fn read_to(reader: &mut std::io::PipeReader, output: &mut Vec<u8>, until: Instant) -> Result<bool> {
    let mut buffer = [0u8; 8192];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        if crate::progress::interrupted() {
            bail!("interrupted");
        }
        let slice = left.min(SLICE);
        let slice = Timespec { tv_sec: slice.as_secs() as i64, tv_nsec: i64::from(slice.subsec_nanos()) };
        match poll(&mut [PollFd::new(&reader.as_fd(), PollFlags::IN)], Some(&slice)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok(true);
        }
        output.extend_from_slice(&buffer[..count]);
        let surplus = output.len().saturating_sub(OUTPUT);
        output.drain(..surplus);
    }
}
