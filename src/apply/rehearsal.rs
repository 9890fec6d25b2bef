//! Every failure point of `up` and `down`, taken in turn on a machine that is only modelled.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Result, bail};

use super::gate::Gate;
use super::{Machine, Outcome, apply};
use crate::config::site::{BackendChoice, NetworkMode, Site};
use crate::console::record::{ReadyState, RunRecord};
use crate::facts::{self, Facts, GoodImage, ImageFacts};
use crate::host::Host;
use crate::host::files::LockGuard;
use crate::host::model::{Model, State};
use crate::host::recorder::Recorder;
use crate::identity::edits::tests::site as example;
use crate::names::{GuestName, IfName};
use crate::paths::Paths;
use crate::plan::{Action, Plan, down, up};
use crate::progress::Progress;
use crate::service::ladder::{Rung, Stopped};
use crate::service::{Manager, Readiness};

/// Guests and holder of the modelled machine.
#[derive(Debug, Default)]
struct Services {
    running: Mutex<BTreeSet<GuestName>>,
    holder: Mutex<bool>,
}

struct Turn<'a> {
    recorder: &'a Recorder<'a>,
    services: &'a Services,
}

impl Manager for Turn<'_> {
    fn name(&self) -> &'static str {
        "model"
    }
    fn prepare(&self, _host: &dyn Host, _site: &Site) -> Result<()> {
        self.recorder.call("prepare", "")?;
        *self.services.holder.lock().unwrap() = true;
        Ok(())
    }
    fn start(&self, guest: &GuestName) -> Result<()> {
        self.recorder.call("start", guest.as_str())?;
        if !*self.services.holder.lock().unwrap()
            || !self.services.running.lock().unwrap().insert(guest.clone())
        {
            bail!("'{guest}' started without a holder, or twice");
        }
        Ok(())
    }
    fn stop(&self, guest: &GuestName, _progress: &mut dyn FnMut(&str)) -> Result<Stopped> {
        self.recorder.call("stop", guest.as_str())?;
        self.services.running.lock().unwrap().remove(guest);
        Ok(Stopped { rung: Rung::Asked, took_ms: 1 })
    }
    fn kill(&self, guest: &GuestName) -> Result<Stopped> {
        self.stop(guest, &mut |_| ())
    }
    fn await_ready(&self, guest: &GuestName, _limit: Duration) -> Result<Readiness> {
        self.recorder.call("await", guest.as_str())?;
        Ok(Readiness::Ready { after: Duration::from_secs(1) })
    }
    fn any_running(&self) -> bool {
        !self.services.running.lock().unwrap().is_empty()
    }
    fn retire(&self) -> Result<()> {
        self.recorder.call("retire", "")?;
        *self.services.holder.lock().unwrap() = false;
        Ok(())
    }
    fn agree(&self, _host: &dyn Host) -> Result<()> {
        self.recorder.call("agree", "")
    }
    fn boots_with_host(&self, _host: &dyn Host) -> Result<bool> {
        Ok(true)
    }
}

struct Stage {
    _scratch: tempfile::TempDir,
    model: Model,
    services: Services,
    paths: Paths,
    site: Site,
}

