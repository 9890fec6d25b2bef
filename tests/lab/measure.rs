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

    /// What the kernel limits of what goes to and from disks.
    pub(crate) fn limits_of_disks(&self) -> String {
        self.lab.tell(&format!("cat '{}/io.max'", self.cgroup))
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

    /// Its part of what it and another get of one processor that both want all of.
    pub(crate) fn share_beside(&self, other: &Self) -> f64 {
        let both = [self, other];
        let used = |guest: &Self| guest.counted("cpu.stat", "usage_usec");
        let at_rest = both.map(used);
        for guest in both {
            // Not outside: who enters a control group may run on all of its processors.
            let load = guest.inside("exec taskset --cpu-list 1 sh -c 'while :; do :; done'");
            self.lab.tell(&format!("({load}) >/dev/null 2>&1 &"));
        }
        self.lab.eventually("both are at work", || {
            let at_work = |(guest, rest): (&Self, u64)| used(guest) > rest + 1_000_000;
            both.into_iter().zip(at_rest).all(at_work).then_some(())
        });
        let look = both.map(|guest| guest.counter("cpu.stat", "usage_usec")).join("; ");
        let said = self.lab.tell(&format!("{look}; sleep {SECONDS}; {look}"));
        both.into_iter().for_each(Self::end_all);
        let numbers: Vec<f64> = said.lines().map(|line| line.parse().unwrap()).collect();
        let [mine, theirs, mine_after, theirs_after] = numbers[..] else { panic!("{said}") };
        let (mine, theirs) = (mine_after - mine, theirs_after - theirs);
        mine / (mine + theirs)
    }

    /// What reaches the machine's disk for guests a second, of these: `rbytes`, `wbytes`, `rios`, `wios`. The other guests are
    /// taken to rest.
    pub(crate) fn disk(&self, what: &str) -> f64 {
        // So much as takes some seconds with a limit: what is cut off half way may still be on its way.
        let (count, load) = match what {
            "rbytes" => ("$3 * 512", "cat /usr/lib/x86_64-linux-gnu/*.so* | head -c 3M"),
            "rios" => ("$1", "for file in /usr/bin/a*; do head -c 1 $file; done"),
            "wbytes" => ("$7 * 512", "dd if=/dev/zero of=/root/load bs=128k count=12 conv=fsync"),
            // Over blocks that it has: each is two, for its flush, and nothing else.
            _ => ("$5", "dd if=/dev/zero of=/root/load bs=4k count=40 conv=notrunc oflag=dsync"),
        };
        // What was read once would be read from memory, and what was written before is not to count.
        self.lab.tell("sync; echo 3 >/proc/sys/vm/drop_caches");
        let counter = format!("awk '{{ print {count} }}' /sys/block/vdb/stat");
        self.growth(&counter, &self.inside(load))
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
