//! nftables: rule sets go in through nft(8), which tables there are is asked of the kernel (nf_tables over netlink),
//! so that looking starts no program.

use std::path::Path;

use anyhow::{Context, Result};
use netlink_packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use nix::libc;

use super::Table;
use super::netlink::Netlink;
use super::netns::in_netns;
use crate::host::programs::{Program, Programs};

/// `struct nfgenmsg` of linux/netfilter/nfnetlink.h: family, version, resource (big endian).
const GENERIC_HEADER_LEN: usize = 4;
/// `NFTA_TABLE_NAME` and `NFTA_TABLE_USERDATA` of linux/netfilter/nf_tables.h.
const TABLE_NAME: u16 = 1;
const TABLE_USERDATA: u16 = 6;
/// `NFTNL_UDATA_TABLE_COMMENT` of libnftnl/udata.h.
const USERDATA_COMMENT: u8 = 0;

pub(super) fn tables(ns: Option<&Path>) -> Result<Vec<Table>> {
    let mut netlink = match Netlink::open(ns, NETLINK_NETFILTER) {
        Err(e)
            if e.root_cause().downcast_ref().and_then(std::io::Error::raw_os_error)
                == Some(libc::EPROTONOSUPPORT) =>
        {
            return Ok(Vec::new());
        }
        opened => opened?,
    };
    match netlink.dump(GetTables)? {
        // What a kernel without nf_tables says, and what everybody else is told who is not root.
        Err(r) if matches!(r.errno, Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPERM) => Ok(Vec::new()),
        answer => Ok(answer?),
    }
}

pub(super) fn run<P: Programs + Sync>(programs: &P, ns: Option<&Path>, script: &str) -> Result<()> {
    programs
        .find_program("nft")
        .context("looking for the program 'nft': it is not there; 'apt-get install nftables' brings it")?;
    let program = Program::new("nft").args(["-f", "-"]).input(script);
    in_netns(ns, || programs.run(&program).map(drop))
}

struct GetTables;

impl NetlinkSerializable for GetTables {
    fn message_type(&self) -> u16 {
        ((libc::NFNL_SUBSYS_NFTABLES as u16) << 8) | libc::NFT_MSG_GETTABLE as u16
    }

    fn buffer_len(&self) -> usize {
        GENERIC_HEADER_LEN
    }

    /// All zeros: every family, version 0 (`NFNETLINK_V0`), no resource.
    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..GENERIC_HEADER_LEN].fill(0);
    }
}

impl NetlinkDeserializable for Table {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (mut name, mut comment) = (None, None);
        for attribute in NlasIterator::new(payload.get(GENERIC_HEADER_LEN..).unwrap_or_default()) {
            let attribute = attribute?;
            match attribute.kind() {
                TABLE_NAME => name = Some(text(attribute.value())),
                TABLE_USERDATA => comment = comment_in(attribute.value()),
                _ => {}
            }
        }
        Ok(Self { name: name.ok_or("a table without a name")?, comment })
    }
}

/// Userdata is nft's own, opaque to the kernel: a row of type (one byte), length (one byte), value.
fn comment_in(mut userdata: &[u8]) -> Option<String> {
    while let [kind, len, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*len))?;
        if *kind == USERDATA_COMMENT {
            return Some(text(value));
        }
        userdata = &rest[usize::from(*len)..];
    }
    None
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_comment_is_found_behind_other_userdata() {
        assert_eq!(comment_in(b"\x07\x02ab\x00\x03hi\0"), Some("hi".to_owned()));
        assert_eq!(comment_in(b"\x00\x09hi\0"), None);
        assert_eq!(comment_in(b""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_as_a_table_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Table::deserialize(&NetlinkHeader::default(), &bytes);
            let _ = comment_in(&bytes);
        }
    }
}
