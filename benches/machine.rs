//! A whole machine in a file, with a host and four guests, against cp(1) of the very file and the wait for it to be on stable
//! storage: the same bytes to the same disk, in turn. All images are in the page cache on both sides.
#![allow(clippy::unwrap_used, reason = "a measurement that meets the unexpected should stop where it stands")]

mod table;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use gridgate::archive::frames::Packing;
use gridgate::archive::manifest::OwnName;
use gridgate::archive::pack::{self, About, Keys};
use gridgate::archive::reader::Reader;
use gridgate::config::site::Site;
use gridgate::config::{self, LoadOptions};
use gridgate::host::Live;
use gridgate::host::nameless::Nameless;
use gridgate::machine::bundle::contents;
use gridgate::machine::bundle::goods::{Wanted, gather};
use gridgate::machine::bundle::unpack::unpack;
use gridgate::machine::install::install;
use gridgate::machine::plan::{Request, plan};
use gridgate::machine::stock::Stock;
use gridgate::names::Bytes;
use gridgate::paths::Paths;
use gridgate::progress::Progress;
use table::{Target, median, row};

const ROUNDS: usize = 3;
const DISK: Bytes = Bytes(12 << 30);
const SITE: &str = "name = 'bench'\n[defaults]\nimage = 'debian-12'\nprofile = 'base'\ndisk = '2G'\n\
    [networks.lan]\nmode = 'nat'\nsubnet = '10.78.0.0/24'\ngateway = '10.78.0.1'\n";

fn main() {
    if !table::asked_for() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: making a machine needs root");
    }
    let Some(prepared) = table::prepared() else { return };
    let gateway = [prepared.join("images/gateway"), PathBuf::from("build/lab/images/gateway")];
    let Some(gateway) = gateway.iter().find(|dir| dir.join("manifest.json").exists()) else {
        return eprintln!("skipped: no image of a host; scripts/lab-image makes one");
    };
    let dir = table::scratch();
    let paths = Paths::new(&dir.path().join("site"), &dir.path().join("state"));
    fs::create_dir_all(paths.images()).unwrap();
    symlink(gateway.canonicalize().unwrap(), paths.images().join("gateway")).unwrap();
    symlink(prepared.join("images/debian-12"), paths.images().join("debian-12")).unwrap();
    fs::create_dir_all(paths.site.join("guests")).unwrap();
    fs::write(paths.site.join("site.toml"), SITE).unwrap();
    for guest in ["ce", "se", "ui", "wn"] {
        fs::write(paths.site.join(format!("guests/{guest}.toml")), "backend = 'qemu'\n").unwrap();
    }
    let site = config::load(&paths.site, &LoadOptions::default()).unwrap().site;
    table::heading("a machine in a file (host and 4 guests)");
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let (mut made, mut copied) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        quiet(&[&ours, &theirs]);
        made.push(table::time(|| make(&Stock::own(&paths), &site, &ours)));
        quiet(&[]);
        copied.push(table::time(|| copy(&ours, &theirs)));
    }
    let bytes = fs::metadata(&ours).unwrap().blocks() * 512;
    let copied = median(copied);
    let what = format!("site install / cp + fsync of its {}", Bytes(bytes));
    row(&what, "ms", median(made), Some(copied), Target::Ratio(2.0));

    let bundle = dir.path().join("bundle");
    quiet(&[&ours, &theirs]);
    let packed = table::time(|| bundled(&paths, std::slice::from_ref(&site), &bundle));
    let len = fs::metadata(&bundle).unwrap().len();
    row(&format!("site pack into {}", Bytes(len)), "ms", packed, None, Target::None);
    quiet(&[]);
    let from_bundle = table::time(|| {
        let reader = Reader::open(Box::new(File::open(&bundle).unwrap()), contents::limits()).unwrap();
        contents::check(&reader.manifest).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        let unpacked = unpack(&Live, &elsewhere, reader, &Progress::silent()).unwrap();
        make(&unpacked.stock(&site.name, &elsewhere), &site, &ours);
    });
    row("site install BUNDLE / cp + fsync", "ms", from_bundle, Some(copied), Target::None);
}

fn quiet(files: &[&Path]) {
    for file in files {
        let _ = fs::remove_file(file);
    }
    rustix::fs::sync();
}

fn make(stock: &Stock, site: &Site, to: &Path) {
    let request =
        Request { image: "gateway".parse().unwrap(), to: to.to_owned(), size: Some(DISK), saved: None };
    let plan = plan(&Live, stock, site, &request).unwrap();
    install(&Live, stock, site, &plan, &Progress::silent()).unwrap();
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("--sparse=auto").arg(from).arg(to).status().unwrap().success());
    File::open(to).unwrap().sync_all().unwrap();
}

fn bundled(paths: &Paths, sites: &[Site], to: &Path) {
    let wanted = Wanted { sites, image: "gateway".parse().unwrap(), keys: Keys::Refuse };
    let silent = Progress::silent();
    let (goods, contents) = gather(&Live, paths, &wanted, &silent).unwrap();
    let own = Nameless::holding(&contents.print().unwrap()).unwrap();
    let about = About {
        name: "bench".to_owned(),
        filesystem: None,
        own: vec![(OwnName::Bundle, own.path())],
        keys: Keys::Refuse,
    };
    let manifest = pack::survey(&goods, &about, &silent).unwrap();
    let file = File::create(to).unwrap();
    let (file, _) = pack::pack(&goods, &about, &manifest, None, Packing::Usual, file, &silent).unwrap();
    file.sync_all().unwrap();
}
