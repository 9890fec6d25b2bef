//! The app on a frame: a title a pane, what the guest says below it, a line of help at the bottom.

#[cfg(test)]
mod tests;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use vt100::Cell;

use crate::console::protocol::Mode;

use super::app::{self, App, Focus};
use super::keys::BINDINGS;
use super::layout::{LEAST, Place};
use super::pane::{Link, Pane, Tone};

const FAINT: Style = Style::new().add_modifier(Modifier::DIM);

/// Draws everything.
pub fn draw(app: &mut App, frame: &mut Frame<'_>) {
    let area = frame.area();
    let Some(places) = app.places() else { return too_small(app, frame) };
    let mut cursor = None;
    for (index, place) in places {
        let focused = index == app.focused;
        let typing = focused && app.focus == Focus::Guest;
        let numbered = app.panes.len() > 1;
        let (columns, rows) = app::content(place, area.width);
        let hint = hint(app, index);
        let sought = app.sought.clone();
        let Some(pane) = app.panes.get_mut(index) else { continue };
        let buffer = frame.buffer_mut();
        title(buffer, place, pane, numbered.then_some(index + 1), focused, typing);
        if columns < place.width {
            for y in place.y + 1..place.y + place.height {
                put(buffer, place.x + columns, y, "│", 1, FAINT);
            }
        }
        let inside = Rect::new(place.x, place.y + 1, columns, rows);
        let at = console(buffer, inside, pane, &sought);
        if let Some(hint) = hint {
            put(buffer, inside.x, inside.y, &hint, columns, FAINT);
        }
        if typing && pane.scrolled.is_none() && pane.screen.shows_cursor() {
            cursor = at;
        }
    }
    if let Focus::Search(text) = &app.focus {
        let typed = format!("/{text}");
        let x = u16::try_from(typed.chars().count()).unwrap_or(u16::MAX).min(area.width.saturating_sub(1));
        cursor = Some(Position::new(x, area.height - 1));
    }
    bottom(app, frame.buffer_mut(), area);
    if app.focus == Focus::Help {
        help(app, frame.buffer_mut(), area);
    } else if let Some(cursor) = cursor {
        frame.set_cursor_position(cursor);
    }
}

/// Writes a text into one row, cut to a width.
fn put(buffer: &mut Buffer, x: u16, y: u16, text: &str, width: u16, style: Style) {
    if buffer.area.contains(Position::new(x, y)) {
        buffer.set_stringn(x, y, text, usize::from(width), style);
    }
}

fn too_small(app: &App, frame: &mut Frame<'_>) {
    let area = frame.area();
    let text = [
        format!("too small: {}x{}", app.size.width, app.size.height),
        format!("needs {}x{}", LEAST.width, LEAST.height + 1),
        "q leaves".to_owned(),
    ];
    for (y, line) in (0..area.height).zip(text) {
        put(frame.buffer_mut(), 0, y, &line, area.width, Style::new());
    }
}

