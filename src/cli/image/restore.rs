//! `gridgate image restore`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::archive::limits::Limits;
use crate::archive::reader::Reader;
use crate::archive::restore::{self, Outcome, Place, Plan, Size, Wish, golden};
use crate::cli::{Context, Ending, Exit, refusal};
use crate::host::Host;
use crate::host::begun;
use crate::host::filesystem::uuid_text;
use crate::host::source;
use crate::host::superblock::FilesystemKind;
use crate::host::target::{self, Target};
use crate::names::{Bytes, ImageName};
use crate::paths::Paths;
use crate::progress::Progress;
use crate::signature::{self, Policy, Purpose, Signer};

/// Whose archives are taken.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Trust {
    /// Take an archive that nobody has signed, or a stranger: whoever could write to it decides what runs on the machines
    /// that are made of it, as root. Its damage is still found, not that it was changed on purpose
    #[arg(long)]
    pub insecure_unsigned: bool,
    /// Keys that are trusted, as ssh-keygen takes them; otherwise the site's allowed_signers, or /etc/gridgate/allowed_signers
    #[arg(long, value_name = "FILE", conflicts_with = "insecure_unsigned")]
    pub allowed_signers: Option<PathBuf>,
}

/// `image restore`
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Archive: a file, `-` for standard input, or an http(s) URL
    #[arg(value_name = "ARCHIVE")]
    pub archive: String,
    /// File, block device or empty directory that it is restored to
    #[arg(long, value_name = "TARGET", required_unless_present = "image")]
    pub to: Option<PathBuf>,
    /// Make it a golden image of this host, with its kernel
    #[arg(long = "as", id = "image", value_name = "NAME", conflicts_with = "to")]
    pub image: Option<ImageName>,
    /// Filesystem to make; otherwise the one that was packed
    #[arg(long, value_parser = parse_kind, value_name = "ext4|xfs|btrfs")]
    pub fs: Option<FilesystemKind>,
    /// How large it is to be, such as 4G; otherwise all of a device, or what was packed
    #[arg(long, value_parser = parse_size, value_name = "SIZE", conflicts_with_all = ["grow", "fit"])]
    pub size: Option<u64>,
    /// To the end of the device or file that is there
    #[arg(long, conflicts_with = "fit")]
    pub grow: bool,
    /// As small as everything fits, and a little room
    #[arg(long)]
    pub fit: bool,
    /// Give the filesystem a UUID of its own; files in it that name the old one are left as they are
    #[arg(long)]
    pub new_uuid: bool,
    /// Read everything back and compare it with the archive's manifest
    #[arg(long)]
    pub verify: bool,
    /// Restore what is whole of a damaged archive; lost files are listed, and the exit status is 5
    #[arg(long)]
    pub salvage: bool,
    /// Overwrite what is on the target without asking
    #[arg(long, short = 'y')]
    pub yes: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "its text would become that of the command")]
    pub trust: Trust,
}

fn parse_kind(text: &str) -> Result<FilesystemKind, String> {
    FilesystemKind::named(text).ok_or_else(|| "one of ext4, xfs, btrfs".to_owned())
}

pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    text.parse::<Bytes>().map(|bytes| bytes.0).map_err(|error| error.to_string())
}

