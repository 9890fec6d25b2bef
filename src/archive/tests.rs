//! Archives written and read again, whole, damaged, and made to deceive.

use std::collections::HashMap;
use std::io::Read;

use anyhow::Result;
use proptest::prelude::*;

use super::entry::{Content, Entry, Kind};
use super::frames::{FrameWriter, Packer, Packing, Section, Sink};
use super::limits::Limits;
use super::manifest::tests::{entry, file, head, link};
use super::manifest::{Manifest, Own, OwnName};
use super::reader::{Damage, Reader};
use super::stream::{Part, Piece};
use super::text::hex;
use super::writer::{self, Contents};
use super::{header, reader, sign};
use crate::host::Live;
use crate::host::programs::{Program, Programs};
use crate::signature::{self, Policy, Purpose};

/// Files in memory.
#[derive(Default, Clone)]
struct Memory {
    entries: Vec<Entry>,
    content: HashMap<Vec<u8>, Vec<u8>>,
    own: Vec<(OwnName, Vec<u8>)>,
}

impl Contents for Memory {
    fn own(&mut self, own: &Own) -> Result<Box<dyn Read>> {
        let (_, content) = self.own.iter().find(|(name, _)| *name == own.name).unwrap();
        Ok(Box::new(std::io::Cursor::new(content.clone())))
    }

    fn data(
        &mut self,
        entry: &Entry,
        content: &Content,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        for (offset, len) in &content.data {
            each(&self.content[&entry.path][*offset as usize..(offset + len) as usize])?;
        }
        Ok(())
    }
}

impl Memory {
    fn sample() -> Self {
        let mut memory = Self { entries: super::manifest::tests::entries(), ..Self::default() };
        memory.entries.retain(|entry| entry.path != b"sparse" && !matches!(entry.kind, Kind::HardLink(_)));
        memory.content.insert(b"d/f".to_vec(), b"hello".to_vec());
        memory.content.insert(b"empty".to_vec(), Vec::new());
        memory.own = vec![(OwnName::Image, b"{}".to_vec()), (OwnName::Kernel, noise(3000, 9))];
        for number in 0..40u8 {
            memory.add(format!("d/{number}").as_bytes(), &noise(400_000, number.into()));
        }
        let mut sparse = vec![0; 40_000];
        sparse[8192..12_288].fill(1);
        sparse[20_000..20_001].fill(2);
        let data = vec![(8192, 4096), (20_000, 1)];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&sparse[8192..12_288]).update(&sparse[20_000..20_001]);
        let content = Content { len: 40_000, blake3: hasher.finalize().into(), data };
        memory.entries.push(entry(b"holes", Kind::File(content)));
        memory.content.insert(b"holes".to_vec(), sparse);
        memory.entries.push(link(b"again", b"d/f"));
        memory
    }

    fn add(&mut self, path: &[u8], content: &[u8]) {
        self.entries.push(file(path, content));
        self.content.insert(path.to_vec(), content.to_vec());
    }

    fn manifest(&self) -> Manifest {
        let own = self.own.iter().map(|(name, content)| Own {
            name: *name,
            len: content.len() as u64,
            blake3: hex(blake3::hash(content).as_bytes()),
        });
        Manifest::new(super::manifest::Head { own: own.collect(), ..head() }, self.entries.clone()).unwrap()
    }

    fn pack(&self, packing: Packing) -> Vec<u8> {
        let manifest = self.manifest();
        writer::write(Vec::new(), packing, &manifest, Some(b"signed"), &mut self.clone()).unwrap().0
    }
}

/// Bytes that do not compress, so that frames are as long as what they hold.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_derive_key("noise").update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// What a reader tells: files that are whole, with their data at its place, and those that are lost.
#[derive(Debug, Default, PartialEq)]
struct Told {
    whole: HashMap<Vec<u8>, Vec<u8>>,
    lost: Vec<(Vec<u8>, String)>,
}

fn read(archive: &[u8], damage: Damage) -> Result<Told> {
    read_within(archive, damage, Limits::default())
}

