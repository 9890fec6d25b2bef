//! Every key of a site's files: one table each for the site, its networks and its guests. Reading, checking, shell
//! variables and hints all go by these.

use super::checks;
use super::limits::Limit;
use super::origin::Origin;
use super::provided;
use super::shape::{Parted, Shape};

/// A key of a site's files.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in TOML.
    pub name: &'static str,
    /// Its names as a shell variable.
    pub variables: &'static [&'static str],
    /// What it takes.
    pub shape: Shape,
    /// A good value, as TOML.
    pub example: &'static str,
    /// Where it may stand.
    pub scope: Scope,
    /// The unit that a bare number has in a shell variable.
    pub bare_unit: &'static str,
}

/// How many guests a key may speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All: it may stand in the site's defaults, in templates and in guests' files.
    Defaults,
    /// Several: it may stand in templates and in guests' files.
    Template,
    /// One: it may stand in a guest's file only.
    Guest,
}

/// A key with one name that may stand anywhere.
pub const fn key(
    name: &'static str,
    variables: &'static [&'static str],
    shape: Shape,
    example: &'static str,
    scope: Scope,
) -> Key {
    Key { name, variables, shape, example, scope, bare_unit: "" }
}

use Scope::{Defaults, Guest, Template};
use Shape::{Amount, Flag, Free, Integer, Keys, Named, Size, Span, Table, Text, Texts};

/// Keys of a guest's file, of templates and of the site's `[defaults]`.
pub const GUEST: &[Key] = &[
    key("role", &["ROLE"], Text(checks::label), "\"ce\"", Defaults),
    key("description", &["DESCRIPTION"], Text(checks::line), "\"computing element\"", Defaults),
    key("extends", &["EXTENDS"], Text(checks::label), "\"worker\"", Template),
    key("image", &["IMAGE"], Text(checks::image), "\"debian-12\"", Defaults),
    key("profile", &["PROFILE"], Text(checks::label), "\"base\"", Defaults),
    key("backend", &["BACKEND"], Text(checks::backend), "\"auto\"", Defaults),
    Key { bare_unit: "M", ..key("memory", &["MEMORY"], Size(32 << 20, 1 << 44), "\"512M\"", Defaults) },
    key("cpus", &["VCPUS", "CPUS"], Integer(1, 256), "2", Defaults),
    key("disk", &["DISK"], Size(16 << 20, 1 << 50), "\"4G\"", Defaults),
    key("hostname", &["HOSTNAME"], Text(checks::hostname), "\"ce\"", Guest),
    key("network", &["NETWORK"], Text(checks::label), "\"lan\"", Defaults),
    key("address", &["IPADDR"], Text(checks::address_or_net), "\"10.77.0.10\"", Guest),
    key("prefix", &["PREFIX"], Integer(1, 126), "24", Defaults),
    key("gateway", &["GATEWAY"], Text(checks::address), "\"10.77.0.1\"", Defaults),
    key("mac", &["HWADDR", "MACADDR"], Text(checks::mac), "\"52:54:00:12:34:56\"", Guest),
    key("ipv6", &["IPV6ADDR"], Text(checks::net_v6), "\"2001:db8:77::10/64\"", Guest),
    key("ipv6_gateway", &["IPV6_DEFAULTGW"], Text(checks::address_v6), "\"2001:db8:77::1\"", Defaults),
    key("addresses", &["ADDRESSES"], Texts(Parted::Words, checks::net), "[\"10.77.0.110/24\"]", Guest),
    key("dhcp", &["DHCP"], Flag, "true", Defaults),
    key("ipv6_auto", &["IPV6_AUTOCONF"], Flag, "true", Defaults),
    key("mtu", &["MTU"], Integer(68, 65535), "1500", Defaults),
    key(
        "routes",
        &["ROUTES"],
        Texts(Parted::Lines, checks::route),
        "[\"10.0.0.0/8 via 10.77.0.254\"]",
        Defaults,
    ),
    key("search", &["SEARCH"], Texts(Parted::Words, checks::domain), "[\"grid.example.org\"]", Defaults),
    key(
        "interface",
        &[],
        Named(checks::nic, INTERFACE),
        "{ net1 = { vlan = 100, address = \"192.168.100.10/24\" } }",
        Template,
    ),
    key("after", &["AFTER"], Texts(Parted::Words, checks::dependency), "[\"ce\", \"se\"]", Defaults),
    key("needs", &["NEEDS"], Texts(Parted::Words, checks::dependency), "[\"se\"]", Defaults),
    key("ready", &["READY"], Texts(Parted::Words, checks::ready), "[\"login\", \"tcp:22\"]", Defaults),
    key("ready_timeout", &["READY_TIMEOUT"], Span, "\"5min\"", Defaults),
    key(
        "ready_command",
        &["READY_COMMAND"],
        Text(checks::command),
        "\"ldapsearch -x -H ldap://$ADDRESS\"",
        Defaults,
    ),
    key("stop_timeout", &["STOP_TIMEOUT"], Span, "\"60s\"", Defaults),
    key("stop_command", &["STOP_COMMAND"], Text(checks::command), "\"/usr/local/sbin/drain\"", Defaults),
    key("stop", &["STOP"], Texts(Parted::Words, checks::stop), "[\"ask=60s\", \"kill\"]", Defaults),
    key("restart", &["RESTART"], Text(checks::restart), "\"on-failure\"", Defaults),
    key("restart_delay", &["RESTART_DELAY"], Span, "\"1s\"", Defaults),
    key("restart_max_delay", &["RESTART_MAX_DELAY"], Span, "\"10min\"", Defaults),
    key("restart_settle", &["RESTART_SETTLE"], Span, "\"60s\"", Defaults),
    key("restart_tries", &["RESTART_TRIES"], Integer(1, 1000), "5", Defaults),
    key("priority", &["PRIORITY"], Integer(0, 100), "50", Defaults),
    key("delay", &["DELAY"], Span, "\"10s\"", Defaults),
    key("autostart", &["AUTOSTART", "ONBOOT"], Flag, "true", Defaults),
    key("console_log", &["CONSOLE_LOG"], Size(64 << 10, 1 << 40), "\"8M\"", Defaults),
    key("console_record", &["CONSOLE_RECORD"], Flag, "true", Defaults),
    key(
        "console_watch",
        &["CONSOLE_WATCH"],
        Texts(Parted::Lines, checks::pattern),
        "[\"Out of memory\"]",
        Defaults,
    ),
    key("kernel_args", &["KERNEL_ARGS"], Text(checks::kernel_args), "\"quiet\"", Defaults),
    key("count", &["COUNT"], Integer(1, 1000), "4", Template),
    key("features", &["FEATURES"], Texts(Parted::Words, checks::label), "[\"monitoring\"]", Defaults),
    key("variables", &[], Free(checks::variable), "{ queue = \"grid\" }", Defaults),
    key("keys", &[], Keys(PROVIDED), "{ munge = \"keys/munge.key\" }", Defaults),
    key("limits", &[], Keys(LIMITS), "{ cpu = \"50%\", memory = \"512M\" }", Defaults),
];

