//! Variables: declared by profiles and features, told by the site and its guests, checked where they meet.

use std::collections::BTreeMap;

use super::source::Declared;
use crate::config::origin::Origin;
use crate::config::problem::Problems;
use crate::config::suggest;
use crate::config::variables::{Setting, Variables};

/// Values by name, all of them of their declared type.
pub(super) type Settled = BTreeMap<String, Setting>;

/// Settles every declared variable. What is told and not declared is looked at by [`unknown`].
pub(super) fn settle(
    declared: &[&Declared],
    told: &Variables,
    profile: &str,
    problems: &mut Problems,
) -> Settled {
    let merged = merge(declared);
    let mut settled = Settled::new();
    for (name, declared) in &merged {
        let value = match (told.get(*name), &declared.default) {
            (Some(variable), _) => Some((&variable.value, &variable.origin)),
            (None, Some((value, origin))) => Some((value, origin)),
            (None, None) if declared.required == Some(true) => {
                let about = declared.about.as_deref().unwrap_or("it has no default");
                let hint = format!("{about}; set it in the guest's file: [variables] {name} = ...");
                let message = format!("variable '{name}' of profile '{profile}' must be set");
                problems.add(&declared.origin, message, hint);
                None
            }
            (None, None) => None,
        };
        let value = match value {
            Some((value, origin)) => fit(name, declared, value, origin, problems),
            None => Some(declared.empty()),
        };
        settled.extend(value.map(|value| ((*name).to_owned(), value)));
    }
    settled
}

/// Tells of what a guest is told and its profile does not know. What stands at a place that is shared with another guest
/// may be meant for that one; `meant` says so.
pub(super) fn unknown(
    settled: &Settled,
    told: &Variables,
    profile: &str,
    meant: impl Fn(&str, &Origin) -> bool,
    problems: &mut Problems,
) {
    for (name, variable) in told.iter().filter(|(name, _)| !settled.contains_key(*name)) {
        if !meant(name, &variable.origin) {
            let hint = suggest::hint(name, settled.keys().map(String::as_str), "its variables");
            problems.add(&variable.origin, format!("profile '{profile}' has no variable '{name}'"), hint);
        }
    }
}

fn merge<'a>(declared: &[&'a Declared]) -> BTreeMap<&'a str, Declared> {
    let mut merged: BTreeMap<&str, Declared> = BTreeMap::new();
    for one in declared {
        let Some(old) = merged.get_mut(one.name.as_str()) else {
            merged.insert(&one.name, (*one).clone());
            continue;
        };
        let new = (*one).clone();
        *old = Declared {
            name: new.name,
            origin: new.origin,
            kind: new.kind.or(old.kind.take()),
            default: new.default.or(old.default.take()),
            about: new.about.or(old.about.take()),
            pattern: new.pattern.or(old.pattern.take()),
            choices: new.choices.or(old.choices.take()),
            min: new.min.or(old.min),
            max: new.max.or(old.max),
            required: new.required.or(old.required),
        };
    }
    merged
}

impl Declared {
    /// Text, if nothing else is said.
    fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("text")
    }

    /// What a variable without value and default is.
    fn empty(&self) -> Setting {
        match self.kind() {
            "integer" => Setting::Integer(self.min.unwrap_or(0)),
            "flag" => Setting::Flag(false),
            "list" => Setting::List(Vec::new()),
            _ => Setting::Text(String::new()),
        }
    }
}

/// The value as its type has it; from a shell variable or the command line everything comes as text.
fn fit(
    name: &str,
    declared: &Declared,
    value: &Setting,
    origin: &Origin,
    problems: &mut Problems,
) -> Option<Setting> {
    let about = declared.about.as_deref().unwrap_or_default();
    let wrong = |why: String, problems: &mut Problems| {
        problems.add(origin, format!("variable '{name}' {why}"), about);
        None
    };
    let fitted = match (declared.kind(), value) {
        ("integer", Setting::Text(text)) => text.trim().parse().ok().map(Setting::Integer),
        ("flag", Setting::Text(text)) => match text.trim() {
            "true" | "yes" | "on" | "1" => Some(Setting::Flag(true)),
            "false" | "no" | "off" | "0" => Some(Setting::Flag(false)),
            _ => None,
        },
        ("list", Setting::Text(text)) => {
            Some(Setting::List(text.split_whitespace().map(str::to_owned).collect()))
        }
        ("text", Setting::Integer(number)) => Some(Setting::Text(number.to_string())),
        ("integer", Setting::Integer(_))
        | ("flag", Setting::Flag(_))
        | ("list", Setting::List(_))
        | ("text", Setting::Text(_)) => Some(value.clone()),
        _ => None,
    };
    let Some(fitted) = fitted else {
        let noun = match declared.kind() {
            "integer" => "a whole number",
            "flag" => "true or false",
            "list" => "a list of texts",
            _ => "text",
        };
        return wrong(format!("must be {noun}, not '{}'", value.to_string().escape_debug()), problems);
    };
    let (least, most) = (declared.min.unwrap_or(i64::MIN), declared.max.unwrap_or(i64::MAX));
    if let Setting::Integer(number) = fitted
        && !(least..=most).contains(&number)
    {
        return wrong(format!("{number} is not between {least} and {most}"), problems);
    }
    let texts: &[String] = match &fitted {
        Setting::Text(text) => std::slice::from_ref(text),
        Setting::List(texts) => texts,
        _ => &[],
    };
    for text in texts {
        if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            return wrong("must not contain control characters".to_owned(), problems);
        }
        if let Some(choices) = &declared.choices
            && !choices.contains(text)
        {
            return wrong(format!("'{text}' is none of: {}", choices.join(", ")), problems);
        }
        // The pattern was checked when its file was read.
        if let Some(pattern) = &declared.pattern
            && let Ok(regex) = regex::Regex::new(&format!("^(?:{pattern})$"))
            && !regex.is_match(text)
        {
            return wrong(format!("'{}' is not like {pattern}", text.escape_debug()), problems);
        }
    }
    Some(fitted)
}
