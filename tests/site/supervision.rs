//! Who ended a guest, starting it again, and in which order.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Running, TestSite, eventually, kill, take_over};

/// What happened to a guest, oldest first: the names of the events, and the events.
fn happened(site: &TestSite, guest: &str) -> (Vec<String>, Vec<Value>) {
    let text = std::fs::read_to_string(site.paths.events()).unwrap_or_default();
    let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let events: Vec<Value> = events.into_iter().filter(|event| event["guest"] == guest).collect();
    (events.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect(), events)
}

/// The newest event of that name, once there are so many of them.
#[track_caller]
fn nth(site: &TestSite, guest: &str, name: &str, count: usize) -> Value {
    eventually(&format!("'{name}' number {count}: {:?}", happened(site, guest).1), || {
        let (_, events) = happened(site, guest);
        let mut of_name = events.into_iter().filter(|event| event["event"] == name);
        of_name.nth(count - 1)
    })
}

#[test]
fn a_user_mode_guest_that_reboots_panics_is_killed_or_shuts_down_is_told_apart() {
    let extra = "restart = \"on-failure\"\nrestart_delay = \"1s\"\nrestart_settle = \"1h\"\nconsole_watch = [\"Restarting system$\"]";
    let Some(site) = TestSite::one("ce", extra) else { return };
    site.run(&["up"]).exits(0);
    let before = site.pid("ce");
    site.run(&["ssh", "ce", "systemctl reboot"]);
    nth(&site, "ce", "ready", 2);
    assert_eq!(nth(&site, "ce", "rebooted", 1)["boot"], 2);
    assert_eq!(site.pid("ce"), before);
    assert!(nth(&site, "ce", "console-match", 1)["line"].as_str().unwrap().ends_with("Restarting system"));
    // Each boot has its own console, from its first byte to its last.
    assert!(site.console("ce").starts_with("Linux version"), "{}", site.console("ce"));
    let first = site.run(&["console", "ce", "--log", "--boot", "-1"]).exits(0).out;
    assert!(first.starts_with("Linux version") && first.trim_end().ends_with("Restarting system"), "{first}");

    // A kernel that panics ends no connection.
    let cut = site.start(&["ssh", "ce", "echo c >/proc/sysrq-trigger"]);
    let stopped = nth(&site, "ce", "stopped", 1);
    cut.signal(Signal::TERM);
    cut.end();
    assert_eq!(
        (&stopped["by"], &stopped["how"]),
        (&json!("panic"), &json!("its kernel panicked: sysrq triggered crash"))
    );
    assert_eq!(nth(&site, "ce", "waiting", 1)["why"], "panic: sysrq triggered crash");
    nth(&site, "ce", "ready", 3);
    assert_eq!(site.status("ce")["restarts"]["early_deaths"], 1);

    kill(site.pid("ce"), Signal::KILL);
    let stopped = nth(&site, "ce", "stopped", 2);
    assert_eq!(stopped["how"], "its hypervisor was killed by signal 9");
    nth(&site, "ce", "ready", 4);

    site.run(&["stop", "ce"]).exits(0).says("ce: shut itself down in ");
    let status = site.status("ce");
    let exit = &status["last_exit"];
    assert_eq!((&exit["by"], &exit["rung"]), (&json!("host"), &json!("ask")), "{status}");
    assert_eq!((&status["restarts"], &status["desired"]), (&Value::Null, &json!("stopped")), "{status}");
    let shown = site.run(&["status", "ce"]).exits(0).out;
    assert!(shown.contains("ce: stopped (asked: it shut itself down in "), "{shown}");
}

