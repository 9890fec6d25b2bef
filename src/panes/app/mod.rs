//! What the panes do: events in, state and wishes out. Nothing here knows a terminal, a socket or the time of day.

#[cfg(test)]
mod tests;
mod typing;

use crate::console::attach::{Break, Escape};
use crate::console::exit::ExitRecord;
use crate::console::protocol::{ConsoleState, Greeting, Kind, Mode, Position};
use crate::report::status::GuestStatus;

use super::keys::Decoder;
use super::layout::{Layout, Place, Size};
use super::pane::{Link, News, Pane};
use super::screen::SMALLEST;

/// Of what a guest has said before, this much is shown at first; it fills the scrollback.
pub const TAIL_BYTES: u64 = 256 << 10;
/// A key's sequence comes whole within this.
const SEQUENCE_MS: u64 = 50;
/// The key that follows a break comes within this.
const REQUEST_MS: u64 = 5000;
/// The key after the escape key comes within this: the escape key again for the guest itself, or one of ours.
const TWICE_MS: u64 = 500;
const MESSAGE_MS: u64 = 8000;

/// What the app wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Connect to a pane's console, in place of its connection before.
    Open {
        /// The pane.
        pane: usize,
        /// To read or to write.
        mode: Mode,
        /// Even if somebody else writes.
        take: bool,
        /// From there on.
        from: Position,
    },
    /// Send a frame.
    Send {
        /// The pane.
        pane: usize,
        /// Of this kind.
        kind: Kind,
        /// With this.
        payload: Vec<u8>,
    },
    /// Read the log, from there on or its end.
    ReadLog {
        /// The pane.
        pane: usize,
        /// From there on; the end of the newest boot if nothing was read before.
        from: Option<Position>,
    },
    /// Send a break, and say what became of it ([`App::broke`]).
    Break {
        /// The pane.
        pane: usize,
    },
    /// Give the guest's kernel a system request.
    Request {
        /// The pane.
        pane: usize,
        /// Its key.
        key: char,
    },
    /// Look how the guests are now, not at the next turn.
    Look,
    /// Draw all anew.
    Redraw,
}

/// Who the keys are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Focus {
    /// The panes.
    Overview,
    /// The focused guest.
    Guest,
    /// A text to look for.
    Search(String),
    /// The help, which any key closes.
    Help,
}

/// How the panes are shown.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nobody types here.
    pub read_only: bool,
    /// The key that leaves a guest.
    pub escape: Escape,
}

/// All of it.
#[derive(Debug)]
pub struct App {
    /// In the site's order.
    pub panes: Vec<Pane>,
    /// The focused one.
    pub focused: usize,
    /// It is shown alone.
    pub zoomed: bool,
    /// Who the keys are for.
    pub focus: Focus,
    /// How the panes are shown.
    pub options: Options,
    /// The user wants to leave.
    pub done: bool,
    /// What was looked for last.
    pub sought: String,
    /// The terminal.
    pub size: Size,
    /// The holder does not answer.
    pub holder_gone: bool,
    message: Option<(String, u64)>,
    wishes: Vec<Wish>,
    decoder: Decoder,
    decoding_since: Option<u64>,
    escaped_at: Option<u64>,
    /// The focused guest's next key is a system request, if it comes in time.
    request_until: Option<u64>,
    digits: Option<(usize, u64)>,
    pasting: bool,
    /// Keys for a guest that is not connected yet.
    queue: Vec<u8>,
    consoles: Vec<ConsoleState>,
}

impl App {
    /// Without guests; [`App::looked`] brings them.
    pub fn new(options: Options, size: Size) -> Self {
        Self {
            panes: Vec::new(),
            focused: 0,
            zoomed: false,
            focus: Focus::Overview,
            options,
            done: false,
            sought: String::new(),
            size,
            holder_gone: false,
            message: None,
            wishes: Vec::new(),
            decoder: Decoder::default(),
            decoding_since: None,
            escaped_at: None,
            request_until: None,
            digits: None,
            pasting: false,
            queue: Vec::new(),
            consoles: Vec::new(),
        }
    }

