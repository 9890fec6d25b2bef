//! What ratatui has drawn, as bytes for a terminal; nothing is written here.
//!
//! crossterm, the usual way, wants to own the terminal's input too, and reads it in a loop of its own; here one poll(2) waits
//! for keys, guests and signals alike, and a terminal that takes no bytes must not stop it.

use std::convert::Infallible;
use std::fmt::Write;

use ratatui::backend::{Backend, ClearType, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};
use ratatui::style::{Color, Modifier};

/// Whether a terminal knows more than ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// It does.
    Utf8,
    /// It does not.
    Ascii,
}

impl Charset {
    /// As the environment says (locale(7)).
    pub fn of_environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") { Self::Utf8 } else { Self::Ascii }
    }
}

/// A terminal's bytes to be.
#[derive(Debug)]
pub struct Paint {
    out: String,
    size: Size,
    charset: Charset,
    cursor: Position,
}

impl Paint {
    /// For a terminal of that size.
    pub fn new(size: Size, charset: Charset) -> Self {
        Self { out: String::new(), size, charset, cursor: Position::ORIGIN }
    }

    /// The terminal has another size.
    pub fn resize(&mut self, size: Size) {
        self.size = size;
    }

    /// What was drawn since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out).into_bytes()
    }

    fn put(&mut self, args: std::fmt::Arguments<'_>) {
        // A string takes everything.
        let _ = self.out.write_fmt(args);
    }

    fn symbol<'a>(&self, symbol: &'a str) -> &'a str {
        match (self.charset, symbol) {
            (Charset::Utf8, _) => symbol,
            (Charset::Ascii, "│") => "|",
            (Charset::Ascii, _) if symbol.is_ascii() => symbol,
            (Charset::Ascii, _) => "?",
        }
    }
}

/// Select Graphic Rendition (ECMA-48, 8.3.117), from nothing.
fn rendition(cell: &Cell) -> String {
    let mut codes = vec!["0".to_owned()];
    for (modifier, code) in [
        (Modifier::BOLD, "1"),
        (Modifier::DIM, "2"),
        (Modifier::ITALIC, "3"),
        (Modifier::UNDERLINED, "4"),
        (Modifier::REVERSED, "7"),
    ] {
        if cell.modifier.contains(modifier) {
            codes.push(code.to_owned());
        }
    }
    codes.extend(colour(cell.fg, 30));
    codes.extend(colour(cell.bg, 40));
    codes.join(";")
}

/// `base` is 30 for the text and 40 for what is behind it.
fn colour(colour: Color, base: u8) -> Option<String> {
    let basic = |index: u8| match index {
        0..=7 => (base + index).to_string(),
        8..=15 => (base + 60 + index - 8).to_string(),
        _ => format!("{};5;{index}", base + 8),
    };
    Some(match colour {
        Color::Reset => return None,
        Color::Black => basic(0),
        Color::Red => basic(1),
        Color::Green => basic(2),
        Color::Yellow => basic(3),
        Color::Blue => basic(4),
        Color::Magenta => basic(5),
        Color::Cyan => basic(6),
        Color::Gray => basic(7),
        Color::DarkGray => basic(8),
        Color::LightRed => basic(9),
        Color::LightGreen => basic(10),
        Color::LightYellow => basic(11),
        Color::LightBlue => basic(12),
        Color::LightMagenta => basic(13),
        Color::LightCyan => basic(14),
        Color::White => basic(15),
        Color::Indexed(index) => basic(index),
        Color::Rgb(red, green, blue) => format!("{};2;{red};{green};{blue}", base + 8),
    })
}

impl Backend for Paint {
    type Error = Infallible;

    fn draw<'a, I>(&mut self, content: I) -> Result<(), Infallible>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let mut next = None;
        let mut last = String::new();
        // It is shown again where it belongs, if it does.
        self.out.push_str("\x1b[?25l");
        for (x, y, cell) in content {
            if next != Some((x, y)) {
                self.put(format_args!("\x1b[{};{}H", y + 1, x + 1));
            }
            let rendition = rendition(cell);
            if rendition != last {
                self.put(format_args!("\x1b[{rendition}m"));
                last = rendition;
            }
            let symbol = self.symbol(cell.symbol());
            self.out.push_str(symbol);
            // How wide another character is, terminals do not agree on.
            next = symbol.is_ascii().then_some((x + 1, y));
        }
        if !last.is_empty() {
            self.out.push_str("\x1b[m");
        }
        Ok(())
    }

    /// It is, while something is drawn.
    fn hide_cursor(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn show_cursor(&mut self) -> Result<(), Infallible> {
        self.out.push_str("\x1b[?25h");
        Ok(())
    }

    fn get_cursor_position(&mut self) -> Result<Position, Infallible> {
        Ok(self.cursor)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> Result<(), Infallible> {
        self.cursor = position.into();
        let Position { x, y } = self.cursor;
        self.put(format_args!("\x1b[{};{}H", y + 1, x + 1));
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Infallible> {
        self.out.push_str("\x1b[m\x1b[2J");
        Ok(())
    }

    /// Only all of it is ever asked for.
    fn clear_region(&mut self, _: ClearType) -> Result<(), Infallible> {
        self.clear()
    }

    fn size(&self) -> Result<Size, Infallible> {
        Ok(self.size)
    }

    fn window_size(&mut self) -> Result<WindowSize, Infallible> {
        Ok(WindowSize { columns_rows: self.size, pixels: Size::ZERO })
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::style::Style;

    fn painted(charset: Charset, text: &str, style: Style) -> String {
        let mut terminal = Terminal::new(Paint::new(Size::new(10, 1), charset)).unwrap();
        terminal.draw(|frame| frame.buffer_mut().set_string(0, 0, text, style)).unwrap();
        String::from_utf8(terminal.backend_mut().take()).unwrap()
    }

    #[test]
    fn only_what_is_there_is_painted_in_as_few_bytes_as_it_takes() {
        let style = Style::new().fg(Color::Red).bg(Color::Indexed(200)).add_modifier(Modifier::BOLD);
        let out = painted(Charset::Utf8, "ab", style);
        assert_eq!(out, "\x1b[?25l\x1b[1;1H\x1b[0;1;31;48;5;200mab\x1b[m");
    }

    #[test]
    fn the_cursor_is_placed_anew_behind_what_is_not_ascii() {
        assert_eq!(
            painted(Charset::Utf8, "a中b", Style::new()),
            "\x1b[?25l\x1b[1;1H\x1b[0ma中\x1b[1;4Hb\x1b[m"
        );
    }

    #[test]
    fn a_terminal_without_utf_8_gets_ascii() {
        assert_eq!(painted(Charset::Ascii, "│é", Style::new()), "\x1b[?25l\x1b[1;1H\x1b[0m|?\x1b[m");
    }
}
