//! Names this build after the sources that it is made of, so that two programs can tell whether they are the same.

use std::fs;
use std::path::{Path, PathBuf};

/// All that is compiled in or decides how, if it is there.
const SOURCES: [&str; 7] = ["Cargo.lock", "Cargo.toml", "build.rs", "images", "profiles", "src", "units"];

fn main() {
    // The checksum of FNV-1a with 64 bits (draft-eastlake-fnv): the same everywhere, and no package is needed for it.
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            digest = (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for source in SOURCES.into_iter().filter(|source| Path::new(source).exists()) {
        println!("cargo::rerun-if-changed={source}");
        let mut files = Vec::new();
        find(Path::new(source), &mut files);
        files.sort();
        for file in files {
            let content = fs::read(&file).unwrap_or_else(|e| panic!("reading '{}': {e}", file.display()));
            add(file.as_os_str().as_encoded_bytes());
            add(&content);
        }
    }
    println!("cargo::rustc-env=GRIDGATE_BUILD={digest:016x}");
}

fn find(path: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(path) else { return files.push(path.to_owned()) };
    for entry in entries {
        find(&entry.unwrap_or_else(|e| panic!("reading '{}': {e}", path.display())).path(), files);
    }
}