/// Runs it.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<Exit> {
    let Context { host, paths, json, progress } = context;
    need_root("restoring an archive")?;
    let (reader, signer) = open(&args.archive, &args.trust, host, paths)?;
    if reader.manifest.purpose() == Purpose::Bundle {
        let text = format!("'{}' is a bundle of whole machines\nhint: gridgate site install", args.archive);
        return Err(Ending::error(Exit::Usage, text));
    }
    if let Some(signer) = &signer {
        progress.say(&format!("signed by {} ({})", signer.principal, signer.fingerprint));
    }
    let size = match (args.size, args.grow, args.fit) {
        (Some(bytes), ..) => Size::Of(bytes),
        (None, true, _) => Size::Grow,
        (None, _, true) => Size::Fit,
        _ => Size::Usual,
    };
    let wish =
        Wish { kind: args.fs, size, new_uuid: args.new_uuid, verify: args.verify, salvage: args.salvage };
    let name = reader.manifest.head.name.clone();
    let (to, plan, outcome) = match (&args.image, &args.to) {
        (Some(image), _) => {
            let plan = restore::plan(&reader.manifest, &wish, &Target::Nothing, None).map_err(refusal)?;
            say_plan(&name, &plan, progress);
            let (outcome, _) = golden::restore_as(host, paths, image, reader, &wish, progress)?;
            (paths.image(image), plan, outcome)
        }
        (None, Some(to)) => {
            let _begun = begun::beside(host, &paths.state, to);
            let (plan, outcome) = to_target(args, to, host, reader, &wish, progress)?;
            (to.clone(), plan, outcome)
        }
        (None, None) => return Err(Ending::error(Exit::Usage, "where to? hint: --to or --as")),
    };
    if *json {
        let document = document(&to, &plan, &outcome, signer.as_ref());
        writeln!(out, "{document}")?;
    }
    report(&name, &to, &outcome, progress);
    match outcome.lost.len() {
        0 => Ok(Exit::Done),
        lost => Err(Ending::error(
            Exit::HalfWay,
            format!("{lost} files are lost, all else is restored to '{}'", to.display()),
        )),
    }
}

fn document(to: &Path, plan: &Plan, outcome: &Outcome, signer: Option<&Signer>) -> serde_json::Value {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    json!({
        "version": 1,
        "target": to,
        "filesystem": plan.filesystem.as_ref().map(|new| new.kind.name()),
        "uuid": plan.filesystem.as_ref().map(|new| uuid_text(&new.uuid)),
        "size_bytes": plan.bytes,
        "minimum_bytes": plan.minimum.bytes,
        "signed_by": signer.map(|signer| &signer.principal),
        "verified": outcome.verified,
        "lost": outcome.lost.iter().map(|(path, why)| json!({"path": text(path), "why": why})).collect::<Vec<_>>(),
        "without_flags": outcome.unkept.iter().map(|path| text(path)).collect::<Vec<_>>(),
    })
}

fn say_plan(name: &str, plan: &Plan, progress: &Progress) {
    match &plan.filesystem {
        Some(new) => progress.say(&format!(
            "'{name}' needs at least {} as {}; it gets {}",
            Bytes(plan.minimum.bytes),
            new.kind.name(),
            Bytes(plan.bytes)
        )),
        None => {
            progress.say(&format!("'{name}' takes {} and {} inodes", Bytes(plan.bytes), plan.minimum.inodes))
        }
    }
}

fn report(name: &str, to: &Path, outcome: &Outcome, progress: &Progress) {
    for (path, why) in &outcome.lost {
        progress.say(&format!("lost: /{}: {why}", path.escape_ascii()));
    }
    if let [first, ..] = outcome.unkept.as_slice() {
        let (count, first) = (outcome.unkept.len(), first.escape_ascii());
        progress.say(&format!(
            "note: this filesystem does not have all flags of chattr of {count} files, such as /{first}"
        ));
    }
    let verified = if outcome.verified { ", read back and found the same" } else { "" };
    if outcome.lost.is_empty() {
        progress.say(&format!("'{name}' is restored to '{}'{verified}", to.display()));
    }
}

