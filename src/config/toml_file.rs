//! TOML text becomes a table with places.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::origin::{Origin, Text};
use super::problem::Problems;
use super::tree::{Entry, Kind, Table, Value};

/// Reads a file; `None` if its syntax is wrong, which is then told in full.
pub fn read(text: &Text, problems: &mut Problems) -> Option<Table> {
    let (table, errors) = DeTable::parse_recoverable(text.content());
    for error in &errors {
        let origin = text.origin(error.span().map_or(0, |span| span.start));
        problems.add(
            &origin,
            error.message(),
            "TOML puts text, sizes, times and addresses in quotes: https://toml.io",
        );
    }
    errors.is_empty().then(|| self::table(text, table.get_ref(), problems))
}

fn table(text: &Text, table: &DeTable<'_>, problems: &mut Problems) -> Table {
    // The parser sorts by name; the order that was written matters for networks.
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let entries = entries.into_iter().map(|(key, value)| Entry {
        key: key.get_ref().to_string(),
        written: key.get_ref().to_string(),
        origin: place(text, key.span()),
        value: self::value(text, value, problems),
    });
    Table { entries: entries.collect() }
}

fn value(text: &Text, value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Value {
    let origin = place(text, value.span());
    let kind = match value.get_ref() {
        DeValue::String(s) => Kind::Text(s.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Kind::Integer(number),
            Err(_) => {
                problems.add(&origin, format!("the number {} is too large", number.as_str()), "");
                Kind::Other("a number that is too large")
            }
        },
        DeValue::Float(_) => Kind::Other("a number with a fraction"),
        DeValue::Boolean(flag) => Kind::Flag(*flag),
        DeValue::Datetime(_) => Kind::Other("a date"),
        DeValue::Array(values) => Kind::List(values.iter().map(|v| self::value(text, v, problems)).collect()),
        DeValue::Table(inner) => Kind::Table(table(text, inner, problems)),
    };
    Value { kind, origin }
}

fn place(text: &Text, span: Range<usize>) -> Origin {
    text.origin(span.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_text(content: &str) -> (Option<Table>, Problems) {
        let mut problems = Problems::default();
        let table = read(&Text::new("f.toml".into(), content.to_owned()), &mut problems);
        (table, problems)
    }

    #[test]
    fn every_value_has_its_place_and_the_order_is_kept() {
        let (table, _) = read_text("z = 1\na = [\"x\",\n  \"y\"]\n[t.u]\nk = 0x1F\n");
        let table = table.unwrap();
        assert_eq!(table.entries.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["z", "a", "t"]);
        let Kind::List(list) = &table.get("a").unwrap().value.kind else { panic!("a list") };
        assert_eq!(list[1].origin.to_string(), "f.toml:3:3");
        let k = table.table("t").and_then(|t| t.table("u")).and_then(|u| u.get("k")).unwrap();
        assert_eq!(
            (k.value.kind.clone(), k.value.origin.to_string()),
            (Kind::Integer(31), "f.toml:5:5".to_owned())
        );
    }

    #[test]
    fn all_syntax_errors_are_told_at_once() {
        let (table, problems) = read_text("a = \nb = 1\nc = 'x\n");
        assert!(table.is_none());
        let places: Vec<String> = problems.iter().map(|p| p.origin.to_string()).collect();
        assert_eq!(places, ["f.toml:1:5", "f.toml:3:7"], "{problems}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_crash(content in "\\PC{0,60}") {
            read_text(&content);
        }

        #[test]
        fn any_toml_like_text_is_read_or_refused_without_a_crash(content in "([a-c.]=?|[\\[\\]{}\"'=,0-9\n\\\\ #-])*") {
            read_text(&content);
        }
    }
}
