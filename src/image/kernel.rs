//! Which of the kernels in `/boot` a guest is started with.

/// The newest kernel, and the initial ram disk that belongs to it, by their names in `/boot`; of Debian, the Red Hat family and
/// SUSE. Those that are only there to repair a system are left out.
pub fn newest(names: &[String]) -> Option<(&str, Option<&str>)> {
    let version = |name: &'_ String| name.strip_prefix("vmlinuz-").map(str::to_owned);
    let (_, kernel, version) = names
        .iter()
        .filter_map(|name| Some((name, version(name)?)))
        .filter(|(_, version)| !version.contains("rescue"))
        .map(|(name, version)| (version_key(&version), name, version))
        .max()?;
    let wanted = [
        format!("initrd.img-{version}"),
        format!("initramfs-{version}.img"),
        format!("initrd-{version}"),
        format!("initrd-{version}.img"),
    ];
    let initrd = wanted.iter().find_map(|wanted| names.iter().find(|name| *name == wanted));
    Some((kernel, initrd.map(String::as_str)))
}

/// Runs of digits compared as numbers: `6.1.0-10` comes after `6.1.0-9`.
pub(super) fn version_key(text: &str) -> Vec<(u64, String)> {
    let mut key = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, tail) = rest.split_at(word);
        let digits = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        key.push((0, text.to_owned()));
        key.push((tail[..digits].parse().unwrap_or(0), String::new()));
        rest = &tail[digits..];
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_kernel_with_a_higher_number_is_newer() {
        let found =
            names(&["vmlinuz-6.1.0-9-amd64", "vmlinuz-6.1.0-10-amd64", "vmlinuz-5.19-amd64", "config-7"]);
        assert_eq!(newest(&found), Some(("vmlinuz-6.1.0-10-amd64", None)));
    }

    #[test]
    fn a_kernel_has_the_initial_ram_disk_of_its_own_version() {
        for (kernel, initrd) in [
            ("vmlinuz-6.1.0-9-amd64", "initrd.img-6.1.0-9-amd64"),
            ("vmlinuz-5.14.0-1.el9.x86_64", "initramfs-5.14.0-1.el9.x86_64.img"),
            ("vmlinuz-6.4.0-default", "initrd-6.4.0-default"),
        ] {
            let found = names(&[initrd, kernel, "initrd.img-9", "vmlinuz-0-rescue-0123", "vmlinuz-9-rescue"]);
            assert_eq!(newest(&found), Some((kernel, Some(initrd))));
        }
        assert_eq!(newest(&names(&["initrd.img-9", "vmlinuz"])), None);
    }

    proptest! {
        #[test]
        fn any_name_is_a_kernel_or_none(name in "\\PC{0,40}") {
            version_key(&name);
            newest(&[name.clone(), format!("vmlinuz-{name}"), format!("initrd-{name}")]);
        }
    }
}
