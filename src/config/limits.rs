//! How much of the host a guest may use.
//!
//! A limit is a whole number in the unit that its key has: percent of one processor, bytes, bytes a second, operations a
//! second. Where nothing is said, nothing is limited.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::Bytes;

/// Something that can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Processor time, in percent of one processor.
    Cpu,
    /// Share of the processors when there are too few for all, from 1 to 10000; 100 where nothing is said.
    CpuWeight,
    /// Main memory of the whole hypervisor (of all processes, for nspawn), in bytes. Nothing of it is swapped out.
    Memory,
    /// Processes and threads on the host.
    Pids,
    /// Bytes a second from the disk.
    DiskRead,
    /// Bytes a second to the disk.
    DiskWrite,
    /// Reads a second.
    DiskReadOps,
    /// Writes a second.
    DiskWriteOps,
    /// Bytes a second to the guest.
    NetIn,
    /// Bytes a second from the guest.
    NetOut,
}

/// The limits of a guest; what is not there is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// [`Limit::Cpu`].
    pub cpu_percent: Option<u64>,
    /// [`Limit::CpuWeight`].
    pub cpu_weight: Option<u64>,
    /// [`Limit::Memory`].
    pub memory_bytes: Option<u64>,
    /// [`Limit::Pids`].
    pub pids: Option<u64>,
    /// [`Limit::DiskRead`].
    pub disk_read_bytes: Option<u64>,
    /// [`Limit::DiskWrite`].
    pub disk_write_bytes: Option<u64>,
    /// [`Limit::DiskReadOps`].
    pub disk_read_ops: Option<u64>,
    /// [`Limit::DiskWriteOps`].
    pub disk_write_ops: Option<u64>,
    /// [`Limit::NetIn`].
    pub net_in_bytes: Option<u64>,
    /// [`Limit::NetOut`].
    pub net_out_bytes: Option<u64>,
}

/// What the hypervisor of a backend needs at least beside its guest's memory, in bytes; `None` for one whose guest has no
/// memory of its own. Measured on idle guests after their boot, rounded up.
pub fn overhead(backend: &str) -> Option<u64> {
    match backend {
        "nspawn" => None,
        // Devices, and the least of translated code that emulation goes well with.
        "qemu" => Some(192 << 20),
        // Which one `auto` becomes is not known yet; user-mode Linux needs less.
        _ => Some(32 << 20),
    }
}

/// The word that lifts a limit which a weaker layer has set.
pub const NONE: &str = "none";

/// The unit that a number counts.
enum Unit {
    Percent,
    Plain,
    Bytes,
}

