//! The log of a console, printed: by boot, by time, by what its lines say.

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result};
use regex::bytes::Regex;

use crate::console::exit::told;
use crate::console::logread::{self, At, Boot, Event, Marker, Segment, read_at};
use crate::console::protocol::Position;
use crate::console::select::Picker;
use crate::console::times::{Window, ranges};
use crate::console::when::local;
use crate::names::{BadName, Bytes, GuestName};
use crate::paths::Paths;

/// Which boots are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// One, as [`logread::resolve`] counts.
    One(i64),
    /// All that the log has.
    All,
}

impl FromStr for Which {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        match text {
            "all" => Ok(Self::All),
            text => text.parse().map(Self::One).map_err(|_| {
                BadName("must be a boot's number, -1 for the one before the last, or all".to_owned())
            }),
        }
    }
}

/// What is wanted of a log.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Of these boots,
    pub boots: Which,
    /// what was said then,
    pub window: Window,
    /// the lines that match,
    pub pattern: Option<Regex>,
    /// without any escape sequence taken out.
    pub raw: bool,
}

/// What was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Printed {
    /// Bytes or, with a pattern, lines.
    pub picked: u64,
    /// Where the newest of the boots ended just now.
    pub end: Position,
}

/// Prints what is wanted of a guest's log to `out`, and tells `say` what is not there any more. Of several boots each is
/// headed by a line that says when it began; raw output has no such lines. Nobody reading any more is a normal end.
pub fn print_log(
    paths: &Paths,
    guest: &GuestName,
    selection: &Selection,
    out: &mut impl Write,
    say: &mut dyn FnMut(&str),
) -> Result<Printed> {
    let dir = paths.console(guest);
    let boots = logread::boots(&dir);
    let wanted: Vec<&Boot> = match selection.boots {
        Which::All => boots.iter().collect(),
        Which::One(which) => {
            let number = logread::resolve(&dir, which);
            let boot = boots.iter().find(|b| Some(b.number) == number);
            vec![boot.with_context(|| no_such_boot(&boots, guest, which))?]
        }
    };
    if wanted.is_empty() {
        anyhow::bail!("{}", no_such_boot(&boots, guest, 0));
    }
    let first = wanted[0];
    let asked_before = |begun: u64| selection.window.since_s.is_none_or(|since| since < begun / 1000);
    if (first.first > 0 || (first.number > 1 && selection.boots == Which::All))
        && first.started_at_ms.is_none_or(asked_before)
    {
        say(&format!("what was said before is not in the log any more: it keeps the last {}", kept(&boots)));
    }
    let mut printer = Printer {
        dir: &dir,
        segments: logread::segments(&dir),
        markers: logread::markers(&dir),
        several: selection.boots == Which::All && !selection.raw,
        whole: selection.window.is_open() && selection.pattern.is_none(),
        picker: Picker::new(selection.pattern.clone(), selection.raw),
        window: selection.window,
        headed: false,
        fresh_line: true,
        out,
    };
    for boot in &wanted {
        match printer.boot(boot, say) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => break,
            Err(e) => return Err(e).context("printing"),
        }
    }
    let picked = printer.picker.picked();
    if picked == 0 && !printer.whole {
        let matching = if selection.pattern.is_some() { " that matches" } else { "" };
        let then = if selection.window.is_open() { "" } else { " at that time" };
        say(&format!("{guest} said nothing{then}{matching}"));
    } else if picked == 0 && printer.whole && !printer.several && first.ended.is_some() {
        say(&format!("boot {} said nothing, or it is not in the log any more", first.number));
    }
    let end = wanted.last().map_or(0, |b| b.number);
    let end = Position { boot: end, offset: wanted.last().map_or(0, |b| b.end) };
    Ok(Printed { picked, end })
}

