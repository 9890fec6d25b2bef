//! The table of nftables for the site's networks in `nat` mode.
//!
//! One table for all of them, so that it is replaced at once, and so that guests of two such networks reach each other
//! under their own addresses. Nobody outside can open a connection to a guest: a neighbour who routes packets for the
//! guests' network to this host would get through otherwise.

use crate::config::site::Network;

/// The comment on the table, by which the next plan knows that it is the wanted one, and the script.
pub(super) struct Ruleset {
    pub(super) comment: String,
    pub(super) script: String,
}

/// Whether a bridge's name can stand in a rule: nft has no escape for a quote, and reads `*` as "any".
pub(super) fn can_name(bridge: &str) -> bool {
    bridge.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

pub(super) fn ruleset(table: &str, networks: &[&Network]) -> Ruleset {
    let list = |items: Vec<String>| items.join(", ");
    let bridges = list(networks.iter().map(|n| format!("\"{}\"", n.bridge)).collect());
    let subnets = list(networks.iter().map(|n| n.subnet.trunc().to_string()).collect());
    let chains = format!(
        "\tchain forward {{\n\
         \t\ttype filter hook forward priority filter; policy accept;\n\
         \t\tiifname {{ {bridges} }} accept\n\
         \t\toifname {{ {bridges} }} ct state established,related accept\n\
         \t\toifname {{ {bridges} }} drop\n\
         \t}}\n\
         \tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\tip saddr {{ {subnets} }} oifname != {{ {bridges} }} masquerade\n\
         \t}}\n"
    );
    let digest = blake3::hash(chains.as_bytes()).to_hex();
    let comment = format!("gridgate {}", &digest[..16]);
    // A table must be there to be deleted; all of it happens at once.
    let script = format!(
        "table inet {table} {{\n}}\ndelete table inet {table}\n\
         table inet {table} {{\n\tcomment \"{comment}\"\n{chains}}}\n"
    );
    Ruleset { comment, script }
}
