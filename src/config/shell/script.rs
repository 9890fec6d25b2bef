//! Statements, one after the other, each evaluated before the next is read.

use std::collections::HashMap;

use super::cursor::Cursor;
use super::word::{self, Piece, Rules};
use super::{Refusal, Script, Unset, Variable, special};

/// Bounds on what a small file may grow to by `A=$A$A`; far above any honest file.
const LARGEST_VALUE: usize = 256 << 10;
const LARGEST_TOTAL: usize = 8 << 20;

const KEYWORDS: &[&str] = &[
    "if", "then", "elif", "else", "fi", "for", "while", "until", "do", "done", "case", "esac", "in",
    "select", "function", "time", "coproc",
];

/// Reads a file of assignments; the first thing that is not one refuses the file.
pub fn parse(bytes: &[u8]) -> Result<Script, Refusal> {
    if let Some(at) = bytes.iter().position(|b| *b == 0) {
        return Err(Refusal::new(at, "a NUL byte", "this is not a text file"));
    }
    let rules = Rules { argument: false, unicode: true, ascii_only: false };
    let mut reader = Reader { cursor: Cursor::new(bytes), rules, state: State::default() };
    while reader.statement()? {}
    Ok(reader.state.script)
}

struct Assignment {
    name: String,
    name_at: usize,
    value_at: usize,
    value_end: usize,
    append: bool,
    word: Vec<Piece>,
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    rules: Rules,
    state: State,
}

