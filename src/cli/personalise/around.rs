//! The rest of the disk, where a root filesystem is one partition of it.

use std::path::PathBuf;

use anyhow::Result;

use super::{Args, half_way, show};
use crate::cli::Context;
use crate::cli::refusal;
use crate::host::difference::Difference;
use crate::host::superblock;
use crate::host::volume::Volume;
use crate::identity::assigned::Assigned;
use crate::identity::audit::{Finding, Old, Sort, Verdict};
use crate::identity::disk::{Before, Disk};
use crate::identity::filesystem;
use crate::identity::known::Class;
use crate::identity::target::Target;

/// The disk and the part of it that is the root filesystem; nothing if that is all of it, or the rest is to stay as it is.
pub(super) struct Around(Option<(Disk, Volume)>);

impl Around {
    /// Looks, and refuses what cannot be done; nothing is changed yet.
    pub(super) fn look(target: &Target, assigned: &Assigned, args: &Args, context: &Context) -> Result<Self> {
        let stays = args.keep_disk_ids || args.keep_identity || assigned.keeps_disk_ids;
        let Target::Volume(root) = target else { return Ok(Self(None)) };
        if stays {
            return Ok(Self(None));
        }
        let disk = Disk::look(&context.host, root, &assigned.machine_id).map_err(refusal)?;
        Ok(Self(disk.map(|disk| (disk, root.clone()))))
    }

    /// Old and new ids as files name them.
    pub(super) fn renamed(&self) -> Vec<(String, String)> {
        self.0.as_ref().map(|(disk, _)| disk.renamed()).unwrap_or_default()
    }

    /// Refuses, where nothing is going to be changed, what would be refused otherwise.
    pub(super) fn as_if(&self, context: &Context) -> Result<()> {
        let loader = self.0.as_ref().map_or(Ok(()), |(disk, _)| disk.expect_free_loader(&context.host));
        loader.map_err(refusal)
    }

    /// As `--diff` shows them.
    pub(super) fn differences(&self) -> Vec<Difference> {
        self.0.iter().flat_map(|(disk, _)| disk.ids()).map(show::disk_id).collect()
    }

    /// What is done before the root filesystem is changed.
    pub(super) fn before(&self, assigned: &Assigned, context: &Context) -> Result<Before> {
        let Some((disk, root)) = &self.0 else { return Ok(Before::default()) };
        let (now, then) = (superblock::expect(&root.file, root.offset)?.uuid, assigned.filesystem_uuid);
        let renamed = filesystem::renamed(Some((now, then)), &disk.renamed());
        if renamed.is_empty() {
            return Ok(Before::default());
        }
        disk.check(&context.host).map_err(refusal)?;
        disk.before(&context.host, &renamed).map_err(half_way)
    }

    /// What is done when it has its identity.
    pub(super) fn after(self, context: &Context) -> Result<Vec<PathBuf>> {
        let Some((disk, _)) = self.0 else { return Ok(Vec::new()) };
        disk.after(&context.host).map_err(half_way)
    }
}

/// Old ids that the disk still has.
pub(super) fn left(target: &Target, old: &Old, context: &Context) -> Result<Vec<Finding>> {
    let Target::Volume(root) = target else { return Ok(Vec::new()) };
    let is_old = |id: &str| {
        let mut known = old.uuids.iter().chain(&old.labels);
        known.any(|known| known.eq_ignore_ascii_case(id))
    };
    let found = Disk::now(&context.host, root)?.into_iter().filter(|id| is_old(&id.old)).map(|id| Finding {
        class: Class::Ids,
        verdict: Verdict::Left,
        path: id.place,
        place: None,
        found: format!("{} {}", id.what, id.old),
        sort: Some(Sort::Uuid),
        count: 1,
        mend: "personalise the disk, without --keep-disk-ids".to_owned(),
    });
    Ok(found.collect())
}