/// Keys of `[limits]` in a guest's file, in templates and in the site's defaults.
pub const LIMITS: &[Key] = &[
    Key { bare_unit: "%", ..key("cpu", &["LIMIT_CPU"], Amount(Limit::Cpu), "\"50%\"", Defaults) },
    key("cpu_weight", &["LIMIT_CPU_WEIGHT"], Amount(Limit::CpuWeight), "100", Defaults),
    Key { bare_unit: "M", ..key("memory", &["LIMIT_MEMORY"], Amount(Limit::Memory), "\"512M\"", Defaults) },
    key("pids", &["LIMIT_PIDS"], Amount(Limit::Pids), "200", Defaults),
    key("disk_read", &["LIMIT_DISK_READ"], Amount(Limit::DiskRead), "\"10M\"", Defaults),
    key("disk_write", &["LIMIT_DISK_WRITE"], Amount(Limit::DiskWrite), "\"10M\"", Defaults),
    key("disk_read_ops", &["LIMIT_DISK_READ_OPS"], Amount(Limit::DiskReadOps), "100", Defaults),
    key("disk_write_ops", &["LIMIT_DISK_WRITE_OPS"], Amount(Limit::DiskWriteOps), "100", Defaults),
    key("net_in", &["LIMIT_NET_IN"], Amount(Limit::NetIn), "\"10M\"", Defaults),
    key("net_out", &["LIMIT_NET_OUT"], Amount(Limit::NetOut), "\"10M\"", Defaults),
];