#[test]
fn a_guest_that_always_dies_is_tried_ever_more_rarely_and_stays_down_when_it_is_stopped() {
    let extra = "kernel_args = \"root=/dev/nothing\"\nready = [\"login\"]\nrestart = \"on-failure\"\n\
                 restart_delay = \"1s\"\nrestart_tries = 3\nrestart_max_delay = \"1h\"";
    let Some(site) = TestSite::quick(&["ce"], extra) else { return };
    site.run(&["up"]).exits(5).says("guest 'ce' ended before it was ready (");
    nth(&site, "ce", "waiting", 3);
    let status = site.status("ce");
    let restarts = &status["restarts"];
    assert_eq!((&restarts["early_deaths"], &restarts["breaker"]), (&json!(3), &json!("open")), "{status}");
    assert_eq!(restarts["wait_ms"], 3_600_000);
    let why = restarts["why"].as_str().unwrap();
    assert!(why.starts_with("panic: VFS: Unable to mount root fs"), "{why}");
    let shown = site.run(&["status", "ce"]).exits(3).out;
    assert!(shown.contains(" waiting ") && shown.contains("ce: waiting: next try in 3"), "{shown}");
    assert!(shown.contains("(panic: VFS: Unable to mount root fs"), "{shown}");
    let lines = restarts["last_lines"].as_array().unwrap();
    assert!(lines.iter().all(|line| shown.contains(line.as_str().unwrap().trim_end())), "{shown}");

    // Another holder goes on waiting.
    kill(site.holder().unwrap(), Signal::KILL);
    eventually("the holder is gone", || site.holder().is_none().then_some(()));
    site.run(&["wait", "ce", "--for", "stopped", "--timeout", "120s"]).exits(0);
    // By hand it is tried at once, and counted anew. The next try is not to come before all of it was looked at.
    site.replace("guests/ce.toml", "restart_delay = \"1s\"", "restart_delay = \"1h\"");
    site.run(&["start", "ce"]).exits(5).says("guest 'ce' ended before it was ready (");
    assert_eq!(site.status("ce")["restarts"]["early_deaths"], 1);
    site.run(&["stop", "ce"]).exits(0).says("ce: was not running");
    let starts = happened(&site, "ce").0.iter().filter(|name| *name == "started").count();
    let status = site.status("ce");
    assert_eq!((&status["restarts"], &status["observed"]), (&Value::Null, &json!("stopped")), "{status}");
    site.run(&["down"]).exits(0);
    assert_eq!(happened(&site, "ce").0.iter().filter(|name| *name == "started").count(), starts);
}

#[test]
fn a_container_that_reboots_comes_back_whoever_saw_it_and_so_does_one_that_was_killed() {
    let extra = "backend = \"nspawn\"\nready = [\"login\", \"notify\"]\nrestart_delay = \"1s\"\nrestart = \"on-failure\"\nstop_timeout = \"30s\"";
    let Some(site) = TestSite::quick(&["ce"], extra) else { return };
    site.run(&["up"]).exits(0);
    site.run(&["ssh", "ce", "systemctl reboot"]);
    nth(&site, "ce", "ready", 2);
    assert_eq!(nth(&site, "ce", "rebooted", 1)["boot"], 2);
    kill(site.pid("ce"), Signal::KILL);
    assert_eq!(nth(&site, "ce", "stopped", 1)["by"], "killed");
    nth(&site, "ce", "ready", 3);
    if !take_over::is_possible() {
        return;
    }
    // While nobody looks: its last words tell the next holder.
    let (holder, pid) = (site.holder().unwrap(), site.pid("ce"));
    kill(holder, Signal::KILL);
    eventually("the holder is gone", || (site.holder() != Some(holder)).then_some(()));
    kill(pid, Signal::TERM);
    eventually("the container is gone", || {
        (!site.record("ce").is_some_and(|run| run.is_alive())).then_some(())
    });
    site.run(&["up"]).exits(0);
    assert_eq!(nth(&site, "ce", "ready", 4)["event"], "ready");
    assert_eq!(site.status("ce")["last_exit"]["by"], "guest");
}

/// Attaches to the console of `ce`, types a line and stays.
fn types(site: &TestSite, line: &str) -> Running {
    let mut command = site.command(&["console", "--take", "ce"]);
    command.stdin(std::process::Stdio::piped());
    let mut console = site.spawn(command);
    console.types(line);
    console
}

