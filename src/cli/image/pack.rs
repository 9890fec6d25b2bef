//! `gridgate image pack`: a filesystem or directory into one file.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::archive::frames::{Packing, Written};
use crate::archive::manifest::{Filesystem, Manifest, OwnName, purpose};
use crate::archive::offline::Offline;
use crate::archive::once::{self, Place as Whole};
use crate::archive::pack::{self, About, Keys};
use crate::archive::source::Source;
use crate::archive::text::Text;
use crate::cli::{Context, Ending, Exit, refusal};
use crate::host::Host;
use crate::host::begun;
use crate::host::ext4::Ext4;
use crate::host::filesystem::{Filesystems, uuid_text};
use crate::host::root::Root;
use crate::host::superblock::{self, FilesystemKind};
use crate::host::temporary::{self, Maker};
use crate::host::volume::Volume;
use crate::image::{manifest, store};
use crate::names::{Bytes, ImageName};
use crate::paths::Paths;
use crate::progress::Progress;
use crate::signature;

/// What is packed, and how.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true))]
pub struct Args {
    /// Image of this host to pack, with its kernel
    #[arg(group = "source")]
    name: Option<ImageName>,
    /// Filesystem to pack: a disk image or device, which nothing may write to
    #[arg(long, value_name = "FILE", group = "source")]
    disk: Option<PathBuf>,
    /// The partition of the disk to pack
    #[arg(long, value_name = "N", requires = "disk")]
    partition: Option<u32>,
    /// Directory to pack
    #[arg(long, value_name = "DIR", group = "source")]
    tree: Option<PathBuf>,
    /// File to write; - is stdout
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// SSH key to sign it with; a .pub file if an agent has the key
    #[arg(long, visible_alias = "sign", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Compress with gzip, for old programs; also by an output that ends in .gz
    #[arg(long, conflicts_with = "fast")]
    gzip: bool,
    /// Be done soon rather than small
    #[arg(long)]
    fast: bool,
    /// Pack private keys too; the file is then readable for its owner alone
    #[arg(long)]
    with_keys: bool,
    /// Read the filesystem without mounting it, as is done without root
    #[arg(long, conflicts_with_all = ["tree", "partition"])]
    offline: bool,
}

/// Where the source is.
enum Place {
    Volume(Volume),
    Offline(PathBuf),
    Tree(PathBuf),
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let Context { host, paths, json, progress } = context;
    let to_stdout = is_stdout(&args.output, *json)?;
    let is_gzip =
        args.gzip || args.output.extension().is_some_and(|extension| extension == "gz" || extension == "tgz");
    let packing = match (is_gzip, args.fast) {
        (true, true) => {
            return Err(Ending::error(
                Exit::Usage,
                "--fast is for zstd, and the output ends in that of gzip",
            ));
        }
        (true, false) => Packing::Gzip,
        (false, true) => Packing::Fast,
        (false, false) => Packing::Usual,
    };
    let (place, about) = find(args, host, paths)?;
    let output = Output {
        file: &args.output,
        packing,
        is_private: args.with_keys,
        key: args.key.as_deref(),
        state: &paths.state,
    };
    let mut packed = None;
    let work = &mut |source: &dyn Source| {
        packed = Some(write(host, source, &about, &output, progress)?);
        Ok(())
    };
    let what = || format!("packing '{}'", about.name);
    match &place {
        Place::Volume(volume) => host.look_at_volume(volume, &mut |root, _| work(root)),
        Place::Offline(disk) => Ext4::open(disk).and_then(|found| work(&Offline::new(found))),
        Place::Tree(dir) => Root::open(dir).and_then(|root| work(&root)),
    }
    .map_err(|error| refusal(error.context(what())))?;
    let (manifest, written) = packed.with_context(what)?;
    if *json {
        let head = serde_json::to_value(&manifest.head)?;
        let digest = blake3::hash(&manifest.print()?).to_hex().to_string();
        let file = args.output.display().to_string();
        let row = json!({"version": 1, "file": file, "bytes": written.bytes, "frames": written.frames,
            "manifest_blake3": digest, "signed": args.key.is_some(), "archive": head});
        return Ok(writeln!(out, "{row}")?);
    }
    let identity = manifest.head.audit.identity.len();
    if identity > 0 {
        progress.say(&format!(
            "note: it holds what belongs to one machine, in {identity} places\nhint: 'gridgate image show' of the archive lists \
             them, 'gridgate personalise --seal' takes them out"
        ));
    }
    let data = manifest.head.data_bytes;
    progress.say(&format!(
        "packed '{}': {} entries, {} in {}{}; it takes a disk of at least {}",
        about.name,
        manifest.head.entries,
        Bytes(data),
        Bytes(written.bytes),
        if to_stdout { String::new() } else { format!(", '{}'", args.output.display()) },
        Bytes(manifest.head.minimum_bytes)
    ));
    if args.key.is_none() {
        progress.say(
            "note: it is not signed, and restoring it is refused; hint: gridgate image sign FILE --key KEY",
        );
    }
    Ok(())
}

