//! Shell variables, named as LCFG's components are given them: `LCFG_component_resource`, and `LCFGTYPE_...` where the value
//! is no text.

use std::fmt::Write;

use super::resources::{Value, components};
use crate::profile::document::Document;
use crate::profile::render::shell_word;

/// One assignment a line; every value is a single word in quotes.
pub(super) fn variables(document: &Document) -> String {
    let mut text = format!("# profile '{}' of {}\n", document.profile, document.fqdn);
    let mut set = |name: String, value: &str, kind: Option<&str>| {
        let _ = writeln!(text, "export LCFG_{name}={}", shell_word(value));
        if let Some(kind) = kind {
            let _ = writeln!(text, "export LCFGTYPE_{name}='{kind}'");
        }
    };
    for component in components(document) {
        for resource in &component.resources {
            let name = format!("{}_{}", component.name, resource.name);
            match &resource.value {
                Value::Text(value) => set(name, value, None),
                Value::Integer(number) => set(name, &number.to_string(), Some("integer")),
                Value::Flag(flag) => set(name, if *flag { "yes" } else { "no" }, Some("boolean")),
                Value::Records(records) => {
                    let tags: Vec<&str> = records.iter().map(|record| record.tag.as_str()).collect();
                    set(name, &tags.join(" "), Some("list"));
                    for record in records {
                        for (field, value) in &record.fields {
                            set(format!("{}_{field}_{}", component.name, record.tag), value, None);
                        }
                    }
                }
            }
        }
    }
    let _ = writeln!(text, "export LCFG_packages={}", shell_word(&document.packages.join(" ")));
    text
}
