//! What `gridgate limit` was told: kept beside the guest, over restarts and boots, and stronger than the site's files.
//!
//! `guests/NAME/limits.json`: `{"version":1,"limits":{"cpu":"50%","memory":"none"}}`, the words of the command line.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::config::limits::{Limit, Limits, NONE};
use crate::host::Host;
use crate::names::GuestName;
use crate::paths::Paths;

/// See the module; `None` lifts the site's limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept(BTreeMap<Limit, Option<u64>>);

/// What one word of the command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What is to be limited.
    pub limit: Limit,
    /// How.
    pub to: To,
}

/// How a limit is to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// This, or nothing at all, whatever the site's files say.
    Kept(Option<u64>),
    /// What the site's files say.
    Site,
}

/// The word that gives a limit back to the site's files.
const SITE: &str = "site";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    limits: BTreeMap<String, String>,
}

impl Change {
    /// Reads `cpu=50%`, `cpu=none`, `cpu=site` or `cpu=`. An error says what is wrong in one sentence.
    pub fn parse(word: &str) -> Result<Self, String> {
        let Some((name, value)) = word.split_once('=') else {
            return Err(format!("'{word}' is not KEY=VALUE"));
        };
        let limit = Limit::named(name).ok_or_else(|| format!("there is no limit '{name}'"))?;
        let to = match value.trim() {
            "" | SITE => To::Site,
            value => To::Kept(limit.parse(value).map_err(|why| format!("{name} '{value}' {why}"))?),
        };
        Ok(Self { limit, to })
    }
}

impl Kept {
    /// What is kept of a guest; nothing if nothing was ever said.
    pub fn read(host: &dyn Host, paths: &Paths, guest: &GuestName) -> Result<Self> {
        let path = paths.limits(guest);
        let Some(bytes) = host.read(&path)? else { return Ok(Self::default()) };
        parse(&bytes).with_context(|| format!("reading '{}'", path.display()))
    }

    /// Keeps it; where nothing is left to keep, no file either.
    pub fn write(&self, host: &dyn Host, paths: &Paths, guest: &GuestName) -> Result<()> {
        let path = paths.limits(guest);
        if self.0.is_empty() {
            return host.remove(&path);
        }
        let word =
            |limit: Limit, value: Option<u64>| value.map_or(NONE.to_owned(), |value| limit.show(value));
        let words = self.0.iter().map(|(limit, value)| (limit.name().to_owned(), word(*limit, *value)));
        let file = File { version: VERSION, limits: words.collect() };
        host.write(&path, &serde_json::to_vec_pretty(&file)?, 0o644)
    }

    /// Whether something is kept of it.
    pub fn has(&self, limit: Limit) -> bool {
        self.0.contains_key(&limit)
    }

    /// Takes a change in.
    pub fn change(&mut self, change: Change) {
        match change.to {
            To::Kept(value) => drop(self.0.insert(change.limit, value)),
            To::Site => drop(self.0.remove(&change.limit)),
        }
    }

    /// What holds, where the site's files say this.
    pub fn over(&self, site: Limits) -> Limits {
        let mut limits = site;
        self.0.iter().for_each(|(limit, value)| limits.set(*limit, *value));
        limits
    }
}

fn parse(bytes: &[u8]) -> Result<Kept> {
    let file: File = serde_json::from_slice(bytes)?;
    ensure!(file.version == VERSION, "it has format {}, this gridgate knows {VERSION}", file.version);
    let mut kept = Kept::default();
    for (name, value) in file.limits {
        let change = Change::parse(&format!("{name}={value}")).map_err(anyhow::Error::msg)?;
        kept.change(change);
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::model::Model;
    use proptest::prelude::*;
    use std::path::Path;

    #[test]
    fn what_is_kept_survives_and_wins_and_is_given_back() {
        let scratch = tempfile::tempdir().unwrap();
        let host = Model::new(scratch.path());
        let (paths, guest) = (Paths::new(Path::new("/c"), Path::new("/s")), "ce".parse().unwrap());
        let mut kept = Kept::read(&host, &paths, &guest).unwrap();
        for word in ["cpu=50%", "memory=none", "net_in=1000kB"] {
            kept.change(Change::parse(word).unwrap());
        }
        kept.write(&host, &paths, &guest).unwrap();
        let mut kept = Kept::read(&host, &paths, &guest).unwrap();
        let site = Limits {
            cpu_percent: Some(10),
            memory_bytes: Some(1 << 30),
            pids: Some(99),
            ..Limits::default()
        };
        assert_eq!(kept.over(site).to_string(), "cpu=50% pids=99 net_in=1000000B");
        for word in ["cpu=", "memory=site", "net_in=site"] {
            kept.change(Change::parse(word).unwrap());
        }
        assert_eq!(kept.over(site), site);
        kept.write(&host, &paths, &guest).unwrap();
        assert_eq!(host.state().files.len(), 0);
    }

    #[test]
    fn a_wrong_word_is_refused_with_what_is_wrong_with_it() {
        let why = |word: &str| Change::parse(word).unwrap_err();
        assert_eq!(why("cpu"), "'cpu' is not KEY=VALUE");
        assert_eq!(why("cups=5"), "there is no limit 'cups'");
        assert_eq!(why("cpu=5"), "cpu '5' has no '%'; 100% is one processor");
    }

    proptest! {
        #[test]
        fn any_word_is_read_or_refused(word in "[a-z_]{0,8}=?[ -~]{0,12}") {
            let _ = Change::parse(&word);
        }

        #[test]
        fn any_file_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&bytes);
        }
    }
}
