//! What a guest gets of the machine, measured from outside: what the kernel counts for its control group and its port grows
//! while something takes all that there is. One is its limit, one what it gets without.

use crate::installed::{Installed, Ran};
use crate::lab::Lab;

/// For so long all is taken. What a limit lets pass at once after a rest would count for too much in less.
const SECONDS: u32 = 5;

/// A guest that runs.
pub(crate) struct Guest<'a> {
    lab: &'a Lab,
    name: &'a str,
    cgroup: String,
}

impl<'a> Guest<'a> {
    pub(crate) fn of(lab: &'a Lab, name: &'a str) -> Self {
        let cgroup = lab.show(&format!("gridgate-guest@{name}"), "ControlGroup");
        Self { lab, name, cgroup: format!("/sys/fs/cgroup{cgroup}") }
    }

    /// Runs a command in a guest that is a container, without what a login costs there.
    pub(crate) fn run(&self, command: &str) -> Ran {
        self.lab.run(&self.inside(command))
    }

    /// In its namespaces and its control group, of which a process below the guest's own is a member too.
    fn inside(&self, command: &str) -> String {
        let (pid, members) = (&self.lab.guest(self.name)["pid"], format!("{}/payload/lab", self.cgroup));
        let enter = "echo $$ >\"$0/cgroup.procs\" && exec nsenter --target \"$1\" --all sh -c \"$2\"";
        let quoted = command.replace('\'', r"'\''");
        format!(
            "mkdir -p '{members}' && leader=$(cut -d ' ' -f 1 /proc/{pid}/task/{pid}/children) && \
             sh -c '{enter}' '{members}' $leader '{quoted}'"
        )
    }

    /// Ends all that [`Self::run`] left running.
    pub(crate) fn end_all(&self) {
        self.lab.tell(&format!("echo 1 >'{}/payload/lab/cgroup.kill'", self.cgroup));
    }

    /// A number in a file of its control group, behind `key` if there are several.
    pub(crate) fn counted(&self, file: &str, key: &str) -> u64 {
        self.lab.tell(&self.counter(file, key)).parse().unwrap()
    }

    fn counter(&self, file: &str, key: &str) -> String {
        format!("sed -n 's/^{key} *//p' '{}/{file}'", self.cgroup)
    }

    /// How much a counter that is printed by a command in the machine grows a second, while another is repeated.
    fn growth(&self, counter: &str, load: &str) -> f64 {
        let look = format!("{counter}; cut -d ' ' -f 1 /proc/uptime");
        let said = self.lab.tell(&format!("{look}; {{ {load}\n}} >/dev/null 2>&1; {look}"));
        let numbers: Vec<f64> = said.lines().map(|line| line.parse().unwrap()).collect();
        let [before, from, after, to] = numbers[..] else { panic!("{said}") };
        (after - before) / (to - from)
    }

    /// Processors that a program in the guest gets which would take one.
    pub(crate) fn processors(&self) -> f64 {
        self.growth(&self.counter("cpu.stat", "usage_usec"), &self.inside(&repeated(":"))) / 1e6
    }

    /// Writes until the kernel counts what is written to the guest's disk as the guest's: a file belongs to the control group
    /// that wrote to it first, here the one that made it, until another has written most of it for some seconds (Linux's
    /// Documentation/admin-guide/cgroup-v2.rst, Writeback).
    pub(crate) fn own_disk(&self) {
        let written = || self.lab.tell(&self.disk_counter("wbytes")).parse::<u64>().unwrap();
        self.lab.eventually("the guest's disk is its own", || {
            let before = written();
            self.run("dd if=/dev/zero of=/root/load bs=1M count=8 conv=fsync");
            (written() - before >= 8 << 20).then_some(())
        });
    }

    fn disk_counter(&self, what: &str) -> String {
        // The device is not there before it was used.
        let device = "$(mountpoint -d /var/lib/gridgate)";
        format!(
            "(echo {what}=0; grep \"^{device} \" '{}/io.stat') | sed -n 's/.*{what}=\\([0-9]*\\).*/\\1/p' | tail -n 1",
            self.cgroup
        )
    }

    /// What reaches the disk below the guest's own a second, of these: `rbytes`, `wbytes`, `rios`, `wios`.
    pub(crate) fn disk(&self, what: &str) -> f64 {
        // So much as takes some seconds with a limit: what is cut off half way is not counted yet.
        let load = match what {
            "rbytes" => "cat /usr/lib/x86_64-linux-gnu/*.so* | head -c 3M",
            "rios" => "for file in /usr/bin/[a-c]*; do head -c 1 $file; done",
            "wbytes" => "dd if=/dev/zero of=/root/load bs=128k count=12 conv=fsync",
            // Over blocks that it has: what the journal writes is the doing of the machine's kernel.
            _ => "dd if=/dev/zero of=/root/load bs=4k count=40 conv=notrunc oflag=dsync",
        };
        // What was read once would be read from memory.
        self.lab.tell("sync; echo 3 >/proc/sys/vm/drop_caches");
        self.growth(&self.disk_counter(what), &self.inside(load))
    }

    /// Bytes a second that reach the guest. Its port counts what has passed the limit; its name ends in the guest's.
    pub(crate) fn received(&self) -> f64 {
        let address = self.lab.guest(self.name)["address"].as_str().unwrap().to_owned();
        let counter = format!("cat /sys/class/net/*-{}/statistics/tx_bytes", self.name);
        self.growth(&counter, &repeated(&packets(&address)))
    }

    /// Bytes a second that reach the machine from the guest. The machine's end of the bridge counts what has passed the limit.
    pub(crate) fn sent(&self, bridge: &str, gateway: &str) -> f64 {
        let counter = format!("cat /sys/class/net/{bridge}/statistics/rx_bytes");
        self.growth(&counter, &self.inside(&repeated(&packets(gateway))))
    }
}

fn repeated(command: &str) -> String {
    format!("timeout {SECONDS} bash -c 'while :; do {command}; done'")
}

/// As many as go, to a port where nobody listens: an answer that says so ends it.
fn packets(address: &str) -> String {
    format!("dd if=/dev/zero bs=1400 >/dev/udp/{address}/9")
}