fn read_within(archive: &[u8], damage: Damage, limits: Limits) -> Result<Told> {
    let reader = Reader::open(Box::new(std::io::Cursor::new(archive.to_vec())), limits)?;
    let manifest = reader.manifest.clone();
    let name = |part| match part {
        Part::Own(at) => manifest.head.own[at].name.name().as_bytes().to_vec(),
        Part::Entry(at) => manifest.entries[at].path.clone(),
    };
    let (mut told, mut now) = (Told::default(), Vec::new());
    reader.each(damage, &mut |piece| {
        match piece {
            Piece::Data { offset, bytes, .. } => {
                let at = offset as usize;
                assert!(at >= now.len());
                now.resize(at, 0);
                now.extend_from_slice(bytes);
            }
            Piece::End { part } => {
                let whole = std::mem::take(&mut now);
                assert!(told.whole.insert(name(part), whole).is_none());
            }
            Piece::Lost { part, why } => {
                now.clear();
                told.lost.push((name(part), why));
            }
        }
        Ok(())
    })?;
    Ok(told)
}

/// As [`read`], by three that share the files.
fn read_together(archive: &[u8], damage: Damage) -> Result<Told> {
    let reader = Reader::open(Box::new(std::io::Cursor::new(archive.to_vec())), Limits::default())?;
    let manifest = &reader.manifest.clone();
    let name = |part| match part {
        Part::Own(at) => manifest.head.own[at].name.name().as_bytes().to_vec(),
        Part::Entry(at) => manifest.entries[at].path.clone(),
    };
    let told = &std::sync::Mutex::new(Told::default());
    let sink = || {
        let mut now = Vec::new();
        move |piece: Piece<'_>| {
            match piece {
                Piece::Data { offset, bytes, .. } => {
                    now.resize(offset as usize, 0);
                    now.extend_from_slice(bytes);
                }
                Piece::End { part } => {
                    let whole = std::mem::take(&mut now);
                    assert!(told.lock().unwrap().whole.insert(name(part), whole).is_none());
                }
                Piece::Lost { part, why } => {
                    now.clear();
                    told.lock().unwrap().lost.push((name(part), why));
                }
            }
            Ok(())
        }
    };
    reader.begin(damage).share(&mut [sink(), sink(), sink()])?;
    Ok(std::mem::take(&mut told.lock().unwrap()))
}

fn refused(archive: &[u8]) -> String {
    format!("{:#}", read(archive, Damage::Refuse).unwrap_err())
}

#[test]
fn what_was_packed_is_told_again() {
    let memory = Memory::sample();
    for packing in [Packing::Usual, Packing::Fast, Packing::Gzip] {
        let archive = memory.pack(packing);
        let opened =
            Reader::open(Box::new(std::io::Cursor::new(archive.clone())), Limits::default()).unwrap();
        assert_eq!(opened.manifest, memory.manifest());
        assert_eq!(opened.signatures.as_deref(), Some(&b"signed"[..]));
        let told = read(&archive, Damage::Refuse).unwrap();
        assert_eq!(told.lost, []);
        assert_eq!(told.whole[&b"kernel"[..]], memory.own[1].1);
        for (path, content) in &memory.content {
            let whole = &told.whole[path];
            assert!(content.starts_with(whole) && content[whole.len()..].iter().all(|byte| *byte == 0));
        }
        assert_eq!(told.whole.len(), memory.content.len() + 2);
        assert_eq!(memory.pack(packing), archive, "the same gives the same");
    }
}

#[test]
fn what_changes_while_it_is_packed_is_an_error() {
    for (content, _) in [(&b"hallo"[..], 0), (b"hell", 0), (b"hello!", 0)] {
        struct Changed(Memory, Vec<u8>);
        impl Contents for Changed {
            fn own(&mut self, own: &Own) -> Result<Box<dyn Read>> {
                self.0.own(own)
            }
            fn data(
                &mut self,
                e: &Entry,
                c: &Content,
                each: &mut dyn FnMut(&[u8]) -> Result<()>,
            ) -> Result<()> {
                if e.path == b"d/f" { each(&self.1) } else { self.0.data(e, c, each) }
            }
        }
        let memory = Memory::sample();
        let mut changed = Changed(memory.clone(), content.to_vec());
        let failed = writer::write(Vec::new(), Packing::Fast, &memory.manifest(), None, &mut changed);
        let told = format!("{:#}", failed.map(drop).unwrap_err());
        assert!(told.starts_with("packing 'd/f': it changed while it was being packed"), "{told}");
    }
}

