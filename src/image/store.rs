//! The images of this host: `STATE/images/NAME/`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::manifest::{self, Manifest, Part};
use crate::host::Host;
use crate::names::ImageName;
use crate::paths::Paths;
use crate::progress::Progress;

/// A golden image that is there, of the sizes that its manifest says.
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    /// Its filesystem.
    pub disk: PathBuf,
    /// The kernel for QEMU, if it brings one.
    pub kernel: Option<PathBuf>,
    /// Its initial ram disk.
    pub initrd: Option<PathBuf>,
    /// What it is.
    pub manifest: Manifest,
}

/// Looks an image up and checks what can be checked in no time: that each file is there with its full length.
pub fn open(host: &dyn Host, paths: &Paths, name: &ImageName) -> Result<Golden> {
    let dir = paths.image(name);
    let Some(bytes) = host.read(&dir.join(manifest::FILE))? else {
        if host.stat(&dir)?.is_some() {
            return Err(damaged(name, "it has no manifest"));
        }
        bail!("image '{name}' is not in '{}'; hint: gridgate image build {name}", paths.images().display());
    };
    let manifest = Manifest::parse(&bytes).map_err(|e| damaged(name, &format!("{e:#}")))?;
    if manifest.name != *name {
        return Err(damaged(name, &format!("its manifest calls it '{}'", manifest.name)));
    }
    let whole = |file: &str, size: u64| -> Result<PathBuf> {
        let path = dir.join(file);
        match host.stat(&path)? {
            Some(stat) if !stat.is_dir && stat.len == size => Ok(path),
            Some(stat) => Err(damaged(name, &format!("'{file}' has {} bytes instead of {size}", stat.len))),
            None => Err(damaged(name, &format!("'{file}' is missing"))),
        }
    };
    let part = |part: &Option<Part>| part.as_ref().map(|p| whole(&p.file, p.size_bytes)).transpose();
    Ok(Golden {
        disk: whole(&manifest.disk.file, manifest.disk.size_bytes)?,
        kernel: part(&manifest.kernel)?,
        initrd: part(&manifest.initrd)?,
        manifest,
    })
}

fn damaged(name: &ImageName, why: &str) -> anyhow::Error {
    anyhow::anyhow!("image '{name}' is damaged: {why}; hint: gridgate image build --force {name}")
}

/// Every image by name; a damaged one with the reason. What is still being built is no image.
pub fn list(host: &dyn Host, paths: &Paths) -> Result<Vec<(ImageName, Result<Golden>)>> {
    let names = host.list(&paths.images())?.into_iter().filter_map(|name| name.parse::<ImageName>().ok());
    let mut images = Vec::new();
    for name in names {
        if host.stat(&paths.image(&name))?.is_some_and(|stat| stat.is_dir) {
            let image = open(host, paths, &name);
            images.push((name, image));
        }
    }
    Ok(images)
}

/// Reads all of an image and compares it with its manifest.
pub fn verify(host: &dyn Host, paths: &Paths, name: &ImageName, progress: &Progress) -> Result<Golden> {
    let golden = open(host, paths, name)?;
    let manifest = &golden.manifest;
    let mut expected = vec![(&golden.disk, &manifest.disk.blake3)];
    for (path, part) in [(&golden.kernel, &manifest.kernel), (&golden.initrd, &manifest.initrd)] {
        expected.extend(path.as_ref().zip(part.as_ref().map(|p| &p.blake3)));
    }
    for (path, digest) in expected {
        if blake3_of(path, progress)? != *digest {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            return Err(damaged(name, &format!("'{file}' has changed since it was built")));
        }
    }
    Ok(golden)
}

/// Removes an image; guests that were cloned from it do not need it. Gone already is an error, since a name was meant.
pub fn remove(host: &dyn Host, paths: &Paths, name: &ImageName) -> Result<()> {
    let dir = paths.image(name);
    if host.stat(&dir)?.is_none() {
        bail!("image '{name}' is not in '{}'", paths.images().display());
    }
    // Under another name first, so that a crash leaves no half of an image behind its name.
    let aside = paths.images().join(crate::host::temporary::Maker::this().name(name.as_str()));
    host.remove(&aside)?;
    host.rename(&dir, &aside)?;
    host.remove(&aside)
}

