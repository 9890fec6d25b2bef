//! What a machine calls itself, in every file that says so.

use std::fmt::Write;

use anyhow::Result;

use crate::host::tree::Tree;
use crate::identity::edit::Edit;
use crate::identity::found::{Found, text};
use crate::identity::wanted::Identity;
use crate::identity::words;

/// Edits for all names. Files that a machine need not have are changed where they are and never made.
pub fn edits(identity: &Identity, found: &Found, tree: &dyn Tree) -> Result<Vec<Edit>> {
    let mut edits = vec![
        Edit::text("/etc/hostname", format!("{}\n", identity.hostname)),
        Edit::text("/etc/hosts", hosts(identity)),
    ];
    // SUSE's, with the domain (sysconfig's boot.localnet); where it links to /etc/hostname that one counts.
    if is_file(tree, "/etc/HOSTNAME")? {
        edits.push(Edit::text("/etc/HOSTNAME", format!("{}\n", identity.fqdn)));
    }
    if is_file(tree, "/etc/mailname")? {
        edits.push(Edit::text("/etc/mailname", format!("{}\n", identity.fqdn)));
    }
    if let Some(info) = text(tree, "/etc/machine-info")? {
        edits.push(Edit::text("/etc/machine-info", machine_info(&info)));
    }
    for (path, rename) in [
        ("/etc/postfix/main.cf", postfix as fn(&str, &Identity, &Found) -> String),
        ("/etc/exim4/update-exim4.conf.conf", renamed),
        ("/etc/issue", renamed),
        ("/etc/issue.net", renamed),
        ("/etc/motd", renamed),
    ] {
        if let Some(now) = text(tree, path)? {
            let then = rename(&now, identity, found);
            if then != now {
                edits.push(Edit::text(path, then));
            }
        }
    }
    Ok(edits)
}

fn is_file(tree: &dyn Tree, path: &str) -> Result<bool> {
    use crate::host::root::Entry;
    Ok(matches!(tree.entry(std::path::Path::new(path))?, Some(Entry::File { .. })))
}

/// hosts(5): loopback, then the machine itself and whom it knows.
pub fn hosts(identity: &Identity) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for line in &identity.hosts {
        let _ = writeln!(text, "{}\t{}", line.address, line.names.join(" "));
    }
    text
}

/// Without what machine-info(5) says of one machine alone: how people call it and where it stands. What kind of thing it is
/// (`CHASSIS`, `DEPLOYMENT`, ...) is as true of a copy.
fn machine_info(now: &str) -> String {
    let own = ["PRETTY_HOSTNAME", "LOCATION", "ASSET_TAG", "HARDWARE_SERIAL"];
    let of_one = |line: &&str| {
        let key = line.split('=').next().unwrap_or_default().trim();
        !own.contains(&key)
    };
    now.lines().filter(of_one).fold(String::new(), |text, line| text + line + "\n")
}

/// postconf(5): the names that mail is for and comes from. A setting that goes by the host's name needs nothing.
fn postfix(now: &str, identity: &Identity, found: &Found) -> String {
    let mut then = String::new();
    for line in renamed(now, identity, found).lines() {
        let value = |key: &str| line.strip_prefix(key)?.trim_start().strip_prefix('=').map(str::trim);
        match (value("myhostname"), value("mydomain")) {
            (Some(said), _) if !said.contains('$') => {
                let _ = writeln!(then, "myhostname = {}", identity.fqdn);
            }
            (_, Some(said)) if !said.contains('$') && !identity.domain.is_empty() => {
                let _ = writeln!(then, "mydomain = {}", identity.domain);
            }
            _ => {
                let _ = writeln!(then, "{line}");
            }
        }
    }
    then
}

/// The old names, where they stand as words of their own, become the new ones.
fn renamed(now: &str, identity: &Identity, found: &Found) -> String {
    let mut then = now.to_owned();
    let names = [(&found.fqdn, &identity.fqdn), (&found.hostname, &identity.hostname)];
    for (old, new) in names {
        if let Some(old) = old.as_deref().filter(|old| words::is_telling(old)) {
            then = words::replace(&then, old, new);
        }
    }
    then
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Root;
    use crate::identity::edits::tests::identity;
    use std::path::Path;

    fn written(files: &[(&str, &str)], path: &str) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        let found = Found::look(&root).unwrap();
        edits(&identity(0), &found, &root).unwrap().into_iter().find_map(|edit| match edit {
            Edit::Write { path: at, content, .. } if at == Path::new(path) => {
                Some(String::from_utf8(content).unwrap())
            }
            _ => None,
        })
    }

    const OLD: (&str, &str) = ("etc/hostname", "golden7\n");

    #[test]
    fn a_mail_server_gets_the_new_name_and_keeps_what_goes_by_it() {
        let main = "myhostname = golden7.old.org\nmydestination = $myhostname, golden7, localhost\n";
        let hosts = ("etc/hosts", "192.0.2.7 golden7.old.org golden7\n");
        let text = written(&[OLD, hosts, ("etc/postfix/main.cf", main)], "/etc/postfix/main.cf");
        let expected = "myhostname = ce.example.org\nmydestination = $myhostname, ce, localhost\n";
        assert_eq!(text.as_deref(), Some(expected));
    }

    #[test]
    fn a_mail_server_that_goes_by_the_hosts_name_is_left_alone() {
        let main = ("etc/postfix/main.cf", "myhostname = $something\n");
        assert_eq!(written(&[OLD, main], "/etc/postfix/main.cf"), None);
    }

    #[test]
    fn what_greets_people_tells_the_new_name() {
        let text = written(&[OLD, ("etc/issue", "This is golden7, not golden71\n")], "/etc/issue");
        assert_eq!(text.as_deref(), Some("This is ce, not golden71\n"));
    }

    #[test]
    fn what_a_machine_is_stays_and_how_people_called_it_goes() {
        let info = ("etc/machine-info", "PRETTY_HOSTNAME=\"Old One\"\nCHASSIS=vm\n");
        assert_eq!(written(&[info], "/etc/machine-info").as_deref(), Some("CHASSIS=vm\n"));
    }

    #[test]
    fn a_mail_name_is_changed_where_there_is_one_and_never_made() {
        assert_eq!(written(&[OLD], "/etc/mailname"), None);
        let text = written(&[("etc/mailname", "x\n")], "/etc/mailname");
        assert_eq!(text.as_deref(), Some("ce.example.org\n"));
    }
}
