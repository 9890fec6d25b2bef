//! Old values in text, found and replaced only where they stand alone: `ce` is not in `ce2`, nor `10.0.0.1` in `10.0.0.11`.

/// Whether a name is rare enough to be looked for outside of the files that are about names: a machine that is called
/// `localhost`, `debian` or `ce` would be found everywhere.
pub fn is_telling(name: &str) -> bool {
    const COMMON: [&str; 12] = [
        "localhost",
        "localdomain",
        "debian",
        "ubuntu",
        "fedora",
        "centos",
        "linux",
        "server",
        "system",
        "golden",
        "gateway",
        "install",
    ];
    name.len() >= 4 && !COMMON.contains(&name)
}

/// Every place of `old` in `text` where it stands alone, as byte offsets.
pub fn places(text: &str, old: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let alone = |at: usize| {
        let before = at.checked_sub(1).map(|at| bytes[at]);
        let after = bytes.get(at + old.len()).copied();
        // A dot behind it may end a sentence, or go on in a longer name or number.
        let goes_on = after == Some(b'.')
            && bytes.get(at + old.len() + 1).is_some_and(|next| is_word(*next) && *next != b'_');
        !before.is_some_and(|b| is_word(b) || b == b'.') && !after.is_some_and(is_word) && !goes_on
    };
    if old.is_empty() {
        return Vec::new();
    }
    text.match_indices(old).map(|(at, _)| at).filter(|at| alone(*at)).collect()
}

/// All of them replaced.
pub fn replace(text: &str, old: &str, new: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut done = 0;
    for at in places(text, old) {
        result.push_str(&text[done..at]);
        result.push_str(new);
        done = at + old.len();
    }
    result + &text[done..]
}

/// What names, numbers and addresses are made of; bytes of longer characters belong to words.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_is_replaced_only_where_it_stands_alone() {
        let text = "10.0.0.1 10.0.0.11 110.0.0.1 (10.0.0.1), 10.0.0.1/24 10.0.0.1. 10.0.0.1.5 x-10.0.0.1";
        let expected = "A 10.0.0.11 110.0.0.1 (A), A/24 A. 10.0.0.1.5 x-10.0.0.1";
        assert_eq!(replace(text, "10.0.0.1", "A"), expected);
    }

    #[test]
    fn a_short_name_inside_a_full_one_is_left_to_the_full_one() {
        assert_eq!(replace("ce1.old.org and ce1", "ce1", "wn"), "ce1.old.org and wn");
    }

    #[test]
    fn common_names_tell_nothing() {
        assert!(!is_telling("ce") && !is_telling("debian") && is_telling("ce07"));
    }

    proptest! {
        #[test]
        fn what_was_replaced_is_found_no_more(text in "[a-c. é-]{0,40}", old in "[a-c]{1,3}") {
            prop_assert!(places(&replace(&text, &old, "X"), &old).is_empty());
        }
    }
}
