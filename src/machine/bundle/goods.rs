//! What goes into a bundle: gathered, looked over, and told to the archive as one tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::contents::{Contents, FORMAT_VERSION, PackedGuest, PackedImage, PackedSite, ProgramVersion};
use super::{IDENTITIES, IMAGES, PROGRAM, SITES, UML, disk, identities};
use crate::archive::entry::{Content, Entry, Kind, Time};
use crate::archive::offline::Offline;
use crate::archive::pack::{self, About, Keys};
use crate::archive::source::{First, Sink, Source, Surveyed, read_pieces};
use crate::config::site::Site;
use crate::host::Host;
use crate::host::ext4::Ext4;
use crate::image::manifest;
use crate::image::store::{self, Golden};
use crate::machine::boot;
use crate::machine::program::{Program, What};
use crate::machine::site_files;
use crate::machine::stock::Stock;
use crate::names::ImageName;
use crate::paths::Paths;
use crate::progress::Progress;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// The sites, each once.
    pub sites: &'a [Site],
    /// The hosts' own image.
    pub image: ImageName,
    /// Whether private keys go along: those of the sites' files, and what was drawn for their machines.
    pub keys: Keys,
}

/// Everything that goes into a bundle, by its path there. What is told of it depends on content alone: owner is root, times
/// are that of the newest image.
#[derive(Debug, Default)]
pub struct Goods {
    items: BTreeMap<Vec<u8>, Item>,
    newest: u64,
}

#[derive(Debug)]
struct Item {
    from: From,
    mode: u32,
}

#[derive(Debug)]
enum From {
    Directory,
    Text(&'static str),
    Link(PathBuf),
    /// A file, of which so much is known: its length and where it has data.
    File(PathBuf, Content),
}

/// Looks everything over: what would not make a machine is refused here, and so are private keys that nobody asked for.
pub fn gather(
    host: &dyn Host,
    paths: &Paths,
    wanted: &Wanted<'_>,
    progress: &Progress,
) -> Result<(Goods, Contents)> {
    let mut goods = Goods::default();
    goods.directory("");
    for item in Program::Own.items()? {
        let path = Path::new(PROGRAM).join(item.path.strip_prefix("/").unwrap_or(&item.path));
        match item.what {
            What::File(from, mode) => goods.file(path, from, mode)?,
            What::Text(text, mode) => goods.put(path, From::Text(text), mode),
            What::Link(target) => goods.put(path, From::Link(target), 0o755),
        }
    }
    let has_uml_kernel = goods.kernel(host, paths)?;
    let mut sites =
        wanted.sites.iter().map(|site| goods.site(host, paths, site, wanted)).collect::<Result<Vec<_>>>()?;
    sites.sort_by(|a, b| a.name.cmp(&b.name));
    let used = sites.iter().flat_map(|site| site.guests.iter().map(|guest| &guest.image));
    let used: BTreeSet<&ImageName> = used.chain([&wanted.image]).collect();
    let mut images = Vec::new();
    for name in used {
        let is_host = *name == wanted.image;
        let what = || format!("looking over image '{name}'");
        images.push(goods.image(host, paths, name, is_host, wanted.keys, progress).with_context(what)?);
    }
    let program = ProgramVersion {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
    };
    Ok((goods, Contents { format_version: FORMAT_VERSION, program, sites, images, has_uml_kernel }))
}

impl Goods {
    fn put(&mut self, path: impl AsRef<Path>, from: From, mode: u32) {
        let path = path.as_ref();
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            self.directory(dir);
        }
        self.items.insert(path.as_os_str().as_bytes().to_vec(), Item { from, mode });
    }

    fn directory(&mut self, path: impl AsRef<Path>) {
        for dir in path.as_ref().ancestors() {
            let item = Item { from: From::Directory, mode: 0o755 };
            self.items.entry(dir.as_os_str().as_bytes().to_vec()).or_insert(item);
        }
    }

    fn file(&mut self, path: impl AsRef<Path>, from: PathBuf, mode: u32) -> Result<()> {
        let meta = from.metadata().with_context(|| format!("looking at '{}'", from.display()))?;
        let len = meta.len();
        let data = if len == 0 { Vec::new() } else { vec![(0, len)] };
        self.put(path, From::File(from, Content { len, blake3: [0; 32], data }), mode);
        Ok(())
    }

    /// Whether there is one.
    fn kernel(&mut self, host: &dyn Host, paths: &Paths) -> Result<bool> {
        let linux = paths.uml_kernel();
        let Some(dir) = linux.parent().filter(|_| linux.exists()) else { return Ok(false) };
        for name in host.list(dir)? {
            let from = dir.join(&name);
            if host.stat(&from)?.is_some_and(|stat| !stat.is_dir) && !name.starts_with('.') {
                let mode = from.metadata().map_or(0o644, |meta| meta.permissions().mode() & 0o755);
                self.file(Path::new(UML).join(name), from, mode)?;
            }
        }
        Ok(true)
    }

