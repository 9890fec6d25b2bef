//! Times in an image: the same definition and the same packages give the same bytes, whenever they are put together.
//!
//! What a package brought has the time that it was packed with. What was made on the way, and what was changed, would have the
//! time of the build; it gets that of the newest packed file instead, so that nothing in the image is younger than it and
//! systemd finds `/etc` and `/var` as new as `/usr` (systemd-update-done.service(8)). Programs that write a time into a file take
//! it from `SOURCE_DATE_EPOCH` (reproducible-builds.org).

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::tree::contained;
use crate::host::Host;
use crate::host::programs::Program;

/// The variable that whoever builds sets.
pub const VARIABLE: &str = "SOURCE_DATE_EPOCH";
/// What programs are told where nobody has set it: the first second of 2020, only because it is one.
const UNSAID: u64 = 1_577_836_800;

/// The moment that whoever builds has set, in seconds since 1970.
pub fn said() -> Result<Option<u64>> {
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(None) };
    let seconds =
        text.parse().with_context(|| format!("reading {VARIABLE}='{text}', which is no number of seconds"));
    seconds.map(Some)
}

/// What programs take for the time; whether it is a number is checked by [`said`].
pub(super) fn for_programs() -> String {
    std::env::var(VARIABLE).unwrap_or_else(|_| UNSAID.to_string())
}

/// Nothing in the tree is younger than the moment that is given back: the one that was set, or that of the newest file which was
/// older than the build, begun `started` seconds after 1970.
pub(super) fn clamp(host: &dyn Host, tree: &Path, started: u64) -> Result<u64> {
    let what = || format!("setting the times of files in '{}'", tree.display());
    let latest = match said()? {
        Some(said) => said,
        None => {
            let older =
                ["-xdev", "-type", "f", "!", "-newermt", &format!("@{}", started - 1), "-printf", "%T@\\n"];
            let printed = host.run(&contained("find", &[]).arg(tree).args(older)).with_context(what)?;
            newest(&printed.text()).unwrap_or(UNSAID)
        }
    };
    let moment = format!("@{latest}");
    let touch = ["touch", "--no-dereference", &format!("--date={moment}"), "{}", "+"];
    let find = contained("find", &[]).arg(tree).args(["-xdev", "-newermt", &moment, "-exec"]).args(touch);
    host.run(&find).with_context(what)?;
    Ok(latest)
}

/// The largest of lines such as `1577836800.0000000000`, in whole seconds.
fn newest(lines: &str) -> Option<u64> {
    lines.lines().filter_map(|line| line.split('.').next()?.parse().ok()).max()
}

/// Times that no program can set from outside, when a file was changed, read and made, become one moment in a filesystem that nobody
/// has mounted yet.
pub(super) fn settle(host: &dyn Host, disk: &Path, moment: u64) -> Result<()> {
    let what = || format!("setting the times of inodes in '{}'", disk.display());
    let groups = host.run(&Program::new("dumpe2fs").arg(disk)).with_context(what)?;
    let Some(used) = used_inodes(&groups.text()) else {
        bail!("{}: dumpe2fs does not tell which are used", what())
    };
    let mut script = String::new();
    for inode in used {
        for field in ["ctime", "atime", "crtime"] {
            script.push_str(&format!("set_inode_field <{inode}> {field} @{moment}\n"));
            script.push_str(&format!("set_inode_field <{inode}> {field}_extra 0\n"));
        }
    }
    let debugfs = at(Program::new("debugfs"), moment).args(["-w", "-f", "-"]).arg(disk).input(script);
    let ran = host.run(&debugfs).with_context(what)?;
    // debugfs(8) ends with status 0 whatever happens, and says on its standard error what did not work.
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    match said.lines().find(|line| !line.starts_with("debugfs")) {
        Some(wrong) => bail!("{}: {wrong}", what()),
        None => Ok(()),
    }
}

/// A program of e2fsprogs takes this moment for now (libext2fs, `E2FSPROGS_FAKE_TIME`).
pub(super) fn at(program: Program, moment: u64) -> Program {
    program.env("E2FSPROGS_FAKE_TIME", &moment.to_string())
}

/// The first inode that is a file's or directory's (`EXT4_GOOD_OLD_FIRST_INO`); before it stand the root, number 2, and the
/// filesystem's own, which mke2fs makes.
const FIRST_INODE: u64 = 11;

/// Inodes in use, from what dumpe2fs(8) prints of groups: `  Free inodes: 9070-16384, 16390`.
fn used_inodes(groups: &str) -> Option<Vec<u64>> {
    let count =
        groups.lines().find_map(|line| line.strip_prefix("Inode count:"))?.trim().parse::<u64>().ok()?;
    let mut free = Vec::new();
    for list in groups.lines().filter_map(|line| line.strip_prefix("  Free inodes:")) {
        for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            free.push((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?));
        }
    }
    free.sort_unstable();
    let mut used = vec![2];
    let mut next = FIRST_INODE;
    for (first, last) in free {
        used.extend(next..first.min(count + 1));
        next = next.max(last.checked_add(1)?);
    }
    used.extend(next..=count);
    Some(used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn inodes_between_the_free_ones_are_used() {
        let printed = "Inode count:              40\nGroup 0: (Blocks 0-9)\n  Free inodes: 14-16, 18\n  Free inodes: 21-40\n";
        assert_eq!(used_inodes(printed).unwrap(), [2, 11, 12, 13, 17, 19, 20]);
        assert_eq!(used_inodes("Group 0:\n  Free inodes: 1\n"), None);
    }

    #[test]
    fn the_newest_of_several_times_counts() {
        assert_eq!(newest("1577836800.5000000000\n-1.0\n1577836799.0\n"), Some(1_577_836_800));
        assert_eq!(newest(""), None);
    }

    proptest! {
        #[test]
        fn whatever_is_printed_is_read_or_refused(text in "\\PC{0,80}", free in "[0-9, -]{0,20}") {
            let _ = used_inodes(&text);
            let _ = used_inodes(&format!("Inode count: 30\n  Free inodes: {free}\n"));
            newest(&text);
        }
    }
}
