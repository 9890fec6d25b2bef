//! Walks a plan. Until the table is written at its end, the disk is no machine, whatever ends it before.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, Result};

use super::boot;
use super::bundle;
use super::esp;
use super::guests;
use super::host::{self as host_system, Disks};
use super::layout::{Partition, Role};
use super::plan::{Plan, Target, version_4};
use super::report::{self, Report};
use super::stock::Stock;
use super::table;
use crate::config::site::Site;
use crate::host::Host;
use crate::host::begun;
use crate::host::content::fat_text;
use crate::host::disk::{Disk, held};
use crate::host::filesystem::{Shape, uuid_text};
use crate::host::loopdev::LoopDevice;
use crate::host::programs::Program;
use crate::host::superblock::{self, FilesystemKind};
use crate::host::temporary::Maker;
use crate::host::volume::Volume;
use crate::identity::assigned::{self, Assigned};
use crate::identity::{keys, registry};
use crate::image::store::{self, Golden};
use crate::paths::Paths;
use crate::progress::Progress;

/// A failure, and what is left of the target.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: Error,
    /// What the target is now, if it is not what it was.
    pub left: Option<String>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, left: None }
    }
}

/// All that the steps share.
struct Work<'a> {
    host: &'a dyn Host,
    stock: &'a Stock,
    kept: Paths,
    site: &'a Site,
    plan: &'a Plan,
    golden: Golden,
    disk: Disk,
    boot: Boot,
    progress: &'a Progress,
}

/// What the image brings that starts the machine.
struct Boot {
    first_sector: Vec<u8>,
    core: Vec<u8>,
    esp: esp::Files,
}

/// Makes the machine. One command at a time makes one of a site.
pub fn install(
    host: &dyn Host,
    stock: &Stock,
    site: &Site,
    plan: &Plan,
    progress: &Progress,
) -> Result<Report, Failure> {
    let paths = &stock.paths;
    let kept = stock.kept(site);
    host.make_dir(&kept.state, 0o700)?;
    let _lock = host.lock(&kept.lock(), Duration::ZERO)?;
    if let Some(identities) = &stock.identities {
        bundle::identities::adopt(host, identities, &kept, progress)?;
    }
    let mut assigned = host_identity(host, &kept, site)?;
    let golden = store::open(host, paths, &plan.image)?;
    let boot = boot_files(host, &golden, plan, &assigned)?;
    let at = open(host, plan)?;
    let _begun = (plan.target != Target::InPlace).then(|| begun::note(host, &stock.state, &at));
    let disk = match plan.target {
        Target::InPlace => Disk::open(&at)?,
        Target::NewFile | Target::ReplacedFile => Disk::create(&at, plan.layout.size_bytes)?,
    };
    let work = Work { host, stock, kept, site, plan, golden, disk, boot, progress };
    let made = work.make(&mut assigned);
    match made {
        Ok(()) => {}
        Err(error) => {
            let left = match plan.target {
                Target::InPlace => Some(work.left()),
                Target::NewFile | Target::ReplacedFile => {
                    host.remove(&at).err().map(|why| format!("{why:#}"))
                }
            };
            return Err(Failure { error, left });
        }
    }
    if plan.target != Target::InPlace {
        host.rename(&at, &plan.to)?;
        // The name, too, is on stable storage before anybody is told of it.
        if let Some(dir) = at.parent() {
            host.sync_file(dir)?;
        }
    }
    work.disk.reread_table();
    let report = report::of(host, &work.kept, site, plan, &assigned)
        .context("the machine is made, but its report is not")
        .map_err(|error| Failure { error, left: Some("the disk is a whole machine".to_owned()) })?;
    Ok(report)
}

/// A file is made under another name, beside its own; what killed commands left there goes first.
fn open(host: &dyn Host, plan: &Plan) -> Result<PathBuf> {
    if plan.target == Target::InPlace {
        return Ok(plan.to.clone());
    }
    let name = plan.to.file_name().context("the target has no name")?.to_string_lossy().into_owned();
    let dir = match plan.to.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    for left in host.abandoned(dir)? {
        let is_ours = left
            .file_name()
            .is_some_and(|left| Maker::of(&left.to_string_lossy()).is_some_and(|(what, _)| what == name));
        if is_ours {
            host.remove(&left)?;
        }
    }
    Ok(dir.join(Maker::this().name(&name)))
}

/// The machine's own identity, drawn the first time.
fn host_identity(host: &dyn Host, kept: &Paths, site: &Site) -> Result<Assigned> {
    let fqdn = &site.host.fqdn;
    let assigned = match assigned::load_machine(host, kept, fqdn)? {
        Some(assigned) => assigned,
        None => Assigned::draw(site.host.hostname.as_str())?,
    };
    registry::check(host, kept, fqdn, &assigned)?;
    assigned::store_machine(host, kept, fqdn, &assigned)?;
    Ok(assigned)
}