    /// What is to be done now, in order.
    pub fn take_wishes(&mut self) -> Vec<Wish> {
        std::mem::take(&mut self.wishes)
    }

    /// The line for the user, if there is one.
    pub fn message(&self) -> Option<&str> {
        self.message.as_ref().map(|(text, _)| text.as_str())
    }

    /// Shows its user a line for a while.
    pub fn say(&mut self, text: impl Into<String>, now: u64) {
        self.message = Some((text.into(), now + MESSAGE_MS));
    }

    /// What became of a break.
    pub fn broke(&mut self, sent: Result<Break, String>, now: u64) {
        let text = match sent {
            Ok(Break::Sent) => "break sent; the next key is the system request, h lists them".to_owned(),
            Ok(Break::NextKey) => {
                self.request_until = Some(now + REQUEST_MS);
                "the next key is the system request, h lists them".to_owned()
            }
            Err(why) => format!("no break was sent: {why}"),
        };
        self.say(text, now);
    }

    /// When [`App::tick`] has something to do, in the same milliseconds as every `now`.
    pub fn deadline(&self) -> Option<u64> {
        let decoding = self.decoding_since.map(|since| since + SEQUENCE_MS);
        let escaped = self.escaped_at.map(|at| at + TWICE_MS);
        let message = self.message.as_ref().map(|(_, until)| *until);
        [decoding, escaped, message].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: u64) {
        if self.decoding_since.is_some_and(|since| now >= since + SEQUENCE_MS) {
            self.decoding_since = None;
            for (key, bytes) in self.decoder.flush() {
                self.key(key, &bytes, now);
            }
        }
        if self.escaped_at.is_some_and(|at| now >= at + TWICE_MS) {
            self.leave_guest();
        }
        self.message.take_if(|(_, until)| now >= *until);
    }

    /// Room for the panes: the last row is the app's own.
    pub fn room(&self) -> Size {
        Size { height: self.size.height.saturating_sub(1), ..self.size }
    }

    /// The panes that are on the screen, and where; none if there is no room.
    pub fn places(&self) -> Option<Vec<(usize, Place)>> {
        let room = self.room();
        let layout = Layout::of(self.panes.len(), room)?;
        if self.zoomed && self.focused < self.panes.len() {
            return Some(vec![(self.focused, Place { x: 0, y: 0, width: room.width, height: room.height })]);
        }
        Some(layout.page(layout.page_of(self.focused)))
    }

    /// The page that is shown, counted from 1, and how many there are.
    pub fn page(&self) -> (usize, usize) {
        Layout::of(self.panes.len(), self.room())
            .map_or((1, 1), |layout| (layout.page_of(self.focused) + 1, layout.pages()))
    }

    /// Columns and rows that the focused guest's text has.
    pub fn content(&self) -> (u16, u16) {
        let places = self.places().unwrap_or_default();
        let place = places.iter().find(|(pane, _)| *pane == self.focused).map(|(_, place)| *place);
        place.map_or((80, 24), |place| content(place, self.size.width))
    }

    /// The terminal has another size.
    pub fn resized(&mut self, size: Size) {
        self.size = size;
        if self.focus == Focus::Guest {
            self.tell_window();
        }
    }

    /// How the guests are, and what the holder says of their consoles if it answers.
    pub fn looked(&mut self, guests: &[GuestStatus], consoles: Option<Vec<ConsoleState>>) {
        self.holder_gone = consoles.is_none() && guests.iter().any(|guest| guest.pid.is_some());
        self.consoles = consoles.unwrap_or_default();
        for guest in guests {
            let index = self.pane_of(guest);
            let console = self.consoles.iter().find(|console| console.guest == guest.name);
            let types = self.focus == Focus::Guest && index == self.focused;
            let pane = &mut self.panes[index];
            pane.looked(guest, console);
            match (pane.link, console) {
                (Link::None, Some(console)) => {
                    let mode = if types { Mode::Write } else { Mode::Read };
                    let from = pane.resume_at(console, TAIL_BYTES);
                    pane.link = Link::Asked(mode);
                    self.wishes.push(Wish::Open { pane: index, mode, take: false, from });
                }
                (Link::None, None) if !pane.running && !pane.end_shown => {
                    self.wishes.push(Wish::ReadLog { pane: index, from: pane.at });
                }
                _ => {}
            }
        }
    }

