//! What kind of value a key takes, and how text becomes one.

use std::time::Duration;

use super::keys::Key;
use super::limits::Limit;
use super::origin::Origin;
use super::tree::{Kind, Value};
use crate::names::{Bytes, parse_duration};

/// Tells what is wrong with a text; completes "KEY 'TEXT' ...".
pub type Check = fn(&str) -> Result<(), String>;

/// The kind of value that a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// One text.
    Text(Check),
    /// Several texts; as one shell variable they are parted as said.
    Texts(Parted, Check),
    /// A whole number from the first to the second.
    Integer(i64, i64),
    /// True or false.
    Flag,
    /// A number of bytes with its unit, from the first to the second.
    Size(u64, u64),
    /// A span of time, at least a second and at most a day.
    Span,
    /// How much of something a guest may use.
    Amount(Limit),
    /// Keys and values.
    Table,
    /// Values of these keys.
    Keys(&'static [Key]),
    /// Tables one after the other, each with values of these keys.
    Tables(&'static [Key]),
    /// A table for each of several names, with values of these keys.
    Named(Check, &'static [Key]),
    /// Values of the site's own names.
    Free(Check),
    /// A text, a number, a flag or a list of texts.
    Any,
}

/// How texts stand in one variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parted {
    /// By blanks or newlines.
    Words,
    /// By newlines.
    Lines,
}

/// What is wrong with a value, and where within it.
pub type Wrong = (Origin, String);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Shape {
    /// What it takes, for a message.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Texts(..) => "a list of texts",
            Self::Integer(..) => "a whole number",
            Self::Flag => "true or false",
            Self::Size(..) => "a size as text",
            Self::Span => "a time as text",
            Self::Amount(limit) => limit.noun(),
            Self::Table | Self::Keys(_) | Self::Named(..) | Self::Free(_) => "a table",
            Self::Tables(_) => "tables in double brackets",
            Self::Any => "text, a number, true or false, or a list of texts",
        }
    }

    /// Everything that is wrong with a value of the key that is written so.
    pub fn wrong(self, written: &str, value: &Value) -> Vec<Wrong> {
        let wrong = |message: String| vec![(value.origin.clone(), message)];
        let told = |text: &str, why: String| wrong(format!("{written} '{}' {why}", shown(text)));
        match (self, &value.kind) {
            (Self::Text(check), Kind::Text(text)) => {
                check(text).map_or_else(|why| told(text, why), |()| Vec::new())
            }
            (Self::Texts(_, check), Kind::List(values)) => {
                values.iter().flat_map(|value| Self::Text(check).wrong(written, value)).collect()
            }
            (Self::Integer(least, most), Kind::Integer(number)) => {
                if (least..=most).contains(number) {
                    return Vec::new();
                }
                wrong(format!("{written} {number} is not between {least} and {most}"))
            }
            (Self::Flag, Kind::Flag(_)) | (Self::Table | Self::Keys(_), Kind::Table(_)) => Vec::new(),
            (Self::Any, Kind::Text(_) | Kind::Integer(_) | Kind::Flag(_)) => Vec::new(),
            (Self::Any, Kind::List(values)) => {
                values.iter().flat_map(|value| Self::Text(|_| Ok(())).wrong(written, value)).collect()
            }
            (Self::Tables(_), Kind::List(values)) => {
                let tables = values.iter().filter(|value| !matches!(value.kind, Kind::Table(_)));
                tables.flat_map(|value| Self::Table.wrong(written, value)).collect()
            }
            (Self::Named(check, _) | Self::Free(check), Kind::Table(table)) => {
                let named = |entry: &super::tree::Entry| {
                    let why = check(&entry.written).err()?;
                    Some((entry.origin.clone(), format!("name '{}' {why}", shown(&entry.written))))
                };
                let mut wrong: Vec<Wrong> = table.entries.iter().filter_map(named).collect();
                for entry in table.entries.iter().filter(|_| matches!(self, Self::Free(_))) {
                    wrong.extend(Self::Any.wrong(&format!("{written}.{}", entry.written), &entry.value));
                }
                wrong
            }
            (Self::Amount(limit), Kind::Text(_) | Kind::Integer(_)) => {
                let text = value.amount().unwrap_or_default();
                limit.parse(&text).map_or_else(|why| told(&text, why), |_| Vec::new())
            }
            (Self::Size(least, most), Kind::Text(text)) => match size(text) {
                Ok(bytes) if bytes.0 < least => told(text, format!("is less than {}", Bytes(least))),
                Ok(bytes) if bytes.0 > most => told(text, format!("is more than {}", Bytes(most))),
                Ok(_) => Vec::new(),
                Err(why) => told(text, why),
            },
            (Self::Size(..), Kind::Integer(number)) => wrong(format!("{written} {number} has no unit")),
            (Self::Span, Kind::Text(text)) => match parse_duration(text) {
                Ok(span) if span < Duration::from_secs(1) => told(text, "is less than a second".to_owned()),
                Ok(span) if span > DAY => told(text, "is more than a day".to_owned()),
                Ok(_) => Vec::new(),
                Err(why) => told(text, why.0),
            },
            (Self::Span, Kind::Integer(number)) => wrong(format!("{written} {number} has no unit")),
            (_, Kind::Other(noun)) if *noun == "a number that is too large" => Vec::new(),
            (shape, kind) => wrong(format!("{written} must be {}, not {}", shape.noun(), kind.noun())),
        }
    }

    /// The value that a text stands for, where there is only text: in shell variables and on the command line.
    pub fn read(self, text: &str, origin: &Origin) -> Value {
        let plain = || Kind::Text(text.to_owned());
        let kind = match self {
            Self::Text(_) | Self::Size(..) | Self::Span | Self::Table | Self::Keys(_) => plain(),
            Self::Tables(_) | Self::Named(..) | Self::Free(_) | Self::Any => plain(),
            Self::Amount(_) => text.trim().parse().map_or_else(|_| plain(), Kind::Integer),
            Self::Integer(..) => text.trim().parse().map_or_else(|_| plain(), Kind::Integer),
            Self::Flag => match text.trim().to_ascii_lowercase().as_str() {
                "yes" | "true" | "on" | "1" => Kind::Flag(true),
                "no" | "false" | "off" | "0" => Kind::Flag(false),
                _ => plain(),
            },
            Self::Texts(parted, _) => {
                let parts: Vec<&str> = match parted {
                    Parted::Words => text.split_whitespace().collect(),
                    Parted::Lines => text.lines().map(str::trim).filter(|l| !l.is_empty()).collect(),
                };
                let value = |part: &str| Value { kind: Kind::Text(part.to_owned()), origin: origin.clone() };
                Kind::List(parts.into_iter().map(value).collect())
            }
        };
        Value { kind, origin: origin.clone() }
    }
}

