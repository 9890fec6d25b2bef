//! A host that writes down each call and fails at call N, so that every failure point is rehearsed in turn.

use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use ipnet::IpNet;

use super::Host;
use super::disks::{CloneHow, Disks};
use super::files::{Files, LockGuard, Stat};
use super::filesystem::{Filesystems, Shape};
use super::net::{Link, Net, Port, Rates, Table};
use super::newfs::{Finish, NewFilesystem, Work};
use super::programs::{Program, Programs, Ran};
use super::root::Root;
use super::superblock::Superblock;
use super::volume::Volume;
use crate::names::{IfName, MacAddr};
use crate::progress::Progress;

/// Passes calls on to another host; the one whose turn it is fails instead, before it has done anything.
pub struct Recorder<'a> {
    inner: &'a dyn Host,
    calls: Mutex<Vec<String>>,
    fail_at: Option<usize>,
}

impl<'a> Recorder<'a> {
    /// Fails at this call, counted from 0; never if there is none.
    pub fn new(inner: &'a dyn Host, fail_at: Option<usize>) -> Self {
        Self { inner, calls: Mutex::new(Vec::new()), fail_at }
    }

    /// The calls so far, in order.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a call that is not the host's own, such as one of the manager of services.
    pub fn call(&self, name: &str, about: &str) -> Result<()> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(format!("{name} {about}").trim_end().to_owned());
        if self.fail_at == Some(calls.len() - 1) {
            bail!("rehearsed failure at call {} ({name} {about})", calls.len() - 1);
        }
        Ok(())
    }
}

macro_rules! pass_on {
    ($self:ident.$name:ident($($arg:expr),*), $($about:tt)+) => {{
        $self.call(stringify!($name), &format!($($about)+))?;
        $self.inner.$name($($arg),*)
    }};
}

impl Files for Recorder<'_> {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        pass_on!(self.read(path), "{}", path.display())
    }
    fn write(&self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        pass_on!(self.write(path, content, mode), "{}", path.display())
    }
    fn make_dir(&self, path: &Path, mode: u32) -> Result<()> {
        pass_on!(self.make_dir(path, mode), "{}", path.display())
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        pass_on!(self.rename(from, to), "{}", to.display())
    }
    fn link(&self, path: &Path, target: &Path) -> Result<()> {
        pass_on!(self.link(path, target), "{}", path.display())
    }
    fn read_link(&self, path: &Path) -> Result<Option<PathBuf>> {
        pass_on!(self.read_link(path), "{}", path.display())
    }
    fn remove(&self, path: &Path) -> Result<()> {
        pass_on!(self.remove(path), "{}", path.display())
    }
    fn list(&self, path: &Path) -> Result<Vec<String>> {
        pass_on!(self.list(path), "{}", path.display())
    }
    fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        pass_on!(self.stat(path), "{}", path.display())
    }
    fn free_bytes(&self, path: &Path) -> Result<u64> {
        pass_on!(self.free_bytes(path), "{}", path.display())
    }
    fn lock(&self, path: &Path, limit: Duration) -> Result<LockGuard> {
        pass_on!(self.lock(path, limit), "{}", path.display())
    }
}

impl Programs for Recorder<'_> {
    fn run_any(&self, program: &Program) -> Result<Ran> {
        pass_on!(self.run_any(program), "{}", program.typed())
    }
    fn find_program(&self, name: &str) -> Option<PathBuf> {
        self.inner.find_program(name)
    }
}

impl Disks for Recorder<'_> {
    fn clone_file(&self, from: &Path, to: &Path, size: u64, progress: &Progress) -> Result<CloneHow> {
        pass_on!(self.clone_file(from, to, size, progress), "{}", to.display())
    }
    fn sync_file(&self, path: &Path) -> Result<()> {
        pass_on!(self.sync_file(path), "{}", path.display())
    }
    fn publish_dir(&self, from: &Path, to: &Path) -> Result<()> {
        pass_on!(self.publish_dir(from, to), "{}", to.display())
    }
    fn abandoned(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        pass_on!(self.abandoned(dir), "{}", dir.display())
    }
}

