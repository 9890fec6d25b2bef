//! What signatures say of themselves: the text form of SSHSIG (PROTOCOL.sshsig of OpenSSH), any number of blocks one after
//! the other.

use anyhow::{Result, bail};
use ssh_key::{HashAlg, PublicKey, SshSig};

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";

/// So many signatures are looked at; each costs two runs of a program.
const MOST: usize = 32;
/// A block of an RSA key with 16384 bits has some 6 KiB.
const LONGEST: usize = 16 << 10;

/// One block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The block from its first line to its last.
    pub text: String,
    /// What it says; `None` if it is of a kind that only ssh-keygen knows, such as one made with a certificate.
    pub told: Option<Told>,
}

/// What a block says of itself, which nothing has proven yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// `SHA256:...` of the key.
    pub fingerprint: String,
    /// The key as in an authorized_keys file, without a comment.
    pub key: String,
    /// What the signature is for.
    pub namespace: String,
}

/// All blocks of a file of signatures. What stands between them may be blank only; a block that does not end, too many
/// of them, and one that is too long are refused.
pub fn parse(bytes: &[u8]) -> Result<Vec<Block>> {
    if bytes.len() > MOST * LONGEST {
        bail!("the signatures have {} bytes, more than {}", bytes.len(), MOST * LONGEST);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { bail!("the signatures are not text") };
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        match line.trim_end() {
            "" => continue,
            BEGIN if blocks.len() == MOST => bail!("there are more than {MOST} signatures"),
            BEGIN => blocks.push(block(&mut lines)?),
            _ => bail!("a line that is no part of a signature: '{}'", shown(line)),
        }
    }
    Ok(blocks)
}

fn block(lines: &mut std::str::Lines<'_>) -> Result<Block> {
    let mut text = format!("{BEGIN}\n");
    for line in lines {
        let line = line.trim_end();
        text.push_str(line);
        text.push('\n');
        if text.len() > LONGEST {
            bail!("a signature is longer than {LONGEST} bytes");
        }
        if line == END {
            return Ok(Block { told: told(&text), text });
        }
        if !line.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)) {
            bail!("a line that is no part of a signature: '{}'", shown(line));
        }
    }
    bail!("a signature does not end")
}

fn told(text: &str) -> Option<Told> {
    let signature = SshSig::from_pem(text).ok()?;
    let key = PublicKey::from(signature.public_key().clone());
    Some(Told {
        fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        key: key.to_openssh().ok()?,
        namespace: signature.namespace().to_owned(),
    })
}

fn shown(line: &str) -> String {
    line.chars().take(40).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Made with `ssh-keygen -Y sign -n gridgate-image` by a key that was thrown away.
    const MADE: &str = "-----BEGIN SSH SIGNATURE-----
U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgwPZZN0+oqTIij3Zs6yekVDBrFg
29ADxopzTn4QCwI5QAAAAOZ3JpZGdhdGUtaW1hZ2UAAAAAAAAABnNoYTUxMgAAAFMAAAAL
c3NoLWVkMjU1MTkAAABAFrUXf+R/f6xCp+gG+eGc5A9R7Am2JcEkWN2SePHoOfIbp30phD
o8tIsrP2zIoGZPDYcKQL7SjlTdIPqQr3Z0CQ==
-----END SSH SIGNATURE-----
";

    #[test]
    fn two_blocks_are_two_signatures_that_tell_their_key_and_what_they_are_for() {
        let blocks = parse(format!("{MADE}\n\n{MADE}").as_bytes()).unwrap();
        assert_eq!(blocks.len(), 2);
        assert_eq!(blocks[1].text, MADE);
        let told = blocks[0].told.as_ref().unwrap();
        assert_eq!(told.fingerprint, "SHA256:O8YXWdCL9FKB6ChqjK7C4ttcd/DFdy4EOvH70SInKFo");
        assert_eq!(told.namespace, "gridgate-image");
        assert!(told.key.starts_with("ssh-ed25519 AAAA"), "{}", told.key);
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let error = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error("hello\n"), "a line that is no part of a signature: 'hello'");
        assert_eq!(error(&MADE[..200]), "a signature does not end");
        assert_eq!(error(&MADE.repeat(33)), "there are more than 32 signatures");
        assert_eq!(
            error(&format!("{BEGIN}\n{}\n", "A".repeat(20_000))),
            "a signature is longer than 16384 bytes"
        );
        assert_eq!(error(&format!("{BEGIN}\n-oX\n{END}\n")), "a line that is no part of a signature: '-oX'");
    }

    #[test]
    fn a_block_of_another_kind_tells_nothing_but_is_kept() {
        let blocks = parse(format!("{BEGIN}\nAAAA\n{END}\n").as_bytes()).unwrap();
        assert_eq!(blocks[0].told, None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}", cut in 0..MADE.len(), flipped in 0..MADE.len(), to in any::<u8>()) {
            let _ = parse(text.as_bytes());
            let _ = parse(&MADE.as_bytes()[..cut]);
            let mut bytes = MADE.as_bytes().to_vec();
            bytes[flipped] = to;
            let _ = parse(&bytes);
            let _ = parse(format!("{BEGIN}\n{text}\n{END}\n").as_bytes());
        }
    }
}
