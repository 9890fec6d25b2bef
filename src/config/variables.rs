//! What a site tells its guests' profiles. What a profile makes of it, and whether it knows it, is the profile's affair:
//! each value keeps its place, so that a mistake can be told where it was made.

use std::collections::BTreeMap;

use serde::Serialize;

use super::layers::Layers;
use super::origin::Origin;
use super::tree::{Kind, Value};

/// Values by name.
pub type Variables = BTreeMap<String, Variable>;

/// One value and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Variable {
    /// The value.
    pub value: Setting,
    /// Where it stands.
    #[serde(skip)]
    pub origin: Origin,
}

/// A value of a profile's variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// True or false.
    Flag(bool),
    /// A whole number.
    Integer(i64),
    /// Text; a shell variable and the command line have nothing else.
    Text(String),
    /// Texts.
    List(Vec<String>),
}

/// A feature that a guest asks for.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Where it stands.
    #[serde(skip)]
    pub origin: Origin,
}

impl Setting {
    /// The value of a file; `None` if it is of no such kind.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        Some(match &value.kind {
            Kind::Text(text) => Self::Text(text.clone()),
            Kind::Integer(number) => Self::Integer(*number),
            Kind::Flag(flag) => Self::Flag(*flag),
            Kind::List(_) => Self::List(value.texts().into_iter().map(|(text, _)| text.to_owned()).collect()),
            Kind::Table(_) | Kind::Other(_) => return None,
        })
    }
}

/// As one text: the texts of a list are parted by blanks.
impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::List(texts) => f.write_str(&texts.join(" ")),
        }
    }
}

/// The layers of the variables of a guest, the site's own below.
pub(super) fn layers<'a>(site: &Layers<'a>, guest: &Layers<'a>) -> Layers<'a> {
    Layers(site.0.iter().copied().chain(guest.inner("variables").0).collect())
}

/// All names that some layer has, sorted.
pub(super) fn names<'a>(layers: &Layers<'a>) -> Vec<&'a str> {
    let mut names: Vec<&str> =
        layers.0.iter().flat_map(|table| &table.entries).map(|entry| entry.key.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What wins, by name.
pub(super) fn read(layers: &Layers<'_>) -> Variables {
    let entry = |name: &str| {
        let value = &layers.pick(name)?.value;
        let variable = Variable { value: Setting::of(value)?, origin: value.origin.clone() };
        Some((name.to_owned(), variable))
    };
    names(layers).into_iter().filter_map(entry).collect()
}

/// The features that win.
pub(super) fn features(layers: &Layers<'_>) -> Vec<Feature> {
    let said = layers.pick("features").map(|entry| entry.value.texts()).unwrap_or_default();
    said.into_iter().map(|(name, origin)| Feature { name: name.to_owned(), origin: origin.clone() }).collect()
}