/// Taken out of the image before anything is touched: one that cannot start a machine is refused.
fn boot_files(host: &dyn Host, golden: &Golden, plan: &Plan, assigned: &Assigned) -> Result<Boot> {
    let mut files = None;
    let bios = plan.layout.of(Role::Bios)?;
    let root_uuid = uuid_text(&assigned.filesystem_uuid);
    let what = || format!("image '{}' cannot start a machine", golden.manifest.name);
    host.look_at_volume(&Volume::whole(&golden.disk), &mut |root, _| {
        let read = |path: &str| -> Result<Vec<u8>> {
            root.read(Path::new(path))?
                .with_context(|| format!("it has no '{path}'; hint: images/gateway.toml tells how"))
        };
        for link in boot::LINUX {
            root.head(Path::new(link), 1)?.with_context(|| format!("it has no '{link}'"))?;
        }
        files = Some(Boot {
            first_sector: boot::first_sector(&read(boot::BIOS_FILES[0])?, bios.start_bytes)?,
            core: boot::core(&read(boot::BIOS_FILES[1])?, bios.start_bytes, bios.size_bytes)?,
            esp: esp::files(root, &root_uuid)?,
        });
        Ok(())
    })
    .with_context(what)?;
    files.with_context(what)
}

impl Work<'_> {
    fn make(&self, assigned: &mut Assigned) -> Result<()> {
        let Self { host, plan, progress, .. } = self;
        let layout = &plan.layout;
        if plan.target == Target::InPlace {
            progress.say(&format!("taking away what '{}' holds", plan.to.display()));
            table::begin(*host, &self.disk, layout).context("taking away what the disk holds")?;
        }
        let data = layout.of(Role::Data)?;
        let (data_uuid, data_kind) = self.data_filesystem(data)?;
        let esp_id = u32::from_le_bytes(keys::random()?);
        let disks = Disks {
            root: uuid_text(&assigned.filesystem_uuid),
            data: (data_uuid, data_kind.name()),
            esp: fat_text(esp_id),
        };
        self.root(assigned, &disks)?;
        let esp = layout.of(Role::Esp)?;
        let image = esp::make(*host, esp.size_bytes, esp_id, &self.boot.esp)?;
        self.disk.put(image.file(), esp.start_bytes, progress, "the EFI system partition")?;
        let bios = layout.of(Role::Bios)?;
        self.disk.clear(bios.start_bytes, bios.size_bytes)?;
        self.disk.write(bios.start_bytes, &self.boot.core)?;
        self.data(data)?;
        progress.say("writing all of it to stable storage");
        self.disk.sync()?;
        table::write(*host, &self.disk, layout, &self.boot.first_sector)
    }

    fn volume(&self, partition: &Partition) -> Volume {
        Volume {
            file: self.disk.path().to_owned(),
            offset: partition.start_bytes,
            len: Some(partition.size_bytes),
        }
    }

    /// UUID and kind of what is kept, or of what is made now.
    fn data_filesystem(&self, data: &Partition) -> Result<(String, FilesystemKind)> {
        let volume = self.volume(data);
        if data.kept {
            let found = superblock::expect(&volume.file, volume.offset)?;
            return Ok((uuid_text(&found.uuid), found.kind));
        }
        let uuid = uuid_text(&version_4(keys::random()?));
        // XFS: disks of guests are clones of their image in no time, and take no space of their own until they are written to.
        let device = LoopDevice::attach(&volume, false)?;
        let mkfs = Program::new("mkfs.xfs").args(["-q", "-f", "-K", "-L", "gridgate"]);
        let mkfs = mkfs.args(["-m", &format!("reflink=1,uuid={uuid}")]).arg(device.path());
        self.host.run(&mkfs).context("making the data filesystem")?;
        Ok((uuid, FilesystemKind::Xfs))
    }

    fn root(&self, assigned: &mut Assigned, disks: &Disks) -> Result<()> {
        let partition = self.plan.layout.of(Role::Root)?;
        let what = || format!("making the host's filesystem from image '{}'", self.plan.image);
        self.progress.say(&format!("host {}: image '{}'", self.site.host.fqdn, self.plan.image));
        let image = File::open(&self.golden.disk).with_context(what)?;
        self.disk
            .put(&image, partition.start_bytes, self.progress, "the host's filesystem")
            .with_context(what)?;
        let volume = self.volume(partition);
        // On its own: a kernel that will not grow a mounted filesystem has it grown when it is closed, and what comes next
        // needs the room.
        let grown = Shape { uuid: None, grow: true };
        self.host.edit_volume(&volume, grown, &mut |_, _| Ok(())).with_context(what)?;
        let shape = Shape { uuid: Some(assigned.filesystem_uuid), grow: false };
        self.host
            .edit_volume(&volume, shape, &mut |root, found| {
                host_system::make(root, found.uuid, self.site, &self.stock.program, assigned, disks)
            })
            .with_context(what)?;
        assigned::store_machine(self.host, &self.kept, &self.site.host.fqdn, assigned)
    }

    fn data(&self, data: &Partition) -> Result<()> {
        let volume = self.volume(data);
        self.host
            .edit_volume(&volume, Shape::default(), &mut |root, _| {
                let to = Paths::new(&self.stock.paths.site, &held(&root.as_fd()));
                guests::fill(self.host, &self.stock.paths, &self.kept, &to, self.site, self.progress)?;
                let known = self.host.read(&to.known_hosts())?.unwrap_or_default();
                self.host.write(&self.kept.known_hosts(), &known, 0o644)
            })
            .context("filling the data partition")
    }

    /// What a disk is that was left half way.
    fn left(&self) -> String {
        let to = self.plan.to.display();
        match self.plan.layout.partitions.iter().find(|partition| partition.kept) {
            Some(kept) => format!(
                "'{to}' has a table of partition {} ('{}') alone, whose content is kept; run the same command again",
                kept.number, kept.name
            ),
            None => format!("'{to}' has no partition table and starts nothing; run the same command again"),
        }
    }
}