#[test]
fn an_archive_that_ends_early_is_refused_wherever_it_ends() {
    let memory = Memory::sample();
    for packing in [Packing::Fast, Packing::Gzip] {
        let archive = memory.pack(packing);
        let many = (0..archive.len()).step_by(archive.len() / 60).chain([
            archive.len() - 1,
            1,
            8,
            9,
            10,
            48,
            49,
            50,
        ]);
        for len in many {
            assert!(read(&archive[..len], Damage::Refuse).is_err(), "{len} of {}", archive.len());
        }
        let longer = [&archive[..], b"\0"].concat();
        assert!(read(&longer, Damage::Refuse).is_err());
    }
}

#[test]
fn what_is_no_archive_is_told_so() {
    for bytes in
        [&b""[..], b"x", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0, 0], &[0x28, 0xb5, 0x2f, 0xfd], &[0; 4096]]
    {
        assert_eq!(refused(bytes), "reading the archive: it is not an archive that gridgate has packed");
    }
}

#[test]
fn damage_costs_only_the_files_that_it_hits() {
    let memory = Memory::sample();
    let archive = memory.pack(Packing::Gzip);
    let whole = read(&archive, Damage::Refuse).unwrap();
    // Frames of 4 MiB hold some ten files each.
    for at in [archive.len() / 2, archive.len() * 3 / 4, archive.len() - 20_000] {
        let mut damaged = archive.clone();
        damaged[at] ^= 0x10;
        assert!(read(&damaged, Damage::Refuse).is_err());
        let told = read(&damaged, Damage::Salvage).unwrap();
        assert!(!told.lost.is_empty() && told.lost.len() <= 12, "{:?}", told.lost);
        assert_eq!(told.whole.len() + told.lost.len(), whole.whole.len());
        assert!(told.whole.iter().all(|(path, content)| whole.whole[path] == *content));
    }
}

#[test]
fn several_hear_together_what_one_hears_alone() {
    let memory = Memory::sample();
    for packing in [Packing::Fast, Packing::Gzip] {
        let whole = memory.pack(packing);
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 0x10;
        let cut = &whole[..whole.len() * 2 / 3];
        assert_eq!(read_together(&whole, Damage::Refuse).unwrap(), read(&whole, Damage::Refuse).unwrap());
        for archive in [&damaged, cut] {
            assert!(read_together(archive, Damage::Refuse).is_err());
            let mut alone = read(archive, Damage::Salvage).unwrap();
            let mut together = read_together(archive, Damage::Salvage).unwrap();
            alone.lost.sort();
            together.lost.sort();
            assert_eq!(together, alone);
        }
    }
}

#[test]
fn frames_that_are_shorter_than_files_hold_nobody_up() {
    let (top, content) = (entry(b"", Kind::Directory), noise(200_000, 1));
    let long = file(b"a", &content);
    let manifest = Manifest::new(head(), vec![top.clone(), long.clone()]).unwrap().print().unwrap();
    let mut front = header::own(reader::MANIFEST, manifest.len() as u64);
    front.extend(&manifest);
    front.resize(front.len() + header::padding(manifest.len() as u64), 0);
    let mut body = [header::of(&top, &top), header::of(&long, &long), content.clone()].concat();
    body.resize(body.len().next_multiple_of(512) + 1024, 0);
    let mut packer = Packer::new(Packing::Fast).unwrap();
    let mut sink = Sink::new(Vec::new(), Packing::Fast.compression()).unwrap();
    let (label, frame) = packer.pack(Section::Manifest, 0, &front).unwrap();
    sink.frame(&label, &frame).unwrap();
    for (number, piece) in body.chunks(1000).enumerate() {
        let (label, frame) = packer.pack(Section::Body, number as u64 * 1000, piece).unwrap();
        sink.frame(&label, &frame).unwrap();
    }
    let (archive, _) = sink.finish().unwrap();
    let (done, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(read_together(&archive, Damage::Refuse).map(|told| told.whole)));
    let whole = told.recv_timeout(std::time::Duration::from_secs(300)).expect("it is read to its end");
    assert!(whole.unwrap()[&b"a"[..]] == content);
}

