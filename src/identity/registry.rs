//! Who has which identity on this box: no two machines may share anything of it.

use anyhow::{Result, bail};

use crate::host::Host;
use crate::identity::assigned::{self, Assigned};
use crate::identity::keys::{self, KeyType};
use crate::names::GuestName;
use crate::paths::Paths;

/// Every identity that is kept here, by the name of its machine.
pub fn all(host: &dyn Host, paths: &Paths) -> Result<Vec<(String, Assigned)>> {
    let mut found = Vec::new();
    for name in host.list(&paths.guests())? {
        let Ok(guest) = name.parse::<GuestName>() else { continue };
        if let Some(assigned) = assigned::load(host, paths, &guest)? {
            found.push((name, assigned));
        }
    }
    for name in host.list(&paths.identities())? {
        let Some(machine) = name.strip_suffix(".json") else { continue };
        if let Some(assigned) = assigned::load_machine(host, paths, machine)? {
            found.push((machine.to_owned(), assigned));
        }
    }
    Ok(found)
}

/// Refuses an identity of which another machine has any part: the error says which part, and who has it.
pub fn check(host: &dyn Host, paths: &Paths, machine: &str, wanted: &Assigned) -> Result<()> {
    for (other, has) in all(host, paths)? {
        if other == machine {
            continue;
        }
        if let Some(shared) = shared(wanted, &has)? {
            bail!(
                "'{machine}' and '{other}' would have the same {shared}\nhint: --new-identity gives '{machine}' one of its own"
            );
        }
    }
    Ok(())
}

fn shared(one: &Assigned, other: &Assigned) -> Result<Option<String>> {
    if one.machine_id == other.machine_id {
        return Ok(Some("machine-id".to_owned()));
    }
    if one.filesystem_uuid == other.filesystem_uuid {
        return Ok(Some("filesystem UUID".to_owned()));
    }
    for kind in KeyType::ALL {
        // By their public halves, without the comment: the same key can be written in several ways.
        let public = |key: &str| -> Result<String> {
            Ok(keys::fingerprint(&keys::public_line(key)?).unwrap_or_default())
        };
        if let (Some(one), Some(other)) = (one.host_key(kind), other.host_key(kind))
            && public(one)? == public(other)?
        {
            return Ok(Some(format!("{kind} host key")));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;

    #[test]
    fn two_machines_that_share_any_part_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let ce = Assigned::draw("ce").unwrap();
        assigned::store(&Live, &paths, &"ce".parse().unwrap(), &ce).unwrap();
        let refused = |change: &dyn Fn(&mut Assigned)| {
            let mut wn = Assigned::draw("wn").unwrap();
            change(&mut wn);
            check(&Live, &paths, "wn", &wn)
                .err()
                .map(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
        };
        assert_eq!(refused(&|_| ()), None);
        let told = |part: &str| Some(format!("'wn' and 'ce' would have the same {part}"));
        assert_eq!(refused(&|wn| wn.machine_id = ce.machine_id.clone()), told("machine-id"));
        assert_eq!(refused(&|wn| wn.filesystem_uuid = ce.filesystem_uuid), told("filesystem UUID"));
        assert_eq!(
            refused(&|wn| wn.host_key_ed25519 = ce.host_key_ed25519.clone()),
            told("ed25519 host key")
        );
        check(&Live, &paths, "ce", &ce).unwrap();
    }
}
