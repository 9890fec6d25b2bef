//! `gridgate --host GATEWAY COMMAND`: the command runs there.

use std::ffi::OsString;

use anyhow::{Result, anyhow};
use clap::{CommandFactory, Parser};

use super::{Cli, Command, Ending, Exit};
use crate::host::refused::Refused;
use crate::progress::Progress;
use crate::remote::{self, Address, Order, Wants};

const HEADING: &str = "On another box";

/// Where a command runs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run it on another box, by ssh: [USER@]HOST[:PORT]; every file that is named is one of that box
    #[arg(long, global = true, value_name = "GATEWAY", help_heading = HEADING)]
    pub host: Option<Address>,
    /// Copy this program there, to ~/.cache/gridgate, if that box has none of this version
    #[arg(long, global = true, help_heading = HEADING)]
    pub copy_binary: bool,
    /// Run it as root there, by sudo, which must ask for no password
    #[arg(long, global = true, help_heading = HEADING)]
    pub sudo: bool,
}

impl Args {
    /// Which of these options was given, for which there must be a host.
    fn stray(&self) -> Option<&'static str> {
        match self {
            Self { host: Some(_), .. } => None,
            Self { sudo: true, .. } => Some("--sudo"),
            Self { copy_binary: true, .. } => Some("--copy-binary"),
            _ => None,
        }
    }
}

/// Runs the command there, if it is to run elsewhere at all: its exit status. `words` are those of the command line.
pub fn run(cli: &Cli, words: &[OsString], progress: &Progress) -> Result<Option<u8>> {
    if let Some(option) = cli.elsewhere.stray() {
        return Err(Ending::error(Exit::Usage, format!("{option} goes with --host, and there is none")));
    }
    let Some(address) = &cli.elsewhere.host else { return Ok(None) };
    let words = without(words)?;
    let verb = Cli::command().try_get_matches_from(&words)?.subcommand_name().unwrap_or_default().to_owned();
    let escape = std::env::var("GRIDGATE_ESCAPE").ok().filter(|_| matches!(cli.command, Command::Console(_)));
    let order = Order {
        address: address.clone(),
        ssh: std::env::var("GRIDGATE_SSH").unwrap_or_else(|_| "ssh".to_owned()),
        words: words.into_iter().skip(1).collect(),
        verb,
        wants: wants(cli),
        // What keys a user likes has nothing to do with where the console is.
        env: escape.map(|keys| ("GRIDGATE_ESCAPE".to_owned(), keys)).into_iter().collect(),
        copy: cli.elsewhere.copy_binary,
        sudo: cli.elsewhere.sudo,
    };
    match remote::run(&order, progress) {
        Ok(status) => Ok(Some(u8::try_from(status).unwrap_or(Exit::Failed as u8))),
        Err(error) => match error.downcast::<Refused>() {
            Ok(refused) => Err(Ending::error(Exit::Refused, refused.0)),
            Err(error) => Err(error),
        },
    }
}

/// What the command does with its standard streams.
fn wants(cli: &Cli) -> Wants {
    match &cli.command {
        Command::Console(args) => {
            let attaches = !args.log && !args.writers && args.broadcast.is_none();
            Wants { terminal: attaches, input: attaches }
        }
        // As ssh itself has it: a terminal for a login, clean streams for a command.
        Command::Ssh(args) => Wants { terminal: args.command.is_empty(), input: true },
        Command::Enter(_) => Wants { terminal: true, input: true },
        Command::Status(args) => Wants { terminal: args.watch && !cli.json, input: false },
        _ => Wants::default(),
    }
}

/// The words without those that say where. Which ones these are only the definition of the command line knows (the same words
/// after `ssh GUEST` are the guest's), so it is asked: without them, the line still has to be one, and say nothing of where.
fn without(words: &[OsString]) -> Result<Vec<OsString>> {
    let mut words = words.to_vec();
    type Said = fn(&Args) -> bool;
    let options: [(&str, usize, Said); 3] = [
        ("--host", 1, |args| args.host.is_some()),
        ("--copy-binary", 0, |args| args.copy_binary),
        ("--sudo", 0, |args| args.sudo),
    ];
    for (option, values, said) in options {
        if !said(&Cli::try_parse_from(&words)?.elsewhere) {
            continue;
        }
        let joined = format!("{option}=");
        let rest = (1..words.len()).find_map(|at| {
            let word = &words[at];
            let count = match word {
                word if word == option => 1 + values,
                word if word.as_encoded_bytes().starts_with(joined.as_bytes()) => 1,
                _ => return None,
            };
            let mut rest = words.clone();
            rest.drain(at..(at + count).min(words.len()));
            let parsed = Cli::try_parse_from(&rest).ok()?;
            (!said(&parsed.elsewhere)).then_some(rest)
        });
        let twice = || anyhow!(Ending { exit: Exit::Usage, message: format!("{option} is given twice") });
        words = rest.ok_or_else(twice)?;
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn only_the_words_that_say_where_are_taken_out() {
        for (line, rest) in [
            ("gridgate --host gw status ce", "gridgate status ce"),
            ("gridgate status --host=ann@gw:22 ce --json", "gridgate status ce --json"),
            ("gridgate --sudo --site /s up --host gw --copy-binary ce", "gridgate --site /s up ce"),
            ("gridgate --host gw ssh ce ls --host x --sudo", "gridgate ssh ce ls --host x --sudo"),
            ("gridgate --host gw enter -- x --host=y", "gridgate enter -- x --host=y"),
            ("gridgate ssh --host gw ce ls --host=y", "gridgate ssh ce ls --host=y"),
            ("gridgate --host --host x", "gridgate --host x"),
        ] {
            match without(&words(line)) {
                Ok(found) => assert_eq!(found, words(rest), "{line}"),
                Err(_) => assert_eq!(line, "gridgate --host --host x"),
            }
        }
    }

    #[test]
    fn an_option_given_twice_is_refused() {
        let error = without(&words("gridgate --host a status --host b")).unwrap_err();
        assert_eq!(error.to_string(), "--host is given twice");
    }

    #[test]
    fn a_terminal_is_for_what_shows_itself_on_one_and_input_for_what_reads_it() {
        for (line, terminal, input) in [
            ("console ce", true, true),
            ("console --all", true, true),
            ("console ce --log --follow", false, false),
            ("console ce --broadcast x", false, false),
            ("ssh ce", true, true),
            ("ssh ce ls", false, true),
            ("enter", true, true),
            ("status", false, false),
            ("status --watch", true, false),
            ("status --watch --json", false, false),
            ("up", false, false),
        ] {
            let cli = Cli::try_parse_from(words(&format!("gridgate {line}"))).unwrap();
            assert_eq!(wants(&cli), Wants { terminal, input }, "{line}");
        }
    }
}