#[test]
fn a_stretch_of_other_bytes_is_passed_over() {
    let memory = Memory::sample();
    for packing in [Packing::Fast, Packing::Gzip] {
        let archive = memory.pack(packing);
        let whole = read(&archive, Damage::Refuse).unwrap();
        let from = archive.len() / 3;
        for (cut, put) in [(100, 0), (0, 5000), (archive.len() / 3, 0), (3000, 3000)] {
            let damaged = [&archive[..from], &noise(put, 1)[..], &archive[from + cut..]].concat();
            let told = read(&damaged, Damage::Salvage).unwrap();
            assert!(!told.lost.is_empty());
            assert_eq!(told.whole.len() + told.lost.len(), whole.whole.len());
            assert!(told.whole.iter().all(|(path, content)| whole.whole[path] == *content));
        }
    }
}

/// An archive whose tar is put together by hand.
fn made(parts: &[(Section, &[u8])]) -> Vec<u8> {
    let mut frames = FrameWriter::new(Vec::new(), Packing::Fast, 1).unwrap();
    for (section, bytes) in parts {
        frames.begin(*section).unwrap();
        frames.write(bytes).unwrap();
    }
    frames.finish().unwrap().0
}

fn with_manifest(manifest: &[u8], body: &[u8]) -> Vec<u8> {
    let mut front = header::own(reader::MANIFEST, manifest.len() as u64);
    front.extend(manifest);
    front.resize(front.len() + header::padding(manifest.len() as u64), 0);
    made(&[(Section::Manifest, &front), (Section::Body, body)])
}

#[test]
fn a_tar_that_is_not_what_the_manifest_says_is_refused() {
    let top = entry(b"", Kind::Directory);
    let good = file(b"a", b"hello");
    let manifest = Manifest::new(head(), vec![top.clone(), good.clone()]).unwrap().print().unwrap();
    let body = |second: &Entry, content: &[u8], end: usize| {
        let mut body = header::of(&top, &top);
        body.extend(header::of(second, second));
        body.extend(content);
        body.resize(body.len().next_multiple_of(512) + end, 0);
        body
    };
    assert!(read(&with_manifest(&manifest, &body(&good, b"hello", 1024)), Damage::Refuse).is_ok());
    let mut other_mode = good.clone();
    other_mode.mode = 0o4755;
    let cases = [
        (body(&good, b"hallo", 1024), "'a': its content is not what its digest says"),
        (body(&file(b"../a", b"hello"), b"hello", 1024), "'a': its header is not what the manifest says"),
        (body(&file(b"a", b"hello!"), b"hello!", 1024), "'a': its header is not what the manifest says"),
        (body(&entry(b"a", Kind::SymbolicLink(b"/etc".to_vec())), b"", 1024), "'a': its header is not"),
        (body(&other_mode, b"hello", 1024), "'a': its header is not what the manifest says"),
        (body(&good, b"hello\x01", 1024), "'a': it is not followed by zeros"),
        (body(&good, b"hello", 512), "it ends before its end does"),
        (body(&good, b"hello", 0), "it ends before its end does"),
        (body(&good, b"hello", 1025), "there is more in it than its manifest tells of"),
        (body(&good, b"hello", 50 << 20), "there is more in it than its manifest tells of"),
        (Vec::new(), "it ends before '' does"),
    ];
    for (body, why) in cases {
        let told = refused(&with_manifest(&manifest, &body));
        assert!(told.contains(why), "{told} is not about: {why}");
    }
}

#[test]
fn a_manifest_that_unpacks_to_more_than_it_may_is_refused_unread() {
    let limits = Limits { manifest_bytes: 1 << 20, ..Limits::default() };
    let bomb = |said: u64, zeros: usize| {
        let mut front = header::own(reader::MANIFEST, said);
        front.resize(front.len() + zeros, b' ');
        made(&[(Section::Manifest, &front)])
    };
    for (said, zeros) in [(10 << 30, 2 << 20), (4096, 2 << 20), (4096, 100 << 20), (4096, 8192), (4096, 100)]
    {
        let told = format!("{:#}", read_within(&bomb(said, zeros), Damage::Refuse, limits).unwrap_err());
        assert!(told.starts_with("reading the archive: its 'manifest.jsonl'"), "{told}");
    }
    let told = refused(&made(&[(Section::Body, &[0; 1024])]));
    assert_eq!(told, "reading the archive: it has no manifest");
}

