use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

const OLD: &str = "aa000000-1111-2222-3333-444444444444";
const NEW: &str = "bb000000-5555-6666-7777-888888888888";

fn pairs() -> Vec<(String, String)> {
    vec![(OLD.to_owned(), NEW.to_owned())]
}

/// What a shell makes; `None` if a program that it takes is not here.
fn made(dir: &Path, script: &str, programs: &[&str]) -> Option<()> {
    let has = |name: &&str| Command::new("which").arg(name).output().is_ok_and(|ran| ran.status.success());
    if let Some(name) = programs.iter().find(|name| !has(name)) {
        eprintln!("skipped: no {name} here");
        return None;
    }
    let ran =
        Command::new("sh").args(["-ec", script]).current_dir(dir).stdin(Stdio::null()).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    Some(())
}

/// An initrd as Debian's: microcode in front, not packed; then all else, packed by that command.
fn debian(dir: &Path, pack: &str) -> Option<()> {
    let script = format!(
        "mkdir -p early/kernel/x86/microcode main/conf/conf.d main/bin 'main/dev-disk-{OLD}'
         head -c 70000 /dev/urandom >early/kernel/x86/microcode/GenuineIntel.bin
         echo 'RESUME=UUID={OLD}' >main/conf/conf.d/resume
         echo 'PARTUUID=12345678-01 x' >main/conf/param.conf
         head -c 5000000 /dev/urandom >main/bin/large
         ln -s /dev/disk/by-uuid/{OLD} main/root
         (cd early && find . | cpio --quiet -o -H newc) >boot/initrd.img-6.1
         (cd main && find . | cpio --quiet -o -H newc | {pack}) >>boot/initrd.img-6.1
         cp boot/initrd.img-6.1 before; chmod 600 boot/initrd.img-6.1"
    );
    std::fs::create_dir(dir.join("boot")).unwrap();
    made(dir, &script, &["cpio", pack.split(' ').next().unwrap()])
}

fn unpacked(dir: &Path, unpack: &str) {
    let script = format!(
        "mkdir out && cd out
         early=$(($(wc -c <../early.len)))
         dd if=../boot/initrd.img-6.1 bs=$early count=1 status=none | cpio --quiet -id
         tail -c +$((early + 1)) ../boot/initrd.img-6.1 | {unpack} | cpio --quiet -id"
    );
    made(dir, &script, &[]).unwrap();
}

#[test]
fn an_initrd_behind_microcode_names_the_new_id_and_all_else_in_it_is_as_it_was() {
    for (pack, unpack) in [
        ("gzip -9", "gzip -dc"),
        ("zstd -q -9", "zstd -qdc"),
        ("xz --check=crc32 -1", "xz -dc"),
        ("lz4 -q -9 -l", "lz4 -dcq"),
        ("bzip2 -9", "bzip2 -dc"),
        ("lzma -1", "lzma -dc"),
        ("cat", "cat"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let Some(()) = debian(dir.path(), pack) else { continue };
        made(dir.path(), "(cd early && find . | cpio --quiet -o -H newc) >early.len", &[]).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let found = look(&root, Path::new("/boot"), &pairs()).unwrap();
        assert_eq!((found.edits.len(), found.closed), (1, Vec::new()), "{pack}");
        assert_eq!(found.edits[0].apply(&root).unwrap(), Change::Changed);
        unpacked(dir.path(), unpack);
        let read = |path: &str| std::fs::read(dir.path().join(path)).unwrap();
        assert_eq!(read("out/conf/conf.d/resume"), format!("RESUME=UUID={NEW}\n").as_bytes());
        let link = std::fs::read_link(dir.path().join("out/root")).unwrap();
        assert_eq!(link, Path::new(&format!("/dev/disk/by-uuid/{NEW}")));
        assert!(dir.path().join(format!("out/dev-disk-{NEW}")).is_dir());
        for same in ["conf/param.conf", "bin/large"] {
            assert!(read(&format!("main/{same}")) == read(&format!("out/{same}")), "{pack}: {same}");
        }
        let early = "kernel/x86/microcode/GenuineIntel.bin";
        assert!(read(&format!("early/{early}")) == read(&format!("out/{early}")));
        let (now, len) = (read("boot/initrd.img-6.1"), read("early.len").len());
        assert!(now[..len] == read("before")[..len], "{pack}: what is in front changed");
        let mode = dir.path().join("boot/initrd.img-6.1").metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        // The second time nothing is left to do.
        assert_eq!(look(&root, Path::new("/boot"), &pairs()).unwrap(), Found::default());
        assert_eq!(found.edits[0].apply(&root).unwrap(), Change::Same);
    }
}

#[test]
fn an_initrd_that_names_no_old_id_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = debian(dir.path(), "gzip") else { return };
    let root = Root::open(dir.path()).unwrap();
    let other = [(NEW.to_owned(), OLD.to_owned())];
    assert_eq!(look(&root, Path::new("/boot"), &other).unwrap(), Found::default());
}

