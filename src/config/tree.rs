//! What both kinds of files become: tables of values, each with its place.

use std::fmt;

use super::origin::Origin;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// What it is.
    pub kind: Kind,
    /// Where it stands.
    pub origin: Origin,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Flag(bool),
    /// A list.
    List(Vec<Value>),
    /// Keys and values.
    Table(Table),
    /// A kind that no key has, such as a date; the text says which.
    Other(&'static str),
}

impl Kind {
    /// The kind with its article, for a message.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a number",
            Self::Flag(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(noun) => noun,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Text(text) => write!(f, "{text:?}"),
            Kind::Integer(number) => write!(f, "{number}"),
            Kind::Flag(flag) => write!(f, "{flag}"),
            Kind::List(values) => {
                let values: Vec<String> = values.iter().map(Value::to_string).collect();
                write!(f, "[{}]", values.join(", "))
            }
            Kind::Table(_) | Kind::Other(_) => f.write_str(self.kind.noun()),
        }
    }
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key that gridgate knows it by.
    pub key: String,
    /// The key as it stands in the file: a shell variable's name differs.
    pub written: String,
    /// Where the key stands.
    pub origin: Origin,
    /// The value.
    pub value: Value,
}

/// Keys and values in the order that they were written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// Each key once.
    pub entries: Vec<Entry>,
}

impl Table {
    /// The entry of that key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.key == key)
    }

    /// The table under that key.
    pub fn table(&self, key: &str) -> Option<&Table> {
        match &self.get(key)?.value.kind {
            Kind::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Sets a key; a second value replaces the first.
    pub fn set(&mut self, entry: Entry) {
        match self.entries.iter_mut().find(|e| e.key == entry.key) {
            Some(old) => *old = entry,
            None => self.entries.push(entry),
        }
    }

    /// The table under that key, made if need be; `None` if the key has another kind of value.
    pub fn table_mut(&mut self, key: &str, origin: &Origin) -> Option<&mut Table> {
        let at = match self.entries.iter().position(|e| e.key == key) {
            Some(at) => at,
            None => {
                let value = Value { kind: Kind::Table(Table::default()), origin: origin.clone() };
                let (key, written) = (key.to_owned(), key.to_owned());
                self.entries.push(Entry { key, written, origin: origin.clone(), value });
                self.entries.len() - 1
            }
        };
        match &mut self.entries[at].value.kind {
            Kind::Table(table) => Some(table),
            _ => None,
        }
    }
}
