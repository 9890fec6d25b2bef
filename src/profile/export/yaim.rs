//! YAIM's files: `site-info.def`, which is shell, `users.conf` and `groups.conf`. They speak of the whole site.

use std::fmt::Write;

use super::Exported;
use crate::config::site::Site;
use crate::config::variables::Setting;
use crate::profile::document::Document;
use crate::profile::render::shell_word;

/// The three files.
pub(super) fn files(site: &Site, documents: &[Document]) -> Vec<Exported> {
    let file = |name: &str, content: String| Exported { name: name.to_owned(), content };
    vec![
        file("site-info.def", site_info(site, documents)),
        file("users.conf", users(site, documents)),
        file("groups.conf", groups(site, documents)),
    ]
}

/// Virtual organisations that the site's guests are told of; a site without has one of its own name.
fn organisations(site: &Site, documents: &[Document]) -> Vec<String> {
    let told = documents.iter().find_map(|document| match document.variables.get("vos") {
        Some(Setting::List(vos)) if !vos.is_empty() => Some(vos.clone()),
        _ => None,
    });
    told.unwrap_or_else(|| vec![site.name.to_string()])
}

fn site_info(site: &Site, documents: &[Document]) -> String {
    let hosts = |role: &str| -> Vec<String> {
        documents
            .iter()
            .filter(|document| document.role == role)
            .map(|document| document.fqdn.clone())
            .collect()
    };
    let first = |role: &str| hosts(role).into_iter().next().unwrap_or_default();
    let value = |name: &str| documents.iter().find_map(|document| document.variables.get(name));
    let queue = value("queue").map(ToString::to_string).unwrap_or_else(|| "grid".to_owned());
    let vos = organisations(site, documents);
    let mut text = String::from("# written by gridgate; YAIM reads this with a shell\n");
    let mut set = |name: &str, value: &str| {
        let _ = writeln!(text, "{name}={}", shell_word(value));
    };
    set("SITE_NAME", site.name.as_str());
    set("MY_DOMAIN", &site.domain);
    set("CE_HOST", &first("ce"));
    set("BATCH_SERVER", &first("ce"));
    set("SE_LIST", &hosts("se").join(" "));
    set("UI_HOST", &first("ui"));
    set("WN_LIST", "/opt/glite/yaim/etc/wn-list.conf");
    set("USERS_CONF", "/opt/glite/yaim/etc/users.conf");
    set("GROUPS_CONF", "/opt/glite/yaim/etc/groups.conf");
    set("JOB_MANAGER", &value("lrms").map(ToString::to_string).unwrap_or_else(|| "slurm".to_owned()));
    set("VOS", &vos.join(" "));
    set("QUEUES", &queue);
    set(&format!("{}_GROUP_ENABLE", variable(&queue)), &vos.join(" "));
    for vo in &vos {
        set(&format!("VO_{}_DEFAULT_SE", variable(vo)), &first("se"));
        set(&format!("VO_{}_STORAGE_DIR", variable(vo)), &format!("/data/{vo}"));
    }
    text
}

/// A queue or organisation as part of a variable's name.
fn variable(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// `UID:LOGIN:GID:GROUP:VO:FLAG:` for each pool account, once.
fn users(site: &Site, documents: &[Document]) -> String {
    let vo = organisations(site, documents).into_iter().next().unwrap_or_default();
    let mut lines: Vec<String> = Vec::new();
    for document in documents {
        for user in document.users.iter().filter(|user| user.pool) {
            let gid = document.groups.iter().find(|group| group.name == user.group).map(|group| group.gid);
            let gid = gid.map(|gid| gid.to_string()).unwrap_or_default();
            lines.push(format!("{}:{}:{gid}:{}:{vo}::", user.uid, user.name, user.group));
        }
    }
    lines.sort();
    lines.dedup();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// `"FQAN":GROUP:GID:FLAG:[VO]` for each organisation.
fn groups(site: &Site, documents: &[Document]) -> String {
    let vos = organisations(site, documents);
    vos.iter().map(|vo| format!("\"/{vo}\"::::\n")).collect()
}
