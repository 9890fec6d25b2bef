//! Changes as commands of debugfs(8).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::e2fsprogs;
use super::overlay::{Node, Overlay};
use crate::host::filesystem::uuid_text;
use crate::host::programs::{Programs, Ran};

/// What debugfs is to do.
pub(super) struct Script {
    /// Where it stands.
    pub(super) file: PathBuf,
    /// Whether it removes what has a block of extended attributes. debugfs forgets about that: it stays taken, or counts more files
    /// than share it.
    pub(super) leaves_attributes: bool,
}

/// Writes the script and the files that it puts in place into `scratch`. It does what is asked for in an order in which each part
/// finds what it needs, the UUID last.
pub(super) fn write(
    host: &dyn Programs,
    disk: &Path,
    overlay: &Overlay,
    scratch: &Path,
    uuid: Option<[u8; 16]>,
) -> Result<Script> {
    let changes = &overlay.changes();
    let handed_on = attributes(host, disk, overlay, changes, scratch)?;
    let mut script = String::new();
    let mut leaves_attributes = false;
    for (at, (path, node)) in changes.iter().enumerate() {
        let name = quoted(path.file_name().map(Path::new).context("the root itself cannot be replaced")?)?;
        for (path, is_dir) in overlay.in_the_way(path, node)? {
            let command = if is_dir { "rmdir" } else { "rm" };
            let _ = writeln!(script, "{command} {}", quoted(&path)?);
            leaves_attributes |= !overlay.has_no_attribute_block(&path);
        }
        let _ = writeln!(script, "cd {}", quoted(path.parent().unwrap_or(Path::new("/")))?);
        match node {
            Node::Gone => {}
            Node::Dir { mode, owner } => {
                let _ = writeln!(script, "mkdir {name}\nset_inode_field {name} mode 04{mode:04o}");
                own(&mut script, &name, *owner);
            }
            Node::Kept { mode, owner } => {
                let is_dir = overlay.is_dir(path)?;
                let kind = if is_dir { "04" } else { "010" };
                let _ = writeln!(script, "set_inode_field {name} mode {kind}{mode:04o}");
                own(&mut script, &name, *owner);
            }
            Node::Link(target) => {
                let _ = writeln!(script, "symlink {name} {}", quoted(target)?);
            }
            Node::File { content, mode, owner, .. } => {
                let file = scratch.join(format!("content-{at}"));
                private(&file, content)?;
                let _ = writeln!(script, "write {} {name}", quoted(&file)?);
                let _ = writeln!(script, "set_inode_field {name} mode 010{mode:04o}");
                own(&mut script, &name, *owner);
                for (attribute, value) in handed_on.get(path).into_iter().flatten() {
                    let value = quoted(value)?;
                    let _ = writeln!(script, "ea_set -r -f {value} {name} {}", quoted(Path::new(attribute))?);
                }
            }
        }
    }
    for (at, (path, label)) in
        overlay.labels().iter().filter(|(path, _)| changes.contains_key(*path)).enumerate()
    {
        let file = scratch.join(format!("label-{at}"));
        private(&file, format!("{label}\0").as_bytes())?;
        let _ = writeln!(script, "ea_set -r -f {} {} security.selinux", quoted(&file)?, quoted(path)?);
    }
    if let Some(label) = overlay.new_volume_label() {
        let _ = writeln!(script, "set_super_value volume_name {label}");
    }
    if let Some(uuid) = uuid {
        let _ = writeln!(script, "set_super_value uuid {}", uuid_text(&uuid));
    }
    let file = scratch.join("script");
    private(&file, script.as_bytes())?;
    Ok(Script { file, leaves_attributes })
}

fn own(script: &mut String, name: &str, owner: (u32, u32)) {
    for (field, id) in [("uid", owner.0), ("gid", owner.1)] {
        let _ = writeln!(script, "set_inode_field {name} {field} {id}");
    }
}

