//! Quattor's profile, as its compiler leaves it for CCM: one tree, as XML with the kind of each value in its element's name,
//! or as JSON with native values.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::xml::escaped;
use crate::profile::document::Document;

/// The tree as XML.
pub(super) fn xml(document: &Document) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n");
    text.push_str("<nlist format=\"pan\" name=\"profile\">\n");
    if let Value::Object(top) = tree(document) {
        top.iter().for_each(|(name, value)| element(&mut text, 1, Some(name), value));
    }
    text.push_str("</nlist>\n");
    text
}

/// The tree as JSON.
pub(super) fn json(document: &Document) -> String {
    // No map of it has keys other than text.
    serde_json::to_string_pretty(&tree(document)).unwrap_or_default() + "\n"
}

/// `/hardware`, `/software/packages`, `/software/components` and `/system`, as the core schema lays them out.
fn tree(document: &Document) -> Value {
    let packages: Map<String, Value> =
        document.packages.iter().map(|name| (escaped_key(name), json!({}))).collect();
    let users: Map<String, Value> = document
        .users
        .iter()
        .map(|user| {
            let value = json!({
                "uid": user.uid, "groups": [user.group], "comment": user.comment,
                "homeDir": user.home, "shell": user.shell, "createHome": false,
            });
            (user.name.clone(), value)
        })
        .collect();
    let groups: Map<String, Value> = document
        .groups
        .iter()
        .map(|group| (group.name.clone(), json!({ "gid": group.gid, "requiredMembers": group.members })))
        .collect();
    let files: Map<String, Value> = document
        .files
        .iter()
        .map(|file| {
            let value = json!({
                "config": file.content, "owner": file.owner, "group": file.group, "perms": file.mode,
            });
            (escaped_key(&file.path), value)
        })
        .collect();
    let directories: Vec<Value> = document
        .directories
        .iter()
        .map(|dir| json!({ "name": dir.path, "owner": dir.owner, "group": dir.group, "perm": dir.mode }))
        .collect();
    let units = |all: &[String], state: &str, startstop: bool| -> Vec<(String, Value)> {
        all.iter()
            .map(|unit| (escaped_key(unit), json!({ "state": state, "startstop": startstop })))
            .collect()
    };
    let services = &document.services;
    let units: Map<String, Value> = [
        units(&services.enable, "enabled", true),
        units(&services.disable, "disabled", false),
        units(&services.mask, "masked", false),
    ]
    .into_iter()
    .flatten()
    .collect();
    let (name, domain) = document.fqdn.split_once('.').unwrap_or((&document.fqdn, ""));
    json!({
        "software": {
            "components": {
                "accounts": { "users": users, "groups": groups },
                "filecopy": { "services": files },
                "dirperm": { "paths": directories },
                "systemd": { "unit": units },
            },
            "packages": packages,
        },
        "system": {
            "network": { "hostname": name, "domainname": domain },
            "site": { "name": document.site },
            "gridgate": {
                "profile": document.profile, "role": document.role, "features": document.made_of,
                "variables": document.variables,
            },
        },
    })
}

/// Pan's `escape()`: what is no letter or digit becomes `_` and its number in hexadecimal, a digit in front, too.
fn escaped_key(key: &str) -> String {
    let mut escaped = String::new();
    for (at, byte) in key.bytes().enumerate() {
        let plain = byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit());
        if plain {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "_{byte:x}");
        }
    }
    escaped
}

fn element(text: &mut String, depth: usize, name: Option<&str>, value: &Value) {
    let indent = "  ".repeat(depth);
    let named = name.map(|name| format!(" name=\"{}\"", escaped(name))).unwrap_or_default();
    let plain = |kind: &str, value: &str| format!("{indent}<{kind}{named}>{value}</{kind}>\n");
    match value {
        Value::Object(map) => {
            let _ = writeln!(text, "{indent}<nlist{named}>");
            map.iter().for_each(|(name, value)| element(text, depth + 1, Some(name), value));
            let _ = writeln!(text, "{indent}</nlist>");
        }
        Value::Array(values) => {
            let _ = writeln!(text, "{indent}<list{named}>");
            values.iter().for_each(|value| element(text, depth + 1, None, value));
            let _ = writeln!(text, "{indent}</list>");
        }
        Value::Bool(flag) => text.push_str(&plain("boolean", &flag.to_string())),
        Value::Number(number) if number.is_f64() => text.push_str(&plain("double", &number.to_string())),
        Value::Number(number) => text.push_str(&plain("long", &number.to_string())),
        Value::String(string) => text.push_str(&plain("string", &escaped(string))),
        Value::Null => {}
    }
}
