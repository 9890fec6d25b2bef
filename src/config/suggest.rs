//! "Did you mean": the nearest of the words that would have been right.

/// The candidate with the least edits, if so few that a slip of the hand explains them.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word_lower = word.to_lowercase();
    let with_distance = candidates.into_iter().map(|c| (distance(&word_lower, &c.to_lowercase()), c));
    let (edits, best) = with_distance.min_by_key(|(edits, _)| *edits)?;
    let tolerated = 1 + word.chars().count() / 4;
    (edits <= tolerated).then_some(best)
}

/// A hint: the nearest candidate, or all of them.
pub fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone, noun: &str) -> String {
    if let Some(best) = nearest(word, candidates.clone()) {
        return format!("did you mean '{best}'?");
    }
    let all: Vec<&str> = candidates.into_iter().collect();
    if all.is_empty() { format!("there are no {noun}") } else { format!("{noun}: {}", all.join(", ")) }
}

/// Insertions, removals, replacements and swaps of neighbours that turn one word into the other (optimal string
/// alignment). Words longer than any key count as far apart.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_slip_of_the_hand_finds_the_word_and_another_word_does_not() {
        let keys = ["memory", "address", "mac", "after"];
        assert_eq!(nearest("memroy", keys), Some("memory"));
        assert_eq!(nearest("adress", keys), Some("address"));
        assert_eq!(nearest("MAC", keys), Some("mac"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(hint("colour", keys, "known keys"), "known keys: memory, address, mac, after");
    }

    proptest! {
        #[test]
        fn a_word_is_as_far_from_another_as_the_other_from_it(a in "[a-c]{0,6}", b in "[a-c]{0,6}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
        }
    }
}
