//! A user, guests and a holder, played to the app.

use super::*;
use crate::panes::fixture::{console, greeting, status};
use proptest::prelude::*;

fn options() -> Options {
    Options { read_only: false, escape: Escape::default() }
}

/// An app with so many running guests, `g1` and on, each connected to be read.
fn running(count: usize) -> App {
    let mut app = App::new(options(), Size { width: 160, height: 51 });
    let guests: Vec<_> = (1..=count).map(|number| status(&format!("g{number}"), Some(1))).collect();
    let consoles = (1..=count).map(|number| console(&format!("g{number}"), None)).collect();
    app.looked(&guests, Some(consoles));
    for index in 0..count {
        let name = format!("g{}", index + 1);
        app.greeted(index, &greeting(&name, Mode::Read, None), 0);
        app.frame(index, Kind::Position, br#"{"boot":1,"offset":0}"#, 0);
    }
    app.take_wishes();
    app
}

fn open(pane: usize, mode: Mode, take: bool, offset: u64) -> Wish {
    Wish::Open { pane, mode, take, from: Position { boot: 1, offset } }
}

fn typed(app: &mut App, keys: &[u8]) -> Vec<Wish> {
    app.typed(keys, 1000);
    app.take_wishes()
}

#[test]
fn every_running_guest_is_connected_and_only_the_end_of_a_long_boot_is_asked_for() {
    let mut app = App::new(options(), Size { width: 160, height: 51 });
    let long = ConsoleState { output_bytes: 10 << 20, ..console("b", None) };
    app.looked(&[status("a", Some(1)), status("b", Some(2))], Some(vec![console("a", None), long]));
    let from = (10 << 20) - TAIL_BYTES;
    assert_eq!(app.take_wishes(), [open(0, Mode::Read, false, 0), open(1, Mode::Read, false, from)]);
    // Asked for once.
    app.looked(&[status("a", Some(1)), status("b", Some(2))], Some(vec![console("a", None)]));
    assert_eq!(app.take_wishes(), []);
}

#[test]
fn a_guest_that_is_down_shows_the_end_of_its_log_and_one_that_comes_up_is_connected() {
    let mut app = App::new(options(), Size { width: 160, height: 51 });
    app.looked(&[status("a", None)], Some(Vec::new()));
    assert_eq!(app.take_wishes(), [Wish::ReadLog { pane: 0, from: None }]);
    app.logged(0, Some((Position { boot: 1, offset: 0 }, b"last words\n")), None);
    assert!(!app.panes[0].unseen);
    app.looked(&[status("a", None)], Some(Vec::new()));
    assert_eq!(app.take_wishes(), []);
    let second = ConsoleState { boot: 2, ..console("a", None) };
    app.looked(&[status("a", Some(1))], Some(vec![second]));
    assert_eq!(
        app.take_wishes(),
        [Wish::Open { pane: 0, mode: Mode::Read, take: false, from: Position { boot: 2, offset: 0 } }]
    );
}

#[test]
fn a_break_goes_to_the_guest_that_is_typed_in_and_the_key_after_it_to_its_kernel() {
    let mut app = running(1);
    typed(&mut app, b"i");
    assert_eq!(typed(&mut app, b"\x1db"), [], "nobody writes yet");
    assert_eq!(app.message(), Some("only who writes can send a break"));
    app.greeted(0, &greeting("g1", Mode::Write, None), 1000);
    assert_eq!(typed(&mut app, b"\x1db"), [Wish::Break { pane: 0 }]);
    app.broke(Ok(Break::NextKey), 1000);
    assert_eq!(typed(&mut app, b"h"), [Wish::Request { pane: 0, key: 'h' }]);
    let input = |key: &[u8]| [Wish::Send { pane: 0, kind: Kind::Input, payload: key.to_vec() }];
    assert_eq!(typed(&mut app, b"h"), input(b"h"), "only one key");
    app.broke(Ok(Break::NextKey), 1000);
    app.typed(b"h", 1000 + REQUEST_MS);
    assert_eq!(app.take_wishes(), input(b"h"), "too late");
    app.broke(Ok(Break::Sent), 1000);
    assert_eq!(typed(&mut app, b"h"), input(b"h"), "the line has taken the break");
    app.broke(Err("no line".to_owned()), 1000);
    assert_eq!(app.message(), Some("no break was sent: no line"));
    assert_eq!(app.focus, Focus::Guest);
}

#[test]
fn tab_digits_and_arrows_move_the_focus() {
    let mut app = running(12);
    let mut focus = |keys: &[u8], now| {
        app.typed(keys, now);
        app.focused + 1
    };
    assert_eq!(focus(b"\t", 0), 2);
    assert_eq!(focus(b"\x1b[Z\x1b[Z", 0), 12);
    assert_eq!(focus(b"1", 5000), 1);
    assert_eq!(focus(b"2", 5100), 12);
    assert_eq!(focus(b"2", 9000), 2);
    assert_eq!(focus(b"9", 9100), 9);
    assert_eq!(focus(b"1", 20000), 1);
    assert_eq!(focus(b"\x1b[C", 20000), 2);
    assert_eq!(focus(b"\x1b[D\x1b[D", 20000), 1);
}

#[test]
fn an_arrow_over_the_edge_of_a_page_turns_it() {
    let mut app = running(20);
    app.resized(Size { width: 80, height: 24 });
    assert_eq!(app.page(), (1, 3));
    app.typed(b"8\x1b[B", 0);
    assert_eq!((app.focused, app.page()), (8, (2, 3)));
    app.typed(b"\x1b[A", 0);
    assert_eq!((app.focused, app.page()), (7, (1, 3)));
}

#[test]
fn typing_in_a_guest_asks_to_write_there_and_the_escape_key_goes_back_to_reading() {
    let mut app = running(2);
    app.frame(1, Kind::Live, b"12345", 0);
    assert_eq!(typed(&mut app, b"2i"), [open(1, Mode::Write, false, 5)]);
    // What comes before the answer waits for it.
    assert_eq!(typed(&mut app, b"ro"), []);
    app.greeted(1, &greeting("g2", Mode::Write, Some("me")), 0);
    let send = |bytes: &[u8]| Wish::Send { pane: 1, kind: Kind::Input, payload: bytes.to_vec() };
    assert_eq!(app.take_wishes(), [send(b"ro")]);
    assert_eq!(typed(&mut app, b"\x1b[A"), [send(b"\x1b[A")]);
    assert_eq!(typed(&mut app, b"q"), [send(b"q")]);
    app.typed(b"\x1d", 2000);
    assert_eq!(app.deadline(), Some(2000 + TWICE_MS));
    app.tick(2000 + TWICE_MS);
    assert_eq!(app.take_wishes(), [open(1, Mode::Read, false, 5)]);
    assert_eq!(app.focus, Focus::Overview);
    assert!(!app.done);
}

#[test]
fn the_escape_key_twice_is_for_the_guest_and_with_another_key_it_leaves_at_once() {
    let mut app = running(1);
    app.typed(b"i", 0);
    app.greeted(0, &greeting("g1", Mode::Write, Some("me")), 0);
    app.take_wishes();
    assert_eq!(
        typed(&mut app, b"\x1d\x1d"),
        [Wish::Send { pane: 0, kind: Kind::Input, payload: vec![0x1d] }]
    );
    typed(&mut app, b"\x1d?");
    assert_eq!(app.focus, Focus::Help);
}

#[test]
fn where_somebody_else_writes_it_says_who_and_t_takes() {
    let mut app = running(1);
    app.typed(b"i", 0);
    app.take_wishes();
    app.greeted(0, &greeting("g1", Mode::Read, Some("alice (tty1)")), 0);
    assert_eq!(app.message(), Some("alice (tty1) is writing on g1; t takes it"));
    assert_eq!(app.focus, Focus::Overview);
    // Who does not type does not wait for it either.
    assert_eq!(app.take_wishes(), [open(0, Mode::Read, false, 0)]);
    assert_eq!(typed(&mut app, b"t"), [open(0, Mode::Write, true, 0)]);
}

#[test]
fn who_loses_the_console_while_typing_is_not_taken_for_one_who_commands() {
    let mut app = running(1);
    app.typed(b"i", 0);
    app.greeted(0, &greeting("g1", Mode::Write, Some("me")), 0);
    app.frame(0, Kind::Mode, br#""ro""#, 0);
    app.take_wishes();
    assert_eq!(typed(&mut app, b"quit\r"), []);
    assert!(!app.done && app.focus == Focus::Guest);
    let wishes = [open(0, Mode::Read, false, 0), open(0, Mode::Write, true, 0)];
    assert_eq!(typed(&mut app, b"\x1dt"), wishes);
}

#[test]
fn with_read_only_nobody_types() {
    let mut app = running(1);
    app.options.read_only = true;
    assert_eq!(typed(&mut app, b"it"), []);
    assert_eq!((app.message(), &app.focus), (Some("nobody types here: --read-only"), &Focus::Overview));
}

#[test]
fn a_guest_that_is_down_cannot_be_typed_in() {
    let mut app = App::new(options(), Size { width: 160, height: 51 });
    app.looked(&[status("a", None)], Some(Vec::new()));
    app.take_wishes();
    assert_eq!(typed(&mut app, b"i"), []);
    assert_eq!(app.message(), Some("a is not running; gridgate start a starts it"));
}

#[test]
fn who_types_stays_the_writer_over_the_holders_end_and_the_guests_restart() {
    let mut app = running(1);
    app.typed(b"i", 0);
    app.greeted(0, &greeting("g1", Mode::Write, Some("me")), 0);
    app.frame(0, Kind::Live, b"abc", 0);
    app.take_wishes();
    app.lost(0);
    app.looked(&[status("g1", Some(1))], None);
    assert!(app.holder_gone);
    assert_eq!(app.take_wishes(), []);
    let now = ConsoleState { output_bytes: 7, ..console("g1", None) };
    app.looked(&[status("g1", Some(1))], Some(vec![now]));
    assert_eq!(app.take_wishes(), [open(0, Mode::Write, false, 3)]);
}

#[test]
fn a_guest_that_has_the_terminal_for_itself_is_told_its_size() {
    let mut app = running(2);
    app.typed(b"i", 0);
    app.greeted(0, &greeting("g1", Mode::Write, Some("me")), 0);
    app.take_wishes();
    // In a grid it is not.
    app.resized(Size { width: 120, height: 40 });
    assert_eq!(app.take_wishes(), []);
    typed(&mut app, b"\x1dz");
    typed(&mut app, b"i");
    app.greeted(0, &greeting("g1", Mode::Write, Some("me")), 0);
    let told = |width: u8, height: u8| Wish::Send {
        pane: 0,
        kind: Kind::Resize,
        payload: vec![0, width, 0, height],
    };
    assert_eq!(app.take_wishes(), [told(120, 38)]);
    app.resized(Size { width: 100, height: 30 });
    assert_eq!(app.take_wishes(), [told(100, 28)]);
    assert_eq!(app.panes[0].screen.size(), (28, 100));
}

#[test]
fn output_is_news_until_its_pane_is_focused_and_what_was_there_before_is_none() {
    let mut app = App::new(options(), Size { width: 160, height: 51 });
    let said = ConsoleState { output_bytes: 4, ..console("b", None) };
    app.looked(&[status("a", Some(1)), status("b", Some(2))], Some(vec![console("a", None), said.clone()]));
    app.greeted(1, &Greeting { mode: Mode::Read, console: said }, 0);
    app.frame(1, Kind::Position, br#"{"boot":1,"offset":0}"#, 0);
    app.frame(1, Kind::Live, b"old\n", 0);
    assert!(!app.panes[1].unseen);
    app.frame(1, Kind::Live, b"new\n", 0);
    assert!(app.panes[1].unseen);
    app.typed(b"2", 0);
    assert!(!app.panes[1].unseen);
    app.frame(1, Kind::Live, b"seen\n", 0);
    assert!(!app.panes[1].unseen);
}

#[test]
fn pasted_text_is_no_command_but_reaches_a_guest_unmarked_unless_it_asked_for_marks() {
    let mut app = running(1);
    assert_eq!(typed(&mut app, b"\x1b[200~iq\x1b[201~"), []);
    assert!(!app.done && app.focus == Focus::Overview);
    app.typed(b"i", 0);
    app.greeted(0, &greeting("g1", Mode::Write, Some("me")), 0);
    app.take_wishes();
    let sent = |wishes: Vec<Wish>| -> Vec<u8> {
        wishes
            .into_iter()
            .flat_map(|w| if let Wish::Send { payload, .. } = w { payload } else { vec![] })
            .collect()
    };
    assert_eq!(sent(typed(&mut app, b"\x1b[200~x\x1b[201~")), b"x");
    app.frame(0, Kind::Live, b"\x1b[?2004h\x1b[?1h", 0);
    assert_eq!(sent(typed(&mut app, b"\x1b[200~x\x1b[201~\x1b[A")), b"\x1b[200~x\x1b[201~\x1bOA");
}

#[test]
fn the_mouse_scrolls_and_focuses_and_never_types() {
    let mut app = running(2);
    for number in 0..200 {
        app.frame(0, Kind::Live, format!("{number}\r\n").as_bytes(), 0);
    }
    app.typed(b"\x1b[<0;100;5M", 0);
    assert_eq!(app.focused, 1);
    app.typed(b"1i", 0);
    app.greeted(0, &greeting("g1", Mode::Write, Some("me")), 0);
    app.take_wishes();
    assert_eq!(typed(&mut app, b"\x1b[<64;3;5M\x1b[<0;3;5m"), []);
    assert!(app.panes[0].scrolled.is_some());
    // A key brings back what the guest says now.
    typed(&mut app, b"x");
    assert_eq!(app.panes[0].scrolled, None);
}

#[test]
fn a_search_goes_back_from_line_to_line_and_says_when_there_is_no_more() {
    let mut app = running(1);
    for number in 0..300 {
        let word = if number % 100 == 50 { "PANIC" } else { "fine" };
        app.frame(0, Kind::Live, format!("{number} {word}\r\n").as_bytes(), 0);
    }
    let mut hit = |keys: &[u8]| {
        app.typed(keys, 0);
        (app.panes[0].hit, app.message().is_some())
    };
    assert_eq!(hit(b"/panic\r"), (Some(250), false));
    assert_eq!(hit(b"n"), (Some(150), false));
    assert_eq!(hit(b"nn"), (Some(50), true));
    assert_eq!(hit(b"N"), (Some(150), false));
}

proptest! {
    #[test]
    fn whatever_is_typed_said_and_resized_there_is_something_to_show(
        steps in prop::collection::vec((0u8..4, prop::collection::vec(prop_oneof![
            prop::sample::select(b"\t\r\x1b\x1dqzit/nNgGjkhl?123[AB5~".to_vec()), any::<u8>()], 0..12), 0u16..200, 0u16..70), 0..30),
    ) {
        let mut app = running(3);
        let mut now = 0;
        for (what, bytes, width, height) in steps {
            now += 200;
            let index = usize::from(width) % 3;
            match what {
                0 => app.typed(&bytes, now),
                1 => app.frame(index, Kind::Live, &bytes, now),
                2 => app.resized(Size { width, height }),
                _ => {
                    app.greeted(index, &greeting(&format!("g{}", index + 1), Mode::Write, Some("me")), now);
                }
            }
            app.tick(now);
            app.take_wishes();
            prop_assert!(app.focused < 3);
            let (width, height) = app.content();
            let shown = app.panes[app.focused].view(width, height);
            prop_assert!(shown.rows.len() <= usize::from(height));
        }
    }
}
