//! A compiled profile: everything that a guest is configured to be, as one deterministic document. It is what is
//! compared, exported, put into the guest and rolled back to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::render::shell_line;
use crate::config::variables::Setting;

/// One guest's compiled profile. Lists are in the order in which they are applied; everything else is sorted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Format of the document.
    pub format: u32,
    /// Name of the site.
    pub site: String,
    /// Name of the guest.
    pub guest: String,
    /// Its full name.
    pub fqdn: String,
    /// Its role.
    pub role: String,
    /// The profile that it is made from.
    pub profile: String,
    /// Profiles and features that it is made of, the weakest first.
    pub made_of: Vec<String>,
    /// Its variables, resolved.
    pub variables: BTreeMap<String, Setting>,
    /// Packages that must be there.
    pub packages: Vec<String>,
    /// Groups with fixed ids.
    pub groups: Vec<Group>,
    /// Users with fixed ids.
    pub users: Vec<User>,
    /// Directories that must be there.
    pub directories: Vec<Directory>,
    /// Files with their content.
    pub files: Vec<File>,
    /// Files that must not be there.
    pub absent: Vec<String>,
    /// Units that are started at boot, and those that are not.
    pub services: Services,
    /// What is done once, after the first boot.
    pub tasks: Vec<Task>,
    /// State that belongs to one identity.
    pub scrub: Vec<Scrub>,
    /// Commands that tell whether the guest is what it should be.
    pub checks: Vec<CheckCommand>,
    /// The guest's own compiler, if it has one.
    pub compiler: Option<Compiler>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its number.
    pub gid: u32,
    /// Users who are in it beside those whose own group it is.
    pub members: Vec<String>,
}

/// A user, who cannot log in with a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Name.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// The name of the user's own group.
    pub group: String,
    /// Home directory; it is not made.
    pub home: String,
    /// Login shell.
    pub shell: String,
    /// What the user is for.
    pub comment: String,
    /// Whether the user is one of a pool that grid identities are mapped to.
    pub pool: bool,
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Where.
    pub path: String,
    /// Permissions in octal.
    pub mode: String,
    /// Owner's name.
    pub owner: String,
    /// Group's name.
    pub group: String,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Where.
    pub path: String,
    /// Permissions in octal.
    pub mode: String,
    /// Owner's name.
    pub owner: String,
    /// Group's name.
    pub group: String,
    /// All of it.
    pub content: String,
}

/// Units.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// Started at boot.
    pub enable: Vec<String>,
    /// Not started at boot.
    pub disable: Vec<String>,
    /// Not to be started at all.
    pub mask: Vec<String>,
}

/// Something that is done once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// What it is, for people.
    pub about: String,
    /// What does it; nothing if people must.
    pub command: Vec<String>,
}

/// State of one class that belongs to an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrub {
    /// The class.
    pub class: String,
    /// Paths, or shell patterns of paths.
    pub paths: Vec<String>,
}

/// A check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckCommand {
    /// Its name.
    pub name: String,
    /// What is true if it succeeds.
    pub about: String,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// The guest's own compiler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiler {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Directories and files that it may change.
    pub writes: Vec<String>,
    /// Whether it may use the network.
    pub network: bool,
    /// How much memory it may have.
    pub memory_bytes: u64,
    /// How long it may take, in milliseconds.
    pub time_ms: u64,
    /// How many processes it may have.
    pub processes: u32,
}

/// The format that this gridgate writes and reads.
pub const FORMAT: u32 = 1;

impl CheckCommand {
    /// For a shell, as one line.
    pub fn line(&self) -> String {
        shell_line(&self.command)
    }
}

impl Document {
    /// The text as it lies in the guest, ended by a newline. The same profile gives the same bytes.
    pub fn text(&self) -> String {
        // Nothing in it can fail to be written: no map has keys other than text.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Hexadecimal BLAKE3 of the text.
    pub fn digest(&self) -> String {
        blake3::hash(self.text().as_bytes()).to_hex().to_string()
    }
}
