//! Hosts with images that are made up, and a store between them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::Result;
use gridgate::chunks::mirrors::Mirrors;
use gridgate::chunks::place::{self, Dir};
use gridgate::chunks::pull::{self, Pulled};
use gridgate::chunks::push::{self, Pushed};
use gridgate::host::Live;
use gridgate::image::manifest::{Disk, Manifest, Part};
use gridgate::names::ImageName;
use gridgate::paths::Paths;
use gridgate::progress::Progress;
use gridgate::signature::Policy;

pub const BLOCK: usize = 4096;

pub struct Lab {
    dir: tempfile::TempDir,
}

/// Bytes that do not compress, always the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_derive_key("test").update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A disk of 6 MiB: noise, a hole, text, and an end within a block.
pub fn disk() -> Vec<u8> {
    let mut disk = noise(1, 3 << 20);
    disk.resize(5 << 20, 0);
    disk.extend(b"some text \n".repeat(80_000));
    disk.extend(noise(2, 100));
    disk
}

/// Every image's, unless said otherwise.
pub fn kernel() -> Vec<u8> {
    noise(9, 100_000)
}

impl Lab {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub fn host(&self, name: &str) -> Paths {
        Paths::new(&self.path(name), &self.path(name))
    }

    /// Gives a host an image with that disk and a kernel.
    pub fn image(&self, host: &str, name: &str, disk: &[u8], built: u64) {
        self.image_with(host, name, disk, built, &kernel());
    }

    /// As [`Lab::image`], with another kernel.
    pub fn image_with(&self, host: &str, name: &str, disk: &[u8], built: u64, kernel: &[u8]) {
        let dir = self.host(host).image(&image(name));
        fs::create_dir_all(&dir).unwrap();
        let part = |file: &str, content: &[u8]| Part {
            file: file.to_owned(),
            size_bytes: content.len() as u64,
            blake3: blake3::hash(content).to_hex().to_string(),
        };
        let manifest = Manifest {
            format_version: 1,
            name: image(name),
            definition_digest: "d".to_owned(),
            disk: Disk {
                file: "disk.ext4".to_owned(),
                size_bytes: disk.len() as u64,
                allocated_bytes: disk.len() as u64,
                blake3: blake3::hash(disk).to_hex().to_string(),
                uuid: "u".to_owned(),
            },
            kernel: Some(part("vmlinuz", kernel)),
            initrd: None,
            packages: Vec::new(),
            built_at_epoch_seconds: built,
            built_by: "test".to_owned(),
            tools: Vec::new(),
            origin: None,
        };
        fs::write(dir.join("disk.ext4"), disk).unwrap();
        fs::write(dir.join("vmlinuz"), kernel).unwrap();
        fs::write(dir.join("manifest.json"), manifest.print().unwrap()).unwrap();
    }

    pub fn push(&self, host: &str) -> Pushed {
        self.try_push(host).unwrap_or_else(|error| panic!("{error:#}"))
    }

    pub fn try_push(&self, host: &str) -> Result<Pushed> {
        push::push(&Live, &self.host(host), &image("x"), &Dir::new(&self.store()), None, &Progress::silent())
    }

    pub fn try_pull(&self, host: &str, from: &[&str]) -> Result<Pulled> {
        self.pull_with_seeds(host, from, &[])
    }

    pub fn pull_with_seeds(&self, host: &str, from: &[&str], seeds: &[PathBuf]) -> Result<Pulled> {
        let progress = Progress::silent();
        let places = from.iter().map(|from| place::open(from).unwrap()).collect();
        let mirrors = Mirrors::new(places, &progress);
        let name = image("x");
        let request = pull::Request { name: &name, policy: Policy::Unsigned, seeds, older: false };
        pull::pull(&Live, &self.host(host), &request, &mirrors, &progress)
    }

    pub fn pull(&self, host: &str, from: &[&str]) -> Pulled {
        self.try_pull(host, from).unwrap_or_else(|error| panic!("{error:#}"))
    }

    pub fn pull_from_store(&self, host: &str) -> Pulled {
        self.pull(host, &[&self.store().display().to_string()])
    }

    /// The host has the image with that disk, the kernel too, and nothing else lies around.
    pub fn has(&self, host: &str, disk: &[u8]) {
        let dir = self.host(host).image(&image("x"));
        assert!(fs::read(dir.join("disk.ext4")).unwrap() == disk, "another disk");
        let mut names = list(&self.host(host).images());
        names.retain(|name| name != ".lock");
        assert_eq!(names, ["x"]);
        assert_eq!(list(&dir), ["disk.ext4", "manifest.json", "vmlinuz"]);
    }

    /// The program itself, as that host's.
    pub fn gridgate(&self, host: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        let dir = self.path(host);
        fs::create_dir_all(&dir).unwrap();
        command.arg("--site").arg(&dir).arg("--state").arg(&dir);
        command
    }

    pub fn run(&self, host: &str, words: &[&str]) -> Output {
        self.gridgate(host).args(words).output().unwrap()
    }
}

pub fn image(name: &str) -> ImageName {
    name.parse().unwrap()
}

pub fn list(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
