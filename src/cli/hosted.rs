//! `gridgate hosted`: what `--host` runs on the other box.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::net::become_program;
use crate::host::programs::Program;
use crate::remote;

/// Run a command for gridgate --host, which is at the other end of ssh
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its terminal is the command's
    #[arg(long)]
    terminal: bool,
    /// The command reads what the other end reads
    #[arg(long, conflicts_with = "terminal")]
    input: bool,
    /// The other end is gone if it says nothing for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = remote::SILENCE.as_secs())]
    silence: u64,
    /// A variable for the command, encoded
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<OsString>,
    /// The command's words, encoded
    #[arg(last = true, required = true)]
    words: Vec<OsString>,
}

/// Runs the command; its exit status.
pub fn run(args: &Args) -> Result<u8> {
    let words = args.words.iter().map(|word| remote::decode(word)).collect::<Result<Vec<_>>>()?;
    let mut env = Vec::new();
    for variable in &args.env {
        let variable = remote::decode(variable)?.to_string_lossy().into_owned();
        let (name, value) = variable.split_once('=').context("reading a variable: it has no value")?;
        env.push((name.to_owned(), value.to_owned()));
    }
    let exe = std::env::current_exe().context("looking for this program")?;
    if args.terminal {
        let program = Program::new(exe.to_string_lossy()).args(words);
        let program = env.iter().fold(program, |program, (name, value)| program.env(name, value));
        return Err(become_program(None, &program));
    }
    let status = remote::run_here(&exe, &words, &env, args.input, Duration::from_secs(args.silence))?;
    Ok(u8::try_from(status).unwrap_or(1))
}