impl Limit {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 10] = [
        Self::Cpu,
        Self::CpuWeight,
        Self::Memory,
        Self::Pids,
        Self::DiskRead,
        Self::DiskWrite,
        Self::DiskReadOps,
        Self::DiskWriteOps,
        Self::NetIn,
        Self::NetOut,
    ];

    /// Its key in a site's files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::CpuWeight => "cpu_weight",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::DiskRead => "disk_read",
            Self::DiskWrite => "disk_write",
            Self::DiskReadOps => "disk_read_ops",
            Self::DiskWriteOps => "disk_write_ops",
            Self::NetIn => "net_in",
            Self::NetOut => "net_out",
        }
    }

    /// The limit of that key.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|limit| limit.name() == name)
    }

    /// A good value.
    pub fn example(self) -> &'static str {
        match self {
            Self::Cpu => "50%",
            Self::CpuWeight => "100",
            Self::Memory => "512M",
            Self::Pids => "200",
            Self::DiskRead | Self::DiskWrite | Self::NetIn | Self::NetOut => "10M",
            Self::DiskReadOps | Self::DiskWriteOps => "100",
        }
    }

    /// What it takes, for a message.
    pub fn noun(self) -> &'static str {
        match self.unit() {
            Unit::Percent => "a percentage as text",
            Unit::Plain => "a whole number",
            Unit::Bytes if self == Self::Memory => "a size as text",
            Unit::Bytes => "a size (of a second) as text",
        }
    }

    fn unit(self) -> Unit {
        match self {
            Self::Cpu => Unit::Percent,
            Self::CpuWeight | Self::Pids | Self::DiskReadOps | Self::DiskWriteOps => Unit::Plain,
            Self::Memory | Self::DiskRead | Self::DiskWrite | Self::NetIn | Self::NetOut => Unit::Bytes,
        }
    }

    /// The least and the most that makes sense: below, a guest could not even start.
    fn range(self) -> (u64, u64) {
        match self {
            // A hundredth of a processor is the kernel's least quota; 256 processors are the most that a guest has.
            Self::Cpu => (1, 25_600),
            Self::CpuWeight => (1, 10_000),
            Self::Memory => (32 << 20, 1 << 45),
            // PID_MAX_LIMIT of linux/threads.h. QEMU has a dozen threads.
            Self::Pids => (16, 1 << 22),
            Self::DiskRead | Self::DiskWrite => (256 << 10, 1 << 40),
            Self::DiskReadOps | Self::DiskWriteOps => (1, 1 << 30),
            // Four full packets a second.
            Self::NetIn | Self::NetOut => (6 << 10, 1 << 40),
        }
    }

    /// The value that a text stands for; `None` for [`NONE`]. An error completes "KEY 'TEXT' ...".
    pub fn parse(self, text: &str) -> Result<Option<u64>, String> {
        let text = text.trim();
        if text == NONE {
            return Ok(None);
        }
        let digits = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
        };
        let value = match self.unit() {
            Unit::Percent => match text.strip_suffix('%') {
                Some(number) => digits(number.trim_end()).ok_or("is not a whole percentage")?,
                None => return Err("has no '%'; 100% is one processor".to_owned()),
            },
            Unit::Plain => digits(text).ok_or("is not a whole number")?,
            Unit::Bytes if digits(text).is_some() => return Err("has no unit".to_owned()),
            Unit::Bytes => text.parse::<Bytes>().map_err(|why| why.0)?.0,
        };
        let (least, most) = self.range();
        match value {
            value if value < least => Err(format!("is less than {}", self.show(least))),
            value if value > most => Err(format!("is more than {}", self.show(most))),
            value => Ok(Some(value)),
        }
    }

    /// A value as [`Limit::parse`] reads it: nothing is rounded.
    pub fn show(self, value: u64) -> String {
        match self.unit() {
            Unit::Percent => format!("{value}%"),
            Unit::Plain => value.to_string(),
            Unit::Bytes => {
                let units = [(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K"), (1, "B")];
                let fits = |(size, _): &(u64, &str)| value >= *size && value.is_multiple_of(*size);
                let (size, unit) = units.into_iter().find(fits).unwrap_or((1, "B"));
                format!("{}{unit}", value / size)
            }
        }
    }
}

impl Limits {
    /// The value of one.
    pub fn get(&self, limit: Limit) -> Option<u64> {
        match limit {
            Limit::Cpu => self.cpu_percent,
            Limit::CpuWeight => self.cpu_weight,
            Limit::Memory => self.memory_bytes,
            Limit::Pids => self.pids,
            Limit::DiskRead => self.disk_read_bytes,
            Limit::DiskWrite => self.disk_write_bytes,
            Limit::DiskReadOps => self.disk_read_ops,
            Limit::DiskWriteOps => self.disk_write_ops,
            Limit::NetIn => self.net_in_bytes,
            Limit::NetOut => self.net_out_bytes,
        }
    }

    /// Sets one, or lifts it.
    pub fn set(&mut self, limit: Limit, value: Option<u64>) {
        let place = match limit {
            Limit::Cpu => &mut self.cpu_percent,
            Limit::CpuWeight => &mut self.cpu_weight,
            Limit::Memory => &mut self.memory_bytes,
            Limit::Pids => &mut self.pids,
            Limit::DiskRead => &mut self.disk_read_bytes,
            Limit::DiskWrite => &mut self.disk_write_bytes,
            Limit::DiskReadOps => &mut self.disk_read_ops,
            Limit::DiskWriteOps => &mut self.disk_write_ops,
            Limit::NetIn => &mut self.net_in_bytes,
            Limit::NetOut => &mut self.net_out_bytes,
        };
        *place = value;
    }

    /// Those that are set, in the order in which they are shown.
    pub fn iter(&self) -> impl Iterator<Item = (Limit, u64)> + '_ {
        Limit::ALL.into_iter().filter_map(|limit| Some((limit, self.get(limit)?)))
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said: Vec<String> =
            self.iter().map(|(limit, value)| format!("{}={}", limit.name(), limit.show(value))).collect();
        f.pad(&said.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_limit_has_its_own_unit() {
        assert_eq!(Limit::Cpu.parse("50%"), Ok(Some(50)));
        assert_eq!(Limit::Cpu.parse("50").unwrap_err(), "has no '%'; 100% is one processor");
        assert_eq!(Limit::Memory.parse("512M"), Ok(Some(512 << 20)));
        assert_eq!(Limit::Memory.parse("512").unwrap_err(), "has no unit");
        assert_eq!(Limit::Memory.parse("1M").unwrap_err(), "is less than 32M");
        assert_eq!(Limit::CpuWeight.parse("10001").unwrap_err(), "is more than 10000");
        assert_eq!(Limit::NetIn.parse("1MB"), Ok(Some(1_000_000)));
        assert_eq!(Limit::Pids.parse("none"), Ok(None));
        assert!(Limit::DiskReadOps.parse("-1").unwrap_err().contains("not a whole number"));
        assert!(Limit::Cpu.parse("99999999999999999999999%").unwrap_err().contains("more than"));
    }

    #[test]
    fn limits_are_shown_as_they_are_typed() {
        let mut limits = Limits::default();
        assert!(limits.is_empty());
        limits.set(Limit::NetOut, Some(1_000_000));
        limits.set(Limit::Memory, Some(1536 << 20));
        limits.set(Limit::Cpu, Some(150));
        assert_eq!(limits.to_string(), "cpu=150% memory=1536M net_out=1000000B");
    }

    #[test]
    fn every_example_is_a_good_value() {
        for limit in Limit::ALL {
            assert!(matches!(limit.parse(limit.example()), Ok(Some(_))), "{limit:?}");
            assert_eq!(Limit::named(limit.name()), Some(limit));
        }
    }

    fn any_limit() -> impl Strategy<Value = Limit> {
        prop::sample::select(Limit::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(limit in any_limit(), text in "[ -~µ]{0,24}") {
            let _ = limit.parse(&text);
        }

        #[test]
        fn what_is_shown_is_read_as_the_same(limit in any_limit(), number in any::<u64>(), shift in 0u32..64) {
            let (least, most) = limit.range();
            let value = (number >> shift).clamp(least, most);
            prop_assert_eq!(limit.parse(&limit.show(value)), Ok(Some(value)));
        }
    }
}
