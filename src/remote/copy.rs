//! This very program, copied to a box that has none of its version.
//!
//! It lies in the home directory of the user who logs in, under its version, and gets its name only after it was found to be
//! whole and to run there. Older copies go, but for those that still run.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::shared::Shared;
use super::signals::Signals;
use super::ssh::{Group, Streams, start};
use super::there::{calls_itself, copy_dir};
use crate::names::Bytes;
use crate::progress::Progress;

/// This program's own file, even if another has taken its name meanwhile.
const SELF: &str = "/proc/self/exe";
const PIECE: usize = 64 << 10;

/// Size and digest of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Bytes.
    pub size_bytes: u64,
    /// SHA-256, which `sha256sum` tells there.
    sha256: String,
}

impl Own {
    /// Reads all of it.
    pub fn read() -> Result<Self> {
        let what = || format!("reading this program, '{SELF}'");
        let (mut file, mut digest) = (File::open(SELF).with_context(what)?, Sha256::new());
        let (mut piece, mut size_bytes) = (vec![0; PIECE], 0);
        loop {
            match file.read(&mut piece).with_context(what)? {
                0 => break,
                n => {
                    digest.update(&piece[..n]);
                    size_bytes += n as u64;
                }
            }
        }
        let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { size_bytes, sha256 })
    }
}

/// What the script ends with if this program does not run there.
const DOES_NOT_RUN: i32 = 91;

