//! SELinux labels: an extended attribute like any other, where the host's own kernel has no policy that guards it.

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::Root;

const LABEL: &str = "security.selinux";

impl Root {
    /// Whether the filesystem was labelled: its `/etc` has a label.
    pub fn is_labelled(&self) -> Result<bool> {
        let path = Path::new("/etc");
        let Some((dir, name)) = self.parent(path, false)? else { return Ok(false) };
        let entry = entry_path(&dir, name)?;
        match rustix::fs::lgetxattr(entry.as_c_str(), LABEL, &mut [0u8; 4096][..]) {
            Ok(_) => Ok(true),
            Err(Errno::NODATA | Errno::NOENT | Errno::OPNOTSUPP) => Ok(false),
            Err(e) => Err(e).with_context(|| self.what("looking at the label of", path)),
        }
    }

    /// Labels the path's own entry. The attribute ends with a zero byte, as the kernel and its tools write it.
    pub fn set_label(&self, path: &Path, label: &str) -> Result<()> {
        let what = || self.what("labelling", path);
        let (dir, name) = self.parent(path, false)?.with_context(what)?;
        let entry = entry_path(&dir, name)?;
        let mut value = label.as_bytes().to_vec();
        value.push(0);
        rustix::fs::lsetxattr(entry.as_c_str(), LABEL, &value, XattrFlags::empty()).with_context(what)
    }
}

/// The calls take no directory handle; its last component is not followed, and what is before it cannot be a link.
fn entry_path(dir: &std::os::fd::OwnedFd, name: &std::ffi::OsStr) -> Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend(name.as_bytes());
    Ok(CString::new(path)?)
}
