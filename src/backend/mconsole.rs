//! The management console of a user-mode Linux: one datagram each way (arch/um/drivers/mconsole.h in the kernel).

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::host::sockets;

const MAGIC: u32 = 0xcafe_babe;
const VERSION: u32 = 2;
const MAX_DATA: usize = 512;
const REPLY_HEADER: usize = 12;

/// A kernel answers in 0.2 to 12 ms; one that has hung never does.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gives an order (`cad`, `sysrq s`, `version`, ...) and returns the answer. `halt` and `reboot` never answer.
pub fn call(socket: &Path, order: &str) -> Result<String> {
    let what = || format!("asking user-mode Linux at '{}' for '{order}'", socket.display());
    let request = request(order).with_context(what)?;
    // An unnamed socket gets no answer: the kernel replies to the sender's address. Autobind gives it an abstract one.
    let ours = autobound().with_context(what)?;
    ours.set_read_timeout(Some(PATIENCE)).with_context(what)?;
    let found = sockets::find(socket).with_context(what)?;
    ours.send_to(&request, found.path()).with_context(what)?;
    let mut text = Vec::new();
    loop {
        let mut reply = [0u8; REPLY_HEADER + MAX_DATA];
        let len = match ours.recv(&mut reply) {
            // A signal, or having been stopped for a while.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            received => received.with_context(what)?,
        };
        let (failed, more, part) = parse(&reply[..len]).with_context(what)?;
        text.extend_from_slice(part);
        if !more {
            let text = String::from_utf8_lossy(&text).trim_end_matches(['\0', '\n']).to_owned();
            if failed {
                bail!("{}: it answered '{text}'", what());
            }
            return Ok(text);
        }
    }
}

/// Gives an order without waiting for its answer: a kernel that hangs gives none, and `halt` never does.
pub fn tell(socket: &Path, order: &str) -> Result<()> {
    let what = || format!("telling user-mode Linux at '{}' to '{order}'", socket.display());
    let request = request(order).with_context(what)?;
    // Named, since the kernel complains about an answer that it cannot send.
    let ours = autobound().with_context(what)?;
    ours.set_nonblocking(true).with_context(what)?;
    ours.send_to(&request, socket).map(drop).with_context(what)
}

fn autobound() -> Result<UnixDatagram> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
    use std::os::fd::AsRawFd;
    let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &UnixAddr::new_unnamed())?;
    Ok(UnixDatagram::from(fd))
}

fn request(order: &str) -> Result<Vec<u8>> {
    if order.len() >= MAX_DATA {
        bail!("the order is longer than {MAX_DATA} bytes");
    }
    let mut bytes = Vec::with_capacity(12 + MAX_DATA);
    bytes.extend_from_slice(&MAGIC.to_ne_bytes());
    bytes.extend_from_slice(&VERSION.to_ne_bytes());
    bytes.extend_from_slice(&(order.len() as u32).to_ne_bytes());
    bytes.extend_from_slice(order.as_bytes());
    bytes.push(0);
    Ok(bytes)
}

/// Whether it failed, whether more follows, and the text.
fn parse(reply: &[u8]) -> Result<(bool, bool, &[u8])> {
    let word = |at: usize| -> Result<u32> {
        let bytes = reply.get(at..at + 4).context("the answer is cut short")?;
        Ok(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let (failed, more, len) = (word(0)?, word(4)?, word(8)? as usize);
    let rest = &reply[REPLY_HEADER..];
    Ok((failed != 0, more != 0, &rest[..len.min(rest.len())]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_in_two_datagrams_is_one_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mconsole");
        let kernel = UnixDatagram::bind(&path).unwrap();
        let answer = std::thread::spawn(move || {
            let mut order = [0u8; 600];
            let (len, from) = kernel.recv_from(&mut order).unwrap();
            let from = from.as_abstract_name_owned();
            for (more, text) in [(1u32, "OK "), (0, "Linux")] {
                let mut reply = Vec::new();
                for word in [0u32, more, text.len() as u32] {
                    reply.extend_from_slice(&word.to_ne_bytes());
                }
                reply.extend_from_slice(text.as_bytes());
                let to = <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&from);
                kernel.send_to_addr(&reply, &to.unwrap()).unwrap();
            }
            String::from_utf8_lossy(&order[12..len - 1]).into_owned()
        });
        assert_eq!(call(&path, "version").unwrap(), "OK Linux");
        assert_eq!(answer.join().unwrap(), "version");
    }

    trait AbstractName {
        fn as_abstract_name_owned(&self) -> Vec<u8>;
    }

    impl AbstractName for std::os::unix::net::SocketAddr {
        fn as_abstract_name_owned(&self) -> Vec<u8> {
            use std::os::linux::net::SocketAddrExt;
            self.as_abstract_name().unwrap_or_default().to_vec()
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused_without_a_crash(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }
    }
}
