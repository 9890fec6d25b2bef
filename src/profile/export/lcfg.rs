//! LCFG's XML profile, as `rdxprof` takes it: `<lcfg>` within the root element, attributes with the literal prefix `cfg:`,
//! a list's records in elements of the resource's name with `_RECORD`.

use std::fmt::Write;

use super::resources::{Component, Record, Value, components};
use super::xml::escaped;
use crate::profile::document::Document;

const NAMESPACE: &str = "http://www.lcfg.org/namespace/profile-1.0";

/// The profile.
pub(super) fn profile(document: &Document) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n");
    let _ = writeln!(text, "<inventory xmlns=\"{NAMESPACE}\" xmlns:cfg=\"{NAMESPACE}\">\n<lcfg>");
    let metadata = [
        ("published_by", format!("gridgate at {}", document.site)),
        ("server_version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    for (name, value) in metadata {
        let _ = writeln!(text, "  <{name}>{}</{name}>", escaped(&value));
    }
    text.push_str("  <components>\n");
    for one in components(document) {
        component(&mut text, &one);
    }
    text.push_str("  </components>\n  <packages>\n");
    for name in &document.packages {
        // Any version and release: a profile says what is there, not how new it is.
        let _ = writeln!(text, "    <package><name>{}</name><v>*</v><r>*</r></package>", escaped(name));
    }
    text.push_str("  </packages>\n</lcfg>\n</inventory>\n");
    text
}

fn component(text: &mut String, component: &Component) {
    let _ = writeln!(text, "    <{}>", component.name);
    for resource in &component.resources {
        let name = element(&resource.name);
        let (kind, value) = match &resource.value {
            Value::Text(value) => ("", escaped(value)),
            Value::Integer(number) => (" cfg:type=\"integer\"", number.to_string()),
            Value::Flag(flag) => (" cfg:type=\"boolean\"", if *flag { "yes" } else { "no" }.to_owned()),
            Value::Records(records) => {
                list(text, &name, records);
                continue;
            }
        };
        let _ = writeln!(text, "      <{name}{kind}>{value}</{name}>");
    }
    let _ = writeln!(text, "    </{}>", component.name);
}

fn list(text: &mut String, name: &str, records: &[Record]) {
    let fields: Vec<&str> =
        records.first().iter().flat_map(|record| &record.fields).map(|(name, _)| name.as_str()).collect();
    let template: Vec<String> = fields.iter().map(|field| format!("{field}_$")).collect();
    let _ = writeln!(text, "      <{name} cfg:template=\"{}\">", template.join(" "));
    for record in records {
        let _ = writeln!(text, "        <{name}_RECORD cfg:name=\"{}\">", record.tag);
        for (field, value) in &record.fields {
            let _ = writeln!(text, "          <{field}>{}</{field}>", escaped(value));
        }
        let _ = writeln!(text, "        </{name}_RECORD>");
    }
    let _ = writeln!(text, "      </{name}>");
}

/// A name that begins with a digit or `_` gets one more `_` in front.
fn element(name: &str) -> String {
    match name.starts_with(|c: char| c.is_ascii_digit() || c == '_') {
        true => format!("_{name}"),
        false => name.to_owned(),
    }
}
