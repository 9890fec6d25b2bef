//! Profiles as a site sees them: what is shipped, what a site adds, and what is told of mistakes.

use std::path::Path;

use super::document::Document;
use super::{Workshop, check, document};
use crate::config::site::Site;
use crate::config::variables::Setting;
use crate::config::{self, LoadOptions, example};

/// The example site with files of the test's own over it.
pub(super) fn site(files: &[(&str, &str)]) -> (tempfile::TempDir, Site) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in example::files(example::Format::Toml).iter().chain(files) {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let site = load(dir.path());
    (dir, site)
}

fn load(dir: &Path) -> Site {
    match config::load(dir, &LoadOptions::default()) {
        Ok(loaded) => loaded.site,
        Err(problems) => panic!("{problems}"),
    }
}

pub(super) fn of(site: &Site, guest: &str) -> Document {
    let guest = site.guest(&guest.parse().unwrap()).unwrap();
    document(site, guest).unwrap_or_else(|problems| panic!("{problems}"))
}

fn file<'d>(document: &'d Document, path: &str) -> &'d str {
    let found = document.files.iter().find(|file| file.path == path);
    &found.unwrap_or_else(|| panic!("no {path}")).content
}

fn told(site: &Site) -> String {
    check(site).expect_err("it is wrong").to_string()
}

#[test]
fn every_shipped_profile_and_feature_renders_for_the_example_site() {
    let (_dir, mut site) = site(&[]);
    for listed in Workshop::list(Path::new("/nowhere")).unwrap() {
        for guest in &mut site.guests {
            guest.features.clear();
            match listed.kind {
                super::Kind::Profile => guest.profile = listed.name.clone(),
                super::Kind::Feature => guest.features.push(config::variables::Feature {
                    name: listed.name.clone(),
                    origin: config::origin::Origin::note("test"),
                }),
            }
        }
        check(&site).unwrap_or_else(|problems| panic!("{}: {problems}", listed.name));
    }
}

#[test]
fn guests_know_each_other() {
    let (_dir, site) =
        site(&[("guests/wn.toml", "count = 2\ncpus = 4\nbackend = \"qemu\"\nmemory = \"1G\"\n")]);
    let (ce, wn) = (of(&site, "ce"), of(&site, "wn2"));
    let slurm = file(&ce, "/etc/slurm/slurm.conf");
    assert!(slurm.contains("NodeName=wn1 ") && slurm.contains("CPUs=4 RealMemory=819 "), "{slurm}");
    assert!(slurm.contains("PartitionName=grid Nodes=wn1,wn2 Default=YES"), "{slurm}");
    assert_eq!(slurm, file(&wn, "/etc/slurm/slurm.conf"));
    let mount = file(&wn, "/etc/systemd/system/srv-arc.mount");
    assert!(mount.contains("\nWhat=ce.my-site.internal:/srv/arc\n"), "{mount}");
    let client = of(&site, "ui");
    let client = file(&client, "/etc/arc/client.conf");
    assert!(client.contains("[computing/ce]\nurl = https://ce.my-site.internal:443/arex\n"), "{client}");
}

#[test]
fn the_blocks_of_arc_conf_are_in_the_order_that_arc_wants() {
    let (_dir, site) = site(&[]);
    let ce = of(&site, "ce");
    let blocks: Vec<&str> = file(&ce, "/etc/arc.conf").lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(
        blocks,
        [
            "[common]",
            "[authgroup:site]",
            "[mapping]",
            "[lrms]",
            "[arex]",
            "[arex/cache]",
            "[arex/data-staging]",
            "[arex/ws]",
            "[arex/ws/jobs]",
            "[arex/jura]",
            "[infosys]",
            "[infosys/ldap]",
            "[infosys/glue2]",
            "[infosys/glue2/ldap]",
            "[infosys/cluster]",
            "[queue:grid]"
        ]
    );
    assert_eq!(ce.absent.len(), 2);
}

#[test]
fn a_document_is_the_same_every_time_and_is_read_as_it_was_written() {
    let (_dir, site) = site(&[]);
    let first = of(&site, "ce");
    assert_eq!(first.digest(), of(&site, "ce").digest());
    assert_eq!(serde_json::from_str::<Document>(&first.text()).unwrap(), first);
    assert_ne!(first.digest(), of(&site, "wn").digest());
}

#[test]
fn what_a_guest_is_told_wins_over_what_the_site_is_told_over_the_default() {
    let (_dir, site) = site(&[
        ("guests/ce.toml", "[variables]\nqueue = \"short\"\n"),
        ("templates/t.toml", "[variables]\nmax_time = \"1:00:00\"\n"),
        ("guests/wn.toml", "extends = \"t\"\n"),
        ("guests/ui.toml", "[variables]\ncontact = \"here\"\n"),
        (
            "site.toml",
            "name = \"s\"\n[variables]\ncontact = \"there\"\nqueue = \"site\"\n[defaults.variables]\nmax_time = \"2:00:00\"\n\
             [networks.lan]\nmode = \"nat\"\nsubnet = \"10.77.0.0/24\"\n",
        ),
    ]);
    let value = |guest: &str, name: &str| of(&site, guest).variables[name].clone();
    let text = |text: &str| Setting::Text(text.to_owned());
    assert_eq!(value("ce", "queue"), text("short"));
    assert_eq!(value("wn", "queue"), text("site"));
    assert_eq!(value("wn", "max_time"), text("1:00:00"));
    assert_eq!((value("ui", "contact"), value("se", "contact")), (text("here"), text("there")));
}

