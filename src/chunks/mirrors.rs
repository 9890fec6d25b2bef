//! Several places that hold the same store: what one does not give, the next one does.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Result, bail};

use super::place::{Missing, Place};
use super::ranges::Pieces;
use crate::progress::{Progress, interrupted};

/// See the module. The first place is asked first; one that fails is left for the next, and asked again when all have been.
pub struct Mirrors<'a> {
    places: Vec<Box<dyn Place>>,
    current: Cell<usize>,
    received: Cell<u64>,
    progress: &'a Progress,
}

/// Each place is tried so often without a byte of progress.
const ROUNDS: usize = 3;
/// After every place has failed; doubled each time.
const PAUSE: Duration = Duration::from_secs(1);

impl<'a> Mirrors<'a> {
    /// At least one place.
    pub fn new(places: Vec<Box<dyn Place>>, progress: &'a Progress) -> Self {
        Self { places, current: Cell::new(0), received: Cell::new(0), progress }
    }

    /// As messages name them.
    pub fn shown(&self) -> String {
        let names: Vec<String> = self.places.iter().map(|place| format!("'{}'", place.shown())).collect();
        names.join(", ")
    }

    /// Bytes of files that came so far.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// A whole file. `check` refuses what is not the right one, and the next place is asked then. The error [`Missing`] says
    /// that no place has it, and none had another fault.
    pub fn get(&self, name: &str, limit: u64, check: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Vec<u8>> {
        let mut failures = Failures::default();
        loop {
            let place = &self.places[self.current.get()];
            let got = place.get(name, limit).and_then(|bytes| {
                self.received.set(self.received.get() + bytes.len() as u64);
                check(&bytes).map(|()| bytes)
            });
            match got {
                Ok(bytes) => return Ok(bytes),
                Err(error) => self.failed(name, error, &mut failures)?,
            }
        }
    }

    /// Parts of a file, until all of them have come; `whole` gets each one and refuses what is wrong.
    pub fn fetch<T>(
        &self,
        name: &str,
        pieces: &mut Pieces<T>,
        whole: &mut dyn FnMut(&mut T, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut failures = Failures::default();
        loop {
            let wanted = pieces.ranges();
            if wanted.is_empty() {
                return Ok(());
            }
            let before = pieces.missing();
            let place = &self.places[self.current.get()];
            pieces.forget();
            let result = place.ranges(name, &wanted, &mut |at, bytes| {
                self.received.set(self.received.get() + bytes.len() as u64);
                pieces.take(at, bytes, whole)
            });
            let after = pieces.missing();
            if after == 0 {
                return Ok(());
            }
            if after < before {
                failures = Failures::default();
            }
            match result {
                Ok(()) if after < before => {}
                Ok(()) => self.failed(name, anyhow::anyhow!("the answer is not all of it"), &mut failures)?,
                Err(error) => self.failed(name, error, &mut failures)?,
            }
        }
    }

    /// Goes to the next place, or gives up.
    fn failed(&self, name: &str, error: anyhow::Error, failures: &mut Failures) -> Result<()> {
        if interrupted() {
            bail!("interrupted");
        }
        let place = self.places[self.current.get()].shown();
        let missing = error.is::<Missing>();
        failures.missing += usize::from(missing);
        failures.count += 1;
        let said = match missing {
            true => format!("'{place}': '{name}' is not there"),
            false => format!("'{place}': {error:#}"),
        };
        self.progress.detail(&said);
        if !failures.said.contains(&said) {
            failures.said.push(said);
        }
        let many = self.places.len();
        let all = failures.count.is_multiple_of(many);
        if failures.missing == failures.count && failures.count == many {
            return Err(Missing(failures.said.join("\n")).into());
        }
        if failures.count == many * ROUNDS {
            bail!("getting '{name}': {}", failures.said.join("\n"));
        }
        self.current.set((self.current.get() + 1) % many);
        if many > 1 {
            let next = self.places[self.current.get()].shown();
            self.progress.say(&format!("{}; going on with '{next}'", failures.said.last().map_or("", |s| s)));
        }
        if all {
            let round = (failures.count / many) as u32;
            std::thread::sleep(PAUSE * (1 << (round - 1).min(4)));
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Failures {
    count: usize,
    missing: usize,
    said: Vec<String>,
}

impl std::fmt::Debug for Mirrors<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}
