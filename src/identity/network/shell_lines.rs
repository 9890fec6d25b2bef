//! Files of shell variables (`/etc/sysconfig`): lines of our own, and one variable of a file that is the guest's.

/// `KEY=VALUE`, quoted where it has to be. Values are checked types: none has a quote, dollar or backslash.
pub fn line(key: &str, value: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "._-:/,".contains(c);
    if value.chars().all(bare) && !value.is_empty() {
        format!("{key}={value}\n")
    } else {
        format!("{key}=\"{value}\"\n")
    }
}

/// The text with that variable set, or without it. Lines that do not set it stay to the letter; the first that does gets
/// the value, further ones go.
pub fn set(text: &str, key: &str, value: Option<&str>) -> String {
    let mut new = value.map(|value| line(key, value));
    let mut result = String::with_capacity(text.len() + 64);
    for old in text.split_inclusive('\n') {
        if !sets(old, key) {
            result.push_str(old);
        } else if let Some(new) = new.take() {
            result.push_str(&new);
        }
    }
    if let Some(new) = new {
        if !result.is_empty() && !result.ends_with('\n') {
            result.push('\n');
        }
        result.push_str(&new);
    }
    result
}

/// Whether the text sets the variable.
pub fn has(text: &str, key: &str) -> bool {
    text.lines().any(|line| sets(line, key))
}

fn sets(line: &str, key: &str) -> bool {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    line.strip_prefix(key).is_some_and(|rest| rest.starts_with('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_variable_is_set_where_it_stands_and_nothing_else_moves() {
        let text = "# a\nHOSTNAME=old\nNOZEROCONF=yes\nexport HOSTNAME=older\n";
        assert_eq!(
            set(text, "HOSTNAME", Some("ce.example.org")),
            "# a\nHOSTNAME=ce.example.org\nNOZEROCONF=yes\n"
        );
        assert_eq!(set(text, "HOSTNAME", None), "# a\nNOZEROCONF=yes\n");
        assert_eq!(set("A=1", "B", Some("2 3")), "A=1\nB=\"2 3\"\n");
    }

    proptest! {
        #[test]
        fn setting_a_variable_twice_is_setting_it_once(text in "(A|B|=|#|\n| |\"){0,40}") {
            let once = set(&text, "A", Some("x"));
            prop_assert!(has(&once, "A"));
            prop_assert_eq!(set(&once, "A", Some("x")), once);
        }
    }
}
