//! A site's profiles become its guests' documents.

use std::collections::BTreeMap;

use tera::Context;

use super::document::{
    CheckCommand, Compiler, Directory, Document, FORMAT, File, Group, Scrub, Services, Task, User,
};
use super::library::{Library, Listed};
use super::lineage::{Lineage, follow};
use super::render::{Engine, GuestView};
use super::settled::{self, settle};
use super::source::{self, Body, Said, Source};
use super::text;
use crate::config::origin::Origin;
use crate::config::problem::Problems;
use crate::config::shape::Check;
use crate::config::site::{Guest, Site};
use crate::config::variables::Setting;

/// Everything that a site's documents are made with, read once.
#[derive(Debug)]
pub struct Workshop<'s> {
    site: &'s Site,
    engine: Engine,
    prepared: Vec<Prepared>,
}

/// A guest's profile before anything is rendered, and what is wrong with it so far.
#[derive(Debug)]
struct Prepared {
    lineage: Lineage,
    view: GuestView,
    problems: Problems,
}

/// Far above any pool that a site has; a typing error should not cost minutes.
const LARGEST_POOL: i64 = 10_000;

impl<'s> Workshop<'s> {
    /// Reads the profiles of all guests of the site. What is wrong with one guest's is told when that is asked for; only
    /// what none can be made with is an error.
    pub fn open(site: &'s Site) -> Result<Self, Problems> {
        let library = Library::of(&site.dir);
        let mut prepared: Vec<Prepared> =
            site.guests.iter().map(|guest| prepare(&library, site, guest)).collect();
        unknown_variables(site, &mut prepared);
        let mut problems = Problems::default();
        let templates = library.templates(&mut problems);
        let views: Vec<GuestView> = prepared.iter().map(|prepared| prepared.view.clone()).collect();
        let engine = Engine::new(templates, site, &views, &mut problems);
        if !problems.is_empty() {
            return Err(problems.sorted());
        }
        Ok(Self { site, engine, prepared })
    }

    /// Packages that guests of these profiles want, whatever else their own files ask for: in order, each once.
    pub fn packages(site: &std::path::Path, profiles: &[String]) -> Result<Vec<String>, Problems> {
        let (library, mut problems) = (Library::of(site), Problems::default());
        let mut packages = Vec::new();
        for profile in profiles {
            let said = Said { text: profile.clone(), origin: Origin::note(format!("profile '{profile}'")) };
            let lineage = follow(&library, &said, &[], &mut problems);
            packages.extend(lineage.sources.into_iter().flat_map(|source| source.packages));
        }
        packages.sort();
        packages.dedup();
        if problems.is_empty() { Ok(packages) } else { Err(problems.sorted()) }
    }

    /// All profiles and features that guests of the site in this directory can have.
    pub fn list(site: &std::path::Path) -> Result<Vec<Listed>, Problems> {
        let mut problems = Problems::default();
        let listed = Library::of(site).list(&mut problems);
        if problems.is_empty() { Ok(listed) } else { Err(problems.sorted()) }
    }

    /// The guest's document, or all that is wrong with its profile.
    pub fn document(&self, guest: &Guest) -> Result<Document, Problems> {
        let at = self.site.guests.iter().position(|one| one.name == guest.name);
        let Some(prepared) = at.and_then(|at| self.prepared.get(at)) else {
            let mut problems = Problems::default();
            problems.add(&Origin::note("profile"), format!("the site has no guest '{}'", guest.name), "");
            return Err(problems);
        };
        let mut problems = prepared.problems.clone();
        let context = self.engine.context(&prepared.view);
        let bench = Bench { engine: &self.engine, view: &prepared.view, context, problems: &mut problems };
        let document = bench.document(self.site, guest, &prepared.lineage);
        if problems.is_empty() { Ok(document) } else { Err(problems.sorted()) }
    }
}

/// A guest whose profile could not be read whole is told of that alone.
fn unknown_variables(site: &Site, prepared: &mut [Prepared]) {
    let known: Vec<_> = prepared.iter().map(|one| one.view.vars.clone()).collect();
    for (guest, one) in site.guests.iter().zip(prepared).filter(|(_, one)| one.problems.is_empty()) {
        let meant = |name: &str, origin: &Origin| {
            let others = site.guests.iter().zip(&known);
            others.filter(|(_, vars)| vars.contains_key(name)).any(|(other, _)| {
                other.variables.get(name).is_some_and(|variable| variable.origin == *origin)
            })
        };
        settled::unknown(&one.view.vars, &guest.variables, &guest.profile, meant, &mut one.problems);
    }
}

