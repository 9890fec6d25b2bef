//! What a box has: found out in one round trip, by a script for whatever shell `/bin/sh` is there.

use super::{BUILD, VERSION};

/// Before each line that is meant for us: a login shell's own files may print what they like.
const MARK: &str = "gridgate-there:";

/// What a box said about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct There {
    /// Its kernel's name, `Linux`.
    pub system: String,
    /// Its machine, `x86_64`.
    pub machine: String,
    /// What the gridgate in its `$PATH` calls itself, if there is one.
    pub installed: Option<String>,
    /// What the copy that is of this version calls itself, if there is one.
    pub copied: Option<String>,
}

/// How gridgate is called there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Called {
    /// By its name.
    Installed,
    /// By the path of the copy.
    Copied,
}

impl Called {
    /// In a command line. Every shell knows the tilde, and splits nothing that comes of it.
    pub fn text(self) -> String {
        match self {
            Self::Installed => "gridgate".to_owned(),
            Self::Copied => format!("~/{}/gridgate", copy_dir()),
        }
    }
}

/// The directory of this version's copy, below the home directory.
pub fn copy_dir() -> String {
    format!(".cache/gridgate/{VERSION}-{BUILD}")
}

/// What gridgate says of itself, on the first line of `--version`.
pub fn calls_itself() -> String {
    format!("gridgate {VERSION} ({BUILD})")
}

/// The script; it is read from standard input, and the shell goes on reading there.
pub fn script() -> String {
    let copy = format!("\"$HOME/{}/gridgate\"", copy_dir());
    format!(
        "say() {{ printf '%s%s\\n' '{MARK}' \"$*\"; }}
say system $(uname -s)
say machine $(uname -m)
if [ -n \"$(command -v gridgate)\" ]; then say installed $(gridgate --version 2>&1 </dev/null); fi
if [ -e {copy} ]; then say copied $({copy} --version 2>&1 </dev/null); fi
say end
"
    )
}

impl There {
    /// Takes one line of the answer; true if it was the last.
    pub fn hear(&mut self, line: &str) -> bool {
        let Some(said) = line.trim_end().strip_prefix(MARK) else { return false };
        let (what, value) = said.split_once(' ').unwrap_or((said, ""));
        let value = value.to_owned();
        match what {
            "system" => self.system = value,
            "machine" => self.machine = value,
            "installed" => self.installed = Some(value),
            "copied" => self.copied = Some(value),
            _ => {}
        }
        what == "end"
    }

    /// The gridgate that is the same as this one: the box's own before a copy.
    pub fn same(&self) -> Option<Called> {
        let same = |said: &Option<String>| said.as_ref().is_some_and(|said| *said == calls_itself());
        match (same(&self.installed), same(&self.copied)) {
            (true, _) => Some(Called::Installed),
            (false, true) => Some(Called::Copied),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use crate::host::programs::{Program, Programs};
    use proptest::prelude::*;

    fn heard(text: &str) -> (There, bool) {
        let mut there = There::default();
        let ended = text.lines().any(|line| there.hear(line));
        (there, ended)
    }

    #[test]
    fn a_machine_without_gridgate_says_what_it_is() {
        let home = tempfile::tempdir().unwrap();
        let shell = Program::new("/bin/sh").env("HOME", home.path().to_str().unwrap());
        let shell = shell.env("PATH", "/usr/bin:/bin").input(format!("echo Welcome!\n{}", script()));
        let (there, ended) = heard(&Live.run(&shell).unwrap().text());
        assert!(ended);
        assert_eq!((there.system.as_str(), there.machine.as_str()), ("Linux", std::env::consts::ARCH));
        assert_eq!((there.installed.clone(), there.copied.clone(), there.same()), (None, None, None));
    }

    #[test]
    fn the_boxs_own_gridgate_comes_before_a_copy_and_only_the_same_version_counts() {
        let same = calls_itself();
        for (installed, copied, expected) in [
            (same.as_str(), same.as_str(), Some(Called::Installed)),
            ("gridgate 0.0.1 (0)", same.as_str(), Some(Called::Copied)),
            ("gridgate 0.0.1 (0)", "GLIBC_2.99 not found", None),
        ] {
            let text = format!("{MARK}installed {installed}\nnoise\n{MARK}copied {copied}\n{MARK}end\n");
            assert_eq!(heard(&text).0.same(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_heard(text in "(gridgate-there:)?\\PC{0,40}") {
            There::default().hear(&text);
        }
    }
}
