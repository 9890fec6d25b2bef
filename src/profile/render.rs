//! Templates, strictly: whatever is not known is an error with the template's own line.

use std::collections::BTreeMap;

use regex::Regex;
use serde::Serialize;
use tera::{Context, ErrorKind, Kwargs, State, Tera, Value};

use super::settled::Settled;
use super::source::Said;
use crate::config::origin::{Origin, Text};
use crate::config::problem::Problems;
use crate::config::site::{Guest, Site};
use crate::config::suggest;

/// A guest as templates see it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct GuestView {
    pub name: String,
    pub role: String,
    pub profile: String,
    pub description: String,
    pub fqdn: String,
    pub address: String,
    pub prefix: u8,
    pub netmask: String,
    pub gateway: String,
    pub mac: String,
    pub network: String,
    pub subnet: String,
    pub memory_mib: u64,
    pub cpus: u32,
    pub features: Vec<String>,
    pub vars: Settled,
}

impl GuestView {
    pub(super) fn of(site: &Site, guest: &Guest, features: Vec<String>, vars: Settled) -> Self {
        let subnet = site.network(&guest.network).map(|network| network.subnet);
        Self {
            name: guest.name.to_string(),
            role: guest.role.clone(),
            profile: guest.profile.clone(),
            description: guest.description.clone(),
            fqdn: guest.fqdn.clone(),
            address: guest.address.to_string(),
            prefix: guest.prefix,
            netmask: subnet.map(|subnet| subnet.netmask().to_string()).unwrap_or_default(),
            gateway: guest.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
            mac: guest.mac.to_string(),
            network: guest.network.to_string(),
            subnet: subnet.map(|subnet| subnet.to_string()).unwrap_or_default(),
            memory_mib: guest.memory_bytes.0 >> 20,
            cpus: guest.cpus,
            features,
            vars,
        }
    }
}

/// The site as templates see it.
#[derive(Debug, Serialize)]
struct SiteView {
    name: String,
    description: String,
    domain: String,
    dns: Vec<String>,
    ntp: Vec<String>,
}

/// What every template may name.
const KNOWN: [&str; 4] = ["site", "guest", "vars", "guests"];

/// All templates of a site, parsed.
#[derive(Debug)]
pub(super) struct Engine {
    tera: Tera,
    texts: BTreeMap<String, Text>,
    site: Context,
    own_variable: Regex,
}

