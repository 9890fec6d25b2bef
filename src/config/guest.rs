//! Guests on their way: a file becomes one draft, or several that are counted up; a draft becomes a guest when
//! everything that it leaves open has been derived.

use std::net::IpAddr;
use std::time::Duration;

use super::checks;
use super::explain::Explain;
use super::interface::Interface;
use super::keys;
use super::layers::Layers;
use super::limits::{Limit, Limits};
use super::network::NamedNetwork;
use super::origin::Origin;
use super::overrides::Overrides;
use super::problem::Problems;
use super::provided::Provided;
use super::shape::Shape;
use super::shipped::Shipped;
use super::site::{Guest, Network, ReadyCheck};
use super::suggest;
use super::supervision::{self, RestartPolicy, RestartWhen, StopRung, StopStep, Supervision};
use super::templates::Templates;
use super::tree::Table;
use super::variables;
use crate::names::{GuestName, MacAddr};

/// A guest's file.
#[derive(Debug)]
pub struct GuestFile {
    /// Its name without the ending.
    pub stem: String,
    /// Its first character.
    pub start: Origin,
    /// What it says; `None` if it cannot be used, which has been told.
    pub table: Option<Table>,
}

/// A guest that is not complete yet.
#[derive(Debug)]
pub struct Draft<'a> {
    /// Its name.
    pub name: GuestName,
    /// The file that it is made from, without the ending.
    pub stem: &'a str,
    /// What it is for.
    pub role: String,
    /// What is said about it.
    pub layers: Layers<'a>,
    /// The place of its network among the site's.
    pub network: Option<usize>,
    /// Its address, once said or derived.
    pub address: Option<IpAddr>,
    /// Its hardware address, once said or derived.
    pub mac: Option<MacAddr>,
    /// All its interfaces, once read.
    pub interfaces: Vec<Interface>,
    /// Domains that names are completed with.
    pub search: Vec<String>,
    /// Keys and certificates that the site has for it, once read.
    pub provided: Vec<Provided>,
    /// Its place in a group that is counted up, from 1.
    pub number: Option<i64>,
    /// What the command line sets for it alone.
    single: Option<&'a Table>,
    /// Whom it waits for.
    pub after: Vec<GuestName>,
    /// Whom it waits for and pulls in.
    pub needs: Vec<GuestName>,
    /// Its first label and domain.
    pub fqdn: String,
    /// The layers of its profile's variables.
    variables: Layers<'a>,
    start: &'a Origin,
}

/// What all drafts are made with.
#[derive(Debug)]
pub struct Workshop<'w, 'a> {
    /// Shipped defaults and roles.
    pub shipped: &'a Shipped,
    /// The site's `[defaults]`, from file and command line.
    pub defaults: &'w Layers<'a>,
    /// The templates.
    pub templates: &'a Templates,
    /// The command line.
    pub overrides: &'a Overrides,
    /// The networks.
    pub networks: &'w [NamedNetwork],
    /// The site's domain.
    pub domain: &'w str,
    /// The site's `[variables]`.
    pub variables: &'w Layers<'a>,
}

