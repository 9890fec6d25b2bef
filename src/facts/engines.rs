//! What can run guests here.

use std::path::PathBuf;

use anyhow::Result;

use crate::facts::backends::{self, Probe};
use crate::host::Host;
use crate::paths::Paths;

/// For each engine what is needed to use it, or why it cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engines {
    /// User-mode Linux: its kernel.
    pub uml: Result<PathBuf, String>,
    /// QEMU.
    pub qemu: Result<(), String>,
    /// Whether QEMU's guests can run on the processor itself.
    pub kvm: bool,
    /// systemd-nspawn.
    pub nspawn: Result<(), String>,
}

impl Default for Engines {
    fn default() -> Self {
        let unknown = || "it was not looked for".to_owned();
        Self { uml: Err(unknown()), qemu: Err(unknown()), kvm: false, nspawn: Err(unknown()) }
    }
}

/// What was found out by booting probe guests, now or earlier ([`backends::backends`]).
pub fn gather(host: &dyn Host, paths: &Paths) -> Result<Engines> {
    let found = backends::backends(host, paths)?;
    let works = |probe: &Probe| match probe.works {
        true => Ok(()),
        false => Err(probe.why.clone()),
    };
    let uml = works(&found.uml)
        .and_then(|()| found.uml_kernel.clone().ok_or_else(|| "no kernel was found".to_owned()));
    Ok(Engines { uml, qemu: works(&found.qemu), kvm: found.kvm.works, nspawn: works(&found.nspawn) })
}
