//! **Settings**: what was typed, joined once with the configuration file and the defaults. Nothing else in
//! the program reads arguments or the environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Uri;
use secrecy::SecretString;

use crate::args::{Common, Ensure};
use crate::ensure::{Adopt, AutoRestore, OnUnreachable, Rules};
use crate::header::Owner;
use crate::key::{self, KeyError, Recipients};
use crate::object_name::Prefix;
use crate::pin::PinRequest;
use crate::restore::RestoreRequest;
use crate::restore::source::Source;
use crate::retention::Retention;
use crate::signing::{KeyFormatError, Signer, Signers, SigningKey};
use crate::store::{CredentialSource, StoreSettings};
use crate::telemetry::{LogFormat, LogLevel};

/// Where a vcluster keeps its database: the k8s distro, then the k3s distro (vcluster pkg/constants).
pub const DATABASE_PATHS: [&str; 2] = ["/data/state.db", "/data/server/db/state.db"];

/// Settings that make no sense.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A setting is needed that was not given.
    #[error("{what} is needed: give {flag}, or {variable} in the environment")]
    Missing {
        /// What it is.
        what: &'static str,
        /// Its flag.
        flag: &'static str,
        /// Its variable.
        variable: &'static str,
    },
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {path}")]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is wrong.
    #[error("the configuration file {path} is wrong: {problem}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What and where.
        problem: String,
    },
    /// A key file cannot be read.
    #[error("cannot read {path}")]
    ReadKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A key is no key.
    #[error(transparent)]
    Key(#[from] KeyFormatError),
    /// The endpoint is no URL.
    #[error("the endpoint '{0}' is not a URL: write it as https://host:port")]
    Endpoint(String),
    /// Two settings exclude each other.
    #[error("{0}")]
    Conflict(&'static str),
}

/// Everything but what only one verb needs.
pub struct Settings {
    typed: Common,
    joined: Common,
}

impl Settings {
    /// Joins what was typed with the configuration file.
    pub fn resolve(typed: Common) -> Result<Self, SettingsError> {
        let joined = match &typed.config {
            Some(path) => join(typed.clone(), read_config(path)?),
            None => typed.clone(),
        };
        let settings = Self { typed, joined };
        if settings.joined.access_key.is_some() != settings.joined.secret_key.is_some() {
            return Err(SettingsError::Conflict(
                "--access-key and --secret-key go together: one of them is missing",
            ));
        }
        if settings.joined.access_key_file.is_some() != settings.joined.secret_key_file.is_some() {
            return Err(SettingsError::Conflict(
                "--access-key-file and --secret-key-file go together: one of them is missing",
            ));
        }
        let source = settings.restore_request().and_then(|request| request.from.as_ref());
        if let Some(problem) = source.and_then(Source::problem) {
            return Err(SettingsError::Conflict(problem));
        }
        Ok(settings)
    }

    /// Reads the configuration file again. An unreadable or wrong file leaves the settings as they were.
    pub fn reload(&self) -> Result<Self, SettingsError> {
        Self::resolve(self.typed.clone())
    }

    /// The files that are read again when they change.
    pub fn watched_files(&self) -> Vec<PathBuf> {
        self.joined.config.iter().chain(&self.joined.recipients_file).cloned().collect()
    }

    /// The bucket and how to get in.
    pub fn store(&self) -> Result<StoreSettings, SettingsError> {
        let common = &self.joined;
        let bucket = filled(common.bucket.as_ref()).ok_or(SettingsError::Missing {
            what: "the bucket",
            flag: "--bucket",
            variable: "BUCKET_NAME",
        })?;
        let insecure = common.insecure.unwrap_or(false);
        let credentials = match (
            &common.access_key,
            &common.secret_key,
            &common.access_key_file,
            &common.secret_key_file,
        ) {
            (Some(access_key), Some(secret_key), _, _) if !access_key.is_empty() => {
                CredentialSource::Static { access_key: access_key.clone(), secret_key: secret_key.clone() }
            }
            (_, _, Some(access_key), Some(secret_key)) => {
                CredentialSource::Files { access_key: access_key.clone(), secret_key: secret_key.clone() }
            }
            _ => CredentialSource::Standard,
        };
        let environment =
            |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
        let endpoint = filled(common.endpoint.as_ref())
            .or_else(|| environment(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]))
            .map(|endpoint| with_scheme(&endpoint, insecure))
            .transpose()?;
        Ok(StoreSettings {
            endpoint,
            region: filled(common.region.as_ref())
                .or_else(|| environment(&["AWS_REGION", "AWS_DEFAULT_REGION"]))
                .unwrap_or_else(|| "us-east-1".to_owned()),
            bucket,
            credentials,
            insecure,
            ca_file: common.ca_file.clone().or_else(|| environment(&["AWS_CA_BUNDLE"]).map(PathBuf::from)),
            addressing: common.addressing.unwrap_or_default(),
        })
    }

    /// The folder in the bucket.
    pub fn prefix(&self) -> Prefix {
        Prefix::new(self.joined.prefix.as_deref().unwrap_or_default())
    }

    /// The database: as given, else the first path that a vcluster uses and that is there.
    pub fn database(&self) -> Option<PathBuf> {
        if let Some(path) = self.joined.database.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            return Some(path.clone());
        }
        DATABASE_PATHS.iter().map(PathBuf::from).find(|path| path.exists())
    }

    /// Everyone that objects are encrypted to, without passphrase mode's own; empty if none is named.
    pub fn recipients(&self) -> Result<Vec<String>, KeyError> {
        let mut recipients: Vec<String> =
            self.joined.recipient.iter().filter(|text| !text.is_empty()).cloned().collect();
        if let Some(path) = &self.joined.recipients_file {
            recipients.extend(key::read_recipients(path)?);
        }
        if !recipients.is_empty() {
            Recipients::parse(&recipients)?;
        }
        Ok(recipients)
    }

    /// The passphrase, if there is one.
    pub fn passphrase(&self) -> Option<&SecretString> {
        use secrecy::ExposeSecret as _;
        self.joined.enc_key.as_ref().filter(|key| !key.expose_secret().is_empty())
    }

    /// The file with the identity.
    pub fn identity_file(&self) -> Option<&Path> {
        self.joined.identity_file.as_deref()
    }

    /// The key that signs.
    pub fn signing_key(&self) -> Result<Option<SigningKey>, SettingsError> {
        let Some(path) = &self.joined.signing_key_file else { return Ok(None) };
        let text = std::fs::read_to_string(path)
            .map(zeroize::Zeroizing::new)
            .map_err(|source| SettingsError::ReadKey { path: path.clone(), source })?;
        Ok(Some(SigningKey::parse(&text)?))
    }

    /// Whose signature was asked for by name.
    pub fn pinned_signers(&self) -> &[Signer] {
        &self.joined.signer
    }

    /// Whose signature objects must bear: as pinned, else that of the signing key at hand.
    pub fn signers(&self) -> Result<Signers, SettingsError> {
        let pinned = self.pinned_signers().to_vec();
        let at_hand = if pinned.is_empty() { self.signing_key()? } else { None };
        Ok(Signers::from(at_hand.map_or(pinned, |key| vec![key.signer()])))
    }

    /// Whether there is a host cluster to report to: in a pod, or one that `KUBECONFIG` names (then true).
    pub fn host_cluster(&self) -> Option<bool> {
        let given = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if given("KUBERNETES_SERVICE_HOST") { Some(false) } else { given("KUBECONFIG").then_some(true) }
    }

    /// Whose backup this is.
    pub fn owner(&self) -> Option<&Owner> {
        self.joined.owner.as_ref()
    }

    /// How log lines look.
    pub fn log_format(&self) -> LogFormat {
        self.joined.log_format.unwrap_or(LogFormat::Text)
    }

    /// Which log lines are written.
    pub fn log_level(&self) -> LogLevel {
        self.joined.log_level.unwrap_or(LogLevel::Info)
    }

    /// Whether every S3 request is logged.
    pub fn trace(&self) -> bool {
        self.joined.trace.unwrap_or(false)
    }

    /// Where metrics and health are served.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.joined.listen
    }

    /// How often new revisions are shipped.
    pub fn sync_interval(&self) -> Duration {
        self.joined.sync_interval.unwrap_or(Duration::from_secs(1)).max(Duration::from_millis(50))
    }

    /// How often leases and events alone are shipped.
    pub fn idle_interval(&self) -> Duration {
        self.joined.idle_interval.unwrap_or(Duration::from_secs(30)).max(self.sync_interval())
    }

    /// How long shipping goes on after SIGTERM.
    pub fn shutdown_grace(&self) -> Duration {
        self.joined.shutdown_grace.unwrap_or(Duration::from_secs(8))
    }

    /// How often a snapshot is taken.
    pub fn snapshot_interval(&self) -> Duration {
        self.joined.snapshot_interval.unwrap_or(Duration::from_hours(1)).max(Duration::from_secs(1))
    }

    /// What prune keeps.
    pub fn retention(&self) -> Retention {
        let common = &self.joined;
        Retention {
            window: common.pitr_window.unwrap_or(Duration::from_hours(168)),
            last: common.keep_last.unwrap_or(3),
            hourly: common.keep_hourly.unwrap_or(24),
            daily: common.keep_daily.unwrap_or(7),
            weekly: common.keep_weekly.unwrap_or(4),
            monthly: common.keep_monthly.unwrap_or(6),
        }
    }

    /// Whether nothing is deleted.
    pub fn append_only(&self) -> bool {
        self.joined.append_only.unwrap_or(false)
    }

    /// Files and folders beside the database.
    pub fn include(&self) -> &[PathBuf] {
        &self.joined.include
    }

    /// Pins that the configuration file asks for.
    pub fn pins(&self) -> &[PinRequest] {
        &self.joined.pins
    }

    /// What `ensure` does: as its flags say, else the configuration file, else the defaults.
    pub fn ensure_rules(&self, flags: &Ensure) -> Rules {
        let file = &self.joined;
        Rules {
            auto_restore: flags
                .auto_restore
                .clone()
                .or_else(|| file.auto_restore.clone())
                .unwrap_or_else(|| vec![AutoRestore::Empty]),
            on_unreachable: flags.on_unreachable.or(file.on_unreachable).unwrap_or(OnUnreachable::Block),
            adopt: flags.adopt.or(file.adopt).unwrap_or(Adopt::Never),
            on_damage: flags.on_damage.or(file.on_damage).unwrap_or_default(),
        }
    }

    /// The restore that the configuration file asks for.
    pub fn restore_request(&self) -> Option<&RestoreRequest> {
        self.joined.restore.as_ref()
    }
}

