//! The image itself: a filesystem of our own making, filled from the source, looked through before it gets a name.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Work;
use crate::archive::entry::{Entry, Kind};
use crate::archive::pack::{Keys, PrivateKeys};
use crate::archive::restore::random_uuid;
use crate::archive::source::Source;
use crate::archive::{fill, manifest, order, room};
use crate::host::filesystem::uuid_text;
use crate::host::newfs::{Finish, NewFilesystem, Work as Filling};
use crate::host::refused::Refused;
use crate::host::root::{Kind as Sort, Root};
use crate::host::superblock::FilesystemKind;
use crate::host::volume::Volume;
use crate::identity::audit::{self, Now, Old};
use crate::identity::scrub::Policy;
use crate::identity::seal;
use crate::image::manifest::{DISK, INITRD, KERNEL, Package, Remains};
use crate::image::{kernel, records};
use crate::names::Bytes;

/// What the source's own filesystem says, if it is one.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// Files of it may name it.
    pub uuid: Option<[u8; 16]>,
    /// At most 16 bytes.
    pub label: String,
    /// Whether it may be one of several filesystems of a system.
    pub is_part: bool,
}

/// What is known once it is filled.
#[derive(Debug)]
pub(super) struct Filled {
    pub uuid: String,
    pub packages: Vec<Package>,
    pub remains: Remains,
    pub notes: Vec<String>,
}

/// Room that is left in an image: clones are grown to what their guests ask for, and one that asks for nothing still has to run.
const SPARE: u64 = 256 << 20;
const MIB: u64 = 1 << 20;
/// No kernel or initial ram disk is larger.
const LARGEST_KERNEL: u64 = 512 << 20;

pub(super) fn make(work: &Work<'_>, source: &dyn Source, told: &Told) -> Result<Filled> {
    let Work { host, out, wish, progress, .. } = work;
    let entries = order::collect(source, work.source, progress)?;
    let data = manifest::check_entries(&entries).context("checking what is in it")?;
    is_system(&entries)?;
    let minimum = room::minimum(FilesystemKind::Ext4, &entries);
    let usual = minimum.bytes.saturating_add(minimum.bytes / 4).saturating_add(SPARE);
    let size = wish.size.unwrap_or(usual) / MIB * MIB;
    if size < minimum.bytes {
        let why = format!("{} are too small: it takes at least {}", Bytes(size), Bytes(minimum.bytes));
        return Err(anyhow::Error::new(Refused(why)));
    }
    let free = host.free_bytes(out)?;
    if free < data {
        let images = out.ancestors().nth(2).unwrap_or(out).display();
        bail!("not enough space in '{images}': {} are needed, and {} are free", Bytes(data), Bytes(free));
    }
    let uuid = match told.uuid {
        Some(uuid) => uuid,
        None => random_uuid()?,
    };
    let new = NewFilesystem {
        kind: FilesystemKind::Ext4,
        label: told.label.clone(),
        uuid,
        reserved_percent: 1,
        inodes: minimum.inodes,
        tight: false,
        features: vec!["metadata_csum_seed".to_owned()],
    };
    new.check(*host)?;
    let disk = out.join(DISK);
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&disk);
    opened.and_then(|file| file.set_len(size)).with_context(|| format!("making '{}'", disk.display()))?;
    let mut filled = None;
    let mut fill = |root: &Root| {
        let meter = progress.meter("copying", Some(data));
        fill::from_source(root, &entries, source, &meter)?;
        drop(meter);
        filled = Some(finish(work, root, told, uuid_text(&uuid))?);
        Ok(())
    };
    host.make_volume(
        &Volume::whole(&disk),
        &new,
        Finish::InPlace,
        &mut Filling { fill: &mut fill, check: None },
    )?;
    filled.context("nothing was filled")
}

/// A tar of one directory too many is an everyday mistake, and an image of it boots nowhere.
fn is_system(entries: &[Entry]) -> Result<()> {
    let has = |name: &[u8]| entries.iter().any(|entry| entry.path == name);
    if has(b"etc") && (has(b"usr") || has(b"bin")) {
        return Ok(());
    }
    let below = entries.iter().find_map(|entry| {
        let dir = entry.path.strip_suffix(b"/etc")?;
        (entry.kind == Kind::Directory).then(|| dir.escape_ascii().to_string())
    });
    let hint = match below {
        Some(dir) => format!("; hint: there is one in '{dir}', import that"),
        None => String::new(),
    };
    bail!("it is not the root of a system: it has no /etc, or neither /usr nor /bin{hint}")
}