/// What killed builds left, for `gc`.
pub fn leftovers(host: &dyn Host, paths: &Paths) -> Result<Vec<PathBuf>> {
    host.abandoned(&paths.images())
}

/// BLAKE3 of a file's whole length.
pub fn blake3_of(path: &Path, progress: &Progress) -> Result<String> {
    let hash = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        let meter = progress.meter(format!("reading '{}'", path.display()), Some(file.metadata()?.len()));
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                return Ok(hasher.finalize().to_hex().to_string());
            }
            if crate::progress::interrupted() {
                return Err(std::io::Error::other("interrupted"));
            }
            hasher.update(&buffer[..n]);
            meter.add(n as u64);
        }
    };
    hash().with_context(|| format!("reading '{}'", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use crate::image::manifest::tests::sample;
    use std::fs;

    struct Store {
        _dir: tempfile::TempDir,
        paths: Paths,
        name: ImageName,
    }

    impl Store {
        fn with_image() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let paths = Paths::new(dir.path(), dir.path());
            let name: ImageName = "x".parse().unwrap();
            fs::create_dir_all(paths.image(&name)).unwrap();
            fs::write(paths.image(&name).join("disk.ext4"), b"golden").unwrap();
            let manifest = sample("x", b"golden").print().unwrap();
            fs::write(paths.image(&name).join("manifest.json"), manifest).unwrap();
            Self { _dir: dir, paths, name }
        }

        fn error(&self) -> String {
            open(&Live, &self.paths, &self.name).unwrap_err().to_string()
        }

        fn file(&self, name: &str) -> PathBuf {
            self.paths.image(&self.name).join(name)
        }
    }

    #[test]
    fn a_whole_image_is_opened_and_verified() {
        let store = Store::with_image();
        let golden = open(&Live, &store.paths, &store.name).unwrap();
        assert_eq!(golden.disk, store.file("disk.ext4"));
        assert_eq!(golden.kernel, None);
        verify(&Live, &store.paths, &store.name, &Progress::silent()).unwrap();
        assert_eq!(list(&Live, &store.paths).unwrap().len(), 1);
    }

    #[test]
    fn a_missing_image_names_the_command_that_builds_it() {
        let store = Store::with_image();
        remove(&Live, &store.paths, &store.name).unwrap();
        assert!(store.error().ends_with("; hint: gridgate image build x"), "{}", store.error());
        assert_eq!(fs::read_dir(store.paths.images()).unwrap().count(), 0);
        assert!(remove(&Live, &store.paths, &store.name).is_err());
    }

    #[test]
    fn a_truncated_image_is_damaged() {
        let store = Store::with_image();
        fs::write(store.file("disk.ext4"), b"gold").unwrap();
        assert_eq!(
            store.error(),
            "image 'x' is damaged: 'disk.ext4' has 4 bytes instead of 6; hint: gridgate image build --force x"
        );
    }

    #[test]
    fn an_image_whose_files_or_manifest_are_gone_is_damaged() {
        let store = Store::with_image();
        fs::remove_file(store.file("disk.ext4")).unwrap();
        assert!(store.error().contains("'disk.ext4' is missing"), "{}", store.error());
        fs::write(store.file("manifest.json"), b"{").unwrap();
        assert!(store.error().contains("is damaged: reading the manifest"), "{}", store.error());
        fs::remove_file(store.file("manifest.json")).unwrap();
        assert!(store.error().contains("it has no manifest"), "{}", store.error());
        assert!(list(&Live, &store.paths).unwrap()[0].1.is_err());
    }

    #[test]
    fn a_changed_byte_is_found_by_verify_alone() {
        let store = Store::with_image();
        fs::write(store.file("disk.ext4"), b"g0lden").unwrap();
        assert!(open(&Live, &store.paths, &store.name).is_ok());
        let error = verify(&Live, &store.paths, &store.name, &Progress::silent()).unwrap_err().to_string();
        assert!(error.contains("'disk.ext4' has changed since it was built"), "{error}");
    }
}
