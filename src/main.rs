//! The process's edge.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use gridgate::cli::{console, hold};
use gridgate::paths::Paths;

#[derive(Parser)]
#[command(name = "gridgate")]
struct Cli {
    #[arg(long, default_value = "/etc/gridgate")]
    site: PathBuf,
    #[arg(long, default_value = "/var/lib/gridgate")]
    state: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Console(console::ConsoleArgs),
    #[command(hide = true)]
    Hold(hold::HoldArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let paths = Paths::new(&cli.site, &cli.state);
    let done = match &cli.command {
        Command::Console(args) => console::run(args, &paths, None),
        Command::Hold(args) => hold::run(args, &paths),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("gridgate: {e:#}");
            ExitCode::FAILURE
        }
    }
}