impl Reader<'_> {
    /// One statement, up to its `;` or newline; false at the end of the file.
    fn statement(&mut self) -> Result<bool, Refusal> {
        loop {
            match self.cursor.peek() {
                None => return Ok(false),
                Some(b' ' | b'\t' | b'\n') => self.cursor.step(),
                Some(b'#') => self.comment(),
                Some(_) => break,
            }
        }
        let at = self.cursor.at();
        let name = self.cursor.name();
        if name == "export" && matches!(self.cursor.peek(), None | Some(b' ' | b'\t' | b'\n' | b';')) {
            self.export(at)?;
        } else {
            let mut last = self.assignment(at, name, false)?;
            while let Some(assignment) = last {
                self.state.assign(&assignment, &mut self.rules)?;
                last = match self.next_word()? {
                    None => None,
                    Some(at) => {
                        let name = self.cursor.name();
                        self.assignment(at, name, true)?
                    }
                };
            }
        }
        Ok(true)
    }

    /// `export` evaluates all its arguments before it assigns the first.
    fn export(&mut self, at: usize) -> Result<(), Refusal> {
        let mut ready = Vec::new();
        let mut count = 0;
        self.rules.argument = true;
        while let Some(at) = self.next_word()? {
            count += 1;
            let name = self.cursor.name();
            if !name.is_empty() && matches!(self.cursor.peek(), None | Some(b' ' | b'\t' | b'\n' | b';')) {
                refuse_special(&name, at)?;
                continue;
            }
            if let Some(assignment) = self.assignment(at, name, true)? {
                let value = self.state.evaluate(&assignment.word)?;
                ready.push((assignment, value));
            }
        }
        self.rules.argument = false;
        if count == 0 {
            let reason = "'export' alone would print variables";
            return Err(Refusal::new(at, reason, "write export NAME=value"));
        }
        for (assignment, value) in ready {
            self.state.store(&assignment, value, &mut self.rules)?;
        }
        Ok(())
    }

    /// Goes to the next word of this statement, or past its end.
    fn next_word(&mut self) -> Result<Option<usize>, Refusal> {
        loop {
            match self.cursor.peek() {
                Some(b' ' | b'\t') => self.cursor.step(),
                Some(b'#') => self.comment(),
                None => return Ok(None),
                Some(b'\n') => {
                    self.cursor.step();
                    return Ok(None);
                }
                Some(b';') => {
                    self.cursor.step();
                    let at = self.cursor.at();
                    return match self.cursor.peek() {
                        Some(b';' | b'&') => Err(Refusal::new(
                            at,
                            "';;' belongs to 'case'",
                            "one ';' between assignments is enough",
                        )),
                        _ => Ok(None),
                    };
                }
                Some(_) => return Ok(Some(self.cursor.at())),
            }
        }
    }

    /// What stands behind a name that begins a word; anything but an assignment is refused.
    fn assignment(&mut self, at: usize, name: String, follows: bool) -> Result<Option<Assignment>, Refusal> {
        let next = self.cursor.peek();
        if name.is_empty() || !matches!(next, Some(b'=' | b'+')) {
            return Err(self.no_assignment(at, &name, next, follows));
        }
        let append = self.cursor.eat(b'+');
        if !self.cursor.eat(b'=') {
            return Err(self.no_assignment(at, &name, next, follows));
        }
        refuse_special(&name, at)?;
        if append && !self.state.places.contains_key(&name) {
            refuse_outside(&name, at)?;
        }
        let value_at = self.cursor.at();
        let word = word::value(&mut self.cursor, self.rules)?;
        let value_end = self.cursor.at();
        Ok(Some(Assignment { name, name_at: at, value_at, value_end, append, word }))
    }

    fn no_assignment(&mut self, at: usize, name: &str, next: Option<u8>, follows: bool) -> Refusal {
        let word = self.cursor.shown(at);
        let ends =
            matches!(next, None | Some(b' ' | b'\t' | b'\n' | b'\r' | b';' | b'&' | b'|' | b'<' | b'>'));
        let only = "only assignments such as NAME=value may stand here";
        if ends && KEYWORDS.contains(&name) {
            return Refusal::new(at, format!("'{name}' is control flow, which is not supported"), only);
        }
        match (name, next) {
            ("", Some(b'{' | b'}' | b'!')) | ("", Some(b'[')) => {
                Refusal::new(at, format!("'{word}' is control flow, which is not supported"), only)
            }
            ("", Some(b';')) => Refusal::new(at, "';' without an assignment before it", "take it away"),
            ("", Some(byte @ (b'&' | b'|' | b'<' | b'>' | b'(' | b')'))) => word::operator(byte, 0, at),
            ("", Some(b'\r')) => word::carriage_return(at),
            ("", Some(b'`')) => Refusal::new(at, "a backquote would run a command", only),
            (_, Some(b'[')) => {
                let hint = "write a list as one value: \"a b c\"";
                Refusal::new(at, format!("'{name}[' is an array, which is not supported"), hint)
            }
            (_, Some(b'(')) => {
                Refusal::new(at, format!("'{name}(' is a function, which is not supported"), only)
            }
            _ if follows => {
                let reason = format!("'{word}' behind an assignment is not one itself; a shell would run it");
                Refusal::new(at, reason, "put a value with blanks in quotes: NAME=\"a b\"")
            }
            _ => {
                let hint = if matches!(next, Some(b' ' | b'\t')) {
                    "an assignment has no blank before its '='"
                } else {
                    only
                };
                Refusal::new(
                    at,
                    format!("'{word}' is a command; gridgate never runs a configuration file"),
                    hint,
                )
            }
        }
    }

    fn comment(&mut self) {
        while !matches!(self.cursor.raw(), None | Some(b'\n')) {
            self.cursor.step();
        }
    }
}

fn refuse_special(name: &str, at: usize) -> Result<(), Refusal> {
    match special::bad_assignment(name) {
        Some(why) => Err(Refusal::new(at, format!("'{name}' {why}"), "choose another name")),
        None => Ok(()),
    }
}

/// For a variable that the file has not assigned so far.
fn refuse_outside(name: &str, at: usize) -> Result<(), Refusal> {
    match special::bad_reference(name) {
        Some(why) => Err(Refusal::new(at, format!("'{name}' {why}"), "assign it above, or write the value")),
        None => Ok(()),
    }
}

