//! `gridgate site replicate`: a second machine that could take over.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use super::backup::{self, taken_and_sent};
use crate::backup::take::Request;
use crate::chunks::place;
use crate::cli::{Context, Ending, Exit, print_json};
use crate::host::refused::Refused;
use crate::remote::{self, Address, Order, Wants};

/// Keep a standby machine current, over ssh
///
/// A backup of the whole site goes into a store of the standby's, only what is new of it over the line, and becomes the standby's
/// site and state there. Its guests stay stopped. When this machine has died, `gridgate up` on the standby takes over.
#[derive(Debug, clap::Args)]
pub struct ReplicateArgs {
    /// The standby, where gridgate of this version is, and root logs in: [USER@]HOST[:PORT]
    #[arg(long, value_name = "STANDBY")]
    pub to: Address,
    /// Sign with this SSH key; the standby then takes only what is signed by somebody in its allowed_signers
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The standby's site directory [default: as here]
    #[arg(long, value_name = "DIR")]
    pub standby_site: Option<PathBuf>,
    /// The standby's state directory [default: as here]
    #[arg(long, value_name = "DIR")]
    pub standby_state: Option<PathBuf>,
    /// The standby's store [default: 'standby' in its state directory]
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Where the filesystem cannot share blocks: hold each guest for as long as its disk is copied
    #[arg(long)]
    pub allow_long_pause: bool,
}

/// Runs the command.
pub fn run(args: &ReplicateArgs, context: &Context) -> Result<Exit> {
    context.need_root("backing guests up")?;
    crate::progress::catch_interrupts()?;
    let absolute = |path: &Path| match path.is_absolute() {
        true => Ok(path.to_owned()),
        false => {
            let what = format!("'{}' is to be a whole path, of the standby's", path.display());
            Err(Ending::error(Exit::Usage, what))
        }
    };
    let site = absolute(args.standby_site.as_ref().unwrap_or(&context.paths.site))?;
    let state = absolute(args.standby_state.as_ref().unwrap_or(&context.paths.state))?;
    let store = args.store.as_ref().map_or_else(|| Ok(state.join("standby")), |store| absolute(store))?;
    let shelf = place::open_to_write(&format!("ssh://{}{}", args.to, store.display()))?;
    let request = Request { guests: Vec::new(), long_pause: args.allow_long_pause };
    let (taken, pushed) = taken_and_sent(context, &request, &*shelf, args.key.as_deref(), false)?;
    let mut words: Vec<OsString> = vec!["--site".into(), site.into(), "--state".into(), state.into()];
    words.extend(["site", "restore"].map(OsString::from));
    words.push(store.into());
    words.extend(["--standby", "--name", taken.manifest.site.as_str()].map(OsString::from));
    if args.key.is_none() {
        // Who came as root by ssh need not show that he may.
        words.push("--insecure-unsigned".into());
    }
    let order = Order {
        address: args.to.clone(),
        ssh: std::env::var("GRIDGATE_SSH").unwrap_or_else(|_| "ssh".to_owned()),
        words,
        verb: "site restore".to_owned(),
        wants: Wants::default(),
        env: Vec::new(),
        copy: false,
        sudo: false,
    };
    let status = match remote::run(&order, &context.progress) {
        Ok(status) => status,
        Err(error) => match error.downcast::<Refused>() {
            Ok(refused) => {
                let found = refused.0.lines().next().unwrap_or_default().to_owned();
                let hint =
                    format!("hint: gridgate --host {} --copy-binary doctor copies this one there", args.to);
                return Err(Ending::error(Exit::Refused, format!("{found}\n{hint}")));
            }
            Err(error) => return Err(error),
        },
    };
    if status != Exit::Done as i32 {
        let message =
            format!("the backup is on '{}', in '{}', and did not become its state", args.to, shelf.shown());
        let exit = if status == Exit::Refused as i32 { Exit::Refused } else { Exit::HalfWay };
        return Err(Ending::error(exit, message));
    }
    context.progress.say(&format!("'{0}' is current; to take over: gridgate --host {0} up", args.to));
    if context.json {
        let mut document = backup::document(&taken.manifest, &pushed, &shelf.shown());
        document["standby"] = json!(args.to.to_string());
        print_json(&document)?;
    }
    Ok(Exit::Done)
}
