//! Changes in shell variables: values are replaced where they stand, lines are added or taken away.

use anyhow::{Result, bail};

use super::super::keys::{self, Key};
use super::super::origin::Text;
use super::super::shape::{Parted, Shape};
use super::super::shell::{self, Variable};
use super::super::tree::{Kind, Value};
use super::{Change, with};

/// The text with these changes.
pub(super) fn change(text: &Text, changes: &[Change]) -> Result<String> {
    let mut text = text.clone();
    for change in changes {
        let key = change.key();
        let content = match change {
            Change::Set(_, value) => set(&text, key, &written(key, value))?,
            Change::Remove(_) => remove(&text, key)?,
        };
        text = with(&text, &content);
    }
    Ok(text.content().to_owned())
}

/// The text with these guests in its list, of which one is new.
pub(super) fn list(text: &Text, names: &[String], at: usize) -> Result<String> {
    let Some(key) = keys::find(keys::SITE, "guests") else { bail!("there is no key 'guests'") };
    let content = text.content();
    if let Some(variable) = last(&assigned(text, key)?) {
        let value = &content[variable.value_at..variable.value_end];
        // Behind what is there, within its quotes: references in it stay what they are.
        if at + 1 == names.len()
            && let (Some(quote @ ('"' | '\'')), Some(name)) = (value.chars().last(), names.last())
            && value.starts_with(quote)
            && value.len() > 1
        {
            let end = variable.value_end - 1;
            return Ok(format!("{} {name}{}", content[..end].trim_end(), &content[end..]));
        }
    }
    set(text, key, &names.join(" "))
}

/// The value as one text.
fn written(key: &Key, value: &Value) -> String {
    match (&value.kind, key.shape) {
        (Kind::List(values), Shape::Texts(Parted::Lines, _)) => texts(values).join("\n"),
        (Kind::List(values), _) => texts(values).join(" "),
        (Kind::Flag(flag), _) => if *flag { "yes" } else { "no" }.to_owned(),
        (Kind::Integer(number), _) => number.to_string(),
        (Kind::Text(text), _) => text.clone(),
        // No such value comes from a command line; what is made of it here is refused when it is read again.
        (Kind::Table(_) | Kind::Other(_), _) => String::new(),
    }
}

fn texts(values: &[Value]) -> Vec<String> {
    values.iter().filter_map(|value| value.text().map(str::to_owned)).collect()
}

/// The key's variables that the file assigns.
fn assigned(text: &Text, key: &Key) -> Result<Vec<Variable>> {
    match shell::parse(text.content().as_bytes()) {
        Ok(script) => Ok(script.variables.into_iter().filter(|v| says(&v.name, key)).collect()),
        Err(refusal) => bail!("{}: {}", text.origin(refusal.at), refusal.reason),
    }
}

fn says(variable: &str, key: &Key) -> bool {
    key.variables.contains(&variable) || key.name == "prefix" && variable == "NETMASK"
}

fn last(variables: &[Variable]) -> Option<&Variable> {
    variables.iter().max_by_key(|variable| variable.name_at)
}

fn set(text: &Text, key: &Key, value: &str) -> Result<String> {
    let content = text.content();
    let variables = assigned(text, key)?;
    match last(&variables) {
        Some(old) if key.variables.contains(&old.name.as_str()) => {
            // What `+=` would add to is not wanted any more.
            let before = &content[..old.value_at];
            let before = before.strip_suffix("+=").map_or(before.to_owned(), |before| format!("{before}="));
            Ok(format!("{before}{}{}", quoted(value), &content[old.value_end..]))
        }
        Some(_) => set(&with(text, &remove(text, key)?), key, value),
        None => {
            let Some(name) = key.variables.first() else { bail!("'{}' is no shell variable", key.name) };
            let end = if content.is_empty() || content.ends_with('\n') { "" } else { "\n" };
            Ok(format!("{content}{end}{name}={}\n", quoted(value)))
        }
    }
}

/// Takes away each line that assigns the key.
fn remove(text: &Text, key: &Key) -> Result<String> {
    let mut text = text.clone();
    while let Some(variable) = last(&assigned(&text, key)?) {
        let content = text.content();
        let start = content[..variable.name_at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = content[variable.value_end..].find('\n');
        let end = end.map_or(content.len(), |newline| variable.value_end + newline + 1);
        let before = content[start..variable.name_at].trim();
        let behind = content[variable.value_end..end].trim_start_matches([' ', '\t', ';']).trim();
        let alone = matches!(before, "" | "export") && (behind.is_empty() || behind.starts_with('#'));
        if !alone || content[..start].ends_with("\\\n") {
            let place = text.origin(variable.name_at);
            bail!("{place}: {} shares its line with others\nhint: give it a line of its own", variable.name);
        }
        let shorter = format!("{}{}", &content[..start], &content[end..]);
        text = with(&text, &shorter);
    }
    Ok(text.content().to_owned())
}

/// So that a shell takes it for this very text.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+=".contains(c);
    match value {
        _ if !value.is_empty() && value.chars().all(plain) => value.to_owned(),
        _ if !value.contains(['"', '$', '`', '\\', '!', '\'', '\n']) => format!("\"{value}\""),
        _ => format!("'{}'", value.replace('\'', "'\\''")),
    }
}
