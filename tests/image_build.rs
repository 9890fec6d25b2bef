//! Builds of images that come to a bad end. They start the real programs as root, and stop before anything is fetched
//! from far away: the archive that they name is an empty directory.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gridgate::host::Live;
use gridgate::image::build::{When, build};
use gridgate::image::{definition::Definition, store};
use gridgate::paths::Paths;
use gridgate::progress::Progress;

struct Site {
    dir: tempfile::TempDir,
    paths: Paths,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), &dir.path().join("state"));
        fs::create_dir(dir.path().join("archive")).unwrap();
        Self { dir, paths }
    }

    fn definition(&self, more: &str) -> String {
        let archive = self.dir.path().join("archive");
        format!(
            "name = 'x'\n[debian]\nrelease = 'bookworm'\nmirror = 'file:{}'\npackages = []\n{more}\n\
             [filesystem]\nsize = '64M'\n",
            archive.display()
        )
    }

    fn in_images(&self) -> Vec<String> {
        let names =
            fs::read_dir(self.paths.images()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != ".lock").collect()
    }
}

fn can_build() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let programs = Path::new("/usr/bin/mmdebstrap").exists() && Path::new("/usr/sbin/mke2fs").exists();
    if !root || !programs {
        eprintln!("skipped: building an image needs root, mmdebstrap and mke2fs");
    }
    root && programs
}

#[test]
fn a_failed_build_tells_what_the_program_said_and_leaves_nothing() {
    if !can_build() {
        return;
    }
    let site = Site::new();
    let definition = Definition::parse("x.toml", &site.definition("")).unwrap();
    let error = build(&Live, &site.paths, &definition, When::Changed, &Progress::silent()).unwrap_err();
    let error = format!("{error:#}");
    let begins = "building image 'x': installing packages of Debian bookworm: 'setpriv ";
    assert!(error.starts_with(begins), "{error}");
    assert!(error.contains("apt-get update"), "{error}");
    assert_eq!(site.in_images(), [""; 0]);
}

/// An archive's index, signed with a key that was thrown away.
const SIGNED_BY_NOBODY: &str = "\
-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

Origin: nobody
Suite: bookworm
Codename: bookworm
Date: Sat, 01 Nov 2025 00:00:00 UTC
Components: main
Architectures: amd64
SHA256:
-----BEGIN PGP SIGNATURE-----

iHUEARYIAB0WIQR3urBiIHnPShy3UBWWJ0msuBA6CwUCawE0xQAKCRCWJ0msuBA6
C31kAP4+yn+/S6L54wlLSteOgJboGTGKInIOdDhMg4j81WP1/QD/bUf3pBlDyUkb
Uh07LhU3aFXU7DQ1qhAxeeuaryiN+go=
=YorP
-----END PGP SIGNATURE-----
";

#[test]
fn who_has_none_of_an_archives_keys_is_told_where_they_come_from() {
    if !can_build() {
        return;
    }
    let site = Site::new();
    let index = site.dir.path().join("archive/dists/bookworm");
    fs::create_dir_all(&index).unwrap();
    fs::write(index.join("InRelease"), SIGNED_BY_NOBODY).unwrap();
    let definition = Definition::parse("x.toml", &site.definition("")).unwrap();
    let error = build(&Live, &site.paths, &definition, When::Changed, &Progress::silent()).unwrap_err();
    let error = format!("{error:#}");
    let told = "building image 'x': checking who signed Debian bookworm: this machine knows none of the keys; hint: ";
    assert!(error.starts_with(told), "{error}");
    assert!(error.contains("debian-archive-keyring"), "{error}");
}

