//! What a text must be to be a value of some key; each error completes "KEY 'TEXT' ...".

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::interface::{BondMode, Route};
use super::site::{BackendChoice, NetworkMode, ReadyCheck};
use super::supervision::{self, RestartWhen};
use crate::names::{BadName, GuestName, IfName, ImageName, MacAddr, NicName};

type Checked = Result<(), String>;

fn reason(why: BadName) -> String {
    why.0
}

pub(super) fn line(text: &str) -> Checked {
    if text.chars().any(char::is_control) {
        return Err("must be one line without control characters".to_owned());
    }
    Ok(())
}

pub(super) fn label(text: &str) -> Checked {
    text.parse::<GuestName>().map(drop).map_err(reason)
}

/// As groupadd(8) takes it.
pub(super) fn group(text: &str) -> Checked {
    let known = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    match begins_well && text.len() <= 32 && text.chars().all(known) {
        true => Ok(()),
        false => Err("is not the name of a group".to_owned()),
    }
}

pub(super) fn image(text: &str) -> Checked {
    text.parse::<ImageName>().map(drop).map_err(reason)
}

pub(super) fn interface(text: &str) -> Checked {
    text.parse::<IfName>().map(drop).map_err(reason)
}

pub(super) fn mac(text: &str) -> Checked {
    text.parse::<MacAddr>().map(drop).map_err(reason)
}

pub(super) fn address(text: &str) -> Checked {
    text.parse::<IpAddr>().map(drop).map_err(|_| "is not an address".to_owned())
}

/// An address, with or without the length of its network's prefix.
pub(super) fn address_or_net(text: &str) -> Checked {
    split_address(text).map(drop).ok_or_else(|| "is not an address".to_owned())
}

pub(super) fn split_address(text: &str) -> Option<(IpAddr, Option<u8>)> {
    if text.contains('/') {
        let net: IpNet = text.parse().ok()?;
        return Some((net.addr(), Some(net.prefix_len())));
    }
    Some((text.parse().ok()?, None))
}

/// An address with the length of its network's prefix.
pub(super) fn net(text: &str) -> Checked {
    match split_address(text) {
        Some((_, Some(_))) => Ok(()),
        Some((_, None)) => Err("has no prefix, such as /24".to_owned()),
        None => Err("is not an address".to_owned()),
    }
}

pub(super) fn net_v6(text: &str) -> Checked {
    net(text)?;
    match split_address(text) {
        Some((IpAddr::V6(_), _)) => Ok(()),
        _ => Err("is not an IPv6 address".to_owned()),
    }
}

pub(super) fn address_v6(text: &str) -> Checked {
    text.parse::<std::net::Ipv6Addr>().map(drop).map_err(|_| "is not an IPv6 address".to_owned())
}

pub(super) fn route(text: &str) -> Checked {
    text.parse::<Route>().map(drop).map_err(reason)
}

/// An interface of a guest.
pub(super) fn nic(text: &str) -> Checked {
    text.parse::<NicName>().map(drop).map_err(reason)
}

pub(super) fn bond_mode(text: &str) -> Checked {
    if BondMode::ALL.iter().any(|mode| mode.name() == text) {
        return Ok(());
    }
    let modes: Vec<&str> = BondMode::ALL.iter().map(|mode| mode.name()).collect();
    Err(format!("is not a mode; {} are", modes.join(", ")))
}

pub(super) fn subnet(text: &str) -> Checked {
    let net: IpNet = text.parse().map_err(|_| "is not a network such as 10.77.0.0/24".to_owned())?;
    if net.trunc() != net {
        return Err(format!("is an address within a network; the network is {}", net.trunc()));
    }
    if net.max_prefix_len() - net.prefix_len() < 2 {
        return Err("is too small for a guest and a gateway".to_owned());
    }
    Ok(())
}

pub(super) fn domain(text: &str) -> Checked {
    let label = |l: &str| {
        let inner = l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        inner && !l.is_empty() && l.len() <= 63 && !l.starts_with('-') && !l.ends_with('-')
    };
    if text.len() > 200 || !text.split('.').all(label) {
        return Err("is not a DNS name".to_owned());
    }
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("must be in lower case".to_owned());
    }
    Ok(())
}

/// HOST_NAME_MAX of Linux is 64, for the whole name.
pub(super) fn hostname(text: &str) -> Checked {
    domain(text)?;
    if text.len() > 64 {
        Err("is longer than the 64 characters that Linux allows".to_owned())
    } else {
        Ok(())
    }
}

pub(super) fn server(text: &str) -> Checked {
    address(text).or_else(|_| domain(text)).map_err(|_| "is neither an address nor a DNS name".to_owned())
}

pub(super) fn backend(text: &str) -> Checked {
    if text == "xen" {
        return Err("is not supported yet".to_owned());
    }
    parse_backend(text).map(drop).ok_or_else(|| "is not a backend; auto, qemu, uml and nspawn are".to_owned())
}

