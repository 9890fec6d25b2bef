//! A document as components with resources, which is how LCFG and its shell variables see a machine.

use serde::Serialize;

use crate::config::variables::Setting;
use crate::profile::document::Document;

/// A component and its resources, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Component {
    /// Its name: small letters and digits.
    pub name: String,
    /// Its resources.
    pub resources: Vec<Resource>,
}

/// A resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resource {
    /// Its name within the component.
    pub name: String,
    /// Its value.
    pub value: Value,
}

/// What a resource is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Flag(bool),
    /// Records of a list by their tags, each with fields of the same names: the resource `uid` of the record `slurm` is
    /// `uid_slurm`.
    Records(Vec<Record>),
}

/// A record of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Its tag: letters, digits and `_`.
    pub tag: String,
    /// Names of fields and their values.
    pub fields: Vec<(String, String)>,
}

/// The document's components. `gridgate` says what it is, `profile` has its variables, and then there is one for each kind of
/// thing.
pub fn components(document: &Document) -> Vec<Component> {
    let text =
        |name: &str, value: &str| Resource { name: name.to_owned(), value: Value::Text(value.to_owned()) };
    let component = |name: &str, resources: Vec<Resource>| Component { name: name.to_owned(), resources };
    let own = vec![
        text("site", &document.site),
        text("guest", &document.guest),
        text("fqdn", &document.fqdn),
        text("role", &document.role),
        text("profile", &document.profile),
        text("features", &document.made_of.join(" ")),
    ];
    let variables = document.variables.iter().map(|(name, setting)| Resource {
        name: name.clone(),
        value: match setting {
            Setting::Flag(flag) => Value::Flag(*flag),
            Setting::Integer(number) => Value::Integer(*number),
            Setting::Text(_) | Setting::List(_) => Value::Text(setting.to_string()),
        },
    });
    let groups = document.groups.iter().map(|group| {
        (group.name.as_str(), vec![("gid", group.gid.to_string()), ("members", group.members.join(" "))])
    });
    let users = document.users.iter().map(|user| {
        let fields = vec![
            ("uid", user.uid.to_string()),
            ("group", user.group.clone()),
            ("home", user.home.clone()),
            ("shell", user.shell.clone()),
        ];
        (user.name.as_str(), fields)
    });
    let files = document.files.iter().map(|file| {
        let fields = vec![
            ("path", file.path.clone()),
            ("mode", file.mode.clone()),
            ("owner", file.owner.clone()),
            ("group", file.group.clone()),
            ("content", file.content.clone()),
        ];
        (file.path.as_str(), fields)
    });
    let services = &document.services;
    vec![
        component("gridgate", own),
        component("profile", variables.collect()),
        component("auth", vec![records("groups", groups), records("users", users)]),
        component("file", vec![records("files", files)]),
        component(
            "boot",
            vec![
                text("enable", &services.enable.join(" ")),
                text("disable", &services.disable.join(" ")),
                text("mask", &services.mask.join(" ")),
            ],
        ),
    ]
}

fn records<'a>(name: &str, all: impl Iterator<Item = (&'a str, Vec<(&'a str, String)>)>) -> Resource {
    let mut records: Vec<Record> = Vec::new();
    for (said, fields) in all {
        let mut tag = tag(said);
        // Two paths may come to one tag.
        while records.iter().any(|record| record.tag == tag) {
            tag.push('x');
        }
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        records.push(Record { tag, fields });
    }
    Resource { name: name.to_owned(), value: Value::Records(records) }
}

/// A name that is both an XML element's and part of a shell variable's.
fn tag(said: &str) -> String {
    let trimmed = said.trim_start_matches('/');
    trimmed.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
