//! A table of machines: which site goes onto which disk.
//!
//! As TOML, `[[machine]]` with `site`, `target` and, for a file that is made, `size`; or as CSV with a first line that names its
//! columns. A path that is not absolute starts where the table is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::names::Bytes;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The site's directory.
    pub site: PathBuf,
    /// As it is written: with a bundle, the name of a site in it.
    pub name: String,
    /// Device or file.
    pub target: PathBuf,
    /// Size of a file that is made.
    pub size: Option<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    machine: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    site: PathBuf,
    target: PathBuf,
    size: Option<String>,
}

/// No room has so many disks in a row.
const ROWS_AT_MOST: usize = 1000;

/// Reads a table; what is wrong is told with its line. Two rows of one site or onto one disk are refused: the second would
/// undo the first.
pub fn read(file: &Path, text: &str) -> Result<Vec<Row>> {
    let what = || format!("reading the table '{}'", file.display());
    let written = match file.extension().is_some_and(|extension| extension == "csv") {
        true => csv(text).with_context(what)?,
        false => toml::from_str::<Table>(text).with_context(what)?.machine,
    };
    if written.is_empty() || written.len() > ROWS_AT_MOST {
        bail!("{}: it has {} machines, and 1 to {ROWS_AT_MOST} can be made", what(), written.len());
    }
    let dir = file.parent().unwrap_or(Path::new(""));
    let mut rows: Vec<Row> = Vec::new();
    for row in written {
        let size = match row.size.as_deref().map(str::trim).filter(|size| !size.is_empty()) {
            Some(size) => {
                Some(size.parse().map_err(|why| anyhow::anyhow!("size '{size}' {why}")).with_context(what)?)
            }
            None => None,
        };
        let name = row.site.display().to_string();
        let row = Row { site: dir.join(row.site), name, target: dir.join(row.target), size };
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if let Some(other) = rows.iter().find(|other| real(&other.target) == real(&row.target)) {
            bail!("{}: two machines on '{}'", what(), other.target.display());
        }
        if rows.iter().any(|other| real(&other.site) == real(&row.site)) {
            bail!(
                "{}: two machines of the site '{}', which would have the same identity",
                what(),
                row.site.display()
            );
        }
        rows.push(row);
    }
    Ok(rows)
}

/// RFC 4180 without line breaks in fields, which no path and no size has.
fn csv(text: &str) -> Result<Vec<Written>> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let columns = match lines.next() {
        Some((_, line)) => fields(line),
        None => bail!("it is empty; its first line names the columns: site,target,size"),
    };
    if let Some(other) = columns.iter().find(|column| !["site", "target", "size"].contains(&column.as_str()))
    {
        bail!("line 1: there is no column '{other}'; the columns are site,target,size");
    }
    let mut rows = Vec::new();
    for (number, line) in lines {
        let values = fields(line);
        if values.len() != columns.len() {
            bail!("line {}: {} values for {} columns", number + 1, values.len(), columns.len());
        }
        let value = |name: &str| {
            columns
                .iter()
                .position(|column| column == name)
                .map(|at| values[at].clone())
                .filter(|text| !text.is_empty())
        };
        let (Some(site), Some(target)) = (value("site"), value("target")) else {
            bail!("line {}: a machine has a site and a target", number + 1);
        };
        rows.push(Written { site: site.into(), target: target.into(), size: value("size") });
    }
    Ok(rows)
}

fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let field = match fields.len() {
            0 => continue,
            count => &mut fields[count - 1],
        };
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    fields.iter().map(|field| field.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms_say_the_same() {
        let toml = "[[machine]]\nsite = 'dcu'\ntarget = '/dev/sdb'\n[[machine]]\nsite = 'ucc, cork'\ntarget = 'x'\nsize = '6G'\n";
        let csv = "site,target,size\ndcu,/dev/sdb,\n\"ucc, cork\",x,6G\n";
        let rows = read(Path::new("/t/a.toml"), toml).unwrap();
        assert_eq!(rows, read(Path::new("/t/a.csv"), csv).unwrap());
        assert_eq!(
            rows[0],
            Row { site: "/t/dcu".into(), name: "dcu".to_owned(), target: "/dev/sdb".into(), size: None }
        );
        assert_eq!(rows[1].size, Some(Bytes(6 << 30)));
    }

    #[test]
    fn a_disk_or_a_site_that_stands_there_twice_is_refused() {
        for csv in ["site,target\na,/dev/sdb\nb,/dev/sdb\n", "site,target\na,/dev/sdb\na,/dev/sdc\n"] {
            assert!(read(Path::new("t.csv"), csv).unwrap_err().to_string().contains("two machines"));
        }
        let error = format!("{:#}", read(Path::new("t.csv"), "site,disk\n").unwrap_err());
        assert!(
            error.ends_with("line 1: there is no column 'disk'; the columns are site,target,size"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn any_table_is_read_or_refused(text in "([ -~]{0,30}\n){0,4}") {
            let _ = read(Path::new("t.csv"), &format!("site,target,size\n{text}"));
            let _ = read(Path::new("t.toml"), &text);
        }
    }
}
