//! What a guest is to be started with.

use std::path::{Path, PathBuf};

use crate::backend::backend;
use crate::backend::spec::{Card, Engine, MOST_CARDS, Spec, VERSION};
use crate::config::interface::Interface;
use crate::config::limits::{Limit, overhead};
use crate::config::site::{BackendChoice, Guest, Site};
use crate::facts::engines::Engines;
use crate::facts::{Facts, GoodImage, ImageFacts};
use crate::paths::Paths;
use crate::plan::network::names;
use crate::plan::{Problem, order};

/// Settles everything that the site's files left open.
pub fn spec(paths: &Paths, site: &Site, guest: &Guest, facts: &Facts) -> Result<Spec, Problem> {
    let image = image(guest, facts)?;
    let network = site.network(&guest.network).ok_or_else(|| Problem {
        message: format!("guest '{}': there is no network '{}'", guest.name, guest.network),
        hint: None,
    })?;
    let port = names::port_name(&paths.id(), &guest.name, site.rehearsed());
    let tap = port.map_err(|why| Problem {
        message: format!("guest '{}': naming its network port: {why}", guest.name),
        hint: None,
    })?;
    let engine = engine(guest, &facts.engines, image)?;
    enough_memory(guest, &engine)?;
    Ok(Spec {
        version: VERSION,
        guest: guest.name.clone(),
        engine,
        memory_bytes: guest.memory_bytes,
        cpus: guest.cpus,
        disk: paths.disk(&guest.name),
        mac: guest.mac,
        address: guest.address,
        bridge: network.bridge.clone(),
        tap,
        further: further(paths, site, guest)?,
        netns: site.rehearsed().then(|| paths.netns()),
        kernel_args: guest.kernel_args.clone(),
        ready: guest.ready.clone(),
        ready_timeout_ms: guest.ready_timeout.as_millis() as u64,
        stop_timeout_ms: guest.stop_timeout.as_millis() as u64,
        console_log_bytes: guest.console_log_bytes,
        console_record: guest.console_record,
        admin_group: site.admin_group.clone(),
        waits_for: order::waits_for(guest).cloned().collect(),
        console_watch: guest.console_watch.clone(),
        supervision: guest.supervision.clone(),
        limits: guest.limits,
    })
}

/// The cards beside the first one; VLANs and bonds are the guest's own business.
fn further(paths: &Paths, site: &Site, guest: &Guest) -> Result<Vec<Card>, Problem> {
    let cards = guest.further_cards();
    if cards.len() >= MOST_CARDS {
        let message = format!("guest '{}': it has {} cards", guest.name, cards.len() + 1);
        return Err(Problem::with_hint(message, format!("gridgate plugs {MOST_CARDS} in at most")));
    }
    cards.into_iter().map(|nic| card(paths, site, guest, nic)).collect()
}

fn card(paths: &Paths, site: &Site, guest: &Guest, nic: &Interface) -> Result<Card, Problem> {
    let problem = |why: &str| Problem {
        message: format!("guest '{}': plugging card '{}' in: {why}", guest.name, nic.name),
        hint: None,
    };
    let Some(network) = nic.network.as_ref().and_then(|name| site.network(name)) else {
        let why = problem("its address is of no network of the site").message;
        let hint = "say which it is on (network = \"storage\"), or leave this guest out of those to bring up; \
                    'gridgate personalise --disk' writes all cards for a machine that runs elsewhere";
        return Err(Problem::with_hint(why, hint));
    };
    let tap = names::further_port_name(&paths.id(), &guest.name, &nic.name, site.rehearsed());
    let tap = tap.map_err(|why| problem(&format!("its port's name {why}")))?;
    let mac = nic.mac.ok_or_else(|| problem("it has no hardware address"))?;
    Ok(Card { name: nic.name.clone(), mac, bridge: network.bridge.clone(), tap })
}

/// Which backend `auto` becomes is only known here.
fn enough_memory(guest: &Guest, engine: &Engine) -> Result<(), Problem> {
    let name = backend(engine).name();
    match (guest.limits.memory_bytes, overhead(name)) {
        (Some(limit), Some(overhead)) if limit < guest.memory_bytes.0 + overhead => {
            let shown = |bytes: u64| Limit::Memory.show(bytes);
            let message = format!(
                "guest '{}': a limit of {} is too little for {} of memory and {engine}",
                guest.name,
                shown(limit),
                guest.memory_bytes
            );
            let least = shown(guest.memory_bytes.0 + overhead);
            Err(Problem::with_hint(
                message,
                format!("limits.memory = \"{least}\" is the least with backend '{name}'"),
            ))
        }
        _ => Ok(()),
    }
}

/// The image that the guest's disk is, or is to be, cloned from.
pub fn image<'f>(guest: &Guest, facts: &'f Facts) -> Result<&'f GoodImage, Problem> {
    match facts.images.get(&guest.image) {
        Some(ImageFacts::Good(image)) => Ok(image),
        Some(ImageFacts::Bad(why)) => Err(Problem { message: why.clone(), hint: None }),
        None => Err(Problem::with_hint(
            format!("guest '{}': image '{}' was not looked at", guest.name, guest.image),
            "this is a mistake in gridgate",
        )),
    }
}

fn engine(guest: &Guest, engines: &Engines, image: &GoodImage) -> Result<Engine, Problem> {
    let refused = |kind: &str, why: &str| {
        Problem::with_hint(
            format!("guest '{}': backend '{kind}' does not work here: {why}", guest.name),
            "look at: gridgate doctor",
        )
    };
    let qemu = |kvm: bool| -> Result<Engine, Problem> {
        engines.qemu.as_ref().map_err(|why| refused("qemu", why))?;
        let Some((kernel, initrd)) = image.kernel.clone() else {
            let message =
                format!("guest '{}': image '{}' has no kernel for QEMU to start", guest.name, guest.image);
            return Err(Problem::with_hint(
                message,
                "add a linux-image package to the image, or choose backend = \"uml\"",
            ));
        };
        Ok(Engine::Qemu { kvm, kernel, initrd })
    };
    let uml = || match &engines.uml {
        Ok(kernel) => Ok(Engine::Uml { kernel: PathBuf::from(kernel as &Path) }),
        Err(why) => Err(refused("uml", why)),
    };
    match guest.backend {
        BackendChoice::Qemu => qemu(engines.kvm),
        BackendChoice::Uml => uml(),
        BackendChoice::Nspawn => match &engines.nspawn {
            Ok(()) => Ok(Engine::Nspawn),
            Err(why) => Err(refused("nspawn", why)),
        },
        // User-mode Linux has one processor.
        BackendChoice::Auto if guest.cpus > 1 => qemu(engines.kvm),
        // Emulated QEMU needs three times the processor time of user-mode Linux for the same boot.
        BackendChoice::Auto if engines.kvm && image.kernel.is_some() => qemu(true).or_else(|_| uml()),
        BackendChoice::Auto => uml().or_else(|no_uml| {
            qemu(false).map_err(|no_qemu| Problem {
                message: format!("{}; {}", no_uml.message, no_qemu.message),
                hint: no_qemu.hint,
            })
        }),
    }
}
