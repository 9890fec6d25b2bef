//! What is known of where installed systems keep their identity: data, one file a class.
//!
//! ```text
//! *.toml -> Known (patterns, action, why, mend)     Found in a tree
//!                     |                                  |
//!                   Table -------- places ---------------+---> what scrub removes and audit reports
//! ```

mod homes;
mod pattern;
mod table;

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

pub use homes::homes;
pub use pattern::Pattern;
pub use table::{Descend, Place, Table};

/// What sort of identity something is; a policy is a choice of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// What the machine is called.
    Names,
    /// Network configuration, leases, interface rules.
    Network,
    /// Machine-ids, storage names, registrations.
    Ids,
    /// SSH host keys, and root's own key.
    Ssh,
    /// Certificates in the machine's name, and their keys.
    Certificates,
    /// Shared keys, tickets, passwords.
    Secrets,
    /// Randomness kept for the next start.
    Seeds,
    /// What people did: histories, mail, queues.
    History,
    /// Keys and tokens in home directories.
    Users,
    /// Logs, journals, crash dumps.
    Logs,
    /// What programs can make again.
    Caches,
    /// State of services: batch systems, storage, directories.
    Services,
}

impl Class {
    /// All of them, in the order of a report.
    pub const ALL: [Self; 12] = [
        Self::Names,
        Self::Network,
        Self::Ids,
        Self::Ssh,
        Self::Certificates,
        Self::Secrets,
        Self::Seeds,
        Self::History,
        Self::Users,
        Self::Logs,
        Self::Caches,
        Self::Services,
    ];

    /// As one types it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Network => "network",
            Self::Ids => "ids",
            Self::Ssh => "ssh",
            Self::Certificates => "certificates",
            Self::Secrets => "secrets",
            Self::Seeds => "seeds",
            Self::History => "history",
            Self::Users => "users",
            Self::Logs => "logs",
            Self::Caches => "caches",
            Self::Services => "services",
        }
    }

    fn data(self) -> &'static str {
        match self {
            Self::Names => include_str!("names.toml"),
            Self::Network => include_str!("network.toml"),
            Self::Ids => include_str!("ids.toml"),
            Self::Ssh => include_str!("ssh.toml"),
            Self::Certificates => include_str!("certificates.toml"),
            Self::Secrets => include_str!("secrets.toml"),
            Self::Seeds => include_str!("seeds.toml"),
            Self::History => include_str!("history.toml"),
            Self::Users => include_str!("users.toml"),
            Self::Logs => include_str!("logs.toml"),
            Self::Caches => include_str!("caches.toml"),
            Self::Services => include_str!("services.toml"),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Class {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|class| class.as_str() == text) {
            Some(class) => Ok(class),
            None => {
                let all: Vec<&str> = Self::ALL.into_iter().map(Self::as_str).collect();
                bail!("there is no class '{text}'; hint: one of {}", all.join(", "))
            }
        }
    }
}

/// What becomes of a path when its class is scrubbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Personalising writes the whole of it; a scrub leaves it alone unless its class was asked for, sealing removes it.
    Assign,
    /// Personalising changes values in it; it is never removed.
    Adjust,
    /// It goes, a directory with all that is in it.
    Remove,
    /// A file becomes empty and keeps its owner and mode; a directory is left alone.
    Empty,
    /// What is in the directory goes; the directory stays. A file goes.
    Clear,
    /// It stays, and is only looked at.
    Keep,
}

/// Places that tell of a machine in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Whose policy it follows.
    pub class: Class,
    /// Where.
    pub patterns: Vec<Pattern>,
    /// What becomes of it.
    pub action: Action,
    /// Why it tells of a machine: what stands there.
    pub why: String,
    /// How to set it right.
    pub mend: String,
}