impl<'a> Workshop<'_, 'a> {
    /// The drafts of a file: one, or as many as `count` says.
    pub fn drafts(
        &self,
        file: &'a GuestFile,
        explain: &mut Explain,
        problems: &mut Problems,
    ) -> Vec<Draft<'a>> {
        let Some(table) = &file.table else { return Vec::new() };
        let own: Vec<&'a Table> =
            [Some(table), self.overrides.guest(&file.stem)].into_iter().flatten().collect();
        let extends = Layers(own.clone()).pick("extends");
        let mut upper: Vec<&'a Table> = self.templates.chain(extends, problems);
        upper.extend(own);
        let named = Layers(self.defaults.0.iter().chain(&upper).copied().collect());
        let role = named.pick("role").and_then(|e| e.value.text()).unwrap_or(&file.stem).to_owned();
        let mut layers = vec![&self.shipped.defaults];
        layers.extend(&self.defaults.0);
        layers.extend(self.shipped.role(&role));
        layers.extend(upper);
        let layers = Layers(layers);
        let count = layers.pick("count").and_then(|e| e.value.integer().map(|n| (n, &e.value.origin)));
        let Some((count, origin)) = count else {
            let draft = self.draft(file, &file.stem, &file.start, None, &layers, &role, explain, problems);
            return draft.into_iter().collect();
        };
        let numbers = 1..=count.clamp(0, 1000);
        let draft = |number: i64| {
            let name = format!("{}{number}", file.stem);
            let mut layers = layers.clone();
            layers.0.extend(self.overrides.guest(&name));
            self.draft(file, &name, origin, Some(number), &layers, &role, explain, problems)
        };
        numbers.filter_map(draft).collect()
    }

    #[expect(clippy::too_many_arguments, reason = "one caller, and each is a different thing")]
    fn draft(
        &self,
        file: &'a GuestFile,
        name: &str,
        origin: &Origin,
        number: Option<i64>,
        layers: &Layers<'a>,
        role: &str,
        explain: &mut Explain,
        problems: &mut Problems,
    ) -> Option<Draft<'a>> {
        let name: GuestName = match name.parse() {
            Ok(name) => name,
            Err(why) => {
                let message = format!("guest name '{}' {why}", super::shape::shown(name));
                problems.add(origin, message, "a guest is called as its file");
                return None;
            }
        };
        let scope = format!("{name}.");
        for key in keys::GUEST {
            match key.shape {
                Shape::Free(_) => {
                    let scope = format!("{scope}{}.", key.name);
                    let layers = variables::layers(self.variables, layers);
                    variables::names(&layers).iter().for_each(|name| explain.layered(&scope, name, &layers));
                }
                Shape::Keys(inner) => {
                    let (scope, layers) = (format!("{scope}{}.", key.name), layers.inner(key.name));
                    inner.iter().for_each(|key| explain.layered(&scope, key.name, &layers));
                }
                Shape::Named(_, inner) => explain_named(explain, &scope, key.name, inner, layers),
                _ => explain.layered(&scope, key.name, layers),
            }
        }
        if layers.pick("role").is_none() {
            explain.derived(&scope, "role", &format!("{role:?}"), "the file's name");
        }
        let single = self.overrides.guest(name.as_str());
        let mut draft = Draft {
            name,
            stem: &file.stem,
            role: role.to_owned(),
            layers: layers.clone(),
            network: None,
            address: None,
            mac: None,
            interfaces: Vec::new(),
            search: self.search(layers),
            provided: Vec::new(),
            number,
            single,
            after: Vec::new(),
            needs: Vec::new(),
            fqdn: String::new(),
            variables: variables::layers(self.variables, layers),
            start: &file.start,
        };
        draft.network = self.network(&draft, explain, problems);
        if let Some((address, _)) =
            layers.pick("address").and_then(|e| checks::split_address(e.value.text()?))
        {
            draft.address = plus(address, draft.step("address").unwrap_or(1) - 1);
            if draft.address.is_none() {
                let message = format!("counting up from {address} leaves the address space");
                problems.add(draft.place("address"), message, "start lower");
            } else if draft.step("address").is_some() {
                let counted = draft.address.map(|a| format!("\"{a}\"")).unwrap_or_default();
                explain.derived(
                    &scope,
                    "address",
                    &counted,
                    &format!("{}, counting up", draft.place("address")),
                );
            }
        }
        if let Some(mac) = layers.pick("mac").and_then(|e| e.value.text()?.parse::<MacAddr>().ok()) {
            draft.mac = counted_mac(mac, draft.step("mac").unwrap_or(1) - 1);
            if draft.mac.is_none() {
                problems.add(
                    draft.place("mac"),
                    format!("counting up from {mac} leaves its last three bytes"),
                    "",
                );
            } else if draft.step("mac").is_some() {
                let counted = draft.mac.map(|a| format!("\"{a}\"")).unwrap_or_default();
                explain.derived(&scope, "mac", &counted, &format!("{}, counting up", draft.place("mac")));
            }
        }
        draft.fqdn = self.fqdn(&draft, draft.step("hostname"), explain, problems);
        Some(draft)
    }

    fn search(&self, layers: &Layers<'_>) -> Vec<String> {
        let own = || Some(self.domain.to_owned()).into_iter().filter(|domain| !domain.is_empty()).collect();
        let said = layers.pick("search").map(|entry| entry.value.texts());
        said.map_or_else(own, |said| said.into_iter().map(|(text, _)| text.to_owned()).collect())
    }

    fn network(&self, draft: &Draft<'_>, explain: &mut Explain, problems: &mut Problems) -> Option<usize> {
        if let Some(entry) = draft.layers.pick("network") {
            let name = entry.value.text()?;
            let found = self.networks.iter().position(|n| n.name.as_str() == name);
            if found.is_none() && checks::label(name).is_ok() {
                let names = self.networks.iter().map(|n| n.name.as_str());
                let hint = suggest::hint(name, names, "networks of the site");
                problems.add(draft.place("network"), format!("unknown network '{name}'"), hint);
            }
            return found;
        }
        match self.networks {
            [] => None,
            [only] => {
                let value = format!("\"{}\"", only.name);
                explain.derived(&format!("{}.", draft.name), "network", &value, "the site's only network");
                Some(0)
            }
            several => {
                let names: Vec<&str> = several.iter().map(|n| n.name.as_str()).collect();
                let hint = format!("networks of the site: {}", names.join(", "));
                problems.add(
                    draft.start,
                    format!("guest '{}' must say which network it is on", draft.stem),
                    hint,
                );
                None
            }
        }
    }

    fn fqdn(
        &self,
        draft: &Draft<'_>,
        step: Option<i64>,
        explain: &mut Explain,
        problems: &mut Problems,
    ) -> String {
        let said = draft.layers.pick("hostname").and_then(|e| e.value.text());
        let said = said.map(|name| match (step, name.split_once('.')) {
            (Some(number), Some((label, domain))) => format!("{label}{number}.{domain}"),
            (Some(number), None) => format!("{name}{number}"),
            (None, _) => name.to_owned(),
        });
        let host = said.as_deref().unwrap_or(draft.name.as_str());
        let fqdn = if host.contains('.') { host.to_owned() } else { format!("{host}.{}", self.domain) };
        if said.as_deref() != Some(&fqdn) {
            let from = if said.is_some() {
                "its host name and the site's domain"
            } else {
                "its name and the site's domain"
            };
            explain.derived(&format!("{}.", draft.name), "fqdn", &format!("\"{fqdn}\""), from);
        }
        if fqdn.len() > 64 {
            let message =
                format!("the full name '{fqdn}' is longer than the 64 characters that Linux allows");
            problems.add(draft.place("hostname"), message, "choose a shorter hostname or domain");
        }
        fqdn
    }
}