#[test]
fn an_image_that_is_there_survives_a_failed_build() {
    if !can_build() {
        return;
    }
    let site = Site::new();
    let name = "x".parse().unwrap();
    fs::create_dir_all(site.paths.image(&name)).unwrap();
    fs::write(site.paths.image(&name).join("disk.ext4"), b"old").unwrap();
    let definition = Definition::parse("x.toml", &site.definition("")).unwrap();
    assert!(build(&Live, &site.paths, &definition, When::Always, &Progress::silent()).is_err());
    assert_eq!(fs::read(site.paths.image(&name).join("disk.ext4")).unwrap(), b"old");
}

/// Ends what it started, whatever happens to the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(300) {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("waited in vain for {what}");
}

/// Processes whose command line names the path.
fn at_work_in(path: &Path) -> Vec<PathBuf> {
    let needle = path.as_os_str().as_encoded_bytes();
    let all = fs::read_dir("/proc").unwrap().map(|e| e.unwrap().path());
    let names = |dir: &PathBuf| {
        fs::read(dir.join("cmdline")).is_ok_and(|c| c.windows(needle.len()).any(|w| w == needle))
    };
    all.filter(names).collect()
}

#[test]
fn a_build_killed_with_sigkill_ends_its_programs_and_is_cleaned_up_by_the_next() {
    if !can_build() {
        return;
    }
    let site = Site::new();
    fs::create_dir(site.dir.path().join("images")).unwrap();
    // A fifo as the archive's index: apt waits for a writer that never comes.
    let fifo = site.dir.path().join("archive/dists/bookworm");
    fs::create_dir_all(&fifo).unwrap();
    nix::unistd::mkfifo(&fifo.join("InRelease"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    fs::write(site.dir.path().join("images/x.toml"), site.definition("")).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_gridgate"))
        .arg("--site")
        .arg(site.dir.path())
        .arg("--state")
        .arg(&site.paths.state)
        .args(["image", "build", "x"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let making = wait_for("the build to start", || {
        let dir = fs::read_dir(site.paths.images())
            .ok()?
            .map(|e| e.unwrap().path())
            .find(|p| p.join("tree").exists());
        dir.filter(|dir| at_work_in(dir).len() > 1)
    });
    assert!(store::leftovers(&Live, &site.paths).unwrap().is_empty(), "a build at work is no leftover");
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    wait_for("the build's programs to end", || at_work_in(&making).is_empty().then_some(()));

    assert_eq!(store::leftovers(&Live, &site.paths).unwrap(), [making]);
    let error = store::open(&Live, &site.paths, &"x".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("hint: gridgate image build x"), "{error}");
    fs::remove_dir_all(&fifo).unwrap();
    let definition = Definition::parse("x.toml", &site.definition("")).unwrap();
    assert!(build(&Live, &site.paths, &definition, When::Changed, &Progress::silent()).is_err());
    assert_eq!(site.in_images(), [""; 0]);
}

/// From this machine's own mirror, so that it is among the slow ones (`make test-lab`).
#[test]
fn one_definition_gives_the_same_bytes_each_time() {
    if std::env::var_os("GRIDGATE_LAB").is_none() || !can_build() {
        return eprintln!("skipped: building images takes minutes; make test-lab does it");
    }
    let text = "name = 'x'\n[debian]\nrelease = 'bookworm'\nvariant = 'essential'\npackages = []\n\
                [filesystem]\nsize = '400M'\nfeatures = ['metadata_csum_seed']\n";
    let built: Vec<_> = (0..2)
        .map(|_| {
            let site = Site::new();
            let definition = Definition::parse("x", text).unwrap();
            build(&Live, &site.paths, &definition, When::Always, &Progress::silent()).unwrap();
            store::open(&Live, &site.paths, &definition.name).unwrap().manifest
        })
        .collect();
    assert_eq!(built[0].disk.blake3, built[1].disk.blake3);
    assert_eq!(built[0].packages, built[1].packages);
    assert!(built[0].packages.iter().all(|package| package.sha256.is_some()), "{:?}", built[0].packages);
}

/// A repository with two small packages, one of which needs the other.
fn repository(dir: &Path) -> bool {
    for program in ["dnf", "rpmbuild", "createrepo_c"] {
        if !Path::new("/usr/bin").join(program).exists() {
            eprintln!("skipped: there is no '{program}' here");
            return false;
        }
    }
    let base = "Name: base\nVersion: 1.2\nRelease: 3\nSummary: x\nLicense: x\nAutoReq: no\nProvides: /bin/sh\n%description\nx\n\
        %install\n\
        for dir in bin etc lib64 proc dev tmp root boot; do mkdir -p %{buildroot}/$dir; done\n\
        cp -L /bin/sh %{buildroot}/bin/sh\necho 9 >%{buildroot}/etc/release\n\
        ldd /bin/sh | grep -o '/[^ ]*' | xargs -I{} cp -L --parents {} %{buildroot}\n\
        for v in 9.2 9.10; do echo $v >%{buildroot}/boot/vmlinuz-$v; done; echo i >%{buildroot}/boot/initramfs-9.10.img\n\
        %files\n/*\n";
    let tool = "Name: tool\nVersion: 7\nRelease: 1\nEpoch: 2\nSummary: x\nLicense: x\nRequires: base\n%description\nx\n\
        %install\nmkdir -p %{buildroot}/opt\n%post\necho by-a-scriptlet >/opt/made\n%files\n/opt\n";
    for (name, spec) in [("base", base), ("tool", tool)] {
        let file = dir.join(format!("{name}.spec"));
        fs::write(&file, spec).unwrap();
        let mut build = Command::new("rpmbuild");
        // Its records would be in the home directory.
        build
            .env("HOME", dir)
            .args(["-bb", "--quiet", "--define"])
            .arg(format!("_topdir {}", dir.display()))
            .arg(&file);
        let built = build.output().unwrap();
        assert!(built.status.success(), "{name}: {}", String::from_utf8_lossy(&built.stderr));
    }
    let made =
        Command::new("createrepo_c").env("HOME", dir).arg("--quiet").arg(dir.join("RPMS")).status().unwrap();
    assert!(made.success());
    true
}

#[test]
fn packages_of_the_red_hat_family_become_an_image() {
    if !can_build() {
        return;
    }
    let site = Site::new();
    if !repository(site.dir.path()) {
        return;
    }
    let text = format!(
        "name = 'el'\n[rpm]\nrelease = '9'\npackages = ['tool']\n[rpm.repositories.own]\nurl = 'file://{}'\nunsigned = true\n\
         [filesystem]\nsize = '64M'\n",
        site.dir.path().join("RPMS").display()
    );
    let definition = Definition::parse("el.toml", &text).unwrap();
    build(&Live, &site.paths, &definition, When::Changed, &Progress::silent()).unwrap();
    let golden = store::open(&Live, &site.paths, &"el".parse().unwrap()).unwrap();
    let packages: Vec<_> =
        golden.manifest.packages.iter().map(|p| (p.name.as_str(), p.version.as_str())).collect();
    assert_eq!(packages, [("base", "1.2-3.x86_64"), ("tool", "2:7-1.x86_64")]);
    assert_eq!(fs::read_to_string(golden.kernel.unwrap()).unwrap(), "9.10\n");
    assert_eq!(fs::read_to_string(golden.initrd.unwrap()).unwrap(), "i\n");
    let read = |path: &str| {
        let read =
            Command::new("debugfs").args(["-R", &format!("cat {path}")]).arg(&golden.disk).output().unwrap();
        String::from_utf8(read.stdout).unwrap()
    };
    assert_eq!((read("/etc/release").as_str(), read("/opt/made").as_str()), ("9\n", "by-a-scriptlet\n"));
    let listed =
        Command::new("debugfs").args(["-R", "ls -p /var/lib/rpm"]).arg(&golden.disk).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("rpmdb.sqlite"), "{listed:?}");
    assert_eq!(site.in_images(), ["el"]);
}