/// The variables so far.
#[derive(Default)]
struct State {
    script: Script,
    places: HashMap<String, usize>,
    total: usize,
}

impl State {
    fn assign(&mut self, assignment: &Assignment, rules: &mut Rules) -> Result<(), Refusal> {
        let value = self.evaluate(&assignment.word)?;
        self.store(assignment, value, rules)
    }

    fn store(&mut self, assignment: &Assignment, value: Vec<u8>, rules: &mut Rules) -> Result<(), Refusal> {
        let Assignment { name, name_at, value_at, value_end, append, .. } = assignment;
        let place = *self.places.entry(name.clone()).or_insert(self.script.variables.len());
        if place == self.script.variables.len() {
            self.script.variables.push(Variable {
                name: name.clone(),
                value: Vec::new(),
                name_at: *name_at,
                value_at: *value_at,
                value_end: *value_end,
            });
        }
        self.total += value.len();
        let variable = &mut self.script.variables[place];
        if *append {
            self.total += variable.value.len();
            variable.value.extend(value);
        } else {
            variable.value = value;
        }
        (variable.name_at, variable.value_at, variable.value_end) = (*name_at, *value_at, *value_end);
        if variable.value.len() > LARGEST_VALUE || self.total > LARGEST_TOTAL {
            return Err(too_large(*name_at));
        }
        if special::chooses_charset(name) {
            rules.unicode = false;
            rules.ascii_only |= !special::plain_charset(&variable.value);
        }
        Ok(())
    }

    fn evaluate(&mut self, word: &[Piece]) -> Result<Vec<u8>, Refusal> {
        let mut value = Vec::new();
        self.append(word, &mut value)?;
        Ok(value)
    }

    fn append(&mut self, word: &[Piece], value: &mut Vec<u8>) -> Result<(), Refusal> {
        for piece in word {
            match piece {
                Piece::Text(text) => value.extend(text),
                Piece::Reference { name, at, fallback } => {
                    let known = self.places.get(name).map(|place| &self.script.variables[*place].value);
                    if known.is_none() {
                        refuse_outside(name, *at)?;
                    }
                    match (known, fallback) {
                        (Some(text), None) => value.extend(text),
                        (Some(text), Some(f)) if !(f.when_empty && text.is_empty()) => value.extend(text),
                        (_, Some(f)) => self.append(&f.word, value)?,
                        (None, None) => self.script.unset.push(Unset { name: name.clone(), at: *at }),
                    }
                    if value.len() > LARGEST_VALUE {
                        return Err(too_large(*at));
                    }
                }
            }
        }
        Ok(())
    }
}