fn read_config(path: &Path) -> Result<Common, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::ReadConfig { path: path.to_owned(), source })?;
    if text.trim().is_empty() {
        return Ok(Common::default());
    }
    // Without the lines around a mistake: they may hold keys.
    serde_saphyr::from_str_with_options(&text, serde_saphyr::options! { with_snippet: false })
        .map_err(|error| SettingsError::Config { path: path.to_owned(), problem: error.to_string() })
}

/// What was typed (or stands in the environment) wins; what is given to both lists counts once each.
fn join(typed: Common, file: Common) -> Common {
    macro_rules! first {
        ($($field:ident),+) => { Common {
            $($field: typed.$field.or(file.$field),)+
            config: typed.config,
            recipient: if typed.recipient.is_empty() { file.recipient } else { typed.recipient },
            signer: if typed.signer.is_empty() { file.signer } else { typed.signer },
            include: if typed.include.is_empty() { file.include } else { typed.include },
            pins: file.pins,
            restore: file.restore,
            auto_restore: file.auto_restore,
            on_unreachable: file.on_unreachable,
            adopt: file.adopt,
            on_damage: file.on_damage,
        } };
    }
    first!(
        endpoint,
        region,
        bucket,
        prefix,
        access_key,
        secret_key,
        access_key_file,
        secret_key_file,
        insecure,
        ca_file,
        addressing,
        trace,
        database,
        recipients_file,
        identity_file,
        enc_key,
        signing_key_file,
        owner,
        log_format,
        log_level,
        listen,
        sync_interval,
        idle_interval,
        shutdown_grace,
        snapshot_interval,
        pitr_window,
        keep_last,
        keep_hourly,
        keep_daily,
        keep_weekly,
        keep_monthly,
        append_only
    )
}

fn filled(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
}

/// The Go program's endpoints had no scheme: TLS, unless `INSECURE` was set.
fn with_scheme(endpoint: &str, insecure: bool) -> Result<String, SettingsError> {
    let full = match (endpoint.contains("://"), insecure) {
        (true, _) => endpoint.to_owned(),
        (false, true) => format!("http://{endpoint}"),
        (false, false) => format!("https://{endpoint}"),
    };
    let url: Option<Uri> = full.parse().ok();
    let known = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
    if url.as_ref().is_some_and(known) { Ok(full) } else { Err(SettingsError::Endpoint(endpoint.to_owned())) }
}
