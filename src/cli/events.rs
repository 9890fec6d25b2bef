//! `gridgate events`: what happened, and what happens.

use std::io::{ErrorKind, Write, stdout};
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use serde::Serialize;

use super::{Context, Exit};
use crate::events::{Event, Item, Reader, Token};
use crate::names::GuestName;
use crate::progress::{catch_interrupts, interrupted};

/// Show what happened to guests: started, ready, stopped, limits changed, ...
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "With --json each event is one line. It carries a token; --since TOKEN goes on after it, also in a\n\
                        later call. If what came after it is not kept any more, a line with the event \"dropped\" says so."
)]
pub struct Args {
    /// Guests to tell of; all if none is named
    #[arg(value_name = "GUEST")]
    pub guests: Vec<GuestName>,
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Go on after this event
    #[arg(long, value_name = "TOKEN")]
    pub since: Option<Token>,
    /// Leave out what has happened already
    #[arg(long, conflicts_with = "since", requires = "follow")]
    pub new: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    version: u32,
    token: String,
    #[serde(flatten)]
    event: &'a Event,
}

#[derive(Serialize)]
struct Dropped {
    version: u32,
    event: &'static str,
}

/// Prints one line an event. A follower that is ended by Ctrl-C, or by a reader that has gone away, is done.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    let path = context.paths.events();
    let what = || format!("reading the site's events in '{}'", path.display());
    let mut reader = Reader::new(&path, args.since);
    if args.new {
        reader.skip().with_context(what)?;
    }
    catch_interrupts()?;
    let changes =
        if args.follow { Some(Changes::of(&context.paths.state).with_context(what)?) } else { None };
    let mut out = stdout().lock();
    while !interrupted() {
        let mut text = String::new();
        while let Some(item) = reader.read().with_context(what)? {
            tell(&mut text, &item, args, context)?;
        }
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            other => other?,
        }
        let Some(changes) = &changes else { break };
        changes.wait();
    }
    Ok(Exit::Done)
}

fn tell(text: &mut String, item: &Item, args: &Args, context: &Context) -> Result<()> {
    let line = match item {
        Item::Event(event, _) if !args.guests.is_empty() && !args.guests.contains(&event.guest) => {
            return Ok(());
        }
        Item::Event(event, token) if context.json => {
            serde_json::to_string(&Line { version: 1, token: token.to_string(), event })?
        }
        Item::Event(event, _) => format!("{}  {}: {}", clock(event.at_ms), event.guest, event.what),
        Item::Dropped if context.json => serde_json::to_string(&Dropped { version: 1, event: "dropped" })?,
        Item::Dropped => "(events that are not kept any more)".to_owned(),
    };
    text.push_str(&line);
    text.push('\n');
    Ok(())
}

/// In the reader's own time zone.
fn clock(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    match at {
        Some(at) => at.to_zoned(jiff::tz::TimeZone::system()).strftime("%F %T").to_string(),
        None => format!("{at_ms} ms"),
    }
}

/// Something in the state directory was written, made or renamed (inotify(7)).
struct Changes(rustix::fd::OwnedFd);

impl Changes {
    fn of(dir: &Path) -> Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let fd = inotify::init(flags)?;
        let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, dir, what)?;
        Ok(Self(fd))
    }

    /// Until there is a change, or a signal; a minute at most, should a change have been missed.
    fn wait(&self) {
        let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&minute));
        let mut buffer = [0; 4096];
        while rustix::io::read(&self.0, &mut buffer).is_ok_and(|got| got > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_can_be_told() {
        assert_eq!(clock(0).len(), "1970-01-01 00:00:00".len());
        assert_eq!(clock(u64::MAX), format!("{} ms", u64::MAX));
    }
}