fn to_target(
    args: &Args,
    to: &Path,
    host: &dyn Host,
    reader: Reader,
    wish: &Wish,
    progress: &Progress,
) -> Result<(Plan, Outcome)> {
    let found = Target::at(to).map_err(refusal)?;
    if source::is_file(&args.archive, to) {
        let text = format!("'{}' is the archive itself", to.display());
        return Err(Ending::error(Exit::Refused, text));
    }
    // A new name that ends in a slash is a directory's.
    let found = match found {
        Target::Nothing if to.as_os_str().as_encoded_bytes().ends_with(b"/") => {
            Target::Directory { empty: true }
        }
        other => other,
    };
    let (place, len) = match &found {
        Target::Nothing => (Place::File(to.to_owned()), None),
        Target::File { len } => {
            target::unused_file(to).map_err(refusal)?;
            // What is there is replaced; only who says so gets the same length.
            (Place::File(to.to_owned()), (args.grow).then_some(*len))
        }
        Target::Device { len } => {
            (Place::Device(to.to_owned(), target::claim(to).map_err(refusal)?), Some(*len))
        }
        Target::Directory { empty: true } => (Place::Directory(to.to_owned()), None),
        Target::Directory { empty: false } => {
            let text = format!(
                "'{}' is not empty\nhint: a new or empty directory, a file, or a device",
                to.display()
            );
            return Err(Ending::error(Exit::Refused, text));
        }
    };
    let plan = restore::plan(&reader.manifest, wish, &found, len)
        .map_err(refusal)
        .with_context(|| format!("restoring to '{}'", to.display()));
    let plan = plan.map_err(flat)?;
    say_plan(&reader.manifest.head.name, &plan, progress);
    if let Some(new) = &plan.filesystem {
        new.check(host).map_err(|error| Ending::error(Exit::Failed, format!("{error:#}")))?;
    }
    may_overwrite(args, to, &found, host)?;
    let restored = restore::restore(host, reader, &plan, &place, wish, None, progress);
    let outcome = restored.map_err(|error| match &place {
        Place::Device(..) => Ending::error(
            Exit::HalfWay,
            format!(
                "restoring to '{0}': {error:#}\nhint: '{0}' holds no filesystem now; what was on it is gone. Run it again",
                to.display()
            ),
        ),
        _ => error.context(format!("restoring to '{}'", to.display())),
    })?;
    Ok((plan, outcome))
}

/// Asks, where somebody can answer.
fn may_overwrite(args: &Args, to: &Path, found: &Target, host: &dyn Host) -> Result<()> {
    let there = match found {
        Target::Nothing | Target::Directory { .. } => None,
        Target::File { len: 0 } => None,
        Target::File { .. } | Target::Device { .. } => match (found, target::content(host, to)?) {
            (_, Some(what)) => Some(what),
            (Target::File { len }, None) => Some(format!("{} of something", Bytes(*len))),
            (_, None) => None,
        },
    };
    let Some(there) = there.filter(|_| !args.yes) else { return Ok(()) };
    let holds = format!("'{}' holds {there}", to.display());
    let stdin = std::io::stdin();
    if args.archive == "-" || !stdin.is_terminal() {
        return Err(Ending::error(Exit::Refused, format!("{holds}\nhint: --yes overwrites it")));
    }
    eprint!("{holds}. Type 'yes' to overwrite it: ");
    let mut answer = String::new();
    stdin.read_line(&mut answer).context("reading the answer")?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Ending::error(Exit::Refused, "nothing was changed")),
    }
}

/// Opens an archive and asks who signed it.
pub(super) fn open(
    archive: &str,
    trust: &Trust,
    host: &dyn Host,
    paths: &Paths,
) -> Result<(Reader, Option<Signer>)> {
    // Before anything is fetched.
    let policy = trust.policy(host, paths, Purpose::Image)?;
    let input = source::open(host, archive)?;
    let reader = Reader::open(input, Limits::default()).with_context(|| format!("'{archive}'"))?;
    let signer = signed(&reader, &format!("archive '{archive}'"), &policy, host)?;
    Ok((reader, signer))
}

impl Trust {
    /// What is asked of an archive.
    pub(in crate::cli) fn policy(&self, host: &dyn Host, paths: &Paths, purpose: Purpose) -> Result<Policy> {
        let named = self.allowed_signers.as_deref();
        Policy::of(host, paths, self.insecure_unsigned, named, purpose).map_err(refusal)
    }
}

/// Asks who signed what was opened, as far as the policy wants to know.
pub(in crate::cli) fn signed(
    reader: &Reader,
    what: &str,
    policy: &Policy,
    host: &dyn Host,
) -> Result<Option<Signer>> {
    let signatures = reader.signatures.as_deref();
    signature::check(host, what, &reader.manifest_bytes, signatures, policy, reader.manifest.purpose())
        .map_err(refusal)
}

/// An ending stays one under a context.
fn flat(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Ending>().map(|ending| ending.exit) {
        Some(exit) => Ending::error(exit, format!("{error:#}")),
        None => error,
    }
}

pub(super) fn need_root(doing: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let text = format!("{doing} needs root: files belong to many users\nhint: run it with sudo");
    Err(Ending::error(Exit::Failed, text))
}