#[test]
fn a_frame_that_is_larger_than_it_may_be_is_refused_by_its_label() {
    let archive = Memory::sample().pack(Packing::Fast);
    let limits = Limits { frame_bytes: 1 << 20, ..Limits::default() };
    let told = format!("{:#}", read_within(&archive, Damage::Refuse, limits).unwrap_err());
    assert!(told.contains("no frame begins there"), "{told}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_refused(bytes: Vec<u8>) {
        prop_assert!(read(&bytes, Damage::Refuse).is_err());
    }

    /// A byte that is changed is found; or it is one that decides nothing, and all is as it was.
    #[test]
    fn a_changed_byte_never_gives_other_content(at: prop::sample::Index, bit in 0u8..8, gzip: bool) {
        let mut memory = Memory::default();
        memory.entries.push(entry(b"", Kind::Directory));
        for number in 0..4 {
            memory.add(format!("{number}").as_bytes(), &noise(2000, number));
        }
        let archive = memory.pack(if gzip { Packing::Gzip } else { Packing::Usual });
        let whole = read(&archive, Damage::Refuse).unwrap();
        let mut changed = archive.clone();
        let at = at.index(archive.len());
        changed[at] ^= 1 << bit;
        if let Ok(told) = read(&changed, Damage::Refuse) {
            prop_assert_eq!(&told, &whole);
        }
        if let Ok(told) = read(&changed, Damage::Salvage) {
            prop_assert!(told.whole.iter().all(|(path, content)| whole.whole[path] == *content));
        }
    }
}

#[test]
fn a_signature_is_added_and_all_else_stays() {
    if Live.find_program("ssh-keygen").is_none() {
        return eprintln!("skipped: no ssh-keygen here");
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut public = Vec::new();
    for key in ["one", "two"] {
        let made = Program::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]);
        Live.run(&made.arg(at(key))).unwrap();
        public.push(std::fs::read_to_string(at(&format!("{key}.pub"))).unwrap());
    }
    let two = format!("two {}", public[1]);
    std::fs::write(at("allowed"), two).unwrap();
    let policy = Policy::SignedBy(at("allowed"));
    for packing in [Packing::Usual, Packing::Fast, Packing::Gzip] {
        let memory = Memory::sample();
        let plain =
            writer::write(Vec::new(), packing, &memory.manifest(), None, &mut memory.clone()).unwrap().0;
        let file = at("archive");
        std::fs::write(&file, &plain).unwrap();
        let signer = || {
            let opened =
                Reader::open(Box::new(std::fs::File::open(&file).unwrap()), Limits::default()).unwrap();
            let signatures = opened.signatures.as_deref();
            signature::check(&Live, "it", &opened.manifest_bytes, signatures, &policy, Purpose::Image)
        };
        assert!(format!("{:#}", signer().unwrap_err()).ends_with("it is not signed"));
        assert!(sign::sign(&Live, &file, &at("one")).unwrap());
        assert!(signer().is_err());
        assert!(sign::sign(&Live, &file, &at("two")).unwrap());
        assert!(!sign::sign(&Live, &file, &at("two")).unwrap());
        assert_eq!(signer().unwrap().unwrap().principal, "two");
        let signed = std::fs::read(&file).unwrap();
        assert_eq!(read(&signed, Damage::Refuse).unwrap(), read(&plain, Damage::Refuse).unwrap());
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 6, "{left:?}");
}

#[test]
fn one_of_its_own_files_is_read_alone_and_only_if_it_is_whole() {
    let memory = Memory::sample();
    let archive = memory.pack(Packing::Gzip);
    let own = |bytes: &[u8], name, most| {
        Reader::open(Box::new(std::io::Cursor::new(bytes.to_vec())), Limits::default())
            .and_then(|reader| reader.own(name, most))
            .map_err(|error| format!("{error:#}"))
    };
    assert_eq!(own(&archive, OwnName::Kernel, 3000).unwrap(), memory.own[1].1);
    // What comes after its frame is not asked for.
    assert_eq!(own(&archive[..archive.len() / 2], OwnName::Kernel, 3000).unwrap(), memory.own[1].1);
    assert!(own(&archive, OwnName::Kernel, 2999).unwrap_err().contains("longer than 2999 bytes"));
    assert!(own(&archive, OwnName::Bundle, 3000).unwrap_err().contains("'bundle.json' is missing"));
    let at = memchr::memmem::find(&archive, b"ggframeb").expect("the frame that it is in has a label") + 200;
    let mut damaged = archive;
    damaged[at] ^= 1;
    assert!(own(&damaged, OwnName::Kernel, 3000).is_err());
}