impl Draft<'_> {
    /// The guest's place in its group where the key counts up: what stands for the whole group does, what `--set` says of
    /// one of them does not.
    pub fn step(&self, key: &str) -> Option<i64> {
        let entry = self.layers.pick(key)?;
        let own = self.single.and_then(|table| table.get(key));
        self.number.filter(|_| !own.is_some_and(|own| std::ptr::eq(own, entry)))
    }

    /// Where to point to when a value is wrong: at the value, or at the file if the value is not the site's own.
    pub fn place(&self, key: &str) -> &Origin {
        match self.layers.pick(key).map(|e| &e.value.origin) {
            Some(origin) if origin.is_sites_own() => origin,
            _ => self.start,
        }
    }

    /// The guest's file.
    pub fn start(&self) -> &Origin {
        self.start
    }

    /// The text of a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.layers.pick(key)?.value.text()
    }

    /// The guest's own default gateway, if it has one.
    pub fn own_gateway(&self) -> Option<IpAddr> {
        self.text("gateway")?.parse().ok()
    }

    /// What it may use of the host; a value that is none has been told of.
    pub fn limits(&self) -> Limits {
        let (layers, mut limits) = (self.layers.inner("limits"), Limits::default());
        for limit in Limit::ALL {
            let said = layers.pick(limit.name()).and_then(|entry| entry.value.amount());
            limits.set(limit, said.and_then(|text| limit.parse(&text).ok().flatten()));
        }
        limits
    }

    /// The guest, if nothing is missing; then something has been told before.
    pub fn finish(self, networks: &[NamedNetwork]) -> Option<Guest> {
        let network: &Network = networks.get(self.network?)?.network.as_ref()?;
        let pick = |key: &str| self.layers.pick(key).map(|entry| &entry.value);
        let ready = pick("ready")?.texts().into_iter().map(|(text, _)| checks::parse_ready(text).ok());
        let ready_command = self.text("ready_command").map(|line| Some(ReadyCheck::Command(line.to_owned())));
        let stop_timeout = pick("stop_timeout")?.span()?;
        Some(Guest {
            role: self.role.clone(),
            description: self.text("description").unwrap_or_default().to_owned(),
            backend: checks::parse_backend(self.text("backend")?)?,
            image: self.text("image")?.parse().ok()?,
            profile: self.text("profile")?.to_owned(),
            memory_bytes: pick("memory")?.size()?,
            cpus: u32::try_from(pick("cpus")?.integer()?).ok()?,
            disk_bytes: pick("disk")?.size()?,
            network: network.name.clone(),
            address: self.address?,
            prefix: network.subnet.prefix_len(),
            gateway: self.own_gateway().or(network.gateway),
            mac: self.mac?,
            interfaces: self.interfaces.clone(),
            search: self.search.clone(),
            ready: ready.chain(ready_command).collect::<Option<Vec<_>>>()?,
            ready_timeout: pick("ready_timeout")?.span()?,
            stop_timeout,
            supervision: self.supervision(stop_timeout)?,
            limits: self.limits(),
            provided: self.provided.clone(),
            variables: variables::read(&self.variables),
            features: variables::features(&self.layers),
            autostart: pick("autostart")?.flag()?,
            console_log_bytes: pick("console_log")?.size()?,
            console_record: pick("console_record")?.flag()?,
            console_watch: pick("console_watch")
                .map(|said| said.texts().into_iter().map(|(text, _)| text.to_owned()).collect())
                .unwrap_or_default(),
            kernel_args: self.text("kernel_args").unwrap_or_default().to_owned(),
            name: self.name,
            fqdn: self.fqdn,
            after: self.after,
            needs: self.needs,
        })
    }
}

