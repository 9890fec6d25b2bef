//! Work that several threads share and whose results come in the order in which it was given.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

/// Where work is put. Its end is the end of the work.
#[derive(Debug)]
pub struct Input<J, R> {
    order: SyncSender<Receiver<R>>,
    jobs: SyncSender<(J, SyncSender<R>)>,
}

/// Where results come from.
#[derive(Debug)]
pub struct Output<R> {
    order: Receiver<Receiver<R>>,
}

/// Nobody takes results any more, or gives work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// Starts the threads; each makes itself what it works with, and ends when all work is done or nobody wants the results. At most
/// `depth` pieces of work, and their results, are held at a time besides the one that is being put in and the one that was taken.
pub fn start<J, R, W>(workers: usize, depth: usize, make: impl Fn() -> W) -> (Input<J, R>, Output<R>)
where
    J: Send + 'static,
    R: Send + 'static,
    W: FnMut(J) -> R + Send + 'static,
{
    let (order, ordered) = sync_channel(depth.saturating_sub(1));
    let (jobs, queue) = sync_channel::<(J, SyncSender<R>)>(depth);
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..workers {
        let (queue, mut work) = (Arc::clone(&queue), make());
        std::thread::spawn(move || {
            loop {
                // A thread that panicked held no lock: the work is done outside of it.
                let Ok(next) = queue.lock().map(|queue| queue.recv()) else { return };
                let Ok((job, done)) = next else { return };
                // Whoever waited for it may have given up.
                let _ = done.send(work(job));
            }
        });
    }
    (Input { order, jobs }, Output { order: ordered })
}

impl<J, R> Input<J, R> {
    /// Waits while there is too much to do.
    pub fn put(&self, job: J) -> Result<(), Gone> {
        let (done, result) = sync_channel(1);
        self.order.send(result).map_err(|_| Gone)?;
        self.jobs.send((job, done)).map_err(|_| Gone)
    }
}

impl<R> Output<R> {
    /// The next result; `None` when all work is done, and `Some(Err(Gone))` where a thread has died of its work.
    pub fn take(&self) -> Option<Result<R, Gone>> {
        let result = self.order.recv().ok()?;
        Some(result.recv().map_err(|_| Gone))
    }

    /// As [`Output::take`]; `Err` after that time without one.
    pub fn take_within(&self, time: std::time::Duration) -> Result<Option<Result<R, Gone>>, Gone> {
        use std::sync::mpsc::RecvTimeoutError;
        match self.order.recv_timeout(time) {
            Ok(result) => Ok(Some(result.recv().map_err(|_| Gone))),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn results_come_in_the_order_of_the_work() {
        let (input, output) = start(3, 4, || {
            |n: u64| {
                std::thread::sleep(Duration::from_micros(500 * (n % 3)));
                n
            }
        });
        let giver = std::thread::spawn(move || (0..100).all(|n| input.put(n).is_ok()));
        let all: Vec<u64> = std::iter::from_fn(|| output.take()).map(Result::unwrap).collect();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert!(giver.join().unwrap());
    }

    #[test]
    fn work_that_nobody_wants_any_more_is_refused() {
        let (input, output) = start(1, 1, || |n: u64| n);
        drop(output);
        assert!((0..9).any(|n| input.put(n).is_err()));
    }

    #[test]
    fn a_thread_that_dies_is_told_of() {
        let (input, output) = start(1, 3, || |n: u64| if n == 1 { panic!("on purpose") } else { n });
        let _ = (input.put(0), input.put(1));
        assert_eq!((output.take(), output.take()), (Some(Ok(0)), Some(Err(Gone))));
    }
}
