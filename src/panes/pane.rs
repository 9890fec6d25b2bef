//! One guest's console: what it said, how the guest is, how it is connected.

use crate::console::exit::ExitRecord;
use crate::console::now_ms;
use crate::console::protocol::{ConsoleState, Greeting, Kind, Mode, Position};
use crate::names::GuestName;
use crate::report::sentences;
use crate::report::status::{GuestStatus, Observed, Readiness};
use crate::service::desired::Desired;

use super::screen::Screen;
use super::view::{self, View};

/// How a guest's state is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// On its way.
    Busy,
    /// Not as it should be.
    Bad,
    /// Not there, and nobody wants it.
    Idle,
}

/// The connection to the console holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// There is none.
    None,
    /// It was asked for.
    Asked(Mode),
    /// It is there, with what was granted.
    Open(Mode),
}

/// What a frame brought that concerns more than its pane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Output, or nothing.
    None,
    /// A line for the user.
    Said(String),
    /// Somebody else writes now.
    Lost,
    /// The guest has ended.
    Ended(String),
}

/// A guest's pane.
#[derive(Debug)]
pub struct Pane {
    /// Whose it is.
    pub name: GuestName,
    /// Its state in a word, and how it ended if it did.
    pub state: String,
    /// How to take that.
    pub tone: Tone,
    /// Who writes there.
    pub writer: Option<String>,
    /// Its terminal.
    pub screen: Screen,
    /// What it says next stands there.
    pub at: Option<Position>,
    /// The connection.
    pub link: Link,
    /// It said something since its user looked.
    pub unseen: bool,
    /// Number behind the last row that is shown, if that is not what the guest says now.
    pub scrolled: Option<u64>,
    /// First row of the line that was found last.
    pub hit: Option<u64>,
    /// Its process is there.
    pub running: bool,
    /// Its log has more than what was ever shown here.
    pub begins_late: bool,
    /// Its end is shown; nothing more is to come of this boot.
    pub end_shown: bool,
    /// What it had said when it was first looked at is no news.
    pub old_until: Option<Position>,
    /// Of output that begins in the middle, the first line is left out.
    cut_first_line: bool,
    /// Its terminal hears of a window's size.
    hears_size: bool,
}

impl Pane {
    /// A guest that nothing is known of.
    pub fn new(name: GuestName) -> Self {
        Self {
            name,
            state: String::new(),
            tone: Tone::Idle,
            writer: None,
            screen: Screen::default(),
            at: None,
            link: Link::None,
            unseen: false,
            scrolled: None,
            hit: None,
            running: false,
            begins_late: false,
            end_shown: false,
            old_until: None,
            cut_first_line: false,
            hears_size: false,
        }
    }

    /// Takes over what `status` and the holder say.
    pub fn looked(&mut self, status: &GuestStatus, console: Option<&ConsoleState>) {
        self.running = status.observed == Observed::Running;
        self.state = sentences::state(status).to_owned();
        if status.observed == Observed::Stopped {
            let next_try = status.restarts.as_ref().filter(|restarts| restarts.next_try_ms.is_some());
            let next_try = next_try.map(|r| format!("{} s", r.wait(now_ms()).as_millis().div_ceil(1000)));
            let why = status.last_exit.as_ref().map(ExitRecord::why).filter(|why| why != "ended");
            let told: Vec<String> = next_try.into_iter().chain(why).collect();
            if !told.is_empty() {
                self.state = format!("{} ({})", self.state, told.join(", "));
            }
        }
        self.tone = match (status.ready, status.desired) {
            (Readiness::Ready, _) => Tone::Good,
            (Readiness::Waiting, _) => Tone::Busy,
            (Readiness::Degraded, _) | (Readiness::No, Desired::Running) => Tone::Bad,
            (Readiness::No, Desired::Stopped) => Tone::Idle,
        };
        self.writer = console.and_then(|console| console.writer.clone());
    }

    /// A connection is there; gives the mode that was asked for.
    pub fn greeted(&mut self, greeting: &Greeting) -> Mode {
        let asked = if let Link::Asked(mode) = self.link { mode } else { Mode::Read };
        let console = &greeting.console;
        self.link = Link::Open(greeting.mode);
        self.writer = console.writer.clone();
        self.end_shown = false;
        // An emulated serial line carries bytes only.
        self.hears_size = console.backend != "qemu";
        self.old_until.get_or_insert(Position { boot: console.boot, offset: console.output_bytes });
        asked
    }

    /// Gives the guest's terminal that size; true if the guest is to be told.
    pub fn resize(&mut self, columns: u16, rows: u16) -> bool {
        let news =
            self.hears_size && self.link == Link::Open(Mode::Write) && self.screen.size() != (rows, columns);
        if news {
            self.screen.resize(rows, columns);
        }
        news
    }

    /// Where to go on reading: where it was, if that is not too far back. At first there is `tail` bytes of what was said.
    pub fn resume_at(&self, console: &ConsoleState, tail: u64) -> Position {
        let recent = Position { boot: console.boot, offset: console.output_bytes.saturating_sub(tail) };
        match self.at {
            Some(at) if at.boot == console.boot => at.max(recent),
            _ => recent,
        }
    }