/// One line for the login shell there, which reads the program from its standard input. Between the apostrophes is nothing
/// that any shell would take for itself: no apostrophe, backslash, exclamation mark or end of line.
fn line(own: &Own) -> String {
    let script = r#"
set -e; umask 077; all=$HOME/.cache/gridgate; dir=$HOME/DIR; mkdir -p "$dir"; new=$dir/.gridgate.making.$$;
clean() { rm -f "$new"; rmdir "$dir" "$all" 2>/dev/null || true; }; trap clean EXIT; trap "exit 1" HUP INT TERM;
cat >"$new"; sum=$(sha256sum <"$new");
[ "${sum%% *}" = SHA256 ] || { echo "what arrived is not what was sent" >&2; exit 90; };
chmod 0755 "$new"; said=$("$new" --version 2>&1 </dev/null) || { echo "$said" >&2; exit DOES_NOT_RUN; };
mv -f "$new" "$dir/gridgate"; used=$(ls -l /proc/[0-9]*/exe 2>/dev/null || true);
for old in "$all"/*; do [ "$old" = "$dir" ] || case "$used" in *" $old/gridgate"*) ;; *) rm -rf "$old" ;; esac; done
"#;
    let script = script.trim().replace('\n', " ").replace("DIR", &copy_dir());
    let script = script.replace("SHA256", &own.sha256).replace("DOES_NOT_RUN", &DOES_NOT_RUN.to_string());
    format!("exec /bin/sh -c '{script}'")
}

/// Copies this program to the box.
pub fn copy(shared: &Shared, own: &Own, signals: &Signals, progress: &Progress) -> Result<()> {
    let to = &shared.ssh.address;
    let what = || format!("copying gridgate to '{to}'");
    let program = shared.next().quiet().program(&["-T"], Some(&line(own)));
    let streams = Streams { input: Stdio::piped(), output: Stdio::null() };
    let mut child = start(&program, streams, Group::Ours).with_context(what)?;
    let mut tell = |sent| match signals.next() {
        Some(_) => bail!("interrupted"),
        None => {
            progress.tick(&format!("{}: {} of {}", what(), Bytes(sent), Bytes(own.size_bytes)));
            Ok(())
        }
    };
    // What reads it is not to be waited for if it is to be interrupted.
    let sent = send(&mut child, &mut tell);
    let status = child.wait().with_context(what)?;
    match (status.code(), sent) {
        (Some(0), Ok(())) => {
            progress.say(&format!("copied gridgate to '{to}', as ~/{}/gridgate", copy_dir()));
            Ok(())
        }
        (Some(DOES_NOT_RUN), _) => bail!(
            "{}: this program does not run there, for the reason above\nhint: install {} there, or use one that is built for a \
             system as old as that one",
            what(),
            calls_itself()
        ),
        // That nobody reads it says less than how the reader has ended.
        (Some(code), Ok(())) => bail!("{}: it ended there with status {code}", what()),
        (Some(code), Err(error)) if is_unread(&error) => {
            bail!("{}: it ended there with status {code}", what())
        }
        (_, Err(error)) => Err(error).with_context(what),
        (None, Ok(())) => bail!("{}: ssh was killed", what()),
    }
}

fn is_unread(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

/// Writes this program to ssh; `tell` hears how many bytes are through.
fn send(child: &mut Child, tell: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
    let mut file = File::open(SELF).context("opening this program")?;
    let mut input = child.stdin.take().context("ssh reads nothing")?;
    let (mut piece, mut sent) = (vec![0; PIECE], 0);
    loop {
        let n = file.read(&mut piece).context("reading this program")?;
        if n == 0 {
            return Ok(());
        }
        input.write_all(&piece[..n])?;
        sent += n as u64;
        tell(sent)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use crate::host::programs::{Program, Programs, Ran};
    use std::path::Path;

    fn own(sha256: &str) -> Own {
        Own { size_bytes: 0, sha256: sha256.to_owned() }
    }

    /// As a login shell with that home directory would do it.
    fn run(home: &Path, program: &str, digest: Option<&str>) -> Ran {
        let right = Sha256::digest(program).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = line(&own(digest.unwrap_or(&right)));
        let shell = Program::new("sh").args(["-c", &line]).env("HOME", home.to_str().unwrap()).input(program);
        Live.run_any(&shell).unwrap()
    }

    fn all(home: &Path) -> Vec<String> {
        let dir = home.join(".cache/gridgate");
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_login_shell_of_any_kind_leaves_the_script_alone() {
        let line = line(&own("00"));
        let script = line.strip_prefix("exec /bin/sh -c '").unwrap().strip_suffix('\'').unwrap();
        assert!(!script.contains(['\'', '\\', '!', '\n']), "{script}");
    }

    #[test]
    fn a_program_that_arrives_whole_and_runs_takes_its_place_and_old_ones_go() {
        let home = tempfile::tempdir().unwrap();
        let cache = home.path().join(".cache/gridgate");
        for old in ["0.0.1-aa", "0.0.2-running"] {
            std::fs::create_dir_all(cache.join(old)).unwrap();
            // A file that a child of another test has open for writing cannot be run.
            let mut copy = std::process::Command::new("cp");
            copy.arg("/bin/sleep").arg(cache.join(old).join("gridgate"));
            assert!(copy.status().unwrap().success());
        }
        let mut used =
            std::process::Command::new(cache.join("0.0.2-running/gridgate")).arg("60").spawn().unwrap();
        let ran = run(home.path(), "#!/bin/sh\nexit 0\n", None);
        used.kill().unwrap();
        used.wait().unwrap();
        assert_eq!((ran.status, String::from_utf8(ran.stderr).unwrap()), (0, String::new()));
        let ours = copy_dir().rsplit_once('/').unwrap().1.to_owned();
        let mut expected = vec!["0.0.2-running".to_owned(), ours];
        expected.sort();
        assert_eq!(all(home.path()), expected);
        let copied = std::fs::metadata(home.path().join(copy_dir()).join("gridgate")).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&copied.permissions()) & 0o7777, 0o755);
    }

    #[test]
    fn a_program_that_arrives_changed_or_does_not_run_is_not_kept() {
        let home = tempfile::tempdir().unwrap();
        let changed = run(home.path(), "#!/bin/sh\nexit 0\n", Some("00"));
        assert_eq!(String::from_utf8(changed.stderr).unwrap(), "what arrived is not what was sent\n");
        assert_eq!((changed.status, all(home.path()).len()), (90, 0));
        let broken = run(home.path(), "#!/bin/sh\necho libc is too old >&2\nexit 1\n", None);
        assert_eq!(String::from_utf8(broken.stderr).unwrap(), "libc is too old\n");
        assert_eq!((broken.status, all(home.path()).len()), (DOES_NOT_RUN, 0));
    }
}
