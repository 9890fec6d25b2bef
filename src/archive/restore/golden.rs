//! An archive of a golden image becomes an image of this host.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Outcome, Place, Size, Wish, plan, restore};
use crate::archive::manifest::OwnName;
use crate::archive::reader::Reader;
use crate::host::Host;
use crate::host::filesystem::uuid_text;
use crate::host::superblock::{self, FilesystemKind};
use crate::host::target::Target;
use crate::image::manifest::{self, Manifest};
use crate::image::staging::{self, About};
use crate::names::ImageName;
use crate::paths::Paths;
use crate::progress::Progress;

/// Makes the image under that name, with its kernel and initial ram disk; one that is there is replaced when the new one is whole.
/// Its filesystem keeps its UUID, which files of it may name: nothing ever runs on it, only on clones.
pub fn restore_as(
    host: &dyn Host,
    paths: &Paths,
    name: &ImageName,
    reader: Reader,
    wish: &Wish,
    progress: &Progress,
) -> Result<(Outcome, Manifest)> {
    if wish.kind.is_some_and(|kind| kind != FilesystemKind::Ext4) {
        bail!("a golden image is an ext4");
    }
    let wish = Wish { kind: Some(FilesystemKind::Ext4), new_uuid: false, ..wish.clone() };
    staging::publish(host, paths, name, "restoring", progress, |dir, out| {
        make(host, dir, out, name, reader, &wish, progress)
    })
}

fn make(
    host: &dyn Host,
    dir: &Path,
    out: &Path,
    name: &ImageName,
    reader: Reader,
    wish: &Wish,
    progress: &Progress,
) -> Result<(Outcome, Manifest)> {
    let own = dir.join("own");
    host.make_dir(&own, 0o755)?;
    if wish.size == Size::Grow {
        bail!("an image has no end that it could grow to; hint: --size");
    }
    let head = reader.manifest.head.clone();
    let plan = plan(&reader.manifest, wish, &Target::Nothing, None)?;
    let disk = out.join(manifest::DISK);
    let outcome = restore(host, reader, &plan, &Place::File(disk.clone()), wish, Some(&own), progress)?;
    if !outcome.lost.is_empty() {
        bail!("{} files are lost, and an image is either whole or none; hint: --to FILE", outcome.lost.len());
    }
    for (own_name, file) in [(OwnName::Kernel, manifest::KERNEL), (OwnName::Initrd, manifest::INITRD)] {
        let (from, to) = (own.join(own_name.name()), out.join(file));
        if host.stat(&from)?.is_some() {
            host.rename(&from, &to)?;
            // Kernels of a user's QEMU must be readable.
            let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            std::fs::set_permissions(&to, readable)
                .with_context(|| format!("opening '{}' to all", to.display()))?;
        }
    }
    let told =
        host.read(&own.join(OwnName::Image.name()))?.map(|bytes| Manifest::parse(&bytes)).transpose()?;
    let uuid = uuid_text(&superblock::expect(&disk, 0)?.uuid);
    let about = match told {
        Some(told) => About {
            // Of the definition that it was built from once; if it has none, no definition is the same.
            definition_digest: told.definition_digest,
            uuid,
            packages: told.packages,
            built_at_epoch_seconds: Some(told.built_at_epoch_seconds),
            built_by: Some(told.built_by),
            tools: told.tools,
            origin: told.origin,
        },
        None => About { uuid, built_by: Some(head.packed_by), ..About::default() },
    };
    Ok((outcome, staging::finish(host, out, name, about, progress)?))
}