/// A size that says its unit: `512` alone could be meant in bytes or megabytes.
fn size(text: &str) -> Result<Bytes, String> {
    let bytes = text.parse::<Bytes>().map_err(|why| why.0)?;
    if text.ends_with(|c: char| c.is_ascii_digit()) {
        return Err("has no unit".to_owned());
    }
    Ok(bytes)
}

/// A text for a message: harmless to a terminal, and not a whole key.
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(48).flat_map(char::escape_debug).collect();
    if text.chars().nth(48).is_some() {
        shown.push_str("...");
    }
    shown
}

impl Value {
    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The texts of a list, each with its place; none if it is not a list.
    pub fn texts(&self) -> Vec<(&str, &Origin)> {
        match &self.kind {
            Kind::List(values) => values.iter().filter_map(|v| Some((v.text()?, &v.origin))).collect(),
            _ => Vec::new(),
        }
    }

    /// The number, if it is one.
    pub fn integer(&self) -> Option<i64> {
        match self.kind {
            Kind::Integer(number) => Some(number),
            _ => None,
        }
    }

    /// The text or number of a limit, as text.
    pub fn amount(&self) -> Option<String> {
        match &self.kind {
            Kind::Text(text) => Some(text.clone()),
            Kind::Integer(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The flag, if it is one.
    pub fn flag(&self) -> Option<bool> {
        match self.kind {
            Kind::Flag(flag) => Some(flag),
            _ => None,
        }
    }

    /// The number of bytes, if it is a good size.
    pub fn size(&self) -> Option<Bytes> {
        size(self.text()?).ok()
    }

    /// The span of time, if it is a good one.
    pub fn span(&self) -> Option<Duration> {
        parse_duration(self.text()?).ok()
    }
}