/// Prints what a boot said from there on, of a guest that ended before it could be followed.
pub fn print_rest(
    paths: &Paths,
    guest: &GuestName,
    from: Position,
    selection: &Selection,
    out: &mut impl Write,
) -> Result<()> {
    let dir = paths.console(guest);
    let segments = logread::segments(&dir);
    let mut picker = Picker::new(selection.pattern.clone(), selection.raw);
    let (mut buffer, mut shown, mut offset) = (vec![0; 32 << 10], Vec::new(), from.offset);
    loop {
        match read_at(&dir, &segments, from.boot, offset, &mut buffer) {
            At::Bytes(n) => {
                picker.push(&buffer[..n], &mut shown);
                offset += n as u64;
            }
            At::Skip(to) => offset = to,
            At::End => break,
        }
    }
    picker.finish(&mut shown);
    match out.write_all(&shown).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("printing"),
    }
}

fn kept(boots: &[Boot]) -> String {
    let bytes = Bytes(boots.iter().map(|b| b.bytes).sum());
    format!("{bytes}, of boots {} to {}", boots[0].number, boots[boots.len() - 1].number)
}

struct Printer<'a, W: Write> {
    dir: &'a Path,
    segments: Vec<Segment>,
    markers: Vec<Marker>,
    /// Boots are told apart.
    several: bool,
    /// Nothing is left out.
    whole: bool,
    picker: Picker,
    window: Window,
    headed: bool,
    fresh_line: bool,
    out: &'a mut W,
}

impl<W: Write> Printer<'_, W> {
    fn boot(&mut self, boot: &Boot, say: &mut dyn FnMut(&str)) -> std::io::Result<()> {
        self.headed = !self.several;
        if self.whole {
            self.head(boot)?;
        }
        let begun_s = boot.started_at_ms.unwrap_or(0) / 1000;
        let parts = match self.window.is_open() {
            true => std::iter::once(boot.first..boot.end).collect(),
            false => ranges(self.dir, &self.segments, boot.number, begun_s, self.window),
        };
        for part in parts {
            self.part(boot, part, say)?;
        }
        if self.several && self.whole {
            self.tail(boot)?;
        }
        self.out.flush()
    }

    /// From the first line that begins in this part to the end of the last one that does.
    fn part(&mut self, boot: &Boot, part: Range<u64>, say: &mut dyn FnMut(&str)) -> std::io::Result<()> {
        let mut before = [b'\n'];
        if part.start > boot.first {
            let _ = read_at(self.dir, &self.segments, boot.number, part.start - 1, &mut before);
        }
        let (mut buffer, mut shown, mut offset) = (vec![0; 32 << 10], Vec::new(), part.start);
        self.picker.jump(before != *b"\n", &mut shown);
        let mut last = b'\n';
        loop {
            let inside = offset < part.end;
            if !inside && (last == b'\n' || offset >= boot.end) {
                break;
            }
            let end = if inside { part.end } else { boot.end };
            let room = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
            match read_at(self.dir, &self.segments, boot.number, offset, &mut buffer[..room]) {
                At::Bytes(n) => {
                    let line = buffer[..n].iter().position(|b| *b == b'\n').map_or(n, |at| at + 1);
                    let n = if inside { n } else { line };
                    offset += n as u64;
                    last = buffer[n - 1];
                    self.picker.push(&buffer[..n], &mut shown);
                }
                At::Skip(to) if inside => {
                    say(&format!("{} bytes of boot {} are lost here", to - offset, boot.number));
                    offset = to;
                }
                At::Skip(_) | At::End => break,
            }
            self.print(boot, &mut shown)?;
        }
        self.picker.finish(&mut shown);
        self.print(boot, &mut shown)
    }

    fn print(&mut self, boot: &Boot, shown: &mut Vec<u8>) -> std::io::Result<()> {
        if let Some(last) = shown.last().copied() {
            self.head(boot)?;
            self.out.write_all(shown)?;
            self.fresh_line = last == b'\n';
        }
        shown.clear();
        Ok(())
    }

    fn head(&mut self, boot: &Boot) -> std::io::Result<()> {
        if std::mem::replace(&mut self.headed, true) {
            return Ok(());
        }
        let pid = self.markers.iter().find_map(|m| match m.event {
            Event::Started { pid, .. } if m.boot == boot.number => Some(pid),
            _ => None,
        });
        let when = boot.started_at_ms.map_or_else(|| "at an unknown time".to_owned(), local);
        let process = pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
        self.mark(&format!("-- boot {}: {when}{process} --", boot.number))
    }

    fn tail(&mut self, boot: &Boot) -> std::io::Result<()> {
        let Some(ended) = &boot.ended else { return Ok(()) };
        let how = match &ended.event {
            Event::Ended { cause, code } => told(*cause, *code),
            _ => "rebooted".to_owned(),
        };
        self.mark(&format!("-- end of boot {}: {}, {how} --", boot.number, local(ended.at_ms)))
    }

    fn mark(&mut self, text: &str) -> std::io::Result<()> {
        let before = if std::mem::replace(&mut self.fresh_line, true) { "" } else { "\n" };
        writeln!(self.out, "{before}{text}")
    }
}

