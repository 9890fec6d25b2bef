//! Stores of keys and certificates, as Java and PKCS #12 have them: what can be seen without their password.

use memchr::memmem;

/// A Java key store (`sun.security.provider.JavaKeyStore`, `com.sun.crypto.provider.JceKeyStore`): its certificates lie there as they
/// are, its keys are locked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Jks<'b> {
    /// Each one's bytes.
    pub certificates: Vec<&'b [u8]>,
    /// How many private keys it holds.
    pub keys: usize,
    /// Whether all of it could be read.
    pub whole: bool,
}

const JKS: [&[u8]; 2] = [b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce"];

/// Reads one as far as it goes; `None` if it is none.
pub fn jks(bytes: &[u8]) -> Option<Jks<'_>> {
    JKS.iter().find(|magic| bytes.starts_with(magic))?;
    let mut reader = Reader(bytes.get(4..)?);
    let mut store = Jks::default();
    store.whole = entries(&mut reader, &mut store).is_some();
    Some(store)
}

fn entries<'b>(reader: &mut Reader<'b>, store: &mut Jks<'b>) -> Option<()> {
    let version = reader.u32()?;
    for _ in 0..reader.u32()? {
        let tag = reader.u32()?;
        // Its name and its time.
        reader.text()?;
        reader.take(8)?;
        let chain = match tag {
            1 => {
                let len = reader.u32()?;
                store.keys += 1;
                reader.take(len as usize)?;
                reader.u32()?
            }
            2 => 1,
            // A Java object of unknown length, which is locked.
            _ => {
                store.keys += 1;
                return None;
            }
        };
        for _ in 0..chain {
            if version == 2 {
                reader.text()?;
            }
            let len = reader.u32()?;
            store.certificates.push(reader.take(len as usize)?);
        }
    }
    Some(())
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(*self.take(4)?.first_chunk()?))
    }

    fn text(&mut self) -> Option<&'b [u8]> {
        let len = u16::from_be_bytes(*self.take(2)?.first_chunk()?);
        self.take(len.into())
    }
}

/// What is known of a PKCS #12 store without its password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pkcs12 {
    /// It holds a private key.
    Key,
    /// Certificates, or what cannot be seen.
    Other,
}

/// `pkcs7-data`, with which the store's content begins (RFC 7292, section 4).
const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
/// `keyBag` and `pkcs8ShroudedKeyBag` but for their last byte, which is 1 or 2 (appendix D): as programs write them, keys are locked one by one,
/// and that they are keys can be seen.
const KEY_BAG: &[u8] = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01";

/// Looks at one as far as it goes; `None` if it is none.
pub fn pkcs12(bytes: &[u8]) -> Option<Pkcs12> {
    // The version comes first, whatever way the lengths around it are written.
    let head = &bytes[..bytes.len().min(64)];
    let version = memmem::find(head, b"\x02\x01\x03\x30").filter(|at| *at <= 6)?;
    if head[0] != 0x30 || memmem::find(&head[version..], DATA).is_none_or(|at| at > 16) {
        return None;
    }
    let is_key = |at: usize| matches!(bytes.get(at + KEY_BAG.len()), Some(1 | 2));
    let has_key = memmem::find_iter(bytes, KEY_BAG).any(is_key);
    Some(if has_key { Pkcs12::Key } else { Pkcs12::Other })
}

/// Whether the beginning of a file is that of a store with a private key in it.
pub fn holds_key(bytes: &[u8]) -> bool {
    jks(bytes).is_some_and(|store| store.keys > 0) || pkcs12(bytes) == Some(Pkcs12::Key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
    }

    fn long(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
    }

    #[test]
    fn certificates_of_trusted_ones_and_of_keys_are_read_and_keys_counted() {
        let certificate = |der: &[u8]| [text("X.509"), long(der)].concat();
        let entry = |tag: u8, name: &str| [vec![0, 0, 0, tag], text(name), vec![0; 8]].concat();
        let store = [
            JKS[0].to_vec(),
            vec![0, 0, 0, 2, 0, 0, 0, 2],
            entry(2, "ca"),
            certificate(b"one"),
            entry(1, "key"),
            long(b"locked"),
            vec![0, 0, 0, 2],
            certificate(b"two"),
            certificate(b"three"),
        ];
        let store = store.concat();
        let found = jks(&store).unwrap();
        assert_eq!(found, Jks { certificates: vec![b"one", b"two", b"three"], keys: 1, whole: true });
        let cut = jks(&store[..store.len() - 1]).unwrap();
        assert_eq!((cut.certificates.len(), cut.whole), (2, false));
        assert!(holds_key(&store) && !holds_key(&store[..store.len() / 3]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = jks(&[JKS[0], &bytes].concat());
            let _ = pkcs12(&bytes);
            let _ = pkcs12(&[b"\x30\x82\x01\x01\x02\x01\x03\x30", &bytes[..]].concat());
        }
    }
}