/// Extended attributes of files that are replaced: their names, and where their values are. ACLs, capabilities and labels are
/// such attributes (xattr(7)).
fn attributes(
    host: &dyn Programs,
    disk: &Path,
    overlay: &Overlay,
    changes: &BTreeMap<PathBuf, Node>,
    scratch: &Path,
) -> Result<BTreeMap<PathBuf, Vec<(String, PathBuf)>>> {
    let replaced: Vec<&PathBuf> = changes
        .iter()
        .filter(|(_, node)| matches!(node, Node::File { replaces: true, .. }))
        .map(|(path, _)| path)
        .collect();
    let mut found: BTreeMap<PathBuf, Vec<(String, PathBuf)>> = BTreeMap::new();
    // Usually there are none, and starting a program takes longer than looking. Filesystems of older forms are left to the program.
    if replaced.iter().all(|path| overlay.has_no_attributes(path)) {
        return Ok(found);
    }
    let run = |commands: String| -> Result<Ran> {
        let script = scratch.join("look");
        private(&script, commands.as_bytes())?;
        host.run_any(&e2fsprogs("debugfs").arg("-f").arg(script.as_os_str()).arg(disk.as_os_str()))
    };
    let mut commands = String::new();
    for path in &replaced {
        let _ = writeln!(commands, "ea_list {}", quoted(path)?);
    }
    let listed = run(commands)?.text();
    let mut commands = String::new();
    // Each command is echoed before what it prints.
    for (path, lines) in replaced.iter().zip(listed.split("debugfs: ea_list ").skip(1)) {
        for (at, attribute) in lines.lines().skip(1).filter_map(attribute_name).enumerate() {
            let file = scratch.join(format!("value-{}-{at}", found.len()));
            let _ = writeln!(
                commands,
                "ea_get -r -f {} {} {}",
                quoted(&file)?,
                quoted(path)?,
                quoted(Path::new(attribute))?
            );
            found.entry((*path).clone()).or_default().push((attribute.to_owned(), file));
        }
    }
    if !commands.is_empty() {
        let ran = run(commands)?;
        let missing = found.values().flatten().find(|(_, file)| !file.exists());
        if let Some((attribute, _)) = missing {
            bail!("reading the attribute '{attribute}': {}", said(&ran));
        }
    }
    Ok(found)
}

/// `  user.name (3) = "abc"`. What a small file holds is listed with them, and stays with the file.
fn attribute_name(line: &str) -> Option<&str> {
    let (name, rest) = line.strip_prefix("  ")?.split_once(" (")?;
    if name == "system.data" {
        return None;
    }
    let known = ["user.", "security.", "trusted.", "system."].iter().any(|space| name.starts_with(space));
    (known && rest.contains(")")).then_some(name)
}

/// What debugfs said beside the commands themselves, in one line.
pub(super) fn said(ran: &Ran) -> String {
    let text = ran.text();
    let errors = String::from_utf8_lossy(&ran.stderr).into_owned();
    let lines = errors.lines().chain(text.lines()).filter(|line| !line.starts_with("debugfs"));
    lines.take(3).collect::<Vec<_>>().join("; ")
}

/// Whether the UUID is only a field of the superblock: where checksums hang on it, and no seed is kept for them, they all would
/// have to be made anew (`s_feature_ro_compat`, `EXT4_FEATURE_RO_COMPAT_METADATA_CSUM`; `s_feature_incompat`,
/// `EXT4_FEATURE_INCOMPAT_CSUM_SEED` of Linux's fs/ext4/ext4.h).
pub(super) fn may_set_uuid(disk: &Path) -> bool {
    use std::os::unix::fs::FileExt;
    let Ok(file) = std::fs::File::open(disk) else { return false };
    let flags = |at: u64| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, 1024 + at).is_ok().then(|| u32::from_le_bytes(bytes))
    };
    match (flags(0x60), flags(0x64)) {
        (Some(incompat), Some(ro_compat)) => ro_compat & 0x400 == 0 || incompat & 0x2000 != 0,
        _ => false,
    }
}

/// An argument; what debugfs would take for more than one is refused. No path that gridgate writes has such a name, but a
/// guest's links may lead through one.
fn quoted(path: &Path) -> Result<String> {
    let plain = |byte: &u8| (0x20..0x7f).contains(byte) && !b"\"\\".contains(byte);
    let bytes = path.as_os_str().as_bytes();
    match bytes.iter().all(plain) && !bytes.is_empty() && bytes[0] != b'<' {
        true => Ok(format!("\"{}\"", path.display())),
        false => bail!("'{}' cannot be edited without a mount: its name has odd characters", path.display()),
    }
}

fn private(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("writing '{}'", path.display()))?;
    file.write_all(content).with_context(|| format!("writing '{}'", path.display()))
}
