//! Users that a service manager makes up for a unit while it runs (`DynamicUser=`, systemd.exec(5)), and becoming one.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use serde_json::{Value, json};

/// systemd.unit's own part of the User/Group Record Lookup API (systemd.io/USER_GROUP_API): it needs no NSS module.
const LOOKUP: &str = "/run/systemd/userdb/io.systemd.DynamicUser";
const PATIENCE: Duration = Duration::from_secs(10);

/// The number of a user that systemd has made up; its group has the same.
pub fn dynamic(name: &str) -> Result<u32> {
    let what = || format!("asking systemd at '{LOOKUP}' for user '{name}'");
    let mut stream = UnixStream::connect(LOOKUP).with_context(what)?;
    stream.set_read_timeout(Some(PATIENCE)).with_context(what)?;
    let request = json!({
        "method": "io.systemd.UserDatabase.GetUserRecord",
        "parameters": { "userName": name, "service": "io.systemd.DynamicUser" },
    });
    stream.write_all(format!("{request}\0").as_bytes()).with_context(what)?;
    let mut answer = Vec::new();
    BufReader::new(stream).read_until(0, &mut answer).with_context(what)?;
    number(answer.strip_suffix(b"\0").unwrap_or(&answer)).with_context(what)
}

fn number(answer: &[u8]) -> Result<u32> {
    let answer: Value = serde_json::from_slice(answer).context("understanding its answer")?;
    if let Some(error) = answer.get("error") {
        bail!("it answered {error}");
    }
    let uid = answer.pointer("/parameters/record/uid").and_then(Value::as_u64);
    uid.and_then(|uid| u32::try_from(uid).ok()).filter(|uid| *uid != 0).context("its answer names no user")
}

/// Gives a file or directory to a user or a group of the same number, or back to root (0). A link is refused: what it leads
/// to might be anything.
pub fn give(path: &Path, uid: u32, gid: u32, mode: u32) -> Result<()> {
    let what = || format!("giving '{}' to user {uid}, group {gid}", path.display());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd: OwnedFd = rustix::fs::open(path, flags, Mode::empty()).with_context(what)?;
    rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).with_context(what)?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).with_context(what)
}

/// The first directory on the way to a path, from the root, that this user may not pass through, if there is one. Nothing is in
/// the way to what is not there.
pub fn barrier(path: &Path, uid: u32) -> Result<Option<PathBuf>> {
    let path = match path.canonicalize() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        real => real.with_context(|| format!("looking for '{}'", path.display()))?,
    };
    let on_the_way: Vec<&Path> = path.ancestors().skip(1).collect();
    for dir in on_the_way.into_iter().rev() {
        let stat = rustix::fs::stat(dir).with_context(|| format!("looking at '{}'", dir.display()))?;
        let bit = match () {
            () if stat.st_uid == uid => 0o100,
            () if stat.st_gid == uid => 0o010,
            () => 0o001,
        };
        if stat.st_mode & bit == 0 {
            return Ok(Some(dir.to_owned()));
        }
    }
    Ok(None)
}

/// From now on this process is that user with these groups and no others, without capabilities or a way to get some. It must
/// be root and have a single thread.
pub fn become_user(uid: u32, groups: &[u32]) -> Result<()> {
    let (user, group) = (nix::unistd::Uid::from_raw(uid), nix::unistd::Gid::from_raw(uid));
    let groups: Vec<nix::unistd::Gid> = groups.iter().copied().map(nix::unistd::Gid::from_raw).collect();
    let drop = || -> Result<()> {
        nix::unistd::setgroups(&groups)?;
        nix::unistd::setresgid(group, group, group)?;
        nix::unistd::setresuid(user, user, user)?;
        Ok(rustix::thread::set_no_new_privs(true)?)
    };
    drop().with_context(|| format!("becoming user {uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn the_number_is_found_in_a_record_and_a_refusal_is_an_error() {
        let record = br#"{"parameters":{"record":{"userName":"gg-ce","uid":62031,"gid":62031}}}"#;
        assert_eq!(number(record).unwrap(), 62031);
        let refusal = br#"{"error":"io.systemd.UserDatabase.NoRecordFound","parameters":{}}"#;
        assert!(number(refusal).unwrap_err().to_string().contains("NoRecordFound"));
        assert!(number(br#"{"parameters":{"record":{"uid":0}}}"#).is_err());
    }

    #[test]
    fn nothing_is_given_away_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("real"), "").unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        let (own, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        give(&dir.path().join("real"), own, group, 0o640).unwrap();
        assert!(give(&dir.path().join("link"), own, group, 0o640).is_err());
        let mode = std::fs::metadata(dir.path().join("real")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn a_closed_directory_is_a_barrier() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, stranger) = (dir.path().join("inner"), 61_999);
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("file"), "").unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
        };
        set(dir.path(), 0o711);
        set(&inner, 0o711);
        assert_eq!(barrier(&inner.join("file"), stranger).unwrap(), None);
        set(&inner, 0o750);
        assert_eq!(barrier(&inner.join("file"), stranger).unwrap(), Some(inner.canonicalize().unwrap()));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = number(&bytes);
        }
    }
}
