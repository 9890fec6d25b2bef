//! A machine kept in memory, for rehearsing plans where no machine may be touched: files, links, namespaces and tables
//! behave as far as plans depend on them; programs succeed and say nothing; a disk's filesystem is a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;

use super::Host;
use super::disks::{CloneHow, Disks};
use super::files::{Files, LockGuard, Stat};
use super::filesystem::{Filesystems, Shape};
use super::net::{Link, LinkKind, Net, Port, Rates, Table};
use super::newfs::{Finish, NewFilesystem, Work};
use super::programs::{Program, Programs, Ran};
use super::root::Root;
use super::superblock::{FilesystemKind, Superblock};
use super::volume::Volume;
use crate::names::{IfName, MacAddr};
use crate::progress::Progress;

/// The whole machine; two models can be compared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Files and their content; a directory is what has something below it.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// Links by namespace.
    pub links: BTreeMap<Option<PathBuf>, Vec<Link>>,
    /// Namespaces that are bound somewhere.
    pub namespaces: BTreeSet<PathBuf>,
    /// Tables of nftables.
    pub tables: Vec<Table>,
    /// Kernel settings.
    pub sysctl: BTreeMap<String, String>,
}

/// See the module.
#[derive(Debug)]
pub struct Model {
    state: Mutex<State>,
    /// Filesystems of disks, one directory each.
    scratch: PathBuf,
}

const FREE: u64 = 1 << 40;

fn link(name: &str, kind: LinkKind) -> Link {
    Link {
        index: 2,
        name: name.to_owned(),
        kind,
        mac: None,
        mtu: 1500,
        up: false,
        master: None,
        alias: None,
        addresses: Vec::new(),
        default_route: false,
    }
}

impl Model {
    /// A bare machine; `scratch` is a real, private directory for the filesystems of its disks.
    pub fn new(scratch: &Path) -> Self {
        let sysctl = BTreeMap::from([("net/ipv4/ip_forward".to_owned(), "0".to_owned())]);
        Self { state: Mutex::new(State { sysctl, ..State::default() }), scratch: scratch.to_owned() }
    }

    /// Puts a network card into the host's own namespace.
    pub fn add_card(&self, name: &IfName) {
        self.lock().links.entry(None).or_default().push(link(name.as_str(), LinkKind::Device));
    }

    /// What it is like now.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_link<T>(&self, ns: Option<&Path>, name: &IfName, act: impl FnOnce(&mut Link) -> T) -> Result<T> {
        let mut state = self.lock();
        let links = state.links.entry(ns.map(Path::to_owned)).or_default();
        let link = links.iter_mut().find(|link| link.name == name.as_str());
        link.map(act).with_context(|| format!("there is no interface '{name}'"))
    }
}

impl Files for Model {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        Ok(self.lock().files.get(path).cloned())
    }
    fn write(&self, path: &Path, content: &[u8], _mode: u32) -> Result<()> {
        self.lock().files.insert(path.to_owned(), content.to_vec());
        Ok(())
    }
    fn make_dir(&self, _path: &Path, _mode: u32) -> Result<()> {
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.lock();
        let content =
            state.files.remove(from).with_context(|| format!("there is no '{}'", from.display()))?;
        state.files.insert(to.to_owned(), content);
        Ok(())
    }
    fn link(&self, path: &Path, target: &Path) -> Result<()> {
        let target = target.as_os_str().as_encoded_bytes().to_vec();
        self.lock().files.insert(path.to_owned(), target);
        Ok(())
    }
    fn read_link(&self, path: &Path) -> Result<Option<PathBuf>> {
        use std::os::unix::ffi::OsStrExt;
        let content = self.lock().files.get(path).cloned();
        Ok(content.map(|bytes| PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))))
    }
    fn remove(&self, path: &Path) -> Result<()> {
        self.lock().files.retain(|file, _| !file.starts_with(path));
        Ok(())
    }
    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let state = self.lock();
        let below = state.files.keys().filter_map(|file| file.strip_prefix(path).ok()?.components().next());
        let names: BTreeSet<String> =
            below.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        Ok(names.into_iter().collect())
    }
    fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        let state = self.lock();
        if let Some(content) = state.files.get(path) {
            let len = content.len() as u64;
            return Ok(Some(Stat { is_dir: false, len, allocated: len }));
        }
        let is_dir = state.files.keys().any(|file| file.starts_with(path));
        Ok(is_dir.then_some(Stat { is_dir, len: 0, allocated: 0 }))
    }
    fn free_bytes(&self, _path: &Path) -> Result<u64> {
        Ok(FREE)
    }
    fn lock(&self, _path: &Path, _limit: Duration) -> Result<LockGuard> {
        Ok(LockGuard::none())
    }
}

impl Programs for Model {
    fn run_any(&self, _program: &Program) -> Result<Ran> {
        Ok(Ran::default())
    }
    fn find_program(&self, name: &str) -> Option<PathBuf> {
        Some(Path::new("/usr/bin").join(name))
    }
}

impl Disks for Model {
    fn clone_file(&self, from: &Path, to: &Path, _size: u64, _progress: &Progress) -> Result<CloneHow> {
        let mut state = self.lock();
        let content = state.files.get(from).cloned().unwrap_or_default();
        let bytes = content.len() as u64;
        state.files.insert(to.to_owned(), content);
        Ok(CloneHow::Copied { bytes })
    }
    fn sync_file(&self, _path: &Path) -> Result<()> {
        Ok(())
    }
    fn publish_dir(&self, from: &Path, to: &Path) -> Result<()> {
        self.rename(from, to)
    }
    fn abandoned(&self, _dir: &Path) -> Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
}