fn title(buffer: &mut Buffer, place: Place, pane: &Pane, number: Option<usize>, focused: bool, typing: bool) {
    let colour = match pane.tone {
        Tone::Good => Color::Green,
        Tone::Busy => Color::Cyan,
        Tone::Bad => Color::Red,
        Tone::Idle => Color::Gray,
    };
    let bar = match (typing, focused) {
        (true, _) => Style::new().fg(Color::Black).bg(Color::Yellow),
        (_, true) => Style::new().fg(Color::Black).bg(Color::White),
        _ => Style::new().fg(Color::White).bg(Color::DarkGray),
    };
    buffer.set_style(Rect::new(place.x, place.y, place.width, 1), bar);
    let mut right = Vec::new();
    match (pane.rows_back(), pane.unseen) {
        (0, true) => right.push("new".to_owned()),
        (0, false) => {}
        (rows, false) => right.push(format!("{rows} rows back")),
        (rows, true) => right.push(format!("{rows} rows back, new")),
    }
    match (&pane.writer, pane.link) {
        (_, Link::Open(Mode::Write)) => right.push("you write".to_owned()),
        (Some(writer), _) => right.push(format!("{writer} writes")),
        _ => {}
    }
    let number = number.map(|number| format!("{number} ")).unwrap_or_default();
    let name = format!(" {number}{}  ", pane.name);
    let state_at = place.x + u16::try_from(name.len()).unwrap_or(u16::MAX).min(place.width);
    let left = name.len() + pane.state.len() + 2;
    let room = usize::from(place.width).saturating_sub(left);
    // Who writes goes first if there is no room for all.
    let fitting = |right: &[String]| Some(right.join("  ")).filter(|text| text.chars().count() < room);
    let right = (0..=right.len()).rev().find_map(|kept| fitting(&right[..kept])).unwrap_or_default();
    put(buffer, place.x, place.y, &name, place.width, bar.add_modifier(Modifier::BOLD));
    let state = if focused { bar } else { bar.fg(colour) };
    put(buffer, state_at, place.y, &pane.state, place.x + place.width - state_at, state);
    let width = u16::try_from(right.chars().count()).unwrap_or(0);
    if width > 0 {
        let x = place.x + place.width - width - 1;
        put(buffer, x, place.y, &right, width, bar);
    }
}

/// What stands in place of a console's first row.
fn hint(app: &mut App, index: usize) -> Option<String> {
    let gone = app.holder_gone;
    let places = app.places()?;
    let (columns, rows) = app::content(places.iter().find(|(pane, _)| *pane == index)?.1, app.size.width);
    let pane = app.panes.get_mut(index)?;
    if pane.screen.is_empty() {
        return match (pane.running, gone) {
            (true, true) => Some("the console holder does not answer".to_owned()),
            (true, false) => Some("it has said nothing yet".to_owned()),
            (false, _) if pane.end_shown => Some(format!("never started: gridgate start {}", pane.name)),
            _ => None,
        };
    }
    let begins = pane.begins_late || pane.screen.first_row() > 0;
    let at_top = pane.scrolled.is_some() && pane.view(columns, rows).first == pane.screen.first_row();
    (begins && at_top).then(|| format!("-- gridgate console {} --log has what came before --", pane.name))
}

/// The guest's text; gives its cursor's place on the frame.
fn console(buffer: &mut Buffer, inside: Rect, pane: &mut Pane, sought: &str) -> Option<Position> {
    let shown = pane.view(inside.width, inside.height);
    for (y, row) in (inside.y..).zip(&shown.rows) {
        for (x, cell) in (inside.x..inside.right()).zip(row) {
            let Some(target) = buffer.cell_mut((x, y)) else { continue };
            if !cell.is_wide_continuation() {
                let whole = !cell.is_wide() || x + 1 < inside.right();
                target.set_symbol(if whole { symbol(cell) } else { " " });
            }
            target.set_style(style(cell));
        }
        if pane.hit.is_some() && !sought.is_empty() {
            for x in hits(row, sought) {
                if let Some(target) = buffer.cell_mut((inside.x.saturating_add(x), y)) {
                    target.set_style(Style::new().fg(Color::Black).bg(Color::Yellow));
                }
            }
        }
    }
    shown.cursor.map(|(x, y)| Position::new(inside.x + x, inside.y + y))
}

/// A cell's text; the emulation lets no control character through, and neither does this.
fn symbol(cell: &Cell) -> &str {
    let text = cell.contents();
    if text.is_empty() || text.chars().any(char::is_control) { " " } else { text }
}

/// Columns of a row that belong to a text that was looked for.
fn hits(row: &[Cell], sought: &str) -> Vec<u16> {
    let any_case = !sought.chars().any(char::is_uppercase);
    let (mut text, mut columns) = (String::new(), Vec::new());
    for (column, cell) in row.iter().enumerate() {
        let symbol = if cell.has_contents() { cell.contents() } else { " " };
        let symbol = if any_case { symbol.to_lowercase() } else { symbol.to_owned() };
        columns.extend(std::iter::repeat_n(u16::try_from(column).unwrap_or(u16::MAX), symbol.len()));
        text.push_str(&symbol);
    }
    let found = text.match_indices(sought).flat_map(|(at, _)| at..at + sought.len());
    found.filter_map(|at| columns.get(at).copied()).collect()
}

