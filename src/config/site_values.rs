//! What the site file says of the site itself.

use std::net::IpAddr;
use std::path::Path;

use super::checks;
use super::directory;
use super::explain::Explain;
use super::host_machine::{self, HostMachine};
use super::layers::Layers;
use super::origin::Origin;
use super::problem::Problems;
use super::site::Site;
use super::variables::{self, Variables};
use crate::names::SiteName;

/// Everything of the site but its networks and guests.
#[derive(Debug)]
pub struct SiteValues {
    /// Missing if it is not given or no name.
    pub name: Option<SiteName>,
    /// What it is.
    pub description: String,
    /// The domain of its guests.
    pub domain: String,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Time servers.
    pub ntp: Vec<String>,
    /// Lines of authorized_keys.
    pub admin_keys: Vec<String>,
    /// The group that may read consoles' logs.
    pub admin_group: Option<String>,
    /// What all guests' profiles are told.
    pub variables: Variables,
    /// The machine that runs the guests; missing if its name is none.
    pub host: Option<HostMachine>,
    /// Whether all networks are rehearsed.
    pub rehearsal: bool,
}

/// Reads them from the site file and what stands above it.
pub fn read(
    layers: &Layers<'_>,
    dir: &Path,
    start: &Origin,
    explain: &mut Explain,
    problems: &mut Problems,
) -> SiteValues {
    let pick = |key: &str| layers.pick(key).map(|e| &e.value);
    for key in [
        "name",
        "description",
        "domain",
        "dns",
        "ntp",
        "admin_keys",
        "admin_key_file",
        "admin_group",
        "guests",
        "rehearsal",
    ] {
        explain.layered("", key, layers);
    }
    let own = layers.inner("variables");
    variables::names(&own).iter().for_each(|name| explain.layered("variables.", name, &own));
    if pick("name").is_none() {
        let hint = if start.place.ends_with(".conf") { "SITE_NAME=my-site" } else { "name = \"my-site\"" };
        problems.add(start, "the site has no name", format!("for example: {hint}"));
    }
    let name: Option<SiteName> = pick("name").and_then(|v| v.text()?.parse().ok());
    let domain = match pick("domain").and_then(|v| v.text()) {
        Some(domain) => domain.to_owned(),
        None => {
            // `internal` is kept free for private networks by ICANN's resolution 2024.07.29.06.
            let domain = format!("{}.internal", name.as_ref().map_or("site", SiteName::as_str));
            explain.derived("", "domain", &format!("\"{domain}\""), "the site's name");
            domain
        }
    };
    let texts = |key: &str| pick(key).map(|v| v.texts()).unwrap_or_default();
    let mut admin_keys: Vec<String> =
        texts("admin_keys").into_iter().map(|(key, _)| key.to_owned()).collect();
    if let Some(file) = pick("admin_key_file")
        && let Some(path) = file.text().filter(|path| checks::path(path).is_ok())
    {
        admin_keys.extend(key_file(&dir.join(path), &file.origin, problems));
    }
    let host = name.as_ref().and_then(|name| {
        host_machine::read(&layers.inner("host"), name.as_str(), &domain, explain, problems)
    });
    SiteValues {
        host,
        description: pick("description").and_then(|v| v.text()).unwrap_or_default().to_owned(),
        domain,
        dns: texts("dns").into_iter().filter_map(|(address, _)| address.parse().ok()).collect(),
        ntp: texts("ntp").into_iter().map(|(server, _)| server.to_owned()).collect(),
        admin_keys,
        admin_group: pick("admin_group").and_then(|v| v.text()).map(str::to_owned),
        rehearsal: pick("rehearsal").and_then(|v| v.flag()).unwrap_or(false),
        variables: variables::read(&own),
        name,
    }
}

fn key_file(path: &Path, said: &Origin, problems: &mut Problems) -> Vec<String> {
    if path.symlink_metadata().is_err() {
        let hint = "it holds lines as in authorized_keys; the path starts at the site directory";
        problems.add(said, format!("there is no file '{}'", path.display()), hint);
        return Vec::new();
    }
    let Some(text) = directory::read(path, problems) else { return Vec::new() };
    let mut keys = Vec::new();
    let mut offset = 0;
    for line in text.content().split_inclusive('\n') {
        let key = line.trim();
        if !key.is_empty() && !key.starts_with('#') {
            match checks::admin_key(key) {
                Ok(()) => keys.push(key.to_owned()),
                Err(why) => {
                    // The line itself could be a secret that was put here by mistake.
                    problems.add(&text.origin(offset), format!("this line {why}"), "one public key a line");
                    break;
                }
            }
        }
        offset += line.len();
    }
    keys
}

impl SiteValues {
    /// The site, still without networks and guests.
    pub fn site(self, dir: &Path) -> Option<Site> {
        Some(Site {
            name: self.name?,
            description: self.description,
            domain: self.domain,
            dns: self.dns,
            ntp: self.ntp,
            admin_keys: self.admin_keys,
            admin_group: self.admin_group,
            variables: self.variables,
            host: self.host?,
            networks: Vec::new(),
            guests: Vec::new(),
            dir: dir.to_owned(),
        })
    }
}
