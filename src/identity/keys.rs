//! SSH keys, made in process.

use anyhow::{Context, Result};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};

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
    fn two_keys_are_never_the_same() {
        assert_ne!(new_ed25519("").unwrap(), new_ed25519("").unwrap());
    }
}