/// Keys of `[keys]` in a guest's file, in templates and in the site's defaults: files of the site that go into guests.
pub const PROVIDED: &[Key] = &[
    key(
        "host_certificate",
        &["HOST_CERTIFICATE"],
        Text(provided::file_name),
        "\"keys/{name}-cert.pem\"",
        Defaults,
    ),
    key("host_key", &["HOST_KEY"], Text(provided::file_name), "\"keys/{name}-key.pem\"", Defaults),
    key("munge", &["MUNGE_KEY"], Text(provided::file_name), "\"keys/munge.key\"", Defaults),
    key("keytab", &["KEYTAB"], Text(provided::file_name), "\"keys/{name}.keytab\"", Defaults),
    key(
        "files",
        &["KEY_FILES"],
        Texts(Parted::Lines, provided::placed_file),
        "[\"/etc/wireguard/wg0.key keys/{name}.wg0\"]",
        Defaults,
    ),
];

/// Tables of a guest whose keys have shell variables of their own.
pub const INNER: [(&str, &[Key]); 2] = [("limits", LIMITS), ("keys", PROVIDED)];

/// Keys of `[interface.NAME]` in a guest's file and in templates; as shell variables they have a number behind them:
/// `VLAN1` is of the interface `net1`.
pub const INTERFACE: &[Key] = &[
    key("network", &["NETWORK"], Text(checks::label), "\"storage\"", Template),
    key("vlan", &["VLAN", "VLAN_ID"], Integer(1, 4094), "100", Template),
    key("parent", &["PHYSDEV"], Text(checks::nic), "\"net0\"", Template),
    key("bond", &["BOND"], Texts(Parted::Words, checks::nic), "[\"net0\", \"net1\"]", Template),
    key("bond_mode", &["BOND_MODE"], Text(checks::bond_mode), "\"active-backup\"", Template),
    key("address", &["IPADDR"], Text(checks::address_or_net), "\"192.168.100.10/24\"", Guest),
    key("prefix", &["PREFIX"], Integer(0, 128), "24", Template),
    key("gateway", &["GATEWAY"], Text(checks::address), "\"192.168.100.1\"", Template),
    key("mac", &["HWADDR", "MACADDR"], Text(checks::mac), "\"52:54:00:12:34:57\"", Guest),
    key("ipv6", &["IPV6ADDR"], Text(checks::net_v6), "\"2001:db8:100::10/64\"", Guest),
    key("ipv6_gateway", &["IPV6_DEFAULTGW"], Text(checks::address_v6), "\"2001:db8:100::1\"", Template),
    key("addresses", &["ADDRESSES"], Texts(Parted::Words, checks::net), "[\"192.168.100.11/24\"]", Guest),
    key("dhcp", &["DHCP"], Flag, "true", Template),
    key("ipv6_auto", &["IPV6_AUTOCONF"], Flag, "true", Template),
    key("mtu", &["MTU"], Integer(68, 65535), "1500", Template),
    key(
        "routes",
        &["ROUTES"],
        Texts(Parted::Lines, checks::route),
        "[\"10.0.0.0/8 via 192.168.100.1\"]",
        Template,
    ),
];

/// Keys of the site file.
pub const SITE: &[Key] = &[
    key("name", &["SITE_NAME"], Text(checks::label), "\"my-site\"", Guest),
    key("description", &["SITE_DESCRIPTION"], Text(checks::line), "\"our gateway\"", Guest),
    key("domain", &["DOMAIN"], Text(checks::domain), "\"grid.example.org\"", Guest),
    key("dns", &["DNS"], Texts(Parted::Words, checks::address), "[\"192.0.2.53\"]", Guest),
    key("ntp", &["NTP"], Texts(Parted::Words, checks::server), "[\"ntp.example.org\"]", Guest),
    key(
        "admin_keys",
        &["ADMIN_KEYS"],
        Texts(Parted::Lines, checks::admin_key),
        "[\"ssh-ed25519 AAAA...\"]",
        Guest,
    ),
    key("admin_key_file", &["ADMIN_KEY_FILE"], Text(checks::path), "\"admins.pub\"", Guest),
    key("admin_group", &["ADMIN_GROUP"], Text(checks::group), "\"adm\"", Guest),
    key("guests", &["GUESTS"], Texts(Parted::Words, checks::label), "[\"ce\", \"wn\"]", Guest),
    key("rehearsal", &["REHEARSAL"], Flag, "true", Guest),
    key("variables", &[], Free(checks::variable), "{ queue = \"grid\" }", Guest),
    key("defaults", &[], Table, "{ memory = \"512M\" }", Guest),
    key(
        "host",
        &[],
        Keys(HOST),
        "{ mac = \"52:54:00:12:34:58\", address = \"192.0.2.5/24\", gateway = \"192.0.2.1\" }",
        Guest,
    ),
    key("networks", &[], Table, "{ lan = { mode = \"nat\", subnet = \"10.77.0.0/24\" } }", Guest),
];

