//! How a guest is looked after: when it starts among others, how it is stopped, and what happens when it dies.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervision {
    /// Guests of higher priority are started before those of lower, without being waited for until they are ready.
    pub priority: u32,
    /// The guest is not started earlier than so long after those that it waits for are ready; one that waits for
    /// nobody, not earlier than so long after gridgate itself began to run.
    #[serde(rename = "delay_ms", with = "milliseconds")]
    pub delay: Duration,
    /// How it is stopped, one rung after the other.
    pub stop: Vec<StopStep>,
    /// What happens when it ends without having been asked to.
    pub restart: RestartPolicy,
}

/// A rung of the ladder by which a guest is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopStep {
    /// What is done.
    pub rung: StopRung,
    /// How long it may take before the next one. [`StopRung::Kill`] has none.
    #[serde(rename = "limit_ms", with = "milliseconds")]
    pub limit: Duration,
}

/// What is done to stop a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopRung {
    /// A command inside the guest, as root, over SSH with the site's own key.
    Command(String),
    /// The QEMU guest agent is told to shut down. Left out where there is none.
    Agent,
    /// The power button (QEMU), Ctrl-Alt-Del (user-mode Linux) or SIGTERM (nspawn); the first two again every 10 s.
    Ask,
    /// The guest's kernel writes its filesystems back and mounts them read-only (SysRq s, u).
    Sysrq,
    /// The hypervisor is told to end.
    Quit,
    /// SIGKILL: a power cut.
    Kill,
}

impl StopRung {
    /// As in the site's files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::Agent => "agent",
            Self::Ask => "ask",
            Self::Sysrq => "sysrq",
            Self::Quit => "quit",
            Self::Kill => "kill",
        }
    }
}

/// Whether a guest that ended by itself is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartWhen {
    /// Never; not even if its kernel panicked.
    Never,
    /// If its kernel panicked, or its hypervisor failed or was killed; not if it shut itself down.
    OnFailure,
    /// Whatever the reason, unless it was stopped on purpose.
    Always,
}

impl RestartWhen {
    /// As in the site's files.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "never" => Self::Never,
            "on-failure" => Self::OnFailure,
            "always" => Self::Always,
            _ => return None,
        })
    }
}

/// What happens when a guest ends without having been asked to. A guest that reboots is not one that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Whether it is started again at all.
    pub when: RestartWhen,
    /// The first wait; each early death doubles it.
    #[serde(rename = "delay_ms", with = "milliseconds")]
    pub delay: Duration,
    /// The longest wait.
    #[serde(rename = "max_delay_ms", with = "milliseconds")]
    pub max_delay: Duration,
    /// A guest that was ready for so long has not died early: what was counted is forgotten.
    #[serde(rename = "settle_ms", with = "milliseconds")]
    pub settle: Duration,
    /// After so many early deaths in a row there is one try each longest wait, until one of them settles.
    pub tries: u32,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            priority: 50,
            delay: Duration::ZERO,
            stop: default_stop(Duration::from_secs(60)),
            restart: RestartPolicy::default(),
        }
    }
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            when: RestartWhen::OnFailure,
            delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(600),
            settle: Duration::from_secs(60),
            tries: 5,
        }
    }
}

/// The ladder of a guest whose file does not say another, with the limit of its polite part.
pub fn default_stop(ask: Duration) -> Vec<StopStep> {
    [StopRung::Agent, StopRung::Ask, StopRung::Sysrq, StopRung::Quit, StopRung::Kill]
        .map(|rung| StopStep { limit: usual_limit(&rung, ask), rung })
        .to_vec()
}

fn usual_limit(rung: &StopRung, ask: Duration) -> Duration {
    match rung {
        StopRung::Command(_) | StopRung::Ask => ask,
        // An agent that hears shuts down at once; `ask` does the waiting for one that does not.
        StopRung::Agent => ask.min(Duration::from_secs(20)),
        StopRung::Sysrq | StopRung::Quit => ask.min(Duration::from_secs(5)),
        StopRung::Kill => Duration::ZERO,
    }
}

/// A rung as in the site's files: `ask` or `ask=60s`. Without a limit of its own `ask` gets `stop_timeout`.
pub fn parse_stop(text: &str, stop_timeout: Duration) -> Result<StopStep, String> {
    let (name, limit) = match text.split_once('=') {
        Some((name, limit)) => (name, Some(crate::names::parse_duration(limit).map_err(|why| why.0)?)),
        None => (text, None),
    };
    let rung = match name {
        "agent" => StopRung::Agent,
        "ask" => StopRung::Ask,
        "sysrq" => StopRung::Sysrq,
        "quit" => StopRung::Quit,
        "kill" if limit.is_some() => return Err("has a limit, but nothing comes after a kill".to_owned()),
        "kill" => StopRung::Kill,
        _ => return Err("is not a way to stop a guest; agent, ask, sysrq, quit and kill are".to_owned()),
    };
    Ok(StopStep { limit: limit.unwrap_or_else(|| usual_limit(&rung, stop_timeout)), rung })
}

/// A span of time as its number of milliseconds.
pub mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// For `serde(with)`.
    pub fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }

    /// For `serde(with)`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rung_without_a_limit_gets_the_usual_one() {
        let minute = Duration::from_secs(60);
        let step = |text: &str| parse_stop(text, minute).map(|step| (step.rung.name(), step.limit.as_secs()));
        assert_eq!(step("ask"), Ok(("ask", 60)));
        assert_eq!(step("ask=2min"), Ok(("ask", 120)));
        assert_eq!(step("sysrq"), Ok(("sysrq", 5)));
        assert_eq!(step("kill"), Ok(("kill", 0)));
        assert!(step("kill=3s").unwrap_err().contains("nothing comes after"));
        assert!(step("shoot").unwrap_err().contains("agent, ask, sysrq, quit and kill"));
    }

    #[test]
    fn the_usual_ladder_ends_with_a_kill() {
        let names: Vec<&str> = Supervision::default().stop.iter().map(|step| step.rung.name()).collect();
        assert_eq!(names, ["agent", "ask", "sysrq", "quit", "kill"]);
    }

    proptest! {
        #[test]
        fn any_rung_is_read_or_refused(text in "[a-z=0-9]{0,20}") {
            let _ = parse_stop(&text, Duration::from_secs(1));
        }
    }
}
