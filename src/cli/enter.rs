//! `gridgate enter`: a shell where the site's network is.

use std::convert::Infallible;
use std::ffi::OsString;

use anyhow::{Result, bail};

use crate::config::site::Site;
use crate::host::Live;
use crate::host::net::{Net, become_program};
use crate::host::programs::Program;
use crate::network;
use crate::paths::Paths;

/// Run a shell or a command where the site's network is
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Command and its arguments; your shell if there are none
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Becomes the shell or command, whose exit status is then this process's; returns only if that fails. The working
/// directory stays; in the environment `GRIDGATE_SITE` and `GRIDGATE_STATE` make further gridgate commands find this site.
pub fn run(args: &Args, site: &Site, paths: &Paths) -> Result<Infallible> {
    let ns = network::namespace(site, paths);
    match &ns {
        Some(path) if !Live.netns_exists(path)? => {
            bail!("site '{}' is down, so it has no network to enter; 'gridgate up' brings it up", site.name)
        }
        Some(_) => {}
        None => eprintln!("site '{}' is on the host's own network: nothing to enter", site.name),
    }
    let mut words = args.command.iter().cloned();
    let program = match words.next() {
        Some(name) => Program::new(name.to_string_lossy()).args(words),
        None => shell(site),
    };
    let program = program
        .env("GRIDGATE_SITE", &paths.site.to_string_lossy())
        .env("GRIDGATE_STATE", &paths.state.to_string_lossy());
    Err(become_program(ns.as_deref(), &program))
}

/// The user's own shell, with the site's name in its prompt: in `PS1` for shells that take it from the environment, and
/// where Debian's `/etc/bash.bashrc` puts the name of a changed root.
fn shell(site: &Site) -> Program {
    let shell = std::env::var("SHELL").ok().filter(|s| !s.is_empty()).unwrap_or_else(|| "/bin/sh".to_owned());
    let hint = format!("gridgate:{}", site.name);
    Program::new(shell).env("PS1", &format!("({hint}) $ ")).env("debian_chroot", &hint)
}