#[test]
fn a_variable_that_the_profile_does_not_have_or_cannot_take_is_told_where_it_was_set() {
    for (said, wanted) in [
        (
            "quue = \"x\"",
            "guests/ce.toml:2:8: profile 'ce' has no variable 'quue'\n  hint: did you mean 'queue'?",
        ),
        ("queue = \"A B\"", "guests/ce.toml:2:9: variable 'queue' 'A B' is not like [a-z]"),
        ("lrms = \"pbs\"", "guests/ce.toml:2:8: variable 'lrms' 'pbs' is none of: slurm, fork"),
        (
            "pool_accounts = 5000",
            "guests/ce.toml:2:17: variable 'pool_accounts' 5000 is not between 0 and 999",
        ),
        (
            "pool_accounts = \"many\"",
            "guests/ce.toml:2:17: variable 'pool_accounts' must be a whole number, not 'many'",
        ),
    ] {
        let text = format!("[variables]\n{said}\n");
        let (dir, site) = site(&[("guests/ce.toml", &text)]);
        let told = told(&site).replace(&format!("{}/", dir.path().display()), "");
        assert!(told.starts_with(wanted), "{told}");
    }
}

#[test]
fn what_is_wrong_in_a_template_is_told_with_its_line() {
    let guest = ("guests/ce.toml", "profile = \"own\"\n");
    let profile = ("profiles/own.toml", "[[file]]\npath = \"/etc/x\"\ntemplate = \"own\"\n");
    for (template, wanted) in [
        ("a\n{{ guset.name }}\n", "templates/own:2:4: 'guset' is not known here"),
        ("a\n\n{{ guest.nam }}\n", "templates/own:3:"),
        ("{% if vars.typo %}x{% endif %}", "templates/own:1:12: there is no variable 'typo'"),
        ("a\n{{ guest.name \n", "templates/own:"),
        (
            "{% for x in guests(rolle=\"ce\") %}{% endfor %}{{ nothing | upper }}",
            "templates/own:1:49: 'nothing' is not",
        ),
    ] {
        let (dir, site) = site(&[guest, profile, ("profiles/templates/own", template)]);
        let told = told(&site).replace(&format!("{}/profiles/", dir.path().display()), "");
        assert!(told.starts_with(wanted), "{template}: {told}");
    }
}

#[test]
fn a_site_s_own_files_win_over_the_shipped_ones() {
    let (_dir, site) = site(&[
        ("profiles/templates/motd", "ours\n"),
        ("profiles/features/munge.toml", "description = \"ours\"\npackages = [\"our-munge\"]\n"),
    ]);
    let ce = of(&site, "ce");
    assert_eq!(file(&ce, "/etc/motd"), "ours\n");
    assert!(ce.packages.contains(&"our-munge".to_owned()) && !ce.packages.contains(&"munge".to_owned()));
}

#[test]
fn the_packages_of_a_profile_are_those_that_each_guest_of_it_has() {
    let (dir, site) = site(&[]);
    for guest in ["ce", "wn"] {
        let packages = Workshop::packages(dir.path(), &[of(&site, guest).profile]).unwrap();
        assert_eq!(packages, of(&site, guest).packages);
        assert!(!packages.is_empty());
    }
    let told = Workshop::packages(dir.path(), &["nosuch".to_owned()]).unwrap_err().to_string();
    assert!(told.contains("nosuch"), "{told}");
}

#[test]
fn profiles_in_a_circle_or_missing_are_told() {
    let (_dir, circular) = site(&[
        ("guests/ce.toml", "profile = \"a\"\n"),
        ("profiles/a.toml", "features = [\"f\"]\n"),
        ("profiles/features/f.toml", "features = [\"g\"]\n"),
        ("profiles/features/g.toml", "extends = \"f\"\n"),
    ]);
    let message = told(&circular);
    assert!(message.contains("in a circle: feature f -> feature g -> feature f"), "{message}");
    let (_dir, missing) = site(&[("guests/ce.toml", "features = [\"mung\"]\n")]);
    let message = told(&missing);
    assert!(
        message.contains("guests/ce.toml:1:13: there is no feature 'mung'\n  hint: did you mean 'munge'?"),
        "{message}"
    );
}

#[test]
fn a_profile_may_take_back_what_it_extends() {
    let (_dir, site) = site(&[
        ("guests/ce.toml", "profile = \"own\"\n"),
        (
            "profiles/own.toml",
            "extends = \"ce\"\nabsent = [\"/etc/motd\"]\n[services]\ndisable = [\"munge.service\"]\n\
             [[file]]\npath = \"/etc/arc.conf.d/00-testCA-hostcert.conf\"\ncontent = \"kept\"\n",
        ),
    ]);
    let ce = of(&site, "ce");
    assert!(
        ce.files.iter().all(|file| file.path != "/etc/motd") && ce.absent.contains(&"/etc/motd".to_owned())
    );
    assert!(!ce.services.enable.contains(&"munge.service".to_owned()));
    assert_eq!(file(&ce, "/etc/arc.conf.d/00-testCA-hostcert.conf"), "kept");
}

#[test]
fn pool_accounts_are_numbered_and_keep_their_ids() {
    let (_dir, site) = site(&[("guests/wn.toml", "[variables]\npool_accounts = 3\n")]);
    let wn = of(&site, "wn");
    let pool: Vec<(&str, u32, &str)> = wn
        .users
        .iter()
        .filter(|user| user.pool)
        .map(|user| (user.name.as_str(), user.uid, user.home.as_str()))
        .collect();
    assert_eq!(
        pool,
        [
            ("grid001", 20001, "/home/grid001"),
            ("grid002", 20002, "/home/grid002"),
            ("grid003", 20003, "/home/grid003")
        ]
    );
}