impl Filesystems for Model {
    fn edit_volume(
        &self,
        volume: &Volume,
        _shape: Shape,
        edit: &mut dyn FnMut(&Root, Superblock) -> Result<()>,
    ) -> Result<()> {
        let dir = self.scratch.join(volume.file.strip_prefix("/").unwrap_or(&volume.file));
        std::fs::create_dir_all(&dir)?;
        let found = Superblock { kind: FilesystemKind::Ext4, uuid: [0; 16], needs_recovery: false };
        edit(&Root::open(&dir)?, found)
    }
    fn look_at_volume(
        &self,
        volume: &Volume,
        look: &mut dyn FnMut(&Root, Superblock) -> Result<()>,
    ) -> Result<()> {
        self.edit_volume(volume, Shape::default(), look)
    }
    fn make_volume(&self, volume: &Volume, _: &NewFilesystem, _: Finish, work: &mut Work<'_>) -> Result<()> {
        self.edit_volume(volume, Shape::default(), &mut |root, _| {
            (work.fill)(root)?;
            work.check.as_deref_mut().map_or(Ok(()), |check| check(root))
        })
    }
}

impl Net for Model {
    fn links(&self, ns: Option<&Path>) -> Result<Vec<Link>> {
        Ok(self.lock().links.get(&ns.map(Path::to_owned)).cloned().unwrap_or_default())
    }
    fn make_bridge(&self, ns: Option<&Path>, name: &IfName, alias: &str) -> Result<()> {
        let mut state = self.lock();
        let links = state.links.entry(ns.map(Path::to_owned)).or_default();
        if links.iter().any(|link| link.name == name.as_str()) {
            bail!("interface '{name}' is there already");
        }
        let index = links.len() as u32 + 2;
        links.push(Link {
            index,
            up: true,
            alias: Some(alias.to_owned()),
            ..link(name.as_str(), LinkKind::Bridge)
        });
        Ok(())
    }
    fn remove_link(&self, ns: Option<&Path>, name: &IfName) -> Result<()> {
        if let Some(links) = self.lock().links.get_mut(&ns.map(Path::to_owned)) {
            links.retain(|link| link.name != name.as_str());
        }
        Ok(())
    }
    fn add_address(&self, ns: Option<&Path>, link: &IfName, address: IpNet) -> Result<()> {
        self.with_link(ns, link, |link| link.addresses.push(address))
    }
    fn remove_address(&self, ns: Option<&Path>, link: &IfName, address: IpNet) -> Result<()> {
        self.with_link(ns, link, |link| link.addresses.retain(|other| *other != address))
    }
    fn set_up(&self, ns: Option<&Path>, link: &IfName) -> Result<()> {
        self.with_link(ns, link, |link| link.up = true)
    }
    fn set_down(&self, ns: Option<&Path>, link: &IfName) -> Result<()> {
        self.with_link(ns, link, |link| link.up = false)
    }
    fn set_master(&self, ns: Option<&Path>, link: &IfName, bridge: Option<&IfName>) -> Result<()> {
        let index = match bridge {
            Some(bridge) => Some(self.with_link(ns, bridge, |bridge| bridge.index)?),
            None => None,
        };
        self.with_link(ns, link, |link| link.master = index)
    }
    fn make_netns(&self, path: &Path) -> Result<()> {
        self.lock().namespaces.insert(path.to_owned());
        Ok(())
    }
    fn remove_netns(&self, path: &Path) -> Result<()> {
        let mut state = self.lock();
        state.namespaces.remove(path);
        state.links.remove(&Some(path.to_owned()));
        Ok(())
    }
    fn netns_exists(&self, path: &Path) -> Result<bool> {
        Ok(self.lock().namespaces.contains(path))
    }
    fn open_netns(&self, path: &Path) -> Result<OwnedFd> {
        bail!("the model has no processes that could enter '{}'", path.display())
    }
    fn fresh_netns(&self) -> Result<OwnedFd> {
        bail!("the model has no processes that could be in a namespace")
    }
    fn nft_tables(&self, _ns: Option<&Path>) -> Result<Vec<Table>> {
        Ok(self.lock().tables.clone())
    }
    fn nft(&self, _ns: Option<&Path>, _script: &str) -> Result<()> {
        Ok(())
    }
    fn sysctl_read(&self, _ns: Option<&Path>, key: &str) -> Result<Option<String>> {
        Ok(self.lock().sysctl.get(key).cloned())
    }
    fn sysctl_write(&self, _ns: Option<&Path>, key: &str, value: &str) -> Result<()> {
        self.lock().sysctl.insert(key.to_owned(), value.to_owned());
        Ok(())
    }
    fn open_tap(&self, _ns: Option<&Path>, port: Port<'_>, _mac: Option<MacAddr>) -> Result<OwnedFd> {
        bail!("the model has no processes that could hold tap '{}'", port.name)
    }
    fn make_veth(
        &self,
        _ns: Option<&Path>,
        port: Port<'_>,
        _peer_ns: BorrowedFd<'_>,
        _peer_name: &IfName,
        _peer_mac: MacAddr,
    ) -> Result<()> {
        bail!("the model has no processes that could hold cable '{}'", port.name)
    }
    fn set_rates(&self, ns: Option<&Path>, port: &IfName, _rates: Rates) -> Result<()> {
        self.with_link(ns, port, |_| ())
    }
    fn arp_probe(&self, _: Option<&Path>, _: &IfName, _: Ipv4Addr, _: Duration) -> Result<Option<MacAddr>> {
        Ok(None)
    }
}

impl Host for Model {}
