//! Bridges with an uplink: the one thing of the administrator's that gridgate changes, so with most care.

use super::{NetStep, Planner, is_link_local};
use crate::config::site::{Network, NetworkMode};
use crate::host::net::{Link, LinkKind};
use crate::names::IfName;

impl Planner<'_> {
    /// A bridge that somebody else made is used as it is.
    pub(super) fn existing_bridge(&mut self, network: &Network, bridge: &Link) {
        let Some(uplink) = &network.uplink else { return };
        let joined =
            self.facts.host.iter().any(|l| l.name == uplink.as_str() && l.master == Some(bridge.index));
        if !joined {
            self.problem(
                format!(
                    "bridge '{}' is there and gridgate did not make it, so '{uplink}' is not joined to it",
                    bridge.name
                ),
                "leave out 'uplink' to use the bridge as it is, or give the network another bridge name",
            );
        }
    }

    pub(super) fn join_uplink(&mut self, network: &Network) {
        let bridge = &network.bridge;
        let Some(uplink) = &network.uplink else {
            return self.problem(
                format!(
                    "network '{}' has no uplink, but bridge '{bridge}' was made by gridgate for one",
                    network.name
                ),
                "name the uplink, or take the site down with 'gridgate down' and make the bridge yourself",
            );
        };
        let Some(link) = self.facts.host.iter().find(|l| l.name == uplink.as_str()) else {
            return self.problem(
                format!("uplink '{uplink}' of network '{}' is not there", network.name),
                format!("the host has {}", self.candidates()),
            );
        };
        // One that is about to leave another bridge of ours is as free as it will be then.
        let released = self.steps.iter().find_map(|step| match step {
            NetStep::Release { uplink: other, lower } if other == uplink => Some(*lower),
            _ => None,
        });
        let our_bridge = self.facts.host.iter().find(|l| l.name == bridge.as_str());
        match link.master.filter(|_| released.is_none()) {
            Some(master) if our_bridge.is_some_and(|b| b.index == master) => {
                // Half joined by a command that did not come to its end.
                if !link.up {
                    self.steps.push(NetStep::Join {
                        uplink: uplink.clone(),
                        bridge: bridge.clone(),
                        raise: true,
                    });
                }
                return;
            }
            Some(master) => {
                let holder = self.facts.host.iter().find(|l| l.index == master);
                let holder = holder.map_or("another one", |l| l.name.as_str());
                return self.problem(
                    format!("uplink '{uplink}' of network '{}' already belongs to '{holder}'", network.name),
                    "if that is a bridge for the guests, name it as the network's 'bridge' and leave out 'uplink'",
                );
            }
            None => {}
        }
        if link.kind == LinkKind::Bridge || link.name == "lo" {
            return self.problem(
                format!("uplink '{uplink}' of network '{}' cannot be joined to a bridge", network.name),
                "if it is a bridge for the guests, name it as the network's 'bridge' and leave out 'uplink'",
            );
        }
        let addresses: Vec<String> =
            link.addresses.iter().filter(|a| !is_link_local(a)).map(ToString::to_string).collect();
        if link.default_route || !addresses.is_empty() {
            let carries =
                if addresses.is_empty() { "the default route".to_owned() } else { addresses.join(" and ") };
            return self.problem(
                format!("uplink '{uplink}' of network '{}' carries {carries}: joining it would cut the host off", network.name),
                "make a bridge that has the host's address and this interface, name it as the network's 'bridge' and leave out 'uplink'",
            );
        }
        let raise = !link.up || released == Some(true);
        self.steps.push(NetStep::Join { uplink: uplink.clone(), bridge: bridge.clone(), raise });
    }

    /// Gives back the interfaces that are not uplinks any more.
    pub(super) fn release_unwanted(&mut self, wanted: &[Network]) {
        for joined in &self.facts.uplinks {
            let kept = wanted.iter().any(|n| {
                let uplink = n.uplink.as_ref().map(IfName::as_str);
                n.mode == NetworkMode::Bridge
                    && uplink == Some(&joined.name)
                    && n.bridge.as_str() == joined.bridge
            });
            let Ok(uplink) = joined.name.parse::<IfName>() else { continue };
            if !kept {
                self.steps.push(NetStep::Release { uplink, lower: joined.raised });
            }
        }
    }

    fn candidates(&self) -> String {
        let devices = self.facts.host.iter().filter(|l| l.kind == LinkKind::Device && l.name != "lo");
        let names: Vec<&str> = devices.map(|l| l.name.as_str()).collect();
        if names.is_empty() { "no network interface".to_owned() } else { names.join(", ") }
    }
}