/// What is done in the filesystem when all files are in it.
fn finish(work: &Work<'_>, root: &Root, told: &Told, uuid: String) -> Result<Filled> {
    let Work { host, dir, out, wish, progress, source } = work;
    let mut notes = Vec::new();
    let old = Old::from_tree(root)?.without_uuids();
    if wish.seal {
        progress.say("taking the identity out");
        for edit in seal::edits(root, &old, &[])? {
            edit.apply(root)?;
        }
    }
    progress.say("looking for what it says of a machine, and for private keys");
    let report = audit::run(root, &old, &Now::nobody(&[]), &Policy::nobody(), &[])?;
    let mut classes = BTreeMap::new();
    for finding in &report.findings {
        *classes.entry(finding.class.to_string()).or_insert(0) += 1;
    }
    let private_keys: Vec<String> = report.private_keys().map(str::to_owned).collect();
    if wish.keys == Keys::Refuse && !private_keys.is_empty() {
        let hint = match wish.seal {
            false => "--seal takes the identity of the machine that it was out; --with-keys keeps them",
            true => "--seal does not know them: take them out of the source; --with-keys keeps them",
        };
        return Err(anyhow::Error::new(PrivateKeys { files: private_keys, hint }));
    }
    if !report.is_clean() {
        let list: Vec<String> = classes.iter().map(|(class, count)| format!("{class} {count}")).collect();
        let hint = if wish.seal { "" } else { "; hint: --seal takes it out" };
        notes.push(format!("it still holds what belongs to one machine ({}){hint}", list.join(", ")));
    }
    let remains = Remains { clean: report.is_clean(), classes, private_keys };
    let (packages, note) = records::read(*host, root, dir)?;
    notes.extend(note);
    match take_kernel(root, out)? {
        Some(kernel) => progress.detail(&format!("guests of QEMU boot with its '{kernel}'")),
        None => notes.push(
            "it has no kernel in /boot: guests of it run in user-mode Linux and nspawn, not in QEMU"
                .to_owned(),
        ),
    }
    let elsewhere = if told.is_part { mounted_elsewhere(root)? } else { Vec::new() };
    if !elsewhere.is_empty() {
        let (places, source) = (elsewhere.join(", "), *source);
        notes.push(format!(
            "its /etc/fstab mounts {places} from other filesystems of '{source}', and what is there is not in the image"
        ));
    }
    Ok(Filled { uuid, packages, remains, notes })
}

/// Copies the newest kernel and its initial ram disk out, readable for all, as kernels of a user's QEMU must be.
fn take_kernel(root: &Root, out: &Path) -> Result<Option<String>> {
    let mut names = Vec::new();
    root.names(Path::new("/boot"), &mut |name, kind| {
        if kind == Sort::File {
            names.extend(name.to_str().map(str::to_owned));
        }
        names.len() < 4096
    })?;
    let Some((kernel, initrd)) = kernel::newest(&names) else { return Ok(None) };
    for (name, file) in [(Some(kernel), KERNEL), (initrd, INITRD)] {
        let Some(name) = name else { continue };
        let path = Path::new("boot").join(name);
        let what = || format!("copying '/{}'", path.display());
        let Some((seen, Some(from))) = root.seen(&path)? else { return Ok(None) };
        if seen.len > LARGEST_KERNEL {
            bail!("{}: it has {}, which no kernel has", what(), Bytes(seen.len));
        }
        let to = OpenOptions::new().write(true).create_new(true).mode(0o644).open(out.join(file));
        let copied = to.and_then(|mut to: File| std::io::copy(&mut from.take(LARGEST_KERNEL), &mut to));
        copied.with_context(what)?;
    }
    Ok(Some(kernel.to_owned()))
}

/// Places that the system mounts other disks on (fstab(5)).
fn mounted_elsewhere(root: &Root) -> Result<Vec<String>> {
    let text = root.read(Path::new("/etc/fstab")).ok().flatten().unwrap_or_default();
    Ok(of_other_disks(&String::from_utf8_lossy(&text)))
}

fn of_other_disks(fstab: &str) -> Vec<String> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (what, place) = (fields.next()?, fields.next()?);
        let is_disk = ["/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="]
            .iter()
            .any(|start| what.starts_with(start));
        let is_removable = place.starts_with("/media") || place.starts_with("/mnt");
        let counts = is_disk && place.starts_with('/') && place != "/" && !is_removable;
        counts.then(|| format!("'{}'", place.chars().filter(|c| !c.is_control()).collect::<String>()))
    };
    fstab.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(line).take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_places_of_other_disks_are_named() {
        let fstab = "# /dev/sda9 /old ext4\nUUID=1 / ext4 defaults 0 1\nUUID=2 /home ext4\n/dev/sda1 none swap sw\n\
                     tmpfs /tmp tmpfs\nLABEL=b  /boot ext4\n/dev/sr0 /media/cdrom0 udf\nnas:/x /srv nfs\n";
        assert_eq!(of_other_disks(fstab), ["'/home'", "'/boot'"]);
    }

    #[test]
    fn a_tree_that_is_one_directory_too_deep_says_where_the_system_is() {
        let dir = |path: &str| Entry {
            path: path.as_bytes().to_vec(),
            kind: Kind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            modified: crate::archive::entry::Time { seconds: 0, nanoseconds: 0 },
            attributes: Vec::new(),
            flags: 0,
        };
        is_system(&["", "etc", "usr"].map(dir)).unwrap();
        let error = is_system(&["", "rootfs", "rootfs/etc", "rootfs/usr"].map(dir)).unwrap_err().to_string();
        assert!(error.ends_with("hint: there is one in 'rootfs', import that"), "{error}");
        assert!(is_system(&["", "home"].map(dir)).is_err());
    }

    proptest! {
        #[test]
        fn any_fstab_is_read(text in "\\PC{0,80}") {
            of_other_disks(&text);
        }
    }
}
