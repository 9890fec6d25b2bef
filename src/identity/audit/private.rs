//! Private keys, whoever's: no image may hold one, as all that is made of it would share it.

use memchr::memmem;

use crate::identity::audit::keystore;

const BEGIN: &[u8] = b"-----BEGIN ";
const PRIVATE: &[u8] = b"PRIVATE KEY";
/// How programs that keep keys of WireGuard among their settings name them, in the middle of the word, whose letters differ:
/// `PrivateKey = `, `private-key=`, `PresharedKey = ` (wg(8), systemd.netdev(5), NetworkManager's keyfiles, netplan(5)).
const NAMED: [(&[u8], &[&[u8]]); 2] =
    [(b"rivate", &[b"Key", b"-key", b"_key", b"key"]), (b"reshared", &[b"Key", b"-key", b"_key", b"key"])];
/// Digits of such a key, the last of which is `=`.
const NAMED_DIGITS: usize = 44;
const PUTTY: &[u8] = b"PuTTY-User-Key-File-";
/// First bytes of a file of Kerberos keys (`krb5_keytab` of MIT and Heimdal).
const KEYTAB: &[u8] = &[5, 2, 0, 0];
/// What a block needs to be seen in: its first line, headers, a line of its key.
const REACH: usize = 1 << 10;
/// Digits of a key in its first lines; programs that only name the format have none behind it.
const DIGITS: usize = 40;

/// Looks through one file, piece by piece.
#[derive(Debug, Default)]
pub struct Scan {
    may_be_bare: bool,
    before: Vec<u8>,
    begun: bool,
    is_program: bool,
    found: bool,
}

/// First bytes of programs and libraries. Those of cryptography hold keys that everybody has, for tests of themselves.
const PROGRAM: &[u8] = b"\x7fELF";

impl Scan {
    /// Of a file of that path. Where keys of WireGuard are kept a file may be nothing but one, as wg(8) prints it; anywhere else
    /// it could be anything.
    pub fn of(path: &[u8]) -> Self {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let of_network = memmem::find(path, b"systemd/network/").is_some();
        let says_so =
            name.ends_with(b".key") || name.ends_with(b".psk") || memmem::find(name, b"private").is_some();
        Self {
            may_be_bare: memmem::find(path, b"wireguard/").is_some() || of_network && says_so,
            ..Self::default()
        }
    }

    /// The next bytes of it.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.found || self.is_program || bytes.is_empty() {
            return;
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.is_program = bytes.starts_with(PROGRAM);
            let is_bare = self.may_be_bare && bytes.len() <= NAMED_DIGITS + 2 && is_value(bytes);
            self.found =
                bytes.starts_with(PUTTY) || is_keytab(bytes) || is_bare || keystore::holds_key(bytes);
            if self.is_program || self.found {
                return;
            }
        }
        // A block that goes over the border between two pieces.
        if !self.before.is_empty() {
            let head = &bytes[..bytes.len().min(REACH)];
            self.before.extend_from_slice(head);
            self.found = holds_key(&self.before);
        }
        self.found |= holds_key(bytes);
        let keep = bytes.len().saturating_sub(REACH);
        self.before.clear();
        self.before.extend_from_slice(&bytes[keep..]);
    }

    /// Whether a key was in it.
    pub fn found(&self) -> bool {
        self.found
    }
}

fn is_keytab(bytes: &[u8]) -> bool {
    // The length of the first entry follows, which is short.
    bytes.starts_with(KEYTAB) && bytes.len() < 64 << 10 && bytes.get(4) <= Some(&1)
}

fn holds_key(bytes: &[u8]) -> bool {
    let named = NAMED.iter().any(|(middle, ends)| {
        memmem::find_iter(bytes, middle).any(|at| {
            let after = &bytes[at + middle.len()..bytes.len().min(at + REACH)];
            ends.iter().any(|end| after.strip_prefix(*end).is_some_and(is_setting))
        })
    });
    named || holds_block(bytes)
}

/// Whether a sign and a key come.
fn is_setting(after: &[u8]) -> bool {
    let rest = after.trim_ascii_start();
    let Some((b'=' | b':', rest)) = rest.split_first() else { return false };
    let rest = rest.trim_ascii_start();
    is_value(rest.strip_prefix(b"\"").or(rest.strip_prefix(b"'")).unwrap_or(rest))
}

