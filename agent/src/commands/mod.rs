//! The **verbs**, a file each: settings in, work done, the result on stdout, the exit code back.

mod decrypt;
mod ensure;
mod host;
mod keygen;
mod list;
mod prune;
mod restore;
mod run;
mod snapshot;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::args::{Cli, Command};
use crate::capture::{Capture, blocking};
use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::error::{Exit, VerbError};
use crate::key::{Identities, KeyError};
use crate::keyring;
use crate::metrics::Metrics;
use crate::object_name::Prefix;
use crate::own_keys::OwnKeys;
use crate::progress::Progress;
use crate::restore::assembly::AssemblyError;
use crate::restore::plan::{Target, plan};
use crate::restore::{Keys, Order, RestoreError, Restored};
use crate::settings::{DATABASE_PATHS, Settings};
use crate::store::{S3Store, Store as _, StoreError};
use crate::telemetry;
use crate::timeline::Timeline;

/// Does what was asked for.
pub async fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let command = match cli.command {
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "vcluster-backup", &mut std::io::stdout());
            return Ok(Exit::Done);
        }
        Some(command) => command,
        None => {
            Cli::command().print_help()?;
            return Ok(Exit::Usage);
        }
    };
    let settings = Settings::resolve(cli.common)?;
    telemetry::start(settings.log_format(), settings.log_level(), settings.trace());
    match command {
        Command::Run(flags) => Box::pin(run::run(settings, flags)).await,
        Command::Ensure(flags) => Box::pin(ensure::run(settings, flags)).await,
        Command::Snapshot(flags) => Box::pin(snapshot::run(&settings, flags)).await,
        Command::List(flags) => list::run(&settings, flags).await,
        Command::Restore(flags) => Box::pin(restore::run(&settings, flags)).await,
        Command::Prune(flags) => prune::run(&settings, flags).await,
        Command::Decrypt(flags) => decrypt::run(&settings, flags).await,
        Command::Keygen(flags) => keygen::run(&settings, flags).await,
        Command::Completions { .. } => Ok(Exit::Done),
    }
}

/// A bucket and the folder in it.
#[derive(Clone)]
struct Place {
    store: Arc<S3Store>,
    prefix: Prefix,
    /// For people: `bucket/prefix`.
    name: String,
    /// Of a process that stays.
    metrics: Option<Metrics>,
}

impl Place {
    async fn open(settings: &Settings, metrics: Option<&Metrics>) -> anyhow::Result<Self> {
        let store = settings.store()?;
        let prefix = settings.prefix();
        let name = format!("{}/{}", store.bucket, prefix.folder()).trim_end_matches('/').to_owned();
        let metrics = metrics.cloned();
        Ok(Self { store: Arc::new(S3Store::open(store, metrics.clone()).await?), prefix, name, metrics })
    }

    async fn catalogue(&self) -> Result<Catalogue, StoreError> {
        Ok(Catalogue::new(&self.prefix, &self.store.list(&self.prefix.folder(), None).await?))
    }

    /// What opens the objects here; `None` if the settings name no key.
    async fn keys(&self, settings: &Settings) -> anyhow::Result<Option<Keys>> {
        let at_hand = settings.identity_file().map(Identities::read).transpose()?;
        let identities =
            keyring::identities(&self.store, &self.prefix, at_hand, settings.passphrase()).await?;
        let signer = settings.signer()?;
        Ok(identities.map(|identities| Keys { identities: Arc::new(identities), signer }))
    }

    /// What publishes here.
    async fn capture(&self, settings: &Settings, watched: bool) -> anyhow::Result<Capture<Arc<S3Store>>> {
        let named = settings.recipients()?;
        let passphrase = settings.passphrase();
        if named.is_empty() && passphrase.is_none() {
            return Err(KeyError::NoRecipient.into());
        }
        Ok(Capture {
            store: self.store.clone(),
            prefix: self.prefix.clone(),
            recipients: keyring::recipients(&self.store, &self.prefix, named, passphrase).await?,
            signing_key: settings.signing_key()?.map(Arc::new),
            owner: settings.owner().cloned(),
            clock: Clock::SYSTEM,
            metrics: self.metrics.clone(),
            watched,
            own_keys: OwnKeys::default(),
        })
    }
}

/// How often a restore is planned anew because an object of the plan was merged into another meanwhile.
const PLANS: u32 = 5;

/// Restores `target`; shows how far it is.
async fn bring_back(
    place: &Place,
    target: &Target,
    timeline: Option<Timeline>,
    keys: Keys,
    order: &Order,
) -> anyhow::Result<Restored> {
    let mut plans = 0;
    loop {
        let plan = plan(&place.catalogue().await?, target, timeline, &place.name)?;
        let progress = Progress::bytes("restoring", plan.bytes());
        let restored = crate::restore::carry_out(&place.store, &plan, keys.clone(), order, &progress).await;
        progress.finish();
        match restored {
            Err(RestoreError::Assembly(AssemblyError::Store(StoreError::NotFound(key)))) if plans < PLANS => {
                plans += 1;
                tracing::debug!(object = key, "it is no longer there: the restore is planned anew");
            }
            restored => return Ok(restored?),
        }
    }
}

/// Where the database lies, or will.
fn database_path(settings: &Settings) -> PathBuf {
    settings.database().unwrap_or_else(|| PathBuf::from(DATABASE_PATHS[0]))
}

/// Prints a line of the result. A reader that has seen enough (`| head`) is no failure.
fn print(line: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot print the result")
        }
        _ => Ok(()),
    }
}

/// Prints one JSON document.
fn print_json(document: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(document).context("cannot print the result as JSON")?)
}

fn no_identity() -> anyhow::Error {
    VerbError::NoIdentity.into()
}
