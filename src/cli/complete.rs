//! What a shell is told when somebody presses the tab key: verbs and options from the definitions, guests from the site.
//!
//! The shells' scripts ([`script`]) hold no list; they run gridgate with `$COMPLETE` set, which [`answer`] sees.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::CompletionCandidate;
use clap_complete::engine::ArgValueCompleter;
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Zsh};

use super::Cli;
use crate::config::{self, LoadOptions};

const VARIABLE: &str = "COMPLETE";

/// Answers a shell and ends the process, if it was a shell that asked; else does nothing.
pub fn answer() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
}

/// The script that a shell reads once: its file name and its text.
pub fn scripts() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let shells: [(&str, &dyn EnvCompleter); 3] =
        [("gridgate.bash", &Bash), ("_gridgate", &Zsh), ("gridgate.fish", &Fish)];
    let script = |(file, shell): (&'static str, &dyn EnvCompleter)| {
        let mut text = Vec::new();
        shell.write_registration(VARIABLE, "gridgate", "gridgate", "gridgate", &mut text)?;
        text.flush()?;
        Ok((file, text))
    };
    shells.into_iter().map(script).collect()
}

/// For an argument that is a guest of the site.
pub fn guest_names() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let typed = typed.to_string_lossy();
        let site = site_dir(std::env::args_os(), std::env::var_os("GRIDGATE_SITE"));
        // A shell shows no messages; a site that cannot be read completes to nothing.
        let Ok(loaded) = config::load(&site, &LoadOptions::default()) else { return Vec::new() };
        let guests = loaded.site.guests.into_iter().filter(|guest| guest.name.as_str().starts_with(&*typed));
        let candidate = |name: &str, help: String| {
            let help = (!help.is_empty()).then(|| help.into());
            CompletionCandidate::new(name).help(help)
        };
        guests.map(|guest| candidate(guest.name.as_str(), guest.description)).collect()
    })
}

/// The site that the command on the line is about: `--site` there, else the environment's, else the default.
fn site_dir(words: impl Iterator<Item = OsString>, environment: Option<OsString>) -> PathBuf {
    let words: Vec<OsString> = words.collect();
    let said = words.iter().enumerate().rev().find_map(|(at, word)| match word.to_str() {
        Some("--site") => words.get(at + 1).cloned(),
        Some(word) => word.strip_prefix("--site=").map(OsString::from),
        None => None,
    });
    said.or(environment).map_or_else(|| PathBuf::from("/etc/gridgate"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_site_on_the_line_is_the_one_whose_guests_are_meant() {
        let dir = |line: &str, environment: Option<&str>| {
            site_dir(line.split(' ').map(OsString::from), environment.map(OsString::from))
        };
        assert_eq!(dir("gridgate --site /a console", Some("/b")), PathBuf::from("/a"));
        assert_eq!(dir("gridgate --site=/a console", None), PathBuf::from("/a"));
        assert_eq!(dir("gridgate console", Some("/b")), PathBuf::from("/b"));
        assert_eq!(dir("gridgate console --site", None), PathBuf::from("/etc/gridgate"));
    }
}
