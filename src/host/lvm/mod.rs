//! Volume groups of LVM on one disk, read from its own metadata: which stretch of the disk each volume is, and all ids.
//!
//! ```text
//!   physical volume:  label (its own id) | metadata areas (the group as text, all ids in it) | extents
//! ```
//!
//! No device mapper is needed, and neither are LVM's programs, which can draw ids but not be given them: what is asked for here
//! has to be the same when a second attempt finishes the first.

mod area;
mod id;
mod name;
mod rename;
mod text;

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::volume::Volume;
use area::{Area, Label};
use name::is_name;
use text::{Section, Value};

pub use area::is_labelled;
pub use id::LvmId;
pub use name::VolumeName;
pub use rename::{Wanted, rename};

/// A volume group, all of whose physical volumes are on the disk.
#[derive(Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: LvmId,
    /// Its physical volumes.
    pub members: Vec<Member>,
    /// Its logical volumes.
    pub volumes: Vec<Logical>,
    /// The youngest text of it that there is.
    text: String,
    number: u64,
    number_at: Range<usize>,
    id_at: Range<usize>,
    /// Where it names the hosts that made it and its volumes, and what it remarks on the first one.
    hosts_at: Vec<Range<usize>>,
    remark_at: Range<usize>,
}

/// A physical volume.
#[derive(Debug)]
pub struct Member {
    /// Where it is.
    pub volume: Volume,
    /// Its id as the group knows it.
    pub id: LvmId,
    id_at: Range<usize>,
    label: Label,
    areas: Vec<Area>,
}

/// A logical volume.
#[derive(Debug)]
pub struct Logical {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: LvmId,
    /// Where it is on the disk; else why it is not one stretch of it.
    pub place: Result<Volume, &'static str>,
    id_at: Range<usize>,
}

impl Member {
    /// Its id as its own label has it: another one than the group's only after a change that was cut short.
    pub fn own_id(&self) -> LvmId {
        self.label.id
    }
}

/// The volume of that name.
pub fn find<'g>(groups: &'g [Group], name: &VolumeName) -> Option<&'g Logical> {
    let group = groups.iter().find(|group| group.name == name.group)?;
    group.volumes.iter().find(|volume| volume.name == name.volume)
}

/// A label with what is in its areas, whose group is not known yet.
struct Loose {
    volume: Volume,
    label: Label,
    areas: Vec<Area>,
}

/// All groups on the physical volumes of a disk. One that is not all there, or is not the machine's alone, is an error.
pub fn read(disk: &Path, physical: &[Volume]) -> Result<Vec<Group>> {
    let mut loose = Vec::new();
    for volume in physical {
        let what = || format!("reading what LVM has on '{volume}'");
        let file = File::open(disk).with_context(what)?;
        let label = Label::read(&file, volume).with_context(what)?;
        let areas = label.areas(&file, volume).with_context(what)?;
        loose.push(Loose { volume: volume.clone(), label, areas });
    }
    // Names of groups, and the youngest text of each: areas differ after a change that was cut short (vgck(8)).
    let mut youngest: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for area in loose.iter().flat_map(|one| &one.areas) {
        let text = String::from_utf8(area.text.clone()).context("a text of LVM is no text")?;
        let text = text.trim_end_matches('\0').to_owned();
        let (name, number) = head(&text)?;
        let known = youngest.entry(name).or_insert_with(|| (number, text.clone()));
        if number > known.0 {
            *known = (number, text);
        }
    }
    let mut groups = Vec::new();
    for (name, (_, text)) in youngest {
        let what = || format!("reading volume group '{name}'");
        groups.push(group(&name, text, &mut loose).with_context(what)?);
    }
    match loose.first() {
        Some(one) => bail!("'{}' is a physical volume of LVM, but of no group that is here", one.volume),
        None => Ok(groups),
    }
}

fn head(text: &str) -> Result<(String, u64)> {
    let top = text::parse(text).context("reading a text of LVM")?;
    let is_known = top.text("contents") == Some("Text Format Volume Group") && top.number("version")? == 1;
    let [(name, group)] = &top.sections[..] else { bail!("a text of LVM has not one group") };
    ensure!(is_known, "a text of LVM has an unknown form");
    let mut names = [name].into_iter().chain(group.within("logical_volumes").iter().map(|(name, _)| name));
    ensure!(names.all(|name| is_name(name)), "a text of LVM has an odd name");
    Ok((name.clone(), group.number("seqno")?))
}

