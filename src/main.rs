//! The process's edge: parse, run, print the error once, exit.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use gridgate::cli::{self, Cli, Ending, Exit, units};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if words.first().is_some_and(|program| units::is_generator(Path::new(program))) {
        return generator(words.get(1).map(Path::new));
    }
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stdout is no reason for another message.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    match cli::run(&cli, &words) {
        Ok(status) => ExitCode::from(status),
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

/// Whatever happens, a boot goes on; systemd notes the status.
fn generator(dir: Option<&Path>) -> ExitCode {
    match units::generate(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gridgate: {error:#}");
            ExitCode::from(Exit::Failed as u8)
        }
    }
}
