//! Guests' filesystems, as far as a network is concerned: what each distribution has where.

use std::os::unix::fs::symlink;
use std::path::Path;

use gridgate::host::root::Root;
use gridgate::identity::network::found::Found;

/// A distribution, with the network of the machine that the image was made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    DebianIfupdown,
    DebianNetworkd,
    DebianNetworkManager,
    OldDebian,
    Ubuntu,
    RedHat73,
    Rhel7,
    Rhel9,
    Suse,
}

impl Distribution {
    pub const ALL: [Self; 9] = [
        Self::DebianIfupdown,
        Self::DebianNetworkd,
        Self::DebianNetworkManager,
        Self::OldDebian,
        Self::Ubuntu,
        Self::RedHat73,
        Self::Rhel7,
        Self::Rhel9,
        Self::Suse,
    ];
}

/// A tree of the host, held open.
pub struct Guest {
    pub dir: tempfile::TempDir,
    pub root: Root,
}

impl Guest {
    pub fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        Self { dir, root }
    }

    pub fn new(distribution: Distribution) -> Self {
        let guest = Self::empty();
        guest.fill(distribution);
        guest
    }

    pub fn path(&self, path: &str) -> std::path::PathBuf {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    pub fn file(&self, path: &str, content: &str) {
        std::fs::write(self.path(path), content).unwrap();
    }

    pub fn link(&self, path: &str, to: &str) {
        symlink(to, self.path(path)).unwrap();
    }

    pub fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(path)).unwrap_or_default()
    }

    pub fn has(&self, path: &str) -> bool {
        Path::new(&self.dir.path().join(path)).symlink_metadata().is_ok()
    }

    /// Installs a unit and has it come up.
    pub fn enable(&self, unit: &str) {
        self.file(&format!("usr/lib/systemd/system/{unit}"), "");
        let wants = format!("etc/systemd/system/multi-user.target.wants/{unit}");
        self.link(&wants, &format!("/usr/lib/systemd/system/{unit}"));
    }

    pub fn systemd(&self) {
        self.file("usr/lib/systemd/systemd", "");
        self.file("usr/lib/systemd/systemd-udevd", "");
        self.file("usr/lib/systemd/network/99-default.link", "");
    }

    fn fill(&self, distribution: Distribution) {
        let old_address = "auto eth0\niface eth0 inet static\n    address 192.0.2.7/24\n";
        match distribution {
            Distribution::DebianIfupdown => {
                self.systemd();
                self.file("sbin/ifup", "");
                self.enable("networking.service");
                self.file("etc/network/interfaces", "source /etc/network/interfaces.d/*\nauto lo\n");
                self.file("etc/network/interfaces.d/eth0", old_address);
                self.file("etc/network/interfaces.d/br0", "iface br0 inet manual\n");
                self.file("etc/systemd/network/20-en.network", "[Match]\nName=en*\n");
                self.link("etc/resolv.conf", "/run/resolvconf/resolv.conf");
            }
            Distribution::DebianNetworkd => {
                self.systemd();
                self.file("sbin/ifup", "");
                self.enable("systemd-networkd.service");
                self.enable("systemd-resolved.service");
                self.file("etc/network/interfaces", old_address);
                self.file("etc/systemd/network/10-gridgate.link", "[Match]\nMACAddress=52:54:00:99:99:99\n");
                self.file("etc/systemd/network/20-en.network", "[Match]\nName=en*\n\n[Network]\nDHCP=yes\n");
                self.file("etc/systemd/network/docker.network", "[Match]\nName=docker0\n");
                self.link("etc/systemd/network/80-container-host0.network", "/dev/null");
                self.link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
            }
            Distribution::DebianNetworkManager => {
                self.systemd();
                self.file("sbin/ifup", "");
                self.enable("networking.service");
                self.enable("NetworkManager.service");
                self.file("etc/network/interfaces", "auto lo\niface lo inet loopback\n");
                let connections = "etc/NetworkManager/system-connections";
                self.file(&format!("{connections}/Wired connection 1"), "[connection]\ntype=ethernet\n");
                self.file(&format!("{connections}/tunnel.nmconnection"), "[connection]\ntype=tun\n");
                self.file("etc/resolv.conf", "nameserver 192.0.2.1\n");
            }
            Distribution::OldDebian => {
                self.file("sbin/ifup", "");
                self.link("etc/rcS.d/S40networking", "../init.d/networking");
                self.file("etc/network/interfaces", old_address);
                let seen = "ATTR{address}==\"00:11:22:33:44:55\", NAME=\"eth0\"\n";
                self.file("etc/udev/rules.d/70-persistent-net.rules", seen);
                self.file("etc/iftab", "eth0 mac 00:11:22:33:44:55\n");
            }
            Distribution::Ubuntu => {
                self.systemd();
                self.file("usr/sbin/netplan", "");
                self.enable("systemd-networkd.service");
                self.enable("systemd-resolved.service");
                self.file("usr/bin/cloud-init", "");
                let old = "network:\n  version: 2\n  ethernets:\n    ens3: {dhcp4: true}\n";
                self.file("etc/netplan/50-cloud-init.yaml", old);
                self.link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
            }
            Distribution::RedHat73 => {
                let scripts = "etc/sysconfig/network-scripts";
                self.file(&format!("{scripts}/ifup-eth"), "");
                self.file(&format!("{scripts}/ifup-routes"), "grep \"^$1 \" /etc/sysconfig/static-routes\n");
                self.file(&format!("{scripts}/ifcfg-lo"), "DEVICE=lo\n");
                self.file(&format!("{scripts}/ifcfg-eth0"), "DEVICE=eth0\nIPADDR=192.0.2.7\n");
                self.file(
                    "etc/sysconfig/network",
                    "NETWORKING=yes\nHOSTNAME=golden\nGATEWAY=192.0.2.1\nNISDOMAIN=x\n",
                );
                self.file("etc/sysconfig/networking/devices/ifcfg-eth0", "DEVICE=eth0\n");
                self.link("etc/rc.d/rc3.d/S10network", "../init.d/network");
                self.file("etc/resolv.conf", "nameserver 192.0.2.1\n");
            }
            Distribution::Rhel7 => {
                self.systemd();
                self.enable("NetworkManager.service");
                self.file("usr/lib64/NetworkManager/1.18/libnm-settings-plugin-ifcfg-rh.so", "");
                let scripts = "etc/sysconfig/network-scripts";
                self.file(&format!("{scripts}/ifup"), "");
                self.file(&format!("{scripts}/ifup-routes"), "route-$DEVICE\n");
                self.file(&format!("{scripts}/ifcfg-ens192"), "DEVICE=ens192\n");
                self.file(&format!("{scripts}/route-ens192"), "10.0.0.0/8 via 192.0.2.1\n");
                self.file(&format!("{scripts}/ifcfg-br0"), "DEVICE=br0\nTYPE=Bridge\n");
                self.file("etc/sysconfig/network", "# Created by anaconda\n");
                self.link("etc/rc.d/rc3.d/S10network", "../init.d/network");
            }
            Distribution::Rhel9 => {
                self.systemd();
                self.enable("NetworkManager.service");
                self.file("usr/lib64/NetworkManager/1.42/libnm-settings-plugin-ifcfg-rh.so", "");
                let readme = "NetworkManager stores new profiles in keyfiles\n";
                self.file("etc/sysconfig/network-scripts/readme-ifcfg-rh.txt", readme);
                let old = "[connection]\ntype=ethernet\ninterface-name=ens3\n";
                self.file("etc/NetworkManager/system-connections/ens3.nmconnection", old);
            }
            Distribution::Suse => {
                self.systemd();
                self.enable("wicked.service");
                self.file("sbin/ifup", "");
                let dir = "etc/sysconfig/network";
                self.file(&format!("{dir}/ifcfg-eth0"), "BOOTPROTO='dhcp'\n");
                self.file(&format!("{dir}/ifcfg-lo"), "IPADDR='127.0.0.1/8'\n");
                self.file(&format!("{dir}/routes"), "default 192.0.2.1 - -\n");
                let config = "# Path: Network/DNS\nNETCONFIG_DNS_STATIC_SERVERS=\"192.0.2.1\"\nDHCLIENT_DEBUG=\"no\"\n";
                self.file(&format!("{dir}/config"), config);
                self.link("etc/resolv.conf", "/run/netconfig/resolv.conf");
            }
        }
    }
}

/// What is found in such a guest.
pub fn found(distribution: Distribution) -> Found {
    Found::look(&Guest::new(distribution).root).unwrap()
}
