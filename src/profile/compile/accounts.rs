//! Users and groups, merged into the guest's own: a line that is there stays as it is, byte for byte.

use std::path::Path;

use anyhow::{Result, bail};

use super::step::{Owned, Step};
use crate::host::tree::Tree;
use crate::profile::document::{Document, Group, User};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
const SHADOW: &str = "/etc/shadow";
const GSHADOW: &str = "/etc/gshadow";

/// The guest's accounts, as they will be.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    passwd: Lines,
    group: Lines,
    shadow: Option<Lines>,
    gshadow: Option<Lines>,
    /// Whether the guest has accounts at all.
    there: bool,
}

/// Lines of a file whose fields are parted by colons; whatever bytes they hold.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Lines(Vec<Vec<u8>>);

impl Lines {
    fn read(tree: &dyn Tree, path: &str) -> Result<Option<Self>> {
        let Some(content) = tree.read(Path::new(path))? else { return Ok(None) };
        let content = content.strip_suffix(b"\n").unwrap_or(&content);
        let lines = content.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
        Ok(Some(Self(if content.is_empty() { Vec::new() } else { lines.collect() })))
    }

    fn text(&self) -> Vec<u8> {
        self.0.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect()
    }

    fn find(&self, name: &str) -> Option<&Vec<u8>> {
        self.0.iter().find(|line| field(line, 0) == Some(name.as_bytes()))
    }

    /// The name and number of an entry, by what its third field is.
    fn with_id(&self, id: u32) -> Option<String> {
        let found = self.0.iter().find(|line| number(line) == Some(id))?;
        Some(String::from_utf8_lossy(field(found, 0)?).into_owned())
    }

    fn id(&self, name: &str) -> Option<u32> {
        number(self.find(name)?)
    }

    /// Adds a line unless there is one of that name; before a line of `+` or `-`, which stand for all that a directory
    /// service knows (nsswitch.conf(5), compat mode).
    fn add(&mut self, name: &str, line: String) {
        if self.find(name).is_some() {
            return;
        }
        let at = self.0.iter().position(|line| matches!(line.first(), Some(b'+' | b'-')));
        self.0.insert(at.unwrap_or(self.0.len()), line.into_bytes());
    }

    fn remove(&mut self, line: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|own| own != line.as_bytes());
        self.0.len() < before
    }

    fn remove_name(&mut self, name: &str) {
        self.0.retain(|line| field(line, 0) != Some(name.as_bytes()));
    }
}

fn field(line: &[u8], at: usize) -> Option<&[u8]> {
    line.split(|byte| *byte == b':').nth(at)
}

fn number(line: &[u8]) -> Option<u32> {
    std::str::from_utf8(field(line, 2)?).ok()?.parse().ok()
}

impl Accounts {
    /// Those of the guest with those of the document; what only an earlier document had is taken out again, if nobody has
    /// changed it since. An id that somebody else has, or another id for the same name, is an error.
    pub(super) fn merge(tree: &dyn Tree, document: &Document, earlier: Option<&Document>) -> Result<Self> {
        let Some(passwd) = Lines::read(tree, PASSWD)? else { return Ok(Self::default()) };
        let mut accounts = Self {
            passwd,
            group: Lines::read(tree, GROUP)?.unwrap_or_default(),
            shadow: Lines::read(tree, SHADOW)?,
            gshadow: Lines::read(tree, GSHADOW)?,
            there: true,
        };
        if let Some(earlier) = earlier {
            accounts.take_out(document, earlier);
        }
        let mut wrong = Vec::new();
        for group in &document.groups {
            accounts.add_group(group, &mut wrong);
        }
        for user in &document.users {
            accounts.add_user(user, &mut wrong);
        }
        if !wrong.is_empty() {
            bail!(
                "the profile's ids are not free in the guest: {}\nhint: give the profile other ids, or make the image with these",
                wrong.join("; ")
            );
        }
        Ok(accounts)
    }