/// Under emulation a boot to the login prompt takes a minute on a busy machine: a shell in place of init is enough.
#[test]
fn a_whole_machine_tells_a_reset_from_a_panic_and_both_from_a_signal() {
    let extra = "backend = \"qemu\"\nmemory = \"512M\"\nkernel_args = \"init=/bin/sh quiet\"\nready = [\"console:^# $\"]\nready_timeout = \"10m\"";
    let Some(site) = TestSite::quick(&["ce"], extra) else { return };
    let types = |line: &str| types(&site, line);
    site.run(&["up"]).exits(0);
    let pid = site.pid("ce");
    let console = types("mount -t proc proc /proc; echo b >/proc/sysrq-trigger");
    nth(&site, "ce", "ready", 2);
    console.signal(Signal::TERM);
    console.end();
    assert_eq!((&nth(&site, "ce", "rebooted", 1)["boot"], site.pid("ce")), (&json!(2), pid));
    // It ends with the guest.
    let console = types("mount -t proc proc /proc; modprobe pvpanic-pci; echo c >/proc/sysrq-trigger");
    let stopped = nth(&site, "ce", "stopped", 1);
    console.end().exits(0);
    assert_eq!(
        (&stopped["by"], &stopped["how"]),
        (&json!("panic"), &json!("its kernel panicked: sysrq triggered crash"))
    );
    // The first sign of life is enough now.
    site.replace("guests/ce.toml", "console:^# $", "console:.");
    site.run(&["up"]).exits(0);
    kill(site.pid("ce"), Signal::TERM);
    let stopped = nth(&site, "ce", "stopped", 2);
    assert_eq!(
        (&stopped["by"], &stopped["how"]),
        (&json!("killed"), &json!("its hypervisor was told to end"))
    );
}

/// As much of the QEMU guest agent as is asked of it: a shell that answers on the port of that name. The port comes some
/// time after its driver, when QEMU has told the kernel of it; there is nothing to be read there as long as nobody asks.
const AGENT: &str = "mount -t proc p /proc; mount -t sysfs s /sys; modprobe virtio_console; \
    until name=$(grep -sl guest_agent /sys/class/virtio-ports/*/name); do sleep 0.1; done; \
    name=${name%/name}; exec 3<>/dev/${name##*/}; \
    while :; do read -r line <&3 || sleep 0.1; case $line in *guest-sync*) id=${line##*:}; printf \"\\377{\\\"return\\\":${id%%\\}*}}\\n\" >&3;; \
    *guest-shutdown*) echo o >/proc/sysrq-trigger;; esac; done";

#[test]
fn an_agent_in_the_guest_makes_it_ready_and_is_the_first_to_be_asked_when_it_is_stopped() {
    let extra = "backend = \"qemu\"\nmemory = \"512M\"\nkernel_args = \"init=/bin/sh quiet\"\n\
                 ready = [\"console:^# $\", \"agent\"]\nready_timeout = \"10m\"\n\
                 stop = [\"agent=2m\", \"agent=2m\", \"kill\"]";
    let Some(site) = TestSite::quick(&["ce"], extra) else { return };
    let up = site.start(&["up"]);
    let missing = |site: &TestSite| site.status("ce")["missing"].clone();
    eventually("its shell is there", || (missing(&site) == json!(["agent"])).then_some(()));
    let console = types(&site, AGENT);
    up.end().exits(0).says("ce: ready after ");
    site.run(&["stop", "ce"]).exits(0).says(", asked by its agent");
    console.end();
    let exit = site.status("ce")["last_exit"].clone();
    assert_eq!((&exit["by"], &exit["rung"]), (&json!("host"), &json!("agent")));
}

#[test]
fn priority_delay_and_what_was_desired_decide_who_is_started_and_when() {
    let Some(site) = TestSite::quick(&["aa", "bb"], "") else { return };
    site.write("guests/aa.toml", "address = \"10.77.0.10\"\ndelay = \"1s\"\n");
    site.write("guests/bb.toml", "address = \"10.77.0.11\"\npriority = 90\n");
    let plan = site.run(&["plan"]).exits(3).out;
    let place = |text: &str| plan.find(text).unwrap_or_else(|| panic!("no '{text}' in {plan}"));
    assert!(place("bb: start\n") < place("aa: start, not before its delay of 1.0 s is over"), "{plan}");
    site.run(&["up"]).exits(0);
    let started = |guest: &str| nth(&site, guest, "started", 1)["at_ms"].as_u64().unwrap();
    assert!(started("bb") < started("aa"));
    let began = site.paths.holder_socket().metadata().unwrap().modified().unwrap();
    let began = began.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(started("aa") >= began + 1000, "{began}");

    site.run(&["stop", "aa"]).exits(0);
    site.run(&["kill", "bb"]).exits(0);
    site.run(&["up", "--desired"]).exits(0).says("nothing to do: no guest is to run");
    site.run(&["start", "bb"]).exits(0);
    kill(site.pid("bb"), Signal::KILL);
    nth(&site, "bb", "stopped", 2);
    site.run(&["up", "--desired"]).exits(0).says("bb: ready after ");
    assert_eq!(site.status("aa")["observed"], "stopped");
    site.run(&["up"]).exits(0).says("aa: ready after ");
}
