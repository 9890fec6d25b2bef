//! SELinux labels of what is new in a guest, looked up in the guest's own policy as its own tools would
//! (selabel_file(5), file_contexts(5)). A whole filesystem is never labelled anew, and a replaced file keeps its label.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use regex::bytes::Regex;

use crate::host::root::{Change, Entry, FileMode, Kind, Root};
use crate::host::tree::Tree;
use crate::identity::found::text;

/// What a guest's policy says of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contexts {
    /// The strongest last.
    rules: Vec<Rule>,
    /// A path below the first is looked up as if it were below the second.
    aliases: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    pattern: String,
    /// What every path that fits begins with.
    stem: String,
    kind: Option<Kind>,
    /// None: such paths have no label.
    label: Option<String>,
}

impl Contexts {
    /// What the guest's policy says; `None` if it has none, if it is switched off, or if the filesystem was never labelled: then
    /// the guest does that itself at its next boot.
    pub fn of(tree: &dyn Tree) -> Result<Option<Self>> {
        let config = text(tree, "/etc/selinux/config")?.unwrap_or_default();
        let value =
            |key: &str| config.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
        let Some(policy) = value("SELINUXTYPE").map(str::trim) else { return Ok(None) };
        let is_name =
            !policy.is_empty() && policy.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        if value("SELINUX").map(str::trim) == Some("disabled") || !is_name || !tree.is_labelled()? {
            return Ok(None);
        }
        let file = format!("/etc/selinux/{policy}/contexts/files/file_contexts");
        let read = |ending: &str| text(tree, &format!("{file}{ending}"));
        let Some(shipped) = read("")? else { return Ok(None) };
        let mut found = Self::default();
        for rules in [Some(shipped), read(".homedirs")?, read(".local")?].into_iter().flatten() {
            found.add(&rules);
        }
        for aliases in [read(".subs_dist")?, read(".subs")?].into_iter().flatten() {
            found.alias(&aliases);
        }
        Ok(Some(found))
    }

    fn add(&mut self, rules: &str) {
        let read = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (pattern, kind, label) = match words[..] {
                [pattern, label] => (pattern, None, label),
                [pattern, kind, label] => (pattern, Some(kind), label),
                _ => return None,
            };
            let kind = match kind {
                None => None,
                Some("--") => Some(Kind::File),
                Some("-d") => Some(Kind::Dir),
                Some("-l") => Some(Kind::Link),
                Some(_) => Some(Kind::Special),
            };
            let label = Some(label.to_owned()).filter(|label| label != "<<none>>");
            Some(Rule { pattern: pattern.to_owned(), stem: stem(pattern), kind, label })
        };
        self.rules.extend(rules.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(read));
        // Paths that are meant to the letter beat patterns, whatever their order (libselinux's label_file.c).
        self.rules.sort_by_key(|rule| rule.stem.len() == rule.pattern.len());
    }

    fn alias(&mut self, aliases: &str) {
        for line in aliases.lines() {
            if let [from, to] = line.split_whitespace().collect::<Vec<_>>()[..]
                && from.starts_with('/')
            {
                self.aliases.push((from.to_owned(), to.to_owned()));
            }
        }
    }

    /// The label of a path of that kind, if the policy has one for it.
    pub fn label(&self, path: &Path, kind: Kind) -> Option<&str> {
        let path = self
            .aliases
            .iter()
            .rev()
            .find_map(|(from, to)| {
                let below = path.strip_prefix(from).ok()?;
                Some(if below.as_os_str().is_empty() { PathBuf::from(to) } else { Path::new(to).join(below) })
            })
            .unwrap_or_else(|| path.to_owned());
        let bytes = path.as_os_str().as_bytes();
        let fits = |rule: &&Rule| {
            rule.kind.is_none_or(|wanted| wanted == kind)
                && bytes.starts_with(rule.stem.as_bytes())
                // What this crate does not understand (backward references) no shipped policy uses.
                && Regex::new(&format!("^(?:{})$", rule.pattern)).is_ok_and(|regex| regex.is_match(bytes))
        };
        self.rules.iter().rev().find(fits)?.label.as_deref()
    }
}

/// The part of a pattern before anything that stands for something else.
fn stem(pattern: &str) -> String {
    let end = pattern.find(|c: char| ".^$?*+|[({\\".contains(c)).unwrap_or(pattern.len());
    // What follows may make the last character a choice.
    let end = match pattern[end..].chars().next() {
        Some('?' | '*' | '{') => pattern[..end].char_indices().last().map_or(0, |(at, _)| at),
        Some('|') => 0,
        _ => end,
    };
    pattern[..end].to_owned()
}

/// A tree in which whatever is new gets its label.
pub struct Labelled<'t> {
    tree: &'t dyn Tree,
    contexts: Option<Contexts>,
}

impl<'t> Labelled<'t> {
    /// Looks for the guest's policy; without one this is the tree itself.
    pub fn new(tree: &'t dyn Tree) -> Result<Self> {
        Ok(Self { tree, contexts: Contexts::of(tree)? })
    }

