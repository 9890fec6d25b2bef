//! What a text in a profile must be; each error completes "KEY 'TEXT' ...".

use crate::config::shape::Check;

type Checked = Result<(), String>;

pub(super) fn line(text: &str) -> Checked {
    match text.chars().any(char::is_control) {
        true => Err("must be one line without control characters".to_owned()),
        false => Ok(()),
    }
}

pub(super) fn any(_: &str) -> Checked {
    Ok(())
}

/// A profile, feature, task or check.
pub(super) fn name(text: &str) -> Checked {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match text.starts_with(|c: char| c.is_ascii_lowercase()) && text.len() <= 63 && text.chars().all(known) {
        true => Ok(()),
        false => Err("may have only small letters, digits and '-', and begins with a letter".to_owned()),
    }
}

/// As templates and shells take it.
pub(super) fn variable(text: &str) -> Checked {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match text.starts_with(|c: char| c.is_ascii_lowercase()) && text.len() <= 64 && text.chars().all(known) {
        true => Ok(()),
        false => Err("may have only small letters, digits and '_', and begins with a letter".to_owned()),
    }
}

/// A path in the guest, possibly with `{{ ... }}` in it; the rendered path is checked by [`rendered_path`].
pub(super) fn path(text: &str) -> Checked {
    if text.contains("{{") {
        return line(text);
    }
    rendered_path(text)
}

/// An absolute path in the guest that names no parent directory.
pub(super) fn rendered_path(text: &str) -> Checked {
    line(text)?;
    let mut parts = text.split('/');
    if parts.next() != Some("") || text.len() < 2 || text.ends_with('/') {
        return Err("must be an absolute path".to_owned());
    }
    match parts.any(|part| matches!(part, "" | "." | "..")) {
        true => Err("must not contain '.', '..' or '//'".to_owned()),
        false => Ok(()),
    }
}

/// A template beside the profile.
pub(super) fn template(text: &str) -> Checked {
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match !text.is_empty() && !text.starts_with('.') && text.chars().all(known) {
        true => Ok(()),
        false => Err("is not the name of a file in templates/".to_owned()),
    }
}

pub(super) fn mode(text: &str) -> Checked {
    let octal = text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match octal && (3..=4).contains(&text.len()) {
        true => Ok(()),
        false => Err("must be three or four octal digits".to_owned()),
    }
}

/// As useradd(8) takes it.
pub(super) fn account(text: &str) -> Checked {
    let known = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let begins_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    match begins_well && text.len() <= 32 && text.chars().all(known) {
        true => Ok(()),
        false => Err("is not the name of a user or group".to_owned()),
    }
}

/// A field of passwd(5).
pub(super) fn field(text: &str) -> Checked {
    line(text)?;
    match text.contains(':') {
        true => Err("must not contain ':'".to_owned()),
        false => Ok(()),
    }
}

pub(super) fn package(text: &str) -> Checked {
    let known = |c: char| c.is_ascii_alphanumeric() || "+-._:".contains(c);
    match text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(known) {
        true => Ok(()),
        false => Err("is not the name of a package".to_owned()),
    }
}

pub(super) fn unit(text: &str) -> Checked {
    const KINDS: [&str; 6] = [".service", ".socket", ".timer", ".mount", ".path", ".target"];
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.@:\\".contains(c);
    let kind = KINDS.iter().any(|kind| text.len() > kind.len() && text.ends_with(kind));
    match kind && text.chars().all(known) {
        true => Ok(()),
        false => Err(format!("is not the name of a unit; it ends in one of {}", KINDS.join(" "))),
    }
}

pub(super) fn kind(text: &str) -> Checked {
    match ["text", "integer", "flag", "list"].contains(&text) {
        true => Ok(()),
        false => Err("is not a type; text, integer, flag and list are".to_owned()),
    }
}

pub(super) fn pattern(text: &str) -> Checked {
    regex::Regex::new(text).map(drop).map_err(|_| "is not a good regular expression".to_owned())
}

/// A class of state that belongs to one identity.
pub(super) const CLASS: Check = name;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_and_climbs_nowhere() {
        for good in ["/etc/arc.conf", "/srv/{{ site.name }}/x"] {
            assert_eq!(path(good), Ok(()), "{good}");
        }
        for bad in ["etc/x", "/", "/etc/", "/etc/../x", "/etc//x", "/etc/./x", "", "/a\nb"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_unit_has_a_kind() {
        for good in ["munge.service", "xrootd@se.service", "srv-arc.mount"] {
            assert_eq!(unit(good), Ok(()), "{good}");
        }
        for bad in ["munge", ".service", "a b.service", "../x.service"] {
            assert!(unit(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_account_is_none_that_could_end_a_line_of_passwd() {
        assert_eq!(account("grid001"), Ok(()));
        for bad in ["", "a:b", "a\nb", "-x", "Root"] {
            assert!(account(bad).is_err(), "{bad:?}");
        }
    }
}