fn find(args: &Args, host: &dyn Host, paths: &Paths) -> Result<(Place, About)> {
    let keys = if args.with_keys { Keys::Pack } else { Keys::Refuse };
    let about = |name: String| About { name, filesystem: None, own: Vec::new(), keys };
    let offline = args.offline || !rustix::process::geteuid().is_root();
    if let Some(dir) = &args.tree {
        let name = dir.canonicalize().unwrap_or_else(|_| dir.clone());
        return Ok((Place::Tree(dir.clone()), about(called(name.file_name()))));
    }
    let (volume, mut about) = match (&args.name, &args.disk) {
        (Some(name), _) => {
            let golden = store::open(host, paths, name)?;
            let own = [
                (OwnName::Image, Some(paths.image(name).join(manifest::FILE))),
                (OwnName::Kernel, golden.kernel),
                (OwnName::Initrd, golden.initrd),
            ];
            let own = own.into_iter().filter_map(|(name, path)| Some((name, path?))).collect();
            (Volume::whole(&golden.disk), About { own, ..about(name.to_string()) })
        }
        (None, Some(disk)) if offline && args.partition.is_some() => {
            bail!(
                "a partition of '{}' takes a mount, and that takes root; hint: run it with sudo",
                disk.display()
            )
        }
        (None, Some(disk)) => {
            let volume =
                if offline { Volume::whole(disk) } else { Volume::find(host, disk, args.partition)? };
            (volume, about(called(disk.file_stem())))
        }
        (None, None) => bail!("nothing was named to be packed"),
    };
    let found = superblock::expect_clean(&volume.file, volume.offset)?;
    let end = std::fs::File::open(&volume.file)
        .and_then(|mut file| std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)));
    let size_bytes = match volume.len {
        Some(len) => len,
        None => {
            end.with_context(|| format!("opening '{}'", volume.file.display()))?.saturating_sub(volume.offset)
        }
    };
    about.filesystem = Some(Filesystem {
        kind: found.kind.name().to_owned(),
        uuid: uuid_text(&found.uuid),
        label: Text(superblock::label(&volume.file, volume.offset, found.kind)?),
        size_bytes,
    });
    let place = match offline {
        true if found.kind != FilesystemKind::Ext4 => {
            bail!(
                "'{}' is {}, which takes a mount, and that takes root",
                volume.file.display(),
                found.kind.name()
            )
        }
        true => Place::Offline(volume.file),
        false => Place::Volume(volume),
    };
    Ok((place, about))
}

