//! The process's edge.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use gridgate::cli::image::{ImageCommand, run};
use gridgate::host::Live;
use gridgate::paths::Paths;
use gridgate::progress::{Progress, Talk};

#[derive(Parser)]
struct Cli {
    #[arg(long, env = "GRIDGATE_SITE", default_value = "/etc/gridgate")]
    site: PathBuf,
    #[arg(long, env = "GRIDGATE_STATE", default_value = "/var/lib/gridgate")]
    state: PathBuf,
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    #[command(subcommand)]
    Image(ImageCommand),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let paths = Paths::new(Path::new(&cli.site), &cli.state);
    let progress = Progress::new(Talk::Normal);
    let Command::Image(command) = &cli.command;
    match run(command, &Live, &paths, cli.json, &progress, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("gridgate: {e:#}");
            ExitCode::FAILURE
        }
    }
}
