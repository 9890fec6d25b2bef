//! YAIM's files, told apart by what their lines look like: `users.conf` is lines of `UID:LOGIN:GID[,GID]:GROUP[,GROUP]:VO:FLAG:`,
//! `groups.conf` lines that begin with a quoted FQAN, and anything else a `site-info.def`.

use super::{Imported, shell, take};
use crate::config::origin::Text;
use crate::config::problem::Problems;
use crate::config::variables::Setting;
use crate::profile::document::{Group, User};

/// Variables whose value is a list of words.
const LISTS: [&str; 6] = ["VOS", "QUEUES", "SE_LIST", "WN_LIST", "CE_LIST", "BDII_LIST"];

pub(super) fn read(text: &Text, imported: &mut Imported, problems: &mut Problems) {
    let mut lines =
        text.content().lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    match lines.next() {
        Some(line) if line.starts_with('"') => groups(text, imported, problems),
        Some(line) if line.starts_with(|c: char| c.is_ascii_digit()) => users(text, imported, problems),
        _ => site_info(text, imported, problems),
    }
}

fn site_info(text: &Text, imported: &mut Imported, problems: &mut Problems) {
    for (name, value) in shell::variables(text, problems) {
        let is_list = LISTS.contains(&name.as_str()) || name.ends_with("_GROUP_ENABLE");
        let setting = match is_list && !value.starts_with('/') {
            true => Setting::List(value.split_whitespace().map(str::to_owned).collect()),
            false => Setting::Text(value),
        };
        take(imported, &name, setting);
    }
}

/// Each line with its offset, its fields and whether it is to be read at all.
fn fields(text: &Text) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let mut offset = 0;
    text.content().split_inclusive('\n').filter_map(move |line| {
        let at = offset;
        offset += line.len();
        let line = line.trim();
        (!line.is_empty() && !line.starts_with('#')).then(|| (at, line.split(':').collect()))
    })
}

fn users(text: &Text, imported: &mut Imported, problems: &mut Problems) {
    for (at, fields) in fields(text) {
        let wrong = |why: &str, problems: &mut Problems| {
            let hint = "a line is UID:LOGIN:GID[,GID]:GROUP[,GROUP]:VO:FLAG:";
            problems.add(&text.origin(at), why, hint);
        };
        let [uid, login, gids, names, ..] = fields.as_slice() else {
            wrong("this line has fewer than four fields", problems);
            continue;
        };
        let (gids, names): (Vec<&str>, Vec<&str>) = (gids.split(',').collect(), names.split(',').collect());
        let numbers: Option<Vec<u32>> = gids.iter().map(|gid| gid.trim().parse().ok()).collect();
        let (Ok(uid), Some(numbers)) = (uid.trim().parse::<u32>(), numbers) else {
            wrong("its uid or one of its gids is no number", problems);
            continue;
        };
        if numbers.len() != names.len() {
            wrong("it has not as many gids as groups", problems);
            continue;
        }
        let known = names.iter().chain([login]).all(|name| crate::profile::text::account(name).is_ok());
        if !known || uid == 0 || numbers.contains(&0) {
            wrong("its user or one of its groups has no good name or is root", problems);
            continue;
        }
        for (gid, name) in numbers.iter().zip(&names) {
            if imported.groups.iter().all(|group| group.name != *name) {
                imported.groups.push(Group { name: (*name).to_owned(), gid: *gid, members: Vec::new() });
            }
        }
        imported.users.push(User {
            name: (*login).to_owned(),
            uid,
            group: names[0].to_owned(),
            home: format!("/home/{login}"),
            shell: "/bin/sh".to_owned(),
            comment: String::new(),
            pool: true,
        });
    }
}

fn groups(text: &Text, imported: &mut Imported, problems: &mut Problems) {
    let mut fqans = Vec::new();
    for (at, fields) in fields(text) {
        let fqan = fields[0].strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match fqan.filter(|fqan| fqan.starts_with('/')) {
            Some(fqan) => fqans.push(fqan.to_owned()),
            None => {
                let hint = "a line is \"FQAN\":GROUP:GID:FLAG:[VO]";
                problems.add(&text.origin(at), "this line does not begin with an FQAN in quotes", hint);
            }
        }
    }
    take(imported, "fqans", Setting::List(fqans));
}
