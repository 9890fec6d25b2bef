use std::cell::Cell;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use proptest::prelude::*;

use super::area::Sectors;
use super::*;
use crate::host::Live;
use crate::host::loopdev::LoopDevice;
use crate::host::programs::{Program, Programs};

const MIB: u64 = 1 << 20;

/// A disk with physical volumes that LVM's own programs have made.
struct Made {
    dir: tempfile::TempDir,
    parts: Vec<Volume>,
}

impl Made {
    fn new(parts: usize) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || Live.find_program("lvm").is_none() {
            eprintln!("skipped: this takes root and lvm2");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        File::create(&disk).unwrap().set_len((1 + 40 * parts as u64) * MIB).unwrap();
        let part = |at: u64| Volume { file: disk.clone(), offset: (1 + at * 40) * MIB, len: Some(40 * MIB) };
        let made = Self { dir, parts: (0..parts as u64).map(part).collect() };
        made.lvm(&["pvcreate DEVICES", "vgcreate vg0 DEVICES"]);
        Some(made)
    }

    fn disk(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// Runs commands of lvm(8) that see this disk alone; what the last one printed.
    fn lvm(&self, commands: &[&str]) -> String {
        let devices: Vec<LoopDevice> =
            self.parts.iter().map(|part| LoopDevice::attach(part, false).unwrap()).collect();
        let names: Vec<&str> = devices.iter().map(|device| device.path().to_str().unwrap()).collect();
        let filter: String = names.iter().map(|name| format!("\"a|^{name}$|\",")).collect();
        let config = format!(
            "devices {{ use_devicesfile=0 filter=[{filter}\"r|.*|\"] }} global {{ use_lvmpolld=0 locking_dir=\"{0}\" }} \
             activation {{ monitoring=0 udev_sync=0 udev_rules=0 }} backup {{ backup=0 archive=0 }}",
            self.dir.path().display()
        );
        let mut printed = String::new();
        for command in commands {
            let command = command.replace("DEVICES", &names.join(" "));
            let lvm = Program::new("lvm").args(command.split(' '));
            let lvm = lvm.args(["--config", &config, "--driverloaded", "n"]);
            let lvm = lvm.env("LVM_SYSTEM_DIR", self.dir.path().to_str().unwrap());
            printed = Live.run(&lvm).unwrap().text();
        }
        printed
    }

    fn volume(&self, name: &str, extents: &str) {
        self.lvm(&[&format!("lvcreate -an -Zn -Wn -y -n {name} -l {extents} vg0")]);
    }

    fn ids(&self) -> String {
        self.lvm(&["vgck vg0", "pvs --noheadings --segments -o vg_uuid,lv_uuid,pv_uuid,lv_name"])
    }

    fn read(&self) -> Group {
        let mut groups = read(&self.disk(), &self.parts).unwrap();
        assert_eq!(groups.len(), 1);
        groups.remove(0)
    }
}

fn wanted(group: &Group, seed: u8) -> Wanted {
    let id = |number: usize| LvmId::drawn([seed + number as u8; 32]);
    Wanted {
        group: id(0),
        members: (0..group.members.len()).map(|at| id(1 + at)).collect(),
        volumes: (0..group.volumes.len()).map(|at| id(10 + at)).collect(),
    }
}

#[test]
fn a_renamed_group_is_whole_for_lvm_and_its_volumes_are_where_they_were() {
    for parts in [1, 3] {
        let Some(made) = Made::new(parts) else { return };
        made.volume("root", "3");
        made.volume("swap", "2");
        // More often than its metadata area has room for texts side by side, the copies wander around in it.
        for seed in [20, 90, 150] {
            let before = made.read();
            let places: Vec<_> = before.volumes.iter().map(|volume| volume.place.clone().unwrap()).collect();
            let wanted = wanted(&before, seed);
            rename(&made.disk(), before, &wanted).unwrap();
            let now = made.read();
            let found: Vec<_> = now.volumes.iter().map(|volume| volume.place.clone().unwrap()).collect();
            assert_eq!(found, places);
            let ids = made.ids();
            for id in [&[wanted.group], &wanted.members[..], &wanted.volumes].concat() {
                assert!(ids.contains(&id.to_string()), "{parts} {id}\n{ids}");
            }
        }
        // LVM goes on from there.
        made.volume("more", "1");
        assert_eq!(made.read().volumes.len(), 3);
    }
}

/// A disk that takes so many writes more.
struct Failing(File, Cell<usize>);

impl Sectors for Failing {
    fn read(&self, bytes: &mut [u8], at: u64) -> std::io::Result<()> {
        self.0.read_exact_at(bytes, at)
    }

