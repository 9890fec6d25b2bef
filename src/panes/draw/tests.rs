//! What a user sees, row by row.

use super::*;
use crate::console::attach::Escape;
use crate::console::exit::{Cause, EndedBy, ExitRecord};
use crate::console::now_ms;
use crate::console::protocol::{Kind, Position as At};
use crate::console::restart::Restarts;
use crate::panes::app::Options;
use crate::panes::fixture::{console, greeting, status};
use crate::panes::layout::Size;
use crate::service::desired::Desired;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

fn shown(app: &mut App) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(app.size.width, app.size.height)).unwrap();
    terminal.draw(|frame| draw(app, frame)).unwrap();
    terminal
}

/// Rows of text, without the blanks at their ends.
fn text(app: &mut App) -> Vec<String> {
    let terminal = shown(app);
    let buffer = terminal.backend().buffer();
    let row =
        |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..buffer.area.height).map(row).collect()
}

/// `ce` runs and is written by alice, `se` has ended with a panic, `ui` was never started.
fn site(width: u16, height: u16) -> App {
    let options = Options { read_only: false, escape: Escape::default() };
    let mut app = App::new(options, Size { width, height });
    let exit = ExitRecord {
        at_ms: 0,
        cause: Cause::Exit,
        code: Some(134),
        boot: 1,
        last_lines: vec!["Kernel panic - not syncing: no init".to_owned()],
        by: EndedBy::Panic,
        rung: None,
        stop_took_ms: None,
        launched_at_ms: 0,
        ready_at_ms: None,
        start_failed: false,
    };
    let mut ended = status("se", None);
    (ended.desired, ended.last_exit) = (Desired::Running, Some(exit.clone()));
    let guests = [status("ce", Some(1)), ended, status("ui", None)];
    app.looked(&guests, Some(vec![console("ce", Some("alice (tty1)"))]));
    app.greeted(0, &greeting("ce", Mode::Read, Some("alice (tty1)")), 0);
    app.frame(0, Kind::Position, br#"{"boot":1,"offset":0}"#, 0);
    app.frame(0, Kind::Live, b"booted\r\nce login: ", 0);
    app.logged(1, Some((At { boot: 1, offset: 0 }, b"Call Trace:\r\n")), Some(&exit));
    app.logged(2, None, None);
    app
}

#[test]
fn every_guest_has_a_pane_with_its_state_its_writer_and_what_it_said() {
    assert_eq!(
        text(&mut site(100, 13)),
        [
            " 1 ce  ready                  alice (tty1) writes  2 se  ended (panic: no init)",
            "booted                                           │Call Trace:",
            "ce login:                                        │[gridgate: se is not running any more (its kernel",
            "                                                 │panicked: no init)]",
            "                                                 │",
            "                                                 │",
            " 3 ui  stopped",
            "never started: gridgate start ui",
            "",
            "",
            "",
            "",
            "Enter opens  i types  PgUp scrolls  / searches  ? helps  q leaves",
        ]
    );
}

#[test]
fn more_guests_than_have_room_are_on_other_pages() {
    let mut app = site(60, 11);
    let rows = text(&mut app);
    assert_eq!(rows[0], " 1 ce  ready                            alice (tty1) writes");
    assert_eq!(rows[5], " 2 se  ended (panic: no init)");
    assert_eq!(rows[10], "Enter opens  i types  PgUp scrolls  / searches   page 1 of 2");
    app.typed(b"3", 0);
    let rows = text(&mut app);
    assert_eq!((rows[0].as_str(), rows[5].as_str()), (" 3 ui  stopped", ""));
}

#[test]
fn one_alone_has_the_whole_terminal_and_its_cursor_while_it_is_typed_in() {
    let mut app = site(60, 8);
    app.typed(b"z", 0);
    let rows = text(&mut app);
    assert_eq!(
        rows[..4],
        [" 1 ce  ready                            alice (tty1) writes", "booted", "ce login:", ""]
    );
    app.typed(b"t", 0);
    app.greeted(0, &greeting("ce", Mode::Write, Some("me")), 0);
    let mut terminal = shown(&mut app);
    terminal.backend_mut().assert_cursor_position((10, 2));
    assert_eq!(text(&mut app)[7], "you type in ce; Ctrl-] leaves");
    app.frame(0, Kind::Mode, br#""ro""#, 0);
    assert_eq!(text(&mut app)[7], "me is writing on ce now; Ctrl-] t takes it back, Ctrl-] leav");
}

#[test]
fn a_terminal_that_is_too_small_says_so_whatever_its_size() {
    for (width, height) in [(39, 20), (80, 5), (0, 0), (1, 1), (200, 1), (3, 90)] {
        let rows = text(&mut site(width, height));
        let first: String = format!("too small: {width}x{height}").chars().take(width.into()).collect();
        assert_eq!(rows.first().map_or("", String::as_str), first.trim_end(), "{width}x{height}");
    }
}

#[test]
fn the_first_kept_line_says_where_the_rest_is() {
    let mut app = site(60, 8);
    for number in 0..2100 {
        app.frame(0, Kind::Live, format!("line {number}\r\n").as_bytes(), 0);
    }
    app.typed(b"zg", 0);
    let rows = text(&mut app);
    assert_eq!(rows[0], " 1 ce  ready            2019 rows back  alice (tty1) writes");
    assert_eq!(rows[1..3], ["-- gridgate console ce --log has what came before --", "line 77"]);
    app.typed(b"\x1b[F", 0);
    assert_eq!(text(&mut app)[5..7], ["line 2099", ""]);
}

#[test]
fn the_help_names_every_key() {
    let mut app = site(100, 40);
    app.typed(b"?", 0);
    let rows = text(&mut app).join("\n");
    for binding in BINDINGS {
        assert!(rows.contains(&format!("{:10} {}", binding.shown, binding.words)), "{binding:?}");
    }
    app.typed(b"x", 0);
    assert!(!text(&mut app).join("\n").contains("Shift-Tab"));
}

#[test]
fn a_hit_of_a_search_is_marked() {
    let mut app = site(60, 8);
    app.typed(b"z/BOOT\x7f\x7f\x7f\x7fboot\r", 0);
    let terminal = shown(&mut app);
    let marked = |x| terminal.backend().buffer()[(x, 1)].bg == Color::Yellow;
    assert!((0..4).all(marked) && !marked(4));
}

#[test]
fn a_wide_character_that_does_not_fit_is_left_out() {
    let mut app = site(41, 8);
    app.frame(0, Kind::Live, format!("\r\n{}中\x1b[1;31mred", "x".repeat(40)).as_bytes(), 0);
    let rows = text(&mut app);
    assert_eq!(rows[3..5], ["x".repeat(40), "中 red".to_owned()]);
}

#[test]
fn a_guest_that_waits_for_its_next_try_says_for_how_long() {
    let mut app = site(100, 13);
    let mut waiting = status("se", None);
    waiting.last_exit = None;
    waiting.restarts = Some(Restarts {
        // Further away than the whole wait, as after a clock that was set back.
        next_try_ms: Some(now_ms() + 3_600_000),
        wait_ms: 30_000,
        ..Restarts::default()
    });
    app.looked(&[waiting], Some(Vec::new()));
    assert!(text(&mut app)[0].ends_with("2 se  waiting (30 s)"), "{}", text(&mut app)[0]);
}
