//! Trying what the kernel can do, in a network namespace that ends with the attempt.

use std::os::fd::AsRawFd;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::Live;
use super::net::{Net, Rates};
use crate::names::IfName;

/// Makes a bridge.
pub fn bridge() -> Result<()> {
    apart(add_bridge)
}

/// Limits what goes through a port, in each direction.
pub fn rates() -> Result<()> {
    apart(|| {
        let name: IfName = "gg-probe".parse()?;
        Live.make_bridge(None, &name, "gridgate:probe")?;
        Live.set_rates(None, &name, Rates { to_guest: Some(1 << 20), from_guest: Some(1 << 20) })
    })
}

/// In a thread with a network namespace of its own: namespace, all that is in it, and thread end together.
fn apart(attempt: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let attempt = move || {
        unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
        attempt()
    };
    std::thread::spawn(attempt).join().map_err(|_| anyhow!("the attempt came to no end"))?
}

#[expect(unsafe_code, reason = "neither nix nor rustix has this call")]
fn add_bridge() -> Result<()> {
    /// `SIOCBRADDBR` of the kernel's include/uapi/linux/sockios.h; its argument is the bridge's name.
    const ADD_BRIDGE: nix::libc::c_ulong = 0x89a0;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the call reads at most 16 bytes up to a zero byte from a string that lives as long as the program.
    let result = unsafe { nix::libc::ioctl(socket.as_raw_fd(), ADD_BRIDGE as _, c"gridgate-probe".as_ptr()) };
    nix::errno::Errno::result(result).map(drop).context("making a bridge")
}