impl Stage {
    fn new(mode: NetworkMode) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut site = example();
        site.networks[0].mode = mode;
        site.guests[1].needs = vec![site.guests[0].name.clone()];
        for guest in &mut site.guests {
            guest.backend = BackendChoice::Uml;
        }
        let model = Model::new(scratch.path());
        if mode == NetworkMode::Bridge {
            let card: IfName = "card0".parse().unwrap();
            model.add_card(&card);
            site.networks[0].uplink = Some(card);
        }
        Self {
            model,
            _scratch: scratch,
            services: Services::default(),
            paths: Paths::new(Path::new("/site"), Path::new("/rehearsal/state")),
            site,
        }
    }

    fn facts(&self) -> Facts {
        let host: &dyn Host = &self.model;
        let mut guests = facts::guests::gather(host, &self.paths, &self.site).unwrap();
        for name in self.services.running.lock().unwrap().iter() {
            let guest = guests.get_mut(name).unwrap();
            guest.running = Some(RunRecord::of_this_process("uml", 0, None).unwrap());
            guest.ready = Some(ReadyState::Ready);
        }
        let image = GoodImage { disk: "/image/disk".into(), size_bytes: 1, allocated_bytes: 1, kernel: None };
        Facts {
            guests,
            images: [(self.site.guests[0].image.clone(), ImageFacts::Good(image))].into(),
            engines: facts::engines::Engines { uml: Ok("/usr/bin/linux.uml".into()), ..Default::default() },
            network: facts::network::gather(host, &self.paths).unwrap(),
            free_bytes: 1 << 40,
            memory_bytes: 1 << 40,
            holder: *self.services.holder.lock().unwrap(),
            run_dir: host.stat(&self.paths.run).unwrap().is_some(),
            known_hosts: host.stat(&self.paths.known_hosts()).unwrap().is_some(),
        }
    }

    fn plan_up(&self) -> Plan {
        up::plan(&self.paths, &self.site, &self.facts(), &[]).unwrap()
    }

    fn plan_down(&self) -> Plan {
        down::plan(&self.paths, &self.site, &self.facts(), &[], true).unwrap()
    }

    fn walk(&self, plan: &Plan, fail_at: Option<usize>) -> (Outcome, usize) {
        let recorder = Recorder::new(&self.model, fail_at);
        let manager = Turn { recorder: &recorder, services: &self.services };
        let progress = Progress::silent();
        let machine = Machine {
            host: &recorder,
            manager: &manager,
            paths: &self.paths,
            site: &self.site,
            progress: &progress,
            gate: &Gate::new(LockGuard::none(), || Ok(LockGuard::none())),
            workers: 1,
        };
        (apply(machine, plan), recorder.calls().len())
    }

    /// The machine without what is kept on purpose for the next time: drawn identities and what they are written to.
    fn bare(&self) -> State {
        let mut state = self.model.state();
        let kept =
            ["identity.json", "known_hosts", "site_ed25519", "site_ed25519.pub", "spec.json", "desired"];
        state.files.retain(|path, _| !kept.iter().any(|name| path.ends_with(name)));
        state.links.retain(|_, links| !links.is_empty());
        // Forwarding is the host's, and off and never set are the same.
        state.sysctl.retain(|_, value| value != "0");
        state
    }
}

const MODES: [NetworkMode; 4] =
    [NetworkMode::Rehearsal, NetworkMode::Isolated, NetworkMode::Nat, NetworkMode::Bridge];

#[test]
fn up_brings_all_guests_up_and_the_second_plan_is_empty() {
    for mode in MODES {
        let stage = Stage::new(mode);
        let (outcome, _) = stage.walk(&stage.plan_up(), None);
        assert!(outcome.is_good(), "{mode:?}: {:?}", outcome.failed);
        assert_eq!(stage.services.running.lock().unwrap().len(), 2);
        // The model runs no nft, so that its tables never show; all else must be settled.
        if mode != NetworkMode::Nat {
            assert_eq!(stage.plan_up(), Plan::default(), "{mode:?}");
        }
    }
}

#[test]
fn what_is_needed_is_ready_before_what_needs_it_starts() {
    let stage = Stage::new(NetworkMode::Rehearsal);
    let plan = stage.plan_up();
    let (outcome, _) = stage.walk(&plan, None);
    let position = |wanted: &dyn Fn(&Action) -> bool| {
        outcome.done.iter().position(|step| wanted(&plan.steps[*step].action)).unwrap()
    };
    let ready = position(&|action| matches!(action, Action::Ready { guest } if guest.as_str() == "ce"));
    let start = position(&|action| matches!(action, Action::Start { guest, .. } if guest.as_str() == "se"));
    assert!(ready < start);
}