impl Draft<'_> {
    fn supervision(&self, stop_timeout: Duration) -> Option<Supervision> {
        let pick = |key: &str| self.layers.pick(key).map(|entry| &entry.value);
        let mut stop = match pick("stop") {
            Some(said) => {
                let step = |(text, _)| supervision::parse_stop(text, stop_timeout).ok();
                said.texts().into_iter().map(step).collect::<Option<Vec<_>>>()?
            }
            None => supervision::default_stop(stop_timeout),
        };
        if let Some(line) = self.text("stop_command") {
            stop.insert(0, StopStep { rung: StopRung::Command(line.to_owned()), limit: stop_timeout });
        }
        // Nothing else ends a guest that hangs.
        if stop.last().is_none_or(|step| step.rung != StopRung::Kill) {
            stop.push(StopStep { rung: StopRung::Kill, limit: Duration::ZERO });
        }
        Some(Supervision {
            priority: u32::try_from(pick("priority")?.integer()?).ok()?,
            delay: match pick("delay") {
                Some(delay) => delay.span()?,
                None => Duration::ZERO,
            },
            stop,
            restart: RestartPolicy {
                when: RestartWhen::parse(self.text("restart")?)?,
                delay: pick("restart_delay")?.span()?,
                max_delay: pick("restart_max_delay")?.span()?,
                settle: pick("restart_settle")?.span()?,
                tries: u32::try_from(pick("restart_tries")?.integer()?).ok()?,
            },
        })
    }
}

fn explain_named(
    explain: &mut Explain,
    scope: &str,
    table: &str,
    keys: &'static [keys::Key],
    layers: &Layers<'_>,
) {
    let layers = layers.inner(table);
    for name in layers.names() {
        let (scope, layers) = (format!("{scope}{table}.{name}."), layers.inner(name));
        keys.iter().for_each(|key| explain.layered(&scope, key.name, &layers));
    }
}

/// The address so many further on.
pub fn plus(address: IpAddr, steps: i64) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            v4.to_bits().checked_add(u32::try_from(steps).ok()?).map(|bits| IpAddr::V4(bits.into()))
        }
        IpAddr::V6(v6) => {
            v6.to_bits().checked_add(u128::try_from(steps).ok()?).map(|bits| IpAddr::V6(bits.into()))
        }
    }
}

/// The hardware address so many further on; the maker's first three bytes stay.
pub fn counted_mac(MacAddr([a, b, c, d, e, f]): MacAddr, steps: i64) -> Option<MacAddr> {
    let low = u32::from_be_bytes([0, d, e, f]).checked_add(u32::try_from(steps).ok()?)?;
    let [over, d, e, f] = low.to_be_bytes();
    (over == 0).then_some(MacAddr([a, b, c, d, e, f]))
}
