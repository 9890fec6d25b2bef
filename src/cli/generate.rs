//! `gridgate generate`: manual pages and completions, from the definitions of the command line itself.
//!
//! What clap generates completes verbs and options. The names of a site's guests are known only when somebody types, so
//! that the completions ask for them (`gridgate names`).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args as ClapArgs, CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::{Cli, Exit};

/// Write manual pages and completions into a directory
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// What to write
    #[arg(value_enum)]
    pub what: What,
    /// Where
    pub dir: PathBuf,
}

/// What can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Manual pages, one a verb
    Man,
    /// Completions for bash, zsh and fish
    Completions,
}

/// Writes them; files that are there are replaced.
pub fn run(args: &Args) -> Result<Exit> {
    let what = || format!("writing into '{}'", args.dir.display());
    std::fs::create_dir_all(&args.dir).with_context(what)?;
    match args.what {
        What::Man => clap_mangen::generate_to(Cli::command(), &args.dir).with_context(what)?,
        What::Completions => {
            for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
                let path = clap_complete::generate_to(shell, &mut shown(), "gridgate", &args.dir)
                    .with_context(what)?;
                add_guests(shell, &path).with_context(what)?;
            }
        }
    }
    Ok(Exit::Done)
}

/// The command line as people see it; clap completes hidden verbs as well.
fn shown() -> clap::Command {
    let all = Cli::command();
    let verbs = all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned();
    clap::Command::new("gridgate").args(all.get_arguments().cloned()).subcommands(verbs)
}

fn add_guests(shell: Shell, path: &Path) -> Result<()> {
    let (text, verbs) = (std::fs::read_to_string(path)?, verbs_of_guests().join(" "));
    let text = match shell {
        Shell::Bash => text + &BASH.replace("VERBS", &verbs),
        Shell::Fish => text + &FISH.replace("VERBS", &verbs),
        Shell::Zsh => zsh(&text),
        _ => text,
    };
    Ok(std::fs::write(path, text)?)
}

/// Verbs that people follow with a guest.
fn verbs_of_guests() -> Vec<String> {
    let of_guests = |verb: &&clap::Command| {
        verb.get_positionals().any(|argument| ["guest", "guests"].contains(&argument.get_id().as_str()))
    };
    shown().get_subcommands().filter(of_guests).map(|verb| verb.get_name().to_owned()).collect()
}

/// Asks the site that the line names, else the usual one. Bash makes three words of `--site=DIR`.
const BASH: &str = r#"
_gridgate_guests() {
    _gridgate "$@"
    local at verb= site=()
    for ((at = 1; at < COMP_CWORD; at++)); do
        case "${COMP_WORDS[at]}" in
            --site | --state)
                local option=${COMP_WORDS[at]}
                [[ ${COMP_WORDS[at + 1]} != = ]] || ((at++))
                ((at++))
                [[ $option != --site ]] || site=(--site "${COMP_WORDS[at]}")
                ;;
            -*) ;;
            *)
                verb=${COMP_WORDS[at]}
                break
                ;;
        esac
    done
    if [[ -n $verb && " VERBS " == *" $verb "* ]]; then
        COMPREPLY+=($(compgen -W "$(gridgate "${site[@]}" names 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
    fi
}

complete -F _gridgate_guests -o nosort -o bashdefault -o default gridgate
"#;

const FISH: &str = r#"
complete -c gridgate -n "__fish_seen_subcommand_from VERBS" -f -a "(gridgate names 2>/dev/null)"
"#;

const ZSH: &str = r#"
_gridgate_guests() {
    local -a names
    names=(${(f)"$(gridgate names 2>/dev/null)"})
    compadd -a names
}
"#;

/// Each argument that is a guest has a line of its own, which ends in what completes it.
fn zsh(text: &str) -> String {
    let starts = ["':guest -- ", "'::guest -- ", "'*::guests -- "];
    let line = |line: &str| match starts.iter().any(|start| line.starts_with(start)) {
        true => line.replace(":_default'", ":_gridgate_guests'") + "\n",
        false => format!("{line}\n"),
    };
    let (head, body) = text.split_once('\n').unwrap_or((text, ""));
    // The first line tells zsh what the file is for.
    format!("{head}\n{ZSH}{}", body.lines().map(line).collect::<String>())
}
