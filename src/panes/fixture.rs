//! Guests and consoles as tests need them.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::net::{IpAddr, Ipv4Addr};

use crate::config::limits::Limits;
use crate::console::protocol::{ConsoleState, Greeting, Mode};
use crate::console::record::{ReadyRecord, ReadyState};
use crate::names::GuestName;
use crate::report::status::{GuestStatus, Observed, Readiness};
use crate::service::desired::Desired;

pub(super) fn guest(name: &str) -> GuestName {
    name.parse().unwrap()
}

/// A guest that is ready as that process, or stopped.
pub(super) fn status(name: &str, pid: Option<i32>) -> GuestStatus {
    GuestStatus {
        name: guest(name),
        role: "ce".to_owned(),
        desired: if pid.is_some() { Desired::Running } else { Desired::Stopped },
        observed: if pid.is_some() { Observed::Running } else { Observed::Stopped },
        ready: if pid.is_some() { Readiness::Ready } else { Readiness::No },
        backend: "uml".to_owned(),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        pid,
        uptime_ms: None,
        ready_after_ms: None,
        memory_bytes: None,
        cpu_ms: None,
        limits: Limits::default(),
        limits_ignored: Vec::new(),
        last_exit: None,
        stopping: None,
        missing: Vec::new(),
        says: None,
        log_trouble: None,
        restarts: None,
        profile: None,
    }
}

/// The console of a guest in its first boot that has said nothing.
pub(super) fn console(name: &str, writer: Option<&str>) -> ConsoleState {
    ConsoleState {
        guest: guest(name),
        pid: 1,
        backend: "uml".to_owned(),
        launched_at_ms: 0,
        boot: 1,
        ready: ReadyRecord {
            state: ReadyState::Ready,
            at_ms: 0,
            after_ms: 0,
            began_at_ms: 0,
            began_up_ms: None,
            ready_up_ms: None,
            log_trouble: None,
            ready_at_ms: None,
            said: None,
            pid: 1,
            start_ticks: 1,
            checks: Vec::new(),
        },
        writer: writer.map(str::to_owned),
        attached: 1,
        clients: Vec::new(),
        last_output_ms: None,
        output_bytes: 0,
        log_bytes: 0,
        lost_bytes: 0,
        log_trouble: None,
    }
}

pub(super) fn greeting(name: &str, mode: Mode, writer: Option<&str>) -> Greeting {
    Greeting { mode, console: console(name, writer) }
}
