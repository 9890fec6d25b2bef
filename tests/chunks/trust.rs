//! Who may make the images that a host takes.

use std::fs;
use std::process::Command;

use crate::lab::{Lab, disk, said};

fn key(lab: &Lab, name: &str) -> (String, String) {
    let path = lab.path(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(&path)
        .status();
    assert!(made.unwrap().success());
    (path.display().to_string(), fs::read_to_string(path.with_extension("pub")).unwrap())
}

#[test]
fn an_image_is_taken_from_those_who_may_sign_and_from_nobody_else() {
    let lab = Lab::new();
    let ((ours, public), (theirs, _)) = (key(&lab, "ours"), key(&lab, "theirs"));
    let store = lab.store().display().to_string();
    lab.image("a", "x", &disk(), 1);
    let pull = || lab.run("b", &["image", "pull", "x", &store]);

    assert!(lab.run("a", &["image", "push", "x", &store]).status.success());
    let nobody = pull();
    assert_eq!(nobody.status.code(), Some(4), "{}", said(&nobody));
    assert!(said(&nobody).contains("nobody is known here who may sign that"), "{}", said(&nobody));

    fs::write(lab.path("b/allowed_signers"), format!("ops@example.org {public}")).unwrap();
    let unsigned = pull();
    assert_eq!(unsigned.status.code(), Some(4));
    assert!(said(&unsigned).contains("it is not signed"), "{}", said(&unsigned));

    assert!(lab.run("a", &["image", "push", "x", &store, "--key", &theirs]).status.success());
    let unknown = pull();
    assert_eq!(unknown.status.code(), Some(4));
    assert!(said(&unknown).contains("add this line there: NAME namespaces=\"gridgate-image\" ssh-ed25519"));
    assert!(!lab.host("b").image(&crate::lab::image("x")).exists());

    assert!(lab.run("a", &["image", "push", "x", &store, "--key", &ours]).status.success());
    let good = pull();
    assert!(good.status.success(), "{}", said(&good));
    assert!(said(&good).contains("signed by ops@example.org (SHA256:"), "{}", said(&good));
    lab.has("b", &disk());
}

#[test]
fn a_head_that_was_changed_after_it_was_signed_is_refused() {
    let lab = Lab::new();
    let (ours, public) = key(&lab, "ours");
    let store = lab.store().display().to_string();
    lab.image("a", "x", &disk(), 1);
    assert!(lab.run("a", &["image", "push", "x", &store, "--key", &ours]).status.success());
    let latest = lab.store().join("images/x/latest");
    let text = fs::read_to_string(&latest).unwrap();
    fs::write(&latest, text.replace("\"sequence\":1", "\"sequence\":2")).unwrap();
    fs::create_dir_all(lab.path("b")).unwrap();
    fs::write(lab.path("b/allowed_signers"), format!("ops@example.org {public}")).unwrap();
    let run = lab.run("b", &["image", "pull", "x", &store]);
    assert_eq!(run.status.code(), Some(4));
    assert!(said(&run).contains("what was signed has been changed since"), "{}", said(&run));
}

#[test]
fn another_image_under_the_name_is_refused() {
    let lab = Lab::new();
    lab.image("a", "y", &disk(), 1);
    let store = lab.store().display().to_string();
    assert!(lab.run("a", &["image", "push", "y", &store]).status.success());
    fs::rename(lab.store().join("images/y"), lab.store().join("images/x")).unwrap();
    let error = format!("{:#}", lab.try_pull("b", &[&store]).unwrap_err());
    assert!(error.contains("it is a version of image 'y'"), "{error}");
}

#[test]
fn an_index_that_was_changed_is_refused() {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 1);
    lab.push("a");
    for file in crate::lab::list(&lab.store().join("indexes")) {
        let path = lab.store().join("indexes").join(file);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let error = format!("{:#}", lab.try_pull("b", &[&lab.store().display().to_string()]).unwrap_err());
    assert!(error.contains("is not what the version's head says"), "{error}");
}

#[test]
fn an_image_of_this_host_is_signed_and_its_signature_travels_with_it() {
    let lab = Lab::new();
    let (ours, public) = key(&lab, "ours");
    lab.image("a", "x", &disk(), 1);
    let run = lab.run("a", &["--json", "image", "sign", "x", "--key", &ours]);
    assert!(run.status.success(), "{}", said(&run));
    assert!(String::from_utf8_lossy(&run.stdout).contains("\"changed\":true"));
    let run = lab.run("a", &["--json", "image", "sign", "x", "--key", &ours]);
    assert!(String::from_utf8_lossy(&run.stdout).contains("\"changed\":false"));
    // Nobody may sign there yet.
    assert_eq!(lab.run("a", &["image", "verify", "x"]).status.code(), Some(4));
    lab.push("a");
    lab.pull_from_store("b");
    for host in ["a", "b"] {
        fs::write(lab.path(host).join("allowed_signers"), format!("ops@example.org {public}")).unwrap();
        let run = lab.run(host, &["image", "verify", "x"]);
        assert!(run.status.success() && said(&run).contains("signed by ops@example.org"), "{}", said(&run));
    }
}

#[test]
fn what_is_no_archive_is_not_signed() {
    let lab = Lab::new();
    let (ours, _) = key(&lab, "ours");
    let file = lab.path("file.tar");
    fs::write(&file, "no archive").unwrap();
    let file = file.display().to_string();
    for words in
        [vec!["image", "sign", &file, "--key", &ours], vec!["image", "verify", &file, "--insecure-unsigned"]]
    {
        let run = lab.run("a", &words);
        assert_eq!(run.status.code(), Some(1));
        assert!(said(&run).contains("not an archive that gridgate has packed"), "{}", said(&run));
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "no archive");
}
