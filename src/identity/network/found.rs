//! What a guest's filesystem says about its network: read only, and believed only as far as it goes.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::host::root::Entry;
use crate::host::tree::Tree;
use crate::identity::network::claims::{self, Claim};
use crate::identity::network::comes_up::Boot;
use crate::identity::network::{ifupdown, keyfile, redhat, suse};

/// Who brings interfaces up, and from which files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renderer {
    /// `/etc/network/interfaces`.
    Ifupdown,
    /// `/etc/sysconfig/network-scripts`, read by the network scripts or by NetworkManager.
    RedHat,
    /// `/etc/sysconfig/network`, read by wicked or by the scripts before it.
    Suse,
    /// `/etc/NetworkManager/system-connections`.
    Keyfile,
    /// `/etc/systemd/network`.
    Networkd,
    /// `/etc/netplan`, which makes files for another one at boot.
    Netplan(Manager),
}

/// For whom netplan makes files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// systemd-networkd.
    Networkd,
    /// NetworkManager.
    NetworkManager,
}

impl Renderer {
    /// Whether both read the same files.
    pub fn same_files(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Whether NetworkManager has the interfaces in the end.
    pub fn is_network_managers(&self, found: &Found) -> bool {
        match self {
            Self::Keyfile | Self::Netplan(Manager::NetworkManager) => true,
            Self::RedHat => found.network_manager_up,
            _ => false,
        }
    }
}

impl fmt::Display for Renderer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ifupdown => "ifupdown",
            Self::RedHat => "network-scripts",
            Self::Suse => "SUSE's ifcfg files",
            Self::Keyfile => "NetworkManager",
            Self::Networkd => "systemd-networkd",
            Self::Netplan(_) => "netplan",
        })
    }
}

/// What was found of a guest's network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Those that come up at boot, the one that counts most first.
    pub up: Vec<Renderer>,
    /// Those that are there, the one to choose if none comes up first.
    pub installed: Vec<Renderer>,
    /// Units of those that are there.
    pub units: Vec<PathBuf>,
    /// Files that configure network cards.
    pub claims: Vec<Claim>,
    /// systemd starts the rest.
    pub systemd: bool,
    /// NetworkManager comes up, whatever it reads.
    pub network_manager_up: bool,
    /// NetworkManager was told before to leave interfaces alone.
    pub unmanaged_file: bool,
    /// Cards have the kernel's names: `.link` files mean nothing here.
    pub kernel_names: bool,
    /// There are rules for udev.
    pub udev_rules: bool,
    /// Red Hat's network scripts know of no `route-*` files.
    pub static_routes_only: bool,
    /// `/etc/sysconfig/network`, where it is a file.
    pub sysconfig_network: Option<String>,
    /// netconfig's settings.
    pub netconfig: Option<String>,
    /// `/etc/network/interfaces` is there.
    pub interfaces_file: bool,
    /// `/etc/network/interfaces.d` has files that are no card's.
    pub interfaces_d: bool,
    /// systemd-resolved comes up.
    pub resolved_up: bool,
    /// `/etc/resolv.conf` is a link to a file of systemd-resolved's.
    pub resolv_conf_is_resolveds: bool,
    /// cloud-init comes up, and writes a network configuration unless told otherwise.
    pub cloud_init: bool,
}

