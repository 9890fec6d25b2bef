//! How fast packets go through a guest's port: a token bucket in each direction (tc-tbf(8)), over rtnetlink.
//!
//! ```text
//!   to the guest:    bridge -> [bucket] port -> guest
//!   from the guest:  guest -> port -> (all redirected) -> shaper [bucket] -> back as if from the port -> bridge
//! ```
//!
//! Packets that come in have no queue of their own to wait in, and dropping them instead would stall a guest that sends in
//! bursts; so they take the way round through an interface of kind `ifb`, the shaper, and wait there. It lives in the
//! port's namespace, its note is the port's with `:out` after it, and it has to be removed when the port is gone
//! ([`lost_shapers`]).

use std::path::Path;

use anyhow::{Context, Result, bail};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionGeneric, TcActionMirror, TcActionMirrorOption, TcActionOption,
    TcActionType, TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcHeader, TcMessage, TcMirror,
    TcMirrorActionType, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};
use nix::errno::Errno;

use super::netlink::Netlink;
use super::{Link, LinkKind, links};

/// How many bytes a second may go through a port; `None` for as many as it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// To the guest.
    pub to_guest: Option<u64>,
    /// From the guest.
    pub from_guest: Option<u64>,
}

/// The end of a shaper's note.
const SHAPER: &str = ":out";
/// What may pass at once after a rest: as much as comes in 20 ms, so that no second has much more than its rate, and at
/// least some full packets.
const BURST: (u64, u64) = (50, 16 << 10);
/// What may wait: as much as goes in 200 ms. More would only be late, less would not let a sender find its rate.
const QUEUE: (u64, u64) = (5, 32 << 10);

