//! Changes in TOML.

use anyhow::{Context, Result};
use toml_edit::{Array, DocumentMut, Item, RawString, Value as Toml};

use super::super::origin::Text;
use super::super::tree::{Kind, Value};
use super::Change;

/// The text with these changes.
pub(super) fn change(text: &Text, changes: &[Change]) -> Result<String> {
    let mut document = document(text)?;
    for change in changes {
        match change {
            Change::Set(key, value) => set(&mut document, key.name, toml(value)),
            Change::Remove(key) => remove(&mut document, key.name),
        }
    }
    Ok(document.to_string())
}

/// The text with one more guest in its list, at that place.
pub(super) fn list(text: &Text, name: &str, at: usize) -> Result<String> {
    let mut document = document(text)?;
    let array = document.get_mut("guests").and_then(Item::as_array_mut);
    insert(array.with_context(|| format!("'guests' in '{}' is no list", text.file()))?, name, at);
    Ok(document.to_string())
}

fn document(text: &Text) -> Result<DocumentMut> {
    text.content().parse().with_context(|| format!("reading '{}'", text.file()))
}

fn toml(value: &Value) -> Toml {
    match &value.kind {
        Kind::Integer(number) => Toml::from(*number),
        Kind::Flag(flag) => Toml::from(*flag),
        Kind::List(values) => Toml::from(values.iter().map(toml).collect::<Array>()),
        Kind::Text(text) => Toml::from(text.as_str()),
        // No such value comes from a command line; what is made of it here is refused when it is read again.
        Kind::Table(_) | Kind::Other(_) => Toml::from(""),
    }
}

fn set(document: &mut DocumentMut, key: &str, mut value: Toml) {
    match document.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            // What a file without keys says is its head.
            let head = match document.is_empty() {
                true => raw(Some(document.trailing())),
                false => String::new(),
            };
            document.insert(key, Item::Value(value));
            if !head.is_empty()
                && let Some(mut first) = document.as_table_mut().key_mut(key)
            {
                first.leaf_decor_mut().set_prefix(head);
                document.set_trailing("");
            }
        }
    }
}

fn raw(text: Option<&RawString>) -> String {
    text.and_then(RawString::as_str).unwrap_or_default().to_owned()
}

/// What stands above the key stays, above what comes next.
fn remove(document: &mut DocumentMut, key: &str) {
    let keys: Vec<String> = document.iter().map(|(key, _)| key.to_owned()).collect();
    let Some(at) = keys.iter().position(|known| known == key) else { return };
    let above = document.key(key).map(|key| raw(key.leaf_decor().prefix())).unwrap_or_default();
    document.remove(key);
    let next = keys.get(at + 1).map(String::as_str);
    if let Some(Item::Table(table)) = next.and_then(|next| document.get_mut(next))
        && !table.is_dotted()
    {
        let below = raw(table.decor().prefix());
        table.decor_mut().set_prefix(above + &below);
    } else if let Some(mut next) = next.and_then(|next| document.as_table_mut().key_mut(next)) {
        let below = raw(next.leaf_decor().prefix());
        next.leaf_decor_mut().set_prefix(above + &below);
    } else {
        let below = document.trailing().as_str().unwrap_or_default().to_owned();
        document.set_trailing(above + &below);
    }
}

/// On a line of its own if the others are; a comment behind the one before stays on its line.
fn insert(array: &mut Array, name: &str, at: usize) {
    let lines = |text: &str| text.rfind('\n').map(|newline| text[newline..].to_owned());
    let sibling = array.get(at.saturating_sub(1)).map(|value| raw(value.decor().prefix()));
    let own = sibling.as_deref().and_then(lines).unwrap_or(if at == 0 { "" } else { " " }.to_owned());
    let last = at == array.len();
    let behind = match (array.get(at), last.then(|| at.checked_sub(1)).flatten()) {
        (Some(next), _) => raw(next.decor().prefix()),
        (None, Some(before)) if !array.trailing_comma() => {
            array.get(before).map(|value| raw(value.decor().suffix())).unwrap_or_default()
        }
        (None, _) => raw(Some(array.trailing())),
    };
    let (comment, rest) = match behind.split_once('\n') {
        Some((comment, rest)) if comment.contains('#') => (comment.to_owned(), format!("\n{rest}")),
        _ => (String::new(), behind),
    };
    // A comment ends only with its line.
    let own = if comment.is_empty() || own.starts_with('\n') { own } else { "\n".to_owned() };
    let mut new = Toml::from(name);
    new.decor_mut().set_prefix(comment + &own);
    if let Some(next) = array.get_mut(at) {
        next.decor_mut().set_prefix(rest);
    } else if let Some(before) = at.checked_sub(1).filter(|_| !array.trailing_comma()) {
        if let Some(before) = array.get_mut(before) {
            before.decor_mut().set_suffix("");
        }
        new.decor_mut().set_suffix(rest);
    } else {
        array.set_trailing(rest);
    }
    array.insert_formatted(at, new);
}
