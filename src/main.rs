//! The process's edge: parse, run, print the error once, exit.

use std::process::ExitCode;

use clap::Parser;
use gridgate::cli::{self, Cli, Ending, Exit};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stdout is no reason for another message.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    match cli::run(cli) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => match error.downcast_ref::<Ending>() {
            Some(ending) => {
                if !ending.message.is_empty() {
                    eprintln!("gridgate: {}", ending.message.trim_end());
                }
                ExitCode::from(ending.exit as u8)
            }
            None => {
                eprintln!("gridgate: {error:#}");
                ExitCode::from(Exit::Failed as u8)
            }
        },
    }
}
