//! Which packages an image has, and the digests of the files that they came in.

use std::collections::HashMap;

use super::manifest::Package;

/// Packages from lines of `NAME\tVERSION`, as dpkg-query(1) prints them on request, with digests from what `apt-cache show`
/// tells of the same versions (deb822(5); several packages are parted by empty lines).
pub(super) fn with_digests(installed: &str, told: &str) -> Vec<Package> {
    let mut digests: HashMap<(&str, &str), &str> = HashMap::new();
    for stanza in told.split("\n\n") {
        let field = |name: &str| {
            let value =
                |line: &'_ str| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")).is_some();
            let line = stanza.lines().find(|line| value(line))?;
            Some(line[name.len() + 2..].trim())
        };
        if let (Some(package), Some(version), Some(sha256)) =
            (field("Package"), field("Version"), field("SHA256"))
        {
            digests.insert((package, version), sha256);
        }
    }
    let split = installed.lines().filter_map(|line| line.split_once('\t'));
    split
        .map(|(name, version)| Package {
            name: name.to_owned(),
            version: version.to_owned(),
            sha256: digests.get(&(name, version)).map(|digest| (*digest).to_owned()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_package_has_the_digest_of_its_own_version() {
        let told = "Package: a\nVersion: 1\nDescription: x\n SHA256: no\nSHA256: aa\n\nPackage: a\nVersion: 2\nSHA256: bb\n";
        let packages = with_digests("a\t2\nb\t1\n", told);
        assert_eq!(packages[0].sha256.as_deref(), Some("bb"));
        assert_eq!(packages[1].sha256, None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(installed in "[a\t\n1]{0,30}", told in "\\PC{0,80}") {
            with_digests(&installed, &told);
        }
    }
}