impl Engine {
    /// Parses all templates; their guests are those of the site.
    pub(super) fn new(
        templates: Vec<(String, Text)>,
        site: &Site,
        views: &[GuestView],
        problems: &mut Problems,
    ) -> Self {
        let mut tera = Tera::new();
        // What is made here is configuration; nothing of it is HTML.
        tera.autoescape_on(Vec::<&str>::new());
        let seen: Vec<(GuestView, Value)> =
            views.iter().map(|view| (view.clone(), Value::from_serializable(view))).collect();
        let function = move |wanted: Kwargs, _: &State<'_>| -> tera::TeraResult<Value> {
            let (role, feature) = (wanted.get::<&str>("role")?, wanted.get::<&str>("feature")?);
            let fits = |view: &GuestView| {
                role.is_none_or(|role| view.role == role)
                    && feature.is_none_or(|feature| view.features.iter().any(|own| own == feature))
            };
            let found: Vec<Value> =
                seen.iter().filter(|(view, _)| fits(view)).map(|(_, value)| value.clone()).collect();
            Ok(Value::from(found))
        };
        tera.register_function("guests", function);
        tera.register_filter("quoted", quoted);
        let texts: BTreeMap<String, Text> = templates.into_iter().collect();
        let added = tera.add_raw_templates(texts.iter().map(|(name, text)| (name.as_str(), text.content())));
        #[expect(clippy::expect_used, reason = "the pattern is right here")]
        let own_variable = Regex::new(r"(?:^|[^.\w])vars\.(\w+)").expect("it is a good pattern");
        let mut engine = Self { tera, texts, site: site_context(site, views), own_variable };
        if let Err(error) = added {
            engine.tell(&error, &Origin::note("templates"), problems);
            engine.texts.clear();
        }
        engine
    }

    /// What one guest's templates see.
    pub(super) fn context(&self, view: &GuestView) -> Context {
        let mut context = self.site.clone();
        context.insert("guest", view);
        context.insert("vars", &view.vars);
        context
    }

    /// The text of a template.
    pub(super) fn template(
        &self,
        name: &Said,
        context: &Context,
        vars: &Settled,
        problems: &mut Problems,
    ) -> Option<String> {
        let Some(text) = self.texts.get(&name.text) else {
            // Once some template is no template, none can be used; that has been told.
            if !self.texts.is_empty() {
                let hint = suggest::hint(&name.text, self.texts.keys().map(String::as_str), "templates");
                let hint =
                    format!("{hint} (a new one is a file 'profiles/templates/{}' in the site)", name.text);
                problems.add(&name.origin, format!("there is no template '{}'", name.text), hint);
            }
            return None;
        };
        let named = self.tera.get_template_variables(&name.text).unwrap_or_default();
        if !self.names_what_is_known(text, named, vars, problems) {
            return None;
        }
        match self.tera.render(&name.text, context) {
            Ok(rendered) => Some(rendered),
            Err(error) => {
                self.tell(&error, &name.origin, problems);
                None
            }
        }
    }

    /// A text of a profile's file, its `{{ ... }}` filled in.
    pub(super) fn line(&self, said: &Said, context: &Context, problems: &mut Problems) -> Option<String> {
        if !said.text.contains("{{") && !said.text.contains("{%") {
            return Some(said.text.clone());
        }
        match self.tera.render_str(&said.text, context, false) {
            Ok(rendered) => Some(rendered),
            Err(error) => {
                problems.add(&said.origin, message(&error).0, HINT);
                None
            }
        }
    }

    /// A condition on something unknown would otherwise just be false.
    fn names_what_is_known(
        &self,
        text: &Text,
        named: std::collections::HashSet<&str>,
        vars: &Settled,
        problems: &mut Problems,
    ) -> bool {
        let mut good = true;
        for name in named.into_iter().filter(|name| !KNOWN.contains(name)) {
            let word = Regex::new(&format!(r"(?:^|[^.\w])({})(?:\W|$)", regex::escape(name)));
            let found = word.ok().and_then(|word| word.captures(text.content())?.get(1));
            let origin = text.origin(found.map_or(0, |found| found.start()));
            problems.add(&origin, format!("'{name}' is not known here"), HINT);
            good = false;
        }
        for found in self.own_variable.captures_iter(text.content()).filter_map(|found| found.get(1)) {
            if !vars.contains_key(found.as_str()) {
                let hint = suggest::hint(found.as_str(), vars.keys().map(String::as_str), "variables");
                let message = format!("there is no variable '{}'", found.as_str());
                problems.add(&text.origin(found.start()), message, hint);
                good = false;
            }
        }
        good
    }

    fn tell(&self, error: &tera::Error, named_at: &Origin, problems: &mut Problems) {
        let (message, report) = message(error);
        let origin = report.and_then(|(file, line, column)| {
            let text = self.texts.get(&file)?;
            Some(Origin { place: text.file().clone(), line, column })
        });
        problems.add(origin.as_ref().unwrap_or(named_at), message, HINT);
    }
}

const HINT: &str =
    "templates see site, guest, vars, guests and guests(role=\"wn\"); https://keats.github.io/tera";

/// What is wrong, and in which template's line and column.
fn message(error: &tera::Error) -> (String, Option<(String, u32, u32)>) {
    let (text, report) = match error.kind() {
        ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report) => {
            let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let (line, column) = (number(report.span().start_line), number(report.span().start_col));
            (report.message().to_owned(), Some((report.filename().to_owned(), line, column + 1)))
        }
        other => (other.to_string(), None),
    };
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let mut letters = line.chars();
    let lower = letters.next().map(|first| first.to_lowercase().chain(letters).collect::<String>());
    (lower.unwrap_or_default(), report)
}

fn site_context(site: &Site, views: &[GuestView]) -> Context {
    let view = SiteView {
        name: site.name.to_string(),
        description: site.description.clone(),
        domain: site.domain.clone(),
        dns: site.dns.iter().map(ToString::to_string).collect(),
        ntp: site.ntp.clone(),
    };
    let mut context = Context::new();
    context.insert("site", &view);
    context.insert("guests", views);
    context
}

/// A word of a shell, in single quotes.
fn quoted(text: &str, _: Kwargs, _: &State<'_>) -> String {
    shell_word(text)
}

/// A command as a line of a shell, whatever is in its words.
pub(super) fn shell_line(command: &[String]) -> String {
    command.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
}

/// A text as one word of a shell, whatever is in it.
pub(super) fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
