use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;
use crate::host::Live;
use crate::host::programs::Programs;

struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// `None`, loudly, where there is no ssh-keygen.
    fn new() -> Option<Self> {
        if Live.find_program("ssh-keygen").is_none() {
            eprintln!("skipped: no ssh-keygen here");
            return None;
        }
        Some(Self { dir: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new key and its public half.
    fn key(&self, name: &str) -> (PathBuf, String) {
        let path = self.path(name);
        let made =
            Program::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&path);
        Live.run(&made).unwrap();
        (path.clone(), fs::read_to_string(path.with_extension("pub")).unwrap().trim().to_owned())
    }

    fn allow(&self, lines: &str) -> PathBuf {
        let path = self.path("allowed_signers");
        fs::write(&path, lines).unwrap();
        path
    }
}

fn refused(payload: &[u8], signatures: &str, allowed: &Path) -> String {
    let error = verify(&Live, payload, signatures.as_bytes(), allowed, Purpose::Image).unwrap_err();
    assert!(error.is::<Untrusted>(), "{error:#}");
    error.to_string()
}

#[test]
fn what_is_signed_here_is_good_by_hand_and_the_other_way_round() {
    let Some(lab) = Lab::new() else { return };
    let (key, public) = lab.key("k");
    let allowed = lab.allow(&format!("# ours\nops@example.org namespaces=\"gridgate-image\" {public}\n"));
    let armour = sign(&Live, b"payload", &key, Purpose::Image).unwrap();
    fs::write(lab.path("sig"), &armour).unwrap();
    fs::write(lab.path("payload"), "payload").unwrap();
    let by_hand = Command::new("ssh-keygen")
        .args(["-Y", "verify", "-n", Purpose::Image.namespace(), "-I", "ops@example.org", "-f"])
        .arg(&allowed)
        .arg("-s")
        .arg(lab.path("sig"))
        .stdin(fs::File::open(lab.path("payload")).unwrap())
        .stdout(Stdio::null())
        .status();
    assert!(by_hand.unwrap().success());

    let made =
        Program::new("ssh-keygen").args(["-Y", "sign", "-n", Purpose::Image.namespace(), "-f"]).arg(&key);
    Live.run(&made.arg(lab.path("payload"))).unwrap();
    let armour = fs::read(lab.path("payload.sig")).unwrap();
    let signer = verify(&Live, b"payload", &armour, &allowed, Purpose::Image).unwrap();
    assert_eq!(signer.principal, "ops@example.org");
    assert!(signer.fingerprint.starts_with("SHA256:"));
}

#[test]
fn one_known_signer_among_several_is_enough() {
    let Some(lab) = Lab::new() else { return };
    let ((theirs, _), (ours, public)) = (lab.key("theirs"), lab.key("ours"));
    let allowed = lab.allow(&format!("*@example.org,!eve@example.org {public}\n"));
    let both = sign(&Live, b"p", &theirs, Purpose::Image).unwrap()
        + &sign(&Live, b"p", &ours, Purpose::Image).unwrap();
    let signer = verify(&Live, b"p", both.as_bytes(), &allowed, Purpose::Image).unwrap();
    assert_eq!(signer.principal, "somebody@example.org");
}

#[test]
fn an_unknown_signer_is_named_with_the_line_to_add() {
    let Some(lab) = Lab::new() else { return };
    let (key, public) = lab.key("k");
    let allowed = lab.allow("");
    let armour = sign(&Live, b"p", &key, Purpose::Image).unwrap();
    let error = refused(b"p", &armour, &allowed);
    assert!(error.starts_with("key SHA256:"), "{error}");
    let line = format!("namespaces=\"gridgate-image\" {public}");
    assert!(error.ends_with(&line), "{error}\n{line}");
    // And with that line it is known.
    let allowed = lab.allow(&format!("NAME {line}\n"));
    assert_eq!(verify(&Live, b"p", armour.as_bytes(), &allowed, Purpose::Image).unwrap().principal, "NAME");
}

#[test]
fn each_reason_has_its_own_message() {
    let Some(lab) = Lab::new() else { return };
    let (key, public) = lab.key("k");
    let armour = sign(&Live, b"p", &key, Purpose::Image).unwrap();
    let allowed = lab.allow(&format!("a {public}\n"));
    assert_eq!(refused(b"p", "", &allowed), "it is not signed");
    let error = refused(b"changed", &armour, &allowed);
    assert!(error.ends_with("is wrong: what was signed has been changed since"), "{error}");
    let other = sign(&Live, b"p", &key, Purpose::Bundle).unwrap();
    let error = refused(b"p", &other, &allowed);
    assert!(error.ends_with("is for 'gridgate-bundle', not for 'gridgate-image'"), "{error}");

    let allowed = lab.allow(&format!("a namespaces=\"git\" {public}\n"));
    let error = refused(b"p", &armour, &allowed);
    assert!(
        error.contains("does not let key SHA256:") && error.ends_with("sign for 'gridgate-image'"),
        "{error}"
    );
    let allowed = lab.allow(&format!("a valid-before=\"20200101\" {public}\n"));
    let error = refused(b"p", &armour, &allowed);
    assert!(error.contains("may not sign any more"), "{error}");
    let allowed = lab.allow(&format!("a valid-after=\"21000101\" {public}\n"));
    let error = refused(b"p", &armour, &allowed);
    assert!(error.contains("may not sign yet"), "{error}");
}

#[test]
fn a_certificate_of_a_known_authority_is_good() {
    let Some(lab) = Lab::new() else { return };
    let ((ca, ca_public), (key, _)) = (lab.key("ca"), lab.key("k"));
    let certify = Program::new("ssh-keygen").args(["-q", "-I", "x", "-n", "ops@example.org", "-s"]).arg(&ca);
    Live.run(&certify.arg(lab.path("k.pub"))).unwrap();
    // ssh-keygen signs with a certificate if it is named and an agent or the private key beside it has the key.
    let certificate = lab.path("k-cert.pub");
    fs::copy(&key, lab.path("k-cert")).unwrap();
    let Ok(armour) = sign(&Live, b"p", &certificate, Purpose::Image) else {
        eprintln!("skipped: this ssh-keygen signs with a certificate by an agent only");
        return;
    };
    let allowed = lab.allow(&format!("*@example.org cert-authority {ca_public}\n"));
    assert_eq!(
        verify(&Live, b"p", armour.as_bytes(), &allowed, Purpose::Image).unwrap().principal,
        "ops@example.org"
    );
}

#[test]
fn the_named_file_comes_before_the_sites() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path(), dir.path());
    let own = dir.path().join("own");
    let missing = allowed_signers(&Live, &paths, Some(&own), Purpose::Image).unwrap_err().to_string();
    assert!(missing.contains("is not there"), "{missing}");
    fs::write(dir.path().join("allowed_signers"), "").unwrap();
    fs::write(&own, "").unwrap();
    assert_eq!(
        allowed_signers(&Live, &paths, None, Purpose::Image).unwrap(),
        dir.path().join("allowed_signers")
    );
    assert_eq!(allowed_signers(&Live, &paths, Some(&own), Purpose::Image).unwrap(), own);
}

#[test]
fn a_key_that_is_not_there_is_told_of() {
    let error = sign(&Live, b"p", Path::new("/nowhere/key"), Purpose::Image).unwrap_err().to_string();
    assert_eq!(error, "signing with key '/nowhere/key': there is no such file");
}
