//! Frames of an archive, fetched and unpacked by threads ahead of whoever uses them.

use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::buffers::{Buffer, Shelf};
use super::frames::{Fetched, FrameReader, Label, Unpacker};
use super::pool::{self, Gone, Output};

/// How many frames are held unpacked, by all threads together: with more nothing was done sooner. Of a hostile archive none is longer
/// than the limits say.
const HELD: usize = 3;
/// More threads would wait for whoever uses what they unpack.
const MOST_WORKERS: usize = 2;
/// How often an interruption is looked for while nothing comes.
const LOOK: Duration = Duration::from_millis(200);

/// What is being done, in messages.
pub(super) const READING: &str = "reading the archive";

/// What comes next.
#[derive(Debug)]
pub(super) enum Frame {
    /// A frame, or why it cannot be unpacked.
    Unpacked(Label, Result<Buffer>),
    /// Bytes that are no frame.
    Damage(String),
}

/// Its threads end when it is dropped, or with the input; one that waits for a pipe which gives nothing is left to that.
#[derive(Debug)]
pub(super) struct Ahead(Output<Result<Frame>>);

/// A frame still packed, and where it goes to.
type Job = (Result<Fetched>, Option<Buffer>);

impl Ahead {
    /// All frames that are still to come.
    pub(super) fn start(mut frames: FrameReader) -> Self {
        let workers = std::thread::available_parallelism().map_or(MOST_WORKERS, usize::from);
        let compression = frames.compression();
        let (spent, spares) = channel();
        let make = move || {
            let (mut unpacker, spent) = (Unpacker::new(compression), spent.clone());
            move |(fetched, buffer): Job| match (fetched?, buffer, &mut unpacker) {
                (Fetched::Damage(why), ..) => Ok(Frame::Damage(why)),
                (Fetched::Frame(label, packed), Some(mut buffer), Ok(unpacker)) => {
                    let unpacked = unpacker.unpack_into(&label, &packed, &mut buffer);
                    // Where nothing more is fetched nobody wants it.
                    let _ = spent.send(packed);
                    Ok(Frame::Unpacked(label, unpacked.map(|()| buffer)))
                }
                (_, _, Err(error)) => Err(anyhow!("{error:#}")),
                (_, None, _) => bail!("there is no room for a frame"),
            }
        };
        let (input, output) = pool::start(workers.clamp(1, MOST_WORKERS), HELD, make);
        std::thread::spawn(move || {
            let shelf = Shelf::new(HELD);
            while let Some(fetched) = frames.fetch().transpose() {
                if let Ok(spare) = spares.try_recv() {
                    frames.reuse(spare);
                }
                // Taken in the order of the frames: the frame that is waited for never waits for those behind it.
                let buffer = match &fetched {
                    Ok(Fetched::Frame(label, _)) => Some(shelf.take(label.plain as usize)),
                    _ => None,
                };
                let is_last = fetched.is_err();
                if input.put((fetched, buffer)).is_err() || is_last {
                    return;
                }
            }
        });
        Self(output)
    }

    /// The next frame, `None` after the last. An interruption is an error.
    pub(super) fn next(&self) -> Result<Option<Frame>> {
        loop {
            let taken = self.0.take_within(LOOK);
            if crate::progress::interrupted() {
                bail!("interrupted");
            }
            return match taken {
                Ok(Some(Ok(frame))) => frame.context(READING).map(Some),
                Ok(Some(Err(Gone))) => bail!("{READING}: a thread has died"),
                Ok(None) => Ok(None),
                Err(Gone) => continue,
            };
        }
    }
}
