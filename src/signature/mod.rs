//! Who vouches for an image, a bundle or a backup: signatures with SSH keys, as `ssh-keygen -Y` makes and checks them.
//!
//! ```text
//!   payload, key    --ssh-keygen -Y sign-->    armour
//!   payload, armour --ssh-keygen -Y verify-->  Signer, by a file of allowed signers
//! ```
//!
//! The work is ssh-keygen's, so that keys in an agent or on a FIDO token, certificates and all that a file of allowed signers
//! can say (ssh-keygen(1), ALLOWED SIGNERS) hold here as they do there.

mod armour;
mod purpose;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub use armour::{Block, Told, parse};
pub use purpose::Purpose;

use crate::host::Host;
use crate::host::nameless::Nameless;
use crate::host::programs::{Program, Ran};
use crate::paths::Paths;

/// The file's name in a site's directory.
pub const ALLOWED_SIGNERS: &str = "allowed_signers";
/// Where it is looked for after that.
const EVERYWHERE: &str = "/etc/gridgate/allowed_signers";

/// Who signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// As the file of allowed signers names him.
    pub principal: String,
    /// `SHA256:...` of the key; empty if only ssh-keygen could read it.
    pub fingerprint: String,
}

/// What is asked of something before it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// A good signature by somebody in this file.
    SignedBy(PathBuf),
    /// Nothing: somebody has said that he takes it from anybody.
    Unsigned,
}

impl Policy {
    /// As a command was told: with no word of the contrary, the signature of one who is in the file that was named, or else in
    /// [`allowed_signers`].
    pub fn of(
        host: &dyn Host,
        paths: &Paths,
        insecure_unsigned: bool,
        named: Option<&Path>,
        purpose: Purpose,
    ) -> Result<Self> {
        match insecure_unsigned {
            true => Ok(Self::Unsigned),
            false => allowed_signers(host, paths, named, purpose).map(Self::SignedBy),
        }
    }
}

/// Why something is not trusted. Nothing was changed, and it is no fault of this machine.
#[derive(Debug)]
pub struct Untrusted(String);

impl std::fmt::Display for Untrusted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Untrusted {}

/// The file of allowed signers: the one that was named, else the site's, else the host's. None at all is an error that says
/// how to make one, for that purpose.
pub fn allowed_signers(
    host: &dyn Host,
    paths: &Paths,
    named: Option<&Path>,
    purpose: Purpose,
) -> Result<PathBuf> {
    if let Some(path) = named {
        return match host.stat(path)? {
            Some(_) => Ok(path.to_owned()),
            None => bail!("the file of allowed signers '{}' is not there", path.display()),
        };
    }
    let mut places = vec![paths.site.join(ALLOWED_SIGNERS), PathBuf::from(EVERYWHERE)];
    // A site may be the host's own.
    places.dedup();
    for path in &places {
        if host.stat(path)?.is_some() {
            return Ok(path.clone());
        }
    }
    let namespace = purpose.namespace();
    let places: Vec<String> = places.iter().map(|path| format!("'{}'", path.display())).collect();
    Err(Untrusted(format!(
        "nobody is known here who may sign that: there is no {}\nhint: write one line a signer there: NAME \
         namespaces=\"{namespace}\" KEY, with the content of the signer's .pub file as KEY",
        places.join(" and no ")
    ))
    .into())
}

/// Signs with a key file, or with the key of a `.pub` file if an agent holds its private half (ssh-keygen asks for a
/// passphrase itself, on the terminal). The armour ends in a newline; several signatures of one payload are put one after the other.
pub fn sign(host: &dyn Host, payload: &[u8], key: &Path, purpose: Purpose) -> Result<String> {
    let what = || format!("signing with key '{}'", key.display());
    if host.stat(key)?.is_none() {
        bail!("{}: there is no such file", what());
    }
    let program = keygen("sign").args(["-n", purpose.namespace(), "-f"]).arg(key);
    let ran = host.run(&program.input(payload).killed_on_interrupt()).with_context(what)?;
    let armour = ran.text() + "\n";
    match parse(armour.as_bytes()).with_context(what)?.len() {
        1 => Ok(armour),
        n => bail!("{}: ssh-keygen gave {n} signatures", what()),
    }
}

/// Asks what the policy asks. `what` names the payload in messages ("image 'x'").
pub fn check(
    host: &dyn Host,
    what: &str,
    payload: &[u8],
    signatures: Option<&[u8]>,
    policy: &Policy,
    purpose: Purpose,
) -> Result<Option<Signer>> {
    match policy {
        Policy::Unsigned => Ok(None),
        Policy::SignedBy(allowed) => {
            let signatures = signatures.unwrap_or_default();
            let signer = verify(host, payload, signatures, allowed, purpose);
            signer.map(Some).with_context(|| format!("checking who signed {what}"))
        }
    }
}

