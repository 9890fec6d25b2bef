//! Where a command is to run: `[user@]host[:port]`.

use std::fmt;
use std::str::FromStr;

use crate::names::BadName;

/// A box as ssh is told of it: a name of its configuration or of DNS, or an address; IPv6 with a port in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Who logs in; ssh's configuration decides if `None`.
    pub user: Option<String>,
    /// Host, without brackets.
    pub host: String,
    /// Port; ssh's configuration decides if `None`.
    pub port: Option<u16>,
}

impl FromStr for Address {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        // A user's name may have an '@' of its own, a host's may not.
        let (user, place) = match text.rsplit_once('@') {
            Some((user, place)) => (Some(name(user, "user")?), place),
            None => (None, text),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, after) =
                    rest.split_once(']').ok_or_else(|| BadName("a bracket is not closed".to_owned()))?;
                match (after, after.strip_prefix(':')) {
                    ("", _) => (host, None),
                    (_, Some(port)) => (host, Some(port)),
                    _ => return Err(BadName("only ':PORT' may follow a bracket".to_owned())),
                }
            }
            // More than one colon is an IPv6 address.
            None => match place.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                _ => (place, None),
            },
        };
        let port = port.map(|port| match port.parse::<u16>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(BadName(format!("'{port}' is no port"))),
        });
        Ok(Self { user, host: name(host, "host")?, port: port.transpose()? })
    }
}

/// What ssh takes for an option, or hands to a shell in `ProxyCommand` and the like, is no name.
fn name(text: &str, what: &str) -> Result<String, BadName> {
    let harmless = |c: char| !c.is_control() && !c.is_whitespace() && !"'\"`$\\;&|<>(){}[]*?!#".contains(c);
    match text {
        "" => Err(BadName(format!("the {what} is missing"))),
        _ if text.starts_with('-') => Err(BadName(format!("the {what} begins with '-'"))),
        _ if !text.chars().all(harmless) => {
            Err(BadName(format!("the {what} has characters that are not allowed")))
        }
        _ => Ok(text.to_owned()),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match (self.port, self.host.contains(':')) {
            (Some(port), true) => write!(f, "[{}]:{port}", self.host),
            (Some(port), false) => write!(f, "{}:{port}", self.host),
            (None, _) => f.write_str(&self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (Option<String>, String, Option<u16>) {
        let address: Address = text.parse().unwrap();
        (address.user, address.host, address.port)
    }

    #[test]
    fn an_address_has_a_user_a_host_and_a_port() {
        assert_eq!(read("gw"), (None, "gw".into(), None));
        assert_eq!(
            read("ann@gw.example.org:2222"),
            (Some("ann".into()), "gw.example.org".into(), Some(2222))
        );
        assert_eq!(read("ann@site@gw"), (Some("ann@site".into()), "gw".into(), None));
        assert_eq!(read("2001:db8::1"), (None, "2001:db8::1".into(), None));
        assert_eq!(read("ann@[fe80::1%eth0]:22"), (Some("ann".into()), "fe80::1%eth0".into(), Some(22)));
    }

    #[test]
    fn what_ssh_or_a_shell_could_take_for_more_is_refused() {
        for (text, why) in [
            ("", "the host is missing"),
            ("@gw", "the user is missing"),
            ("gw:", "'' is no port"),
            ("gw:0", "'0' is no port"),
            ("gw:65536", "'65536' is no port"),
            ("-oProxyCommand=x", "the host begins with '-'"),
            ("-l@gw", "the user begins with '-'"),
            ("gw;reboot", "the host has characters that are not allowed"),
            ("g w", "the host has characters that are not allowed"),
            ("[::1", "a bracket is not closed"),
            ("[::1]22", "only ':PORT' may follow a bracket"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap_err().0, why, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(text in "[@:\\[\\]a-z0-9.-]{0,20}|\\PC{0,20}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
            }
        }
    }
}