fn called(name: Option<&std::ffi::OsStr>) -> String {
    name.map_or_else(|| "root".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Where an archive goes, and how.
pub(in crate::cli) struct Output<'a> {
    /// `-` is stdout.
    pub file: &'a Path,
    /// How it is compressed.
    pub packing: Packing,
    /// Whether only its owner may read it.
    pub is_private: bool,
    /// What it is signed with.
    pub key: Option<&'a Path>,
    /// The state directory, where it is noted that the file was begun.
    pub state: &'a Path,
}

/// Whether it goes to stdout; wrong usage if that is a terminal, or has something else to take.
pub(in crate::cli) fn is_stdout(output: &Path, json: bool) -> Result<bool> {
    let to_stdout = output.as_os_str() == "-";
    let why = match to_stdout {
        true if json => "the archive goes to stdout, and so would --json; hint: -o FILE",
        true if std::io::stdout().is_terminal() => {
            "an archive is not written to a terminal; hint: -o FILE, or a pipe"
        }
        _ => return Ok(to_stdout),
    };
    Err(Ending::error(Exit::Usage, why))
}

/// Writes to stdout, or to a file that has its name only when all of it is there.
pub(in crate::cli) fn write(
    host: &dyn Host,
    source: &dyn Source,
    about: &About,
    output: &Output<'_>,
    progress: &Progress,
) -> Result<(Manifest, Written)> {
    let Output { file: name, packing, .. } = output;
    let what = || format!("writing '{}'", name.display());
    let _begun = (name.as_os_str() != "-").then(|| begun::note(host, output.state, &making_of(name)));
    let making = match name.as_os_str() == "-" {
        true => None,
        false if name.is_dir() => bail!("{}: it is a directory", what()),
        false => Some(Making::new(output).with_context(what)?),
    };
    let purpose = purpose(about.own.iter().map(|(name, _)| *name));
    let sign = output.key.map(|key| move |manifest: &[u8]| signature::sign(host, manifest, key, purpose));
    let sign = sign.as_ref().map(|sign| sign as once::Sign<'_>);
    if let (Some(making), Packing::Usual | Packing::Fast) = (&making, packing) {
        let place = Whole::new(making.file.try_clone().with_context(what)?);
        let packed = once::pack(source, about, sign, *packing, &place, progress)?;
        making.done(name).with_context(what)?;
        return Ok(packed);
    }
    // What goes down a pipe cannot wait for its beginning, and a member of gzip has nowhere to hide what is left of room.
    let manifest = pack::survey(source, about, progress)?;
    let signature = sign.map(|sign| sign(&manifest.print()?)).transpose()?;
    let to = match &making {
        Some(making) => making.file.try_clone().with_context(what)?,
        // Not through the buffer of this process, which its lines go through.
        None => File::from(rustix::io::dup(rustix::stdio::stdout()).context("opening stdout")?),
    };
    let signature = signature.as_ref().map(String::as_bytes);
    let (_, written) = pack::pack(source, about, &manifest, signature, *packing, to, progress)?;
    if let Some(making) = making {
        making.done(name).with_context(what)?;
    }
    Ok((manifest, written))
}

/// A file that is being written, under a name that tells so.
struct Making {
    path: PathBuf,
    file: File,
}

impl Making {
    fn new(output: &Output<'_>) -> Result<Self> {
        let name = output.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        temporary::sweep_files(beside(output.file), &name);
        let path = making_of(output.file);
        let mode = if output.is_private { 0o600 } else { 0o666 };
        let file = File::options().read(true).write(true).create_new(true).mode(mode).open(&path)?;
        Ok(Self { path, file })
    }

    fn done(&self, output: &Path) -> Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, output)?;
        // The name is on stable storage, too, before anybody is told of it.
        Ok(File::open(beside(output))?.sync_all()?)
    }
}

/// Under which name it is made.
fn making_of(output: &Path) -> PathBuf {
    let name = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
    beside(output).join(Maker::this().name(&name))
}

fn beside(output: &Path) -> &Path {
    match output.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // After it was renamed there is nothing of that name.
        let _ = std::fs::remove_file(&self.path);
    }
}
