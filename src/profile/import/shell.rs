//! Files of shell variables, parsed and never run.

use super::{Imported, take};
use crate::config::origin::Text;
use crate::config::problem::Problems;
use crate::config::shell;
use crate::config::variables::Setting;

pub(super) fn read(text: &Text, imported: &mut Imported, problems: &mut Problems) {
    for (name, value) in variables(text, problems) {
        if name.starts_with("LCFGTYPE_") {
            continue;
        }
        let name = name.strip_prefix("LCFG_").unwrap_or(&name).to_owned();
        if name == "packages" {
            let names = value.split_whitespace().filter(|name| crate::profile::text::package(name).is_ok());
            imported.packages.extend(names.map(str::to_owned));
        } else {
            take(imported, &name, Setting::Text(value));
        }
    }
}

/// The assignments of a file, in their order.
pub(super) fn variables(text: &Text, problems: &mut Problems) -> Vec<(String, String)> {
    let script = match shell::parse(text.content().as_bytes()) {
        Ok(script) => script,
        Err(refusal) => {
            problems.add(&text.origin(refusal.at), refusal.reason, refusal.hint);
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for variable in script.variables {
        match String::from_utf8(variable.value) {
            Ok(value) => found.push((variable.name, value)),
            Err(_) => {
                let message = format!("{} is not UTF-8 text", variable.name);
                problems.add(&text.origin(variable.value_at), message, "");
            }
        }
    }
    found
}