fn group(name: &str, text: String, loose: &mut Vec<Loose>) -> Result<Group> {
    let top = text::parse(&text)?;
    let found = top.section(name).context("it is not there")?;
    if found.text("system_id").is_some_and(|id| !id.is_empty()) {
        bail!("it belongs to one host alone, by its system id");
    }
    if found.text("lock_type").is_some_and(|kind| !matches!(kind, "" | "none")) {
        bail!("several hosts share it");
    }
    let extent = found.number("extent_size")?.checked_mul(SECTOR).context("its extents are too large")?;
    let described = found.within("physical_volumes");
    let ids = described.iter().map(|(_, one)| id_of(one)).collect::<Result<Vec<_>>>()?;
    let mut stretches = BTreeMap::new();
    let mut members = Vec::new();
    for ((name, one), (id, id_at)) in described.iter().zip(&ids) {
        let with_label = loose.iter().position(|other| other.label.id == *id);
        // Its text has the new id already, its label not yet: then no other one is like that.
        let named_otherwise = |other: &Loose| ids.iter().all(|(id, _)| other.label.id != *id);
        let cut_short = || loose.iter().position(|other| named_otherwise(other) && has(other, &text));
        let at = with_label.or_else(cut_short).context("a part of it is not on this disk")?;
        let Loose { volume, label, areas } = loose.remove(at);
        let start = one.number("pe_start")?.checked_mul(SECTOR).context("it begins beyond all disks")?;
        let len = one.number("pe_count")?.checked_mul(extent).context("it ends beyond all disks")?;
        let from = volume.offset.saturating_add(start);
        let mut places = areas.iter().map(Area::place);
        ensure!(
            places.all(|place| place.end <= from || place.start >= from.saturating_add(len)),
            "a metadata area lies over what its volumes hold"
        );
        stretches.insert(name.clone(), (volume.clone(), start));
        members.push(Member { volume, id: *id, id_at: id_at.clone(), label, areas });
    }
    let sections = found.within("logical_volumes");
    let mut volumes = Vec::new();
    for (name, one) in sections {
        let place = match odd(name, one, sections) {
            Some(why) => Err(why),
            None => stretch(one, extent, &stretches).with_context(|| format!("placing volume '{name}'"))?,
        };
        let (id, id_at) = id_of(one)?;
        volumes.push(Logical { name: name.clone(), id, place, id_at });
    }
    let (id, id_at) = id_of(found)?;
    let mut hosts_at: Vec<Range<usize>> = sections.iter().filter_map(|(_, one)| host_of(one)).collect();
    let whole = host_of(&top);
    // What uname(1) said there.
    let remark_at = whole.as_ref().map_or(0..0, |at| remark_behind(&text, at));
    hosts_at.extend(whole);
    let (number, number_at) = (found.number("seqno")?, found.place("seqno")?);
    Ok(Group {
        name: name.to_owned(),
        id,
        members,
        volumes,
        number,
        number_at,
        id_at,
        hosts_at,
        remark_at,
        text,
    })
}

const SECTOR: u64 = 512;

fn id_of(section: &Section) -> Result<(LvmId, Range<usize>)> {
    let id = section.text("id").context("something in it has no id")?;
    Ok((LvmId::parse(id)?, section.place("id")?))
}

fn host_of(section: &Section) -> Option<Range<usize>> {
    section.text("creation_host").and_then(|_| section.place("creation_host").ok())
}

/// The remark between a value and the end of its line; empty if there is none.
fn remark_behind(text: &str, value: &Range<usize>) -> Range<usize> {
    let from = value.end + 1;
    let line = text.get(from..).and_then(|rest| rest.split('\n').next()).unwrap_or_default();
    // Whatever else stands there is for LVM.
    if line.trim_start().starts_with('#') { from..from + line.len() } else { from..from }
}

fn has(one: &Loose, text: &str) -> bool {
    one.areas.iter().any(|area| area.text.starts_with(text.as_bytes()))
}

/// Why a volume is not what is written at its place, whatever that is.
fn odd(name: &str, volume: &Section, all: &[(String, Section)]) -> Option<&'static str> {
    let is = |one: &Value, word: &str| matches!(one, Value::Text(text, _) if text == word);
    if !volume.list("status").iter().any(|one| is(one, "VISIBLE")) {
        return Some("is a part of another volume");
    }
    let mut segments = all.iter().flat_map(|(_, other)| &other.sections);
    let depends = |segment: &Section| {
        ["origin", "external_origin"].into_iter().any(|key| segment.text(key) == Some(name))
    };
    segments.any(|(_, segment)| depends(segment)).then_some("has snapshots or a cache")
}

/// Segments that follow each other on one physical volume are one stretch.
fn stretch(
    volume: &Section,
    extent: u64,
    physical: &BTreeMap<String, (Volume, u64)>,
) -> Result<Result<Volume, &'static str>> {
    let mut so_far: Option<(&str, u64, u64)> = None;
    for (_, segment) in &volume.sections {
        if segment.text("type") != Some("striped") || segment.number("stripe_count")? != 1 {
            return Ok(Err("is not linear"));
        }
        let [Value::Text(on, _), Value::Number(from, _)] = segment.list("stripes") else {
            bail!("a segment is nowhere");
        };
        let count = segment.number("extent_count")?;
        so_far = match so_far {
            None => Some((on, *from, count)),
            Some((before, start, len)) if before == on && start.checked_add(len) == Some(*from) => {
                Some((before, start, len.checked_add(count).context("it is beyond all disks")?))
            }
            Some(_) => return Ok(Err("is in several pieces")),
        };
    }
    let (on, from, count) = so_far.context("it has no segment")?;
    let (within, start) = physical.get(on).context("it is on a physical volume that the group lacks")?;
    let place = || {
        let from = from.checked_mul(extent)?.checked_add(*start)?;
        let len = count.checked_mul(extent)?;
        let end = from.checked_add(len)?;
        let is_inside = len > 0 && within.len.is_none_or(|all| end <= all);
        is_inside.then(|| Volume { file: within.file.clone(), offset: within.offset + from, len: Some(len) })
    };
    place().context("it is not inside its physical volume").map(Ok)
}

#[cfg(test)]
mod tests;
