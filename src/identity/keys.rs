//! SSH keys, made in process.

use anyhow::{Context, Result};
use std::fmt;

use serde::{Deserialize, Serialize};
use ssh_key::private::{EcdsaKeypair, Ed25519Keypair, KeypairData, RsaKeypair};
use ssh_key::{EcdsaCurve, HashAlg, LineEnding, PrivateKey, PublicKey};

/// Types of host keys that are made; DSA and the keys of SSH 1 are no more than removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// Made in microseconds, known to OpenSSH since 6.5 (2014).
    Ed25519,
    /// On the curve P-256; known to OpenSSH since 5.7 (2011).
    Ecdsa,
    /// 3072 bits, as ssh-keygen(1) has it; takes a second or more to make.
    Rsa,
}

impl KeyType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ed25519, Self::Ecdsa, Self::Rsa];

    /// The name of the private half in `/etc/ssh`, which sshd(8) looks for.
    pub fn file(self) -> String {
        format!("ssh_host_{self}_key")
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "ed25519",
            Self::Ecdsa => "ecdsa",
            Self::Rsa => "rsa",
        })
    }
}

/// A new private key of that type in OpenSSH's own format (PROTOCOL.key), not encrypted.
pub fn new_key(kind: KeyType, comment: &str) -> Result<String> {
    const RSA_BITS: usize = 3072;
    let what = || format!("making an {kind} key");
    let pair = match kind {
        KeyType::Ed25519 => return new_ed25519(comment),
        KeyType::Ecdsa => {
            EcdsaKeypair::random(&mut rand_core::OsRng, EcdsaCurve::NistP256).map(KeypairData::from)
        }
        KeyType::Rsa => RsaKeypair::random(&mut rand_core::OsRng, RSA_BITS).map(KeypairData::from),
    };
    let key = PrivateKey::new(pair.with_context(what)?, comment).with_context(what)?;
    Ok(key.to_openssh(LineEnding::LF).with_context(what)?.to_string())
}

/// The fingerprint of a public line as people compare it (`SHA256:...`); `None` if it is no key.
pub fn fingerprint(public: &str) -> Option<String> {
    Some(PublicKey::from_openssh(public).ok()?.fingerprint(HashAlg::Sha256).to_string())
}

/// Random bytes from the kernel; never a fallback.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0u8; N];
    let mut filled = 0;
    while filled < N {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)
            .context("asking the kernel for randomness")?;
    }
    Ok(bytes)
}

/// A new Ed25519 private key in OpenSSH's own format (PROTOCOL.key), not encrypted.
pub fn new_ed25519(comment: &str) -> Result<String> {
    let pair = Ed25519Keypair::from_seed(&random::<32>()?);
    let key = PrivateKey::new(KeypairData::from(pair), comment).context("making an ed25519 key")?;
    let text = key.to_openssh(LineEnding::LF).context("writing an ed25519 key")?;
    Ok(text.to_string())
}

/// The public line (`ssh-ed25519 AAAA... comment`) of a private key in OpenSSH's format.
pub fn public_line(private: &str) -> Result<String> {
    let key = PrivateKey::from_openssh(private).context("reading a private key")?;
    key.public_key().to_openssh().context("writing a public key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_one_that_ssh_keygen_reads_and_agrees_about() {
        let private = new_ed25519("root@ce").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        let mut opened = options.write(true).create(true).truncate(true).mode(0o600).open(&file).unwrap();
        std::io::Write::write_all(&mut opened, private.as_bytes()).unwrap();
        let Ok(ran) = std::process::Command::new("ssh-keygen").arg("-yf").arg(&file).output() else {
            eprintln!("skipped: no ssh-keygen here");
            return;
        };
        assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), public_line(&private).unwrap());
    }

    #[test]
    fn a_key_of_each_type_is_what_it_is_called() {
        for (kind, starts) in [
            (KeyType::Ed25519, "ssh-ed25519 "),
            (KeyType::Ecdsa, "ecdsa-sha2-nistp256 "),
            (KeyType::Rsa, "ssh-rsa "),
        ] {
            let public = public_line(&new_key(kind, "root@ce").unwrap()).unwrap();
            assert!(public.starts_with(starts) && public.ends_with(" root@ce"), "{public}");
            assert!(fingerprint(&public).unwrap().starts_with("SHA256:"));
        }
    }

    #[test]
    fn two_keys_are_never_the_same() {
        assert_ne!(new_ed25519("").unwrap(), new_ed25519("").unwrap());
    }
}
