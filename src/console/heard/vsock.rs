//! How a whole machine speaks to its host without a network: AF_VSOCK (vsock(7)). systemd in the guest takes the address from
//! the credential `vmm.notify_socket` (systemd(1)) and sends its state there, each message a connection of its own.

use crate::names::GuestName;
use crate::paths::Paths;

/// QEMU's side of it, where the host's kernel has one.
const DEVICE: &str = "/dev/vhost-vsock";
/// The host, as a guest sees it (`VMADDR_CID_HOST` in linux/vm_sockets.h).
const HOST_CID: u32 = 2;

/// A guest's address, and where it finds the console holder of its site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vsock {
    /// The guest's address. No two machines of a host may have the same; it follows from site and guest.
    pub cid: u32,
    /// The holder's port.
    pub port: u32,
}

impl Vsock {
    /// For a guest of this site, wherever it runs.
    pub fn of(paths: &Paths, guest: &GuestName) -> Self {
        let number = |text: &str| {
            let hash = blake3::hash(text.as_bytes());
            let [a, b, c, d, ..] = *hash.as_bytes();
            u32::from_le_bytes([a, b, c, d])
        };
        // 0 to 2 have a meaning, and so has the highest; the upper half is left to other programs.
        let cid = number(&format!("{}/{guest}", paths.id())) % 0x7fff_fff0 + 3;
        // Ports below 1024 are privileged.
        Self { cid, port: number(&paths.id()) % 0x7fff_0000 + 1024 }
    }

    /// What the credential says.
    pub fn notify_socket(&self) -> String {
        format!("vsock-stream:{HOST_CID}:{}", self.port)
    }
}

/// Whether a hypervisor that is run by the calling user can give its guest such an address.
pub fn is_possible() -> bool {
    std::fs::OpenOptions::new().read(true).write(true).open(DEVICE).is_ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_guest_of_each_site_has_an_address_of_its_own() {
        let site = |state: &str| Paths::new(Path::new("/etc/gridgate"), Path::new(state));
        let of = |state: &str, guest: &str| Vsock::of(&site(state), &guest.parse().unwrap());
        let (ce, se, other) = (of("/a", "ce"), of("/a", "se"), of("/b", "ce"));
        assert_eq!(ce, of("/a", "ce"));
        assert!(ce.cid != se.cid && ce.cid != other.cid && ce.port == se.port && ce.port != other.port);
        assert!(ce.cid > 2 && ce.cid < u32::MAX && ce.port >= 1024);
        assert_eq!(ce.notify_socket(), format!("vsock-stream:2:{}", ce.port));
    }
}