fn prepare(library: &Library, site: &Site, guest: &Guest) -> Prepared {
    let mut problems = Problems::default();
    let origin = Origin::note(format!("guest '{}'", guest.name));
    let profile = Said { text: guest.profile.clone(), origin };
    let features: Vec<Said> = guest
        .features
        .iter()
        .map(|feature| Said { text: feature.name.clone(), origin: feature.origin.clone() })
        .collect();
    let lineage = follow(library, &profile, &features, &mut problems);
    let declared: Vec<_> = lineage.sources.iter().flat_map(|source| &source.variables).collect();
    // Where a file is missing, what it declares is missing, too.
    let whole = problems.is_empty();
    let mut ignored = Problems::default();
    let told = if whole { &mut problems } else { &mut ignored };
    let vars = settle(&declared, &guest.variables, &guest.profile, told);
    let names = lineage.names.iter().filter_map(|name| name.strip_prefix("feature "));
    let view = GuestView::of(site, guest, names.map(str::to_owned).collect(), vars);
    Prepared { lineage, view, problems }
}

/// Where one document is put together.
struct Bench<'a> {
    engine: &'a Engine,
    view: &'a GuestView,
    context: Context,
    problems: &'a mut Problems,
}

impl Bench<'_> {
    fn document(mut self, site: &Site, guest: &Guest, lineage: &Lineage) -> Document {
        let sources = &lineage.sources;
        let mut packages: Vec<String> = sources.iter().flat_map(|s| s.packages.clone()).collect();
        packages.sort();
        packages.dedup();
        let tasks = sources.iter().flat_map(|s| &s.tasks);
        let tasks = by_name(tasks, |task| task.name.clone());
        let absent = self.absent(sources);
        let checks = by_name(sources.iter().flat_map(|s| &s.checks), |check| check.name.clone());
        Document {
            format: FORMAT,
            site: site.name.to_string(),
            guest: guest.name.to_string(),
            fqdn: guest.fqdn.clone(),
            role: guest.role.clone(),
            profile: guest.profile.clone(),
            made_of: lineage.names.clone(),
            variables: self.view.vars.clone(),
            packages,
            groups: self.groups(sources),
            users: self.users(sources),
            directories: self.directories(sources),
            files: self.files(sources, &absent),
            absent,
            services: services(sources),
            tasks: tasks.into_iter().filter_map(|task| self.task(task)).collect(),
            scrub: self.scrub(sources),
            checks: checks
                .into_iter()
                .filter_map(|check| self.task(check))
                .map(|Task { name, about, command }| CheckCommand { name, about, command })
                .collect(),
            compiler: sources.iter().rev().find_map(|s| s.compiler.as_ref()).and_then(|c| self.compiler(c)),
        }
    }

    fn line(&mut self, said: &Said, check: Check) -> Option<String> {
        let rendered = self.engine.line(said, &self.context, self.problems)?;
        if let Err(why) = check(&rendered) {
            let message = format!("'{}', once rendered, {why}", rendered.escape_debug());
            self.problems.add(&said.origin, message, "");
            return None;
        }
        Some(rendered)
    }

    fn lines(&mut self, said: &[Said], check: Check) -> Vec<String> {
        said.iter().filter_map(|said| self.line(said, check)).collect()
    }

    fn groups(&mut self, sources: &[Source]) -> Vec<Group> {
        let all = by_name(sources.iter().flat_map(|s| &s.groups), |group| group.name.clone());
        let groups: Vec<Group> = all
            .into_iter()
            .map(|group| {
                let mut members = group.members.clone();
                members.sort();
                members.dedup();
                Group { name: group.name.clone(), gid: group.gid, members }
            })
            .collect();
        self.no_shared_id(groups.iter().map(|group| (group.gid, group.name.as_str())), "gid");
        groups
    }

    fn users(&mut self, sources: &[Source]) -> Vec<User> {
        let mut users = Vec::new();
        for user in by_name(sources.iter().flat_map(|s| &s.users), |user| user.name.clone()) {
            let Some(home) = self.line(&user.home, text::rendered_path) else { continue };
            let one = |name: String, uid: u32, home: String, pool: bool| User {
                name,
                uid,
                group: user.group.text.clone(),
                home,
                shell: user.shell.clone(),
                comment: user.comment.clone(),
                pool,
            };
            let Some(pool) = &user.pool else {
                users.push(one(user.name.clone(), user.uid, home, false));
                continue;
            };
            let size = match self.view.vars.get(&pool.text) {
                Some(Setting::Integer(size)) if (0..=LARGEST_POOL).contains(size) => *size,
                _ => {
                    let message = format!("pool '{}' is no variable with a number of accounts", pool.text);
                    self.problems.add(&pool.origin, message, format!("from 0 to {LARGEST_POOL}"));
                    continue;
                }
            };
            for number in 1..=u32::try_from(size).unwrap_or(0) {
                let name = format!("{}{number:03}", user.name);
                users.push(one(
                    name.clone(),
                    user.uid.saturating_add(number - 1),
                    format!("{home}/{name}"),
                    true,
                ));
            }
        }
        users.sort_by(|a, b| a.name.cmp(&b.name));
        self.no_shared_id(users.iter().map(|user| (user.uid, user.name.as_str())), "uid");
        users
    }

    fn no_shared_id<'n>(&mut self, ids: impl Iterator<Item = (u32, &'n str)>, noun: &str) {
        let mut seen: BTreeMap<u32, &str> = BTreeMap::new();
        for (id, name) in ids {
            if let Some(other) = seen.insert(id, name) {
                let origin = Origin::note(format!("profile '{}'", self.view.profile));
                let message = format!("'{other}' and '{name}' have the same {noun} {id}");
                self.problems.add(&origin, message, "give one of them another");
            }
        }
    }

    fn directories(&mut self, sources: &[Source]) -> Vec<Directory> {
        let mut found: BTreeMap<String, Directory> = BTreeMap::new();
        for directory in sources.iter().flat_map(|s| &s.directories) {
            let Some(path) = self.line(&directory.path, text::rendered_path) else { continue };
            let (mode, owner, group) =
                (directory.mode.clone(), directory.owner.clone(), directory.group.clone());
            found.insert(path.clone(), Directory { path, mode, owner, group });
        }
        found.into_values().collect()
    }

    fn files(&mut self, sources: &[Source], absent: &[String]) -> Vec<File> {
        // Only the file that wins is rendered: a site's own may do without what the shipped one needs.
        let mut winners: BTreeMap<String, &source::File> = BTreeMap::new();
        for file in sources.iter().flat_map(|s| &s.files) {
            if let Some(path) = self.line(&file.path, text::rendered_path)
                && !absent.contains(&path)
            {
                winners.insert(path, file);
            }
        }
        let mut files = Vec::new();
        for (path, file) in winners {
            let content = match &file.body {
                Body::Template(name) => {
                    self.engine.template(name, &self.context, &self.view.vars, self.problems)
                }
                Body::Content(said) => self.engine.line(said, &self.context, self.problems),
            };
            let Some(content) = content else { continue };
            let (mode, owner, group) = (file.mode.clone(), file.owner.clone(), file.group.clone());
            files.push(File { path, mode, owner, group, content });
        }
        files
    }

    /// A file that a stronger profile wants wins over a weaker one's wish that it be gone, and the other way round.
    fn absent(&mut self, sources: &[Source]) -> Vec<String> {
        let mut absent: BTreeMap<String, bool> = BTreeMap::new();
        for source in sources {
            absent
                .extend(self.lines(&source.absent, text::rendered_path).into_iter().map(|path| (path, true)));
            for file in &source.files {
                let path = self.engine.line(&file.path, &self.context, self.problems);
                absent.extend(path.map(|path| (path, false)));
            }
        }
        absent.into_iter().filter(|(_, gone)| *gone).map(|(path, _)| path).collect()
    }

    fn task(&mut self, task: &source::Task) -> Option<Task> {
        let about = self.line(&task.about, text::line)?;
        Some(Task { name: task.name.clone(), about, command: self.lines(&task.command, text::line) })
    }

    fn scrub(&mut self, sources: &[Source]) -> Vec<Scrub> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for scrub in sources.iter().flat_map(|s| &s.scrub) {
            let paths = self.lines(&scrub.paths, text::rendered_path);
            found.entry(scrub.class.clone()).or_default().extend(paths);
        }
        let sorted = |(class, mut paths): (String, Vec<String>)| {
            paths.sort();
            paths.dedup();
            Scrub { class, paths }
        };
        found.into_iter().map(sorted).collect()
    }

    fn compiler(&mut self, compiler: &source::Compiler) -> Option<Compiler> {
        Some(Compiler {
            command: self.lines(&compiler.command, text::line),
            writes: self.lines(&compiler.writes, text::rendered_path),
            network: compiler.network,
            memory_bytes: compiler.memory_bytes,
            time_ms: u64::try_from(compiler.time.as_millis()).unwrap_or(u64::MAX),
            processes: compiler.processes,
        })
    }
}

/// Each name once, as it was said last, sorted by name.
fn by_name<'a, T>(all: impl Iterator<Item = &'a T>, name: impl Fn(&T) -> String) -> Vec<&'a T> {
    all.map(|one| (name(one), one)).collect::<BTreeMap<_, _>>().into_values().collect()
}

/// What was said last about each unit.
fn services(sources: &[Source]) -> Services {
    let mut said: BTreeMap<&str, u8> = BTreeMap::new();
    for source in sources {
        for (number, units) in [&source.enable, &source.disable, &source.mask].into_iter().enumerate() {
            said.extend(units.iter().map(|unit| (unit.as_str(), number as u8)));
        }
    }
    let those = |wanted: u8| {
        said.iter().filter(|(_, how)| **how == wanted).map(|(unit, _)| (*unit).to_owned()).collect()
    };
    Services { enable: those(0), disable: those(1), mask: those(2) }
}