    fn write(&self, bytes: &[u8], at: u64) -> std::io::Result<()> {
        let left = self.1.get().checked_sub(1).ok_or(std::io::ErrorKind::StorageFull)?;
        self.1.set(left);
        self.0.write_all_at(bytes, at)
    }
}

#[test]
fn a_renamed_group_does_not_know_any_more_where_it_was_made() {
    let Some(made) = Made::new(2) else { return };
    made.volume("root", "3");
    let host = Live.run(&Program::new("uname").arg("-n")).unwrap().text();
    if host == "localhost" {
        eprintln!("skipped: this machine has the name that is put in the place of another's");
        return;
    }
    let disk = std::fs::read(made.disk()).unwrap();
    let has = |disk: &[u8], what: &str| disk.windows(what.len()).any(|window| window == what.as_bytes());
    let old: Vec<LvmId> = made.read().members.iter().map(|member| member.id).collect();
    let is_named = |disk: &[u8]| {
        has(disk, &format!("creation_host = \"{host}\"")) || has(disk, &format!("Linux {host} "))
    };
    assert!(is_named(&disk) && has(&disk, &old[0].to_string()));
    let group = made.read();
    let wanted = wanted(&group, 70);
    rename(&made.disk(), group, &wanted).unwrap();
    let disk = std::fs::read(made.disk()).unwrap();
    assert!(!is_named(&disk) && old.iter().all(|id| !has(&disk, &id.to_string())));
    assert!(made.lvm(&["lvs --noheadings -o lv_host vg0"]).contains("localhost"));
    // Once more, and nothing is written.
    let group = made.read();
    rename(&made.disk(), group, &wanted).unwrap();
    assert!(disk == std::fs::read(made.disk()).unwrap());
}

#[test]
fn what_is_written_behind_a_value_is_found() {
    let text = "a = \"x\"\t# Linux gw01 6.1\nb = \"y\"\nd = \"x\" e = \"y\" # f\nc = \"z\"";
    let top = text::parse(text).unwrap();
    for (name, remark) in [("a", "\t# Linux gw01 6.1"), ("b", ""), ("c", ""), ("d", ""), ("e", " # f")] {
        assert_eq!(&text[remark_behind(text, &top.place(name).unwrap())], remark);
    }
}

#[test]
fn an_area_over_the_volumes_is_refused() {
    let Some(made) = Made::new(1) else { return };
    let disk = File::options().read(true).write(true).open(made.disk()).unwrap();
    let file = File::open(made.disk()).unwrap();
    let label = Label::read(&file, &made.parts[0]).unwrap();
    let mut area = label.areas(&file, &made.parts[0]).unwrap().remove(0);
    let text = String::from_utf8(area.text.clone()).unwrap().replace("pe_start = 2048", "pe_start = 1024");
    area.write(&disk, text.as_bytes()).unwrap();
    let error = format!("{:#}", read(&made.disk(), &made.parts).unwrap_err());
    assert_eq!(error, "reading volume group 'vg0': a metadata area lies over what its volumes hold");
}

#[test]
fn wherever_a_rename_is_cut_short_the_next_one_finishes_it() {
    for parts in [1, 2, 3] {
        let Some(made) = Made::new(parts) else { return };
        made.volume("root", "3");
        let before = std::fs::read(made.disk()).unwrap();
        let wanted = wanted(&made.read(), 50);
        let mut writes = 0;
        loop {
            std::fs::write(made.disk(), &before).unwrap();
            let disk =
                Failing(File::options().read(true).write(true).open(made.disk()).unwrap(), Cell::new(writes));
            let done = rename::rename_on(&disk, made.read(), &wanted).is_ok();
            rename(&made.disk(), made.read(), &wanted).unwrap();
            let (now, ids) = (made.read(), made.ids());
            assert!(now.members.iter().all(|member| member.id == member.own_id()), "{parts} {writes}");
            for id in [&[wanted.group], &wanted.members[..], &wanted.volumes].concat() {
                assert!(ids.contains(&id.to_string()), "{parts} {writes}: {id}\n{ids}");
            }
            if done {
                break;
            }
            writes += 1;
        }
        // A text and its header in each area for each physical volume, and its label; and each area's old texts.
        assert_eq!(writes, parts * (2 * parts + 2));
    }
}

#[test]
fn a_volume_that_is_no_single_stretch_says_why() {
    let Some(made) = Made::new(2) else { return };
    made.volume("whole", "2");
    made.lvm(&["lvcreate -an -Zn -Wn -y -i 2 -n striped -l 4 vg0"]);
    let group = made.read();
    let place = |name: &str| {
        let volume = group.volumes.iter().find(|volume| volume.name == name).unwrap();
        volume.place.clone().map(|volume| (volume.offset, volume.len))
    };
    assert_eq!(place("whole"), Ok((2 * MIB, Some(8 * MIB))));
    assert_eq!(place("striped"), Err("is not linear"));
}

#[test]
fn a_group_that_is_not_all_on_the_disk_is_refused() {
    let Some(made) = Made::new(2) else { return };
    let error = format!("{:#}", read(&made.disk(), &made.parts[..1]).unwrap_err());
    assert_eq!(error, "reading volume group 'vg0': a part of it is not on this disk");
}

#[test]
fn a_label_or_text_that_was_damaged_is_never_believed() {
    let Some(made) = Made::new(1) else { return };
    let disk = File::options().read(true).write(true).open(made.disk()).unwrap();
    for (at, what) in
        [(512 + 40, "its label has"), (4096 + 30, "a metadata area has"), (4096 + 512, "a text has")]
    {
        let at = made.parts[0].offset + at;
        let mut byte = [0];
        disk.read_exact_at(&mut byte, at).unwrap();
        disk.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let error = format!("{:#}", read(&made.disk(), &made.parts).unwrap_err());
        assert!(error.ends_with(&format!("{what} a wrong checksum")), "{error}");
        disk.write_all_at(&byte, at).unwrap();
    }
}

proptest! {
    #[test]
    fn any_text_places_its_volumes_inside_the_disk_or_is_refused(extent in any::<u64>(), start in any::<u64>(), from in any::<u64>(), count in any::<u64>()) {
        let physical = Volume { file: "disk".into(), offset: MIB, len: Some(40 * MIB) };
        let text = format!("s {{ extent_count = {count} type = \"striped\" stripe_count = 1 stripes = [\"pv0\", {from}] }}");
        let known = BTreeMap::from([("pv0".to_owned(), (physical, start))]);
        if let Ok(Ok(found)) = stretch(&text::parse(&text).unwrap(), extent, &known) {
            prop_assert!(found.offset >= MIB && found.offset + found.len.unwrap() <= 41 * MIB);
        }
    }
}