#[test]
fn what_follows_a_packed_part_is_read_too() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = debian(dir.path(), "gzip") else { return };
    let script = format!(
        "for pack in 'gzip' 'zstd -q' 'xz --check=crc32' 'bzip2' 'lzma' 'lz4 -q -l'; do
            mkdir -p more && echo {OLD} >more/file
            (cd more && find . | cpio --quiet -o -H newc | $pack) >>boot/initrd.img-6.1
            printf '\\0\\0\\0\\0' >>boot/initrd.img-6.1
         done"
    );
    let Some(()) = made(dir.path(), &script, &["zstd", "xz", "bzip2", "lzma", "lz4"]) else { return };
    let file = File::open(dir.path().join("boot/initrd.img-6.1")).unwrap();
    let mut new = Vec::new();
    // A file, a link and a name in the first archive; a file in each of the others.
    assert_eq!(rewrite(&file, Some(&mut new), &Renames::new(&pairs()).unwrap()).unwrap(), 3 + 6);
}

#[test]
fn one_that_unpacks_without_end_or_in_an_unknown_way_is_told_of_and_left() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("boot")).unwrap();
    let header = |size: u64| {
        let fields =
            [0, 0o100644, 0, 0, 1, 0, size, 0, 0, 0, 0, 2, 0].map(|field: u64| format!("{field:08x}"));
        format!("070701{}x\0", fields.concat()).into_bytes()
    };
    let mut bomb = zstd::Encoder::new(Vec::new(), 1).unwrap();
    bomb.write_all(&header(0xffff_0000)).unwrap();
    io::copy(&mut io::repeat(0).take(LARGEST_UNPACKED), &mut bomb).unwrap();
    for (content, why) in [
        (bomb.finish().unwrap(), "it unpacks to more than 2.0G"),
        (b"\x89LZO\0\r\n".to_vec(), "a part of it is packed in a way that is not known here"),
        (b"\x02\x21\x4c\x18 lz4".to_vec(), "unpacking it: what follows an lz4 part is not known"),
        (header(100), "an entry ends too early"),
        (b"070701 no number".to_vec(), "reading an entry: failed to fill whole buffer"),
    ] {
        std::fs::write(dir.path().join("boot/initrd"), &content).unwrap();
        std::fs::set_permissions(dir.path().join("boot/initrd"), PermissionsExt::from_mode(0o600)).unwrap();
        let found = look(&Root::open(dir.path()).unwrap(), Path::new("/boot"), &pairs()).unwrap();
        assert_eq!(found.edits, []);
        let told: Vec<String> = found.closed.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [format!("'/boot/initrd' cannot be looked into, and may name old ids of disks: {why}")]
        );
        assert!(std::fs::read(dir.path().join("boot/initrd")).unwrap() == content);
    }
}

proptest! {
    #[test]
    fn any_file_is_read_or_told_of(bytes in proptest::collection::vec(any::<u8>(), 0..600), magic in 0usize..8) {
        let magics: [&[u8]; 8] = [
            b"070701", &[0x1f, 0x8b, 8, 0], &[0x28, 0xb5, 0x2f, 0xfd], b"\xfd7zXZ\0", b"\0\0\0", &lz4::MARK, b"BZh9", &[0x5d, 0, 0, 1, 0],
        ];
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [magics[magic], &bytes].concat()).unwrap();
        let _ = rewrite(file.as_file(), Some(&mut io::sink()), &Renames::new(&pairs()).unwrap());
    }
}