    fn site(
        &mut self,
        host: &dyn Host,
        paths: &Paths,
        site: &Site,
        wanted: &Wanted<'_>,
    ) -> Result<PackedSite> {
        let secrets: BTreeSet<&Path> = site
            .guests
            .iter()
            .flat_map(|guest| &guest.provided)
            .filter(|provided| provided.kind.is_secret())
            .map(|provided| provided.file.as_path())
            .collect();
        let inside = Path::new(SITES).join(&site.name);
        let mut left_out = Vec::new();
        self.directory(&inside);
        for file in site_files::list(&site.dir)? {
            let to = inside.join(&file.inside);
            match file.mode {
                None => self.directory(to),
                Some(_) if wanted.keys == Keys::Refuse && secrets.contains(file.path.as_path()) => {
                    left_out.push(file.inside.display().to_string());
                }
                Some(mode) => self.file(to, file.path, mode)?,
            }
        }
        let mut has_identities = false;
        if wanted.keys == Keys::Pack {
            let kept = Stock::own(paths).kept(site).state;
            for path in identities::list(host, &kept)? {
                has_identities = true;
                let to = Path::new(IDENTITIES).join(&site.name).join(&path);
                self.file(to, kept.join(&path), 0o600)?;
            }
        }
        let guest = |guest: &crate::config::site::Guest| PackedGuest {
            name: guest.name.clone(),
            role: guest.role.to_string(),
            image: guest.image.clone(),
            backend: guest.backend,
        };
        Ok(PackedSite {
            name: site.name.clone(),
            fqdn: site.host.fqdn.clone(),
            image: wanted.image.clone(),
            guests: site.guests.iter().map(guest).collect(),
            left_out,
            has_identities,
        })
    }

    fn image(
        &mut self,
        host: &dyn Host,
        paths: &Paths,
        name: &ImageName,
        is_host: bool,
        keys: Keys,
        progress: &Progress,
    ) -> Result<PackedImage> {
        let golden = store::open(host, paths, name)?;
        audit(&golden, is_host, keys, progress)?;
        let dir = Path::new(IMAGES).join(name);
        let built = &golden.manifest;
        self.newest = self.newest.max(built.built_at_epoch_seconds);
        let content = disk::look_over(&golden, progress)?;
        self.put(dir.join(&built.disk.file), From::File(golden.disk.clone(), content), 0o644);
        for (path, part) in [(golden.kernel, &built.kernel), (golden.initrd, &built.initrd)] {
            if let (Some(path), Some(part)) = (path, part) {
                if store::blake3_of(&path, progress)? != part.blake3 {
                    bail!(
                        "'{}' has changed since it was built; hint: gridgate image build --force {name}",
                        part.file
                    );
                }
                self.file(dir.join(&part.file), path, 0o644)?;
            }
        }
        self.file(dir.join(manifest::FILE), paths.image(name).join(manifest::FILE), 0o644)?;
        Ok(PackedImage {
            name: name.clone(),
            size_bytes: built.disk.size_bytes,
            blake3: built.disk.blake3.clone(),
            built_at_epoch_seconds: built.built_at_epoch_seconds,
            packages: built.packages.len() as u64,
        })
    }
}

/// Looks for private keys in an image, and in one that a host is made of for what starts it.
fn audit(golden: &Golden, is_host: bool, keys: Keys, progress: &Progress) -> Result<()> {
    let name = golden.manifest.name.to_string();
    let about = About { name, filesystem: None, own: Vec::new(), keys };
    let manifest = pack::survey(&Offline::new(Ext4::open(&golden.disk)?), &about, progress)?;
    let wanted = boot::BIOS_FILES.iter().chain([&boot::EFI_DIR]).chain(&boot::LINUX);
    for path in wanted.filter(|_| is_host) {
        if !manifest.entries.iter().any(|entry| Some(&entry.path[..]) == path.as_bytes().get(1..)) {
            bail!("it has no '{path}' and cannot start a machine; hint: images/gateway.toml tells how");
        }
    }
    Ok(())
}

impl Source for Goods {
    fn survey(&self, each: &mut dyn FnMut(Surveyed) -> Result<()>) -> Result<()> {
        for (path, item) in &self.items {
            let kind = match &item.from {
                From::Directory => Kind::Directory,
                From::Text(text) => {
                    let len = text.len() as u64;
                    Kind::File(Content { len, blake3: [0; 32], data: vec![(0, len)] })
                }
                From::Link(target) => Kind::SymbolicLink(target.as_os_str().as_bytes().to_vec()),
                From::File(_, content) => Kind::File(content.clone()),
            };
            let modified = Time { seconds: self.newest as i64, nanoseconds: 0 };
            let (path, mode) = (path.clone(), item.mode);
            let entry =
                Entry { path, kind, mode, uid: 0, gid: 0, modified, attributes: Vec::new(), flags: 0 };
            each(Surveyed { entry, inode: None, first: First::default() })?;
        }
        Ok(())
    }

    fn data(&self, entry: &Entry, content: &Content, each: Sink<'_>) -> Result<()> {
        match self.items.get(&entry.path).map(|item| &item.from) {
            Some(From::Text(text)) => each(text.as_bytes()),
            Some(From::File(path, _)) => {
                let what = || format!("reading '{}'", path.display());
                let mut file = File::open(path).with_context(what)?;
                read_pieces(&file, content, each).with_context(what)?;
                let whole = content.data.last().is_none_or(|(at, len)| at + len == content.len);
                if whole && std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(content.len)).is_ok() {
                    let more = file.read(&mut [0]).with_context(what)?;
                    anyhow::ensure!(more == 0, "{}: it became longer while it was packed", what());
                }
                Ok(())
            }
            _ => bail!("'{}' is not there", entry.path.escape_ascii()),
        }
    }

    /// A filesystem was looked through file by file; block by block, test keys in libraries would be taken for keys.
    fn is_audited(&self, entry: &Entry) -> bool {
        !entry.path.starts_with(IMAGES.as_bytes())
    }
}