    /// Makes a change at a path, and labels what was not there before: the path itself, and directories on the way to it.
    fn labelling(&self, path: &Path, change: &dyn Fn() -> Result<Change>) -> Result<Change> {
        let Some(contexts) = &self.contexts else { return change() };
        let mut new = Vec::new();
        for at in path.ancestors().take_while(|at| at.parent().is_some()) {
            match self.tree.entry(at)? {
                None => new.push(at),
                // A file in place of something else is new, too; one in place of a file keeps its label.
                Some(Entry::Link(_) | Entry::Special) if at == path => new.push(at),
                Some(_) => break,
            }
        }
        let done = change()?;
        if done == Change::Changed {
            for at in new {
                let kind = match self.tree.entry(at)? {
                    Some(Entry::File { .. }) => Kind::File,
                    Some(Entry::Dir) => Kind::Dir,
                    Some(Entry::Link(_)) => Kind::Link,
                    Some(Entry::Special) | None => continue,
                };
                if let Some(label) = contexts.label(at, kind) {
                    self.tree.set_label(at, label)?;
                }
            }
        }
        Ok(done)
    }
}

impl Tree for Labelled<'_> {
    fn entry(&self, path: &Path) -> Result<Option<Entry>> {
        self.tree.entry(path)
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        self.tree.read(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        self.tree.list(path)
    }

    fn names(&self, path: &Path, each: &mut dyn FnMut(&OsStr, Kind) -> bool) -> Result<()> {
        self.tree.names(path, each)
    }

    fn make_dir(&self, path: &Path, mode: u32) -> Result<Change> {
        self.labelling(path, &|| self.tree.make_dir(path, mode))
    }

    fn write(&self, path: &Path, content: &[u8], mode: FileMode) -> Result<Change> {
        self.labelling(path, &|| self.tree.write(path, content, mode))
    }

    fn link(&self, path: &Path, target: &Path) -> Result<Change> {
        self.labelling(path, &|| self.tree.link(path, target))
    }

    fn remove(&self, path: &Path) -> Result<Change> {
        self.tree.remove(path)
    }

    fn owner(&self, path: &Path) -> Result<Option<(u32, u32)>> {
        self.tree.owner(path)
    }

    fn own(&self, path: &Path, uid: u32, gid: u32, mode: u32) -> Result<Change> {
        self.tree.own(path, uid, gid, mode)
    }

    fn switch(&self, path: &Path, target: &Path) -> Result<Change> {
        self.labelling(path, &|| self.tree.switch(path, target))
    }

    fn is_labelled(&self) -> Result<bool> {
        self.tree.is_labelled()
    }

    fn set_label(&self, path: &Path, label: &str) -> Result<()> {
        self.tree.set_label(path, label)
    }

    fn volume_label(&self) -> Result<Option<String>> {
        self.tree.volume_label()
    }

    fn set_volume_label(&self, label: &str) -> Result<Change> {
        self.tree.set_volume_label(label)
    }

    fn as_root(&self) -> Option<&Root> {
        self.tree.as_root()
    }

    fn remove_tree(&self, path: &Path) -> Result<Change> {
        self.tree.remove_tree(path)
    }

    fn clear(&self, path: &Path) -> Result<Change> {
        self.tree.clear(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contexts() -> Contexts {
        let mut contexts = Contexts::default();
        contexts.add(
            "# comment\n\
             /.*\tsystem_u:object_r:default_t:s0\n\
             /etc/.*\tsystem_u:object_r:etc_t:s0\n\
             /etc/hostname\t--\tsystem_u:object_r:hostname_etc_t:s0\n\
             /etc/ssh/ssh_host.*_key\t--\tsystem_u:object_r:sshd_key_t:s0\n\
             /var/run\t-l\tsystem_u:object_r:var_run_t:s0\n\
             /mnt/[^/]*/.*\t<<none>>\n\
             /etc/nologin.*\t--\tsystem_u:object_r:etc_runtime_t:s0\n",
        );
        contexts.alias("/run /var/run\n/usr/lib64 /usr/lib\n");
        contexts
    }

    #[test]
    fn the_last_pattern_that_fits_wins_and_a_path_to_the_letter_beats_all() {
        let contexts = contexts();
        let label = |path: &str, kind| contexts.label(Path::new(path), kind).map(|label| label.to_owned());
        let told = |name: &str| Some(format!("system_u:object_r:{name}:s0"));
        assert_eq!(label("/etc/hosts", Kind::File), told("etc_t"));
        assert_eq!(label("/etc/hostname", Kind::File), told("hostname_etc_t"));
        assert_eq!(label("/etc/hostname", Kind::Link), told("etc_t"));
        assert_eq!(label("/etc/ssh/ssh_host_rsa_key", Kind::File), told("sshd_key_t"));
        assert_eq!(label("/etc/ssh/ssh_host_rsa_key.pub", Kind::File), told("etc_t"));
        assert_eq!(label("/mnt/x/y", Kind::File), None);
        assert_eq!(label("/run", Kind::Link), told("var_run_t"));
        assert_eq!(label("/srv", Kind::Dir), told("default_t"));
    }

    #[test]
    fn the_stem_of_a_pattern_is_what_every_path_that_fits_begins_with() {
        for (pattern, expected) in [
            ("/etc/a", "/etc/a"),
            ("/etc/.*", "/etc/"),
            ("/dev/hd[^/]*", "/dev/hd"),
            ("/usr/s?bin", "/usr/"),
            ("/a\\.b", "/a"),
        ] {
            assert_eq!(stem(pattern), expected);
        }
    }

    proptest! {
        #[test]
        fn any_policy_is_read(text in "[ -~\n\t]{0,120}", path in "/[a-z/.]{0,20}") {
            let mut contexts = Contexts::default();
            contexts.add(&text);
            contexts.alias(&text);
            let _ = contexts.label(Path::new(&path), Kind::File);
        }
    }
}
