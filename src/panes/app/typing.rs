//! What keys do to the panes, and which are a guest's.

use crate::console::protocol::{Kind, Mode};

use super::super::keys::{self, Act, Key};
use super::super::layout::{Layout, Place};
use super::super::pane::{Link, Scroll};
use super::{App, Focus, TAIL_BYTES, Wish, content};

/// A second digit within this makes a number of two.
const DIGITS_MS: u64 = 700;
const WHEEL_ROWS: i64 = 3;
/// Typed bytes that wait for a connection.
const QUEUE_BYTES: usize = 4096;

impl App {
    /// What was typed.
    pub fn typed(&mut self, bytes: &[u8], now: u64) {
        for (key, bytes) in self.decoder.push(bytes) {
            self.key(key, &bytes, now);
        }
        self.decoding_since = self.decoder.is_waiting().then_some(now);
    }

    pub(super) fn key(&mut self, key: Key, bytes: &[u8], now: u64) {
        match std::mem::replace(&mut self.focus, Focus::Overview) {
            Focus::Guest => {
                self.focus = Focus::Guest;
                self.key_for_guest(key, bytes, now);
            }
            Focus::Help => {}
            Focus::Search(text) => self.key_for_search(key, text, now),
            Focus::Overview => match key {
                Key::PasteBegin => self.pasting = true,
                Key::PasteEnd => self.pasting = false,
                // What was meant for a guest is no command.
                _ if self.pasting => {}
                _ => self.key_for_panes(key, now),
            },
        }
    }

    fn key_for_search(&mut self, key: Key, mut text: String, now: u64) {
        match key {
            Key::Char(character) => text.push(character),
            Key::Backspace if text.pop().is_some() => {}
            Key::Enter => {
                if !text.is_empty() {
                    self.sought = text;
                }
                self.start_search();
                return self.search(true, now);
            }
            Key::Backspace | Key::Esc | Key::Ctrl('c') => return,
            _ => {}
        }
        self.focus = Focus::Search(text);
    }

    fn start_search(&mut self) {
        if let Some(pane) = self.panes.get_mut(self.focused) {
            pane.hit = None;
        }
    }

    fn search(&mut self, older: bool, now: u64) {
        let ((width, height), sought) = (self.content(), self.sought.clone());
        let Some(pane) = self.panes.get_mut(self.focused).filter(|_| !sought.is_empty()) else { return };
        if !pane.search(&sought, older, width, height) {
            let which = if older { "further back" } else { "further on" };
            let text = format!("no '{sought}' {which} here; gridgate console {} --log has all", pane.name);
            self.say(text, now);
        }
    }

    fn key_for_panes(&mut self, key: Key, now: u64) {
        match key {
            Key::Char(digit @ '0'..='9') => return self.digit(digit as usize - '0' as usize, now),
            Key::WheelUp(x, y) => return self.wheel(x, y, -WHEEL_ROWS),
            Key::WheelDown(x, y) => return self.wheel(x, y, WHEEL_ROWS),
            Key::Click(x, y) => {
                if let Some(pane) = self.pane_at(x, y) {
                    self.focus_on(pane);
                }
                return;
            }
            _ => {}
        }
        let Some(act) = keys::act(key) else { return };
        self.message = None;
        match act {
            Act::Next => self.focus_on((self.focused + 1) % self.panes.len().max(1)),
            Act::Previous => {
                self.focus_on((self.focused + self.panes.len().saturating_sub(1)) % self.panes.len().max(1));
            }
            Act::Move(columns, rows) => self.step(i32::from(columns), i32::from(rows)),
            Act::Zoom => self.zoomed = !self.zoomed,
            Act::Enter if !self.zoomed => self.zoomed = true,
            Act::Enter | Act::Attach => self.attach(false, now),
            Act::Take => self.attach(true, now),
            Act::Back => self.zoomed = false,
            Act::PageUp => self.scroll(Scroll::PageUp),
            Act::PageDown => self.scroll(Scroll::PageDown),
            Act::Top => self.scroll(Scroll::Top),
            Act::Live => self.scroll(Scroll::Live),
            Act::Search => self.focus = Focus::Search(String::new()),
            Act::Older => self.search(true, now),
            Act::Newer => self.search(false, now),
            Act::Help => self.focus = Focus::Help,
            Act::Redraw => self.wishes.push(Wish::Redraw),
            Act::Quit => self.done = true,
        }
    }

    fn digit(&mut self, digit: usize, now: u64) {
        let before = self.digits.filter(|(_, at)| now < at + DIGITS_MS).map_or(0, |(number, _)| number);
        let longer = before * 10 + digit;
        let number = if (1..=self.panes.len()).contains(&longer) { longer } else { digit };
        self.digits = Some((number, now));
        if (1..=self.panes.len()).contains(&number) {
            self.focus_on(number - 1);
        }
    }

    fn step(&mut self, columns: i32, rows: i32) {
        if self.zoomed {
            return match columns {
                0 => self.scroll(Scroll::Lines(i64::from(rows))),
                _ => {
                    let next = self.focused.saturating_add_signed(columns as isize);
                    self.focus_on(next.min(self.panes.len().saturating_sub(1)));
                }
            };
        }
        let Some(layout) = Layout::of(self.panes.len(), self.room()) else { return };
        let to = layout.neighbour(self.focused, columns, rows);
        if to != self.focused {
            return self.focus_on(to);
        }
        // Over the edge of a page lies the next one.
        let page = layout.page_of(self.focused);
        let back = columns < 0 || rows < 0;
        let turned = if back { page.checked_sub(1) } else { Some(page + 1).filter(|p| *p < layout.pages()) };
        let Some(panes) = turned.map(|page| layout.page(page)) else { return };
        if let Some((to, _)) = if back { panes.last() } else { panes.first() } {
            self.focus_on(*to);
        }
    }