/// Whether it begins with 32 bytes in base64, and nothing of that kind follows.
fn is_value(bytes: &[u8]) -> bool {
    let Some((digits, rest)) = bytes.split_at_checked(NAMED_DIGITS) else { return false };
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let [first @ .., b'='] = digits else { return false };
    first.iter().all(is_digit) && rest.first().is_none_or(|byte| !is_digit(byte) && *byte != b'=')
}

fn holds_block(bytes: &[u8]) -> bool {
    memmem::find_iter(bytes, PRIVATE).any(|at| {
        let line = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        // Also where it is a string within something else, such as JSON.
        let has_begun = memmem::find(&bytes[line.max(at.saturating_sub(40))..at], BEGIN).is_some();
        has_begun && is_body(&bytes[at + PRIVATE.len()..bytes.len().min(at + REACH)])
    })
}

/// Whether the rest of a first line and a key come.
fn is_body(after: &[u8]) -> bool {
    let Some(dashes) = memmem::find(&after[..after.len().min(16)], b"-----") else { return false };
    let mut digits = 0;
    for byte in &after[dashes + 5..] {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' | b'=' => digits += 1,
            // Line ends as they are and as strings have them, and headers.
            b'\n' | b'\r' | b' ' | b'\t' | b'\\' | b':' | b',' | b'-' => {}
            _ => break,
        }
        if digits >= DIGITS {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str =
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB\n";

    const WIREGUARD: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

    fn found(pieces: &[&[u8]]) -> bool {
        found_in("etc/x", pieces)
    }

    fn found_in(path: &str, pieces: &[&[u8]]) -> bool {
        let mut scan = Scan::of(path.as_bytes());
        pieces.iter().for_each(|piece| scan.feed(piece));
        scan.found()
    }

    #[test]
    fn keys_are_found_and_programs_that_know_of_keys_are_not() {
        for key in [
            KEY,
            "x\n-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIEpAIBAAKCAQEA1234567890123456789012345678901234567890\n",
            "{\"key\": \"-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\"}",
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBGPqxkABCADLwC5y6kVhY4m1m1m1m1m1m1m1m1m1m1m1m1m1m1m1m1m1\n",
            "PuTTY-User-Key-File-3: ssh-ed25519\n",
            "\x05\x02\0\0\0\x43\0\x02",
        ] {
            assert!(found(&[key.as_bytes()]), "{key}");
        }
        for other in [
            "-----BEGIN OPENSSH PRIVATE KEY-----\n\0-----END OPENSSH PRIVATE KEY-----\n",
            "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAu1SU1LfVLPHCozMxH2Mo\n",
            "the PRIVATE KEY is none of your business, whoever you are, wherever you may be",
        ] {
            assert!(!found(&[other.as_bytes()]), "{other}");
        }
    }

    #[test]
    fn keys_of_wireguard_are_found_among_settings_and_where_they_are_kept() {
        for setting in ["PrivateKey = ", "private-key=", "PresharedKey=", "privatekey: \"", "private_key: "] {
            let text = format!("[Interface]\nAddress = 10.0.0.1\n{setting}{WIREGUARD}\n");
            assert!(found(&[text.as_bytes()]), "{text}");
        }
        for other in ["PublicKey = ", "PrivateKey ", "PrivateKeys = ", "a private "] {
            let text = format!("{other}{WIREGUARD}\n");
            assert!(!found(&[text.as_bytes()]), "{text}");
        }
        assert!(!found(&[format!("PrivateKey = {WIREGUARD}=").as_bytes()]));
        let bare = format!("{WIREGUARD}\n");
        for path in ["etc/wireguard/privatekey", "etc/systemd/network/wg0.key"] {
            assert!(found_in(path, &[bare.as_bytes()]), "{path}");
        }
        assert!(!found_in("etc/other", &[bare.as_bytes()]));
        assert!(!found_in("etc/wireguard/notes", &[b"nothing of the kind is written down in here, at all"]));
    }

    proptest! {
        #[test]
        fn a_key_is_found_wherever_pieces_end(cut in 0usize..4000, before in 0usize..3000) {
            let text = [&vec![b'x'; before][..], b"\n", KEY.as_bytes(), &[b'\n'; 2000]].concat();
            let cut = cut.min(text.len());
            prop_assert!(found(&[&text[..cut], &text[cut..]]));
        }

        #[test]
        fn any_bytes_are_looked_through(pieces: Vec<Vec<u8>>) {
            found(&pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }
}