    /// A frame of the holder's.
    pub fn frame(&mut self, kind: Kind, payload: &[u8]) -> News {
        match kind {
            Kind::Replay | Kind::Live => self.output(payload),
            Kind::Position => {
                if let Ok(at) = serde_json::from_slice(payload) {
                    self.position(at);
                }
            }
            Kind::Mode => {
                let mode = serde_json::from_slice(payload).unwrap_or(Mode::Read);
                let lost = self.link == Link::Open(Mode::Write) && mode == Mode::Read;
                self.link = Link::Open(mode);
                return if lost { News::Lost } else { News::None };
            }
            Kind::Notice => return self.notice(&String::from_utf8_lossy(payload)),
            Kind::Exit => {
                self.link = Link::None;
                let exit: Option<ExitRecord> = serde_json::from_slice(payload).ok();
                return News::Ended(self.ended(exit.as_ref()));
            }
            Kind::Input | Kind::Resize | Kind::Detach => {}
        }
        News::None
    }

    /// What the guest said.
    pub fn output(&mut self, mut bytes: &[u8]) {
        if let Some(at) = &mut self.at {
            at.offset += bytes.len() as u64;
        }
        if self.cut_first_line {
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
            bytes = &bytes[end + 1..];
            self.cut_first_line = false;
        }
        if !bytes.is_empty() {
            self.screen.feed(bytes);
            self.unseen |= self.old_until.is_none_or(|old| self.at.is_none_or(|at| at > old));
        }
    }

    /// The next output stands there; if that is not where the last one ended, a line says so.
    pub fn position(&mut self, at: Position) {
        let was = self.at.replace(at);
        self.cut_first_line = false;
        match was {
            Some(was) if was == at => return,
            Some(was) if was.boot == at.boot => {
                let skipped = at.offset.saturating_sub(was.offset);
                self.screen.remark(&format!("{skipped} bytes skipped; the log has them"));
                self.cut_first_line = at.offset > 0;
                return;
            }
            Some(_) => {
                self.screen.restart();
                self.screen.remark(&format!("boot {}", at.boot));
            }
            None => {}
        }
        self.end_shown = false;
        if at.offset > 0 {
            self.begins_late = was.is_none();
            self.cut_first_line = true;
        }
    }

    fn notice(&mut self, text: &str) -> News {
        // A position follows the first two, and a mode or a greeting goes with the third; they say the same.
        if text.ends_with(" bytes skipped") || text.starts_with("boot ") || text.contains("you are reading") {
            return News::None;
        }
        if text.starts_with("guest ") {
            self.screen.remark(text);
            self.unseen = true;
            return News::None;
        }
        News::Said(format!("{}: {text}", self.name))
    }

    /// The guest has ended; what is said about that.
    pub fn ended(&mut self, exit: Option<&ExitRecord>) -> String {
        let how = exit.map_or_else(|| "nobody saw how".to_owned(), ExitRecord::how);
        let text = format!("{} is not running any more ({how})", self.name);
        if !self.end_shown {
            self.screen.remark(&text);
            self.unseen = true;
        }
        self.end_shown = true;
        text
    }

    /// What a pane of that size shows.
    pub fn view(&mut self, width: u16, height: u16) -> View {
        view::view(&mut self.screen, width, height, self.scrolled)
    }

    /// Scrolls, as far as there is something.
    pub fn scroll(&mut self, how: Scroll, width: u16, height: u16) {
        // Of a full-screen program there is nothing that came before.
        if self.screen.is_alternate() {
            self.scrolled = None;
            return;
        }
        let now = self.view(width, height);
        self.scrolled = match how {
            Scroll::PageUp => view::page_back(&self.screen, &now).or(self.scrolled),
            Scroll::PageDown => view::page_forward(&mut self.screen, &now, width, height),
            Scroll::Lines(rows) => view::step(&self.screen, &now, rows, height),
            Scroll::Top => view::step(&self.screen, &now, i64::MIN, height),
            Scroll::Live => None,
        };
    }

    /// Looks for a text, from the last hit or from what is shown; true if it is there.
    pub fn search(&mut self, text: &str, older: bool, width: u16, height: u16) -> bool {
        let now = self.view(width, height);
        let from = self.hit.unwrap_or(if older { now.end } else { now.first });
        match view::find(&mut self.screen, text, from, older) {
            Some((start, end)) => {
                self.hit = Some(start);
                let context = u64::from(height / 2);
                let live = view::live_end(&self.screen, usize::from(height));
                self.scrolled = Some(end + context).filter(|end| *end < live);
                true
            }
            None => false,
        }
    }

    /// Rows between what is shown and what the guest says now.
    pub fn rows_back(&self) -> u64 {
        let now = self.screen.screen_row() + u64::from(self.screen.live_rows());
        self.scrolled.map_or(0, |end| now.saturating_sub(end))
    }
}

/// A way to scroll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scroll {
    /// A page back.
    PageUp,
    /// A page forward.
    PageDown,
    /// Rows forward, back if negative.
    Lines(i64),
    /// To the first row that is kept.
    Top,
    /// To what the guest says now.
    Live,
}
