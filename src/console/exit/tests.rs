use super::*;
use proptest::prelude::*;

fn site() -> (tempfile::TempDir, Paths, GuestName) {
    let state = tempfile::tempdir().unwrap();
    let paths = Paths::new(state.path(), state.path());
    // The run directory of a test's own, not the host's.
    let paths = Paths { run: state.path().join("run"), ..paths };
    (state, paths, "ce".parse().unwrap())
}

fn run(backend: &str) -> RunRecord {
    RunRecord::of_this_process(backend, 3, None).unwrap()
}

#[test]
fn the_last_words_of_a_kernel_are_its_panic_and_not_the_stack_after_it() {
    let mut lines: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
    assert_eq!(telling(lines.clone()).first().map(String::as_str), Some("line 30"));
    lines[40] = "Kernel panic - not syncing: VFS: Unable to mount root fs".to_owned();
    let told = telling(lines);
    assert_eq!(told.len(), LAST_LINES);
    assert!(told[19].starts_with("Kernel panic"), "{told:?}");
    assert_eq!(telling(Vec::new()), Vec::<String>::new());
}

#[test]
fn a_known_cause_is_kept_whoever_comes_first() {
    let (_state, paths, guest) = site();
    let launched = now_ms();
    let told = |record: Result<ExitRecord>| record.unwrap().told();
    assert_eq!(told(write_exit(&paths, &guest, launched, Cause::Unknown, None)), "ended");
    assert_eq!(told(write_exit(&paths, &guest, launched, Cause::Exit, Some(3))), "exit 3");
    assert_eq!(told(write_exit(&paths, &guest, launched, Cause::Unknown, None)), "exit 3");
    assert_eq!(told(write_exit(&paths, &guest, now_ms() + 1, Cause::Unknown, None)), "ended");
}

#[test]
fn a_hook_that_is_not_told_which_life_ended_finds_it() {
    let (_state, paths, guest) = site();
    let first = run("uml");
    first.write(&paths, &guest).unwrap();
    write_exit(&paths, &guest, first.launched_at_ms, Cause::Unknown, None).unwrap();
    let exit = ended(&paths, &guest, Cause::Exit, Some(0)).unwrap();
    assert_eq!((exit.launched_at_ms, exit.by), (first.launched_at_ms, EndedBy::Guest));
    // A launcher that failed before there was a life is an end of its own.
    let failed = ended(&paths, &guest, Cause::Exit, Some(1)).unwrap();
    assert_eq!(failed.by, EndedBy::Killed);
    assert!(failed.launched_at_ms >= first.launched_at_ms);
}

#[test]
fn who_stops_a_guest_is_known_to_have_ended_it_and_by_which_rung() {
    let (_state, paths, guest) = site();
    let run = run("uml");
    run.write(&paths, &guest).unwrap();
    let mark = |launched_at_ms| StopMark {
        launched_at_ms,
        began_ms: now_ms() - 800,
        rung: "ask".to_owned(),
        until_ms: 0,
    };
    mark(run.launched_at_ms - 1).write(&paths, &guest).unwrap();
    let exit = write_exit(&paths, &guest, run.launched_at_ms, Cause::Exit, Some(0)).unwrap();
    assert_eq!((exit.by, exit.how().as_str()), (EndedBy::Guest, "it shut itself down"));
    mark(run.launched_at_ms).write(&paths, &guest).unwrap();
    let exit = write_exit(&paths, &guest, run.launched_at_ms, Cause::Unknown, None).unwrap();
    assert_eq!((exit.by, exit.rung.as_deref()), (EndedBy::Host, Some("ask")));
    assert!(exit.how().starts_with("asked: it shut itself down in 0."), "{}", exit.how());
}

#[test]
fn a_life_that_the_hosts_end_cut_short_is_known_after_its_next_boot() {
    let (_state, paths, guest) = site();
    let mut before = run("uml");
    before.boot_id = "another boot".to_owned();
    before.write(&paths, &guest).unwrap();
    assert_eq!(ExitRecord::read(&paths, &guest).unwrap(), None);
    let cut = ExitRecord::latest(&paths, &guest).unwrap().unwrap();
    assert_eq!((cut.by, cut.launched_at_ms), (EndedBy::PowerCut, before.launched_at_ms));
    // The next life leaves it on record.
    let mut next = run("uml");
    next.launched_at_ms += 1;
    next.write(&paths, &guest).unwrap();
    assert_eq!(ExitRecord::read(&paths, &guest).unwrap(), Some(cut.clone()));
    assert_eq!(ExitRecord::latest(&paths, &guest).unwrap(), Some(cut));
}

#[test]
fn each_end_has_somebody_who_ended_it() {
    let by = |backend, cause, code, hint, last: &str| {
        let last_lines = [last.to_owned()];
        Seen { backend, cause, code, hint, stopping: false, other_boot: false, last_lines: &last_lines }.by()
    };
    let panic = "Kernel panic - not syncing: VFS: Unable to mount root fs";
    assert_eq!(by("uml", Cause::Exit, Some(0), None, "x"), EndedBy::Guest);
    assert_eq!(by("uml", Cause::Signal, Some(6), None, "x"), EndedBy::Panic);
    assert_eq!(by("uml", Cause::Exit, Some(1), None, panic), EndedBy::Panic);
    assert_eq!(by("uml", Cause::Signal, Some(9), None, "x"), EndedBy::Killed);
    assert_eq!(by("uml", Cause::Exit, Some(1), None, "x"), EndedBy::Killed);
    assert_eq!(by("uml", Cause::Unknown, None, None, panic), EndedBy::Panic);
    assert_eq!(by("uml", Cause::Unknown, None, None, "[ 7.1] reboot: Power down"), EndedBy::Guest);
    assert_eq!(by("uml", Cause::Unknown, None, None, "x"), EndedBy::Unknown);
    assert_eq!(by("qemu", Cause::Exit, Some(0), Some(Hint::Quit), "x"), EndedBy::Killed);
    assert_eq!(by("qemu", Cause::Exit, Some(0), Some(Hint::Shutdown), "x"), EndedBy::Guest);
    let said = Hint::Panic { why: "x".to_owned() };
    assert_eq!(by("qemu", Cause::Exit, Some(1), Some(said), "x"), EndedBy::Panic);
}

#[test]
fn what_nspawn_says_last_stands_for_its_status() {
    assert_eq!(said_by_nspawn("Container ce is being rebooted.\n"), (Cause::Exit, Some(133)));
    assert_eq!(said_by_nspawn("x\nContainer ce has been shut down.\n"), (Cause::Exit, Some(0)));
    assert_eq!(said_by_nspawn("Container ce terminated by signal KILL.\n"), (Cause::Unknown, None));
    assert_eq!(said_by_nspawn(""), (Cause::Unknown, None));
}

proptest! {
    #[test]
    fn any_last_line_is_a_panic_or_not(line in "\\PC{0,80}") {
        let _ = panic_of(&line);
        let _ = said_by_nspawn(&line);
    }
}