fn no_such_boot(boots: &[Boot], guest: &GuestName, which: i64) -> String {
    let (Some(first), Some(last)) = (boots.first(), boots.last()) else {
        return format!("guest '{guest}' has never been started, so there is no log of it");
    };
    let there = format!("there are {} to {}", first.number, last.number);
    let boot = if which > 0 { which } else { i64::from(last.number) + which };
    match boot {
        1.. if boot < i64::from(first.number) => {
            format!("boot {boot} of guest '{guest}' is not in its log any more: it was rotated away; {there}")
        }
        _ => format!("guest '{guest}' has no such boot in its log; {there}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::log::Log;
    use crate::console::record::Cause;
    use proptest::prelude::*;

    /// Two boots of a guest whose clock jumped back, and what is printed of them.
    struct Site {
        _state: tempfile::TempDir,
        paths: Paths,
        guest: GuestName,
    }

    impl Site {
        fn new() -> Self {
            let state = tempfile::tempdir().unwrap();
            let paths = Paths::new(state.path(), state.path());
            let site = Self { _state: state, paths, guest: "ce".parse().unwrap() };
            let mut log = Log::open(&site.dir(), 1 << 20);
            log.begin_boot(7, 70);
            log.append(b"one\r\ntwo\r\nlogin: ");
            log.mark(Event::Ended { cause: Cause::Exit, code: Some(0) });
            log.begin_boot(8, 80);
            log.append(b"three\r\nKernel panic\r\n");
            site
        }

        fn dir(&self) -> std::path::PathBuf {
            self.paths.console(&self.guest)
        }

        fn print(&self, selection: &Selection) -> (String, Vec<String>, Printed) {
            let (mut out, mut said) = (Vec::new(), Vec::new());
            let printed = print_log(&self.paths, &self.guest, selection, &mut out, &mut |text| {
                said.push(text.to_owned())
            });
            (String::from_utf8(out).unwrap(), said, printed.unwrap())
        }

        fn refused(&self, boots: Which) -> String {
            let selection = Selection { boots, ..all() };
            print_log(&self.paths, &self.guest, &selection, &mut Vec::new(), &mut |_| ())
                .unwrap_err()
                .to_string()
        }

        /// Says that the byte at this offset of this boot, and what follows, came then.
        fn stamp(&self, boot: u32, stamps: &[(u64, u64)]) {
            let bytes: Vec<u8> =
                stamps.iter().flat_map(|(o, s)| [o.to_le_bytes(), s.to_le_bytes()].concat()).collect();
            let segments = logread::segments(&self.dir());
            let segment = segments.iter().find(|s| s.boot == boot).unwrap();
            std::fs::write(segment.index_path(&self.dir()), bytes).unwrap();
        }
    }

    fn all() -> Selection {
        Selection { boots: Which::All, window: Window::default(), pattern: None, raw: false }
    }

    /// Without what differs from run to run.
    fn marks(text: &str) -> String {
        let lines = text.split_inclusive('\n').map(|line| match line.strip_prefix("-- ") {
            Some(mark) => format!("-- {}\n", mark.split(':').next().unwrap()),
            None => line.to_owned(),
        });
        lines.collect()
    }

    #[test]
    fn all_boots_are_printed_with_their_beginnings_and_ends() {
        let (text, said, printed) = Site::new().print(&all());
        let want = "-- boot 1\none\r\ntwo\r\nlogin: \n-- end of boot 1\n-- boot 2\nthree\r\nKernel panic\r\n";
        assert_eq!(marks(&text), want);
        assert!(text.contains(", process 7 --\n") && text.contains(", exit 0 --\n"), "{text}");
        assert_eq!(said, Vec::<String>::new());
        assert_eq!(printed.end, Position { boot: 2, offset: 21 });
    }

    #[test]
    fn lines_that_match_are_printed_under_their_boot() {
        let site = Site::new();
        let pattern = Some(Regex::new("panic").unwrap());
        let (text, _, printed) = site.print(&Selection { pattern, ..all() });
        assert_eq!((marks(&text).as_str(), printed.picked), ("-- boot 2\nKernel panic\r\n", 1));
        let pattern = Some(Regex::new("oops").unwrap());
        let (text, said, printed) = site.print(&Selection { pattern, ..all() });
        assert_eq!(
            (text.as_str(), said, printed.picked),
            ("", vec!["ce said nothing that matches".to_owned()], 0)
        );
    }

    #[test]
    fn a_line_counts_to_the_second_in_which_it_began() {
        let site = Site::new();
        // "one" at 100 s, the end of "two" at 200 s, then the clock jumps back.
        site.stamp(1, &[(0, 100), (7, 200), (10, 150)]);
        site.stamp(2, &[(0, 300)]);
        let at = |since, until| {
            let window = Window { since_s: Some(since), until_s: Some(until) };
            marks(&site.print(&Selection { window, ..all() }).0)
        };
        assert_eq!(at(100, 100), "-- boot 1\none\r\ntwo\r\n");
        assert_eq!(at(200, 200), "");
        assert_eq!(at(150, 150), "-- boot 1\nlogin: ");
        assert_eq!(at(300, 400), "-- boot 2\nthree\r\nKernel panic\r\n");
    }

    #[test]
    fn a_boot_that_is_not_there_is_told_from_one_that_is_gone() {
        let site = Site::new();
        assert_eq!(site.refused(Which::One(9)), "guest 'ce' has no such boot in its log; there are 1 to 2");
        let dir = site.dir();
        let first = logread::segments(&dir)[0];
        std::fs::remove_file(first.path(&dir)).unwrap();
        let markers = std::fs::read_to_string(logread::index_path(&dir)).unwrap();
        let newer: String = markers.split_inclusive('\n').filter(|l| l.contains("\"boot\":2")).collect();
        std::fs::write(logread::index_path(&dir), newer).unwrap();
        let gone = "boot 1 of guest 'ce' is not in its log any more: it was rotated away; there are 2 to 2";
        assert_eq!(site.refused(Which::One(1)), gone);
        assert_eq!(site.refused(Which::One(-1)), gone);
        let (_, said, _) = site.print(&all());
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("what was said before is not in the log any more"), "{said:?}");
    }

    #[test]
    fn a_boot_is_chosen_as_people_count() {
        assert_eq!("-1".parse(), Ok(Which::One(-1)));
        assert_eq!("all".parse(), Ok(Which::All));
        assert!("last".parse::<Which>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_boot_or_refused(text in "\\PC{0,12}") {
            let _ = text.parse::<Which>();
        }

        #[test]
        fn what_was_said_then_is_whole_lines_whatever_the_index(
            stamps in prop::collection::vec((0u64..20, 0u64..20), 0..8), since in 0u64..20, until in 0u64..20,
        ) {
            let site = Site::new();
            site.stamp(1, &stamps);
            let window = Window { since_s: Some(since), until_s: Some(until) };
            let (text, _, _) = site.print(&Selection { window, boots: Which::One(1), ..all() });
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            prop_assert!(lines.iter().all(|l| ["one\r\n", "two\r\n", "login: "].contains(l)), "{:?}", lines);
        }
    }
}