impl Found {
    /// Looks around.
    pub fn look(tree: &dyn Tree) -> Result<Self> {
        let boot = Boot::look(tree)?;
        let any = |paths: &[&str]| -> Result<bool> {
            for path in paths {
                if boot.is_there(path)? {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        // What cannot be read is replaced, or left alone.
        let text =
            |path: &str| tree.read(Path::new(path)).ok().flatten().and_then(|t| String::from_utf8(t).ok());
        let (claims, interfaces_d) = claims::look(tree)?;
        let names_by_link =
            any(&["/usr/lib/systemd/network/99-default.link", "/lib/systemd/network/99-default.link"])?;
        let udevd = any(&["/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd"])?;
        let if_routes = text("/etc/sysconfig/network-scripts/ifup-routes");
        let mut found = Self {
            systemd: boot.systemd,
            network_manager_up: boot.comes_up("NetworkManager")?,
            unmanaged_file: boot.is_there(keyfile::UNMANAGED)?,
            // A container without udev has what it is given.
            kernel_names: !names_by_link && (udevd || !boot.systemd),
            udev_rules: boot.is_there("/etc/udev/rules.d")?,
            static_routes_only: if_routes.is_some_and(|script| !script.contains("route-")),
            sysconfig_network: text(redhat::NETWORK),
            netconfig: text(suse::NETCONFIG),
            interfaces_file: boot.is_there(ifupdown::FILE)?,
            interfaces_d,
            resolved_up: boot.comes_up("systemd-resolved")?,
            resolv_conf_is_resolveds: is_resolveds(tree.entry(Path::new("/etc/resolv.conf"))?),
            cloud_init: boot.is_there("/usr/bin/cloud-init")?
                && !boot.is_there("/etc/cloud/cloud-init.disabled")?,
            claims,
            ..Self::default()
        };
        found.renderers(tree, &boot, &any)?;
        Ok(found)
    }

    fn renderers(
        &mut self,
        tree: &dyn Tree,
        boot: &Boot<'_>,
        any: &dyn Fn(&[&str]) -> Result<bool>,
    ) -> Result<()> {
        let red_hat =
            any(&["/etc/sysconfig/network-scripts/ifup", "/etc/sysconfig/network-scripts/ifup-eth"])?;
        let is_suse = matches!(tree.entry(Path::new("/etc/sysconfig/network"))?, Some(Entry::Dir));
        let ifup = any(&["/sbin/ifup", "/usr/sbin/ifup"])?;
        let has = |claims: &[Claim], renderer| claims.iter().any(|claim| claim.renderer.same_files(renderer));
        for name in ["systemd-networkd", "NetworkManager", "networking", "network", "wicked"] {
            self.units.extend(boot.unit(&format!("{name}.service"))?);
        }
        let unit = |name: &str| self.units.iter().any(|path| path.ends_with(format!("{name}.service")));
        let manager = if unit("NetworkManager") || any(&["/usr/sbin/NetworkManager"])? {
            let by_plugin = reads_ifcfg(tree)? && (red_hat || has(&self.claims, &Renderer::RedHat));
            Some(if by_plugin { Renderer::RedHat } else { Renderer::Keyfile })
        } else {
            None
        };
        let mut netplan = None;
        if any(&["/usr/sbin/netplan", "/usr/libexec/netplan/generate", "/lib/netplan/generate"])? {
            netplan = Some(Renderer::Netplan(self.netplan_for(tree)));
        }
        // Whether it is there, and whether it comes up.
        let candidates = [
            (netplan.clone(), has(&self.claims, &Renderer::Netplan(Manager::Networkd))),
            (manager.clone(), self.network_manager_up),
            (unit("systemd-networkd").then_some(Renderer::Networkd), boot.comes_up("systemd-networkd")?),
            (is_suse.then_some(Renderer::Suse), boot.comes_up("wicked")? || boot.comes_up("network")?),
            (red_hat.then_some(Renderer::RedHat), boot.comes_up("network")?),
            ((ifup && !red_hat && !is_suse).then_some(Renderer::Ifupdown), boot.comes_up("networking")?),
        ];
        for (renderer, up) in candidates {
            if let Some(renderer) = renderer.filter(|renderer| up && !self.up.contains(renderer)) {
                self.up.push(renderer);
            }
        }
        let preset = |unit: &str| Ok::<_, anyhow::Error>(boot.preset(unit)? == Some(true));
        let by_preset = [
            manager.clone().filter(|_| preset("NetworkManager.service").unwrap_or(false)),
            unit("systemd-networkd")
                .then_some(Renderer::Networkd)
                .filter(|_| preset("systemd-networkd.service").unwrap_or(false)),
        ];
        let there = [
            netplan,
            red_hat.then_some(Renderer::RedHat),
            is_suse.then_some(Renderer::Suse),
            (ifup && !red_hat && !is_suse).then_some(Renderer::Ifupdown),
            manager,
            unit("systemd-networkd").then_some(Renderer::Networkd),
        ];
        self.installed = by_preset.into_iter().chain(there).flatten().collect();
        Ok(())
    }

    /// The last file that says it holds; netplan merges them in the order of their names.
    fn netplan_for(&self, tree: &dyn Tree) -> Manager {
        let files = self.claims.iter().filter(|claim| matches!(claim.renderer, Renderer::Netplan(_)));
        let says = |claim: &Claim| {
            let content = tree.read(&claim.path).ok().flatten()?;
            let content = String::from_utf8_lossy(&content).into_owned();
            let line =
                content.lines().find_map(|line| line.trim().strip_prefix("renderer:").map(str::to_owned))?;
            Some(if line.contains("NetworkManager") { Manager::NetworkManager } else { Manager::Networkd })
        };
        files.filter_map(says).last().unwrap_or(Manager::Networkd)
    }

    /// The one that gets the interfaces: the first that comes up and has some already, else the first that comes up, else
    /// the first that is there. What it is given counts as having some, so that the choice stays.
    pub fn renderer(&self) -> Renderer {
        let has_some = |one: &&Renderer| self.claims.iter().any(|claim| claim.renderer.same_files(one));
        let chosen = self.up.iter().find(has_some).or(self.up.first()).or(self.installed.first());
        chosen.cloned().unwrap_or(Renderer::Networkd)
    }
}

/// Whether NetworkManager has the plugin that reads Red Hat's files.
fn reads_ifcfg(tree: &dyn Tree) -> Result<bool> {
    const PLUGIN: &str = "libnm-settings-plugin-ifcfg-rh.so";
    for dir in ["/usr/lib64/NetworkManager", "/usr/lib/NetworkManager"] {
        for name in tree.list(Path::new(dir))? {
            let path = Path::new(dir).join(&name);
            if name == Path::new(PLUGIN) || tree.entry(&path.join(PLUGIN))?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn is_resolveds(entry: Option<Entry>) -> bool {
    let Some(Entry::Link(to)) = entry else { return false };
    ["run/systemd/resolve/stub-resolv.conf", "run/systemd/resolve/resolv.conf", "lib/systemd/resolv.conf"]
        .iter()
        .any(|file| to.ends_with(file))
}
