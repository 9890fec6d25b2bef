//! Shell variables become the same tables as TOML.
//!
//! | in `site.conf` | in TOML |
//! | --- | --- |
//! | `SITE_NAME=`, `DOMAIN=`, ... | `name`, `domain`, ... |
//! | `DEFAULT_MEMORY=`, ... | `[defaults] memory`, ... |
//! | `LIMIT_CPU=`, ... | `[limits] cpu`, ... of a guest |
//! | `MUNGE_KEY=`, ... | `[keys] munge`, ... of a guest |
//! | `IPADDR1=`, `VLAN1=`, ... | `[interface.net1] address`, `vlan`, ... of a guest |
//! | `VAR_QUEUE=`, ... | `[variables] queue`, ... |
//! | `HOST_IPADDR=`, ... | `[host] address`, ... |
//! | `NETWORK_SUBNET=`, ... | `[networks.lan] subnet`, ... |
//! | `NETWORK_DMZ_SUBNET=`, ... | `[networks.dmz] subnet`, ... |
//!
//! Variables that begin with `_` are the file's own and mean nothing here.

use super::keys::{self, Key};
use super::origin::{Origin, Text};
use super::problem::Problems;
use super::shape::Shape;
use super::shell::{self, Variable};
use super::suggest;
use super::tree::{Entry, Kind, Table, Value};

/// The network that `NETWORK_SUBNET=` and so on speak of.
pub const SIMPLE_NETWORK: &str = "lan";

/// Reads a guest's file or a template; `None` if its syntax is wrong, which is then told.
pub fn guest(text: &Text, problems: &mut Problems) -> Option<Table> {
    let mut table = Table::default();
    for variable in variables(text, problems)? {
        guest_value(text, &variable, &variable.name, &mut table, problems);
    }
    Some(table)
}

/// Reads a site file; `None` if its syntax is wrong, which is then told.
pub fn site(text: &Text, problems: &mut Problems) -> Option<Table> {
    let mut table = Table::default();
    for variable in variables(text, problems)? {
        let (name, origin) = (variable.name.as_str(), text.origin(variable.name_at));
        let (target, entry) = if let Some(key) = keys::find_variable(keys::SITE, name) {
            (Some(&mut table), entry(text, &variable, key, problems))
        } else if let Some(key) = keys::find_variable(keys::HOST, name) {
            (table.table_mut("host", &origin), entry(text, &variable, key, problems))
        } else if let Some(own) = name.strip_prefix("VAR_") {
            profile_variable(text, &variable, own, &mut table, problems);
            continue;
        } else if let Some(rest) = name.strip_prefix("DEFAULT_") {
            if let Some(defaults) = table.table_mut("defaults", &origin) {
                guest_value(text, &variable, rest, defaults, problems);
            }
            continue;
        } else if let Some((network, key)) = network_key(name) {
            let entry = entry(text, &variable, key, problems);
            let networks = table.table_mut("networks", &origin);
            (networks.and_then(|t| t.table_mut(&network, &origin)), entry)
        } else {
            let known = keys::SITE.iter().chain(keys::HOST).flat_map(|k| k.variables).copied().chain([
                "NETWORK_MODE",
                "NETWORK_BRIDGE",
                "NETWORK_SUBNET",
                "NETWORK_GATEWAY",
                "NETWORK_UPLINK",
                "DEFAULT_MEMORY",
                "DEFAULT_DISK",
                "DEFAULT_BACKEND",
                "DEFAULT_IMAGE",
            ]);
            problems.add(&origin, unknown(name), suggest::hint(name, known, "known variables"));
            continue;
        };
        if let (Some(target), Some(entry)) = (target, entry) {
            repeated(target, &entry, problems);
            target.set(entry);
        }
    }
    Some(table)
}

/// `NETWORK_DMZ_SUBNET` is the key `subnet` of the network `dmz`.
fn network_key(name: &str) -> Option<(String, &'static Key)> {
    let rest = name.strip_prefix("NETWORK_")?;
    if let Some(key) = keys::find_variable(keys::NETWORK, rest) {
        return Some((SIMPLE_NETWORK.to_owned(), key));
    }
    let (network, key) = rest.rsplit_once('_')?;
    let key = keys::find_variable(keys::NETWORK, key)?;
    Some((network.to_ascii_lowercase().replace('_', "-"), key))
}

/// The file's variables, without its own; a reference to nothing is told, because a typing error looks like that.
fn variables(text: &Text, problems: &mut Problems) -> Option<Vec<Variable>> {
    match shell::parse(text.content().as_bytes()) {
        Ok(script) => {
            for unset in script.unset {
                let message = format!("'${}' has no value here", unset.name);
                let hint =
                    "assign it above; the environment is not looked at; or give a default: ${NAME:-value}";
                problems.add(&text.origin(unset.at), message, hint);
            }
            Some(script.variables.into_iter().filter(|v| !v.name.starts_with('_')).collect())
        }
        Err(refusal) => {
            problems.add(&text.origin(refusal.at), refusal.reason, refusal.hint);
            None
        }
    }
}

/// Sets a key of a guest, or of the table of its limits.
fn guest_value(text: &Text, variable: &Variable, name: &str, table: &mut Table, problems: &mut Problems) {
    if let Some(own) = name.strip_prefix("VAR_") {
        return profile_variable(text, variable, own, table, problems);
    }
    if let Some((number, rest)) = numbered(name) {
        return interface_value(text, variable, number, rest, table, problems);
    }
    let inner = keys::INNER.iter().find_map(|(table, keys)| Some((table, keys::find_variable(keys, name)?)));
    let (target, entry) = match inner {
        Some((inner, key)) => {
            let origin = text.origin(variable.name_at);
            (table.table_mut(inner, &origin), entry(text, variable, key, problems))
        }
        None => (Some(table), guest_entry(text, variable, name, problems)),
    };
    if let (Some(target), Some(entry)) = (target, entry) {
        repeated(target, &entry, problems);
        target.set(entry);
    }
}