impl Known {
    /// An entry of a profile's scrub list.
    pub fn of_profile(profile: &str, patterns: &[String], action: Action) -> Result<Self> {
        let read = |text: &String| Pattern::parse(text);
        let patterns = patterns.iter().map(read).collect::<Result<_>>();
        Ok(Self {
            class: Class::Services,
            patterns: patterns.with_context(|| format!("reading the scrub list of profile '{profile}'"))?,
            action,
            why: format!("profile '{profile}' says that it belongs to one machine"),
            mend: "--scrub services removes it".to_owned(),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mend: String,
    entry: Vec<FileEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    paths: Vec<String>,
    action: Action,
    why: String,
    mend: Option<String>,
}

fn read(class: Class) -> Result<Vec<Known>> {
    let what = || format!("reading what is known of {class}");
    let file: File = toml::from_str(class.data()).with_context(what)?;
    let mut known = Vec::new();
    for entry in file.entry {
        let patterns = entry.paths.iter().map(|text| Pattern::parse(text)).collect::<Result<_>>();
        known.push(Known {
            class,
            patterns: patterns.with_context(what)?,
            action: entry.action,
            why: entry.why,
            mend: entry.mend.unwrap_or_else(|| file.mend.clone()),
        });
    }
    Ok(known)
}

/// All that gridgate knows of.
pub fn shipped() -> &'static [Known] {
    static SHIPPED: OnceLock<Vec<Known>> = OnceLock::new();
    SHIPPED.get_or_init(|| {
        let all: Result<Vec<_>> = Class::ALL.into_iter().map(read).collect();
        all.expect("the data is part of the program, and a test reads all of it").concat()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_class_is_read_and_says_of_each_entry_why() {
        for class in Class::ALL {
            let known = read(class).unwrap();
            assert!(!known.is_empty());
            for entry in &known {
                assert!(
                    !entry.patterns.is_empty() && entry.why.len() > 20 && entry.mend.len() > 20,
                    "{entry:?}"
                );
            }
            assert_eq!(class.as_str().parse::<Class>().unwrap(), class);
        }
        assert!(shipped().iter().map(|known| known.patterns.len()).sum::<usize>() > 1000);
    }

    #[test]
    fn no_pattern_stands_in_two_places() {
        let mut seen = BTreeSet::new();
        for known in shipped() {
            for pattern in &known.patterns {
                assert!(seen.insert(pattern.as_str()), "{} is there twice", pattern.as_str());
            }
        }
    }

    #[test]
    fn what_a_system_needs_to_run_is_never_removed() {
        let table = Table::shipped();
        for path in [
            "/etc/passwd",
            "/etc/shadow",
            "/etc/group",
            "/etc/fstab",
            "/etc/ssh/sshd_config",
            "/etc/nsswitch.conf",
            "/etc/pam.d/sshd",
            "/etc/sudoers",
            "/etc/ssl/certs/ca-certificates.crt",
            "/etc/grid-security/certificates/a.0",
            "/var/lib/dpkg/status",
            "/var/lib/rpm/rpmdb.sqlite",
            "/var/cache/debconf/templates.dat",
            "/boot/vmlinuz",
            "/usr/bin/bash",
            "/lib/systemd/systemd",
            "/etc/systemd/system/x.service",
            "/home/a/thesis.tex",
            "/root/.profile",
            "/var/lib/mysql/shop/orders.ibd",
            "/etc/crontab",
            "/etc/pki/tls/certs/ca-bundle.crt",
            "/srv/data/file",
        ] {
            let known = table.best(std::path::Path::new(path), &[]);
            let harmless = known.is_none_or(|k| matches!(k.action, Action::Adjust | Action::Keep));
            assert!(harmless, "{path}: {known:?}");
        }
    }

    #[test]
    fn a_class_that_does_not_exist_is_refused_with_those_that_do() {
        let error = "keys".parse::<Class>().unwrap_err().to_string();
        assert!(error.starts_with("there is no class 'keys'; hint: one of names, network"), "{error}");
    }
}
