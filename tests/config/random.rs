//! Damaged and random sites are loaded or refused.

use std::fs;

use gridgate::config::example::{self, Format};
use gridgate::config::{LoadOptions, load};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::SITE;
use crate::described::directory;

/// The example in one form, with one file changed.
fn changed(format: Format, file: prop::sample::Index, change: impl Fn(&mut Vec<u8>)) -> TempDir {
    let files = example::files(format);
    let dir = directory(files);
    let (path, content) = files[file.index(files.len())];
    let mut content = content.as_bytes().to_vec();
    change(&mut content);
    fs::write(dir.path().join(path), content).unwrap();
    dir
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_damaged_site_is_loaded_or_refused_without_a_crash(
        shell in any::<bool>(),
        file in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, any::<u8>()), 1..8),
    ) {
        let dir = changed(if shell { Format::Shell } else { Format::Toml }, file, |content| {
            for (place, kind, byte) in &changes {
                let at = place.index(content.len() + 1);
                match kind {
                    0 => content.insert(at, *byte),
                    1 => content.insert(at, b"\"'=[]{}.,#\n0$\\"[usize::from(*byte) % 14]),
                    2 => content.truncate(at.max(content.len() / 2)),
                    _ => drop(content.drain(at.min(content.len())..(at + usize::from(byte % 16)).min(content.len()))),
                }
            }
        });
        if let Err(problems) = load(dir.path(), &LoadOptions::default()) {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.iter().all(|p| !p.message.is_empty()));
        }
    }

    #[test]
    fn any_bytes_as_a_file_are_loaded_or_refused_without_a_crash(
        shell in any::<bool>(),
        file in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let dir = changed(if shell { Format::Shell } else { Format::Toml }, file, |content| *content = bytes.clone());
        let _ = load(dir.path(), &LoadOptions::default());
    }

    #[test]
    fn any_keys_with_any_values_are_loaded_or_refused_without_a_crash(
        lines in prop::collection::vec(("(address|mac|count|prefix|network|after|needs|extends|gateway|role|cpus|hostname|memory)",
            "(-?[0-9]{1,20}|true|\"[0-9.:/]{0,12}\"|\"10\\.77\\.0\\.[0-9]{1,3}\"|\"[a-z:]{0,5}\"|\\[\"(ce|wn|role:wn)\"\\]|\\{\\}|1979-05-27|\"ff:ff:ff:ff:ff:ff\")"), 0..6),
        set in prop::collection::vec("(ce|wn|wn1|networks.lan|defaults|x)\\.[a-z]{1,7}=[a-z0-9.]{0,6}", 0..2),
    ) {
        let content: String = lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let dir = directory(&[("site.toml", SITE), ("guests/ce.toml", &content), ("guests/wn.toml", "count = 2")]);
        let _ = load(dir.path(), &LoadOptions { set, ..LoadOptions::default() });
    }
}