/// `IPADDR1` is the variable `IPADDR` of the interface `net1`.
fn numbered(name: &str) -> Option<(&str, &str)> {
    let rest = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = &name[rest.len()..];
    let known = rest == "NETMASK" || keys::find_variable(keys::INTERFACE, rest).is_some();
    let counts = (1..=2).contains(&number.len()) && !number.starts_with('0');
    (known && counts).then_some((number, rest))
}

fn interface_value(
    text: &Text,
    variable: &Variable,
    number: &str,
    name: &str,
    table: &mut Table,
    problems: &mut Problems,
) {
    let origin = text.origin(variable.name_at);
    let entry = match keys::find_variable(keys::INTERFACE, name) {
        Some(key) => entry(text, variable, key, problems),
        None => netmask(text, variable, problems),
    };
    let interfaces = table.table_mut("interface", &origin);
    let interface = interfaces.and_then(|table| table.table_mut(&format!("net{number}"), &origin));
    if let (Some(target), Some(entry)) = (interface, entry) {
        repeated(target, &entry, problems);
        target.set(entry);
    }
}

/// `VAR_QUEUE=grid` is the profile's variable `queue`.
fn profile_variable(
    text: &Text,
    variable: &Variable,
    name: &str,
    table: &mut Table,
    problems: &mut Problems,
) {
    let (origin, value_origin) = (text.origin(variable.name_at), text.origin(variable.value_at));
    let Some(content) = utf8(variable, &value_origin, problems) else { return };
    let key = name.to_ascii_lowercase();
    let value = Shape::Any.read(content, &value_origin);
    if let Some(variables) = table.table_mut("variables", &origin) {
        variables.set(Entry { key: key.clone(), written: key, origin, value });
    }
}

fn guest_entry(text: &Text, variable: &Variable, name: &str, problems: &mut Problems) -> Option<Entry> {
    if let Some(key) = keys::find_variable(keys::GUEST, name) {
        return entry(text, variable, key, problems);
    }
    let origin = text.origin(variable.name_at);
    if name == "NETMASK" {
        return netmask(text, variable, problems);
    }
    let hint = match keys::other_name(keys::GUEST, name) {
        Some(key) => format!("it is called '{}' here", key.variables[0]),
        None if matches!(name, "BOOTPROTO") => "DHCP=yes has the guest ask for an address".to_owned(),
        None if keys::find_variable(keys::INTERFACE, name).is_some() => {
            format!("it is of a further interface and has its number behind it: {name}1")
        }
        None if matches!(name, "DEVICE" | "NM_CONTROLLED" | "TYPE" | "USERCTL" | "IPV6INIT") => {
            "a guest's interface needs no such setting; take the line away".to_owned()
        }
        None => {
            let known = keys::GUEST
                .iter()
                .chain(keys::INNER.iter().flat_map(|(_, keys)| *keys))
                .flat_map(|k| k.variables);
            let further = keys::INTERFACE.iter().flat_map(|k| k.variables);
            let known = known.chain(further).copied().chain(["NETMASK"]);
            suggest::hint(name, known, "known variables")
        }
    };
    problems.add(&origin, unknown(&variable.name), hint);
    None
}

fn entry(text: &Text, variable: &Variable, key: &Key, problems: &mut Problems) -> Option<Entry> {
    let origin = text.origin(variable.value_at);
    let mut content = utf8(variable, &origin, problems)?.to_owned();
    if !content.is_empty() && content.bytes().all(|b| b.is_ascii_digit()) {
        content.push_str(key.bare_unit);
    }
    let value = key.shape.read(&content, &origin);
    Some(named(text, variable, key.name, value))
}

/// `NETMASK=255.255.255.0` is `PREFIX=24`.
fn netmask(text: &Text, variable: &Variable, problems: &mut Problems) -> Option<Entry> {
    let origin = text.origin(variable.value_at);
    let content = utf8(variable, &origin, problems)?;
    let length = content.parse().ok().and_then(|mask| ipnet::ip_mask_to_prefix(mask).ok());
    let Some(length) = length else {
        let message = format!("{} '{}' is not a netmask", variable.name, super::shape::shown(content));
        problems.add(&origin, message, format!("for example: {}=255.255.255.0", variable.name));
        return None;
    };
    let value = Value { kind: Kind::Integer(i64::from(length)), origin };
    Some(named(text, variable, "prefix", value))
}

fn named(text: &Text, variable: &Variable, key: &str, value: Value) -> Entry {
    let origin = text.origin(variable.name_at);
    Entry { key: key.to_owned(), written: variable.name.clone(), origin, value }
}

fn utf8<'a>(variable: &'a Variable, origin: &Origin, problems: &mut Problems) -> Option<&'a str> {
    let read = std::str::from_utf8(&variable.value);
    if read.is_err() {
        problems.add(origin, format!("{} is not UTF-8 text", variable.name), "");
    }
    read.ok()
}

/// Two variables of one key, such as `VCPUS` and `CPUS`, leave open which is meant.
fn repeated(table: &Table, entry: &Entry, problems: &mut Problems) {
    if let Some(first) = table.get(&entry.key) {
        let message = format!("{} says the same as {} at {}", entry.written, first.written, first.origin);
        problems.add(&entry.origin, message, "keep one of them");
    }
}

fn unknown(name: &str) -> String {
    format!("unknown variable '{}'", super::shape::shown(name))
}