fn too_large(at: usize) -> Refusal {
    Refusal::new(at, "values grow too large here", "a configuration file needs no values of this size")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let text_of = |v: Variable| (v.name, String::from_utf8(v.value).unwrap());
        parse(text.as_bytes()).unwrap().variables.into_iter().map(text_of).collect()
    }

    fn refused(text: &str) -> (usize, String) {
        let refusal = parse(text.as_bytes()).expect_err(text);
        (refusal.at, refusal.reason)
    }

    #[test]
    fn quotes_escapes_and_references_give_what_a_shell_gives() {
        let text = "A=1 B='two words'; export C=\"$A-${B}\" # said\nD=a\\ b'c'\"d\"\nA+=0 E=$'\\x41\\n\\u00e9'\n\
                    F=${NONE:-x\"y z\"}${A:-no}\\\nend\nexport A\n";
        let expected = [
            ("A", "10"),
            ("B", "two words"),
            ("C", "1-two words"),
            ("D", "a bcd"),
            ("E", "A\né"),
            ("F", "xy z10end"),
        ];
        assert_eq!(read(text), expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn export_takes_the_values_from_before_it() {
        assert_eq!(parse(b"A=old\nexport A=new B=$A").unwrap().value("B"), Some(&b"old"[..]));
        assert_eq!(parse(b"A=old\nA=new B=$A").unwrap().value("B"), Some(&b"new"[..]));
    }

    #[test]
    fn a_reference_to_nothing_is_empty_and_told_of() {
        let script = parse(b"A=x$NO.${NO2-}y").unwrap();
        assert_eq!(script.value("A"), Some(&b"x.y"[..]));
        assert_eq!(script.unset, [Unset { name: "NO".to_owned(), at: 3 }]);
    }

    #[test]
    fn whatever_a_shell_would_run_is_refused_where_it_stands() {
        for (text, at) in [
            ("A=$(id)", 2),
            ("A=\"x`id`\"", 4),
            ("A=$((1+1))", 2),
            ("A=$[1+1]", 2),
            ("A=1 | cat", 4),
            ("A=1 &", 4),
            ("A=1&&B=2", 3),
            ("A=1 >x", 4),
            ("A=x>y", 3),
            ("A=<(id)", 2),
            ("cat <<E\nE\n", 0),
            ("if true; then A=1; fi", 0),
            ("A=1\nf() { :; }", 4),
            ("A=(1 2)", 2),
            ("A[0]=1", 0),
            ("A=1 touch x", 4),
            ("touch x", 0),
            ("A = 1", 0),
            ("A=1 \n B= 2", 9),
            ("export -n A", 7),
            ("export", 0),
            ("declare A=1", 0),
            (". /etc/x", 0),
            ("A=${B//x/y}", 2),
            ("A=${#B}", 2),
            ("A=${!B}", 2),
            ("A=${B:=x}", 2),
            ("A=$1", 2),
            ("A=$?", 2),
            ("A=\"$$\"", 3),
            ("A=~/x", 2),
            ("A=x:~", 4),
            ("A=1;;B=2", 4),
            (";A=1", 0),
            ("{ A=1; }", 0),
            ("[[ x ]]", 0),
            ("A='x", 2),
            ("A=\"x", 2),
            ("A=$'x", 2),
            ("A=${B", 2),
            ("A=x\\", 3),
            ("A=1\r\n", 3),
            ("A=$'\\0'", 2),
            ("UID=0", 0),
            ("export BASH_ENV=x", 7),
            ("IFS=:", 0),
            ("A=$RANDOM", 2),
            ("A=$PATH:/x", 2),
            ("PATH+=:/x", 0),
            ("A=${B:->(x)}", 7),
            ("A=\0", 2),
        ] {
            assert_eq!(refused(text).0, at, "{text:?} {:?}", refused(text));
        }
    }

    #[test]
    fn a_reason_says_what_would_have_happened() {
        assert!(refused("A=$(id)").1.contains("run a command"));
        assert!(refused("while :; do :; done").1.contains("control flow"));
        assert!(refused("A=1 touch x").1.contains("a shell would run it"));
    }

    #[test]
    fn doubling_values_end_before_memory_does() {
        let text = format!("A=xxxxxxxx\n{}", "A=$A$A\n".repeat(64));
        assert!(refused(&text).1.contains("too large"));
        let many = (0..10_000).map(|n| format!("B{n}=$A\n")).collect::<String>();
        assert!(refused(&format!("A={}\n{many}", "x".repeat(100_000))).1.contains("too large"));
    }

    #[test]
    fn deep_nesting_is_refused_before_the_stack_ends() {
        let text = format!("A={}x{}", "${B:-".repeat(100_000), "}".repeat(100_000));
        assert!(refused(&text).1.contains("nested"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_crash(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Err(refusal) = parse(&bytes) {
                prop_assert!(refusal.at <= bytes.len());
            }
        }

        #[test]
        fn any_shell_like_text_is_read_or_refused_without_a_crash(text in "([A-C]=|[${}'\"\\\\`():;~#&+\\- \nx-])*") {
            if let Err(refusal) = parse(text.as_bytes()) {
                prop_assert!(refusal.at <= text.len());
            }
        }
    }
}