    fn pane_of(&mut self, guest: &GuestStatus) -> usize {
        let found = self.panes.iter().position(|pane| pane.name == guest.name);
        found.unwrap_or_else(|| {
            self.panes.push(Pane::new(guest.name.clone()));
            self.panes.len() - 1
        })
    }

    /// What the log has of a guest that is down: its boot's number and the bytes from an offset on, and how it ended.
    pub fn logged(&mut self, index: usize, read: Option<(Position, &[u8])>, exit: Option<&ExitRecord>) {
        let Some(pane) = self.panes.get_mut(index) else { return };
        let seen = pane.unseen;
        if let Some((from, bytes)) = read {
            pane.position(from);
            pane.output(bytes);
            // Not news: it was over before.
            pane.unseen = seen;
            pane.ended(exit);
        }
        pane.end_shown = true;
        pane.unseen = seen;
    }

    /// A connection is there.
    pub fn greeted(&mut self, index: usize, greeting: &Greeting, now: u64) {
        let types = self.types_in(index);
        let Some(pane) = self.panes.get_mut(index) else { return };
        if pane.greeted(greeting) == Mode::Read || !types {
            return;
        }
        if greeting.mode == Mode::Read {
            let writer = greeting.console.writer.as_deref().unwrap_or("somebody else");
            let text = format!("{writer} is writing on {}; t takes it", pane.name);
            self.leave_guest();
            return self.say(text, now);
        }
        self.tell_window();
        let payload = std::mem::take(&mut self.queue);
        if !payload.is_empty() {
            self.wishes.push(Wish::Send { pane: index, kind: Kind::Input, payload });
        }
    }

    fn types_in(&self, index: usize) -> bool {
        self.focus == Focus::Guest && self.focused == index
    }

    /// The holder does not want to, or is gone: the next look shows what is the matter.
    pub fn lost(&mut self, index: usize) {
        if let Some(pane) = self.panes.get_mut(index) {
            pane.link = Link::None;
        }
    }

    /// A frame of a pane's connection.
    pub fn frame(&mut self, index: usize, kind: Kind, payload: &[u8], now: u64) {
        let types = self.types_in(index);
        let Some(pane) = self.panes.get_mut(index) else { return };
        match pane.frame(kind, payload) {
            News::None => {}
            News::Said(text) => self.say(text, now),
            News::Lost => self.wishes.push(Wish::Look),
            News::Ended(text) => {
                if types {
                    self.say(text, now);
                }
                self.wishes.push(Wish::Look);
            }
        }
        if self.focused == index
            && let Some(pane) = self.panes.get_mut(index)
        {
            pane.unseen = false;
        }
        // A boot begins with a terminal of the usual size.
        if types && kind == Kind::Position {
            self.tell_window();
        }
    }

    /// Only a pane that has the terminal for itself tells the guest its size; in a small one text is wrapped for the eye only.
    fn tell_window(&mut self) {
        let (width, height) = self.content();
        let (width, height) = (width.max(SMALLEST), height.max(SMALLEST));
        let Some(pane) = self.panes.get_mut(self.focused) else { return };
        if !self.zoomed || !pane.resize(width, height) {
            return;
        }
        let payload = [width.to_be_bytes(), height.to_be_bytes()].concat();
        self.wishes.push(Wish::Send { pane: self.focused, kind: Kind::Resize, payload });
    }
}

/// Columns and rows of text in a pane: below its title, left of the line to the next one.
pub fn content(place: Place, terminal_width: u16) -> (u16, u16) {
    let line = u16::from(place.x + place.width < terminal_width);
    (place.width - line, place.height - 1)
}
