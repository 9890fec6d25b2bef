//! The process's edge: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use gridgate::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::run(&Cli::parse()) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => {
            eprintln!("gridgate: {error:#}");
            ExitCode::from(cli::Exit::Failed as u8)
        }
    }
}
