//! Files of an archive, handed out to several threads: each file to one of them, all of it and in order.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context, Error, Result, anyhow, bail};

use super::ahead::READING;
use super::judge::Judge;
use super::manifest::Manifest;
use super::stream::{Hear, Piece, Told};

/// Small files are handed over together, about so many bytes, or so many files. A guess at what makes handing over cheap.
const BATCH_BYTES: u64 = 256 << 10;
const BATCH_FILES: usize = 64;
/// What a file counts for beside its bytes, when threads are to have as much to do as each other: making one takes as long as
/// writing so many bytes.
const FILE_BYTES: u64 = 32 << 10;
/// How many batches wait for a thread at most. What they hold of unpacked frames is bounded elsewhere.
const WAITING: usize = 256;

/// What a thread is to do, and how many batches were handed out before.
struct Batch {
    number: u64,
    told: Vec<Told>,
    load: u64,
}

/// Handing out, from the thread that reads.
struct Hands<'a> {
    workers: Vec<(SyncSender<Batch>, &'a AtomicU64)>,
    failed: &'a AtomicBool,
    batch: Batch,
    /// Who gets it.
    to: usize,
    /// Whether its last file goes on, and whether its first one was begun in an earlier batch.
    inside: bool,
    began_inside: bool,
}

/// Lets `tell` tell, and each of `sinks` hear its share in a thread of its own, checked. Returns when all have ended. Of several
/// errors it is the one that came first in the archive.
pub(super) fn share<S>(
    manifest: &Manifest,
    salvages: bool,
    sinks: &mut [S],
    tell: impl FnOnce(Hear<'_>) -> Result<()>,
) -> Result<()>
where
    S: FnMut(Piece<'_>) -> Result<()> + Send,
{
    let loads: Vec<AtomicU64> = sinks.iter().map(|_| AtomicU64::new(0)).collect();
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        let mut threads = Vec::new();
        for (sink, load) in sinks.iter_mut().zip(&loads) {
            let (give, take) = sync_channel(WAITING);
            workers.push((give, load));
            let (judge, failed) = (Judge::new(manifest, salvages), &failed);
            threads.push(scope.spawn(move || {
                let worked = work(&take, load, judge, sink);
                failed.fetch_or(worked.is_err(), Ordering::Relaxed);
                worked
            }));
        }
        let batch = Batch { number: 0, told: Vec::new(), load: 0 };
        let mut hands = Hands { workers, failed: &failed, batch, to: 0, inside: false, began_inside: false };
        let told = tell(&mut |told| hands.put(told));
        // What is wrong with what was told came before whatever ended the telling, and so they all hear it out.
        let told = told.and(hands.flush());
        drop(hands);
        let ends = threads.into_iter().map(|thread| match thread.join() {
            Ok(worked) => worked,
            Err(_) => Err((u64::MAX, anyhow!("{READING}: a thread has died"))),
        });
        match ends.filter_map(Result::err).min_by_key(|(number, _)| *number) {
            Some((_, error)) => Err(error),
            None => told,
        }
    })
}

fn work<S>(
    batches: &Receiver<Batch>,
    load: &AtomicU64,
    mut judge: Judge<'_>,
    sink: &mut S,
) -> Result<(), (u64, Error)>
where
    S: FnMut(Piece<'_>) -> Result<()>,
{
    for batch in batches {
        let hear = || {
            for told in batch.told {
                if crate::progress::interrupted() {
                    bail!("interrupted");
                }
                judge.hear(told, sink).context(READING)?;
            }
            Ok(())
        };
        hear().map_err(|error| (batch.number, error))?;
        load.fetch_sub(batch.load, Ordering::Relaxed);
    }
    Ok(())
}

impl Hands<'_> {
    fn put(&mut self, told: Told) -> Result<()> {
        let (len, goes_on) = match &told {
            Told::Data { bytes, .. } => (bytes.len() as u64, true),
            Told::End { .. } | Told::Lost { .. } => (FILE_BYTES, false),
            // What is not handed over holds its frame, and while all that there is room for are held no other comes.
            Told::Pause => return self.flush(),
        };
        if self.batch.told.is_empty() {
            self.began_inside = self.inside;
            if !self.inside {
                let loads = self.workers.iter().map(|(_, load)| load.load(Ordering::Relaxed));
                self.to = loads.enumerate().min_by_key(|(_, load)| *load).map_or(0, |(number, _)| number);
            }
        }
        self.inside = goes_on;
        self.batch.told.push(told);
        self.batch.load += len;
        let is_full = self.batch.load >= BATCH_BYTES || self.batch.told.len() >= BATCH_FILES;
        // Whoever has had a long file is not the one to get what comes behind it, if another has less to do.
        let has_ended = self.began_inside && !goes_on;
        if is_full || has_ended { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.batch.told.is_empty() {
            return Ok(());
        }
        let next = Batch { number: self.batch.number + 1, told: Vec::new(), load: 0 };
        let batch = std::mem::replace(&mut self.batch, next);
        let (give, load) = &self.workers[self.to];
        load.fetch_add(batch.load, Ordering::Relaxed);
        if self.failed.load(Ordering::Relaxed) || give.send(batch).is_err() {
            bail!("a thread has ended");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
