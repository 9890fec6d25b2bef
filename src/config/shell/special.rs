//! Variables that the shell itself sets or acts upon ("Shell Variables" in bash's manual): a file that assigns one
//! changes how the rest is read, and one that refers to one depends on the shell that reads it.

const ASSIGNED_BY_SHELL: &[&str] = &[
    "_",
    "UID",
    "EUID",
    "PPID",
    "RANDOM",
    "SRANDOM",
    "SECONDS",
    "LINENO",
    "EPOCHSECONDS",
    "EPOCHREALTIME",
    "HISTCMD",
    "GROUPS",
    "DIRSTACK",
    "FUNCNAME",
    "SHELLOPTS",
    "PIPESTATUS",
    "COPROC",
    "COMPREPLY",
    "OPTIND",
    "OPTERR",
];

const ACTED_UPON: &[&str] =
    &["IFS", "POSIXLY_CORRECT", "POSIX_PEDANTIC", "IGNOREEOF", "ignoreeof", "FUNCNEST"];

const SET_AT_START: &[&str] = &[
    "PATH", "PWD", "OLDPWD", "SHLVL", "SHELL", "TERM", "HOSTNAME", "HOSTTYPE", "MACHTYPE", "OSTYPE", "PS1",
    "PS2", "PS4",
];

/// Why a variable must not be assigned, if so.
pub(super) fn bad_assignment(name: &str) -> Option<&'static str> {
    if ASSIGNED_BY_SHELL.contains(&name) || name.starts_with("BASH") || name.starts_with("COMP_") {
        Some("is a variable that the shell sets itself")
    } else if ACTED_UPON.contains(&name) {
        Some("is a variable that changes how a shell reads")
    } else {
        None
    }
}

/// Why a reference to a variable that the file has not assigned is refused, if so.
pub(super) fn bad_reference(name: &str) -> Option<&'static str> {
    if bad_assignment(name).is_some() || SET_AT_START.contains(&name) || chooses_charset(name) {
        Some("is a variable of the shell or its environment, so that its value depends on who reads the file")
    } else {
        None
    }
}

/// Whether the variable chooses the character set.
pub(super) fn chooses_charset(name: &str) -> bool {
    matches!(name, "LANG" | "LC_ALL" | "LC_CTYPE")
}

/// Whether a locale's character set keeps every ASCII byte what it is, in any position.
pub(super) fn plain_charset(locale: &[u8]) -> bool {
    let locale = String::from_utf8_lossy(locale).to_ascii_uppercase();
    let charset = locale.split_once('.').map_or("", |(_, charset)| charset);
    matches!(charset.split('@').next(), Some("" | "UTF-8" | "UTF8"))
}