impl Filesystems for Recorder<'_> {
    fn edit_volume(
        &self,
        volume: &Volume,
        shape: Shape,
        edit: &mut dyn FnMut(&Root, Superblock) -> Result<()>,
    ) -> Result<()> {
        pass_on!(self.edit_volume(volume, shape, edit), "{volume}")
    }
    fn look_at_volume(
        &self,
        volume: &Volume,
        look: &mut dyn FnMut(&Root, Superblock) -> Result<()>,
    ) -> Result<()> {
        pass_on!(self.look_at_volume(volume, look), "{volume}")
    }
    fn make_volume(
        &self,
        volume: &Volume,
        new: &NewFilesystem,
        finish: Finish,
        work: &mut Work<'_>,
    ) -> Result<()> {
        pass_on!(self.make_volume(volume, new, finish, work), "{volume}")
    }
}

impl Net for Recorder<'_> {
    fn links(&self, ns: Option<&Path>) -> Result<Vec<Link>> {
        pass_on!(self.links(ns), "")
    }
    fn make_bridge(&self, ns: Option<&Path>, name: &IfName, alias: &str) -> Result<()> {
        pass_on!(self.make_bridge(ns, name, alias), "{name}")
    }
    fn remove_link(&self, ns: Option<&Path>, name: &IfName) -> Result<()> {
        pass_on!(self.remove_link(ns, name), "{name}")
    }
    fn add_address(&self, ns: Option<&Path>, link: &IfName, address: IpNet) -> Result<()> {
        pass_on!(self.add_address(ns, link, address), "{link} {address}")
    }
    fn remove_address(&self, ns: Option<&Path>, link: &IfName, address: IpNet) -> Result<()> {
        pass_on!(self.remove_address(ns, link, address), "{link} {address}")
    }
    fn set_up(&self, ns: Option<&Path>, link: &IfName) -> Result<()> {
        pass_on!(self.set_up(ns, link), "{link}")
    }
    fn set_down(&self, ns: Option<&Path>, link: &IfName) -> Result<()> {
        pass_on!(self.set_down(ns, link), "{link}")
    }
    fn set_master(&self, ns: Option<&Path>, link: &IfName, bridge: Option<&IfName>) -> Result<()> {
        pass_on!(self.set_master(ns, link, bridge), "{link}")
    }
    fn make_netns(&self, path: &Path) -> Result<()> {
        pass_on!(self.make_netns(path), "{}", path.display())
    }
    fn remove_netns(&self, path: &Path) -> Result<()> {
        pass_on!(self.remove_netns(path), "{}", path.display())
    }
    fn netns_exists(&self, path: &Path) -> Result<bool> {
        pass_on!(self.netns_exists(path), "{}", path.display())
    }
    fn open_netns(&self, path: &Path) -> Result<OwnedFd> {
        pass_on!(self.open_netns(path), "{}", path.display())
    }
    fn fresh_netns(&self) -> Result<OwnedFd> {
        pass_on!(self.fresh_netns(), "")
    }
    fn nft_tables(&self, ns: Option<&Path>) -> Result<Vec<Table>> {
        pass_on!(self.nft_tables(ns), "")
    }
    fn nft(&self, ns: Option<&Path>, script: &str) -> Result<()> {
        pass_on!(self.nft(ns, script), "")
    }
    fn sysctl_read(&self, ns: Option<&Path>, key: &str) -> Result<Option<String>> {
        pass_on!(self.sysctl_read(ns, key), "{key}")
    }
    fn sysctl_write(&self, ns: Option<&Path>, key: &str, value: &str) -> Result<()> {
        pass_on!(self.sysctl_write(ns, key, value), "{key}={value}")
    }
    fn open_tap(&self, ns: Option<&Path>, port: Port<'_>, mac: Option<MacAddr>) -> Result<OwnedFd> {
        pass_on!(self.open_tap(ns, port, mac), "{}", port.name)
    }
    fn make_veth(
        &self,
        ns: Option<&Path>,
        port: Port<'_>,
        peer_ns: BorrowedFd<'_>,
        peer_name: &IfName,
        peer_mac: MacAddr,
    ) -> Result<()> {
        pass_on!(self.make_veth(ns, port, peer_ns, peer_name, peer_mac), "{}", port.name)
    }
    fn set_rates(&self, ns: Option<&Path>, port: &IfName, rates: Rates) -> Result<()> {
        pass_on!(self.set_rates(ns, port, rates), "{port}")
    }
    fn arp_probe(
        &self,
        ns: Option<&Path>,
        link: &IfName,
        address: Ipv4Addr,
        limit: Duration,
    ) -> Result<Option<MacAddr>> {
        pass_on!(self.arp_probe(ns, link, address, limit), "{link} {address}")
    }
}

impl Host for Recorder<'_> {}