/// Finds a good signature by somebody in the file of allowed signers; one is enough. Otherwise the error (an [`Untrusted`])
/// says of each signature why it is not one.
pub fn verify(
    host: &dyn Host,
    payload: &[u8],
    signatures: &[u8],
    allowed_signers: &Path,
    purpose: Purpose,
) -> Result<Signer> {
    if host.stat(allowed_signers)?.is_none() {
        bail!("the file of allowed signers '{}' is not there", allowed_signers.display());
    }
    let blocks = parse(signatures).map_err(|error| Untrusted(format!("{error:#}")))?;
    let mut reasons: Vec<String> = Vec::new();
    for block in &blocks {
        match verify_block(host, payload, block, allowed_signers, purpose)? {
            Ok(signer) => return Ok(signer),
            Err(reason) => reasons.push(reason),
        }
    }
    reasons.dedup();
    let message = if reasons.is_empty() { "it is not signed".to_owned() } else { reasons.join("\n") };
    Err(Untrusted(message).into())
}

fn keygen(verb: &str) -> Program {
    Program::new("ssh-keygen").args(["-Y", verb]).env("LC_ALL", "C")
}

type Verdict = Result<Signer, String>;

fn verify_block(
    host: &dyn Host,
    payload: &[u8],
    block: &Block,
    allowed: &Path,
    purpose: Purpose,
) -> Result<Verdict> {
    let namespace = purpose.namespace();
    let key = block.told.as_ref().map_or("a certificate or an unknown type", |told| &told.fingerprint);
    if let Some(told) = block.told.as_ref().filter(|told| told.namespace != namespace) {
        let is_for: String = told.namespace.chars().take(40).flat_map(char::escape_default).collect();
        return Ok(Err(format!("the signature by key {key} is for '{is_for}', not for '{namespace}'")));
    }
    let file = Nameless::holding(block.text.as_bytes())?;
    let find = keygen("find-principals").arg("-s").arg(file.path()).arg("-f").arg(allowed);
    let found = host.run_any(&find)?;
    let text = found.text();
    // A line of the file may name several.
    let principals: Vec<String> =
        text.lines().flat_map(|line| line.split(',')).filter_map(somebody).collect();
    if found.status != 0 || principals.is_empty() {
        return Ok(Err(unknown(block, key, allowed, &found, purpose)));
    }
    let mut said = Ran::default();
    for principal in principals {
        let verify = keygen("verify").arg("-f").arg(allowed).args(["-I", &principal, "-n", namespace, "-s"]);
        said = host.run_any(&verify.arg(file.path()).input(payload))?;
        if said.status == 0 {
            let fingerprint = block.told.as_ref().map(|told| told.fingerprint.clone()).unwrap_or_default();
            return Ok(Ok(Signer { principal, fingerprint }));
        }
    }
    let why = [&said.stderr[..], &said.stdout].concat();
    let why = String::from_utf8_lossy(&why).to_lowercase();
    Ok(Err(match why {
        why if why.contains("incorrect signature") => {
            format!("the signature by key {key} is wrong: what was signed has been changed since")
        }
        why if why.contains("namespace") => {
            format!("'{}' does not let key {key} sign for '{namespace}'", allowed.display())
        }
        why => format!(
            "ssh-keygen does not take the signature by key {key}: {}",
            why.lines().next().unwrap_or("")
        ),
    }))
}

/// Somebody whom a pattern of names means; `None` for a pattern that excludes.
fn somebody(pattern: &str) -> Option<String> {
    let name = pattern.trim().replace('*', "somebody").replace('?', "x");
    (!name.is_empty() && !name.starts_with(['!', '-'])).then_some(name)
}

fn unknown(block: &Block, key: &str, allowed: &Path, found: &Ran, purpose: Purpose) -> String {
    let said = String::from_utf8_lossy(&found.stderr);
    let why = said.lines().find(|line| line.contains("expired") || line.contains("not yet valid"));
    let (allowed, namespace) = (allowed.display(), purpose.namespace());
    match (why, &block.told) {
        (Some(why), _) if why.contains("expired") => {
            format!("key {key} may not sign any more, by '{allowed}'")
        }
        (Some(_), _) => format!("key {key} may not sign yet, by '{allowed}'"),
        (None, Some(told)) => format!(
            "key {key} is not in '{allowed}'\nhint: if you know whose it is and trust him, add this line there: NAME \
             namespaces=\"{namespace}\" {}",
            told.key
        ),
        (None, None) => format!("the signature is by {key}, and nobody in '{allowed}' stands for it"),
    }
}
