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
    Doctor,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let paths = Paths::new(Path::new(&cli.site), &cli.state);
    let progress = Progress::new(Talk::Normal);
    let out = &mut std::io::stdout().lock();
    let done = match &cli.command {
        Command::Image(command) => run(command, &Live, &paths, cli.json, &progress, out).map(|()| true),
        Command::Doctor => gridgate::cli::doctor::run(&Live, &paths, cli.json, out),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(e) => {
            eprintln!("gridgate: {e:#}");
            ExitCode::FAILURE
        }
    }
}