pub(super) fn parse_backend(text: &str) -> Option<BackendChoice> {
    Some(match text {
        "auto" => BackendChoice::Auto,
        "qemu" => BackendChoice::Qemu,
        "uml" => BackendChoice::Uml,
        "nspawn" => BackendChoice::Nspawn,
        _ => return None,
    })
}

pub(super) fn mode(text: &str) -> Checked {
    parse_mode(text)
        .map(drop)
        .ok_or_else(|| "is not a mode; bridge, nat, isolated and rehearsal are".to_owned())
}

pub(super) fn parse_mode(text: &str) -> Option<NetworkMode> {
    Some(match text {
        "bridge" => NetworkMode::Bridge,
        "nat" => NetworkMode::Nat,
        "isolated" => NetworkMode::Isolated,
        "rehearsal" => NetworkMode::Rehearsal,
        _ => return None,
    })
}

pub(super) fn ready(text: &str) -> Checked {
    parse_ready(text).map(drop)
}

pub(super) fn parse_ready(text: &str) -> Result<ReadyCheck, String> {
    if text == "login" {
        return Ok(ReadyCheck::Login);
    }
    let port = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|p| *p > 0)
            .ok_or_else(|| "has no port between 1 and 65535".to_owned())
    };
    match text.split_once(':').unwrap_or((text, "")) {
        ("tcp", number) => return port(number).map(ReadyCheck::Tcp),
        ("ssh", "") => return Ok(ReadyCheck::Ssh(22)),
        ("ssh", number) => return port(number).map(ReadyCheck::Ssh),
        ("notify", "") => return Ok(ReadyCheck::Notify),
        ("agent", "") => return Ok(ReadyCheck::Agent),
        ("checks", "") => return Ok(ReadyCheck::Checks),
        ("heartbeat", every) => {
            let every =
                crate::names::parse_duration(every).map_err(|_| "has no time such as 30s".to_owned())?;
            let seconds = u32::try_from(every.as_secs()).ok().filter(|s| (1..=86_400).contains(s));
            return seconds.map(ReadyCheck::Heartbeat).ok_or_else(|| "is not between 1s and 1d".to_owned());
        }
        _ => {}
    }
    if let Some(pattern) = text.strip_prefix("console:") {
        self::pattern(pattern)?;
        return Ok(ReadyCheck::Console(pattern.to_owned()));
    }
    Err("is not a sign of readiness; \"login\", \"console:REGEX\", \"tcp:PORT\", \"ssh\", \"notify\", \"agent\", \
         \"checks\" and \"heartbeat:TIME\" are"
        .to_owned())
}

/// A regular expression, looked for in a line of the console.
pub(super) fn pattern(text: &str) -> Checked {
    regex::Regex::new(text).map(drop).map_err(|_| "is not a good regular expression".to_owned())
}

/// The limit that a rung has by itself is not looked at here.
pub(super) fn stop(text: &str) -> Checked {
    supervision::parse_stop(text, Duration::ZERO).map(drop)
}

pub(super) fn restart(text: &str) -> Checked {
    RestartWhen::parse(text)
        .map(drop)
        .ok_or_else(|| "is not a policy; never, on-failure and always are".to_owned())
}

/// One line for a shell.
pub(super) fn command(text: &str) -> Checked {
    if text.trim().is_empty() { Err("is empty".to_owned()) } else { line(text) }
}

/// A guest, a group of counted guests, or all guests of a role.
pub(super) fn dependency(text: &str) -> Checked {
    label(text.strip_prefix("role:").unwrap_or(text))
}

/// The text reaches a boot loader's or hypervisor's single line.
pub(super) fn kernel_args(text: &str) -> Checked {
    if !text.bytes().all(|b| (b' '..0x7f).contains(&b)) {
        return Err("may have only printable ASCII characters".to_owned());
    }
    Ok(())
}

/// A profile's variable, as templates and shells take it.
pub(super) fn variable(text: &str) -> Checked {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match text.starts_with(|c: char| c.is_ascii_lowercase()) && text.len() <= 64 && text.chars().all(known) {
        true => Ok(()),
        false => Err("may have only small letters, digits and '_', and begins with a letter".to_owned()),
    }
}

pub(super) fn admin_key(text: &str) -> Checked {
    if text.contains("PRIVATE KEY") {
        return Err(
            "is a private key, which must stay where it was made; give the line of the .pub file".to_owned()
        );
    }
    line(text)?;
    let entry = text.parse::<ssh_key::authorized_keys::Entry>();
    entry.map(drop).map_err(|_| "is not a line of authorized_keys".to_owned())
}

pub(super) fn path(text: &str) -> Checked {
    if text.is_empty() { Err("is empty".to_owned()) } else { line(text) }
}
