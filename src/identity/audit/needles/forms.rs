//! How each part of an identity is spelled.

use std::fmt::Write;
use std::net::IpAddr;

use md5::{Digest, Md5};

use super::{Border, Needle, Needles, Scope, Sort};
use crate::identity::audit::old::Old;
use crate::identity::audit::{Now, pem};
use crate::identity::keys;

/// A short name says nothing below this length: it is part of too many words.
const SHORTEST_NAME: usize = 4;

/// A short name of letters alone is likely a word of some language, unless it is as long as this.
const LONG_NAME: usize = 12;

/// Names that every system speaks of.
const COMMON: [&str; 12] = [
    "localhost",
    "localhost.localdomain",
    "localdomain",
    "localhost4",
    "localhost6",
    "ip6-localhost",
    "example.org",
    "example.com",
    "example.net",
    "local",
    "lan",
    "home.arpa",
];

impl Needles {
    pub(super) fn names(&mut self, old: &Old, now: &Now) {
        for name in old.names.iter().map(|name| name.trim_end_matches('.').to_ascii_lowercase()) {
            if now.own.names.iter().any(|own| own.eq_ignore_ascii_case(&name)) {
                self.leave_out(&name, "it is the new machine's name as well");
            } else if name.is_empty() || COMMON.contains(&name.as_str()) {
                self.leave_out(&name, "every system has that name in its files");
            } else if name.contains('.') {
                let needle = Needle::new(Sort::Name, name.clone().into_bytes(), &name, Border::Word);
                self.add(Needle { shared: now.knows(&name), ..needle });
            } else {
                self.short_name(&name, now);
            }
        }
        let Some(domain) = old.domain.as_deref().map(str::to_ascii_lowercase) else { return };
        let same = now.own.domain.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(&domain));
        if same {
            self.leave_out(&domain, "the new machine is in the same domain");
        } else if !domain.contains('.') || COMMON.contains(&domain.as_str()) {
            self.leave_out(&domain, "every system may have that domain in its files");
        } else {
            let needle = Needle::new(Sort::Domain, domain.clone().into_bytes(), &domain, Border::Word);
            self.add(Needle { scope: Scope::State, ..needle });
        }
    }

    /// A short name is looked for where nothing else is meant, and alone only if it is no likely word.
    fn short_name(&mut self, name: &str, now: &Now) {
        let shared = now.knows(name);
        let needle = |text: String, border| {
            let needle = Needle::new(Sort::ShortName, text.into_bytes(), name, border);
            Needle { scope: Scope::State, shared, ..needle }
        };
        self.add(needle(format!("root@{name}"), Border::Word));
        self.add(needle(format!("_HOSTNAME={name}"), Border::Word));
        self.add(Needle { scope: Scope::Logs, ..needle(format!(" {name} "), Border::Stamped) });
        let telling = name.bytes().any(|b| b.is_ascii_digit() || b == b'-') || name.len() >= LONG_NAME;
        if name.len() >= SHORTEST_NAME && telling {
            self.add(needle(name.to_owned(), Border::Word));
            self.leave_out(name, "not looked for in what packages bring, where it may be a word");
        } else {
            let why = "too short, or a likely word: looked for only as 'root@NAME', in the journal and in lines of logs";
            self.leave_out(name, why);
        }
    }

    pub(super) fn address(&mut self, address: IpAddr, now: &Now) {
        let shown = address.to_string();
        if address.is_loopback() || address.is_unspecified() {
            return self.leave_out(&shown, "every machine has that address");
        }
        let mut scope = Scope::Everywhere;
        if is_example(address) {
            scope = Scope::State;
            self.leave_out(
                &shown,
                "not looked for in what packages bring: it is the address of many examples",
            );
        }
        let shared = now.around.contains(&shown);
        let (mut forms, mut raw) = (Vec::new(), vec![0x87u8]);
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                forms.push((shown.clone(), Border::Decimal));
                forms.push((format!("{d}.{c}.{b}.{a}.in-addr.arpa"), Border::Decimal));
                raw.extend([4, a, b, c, d]);
            }
            IpAddr::V6(v6) => {
                let whole: Vec<String> = v6.segments().iter().map(|part| format!("{part:04x}")).collect();
                forms.push((shown.clone(), Border::Colons));
                forms.push((whole.join(":"), Border::Colons));
                let nibbles: Vec<String> = whole.concat().chars().rev().map(String::from).collect();
                forms.push((format!("{}.ip6.arpa", nibbles.join(".")), Border::None));
                raw.push(16);
                raw.extend(v6.octets());
            }
        }
        for (text, border) in forms {
            let needle = Needle::new(Sort::Address, text.into_bytes(), &shown, border);
            self.add(Needle { scope, shared, ..needle });
        }
        // As a certificate has it: iPAddress of a GeneralName (RFC 5280), with its length.
        let needle = Needle::new(Sort::Address, raw, &shown, Border::None);
        self.add(Needle { exact: true, scope, shared, ..needle });
    }

    pub(super) fn mac(&mut self, mac: [u8; 6]) {
        let two: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let (shown, whole) = (two.join(":"), two.concat());
        if mac == [0; 6] || mac == [0xff; 6] {
            return self.leave_out(&shown, "every machine has that hardware address");
        }
        self.push(Sort::Mac, shown.as_bytes(), &shown, Border::Hex);
        self.push(Sort::Mac, two.join("-").as_bytes(), &shown, Border::Hex);
        self.push(Sort::Mac, whole.as_bytes(), &shown, Border::Hex);
        let fours = format!("{}.{}.{}", &whole[..4], &whole[4..8], &whole[8..]);
        self.push(Sort::Mac, fours.as_bytes(), &shown, Border::Hex);
        // Its interface identifier in IPv6 addresses (RFC 4291, appendix A), as inet_ntop(3) writes it.
        let [a, b, c, d, e, f] = mac.map(u16::from);
        let eui =
            [(a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe << 8 | d, e << 8 | f].map(|part| format!("{part:x}"));
        self.push(Sort::Mac, eui.join(":").as_bytes(), &shown, Border::Hex);
        let mut different = mac.to_vec();
        different.sort_unstable();
        different.dedup();
        if different.len() >= 5 {
            self.raw(Sort::Mac, &mac, &shown);
        } else {
            self.leave_out(
                &shown,
                "its six bytes are looked for as text only: they are too alike to mean something",
            );
        }
    }

    /// An id of sixteen bytes: as digits, with dashes, escaped as in names of units, and as bytes in both orders.
    pub(super) fn hex(&mut self, sort: Sort, text: &str) {
        let digits: String =
            text.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_ascii_lowercase();
        let bytes: Vec<u8> = (0..digits.len() / 2)
            .filter_map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok())
            .collect();
        let mut shown = text.to_ascii_lowercase();
        if sort == Sort::MachineId && shown.len() == 32 {
            // machine-id(5) asks that it is not told to others.
            shown = format!("{}...", &shown[..8]);
        }
        if bytes.len() != 16 {
            // Of a filesystem that has no UUID, such as FAT's `1A2B-3C4D`.
            return match text.len() {
                8.. => self.push(sort, text.as_bytes(), &shown, Border::Word),
                _ => self.leave_out(&shown, "too short to mean something"),
            };
        }
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return self.leave_out(&shown, "no machine's own: all its bytes are alike");
        }
        self.push(sort, digits.as_bytes(), &shown, Border::Hex);
        for dash in ["-", "\\x2d"] {
            let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
            self.push(sort, parts.join(dash).as_bytes(), &shown, Border::Hex);
        }
        self.raw(sort, &bytes, &shown);
        // As UEFI and SMBIOS store it: the first three parts with their least byte first.
        let mut mixed = bytes;
        mixed[..4].reverse();
        mixed[4..6].reverse();
        mixed[6..8].reverse();
        self.raw(sort, &mixed, &shown);
    }

    /// A public key: as text, as bytes, and its fingerprints.
    pub(super) fn key(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (kind, base64) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let fingerprint = keys::fingerprint(line);
        let shown = match &fingerprint {
            Some(fingerprint) => format!("{kind} {fingerprint}"),
            None => kind.to_owned(),
        };
        if base64.len() < 24 {
            return self.leave_out(&shown, "no public key");
        }
        // The padding may be missing, and what a line breaks off differs.
        let text = base64.trim_end_matches('=').as_bytes();
        let exact = true;
        self.add(Needle { exact, ..Needle::new(Sort::Key, text.to_vec(), &shown, Border::None) });
        let blob = pem::decode(base64.as_bytes());
        self.raw(Sort::Key, &blob, &shown);
        if let Some(sha256) = fingerprint.as_deref().and_then(|text| text.strip_prefix("SHA256:")) {
            self.add(Needle { exact, ..Needle::new(Sort::Key, sha256.into(), &shown, Border::None) });
        }
        let sha256 = pem::sha256(&blob);
        self.push(Sort::Key, sha256.as_bytes(), &shown, Border::Hex);
        let colons = Md5::digest(&blob).iter().fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}{byte:02x}", if text.is_empty() { "" } else { ":" });
            text
        });
        self.push(Sort::Key, colons.as_bytes(), &shown, Border::Hex);
    }
}

/// Addresses that documentation and default configurations are full of.
fn is_example(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => matches!(
            v4.octets(),
            [192, 168, 0 | 1, _]
                | [10, 0, 0 | 1, _]
                | [172, 16, 0, _]
                | [192, 0, 2, _]
                | [198, 51, 100, _]
                | [203, 0, 113, _]
        ),
        IpAddr::V6(v6) => v6.segments()[..2] == [0x2001, 0xdb8],
    }
}