    fn focus_on(&mut self, pane: usize) {
        if let Some(found) = self.panes.get_mut(pane) {
            found.unseen = false;
            self.focused = pane;
        }
    }

    fn scroll(&mut self, how: Scroll) {
        let (width, height) = self.content();
        if let Some(pane) = self.panes.get_mut(self.focused) {
            pane.hit = None;
            pane.scroll(how, width, height);
        }
    }

    fn pane_at(&self, x: u16, y: u16) -> Option<usize> {
        let within = |place: &Place| {
            (place.x..place.x + place.width).contains(&x) && (place.y..place.y + place.height).contains(&y)
        };
        self.places()?.iter().find(|(_, place)| within(place)).map(|(pane, _)| *pane)
    }

    fn wheel(&mut self, x: u16, y: u16, rows: i64) {
        let Some((pane, place)) = self.places().and_then(|places| {
            let pane = self.pane_at(x, y)?;
            places.into_iter().find(|(other, _)| *other == pane)
        }) else {
            return;
        };
        let (width, height) = content(place, self.size.width);
        if let Some(pane) = self.panes.get_mut(pane) {
            pane.scroll(Scroll::Lines(rows), width, height);
        }
    }

    fn attach(&mut self, take: bool, now: u64) {
        let Some(pane) = self.panes.get_mut(self.focused) else { return };
        if self.options.read_only {
            return self.say("nobody types here: --read-only", now);
        }
        let console = self.consoles.iter().find(|console| console.guest == pane.name);
        let Some(console) = console.filter(|_| pane.running) else {
            let text = match pane.running {
                true => format!("{} has no console yet", pane.name),
                false => format!("{} is not running; gridgate start {} starts it", pane.name, pane.name),
            };
            return self.say(text, now);
        };
        let from = pane.resume_at(console, TAIL_BYTES);
        pane.link = Link::Asked(Mode::Write);
        pane.scrolled = None;
        self.queue.clear();
        self.focus = Focus::Guest;
        self.wishes.push(Wish::Open { pane: self.focused, mode: Mode::Write, take, from });
    }

    pub(super) fn leave_guest(&mut self) {
        self.escaped_at = None;
        self.request_until = None;
        self.focus = Focus::Overview;
        self.queue.clear();
        let Some(pane) = self.panes.get_mut(self.focused) else { return };
        // Also who only waits to write: the console would be given to them when nobody is there to use it.
        if let (Link::Open(_) | Link::Asked(Mode::Write), Some(from)) = (pane.link, pane.at) {
            pane.link = Link::Asked(Mode::Read);
            self.wishes.push(Wish::Open { pane: self.focused, mode: Mode::Read, take: false, from });
        }
    }

    fn wish_break(&mut self, now: u64) {
        match self.panes.get(self.focused).map(|pane| pane.link) {
            Some(Link::Open(Mode::Write)) => self.wishes.push(Wish::Break { pane: self.focused }),
            _ => self.say("only who writes can send a break", now),
        }
    }

    fn key_for_guest(&mut self, key: Key, bytes: &[u8], now: u64) {
        let escape = self.options.escape.0;
        let is_escape = matches!(bytes, [byte] if Some(*byte) == escape);
        match (is_escape, self.escaped_at.take()) {
            (true, None) => return self.escaped_at = Some(now),
            (false, Some(_)) if key == Key::Char('b') => return self.wish_break(now),
            (false, Some(_)) => {
                self.leave_guest();
                return self.key(key, bytes, now);
            }
            (true, Some(_)) | (false, None) => {}
        }
        let in_time = self.request_until.take().is_some_and(|until| now < until);
        if let Key::Char(key) = key
            && in_time
        {
            return self.wishes.push(Wish::Request { pane: self.focused, key });
        }
        let Some(pane) = self.panes.get_mut(self.focused) else { return };
        let typed = match key {
            Key::WheelUp(x, y) => return self.wheel(x, y, -WHEEL_ROWS),
            Key::WheelDown(x, y) => return self.wheel(x, y, WHEEL_ROWS),
            Key::Click(..) => return,
            Key::Other if bytes.starts_with(b"\x1b[<") => return,
            Key::PasteBegin | Key::PasteEnd if !pane.screen.bracketed_paste() => return,
            Key::Up | Key::Down | Key::Left | Key::Right | Key::Home | Key::End
                if pane.screen.application_cursor() && bytes.len() == 3 =>
            {
                vec![0x1b, b'O', bytes[2]]
            }
            _ => bytes.to_vec(),
        };
        pane.scrolled = None;
        match pane.link {
            Link::Open(Mode::Write) => {
                self.wishes.push(Wish::Send { pane: self.focused, kind: Kind::Input, payload: typed });
            }
            Link::Asked(Mode::Write) if self.queue.len() + typed.len() <= QUEUE_BYTES => {
                self.queue.extend(typed)
            }
            _ => {}
        }
    }
}
