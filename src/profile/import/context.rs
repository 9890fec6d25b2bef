//! LCFG's context expressions: `!install & (site=a | night)`. A value counts only where its expression holds, and of several values for
//! one thing the one of the highest priority does.
//!
//! Rules and priorities are those of LCFG's own reader (lcfg-core, `common/context`): what is asked for has its place in the list of contexts,
//! counted from 1, as its priority, and 1 if it is not in it; it is negative where it does not hold. Operators have no
//! precedence among themselves and are taken from the left.

use std::iter::Peekable;
use std::str::Chars;

/// The contexts that are on, in their order: the last one has the highest priority.
pub type Contexts = [(String, String)];

/// Deeper ones nobody writes.
const DEEPEST: usize = 32;

/// A context as it is typed, `NAME` or `NAME=VALUE`.
pub fn context(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, "true"));
    match !name.is_empty() && name.chars().all(is_name) {
        true => Ok((name.to_owned(), value.to_owned())),
        false => Err("a context is NAME or NAME=VALUE".to_owned()),
    }
}

/// The priority of an expression: positive if it holds, negative if it does not, 0 if there is none.
pub(super) fn priority(expression: &str, contexts: &Contexts) -> Result<i64, String> {
    let mut reader = Reader { rest: expression.chars().peekable(), contexts, depth: 0 };
    if reader.next().is_none() {
        return Ok(0);
    }
    let found = reader.expression()?;
    match reader.next() {
        None => Ok(found),
        Some(other) => Err(format!("'{other}' is not expected there")),
    }
}

struct Reader<'e> {
    rest: Peekable<Chars<'e>>,
    contexts: &'e Contexts,
    depth: usize,
}

impl Reader<'_> {
    /// The next character that is no space, which stays.
    fn next(&mut self) -> Option<char> {
        while self.rest.next_if(|c| c.is_whitespace()).is_some() {}
        self.rest.peek().copied()
    }

    fn takes(&mut self, wanted: char) -> bool {
        self.next() == Some(wanted) && self.rest.next().is_some()
    }

    fn expression(&mut self) -> Result<i64, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("it nests too deep".to_owned());
        }
        let mut left = self.term()?;
        while let Some(operator) = self.next().filter(|c| "&|^".contains(*c)) {
            self.rest.next();
            // Doubled, as in C, it is the same.
            self.rest.next_if_eq(&operator);
            let right = self.term()?;
            let (greater, lesser) = (left.max(right), left.min(right));
            left = match operator {
                '&' if lesser > 0 => greater,
                '&' => lesser,
                '|' if greater < 0 => lesser,
                '|' => greater,
                _ if greater < 0 => lesser,
                _ if lesser > 0 => -greater,
                _ => greater,
            };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn term(&mut self) -> Result<i64, String> {
        let is_not = self.takes('!');
        let sign = if is_not { -1 } else { 1 };
        if self.takes('(') {
            let inside = self.expression()?;
            return if self.takes(')') { Ok(sign * inside) } else { Err("a ')' is missing".to_owned()) };
        }
        let name = self.word()?;
        let (at, value) = self.value(&name);
        let is_true = !matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "no" | "off" | "false");
        let unequal = self.takes('!');
        if !unequal && !self.takes('=') {
            return Ok(if is_true != is_not { at } else { -at });
        }
        if is_not || unequal && !self.takes('=') {
            return Err("'!' is not expected there".to_owned());
        }
        // '==' is the same.
        self.rest.next_if_eq(&'=');
        let wanted = self.word()?;
        let holds = match wanted.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => is_true,
            "false" | "no" | "off" => !is_true,
            _ => value == wanted,
        };
        Ok(if holds != unequal { at } else { -at })
    }

    fn value(&self, name: &str) -> (i64, String) {
        let known = self.contexts.iter().rposition(|(known, _)| known == name);
        match known {
            Some(at) => (at as i64 + 1, self.contexts[at].1.clone()),
            None => (1, String::new()),
        }
    }

    fn word(&mut self) -> Result<String, String> {
        let mut word = String::new();
        if let Some(quote) = self.next().filter(|c| "'\"".contains(*c)) {
            self.rest.next();
            loop {
                match self.rest.next() {
                    Some(c) if c == quote => return Ok(word),
                    Some(c) => word.push(c),
                    None => return Err("a quote is missing at its end".to_owned()),
                }
            }
        }
        while let Some(c) = self.rest.next_if(|c| is_name(*c)) {
            word.push(c);
        }
        match self.rest.peek() {
            _ if !word.is_empty() => Ok(word),
            Some(other) => Err(format!("'{other}' is not expected there")),
            None => Err("something is missing at its end".to_owned()),
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-.".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_expression_has_the_priority_of_what_makes_it_hold() {
        let contexts: Vec<_> =
            ["install=no", "site=a", "night"].iter().map(|text| context(text).unwrap()).collect();
        for (expression, expected) in [
            ("", 0),
            ("night", 3),
            ("!night", -3),
            ("install", -1),
            ("!install", 1),
            ("unknown", -1),
            ("!unknown", 1),
            ("site=a", 2),
            ("site == \"a\"", 2),
            ("site!=a", -2),
            ("install=false", 1),
            ("install!=false", -1),
            ("!install & site=a", 2),
            ("!install & site=b", -2),
            ("install | night", 3),
            ("install || site=b", -2),
            ("night ^ site=a", -3),
            ("night ^ install", 3),
            ("!(night & site=a)", -3),
            // From the left, whatever the operators are.
            ("night | install & install", -1),
        ] {
            assert_eq!(priority(expression, &contexts), Ok(expected), "{expression}");
        }
        for (wrong, why) in [
            ("night &", "something is missing at its end"),
            ("(night", "a ')' is missing"),
            ("night night", "'n' is not expected there"),
            ("!site=a", "'!' is not expected there"),
            ("site=\"a", "a quote is missing at its end"),
        ] {
            assert_eq!(priority(wrong, &contexts), Err(why.to_owned()), "{wrong}");
        }
        assert!(priority(&"(".repeat(100_000), &contexts).unwrap_err().contains("too deep"));
        assert!(context("a b").is_err());
    }

    proptest! {
        #[test]
        fn any_expression_is_read_or_refused(text in "[a-z=!&|^() \"]{0,40}") {
            let _ = priority(&text, &[("a".to_owned(), "b".to_owned())]);
        }
    }
}
