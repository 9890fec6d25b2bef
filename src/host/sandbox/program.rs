//! Whether this machine can run a guest's program at all, before it is tried.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::host::root::Root;

/// A script's interpreter may be a script; the kernel follows as many (execve(2)).
const DEEPEST: usize = 4;

/// ELF machines (elf(5), `e_machine`) by the name that Rust has for them.
const MACHINES: [(u16, &str); 6] =
    [(62, "x86_64"), (3, "x86"), (183, "aarch64"), (40, "arm"), (243, "riscv64"), (21, "powerpc64")];

/// An error if the guest has no such program, or none that this machine can run. `path` are the directories that a bare name is
/// looked for in.
pub fn check(root: &Root, name: &str, path: &str) -> Result<()> {
    let hint =
        "hint: without [compiler] in the profile gridgate's own is used, which needs nothing of the guest";
    let mut program = match name {
        "" => bail!("there is no program to run inside the guest"),
        name if name.starts_with('/') => PathBuf::from(name),
        name if name.contains('/') => bail!("'{name}' is neither an absolute path nor a bare name"),
        name => {
            let found = path.split(':').map(|dir| Path::new(dir).join(name));
            let there = |candidate: &PathBuf| root.head(candidate, 4).is_ok_and(|head| head.is_some());
            match found.into_iter().find(there) {
                Some(found) => found,
                None => bail!("the guest has no program '{name}'\n{hint}"),
            }
        }
    };
    for _ in 0..DEEPEST {
        let shown = program.display().to_string();
        let Some(head) = root.head(&program, 256)? else {
            bail!("the guest has no program '{shown}'\n{hint}");
        };
        if let Some(line) = head.strip_prefix(b"#!") {
            let line = String::from_utf8_lossy(line.split(|byte| *byte == b'\n').next().unwrap_or_default())
                .into_owned();
            let interpreter = line.split_whitespace().next().unwrap_or_default().to_owned();
            if !interpreter.starts_with('/') {
                bail!("'{shown}' in the guest is a script without an interpreter\n{hint}");
            }
            program = PathBuf::from(interpreter);
            continue;
        }
        return match machine(&head) {
            Some(machine) if runs(&machine) => Ok(()),
            Some(machine) => bail!(
                "'{shown}' in the guest is for {machine}, and this machine is {}\n{hint}",
                std::env::consts::ARCH
            ),
            None => bail!("'{shown}' in the guest is no program\n{hint}"),
        };
    }
    bail!("'{name}' in the guest is a script of a script of a script\n{hint}")
}

/// The machine that an ELF file is for.
fn machine(head: &[u8]) -> Option<String> {
    let (magic, rest) = head.split_at_checked(20)?;
    let _ = rest;
    if !magic.starts_with(b"\x7fELF") {
        return None;
    }
    let bytes = [*magic.get(18)?, *magic.get(19)?];
    let number = if magic.get(5) == Some(&2) { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    let known = MACHINES.iter().find(|(known, _)| *known == number);
    Some(known.map_or_else(|| format!("machine {number}"), |(_, name)| (*name).to_owned()))
}

/// The filter of system calls knows only the machine's own calls, so that 32-bit programs are out even where the kernel
/// would run them.
fn runs(machine: &str) -> bool {
    machine == std::env::consts::ARCH
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATH: &str = "/bin";

    fn guest(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn elf(machine: u16) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(18, 0);
        head.extend(machine.to_le_bytes());
        head.resize(64, 0);
        head
    }

    #[test]
    fn a_program_of_another_machine_or_none_at_all_is_refused_by_name() {
        let (foreign, own) = (elf(21), std::fs::read("/proc/self/exe").unwrap());
        let (_dir, root) = guest(&[
            ("bin/foreign", &foreign),
            ("bin/own", &own[..64]),
            ("bin/script", b"#! /bin/own -x\n"),
            ("bin/foreign-script", b"#!/bin/foreign\n"),
            ("bin/no-shell", b"#!/bin/sh\n"),
            ("bin/loop", b"#!/bin/loop\n"),
            ("bin/text", b"hello"),
        ]);
        for good in ["own", "/bin/own", "/bin/script"] {
            check(&root, good, PATH).unwrap();
        }
        for (bad, why) in [
            ("foreign", "'/bin/foreign' in the guest is for powerpc64, and this machine is "),
            ("/bin/foreign-script", "'/bin/foreign' in the guest is for powerpc64"),
            ("no-shell", "the guest has no program '/bin/sh'"),
            ("none", "the guest has no program 'none'"),
            ("text", "'/bin/text' in the guest is no program"),
            ("loop", "'loop' in the guest is a script of a script"),
            ("../own", "'../own' is neither an absolute path nor a bare name"),
        ] {
            let error = check(&root, bad, PATH).unwrap_err().to_string();
            assert!(error.starts_with(why), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_program_begins_with_is_judged(head in proptest::collection::vec(any::<u8>(), 0..64)) {
            machine(&head);
        }
    }
}