    fn add_group(&mut self, group: &Group, wrong: &mut Vec<String>) {
        match (self.group.id(&group.name), self.group.with_id(group.gid)) {
            (Some(gid), _) if gid != group.gid => {
                wrong.push(format!("group '{}' is {gid} there, not {}", group.name, group.gid));
            }
            (None, Some(other)) => wrong.push(format!("gid {} is that of group '{other}'", group.gid)),
            _ => {
                self.group.add(&group.name, group_line(group));
                if let Some(gshadow) = &mut self.gshadow {
                    gshadow.add(&group.name, format!("{}:!::{}", group.name, group.members.join(",")));
                }
            }
        }
    }

    fn add_user(&mut self, user: &User, wrong: &mut Vec<String>) {
        let Some(gid) = self.group.id(&user.group) else {
            wrong.push(format!("user '{}' is in group '{}', which is not there", user.name, user.group));
            return;
        };
        match (self.passwd.id(&user.name), self.passwd.with_id(user.uid)) {
            (Some(uid), _) if uid != user.uid => {
                wrong.push(format!("user '{}' is {uid} there, not {}", user.name, user.uid));
            }
            (None, Some(other)) => wrong.push(format!("uid {} is that of user '{other}'", user.uid)),
            _ => {
                self.passwd.add(&user.name, user_line(user, gid));
                if let Some(shadow) = &mut self.shadow {
                    // Locked; without a date of the last change nothing about it ever runs out (shadow(5)).
                    shadow.add(&user.name, format!("{}:!::0:99999:7:::", user.name));
                }
            }
        }
    }

    fn take_out(&mut self, document: &Document, earlier: &Document) {
        for user in earlier.users.iter().filter(|user| document.users.iter().all(|u| u.name != user.name)) {
            let Some(gid) = self.group.id(&user.group) else { continue };
            if self.passwd.remove(&user_line(user, gid))
                && let Some(shadow) = &mut self.shadow
            {
                shadow.remove_name(&user.name);
            }
        }
        for group in earlier.groups.iter().filter(|g| document.groups.iter().all(|n| n.name != g.name)) {
            if self.group.remove(&group_line(group))
                && let Some(gshadow) = &mut self.gshadow
            {
                gshadow.remove_name(&group.name);
            }
        }
    }

    /// Whose something is; what names are not there yet is told, and root stands in for them.
    pub(super) fn owned(&self, mode: &str, owner: &str, group: &str) -> (Owned, Option<String>) {
        let id = |name: &str, lines: &Lines| if name == "root" { Some(0) } else { lines.id(name) };
        let (uid, gid) = (id(owner, &self.passwd), id(group, &self.group));
        let owned = Owned {
            mode: u32::from_str_radix(mode, 8).unwrap_or(0o644),
            uid: uid.unwrap_or(0),
            gid: gid.unwrap_or(0),
        };
        let missing = match (uid, gid) {
            (None, _) => Some(format!("user '{owner}'")),
            (_, None) => Some(format!("group '{group}'")),
            _ => None,
        };
        (owned, missing)
    }

    /// What has to be written. A file that is there hands on its owner and mode.
    pub(super) fn steps(&self) -> Vec<Step> {
        let step =
            |path: &str, lines: &Lines| Step::File { path: path.into(), content: lines.text(), owned: None };
        let mut steps = Vec::new();
        if self.there {
            // Groups first: nobody is ever in a group that is not there.
            steps.push(step(GROUP, &self.group));
            steps.extend(self.gshadow.iter().map(|lines| step(GSHADOW, lines)));
            steps.push(step(PASSWD, &self.passwd));
            steps.extend(self.shadow.iter().map(|lines| step(SHADOW, lines)));
        }
        steps
    }
}

fn user_line(user: &User, gid: u32) -> String {
    format!("{}:x:{}:{gid}:{}:{}:{}", user.name, user.uid, user.comment, user.home, user.shell)
}

fn group_line(group: &Group) -> String {
    format!("{}:x:{}:{}", group.name, group.gid, group.members.join(","))
}