fn style(cell: &Cell) -> Style {
    let mut style = Style::new().fg(colour(cell.fgcolor())).bg(colour(cell.bgcolor()));
    for (set, modifier) in [
        (cell.bold(), Modifier::BOLD),
        (cell.dim(), Modifier::DIM),
        (cell.italic(), Modifier::ITALIC),
        (cell.underline(), Modifier::UNDERLINED),
        (cell.inverse(), Modifier::REVERSED),
    ] {
        if set {
            style = style.add_modifier(modifier);
        }
    }
    style
}

fn colour(colour: vt100::Color) -> Color {
    match colour {
        vt100::Color::Default => Color::Reset,
        vt100::Color::Idx(index) => Color::Indexed(index),
        vt100::Color::Rgb(red, green, blue) => Color::Rgb(red, green, blue),
    }
}

fn bottom(app: &App, buffer: &mut Buffer, area: Rect) {
    let y = area.height - 1;
    let (text, style) = match (&app.focus, app.message()) {
        (Focus::Search(text), _) => (format!("/{text}"), Style::new()),
        (Focus::Guest, message) => {
            let Some(pane) = app.panes.get(app.focused) else { return };
            let escape = app.options.escape;
            let text = match (pane.link, &pane.writer, message) {
                (_, _, Some(message)) => format!("{message}; {escape} leaves"),
                (Link::Open(Mode::Write), ..) => format!("you type in {}; {escape} leaves", pane.name),
                (Link::Open(Mode::Read), Some(writer), _) => {
                    format!(
                        "{writer} is writing on {} now; {escape} t takes it back, {escape} leaves",
                        pane.name
                    )
                }
                _ => format!("waiting for the console of {}; {escape} leaves", pane.name),
            };
            (text, Style::new().fg(Color::Yellow))
        }
        (_, Some(message)) => (message.to_owned(), Style::new().fg(Color::Yellow)),
        _ => {
            let short = BINDINGS.iter().map(|binding| binding.short).filter(|short| !short.is_empty());
            (short.collect::<Vec<_>>().join("  "), FAINT)
        }
    };
    let (page, pages) = app.page();
    let right = if pages > 1 && !app.zoomed { format!("page {page} of {pages}") } else { String::new() };
    let width = u16::try_from(right.len()).unwrap_or(0);
    put(buffer, 0, y, &text, area.width.saturating_sub(width + u16::from(width > 0)), style);
    if width > 0 && width < area.width {
        put(buffer, area.width - width, y, &right, width, FAINT);
    }
}

fn help(app: &App, buffer: &mut Buffer, area: Rect) {
    let line = |keys: &str, words: &str| format!(" {keys:10} {words}");
    let keys = BINDINGS.iter().map(|binding| line(binding.shown, binding.words));
    let escape = app.options.escape;
    let more = [
        line("1 to 9", "guest of that number"),
        line(&escape.to_string(), "while you type: back to these keys"),
        line(&format!("{escape} b"), "while you type: a break (system request)"),
    ];
    let lines: Vec<String> = keys.chain(more).collect();
    let width =
        u16::try_from(lines.iter().map(String::len).max().unwrap_or(0) + 1).unwrap_or(0).min(area.width);
    let height = u16::try_from(lines.len()).unwrap_or(0).min(area.height);
    let (left, top) = ((area.width - width) / 2, (area.height - height) / 2);
    let style = Style::new().fg(Color::Black).bg(Color::White);
    for (y, line) in (top..top + height).zip(lines) {
        let line = format!("{line:width$}", width = usize::from(width));
        put(buffer, left, y, &line, width, style);
    }
}