/// Keys of `[host]`.
pub const HOST: &[Key] = &[
    key("hostname", &["HOST_NAME"], Text(checks::label), "\"gw\"", Guest),
    key("mac", &["HOST_HWADDR"], Text(checks::mac), "\"52:54:00:12:34:58\"", Guest),
    key("interface", &["HOST_INTERFACE"], Text(checks::nic), "\"eno1\"", Guest),
    key("bridge", &["HOST_BRIDGE"], Text(checks::nic), "\"br0\"", Guest),
    key("address", &["HOST_IPADDR"], Text(checks::net), "\"192.0.2.5/24\"", Guest),
    key("gateway", &["HOST_GATEWAY"], Text(checks::address), "\"192.0.2.1\"", Guest),
    key("ipv6", &["HOST_IPV6ADDR"], Text(checks::net_v6), "\"2001:db8::5/64\"", Guest),
    key("ipv6_gateway", &["HOST_IPV6_DEFAULTGW"], Text(checks::address_v6), "\"2001:db8::1\"", Guest),
    key("dhcp", &["HOST_DHCP"], Flag, "true", Guest),
    key("console", &["HOST_CONSOLE"], Text(checks::kernel_args), "\"ttyS0,115200\"", Guest),
    key("kernel_args", &["HOST_KERNEL_ARGS"], Text(checks::kernel_args), "\"quiet\"", Guest),
];

/// Keys of `[networks.NAME]`.
pub const NETWORK: &[Key] = &[
    key("mode", &["MODE"], Text(checks::mode), "\"nat\"", Guest),
    key("bridge", &["BRIDGE"], Text(checks::interface), "\"gg-lan\"", Guest),
    key("uplink", &["UPLINK"], Text(checks::interface), "\"eth0\"", Guest),
    key("subnet", &["SUBNET"], Text(checks::subnet), "\"10.77.0.0/24\"", Guest),
    key("gateway", &["GATEWAY"], Text(checks::address), "\"10.77.0.1\"", Guest),
];

/// Words that people write for a key because another tool calls it so.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("ip", "address"),
    ("ipaddr", "address"),
    ("hwaddr", "mac"),
    ("macaddr", "mac"),
    ("vcpus", "cpus"),
    ("cpu", "cpus"),
    ("mem", "memory"),
    ("ram", "memory"),
    ("fqdn", "hostname"),
    ("host", "hostname"),
    ("netmask", "prefix"),
    ("depends", "needs"),
    ("requires", "needs"),
    ("onboot", "autostart"),
    ("template", "extends"),
    ("nameserver", "dns"),
    ("nameservers", "dns"),
    ("quota", "cpu"),
    ("weight", "cpu_weight"),
    ("tasks", "pids"),
    ("interfaces", "interface"),
    ("vlan_id", "vlan"),
    ("physdev", "parent"),
    ("link", "parent"),
    ("mode", "bond_mode"),
    ("members", "bond"),
    ("ip6", "ipv6"),
    ("gateway6", "ipv6_gateway"),
    ("dhcp4", "dhcp"),
    ("accept_ra", "ipv6_auto"),
];

/// The key of that name.
pub fn find(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    keys.iter().find(|k| k.name == name)
}

/// The key of a shell variable.
pub fn find_variable(keys: &'static [Key], variable: &str) -> Option<&'static Key> {
    keys.iter().find(|k| k.variables.contains(&variable))
}

/// The key that is meant by a word of another tool.
pub fn other_name(keys: &'static [Key], word: &str) -> Option<&'static Key> {
    let word = word.to_ascii_lowercase();
    OTHER_NAMES.iter().find(|(other, _)| *other == word).and_then(|(_, name)| find(keys, name))
}

/// A hint that shows a good value, in the syntax of the place.
pub fn example(key: &Key, written: &str, origin: &Origin) -> String {
    if origin.place.ends_with(".toml") {
        return format!("for example: {} = {}", key.name, key.example);
    }
    let bare: String = key.example.chars().filter(|c| !"[]\",".contains(*c)).collect();
    let value = if bare.contains(' ') { format!("\"{bare}\"") } else { bare };
    format!("for example: {written}={value}")
}