const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET` of linux/pkt_sched.h. With it no table of transmission times is needed.
const LINKLAYER_ETHERNET: u8 = 1;
/// All protocols (`ETH_P_ALL`), in network order, behind a priority.
const EVERYTHING: u32 = (1 << 16) | (3u16.to_be() as u32);

/// Makes the port's rates so, whatever they were. The same again is fine.
pub(super) fn set_rates(ns: Option<&Path>, port: &str, rates: Rates) -> Result<()> {
    let netlink = &mut links::open(ns)?;
    let link = links::find(netlink, port)?.context("there is no such interface")?;
    match rates.to_guest {
        Some(rate) => shape(netlink, link.index, rate)?,
        None => let_all_pass(netlink, link.index, TcHandle::ROOT)?,
    }
    let shaper = shaper_name(port);
    match (rates.from_guest, links::find(netlink, &shaper)?) {
        (Some(rate), Some(found)) => shape(netlink, found.index, rate),
        (Some(rate), None) => {
            let Some(alias) = &link.alias else { bail!("it is nobody's port") };
            // What leads to a shaper that is gone leads nowhere.
            let_all_pass(netlink, link.index, TcHandle::INGRESS)?;
            let index = make_shaper(netlink, &shaper, &format!("{alias}{SHAPER}"))?;
            let made = shape(netlink, index, rate).and_then(|()| redirect(netlink, link.index, index));
            if made.is_err() {
                // The first error is the one to tell.
                let _ = let_all_pass(netlink, link.index, TcHandle::INGRESS);
                let _ = links::remove(ns, &shaper);
            }
            made
        }
        (None, found) => {
            let_all_pass(netlink, link.index, TcHandle::INGRESS)?;
            match found {
                Some(found) if is_shaper(&found) => links::remove(ns, &shaper),
                _ => Ok(()),
            }
        }
    }
}

/// Shapers whose port is gone, among the links of a namespace; nothing goes through them.
pub fn lost_shapers(links: &[Link]) -> impl Iterator<Item = &Link> {
    let lost = |shaper: &&Link| {
        let port = shaper.alias.as_deref().and_then(|alias| alias.strip_suffix(SHAPER));
        is_shaper(shaper) && !links.iter().any(|link| link.alias.as_deref() == port)
    };
    links.iter().filter(lost)
}

/// The shaper of the port with that note, among the links of its namespace.
pub fn shaper_of<'l>(links: &'l [Link], port_alias: &str) -> Option<&'l Link> {
    let of =
        |link: &&Link| link.alias.as_deref().and_then(|alias| alias.strip_suffix(SHAPER)) == Some(port_alias);
    links.iter().filter(|link| is_shaper(link)).find(of)
}

fn is_shaper(link: &Link) -> bool {
    link.kind == LinkKind::Other("ifb".to_owned())
        && link
            .alias
            .as_deref()
            .is_some_and(|alias| alias.starts_with("gridgate:") && alias.ends_with(SHAPER))
}

/// Ports are called `gg...`; no two of them give the same name here.
fn shaper_name(port: &str) -> String {
    match port.strip_prefix("gg") {
        Some(rest) => format!("go{rest}"),
        None => format!("go{port}").chars().take(15).collect(),
    }
}

/// Born with its note, in one system call: see [`links::make_bridge`].
fn make_shaper(netlink: &mut Netlink, name: &str, alias: &str) -> Result<u32> {
    let index = links::own_index()?;
    let mut birth = links::named(name);
    birth.header.index = index;
    birth.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]));
    let mut note = LinkMessage::default();
    note.header.index = index;
    note.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    let mut up = LinkMessage::default();
    up.header.index = index;
    links::raise(&mut up);
    let requests = vec![
        (RouteNetlinkMessage::NewLink(birth), NLM_F_CREATE | NLM_F_EXCL),
        (RouteNetlinkMessage::SetLink(note), 0),
        (RouteNetlinkMessage::SetLink(up), 0),
    ];
    links::act(netlink, requests)?
        .with_context(|| format!("making '{name}', where its packets wait (ifb)"))?;
    Ok(index)
}

/// Puts a token bucket before everything that leaves an interface, or changes the one that is there.
fn shape(netlink: &mut Netlink, index: u32, rate: u64) -> Result<()> {
    let kind = TcAttribute::Kind("tbf".to_owned());
    let options = TcAttribute::Options(bucket(rate).into_iter().map(TcOption::Other).collect());
    let message = about(index, TcHandle { major: 1, minor: 0 }, TcHandle::ROOT, 0, vec![kind, options]);
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    links::act(netlink, vec![(RouteNetlinkMessage::NewQueueDiscipline(message), flags)])?
        .context("making a token bucket (tbf)")
}

fn bucket(rate: u64) -> Vec<DefaultNla> {
    let burst = (rate / BURST.0).max(BURST.1);
    let limit = burst + (rate / QUEUE.0).max(QUEUE.1);
    let short = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    // struct tc_tbf_qopt: two struct tc_ratespec, then limit, buffer and mtu. The buffer is said in bytes below.
    let mut params = vec![0, LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0];
    params.extend(short(rate).to_ne_bytes());
    params.extend([0; 12]);
    params.extend(short(limit).to_ne_bytes());
    params.extend([0; 8]);
    vec![
        DefaultNla::new(TCA_TBF_PARMS, params),
        DefaultNla::new(TCA_TBF_RATE64, rate.to_ne_bytes().to_vec()),
        DefaultNla::new(TCA_TBF_BURST, short(burst).to_ne_bytes().to_vec()),
    ]
}

/// Sends everything that comes in by one interface out by another one.
fn redirect(netlink: &mut Netlink, from: u32, to: u32) -> Result<()> {
    let ingress = TcHandle { major: u16::MAX, minor: 0 };
    let kind = |kind: &str| TcAttribute::Kind(kind.to_owned());
    let door = about(from, ingress, TcHandle::INGRESS, 0, vec![kind("ingress")]);
    let mut mirror = TcMirror::default();
    mirror.generic = TcActionGeneric::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = to;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
    ];
    let mut all = TcU32Selector::default();
    all.flags = TcU32SelectorFlags::Terminal;
    all.nkeys = 1;
    all.keys = vec![TcU32Key::default()];
    let options = [TcFilterU32Option::Selector(all), TcFilterU32Option::Action(vec![action])];
    let options = TcAttribute::Options(options.map(TcOption::U32).into());
    let filter = about(from, TcHandle::UNSPEC, ingress, EVERYTHING, vec![kind(TcFilterU32::KIND), options]);
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    let requests = vec![
        (RouteNetlinkMessage::NewQueueDiscipline(door), flags),
        (RouteNetlinkMessage::NewTrafficFilter(filter), flags),
    ];
    links::act(netlink, requests)?.context("redirecting what it sends (ingress, u32, mirred)")
}

/// Takes away what stands at one side of an interface. Nothing there is fine.
fn let_all_pass(netlink: &mut Netlink, index: u32, side: TcHandle) -> Result<()> {
    let message = about(index, TcHandle::UNSPEC, side, 0, Vec::new());
    match links::act(netlink, vec![(RouteNetlinkMessage::DelQueueDiscipline(message), 0)])? {
        // The default one cannot be deleted, and the kernel has several words for that.
        Err(refusal) if !matches!(refusal.errno, Errno::ENOENT | Errno::EINVAL) => Err(refusal.into()),
        _ => Ok(()),
    }
}

fn about(
    index: u32,
    handle: TcHandle,
    parent: TcHandle,
    info: u32,
    attributes: Vec<TcAttribute>,
) -> TcMessage {
    let header = TcHeader { index: index.cast_signed(), handle, parent, info, ..TcHeader::default() };
    TcMessage::from_parts(header, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, kind: LinkKind, alias: Option<&str>) -> Link {
        Link {
            index: 1,
            name: name.to_owned(),
            kind,
            mac: None,
            mtu: 1500,
            up: true,
            master: None,
            alias: alias.map(str::to_owned),
            addresses: Vec::new(),
            default_route: false,
        }
    }

    #[test]
    fn a_shaper_is_lost_when_its_port_is_gone() {
        let ifb = || LinkKind::Other("ifb".to_owned());
        let links = [
            link("gg-ce", LinkKind::Tap, Some("gridgate:01:ce")),
            link("go-ce", ifb(), Some("gridgate:01:ce:out")),
            link("go-ui", ifb(), Some("gridgate:01:ui:out")),
            link("ifb0", ifb(), None),
            link("ifb1", ifb(), Some("somebody:out")),
        ];
        let lost: Vec<&str> = lost_shapers(&links).map(|link| link.name.as_str()).collect();
        assert_eq!(lost, ["go-ui"]);
    }

    #[test]
    fn the_shapers_of_two_ports_have_two_names() {
        assert_eq!(shaper_name("gg-ce"), "go-ce");
        assert_eq!(shaper_name("ggabcdef-worker"), "goabcdef-worker");
    }
}
