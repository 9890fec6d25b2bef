//! One file of a profile or feature, read and checked; texts still hold their `{{ ... }}`.

use std::time::Duration;

use super::keys::PROFILE;
use crate::config::keys::Scope;
use crate::config::origin::{Origin, Text};
use crate::config::problem::Problems;
use crate::config::tree::{Kind, Table, Value};
use crate::config::variables::Setting;
use crate::config::{schema, toml_file};

/// A text and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Said {
    pub text: String,
    pub origin: Origin,
}

/// A profile or feature as its file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Source {
    pub description: String,
    pub extends: Option<Said>,
    pub features: Vec<Said>,
    pub variables: Vec<Declared>,
    pub packages: Vec<String>,
    pub groups: Vec<Group>,
    pub users: Vec<User>,
    pub directories: Vec<Directory>,
    pub files: Vec<File>,
    pub absent: Vec<Said>,
    pub enable: Vec<String>,
    pub disable: Vec<String>,
    pub mask: Vec<String>,
    pub tasks: Vec<Task>,
    pub scrub: Vec<Scrub>,
    pub checks: Vec<Task>,
    pub compiler: Option<Compiler>,
}

/// What a file says about a variable; another file may say more.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Declared {
    pub name: String,
    pub origin: Origin,
    pub kind: Option<String>,
    pub default: Option<(Setting, Origin)>,
    pub about: Option<String>,
    pub pattern: Option<String>,
    pub choices: Option<Vec<String>>,
    pub min: Option<i64>,
    pub max: Option<i64>,
    pub required: Option<bool>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    pub name: String,
    pub gid: u32,
    pub members: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct User {
    pub name: String,
    pub uid: u32,
    pub group: Said,
    pub home: Said,
    pub shell: String,
    pub comment: String,
    pub pool: Option<Said>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Directory {
    pub path: Said,
    pub mode: String,
    pub owner: String,
    pub group: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct File {
    pub path: Said,
    pub body: Body,
    pub mode: String,
    pub owner: String,
    pub group: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    Template(Said),
    Content(Said),
}

/// A first-boot task or a check.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Task {
    pub name: String,
    pub about: Said,
    pub command: Vec<Said>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scrub {
    pub class: String,
    pub paths: Vec<Said>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Compiler {
    pub command: Vec<Said>,
    pub writes: Vec<Said>,
    pub network: bool,
    pub memory_bytes: u64,
    pub time: Duration,
    pub processes: u32,
}

impl Source {
    /// Reads a file; what is wrong with it is told, and what is right is still read.
    pub(super) fn read(text: &Text, problems: &mut Problems) -> Option<Self> {
        let table = toml_file::read(text, problems)?;
        schema::check(&table, PROFILE, Scope::Guest, problems);
        let mut reader = Reader { problems };
        let services = table.table("services").cloned().unwrap_or_default();
        Some(Self {
            description: reader.text(&table, "description").unwrap_or_default(),
            extends: said(&table, "extends"),
            features: list(&table, "features"),
            variables: table.table("variables").map(declared).unwrap_or_default(),
            packages: texts(&table, "packages"),
            groups: reader.tables(&table, "group", Reader::group),
            users: reader.tables(&table, "user", Reader::user),
            directories: reader.tables(&table, "directory", Reader::directory),
            files: reader.tables(&table, "file", Reader::file),
            absent: list(&table, "absent"),
            enable: texts(&services, "enable"),
            disable: texts(&services, "disable"),
            mask: texts(&services, "mask"),
            tasks: reader.tables(&table, "task", Reader::task),
            scrub: reader.tables(&table, "scrub", Reader::scrub),
            checks: reader.tables(&table, "check", Reader::check),
            compiler: reader.compiler(&table),
        })
    }
}

struct Reader<'p> {
    problems: &'p mut Problems,
}

impl Reader<'_> {
    fn tables<T>(
        &mut self,
        table: &Table,
        key: &str,
        read: fn(&mut Self, &Table, &Origin) -> Option<T>,
    ) -> Vec<T> {
        let Some(Kind::List(values)) = table.get(key).map(|entry| &entry.value.kind) else {
            return Vec::new();
        };
        let one = |value: &Value| match &value.kind {
            Kind::Table(table) => {
                let first = table.entries.first().map_or(&value.origin, |entry| &entry.origin);
                read(self, table, first)
            }
            _ => None,
        };
        values.iter().filter_map(one).collect()
    }

    fn text(&mut self, table: &Table, key: &str) -> Option<String> {
        said(table, key).map(|said| said.text)
    }

    fn needed(&mut self, table: &Table, key: &str, at: &Origin) -> Option<Said> {
        let found = said(table, key);
        if found.is_none() && table.get(key).is_none() {
            self.problems.add(at, format!("'{key}' is missing here"), "every one of these tables has it");
        }
        found
    }

    fn id(&mut self, table: &Table, key: &str, at: &Origin) -> Option<u32> {
        match table.get(key) {
            Some(entry) => u32::try_from(entry.value.integer()?).ok(),
            None => {
                let hint = "ids are fixed, so that shared files belong to the same user on all guests";
                self.problems.add(at, format!("'{key}' is missing here"), hint);
                None
            }
        }
    }

    fn group(&mut self, table: &Table, at: &Origin) -> Option<Group> {
        let (name, gid) = (self.needed(table, "name", at), self.id(table, "gid", at));
        Some(Group { name: name?.text, gid: gid?, members: texts(table, "members") })
    }

    fn user(&mut self, table: &Table, at: &Origin) -> Option<User> {
        let (name, uid) = (self.needed(table, "name", at), self.id(table, "uid", at));
        let name = name?;
        Some(User {
            group: said(table, "group").unwrap_or_else(|| name.clone()),
            home: said(table, "home")
                .unwrap_or_else(|| Said { text: "/nonexistent".to_owned(), origin: name.origin.clone() }),
            shell: self.text(table, "shell").unwrap_or_else(|| "/usr/sbin/nologin".to_owned()),
            comment: self.text(table, "comment").unwrap_or_default(),
            pool: said(table, "pool"),
            name: name.text,
            uid: uid?,
        })
    }

    fn directory(&mut self, table: &Table, at: &Origin) -> Option<Directory> {
        let path = self.needed(table, "path", at)?;
        let (mode, owner, group) = self.ownership(table, "0755");
        Some(Directory { path, mode, owner, group })
    }

    fn file(&mut self, table: &Table, at: &Origin) -> Option<File> {
        let path = self.needed(table, "path", at)?;
        let body = match (said(table, "template"), said(table, "content")) {
            (Some(template), None) => Body::Template(template),
            (None, Some(content)) => Body::Content(content),
            _ => {
                let hint = "template = \"NAME\" is a file in templates/, content = \"...\" the text itself";
                self.problems.add(at, "a file has either a 'template' or a 'content'", hint);
                return None;
            }
        };
        let (mode, owner, group) = self.ownership(table, "0644");
        Some(File { path, body, mode, owner, group })
    }

    /// Mode, owner and group; permissions always with four digits.
    fn ownership(&mut self, table: &Table, mode: &str) -> (String, String, String) {
        let mode = self.text(table, "mode").unwrap_or_else(|| mode.to_owned());
        let owner = self.text(table, "owner").unwrap_or_else(|| "root".to_owned());
        let group = self.text(table, "group").unwrap_or_else(|| "root".to_owned());
        (format!("{mode:0>4}"), owner, group)
    }

    fn task(&mut self, table: &Table, at: &Origin) -> Option<Task> {
        let (name, about) = (self.needed(table, "name", at), self.needed(table, "about", at));
        Some(Task { name: name?.text, about: about?, command: list(table, "command") })
    }

    fn check(&mut self, table: &Table, at: &Origin) -> Option<Task> {
        let task = self.task(table, at)?;
        if task.command.is_empty() {
            self.problems.add(at, "a check has a 'command'", "for example: command = [\"true\"]");
            return None;
        }
        Some(task)
    }

    fn scrub(&mut self, table: &Table, at: &Origin) -> Option<Scrub> {
        let class = self.needed(table, "class", at)?;
        Some(Scrub { class: class.text, paths: list(table, "paths") })
    }

    fn compiler(&mut self, table: &Table) -> Option<Compiler> {
        let entry = table.get("compiler")?;
        let Kind::Table(inner) = &entry.value.kind else { return None };
        let command = list(inner, "command");
        if command.is_empty() {
            let hint = "the program comes first: command = [\"/usr/sbin/rdxprof\"]";
            self.problems.add(&entry.origin, "a compiler has a 'command'", hint);
            return None;
        }
        let value = |key: &str| inner.get(key).map(|entry| &entry.value);
        Some(Compiler {
            command,
            writes: list(inner, "writes"),
            network: value("network").and_then(Value::flag).unwrap_or(false),
            memory_bytes: value("memory").and_then(Value::size).map_or(256 << 20, |bytes| bytes.0),
            time: value("time").and_then(Value::span).unwrap_or(Duration::from_secs(60)),
            processes: value("processes").and_then(|v| u32::try_from(v.integer()?).ok()).unwrap_or(64),
        })
    }
}

fn said(table: &Table, key: &str) -> Option<Said> {
    let value = &table.get(key)?.value;
    Some(Said { text: value.text()?.to_owned(), origin: value.origin.clone() })
}

fn list(table: &Table, key: &str) -> Vec<Said> {
    let texts = table.get(key).map(|entry| entry.value.texts()).unwrap_or_default();
    texts.into_iter().map(|(text, at)| Said { text: text.to_owned(), origin: at.clone() }).collect()
}

fn texts(table: &Table, key: &str) -> Vec<String> {
    list(table, key).into_iter().map(|said| said.text).collect()
}

fn declared(table: &Table) -> Vec<Declared> {
    let one = |entry: &crate::config::tree::Entry| {
        let Kind::Table(inner) = &entry.value.kind else { return None };
        let value = |key: &str| inner.get(key).map(|entry| &entry.value);
        let text = |key: &str| value(key).and_then(Value::text).map(str::to_owned);
        Some(Declared {
            name: entry.key.clone(),
            origin: entry.origin.clone(),
            kind: text("type"),
            default: value("default").and_then(|v| Some((Setting::of(v)?, v.origin.clone()))),
            about: text("about"),
            pattern: text("pattern"),
            choices: value("choices").map(|_| texts(inner, "choices")),
            min: value("min").and_then(Value::integer),
            max: value("max").and_then(Value::integer),
            required: value("required").and_then(Value::flag),
        })
    };
    table.entries.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (Option<Source>, Problems) {
        let mut problems = Problems::default();
        let source = Source::read(&Text::new("p.toml".into(), text.to_owned()), &mut problems);
        (source, problems)
    }

    #[test]
    fn a_file_says_what_it_is_made_of() {
        let (source, problems) = read(
            "extends = \"base\"\n[[user]]\nname = \"slurm\"\nuid = 64030\n\
             [[file]]\npath = \"/etc/x\"\ncontent = \"a\"\nmode = \"600\"\n[services]\nenable = [\"a.service\"]\n",
        );
        assert_eq!(problems.to_string(), "");
        let source = source.unwrap();
        assert_eq!(source.users[0].group.text, "slurm");
        assert_eq!((source.files[0].mode.as_str(), source.files[0].owner.as_str()), ("0600", "root"));
        assert_eq!(source.enable, ["a.service"]);
    }

    #[test]
    fn what_is_unknown_or_missing_within_a_table_is_told_where_it_stands() {
        for (text, told) in [
            ("[[file]]\npth = \"/x\"\n", "p.toml:2:1: unknown key 'pth'\n  hint: did you mean 'path'?"),
            ("[[user]]\nname = \"x\"\n", "p.toml:2:1: 'uid' is missing here"),
            ("[[file]]\npath = \"/x\"\n", "p.toml:2:1: a file has either a 'template' or a 'content'"),
            ("[variables.q]\ntype = \"txt\"\n", "p.toml:2:8: type 'txt' is not a type"),
            ("[variables.Q]\n", "p.toml:1:12: name 'Q' may have only small letters"),
            ("file = [1]\n", "p.toml:1:9: file must be a table, not a number"),
            ("[compiler]\nnetwork = true\n", "p.toml:1:2: a compiler has a 'command'"),
        ] {
            let (_, problems) = read(text);
            assert!(problems.to_string().starts_with(told), "{text}: {problems}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_crash(
            text in "(\\[\\[?(file|user|group|task|check|scrub|variables\\.q|compiler|services)\\]\\]?\n|[a-z]{2,8} = (\"[/a-z{}]*\"|[0-9]{1,3}|\\[\"a\"\\])\n){0,12}"
        ) {
            read(&text);
        }
    }
}
