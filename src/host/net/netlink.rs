//! Conversations with the kernel over a netlink socket: requests, acknowledgements, dumps.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

use super::netns::in_netns;

/// What `ip` uses too: a kernel's dump never puts more than this into one datagram (`netlink_dump` in
/// net/netlink/af_netlink.c).
const DATAGRAM_BYTES: usize = 32 * 1024;

/// Kernel's own words in an error (`NLMSGERR_ATTR_MSG` in linux/netlink.h).
const ATTR_MSG: u16 = 1;

/// The kernel said no.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) errno: Errno,
    said: Option<String>,
}

impl Refusal {
    fn new(error: &ErrorMessage, flags: u16) -> Self {
        let errno = Errno::from_raw(error.raw_code().saturating_abs());
        // The request's header comes first; its body is left out because we ask for capped acknowledgements.
        let extra = error.header.get(16..).filter(|_| flags & NLM_F_ACK_TLVS != 0).unwrap_or_default();
        let said = NlasIterator::new(extra)
            .flatten()
            .find(|nla| nla.kind() == ATTR_MSG)
            .map(|nla| String::from_utf8_lossy(nla.value()).trim_end_matches('\0').to_owned());
        Self { errno, said }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.errno.desc().to_lowercase())?;
        match &self.said {
            Some(said) => write!(f, " ({said})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

/// A socket that belongs to the namespace it was opened in for as long as it lives, whoever uses it.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open(ns: Option<&Path>, protocol: isize) -> Result<Self> {
        let socket = in_netns(ns, || {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Better messages; kernels without them do without.
            let _ = socket.set_ext_ack(true);
            let _ = socket.set_cap_ack(true);
            Ok(socket)
        });
        Ok(Self { socket: socket.context("opening a netlink socket")?, sequence: 0 })
    }

    /// Sends all requests as one datagram, which the kernel works through in one system call: no end of this process,
    /// however sudden, can come between them. Later requests are tried even if an earlier one is refused; the first
    /// refusal is the result, else what the kernel answered besides its acknowledgements.
    pub(super) fn request<M, A>(&mut self, requests: Vec<(M, u16)>) -> Result<Result<Vec<A>, Refusal>>
    where
        M: NetlinkSerializable,
        A: NetlinkDeserializable,
    {
        let mut datagram = Vec::new();
        let first = self.sequence + 1;
        for (message, flags) in requests {
            self.append(&mut datagram, message, NLM_F_REQUEST | NLM_F_ACK | flags);
        }
        self.socket.send(&datagram, 0).context("asking over netlink")?;
        let (mut answers, mut refused) = (Vec::new(), None);
        let mut open = self.sequence + 1 - first;
        while open > 0 {
            self.receive(|message: NetlinkMessage<A>| {
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Error(error) => {
                        open = open.saturating_sub(1);
                        if error.code.is_some() && refused.is_none() {
                            refused = Some(Refusal::new(&error, message.header.flags));
                        }
                    }
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(match refused {
            Some(refusal) => Err(refusal),
            None => Ok(answers),
        })
    }

    /// Everything of one sort. An entry that cannot be read is left out: it is of a sort that gridgate has no business
    /// with, and must not stop it from working.
    pub(super) fn dump<Q, A>(&mut self, question: Q) -> Result<Result<Vec<A>, Refusal>>
    where
        Q: NetlinkSerializable,
        A: NetlinkDeserializable,
    {
        let mut datagram = Vec::new();
        self.append(&mut datagram, question, NLM_F_REQUEST | NLM_F_DUMP);
        self.socket.send(&datagram, 0).context("asking over netlink")?;
        let (sequence, mut entries, mut outcome) = (self.sequence, Vec::new(), None);
        while outcome.is_none() {
            self.receive(|message: NetlinkMessage<A>| {
                if message.header.sequence_number != sequence {
                    return Ok(());
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(entry) => entries.push(entry),
                    NetlinkPayload::Done(_) => outcome = Some(Ok(())),
                    NetlinkPayload::Error(error) => {
                        outcome = Some(Err(Refusal::new(&error, message.header.flags)))
                    }
                    NetlinkPayload::Overrun(_) => bail!("asking over netlink: the answer was lost"),
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(outcome.unwrap_or(Ok(())).map(|()| entries))
    }

    fn append<M: NetlinkSerializable>(&mut self, datagram: &mut Vec<u8>, message: M, flags: u16) {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let start = datagram.len();
        datagram.resize(start + aligned(message.buffer_len()), 0);
        message.serialize(&mut datagram[start..]);
    }

    /// One datagram, each message in it shown to `see`.
    fn receive<A: NetlinkDeserializable>(
        &self,
        mut see: impl FnMut(NetlinkMessage<A>) -> Result<()>,
    ) -> Result<()> {
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
        let got = self.socket.recv(&mut datagram, nix::libc::MSG_TRUNC).context("hearing over netlink")?;
        ensure!(got <= datagram.len(), "hearing over netlink: an answer of {got} bytes is too long");
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let Ok(buffer) = NetlinkBuffer::new_checked(rest) else {
                bail!("hearing over netlink: the answer is cut off");
            };
            let len = buffer.length() as usize;
            if let Ok(message) = NetlinkMessage::deserialize(&rest[..len]) {
                see(message)?;
            }
            rest = rest.get(aligned(len)..).unwrap_or_default();
        }
        Ok(())
    }
}

fn aligned(len: usize) -> usize {
    len.next_multiple_of(4)
}