#[test]
fn after_a_failure_at_any_call_of_up_all_is_undone_or_said_and_the_next_up_succeeds() {
    for mode in MODES {
        let (_, calls) = {
            let stage = Stage::new(mode);
            stage.walk(&stage.plan_up(), None)
        };
        assert!(calls > 20, "only {calls} calls were counted");
        for fail_at in 0..calls {
            let stage = Stage::new(mode);
            let before = stage.bare();
            let plan = stage.plan_up();
            let (outcome, _) = stage.walk(&plan, Some(fail_at));
            let label = format!("{mode:?}, call {fail_at}: {:?}", outcome.failed);
            if outcome.is_good() {
                // The call was one whose failure is survived on purpose.
                assert_eq!(stage.services.running.lock().unwrap().len(), 2, "{label}");
                continue;
            }
            assert!(crate::report::text::failure(&plan, &outcome).contains("rehearsed failure"), "{label}");
            if outcome.all_undone() {
                assert_eq!(stage.bare(), before, "{label}");
                assert!(stage.services.running.lock().unwrap().is_empty(), "{label}");
                assert!(!*stage.services.holder.lock().unwrap(), "{label}");
            }
            let (again, _) = stage.walk(&stage.plan_up(), None);
            assert!(again.is_good(), "{label}, then {:?}", again.failed);
            assert_eq!(stage.services.running.lock().unwrap().len(), 2, "{label}");
        }
    }
}

#[test]
fn after_a_failure_at_any_call_of_down_the_next_down_leaves_nothing() {
    for mode in MODES {
        let bare = Stage::new(mode).bare();
        let calls = {
            let stage = Stage::new(mode);
            stage.walk(&stage.plan_up(), None);
            stage.walk(&stage.plan_down(), None).1
        };
        for fail_at in 0..calls {
            let stage = Stage::new(mode);
            stage.walk(&stage.plan_up(), None);
            let (outcome, _) = stage.walk(&stage.plan_down(), Some(fail_at));
            let label = format!("{mode:?}, call {fail_at}: {:?}", outcome.failed);
            let (again, _) = stage.walk(&stage.plan_down(), None);
            assert!(again.is_good(), "{label}, then {:?}", again.failed);
            assert_eq!(stage.bare(), bare, "{label}");
            assert!(stage.services.running.lock().unwrap().is_empty(), "{label}");
            assert!(stage.plan_down().is_empty(), "{label}: {:?}", stage.plan_down());
        }
    }
}

#[test]
fn a_guest_is_stopped_before_the_one_that_it_needs() {
    let stage = Stage::new(NetworkMode::Rehearsal);
    stage.walk(&stage.plan_up(), None);
    let plan = stage.plan_down();
    let stops: Vec<&str> = plan
        .steps
        .iter()
        .filter(|step| matches!(step.action, Action::Stop { .. }))
        .filter_map(|step| step.action.guest())
        .map(GuestName::as_str)
        .collect();
    assert_eq!(stops, ["se", "ce"]);
}

#[test]
fn guests_that_would_not_find_room_for_their_memory_are_refused_together() {
    let stage = Stage::new(NetworkMode::Rehearsal);
    let facts = Facts { memory_bytes: 300 << 20, free_bytes: 0, ..stage.facts() };
    let problems = up::plan(&stage.paths, &stage.site, &facts, &[]).unwrap_err();
    let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert_eq!(messages[0], "the guests to start have 512M of memory in '/dev/shm', where 300M are free");
    assert!(messages[1].starts_with("the new disks take up to"), "{messages:?}");
    let one = [stage.site.guests[0].name.clone()];
    let facts = Facts { memory_bytes: 300 << 20, ..stage.facts() };
    assert!(up::plan(&stage.paths, &stage.site, &facts, &one).is_ok());
}
