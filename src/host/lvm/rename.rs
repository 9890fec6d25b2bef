//! New ids for a volume group, and nothing left of where it was made.
//!
//! A physical volume's id is in its label and in the group's text, which no single write reaches both. One after the other, each
//! gets its new id first in the text of all and then in its label: whenever this is cut short, at most one of them differs, and
//! who reads the group next knows which.
//!
//! A group's text also has the name of the host that made it, and of the one that made each volume (`creation_host`), and areas keep
//! the texts from before: `pvck --dump metadata_all` shows them.

use std::fs::OpenOptions;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};

use super::area::{Area, Sectors};
use super::{Group, LvmId};

/// The host that made a group whose hosts are forgotten; installers have it there, too.
const SOMEWHERE: &str = "localhost";

/// The ids that a group is to have, in the order in which it names what has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its own.
    pub group: LvmId,
    /// Those of its physical volumes.
    pub members: Vec<LvmId>,
    /// Those of its logical volumes.
    pub volumes: Vec<LvmId>,
}

/// Makes it so; what is so already is not written. Returns when all of it is on stable storage.
pub fn rename(disk: &Path, group: Group, wanted: &Wanted) -> Result<()> {
    let context = format!("writing the ids of volume group '{}' of '{}'", group.name, disk.display());
    let file = OpenOptions::new().read(true).write(true).open(disk);
    file.map_err(Into::into).and_then(|file| rename_on(&file, group, wanted)).context(context)
}

pub(super) fn rename_on(disk: &dyn Sectors, mut group: Group, wanted: &Wanted) -> Result<()> {
    let mut order: Vec<usize> = (0..group.members.len()).collect();
    // One that differs already comes first: there is never a second one.
    order.sort_by_key(|at| group.members[*at].id == group.members[*at].own_id());
    for turn in 0..order.len() {
        let text = group.with_ids(wanted, &order[..=turn]);
        for area in group.areas_from(order[turn]) {
            if !area.text.starts_with(text.as_bytes()) {
                // LVM ends a text with a zero.
                area.write(disk, &[text.as_bytes(), b"\0"].concat())?;
            }
        }
        let (member, id) = (&group.members[order[turn]], wanted.members[order[turn]]);
        if member.own_id() != id {
            member.label.write(disk, id)?;
        }
    }
    group.members.iter().flat_map(|member| &member.areas).try_for_each(|area| area.forget_others(disk))
}

impl Group {
    /// All areas, those of one physical volume first: by what they have it is known until its label is written, too.
    fn areas_from(&mut self, first: usize) -> impl Iterator<Item = &mut Area> {
        let (before, from) = self.members.split_at_mut(first);
        from.iter_mut().chain(before).flat_map(|member| &mut member.areas)
    }

    /// Its text with all new ids but those of physical volumes that are not `done`; one that differs from what there is has a
    /// higher number, by which LVM knows which of two is valid.
    fn with_ids(&self, wanted: &Wanted, done: &[usize]) -> String {
        let mut ids = vec![(self.id_at.clone(), wanted.group)];
        ids.extend(self.volumes.iter().zip(&wanted.volumes).map(|(one, id)| (one.id_at.clone(), *id)));
        ids.extend(done.iter().map(|at| (self.members[*at].id_at.clone(), wanted.members[*at])));
        let named = |at: &Range<usize>, id: &LvmId| (at.clone(), id.to_string());
        let mut parts: Vec<(Range<usize>, String)> = ids.iter().map(|(at, id)| named(at, id)).collect();
        parts.extend(self.hosts_at.iter().map(|at| (at.clone(), SOMEWHERE.to_owned())));
        parts.extend((!self.remark_at.is_empty()).then(|| (self.remark_at.clone(), String::new())));
        if parts.iter().all(|(at, id)| self.text[at.clone()] == *id) {
            return self.text.clone();
        }
        let number = self.number.saturating_add(done.len() as u64);
        parts.push((self.number_at.clone(), number.to_string()));
        parts.sort_by_key(|(at, _)| at.start);
        let (mut text, mut from) = (String::with_capacity(self.text.len() + 8), 0);
        for (at, part) in parts {
            text.push_str(&self.text[from..at.start]);
            text.push_str(&part);
            from = at.end;
        }
        text + &self.text[from..]
    }
}
