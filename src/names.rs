//! Names and numbers that are checked once, at the border, so that nothing further in has to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name or number was refused; the text completes "NAME is not a ...: ".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadName(pub String);

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadName {}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<std::path::Path> for $name {
            fn as_ref(&self) -> &std::path::Path {
                self.0.as_ref()
            }
        }
    };
}

text_name! {
    /// A guest: one DNS label of at most 32 characters in lower case, so that it fits into host names, unit
    /// names and socket paths alike.
    GuestName, check_label
}
text_name! {
    /// A site: the same rules as a guest's name.
    SiteName, check_label
}
text_name! {
    /// A network of the site: the same rules as a guest's name.
    NetworkName, check_label
}
text_name! {
    /// A golden image: a directory name under `images/`, such as `debian-12`.
    ImageName, check_image
}
text_name! {
    /// A network interface of the host: 1 to 15 bytes, no `/`, no white space, no `:`
    /// (`dev_valid_name` in the kernel's net/core/dev.c).
    IfName, check_interface
}
text_name! {
    /// A network interface inside a guest: a name that every kind of network configuration takes as it is, so that nothing
    /// has to quote it. A letter, then letters, digits, `.`, `_` and `-`; at most 15.
    NicName, check_nic
}

fn check_label(text: &str) -> Result<(), BadName> {
    let bad = |why: &str| Err(BadName(why.to_owned()));
    if text.is_empty() || text.len() > 32 {
        return bad("must have 1 to 32 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return bad("may have only lower-case letters, digits and '-'");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return bad("must not start or end with '-'");
    }
    Ok(())
}

fn check_image(text: &str) -> Result<(), BadName> {
    let bad = |why: &str| Err(BadName(why.to_owned()));
    if text.is_empty() || text.len() > 64 {
        return bad("must have 1 to 64 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return bad("may have only letters, digits, '-', '_' and '.'");
    }
    if !text.as_bytes()[0].is_ascii_alphanumeric() {
        return bad("must start with a letter or digit");
    }
    Ok(())
}

fn check_interface(text: &str) -> Result<(), BadName> {
    let bad = |why: &str| Err(BadName(why.to_owned()));
    if text.is_empty() || text.len() > 15 {
        return bad("must have 1 to 15 bytes");
    }
    if text == "." || text == ".." {
        return bad("is not an interface name");
    }
    if text.bytes().any(|b| b == b'/' || b == b':' || b.is_ascii_whitespace() || !(0x21..0x7f).contains(&b)) {
        return bad("may have neither '/', ':', white space nor control characters");
    }
    Ok(())
}

fn check_nic(text: &str) -> Result<(), BadName> {
    let bad = |why: &str| Err(BadName(why.to_owned()));
    if text.is_empty() || text.len() > 15 {
        return bad("must have 1 to 15 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return bad("may have only letters, digits, '.', '_' and '-'");
    }
    if !text.as_bytes()[0].is_ascii_alphabetic() {
        return bad("must start with a letter");
    }
    // The kernel's /proc/sys/net/ipv4/conf has directories of these names.
    if matches!(text, "lo" | "all" | "default") {
        return bad("is a name that the kernel uses itself");
    }
    Ok(())
}

/// A unicast Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

impl FromStr for MacAddr {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let shape = || BadName("must be six hexadecimal pairs, such as 52:54:00:12:34:56".to_owned());
        let mut bytes = [0u8; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(shape)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(shape());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| shape())?;
        }
        if parts.next().is_some() {
            return Err(shape());
        }
        if bytes[0] & 1 == 1 {
            return Err(BadName("is a multicast address; the first byte must be even".to_owned()));
        }
        if bytes == [0; 6] {
            return Err(BadName("is all zeros".to_owned()));
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for MacAddr {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> String {
        mac.to_string()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A number of bytes, written with a unit: `512M`, `1.5GiB`, `800 MB`. `K`, `M`, `G`, `T` and `KiB`... are powers of
/// 1024, `kB`, `MB`... powers of 1000 (IEC 80000-13), a bare number is bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Whole mebibytes, rounded up.
    pub fn mib(self) -> u64 {
        self.0.div_ceil(1 << 20)
    }
}

impl FromStr for Bytes {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let factor: u64 = match unit.trim() {
            "" | "B" => 1,
            "K" | "k" | "KiB" => 1 << 10,
            "M" | "m" | "MiB" => 1 << 20,
            "G" | "g" | "GiB" => 1 << 30,
            "T" | "t" | "TiB" => 1 << 40,
            "kB" | "KB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err(BadName("has an unknown unit; use K, M, G or T".to_owned())),
        };
        let shape = || BadName("must be a size such as 512M or 4G".to_owned());
        let too_large = || BadName("is too large".to_owned());
        if let Some((whole, fraction)) = number.split_once('.') {
            if fraction.len() > 6 || factor == 1 {
                return Err(shape());
            }
            let whole: u64 = whole.parse().map_err(|_| shape())?;
            let part: u64 = fraction.parse().map_err(|_| shape())?;
            let scale = 10u64.pow(fraction.len() as u32);
            let rest = (u128::from(part) * u128::from(factor) / u128::from(scale)) as u64;
            let bytes = whole.checked_mul(factor).and_then(|b| b.checked_add(rest)).ok_or_else(too_large)?;
            return Ok(Self(bytes));
        }
        let number: u64 = number.parse().map_err(|_| shape())?;
        number.checked_mul(factor).map(Self).ok_or_else(too_large)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            n if n >= 1 << 40 => format!("{:.1}T", n as f64 / (1u64 << 40) as f64),
            n if n >= 1 << 30 => format!("{:.1}G", n as f64 / (1u64 << 30) as f64),
            n if n >= 1 << 20 => format!("{:.0}M", n as f64 / (1u64 << 20) as f64),
            n if n >= 1 << 10 => format!("{:.0}K", n as f64 / 1024.0),
            n => format!("{n}B"),
        };
        f.pad(&text)
    }
}

/// A span of time, written with a unit: `90`, `90s`, `1500ms`, `2min`, `1h`. A bare number is seconds.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, BadName> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shape = || BadName("must be a time such as 90s, 2min or 1h".to_owned());
    let number: u64 = number.parse().map_err(|_| shape())?;
    let millis = match unit.trim() {
        "ms" => Some(number),
        "" | "s" | "sec" => number.checked_mul(1000),
        "m" | "min" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(shape()),
    };
    millis.map(std::time::Duration::from_millis).ok_or_else(|| BadName("is too long".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_size_is_read_with_its_unit() {
        let read = |text: &str| text.parse::<Bytes>().map(|b| b.0);
        assert_eq!(read("512M"), Ok(512 << 20));
        assert_eq!(read("1.5G"), Ok(3 << 29));
        assert_eq!(read("800 MB"), Ok(800_000_000));
        assert_eq!(read("7"), Ok(7));
        assert!(read("12Q").is_err());
        assert!(read("99999999999T").is_err());
        assert!(read("").is_err());
        assert!(read("-1").is_err());
    }

    #[test]
    fn an_interface_in_a_guest_has_a_name_that_nothing_has_to_quote() {
        for good in ["net0", "eth0.100", "br-lan", "a"] {
            assert!(good.parse::<NicName>().is_ok(), "{good}");
        }
        for bad in ["", "0net", "net 0", "net$0", "net0:1", "netäöü", "lo", "all", "sixteen-letters-"] {
            assert!(bad.parse::<NicName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_duration_is_read_with_its_unit() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("2min"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(parse_duration("soon").is_err());
    }

    #[test]
    fn a_multicast_mac_is_refused() {
        assert!("01:00:5e:00:00:01".parse::<MacAddr>().is_err());
        assert_eq!(
            "52:54:00:AB:00:01".parse::<MacAddr>().map(|m| m.to_string()).as_deref(),
            Ok("52:54:00:ab:00:01")
        );
    }

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for bad in ["", ".", "..", "a/b", "A", "-a", "a-", "a b", &"x".repeat(33)] {
            assert!(bad.parse::<GuestName>().is_err(), "{bad:?}");
        }
        for bad in ["", ".", "..", "a/b", ".hidden"] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?}");
        }
        assert!("sixteen-bytes-xx".parse::<IfName>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_crash(text in "\\PC{0,40}") {
            let _ = text.parse::<Bytes>();
            let _ = text.parse::<MacAddr>();
            let _ = text.parse::<GuestName>();
            let _ = text.parse::<IfName>();
            let _ = text.parse::<ImageName>();
            let _ = parse_duration(&text);
        }

        #[test]
        fn a_mac_survives_being_printed_and_read(bytes in any::<[u8; 6]>()) {
            let mac = MacAddr([bytes[0] & 0xfe, bytes[1], bytes[2], bytes[3], bytes[4], bytes[5] | 1]);
            prop_assert_eq!(mac.to_string().parse::<MacAddr>(), Ok(mac));
        }
    }
}
