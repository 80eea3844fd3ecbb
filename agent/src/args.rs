//! The command line as it was **typed**; [`crate::settings`] resolves it. One definition gives flags,
//! environment, help, completions and the configuration file, whose keys are the flags in camelCase.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;
use serde::Deserialize;

use crate::ensure::{Adopt, AutoRestore, OnUnreachable};
use crate::header::Owner;
use crate::pin::{PinName, PinRequest};
use crate::point::Point;
use crate::restore::RestoreRequest;
use crate::restore::assembly::OnDamage;
use crate::revision::Revision;
use crate::signing::Signer;
use crate::span;
use crate::store::Addressing;
use crate::telemetry::{LogFormat, LogLevel};
use crate::timeline::Timeline;

/// Encrypted, continuous backups of a virtual cluster's state.db on S3, and their restore.
///
/// Settings come from flags, then the environment, then --config FILE, then the defaults.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partial (some objects are bad), 10 nothing to restore,
/// 11 another writer, 12 wrong key or tampered, 13 target exists.
#[derive(Parser)]
#[command(name = "vcluster-backup", version, max_term_width = 110, propagate_version = true)]
pub struct Cli {
    /// Flags that every verb takes.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The verbs.
#[derive(Subcommand)]
pub enum Command {
    /// Replicate until told to stop (SIGTERM: final sync)
    Run(Run),
    /// Before kine starts: leave the database, restore it, or fail with what to do
    Ensure(Ensure),
    /// Take one snapshot now
    Snapshot(Snapshot),
    /// Show what can be restored
    List(List),
    /// Bring a database back
    Restore(Restore),
    /// Delete what retention no longer keeps
    ///
    /// Kept are: every revision of the --pitr-window, which is counted back from the newest capture; the snapshots of
    /// --keep-last, -hourly, -daily, -weekly and -monthly; pins until their time is over; and all that these need. `run`
    /// prunes by itself after a snapshot, at most once an hour, unless it is --append-only. No key is needed, and it may
    /// run beside `run`. --dry-run shows what would go, and why.
    Prune(Prune),
    /// Try a restore out: a drill into a scratch file, checked and thrown away
    Verify(Verify),
    /// Decrypt one object to stdout (age or the Go program's format)
    Decrypt(Decrypt),
    /// Make a key pair: the age identity to stdout, its recipient to stderr
    Keygen(Keygen),
    /// Print shell completions
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Flags of `run`.
#[derive(Args)]
pub struct Run {
    /// Ship what is there and exit (for a CronJob)
    #[arg(long, env = "VCB_ONCE", value_parser = FalseyValueParser::new())]
    pub once: bool,
}

/// Flags of `ensure`; the configuration file has the same keys.
#[derive(Args)]
pub struct Ensure {
    /// When to restore without being asked: an empty volume, a damaged database, one behind the bucket
    /// [default: empty]
    #[arg(long, value_name = "WHEN", value_delimiter = ',', env = "VCB_AUTO_RESTORE")]
    pub auto_restore: Option<Vec<AutoRestore>>,
    /// What to do on an empty volume while the bucket cannot be reached [default: block]
    #[arg(long, value_enum, env = "VCB_ON_UNREACHABLE")]
    pub on_unreachable: Option<OnUnreachable>,
    /// Whether a backup of a deleted cluster of the same name may be taken over [default: never]
    #[arg(long, value_enum, env = "VCB_ADOPT")]
    pub adopt: Option<Adopt>,
    /// What a bad object does to a restore: stop it, or restore up to it [default: fail]
    #[arg(long, value_enum, env = "VCB_ON_DAMAGE")]
    pub on_damage: Option<OnDamage>,
}

/// Flags of `snapshot`.
#[derive(Args)]
pub struct Snapshot {
    /// Pin it under this name, so that prune leaves it
    #[arg(long, value_name = "PIN", env = "VCB_NAME")]
    pub name: Option<PinName>,
    /// How long the pin is kept; for ever if not given
    #[arg(long, value_parser = span::parse, requires = "name", env = "VCB_KEEP")]
    pub keep: Option<Duration>,
}

/// Flags of `list`.
#[derive(Args)]
pub struct List {
    /// Print one JSON document
    #[arg(long, env = "VCB_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
}

/// Flags of `restore`.
#[derive(Args)]
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
pub struct Restore {
    /// Where the database goes
    #[arg(long, short, value_name = "PATH", env = "VCB_OUTPUT")]
    pub output: PathBuf,
    /// Which point to restore
    #[command(flatten)]
    pub point: Point,
    /// Of this history, if not the newest that holds the point
    #[arg(long, value_name = "ULID", env = "VCB_TIMELINE")]
    pub timeline: Option<Timeline>,
    /// Do nothing, successfully, if there is a database at the path
    #[arg(long, env = "VCB_IF_NOT_EXISTS", value_parser = FalseyValueParser::new())]
    pub if_not_exists: bool,
    /// Do nothing, successfully, if there is no backup
    #[arg(long, env = "VCB_IF_BACKUP_EXISTS", value_parser = FalseyValueParser::new())]
    pub if_backup_exists: bool,
    /// Replace the database at the path; it is kept as PATH.before-restore-TIME
    #[arg(long, env = "VCB_FORCE", value_parser = FalseyValueParser::new())]
    pub force: bool,
    /// Show what would be restored, from which objects
    #[arg(long, env = "VCB_DRY_RUN", value_parser = FalseyValueParser::new())]
    pub dry_run: bool,
    /// What a bad object does: stop the restore, or restore up to it, say what is missing, and exit 3
    #[arg(long, value_enum, default_value = "fail", env = "VCB_ON_DAMAGE")]
    pub on_damage: OnDamage,
    /// Refuse a bucket whose newest revision is below this one: it was rolled back
    #[arg(long, value_name = "REVISION", env = "VCB_EXPECT_AT_LEAST")]
    pub expect_at_least: Option<Revision>,
    /// Print one JSON document
    #[arg(long, env = "VCB_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
}

/// Flags of `verify`.
#[derive(Args)]
pub struct Verify {
    /// Which point to try out
    #[command(flatten)]
    pub point: Point,
    /// Read every object on the way, and build no database; without an identity look at names alone
    #[arg(long, env = "VCB_QUICK", value_parser = FalseyValueParser::new())]
    pub quick: bool,
    /// Print one JSON document
    #[arg(long, env = "VCB_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
}

/// Flags of `prune`.
#[derive(Args)]
pub struct Prune {
    /// Show what would be deleted, and why
    #[arg(long, env = "VCB_DRY_RUN", value_parser = FalseyValueParser::new())]
    pub dry_run: bool,
    /// Print one JSON document
    #[arg(long, env = "VCB_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
}

/// Flags of `decrypt`.
#[derive(Args)]
pub struct Decrypt {
    /// A file, or else a key in the bucket
    #[arg(value_name = "FILE|KEY")]
    pub object: String,
    /// Write here instead of to stdout
    #[arg(long, short, value_name = "PATH")]
    pub output: Option<PathBuf>,
}

/// Flags of `keygen`.
#[derive(Args)]
pub struct Keygen {
    /// Print the identity that ENC_KEY unwraps from the bucket's keys/ instead of making one
    #[arg(long, env = "VCB_PASSPHRASE", value_parser = FalseyValueParser::new())]
    pub passphrase: bool,
}

/// Flags that every verb takes, and the configuration file's keys.
#[derive(Args, Deserialize, Default, Clone)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// YAML with these same names in camelCase; read again when it changes
    #[arg(long, global = true, env = "VCB_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// S3 server, as https://host:port; without a scheme https, or http with --insecure
    #[arg(long, global = true, env = "ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,
    /// Region that requests are signed for [default: us-east-1]
    #[arg(long, global = true, env = "REGION")]
    pub region: Option<String>,
    /// Bucket
    #[arg(long, global = true, env = "BUCKET_NAME")]
    pub bucket: Option<String>,
    /// Folder in the bucket
    #[arg(long, global = true, env = "VCB_PREFIX")]
    pub prefix: Option<String>,
    /// S3 access key
    #[arg(long, global = true, env = "ACCESS_KEY", hide_env_values = true)]
    pub access_key: Option<String>,
    /// S3 secret key; better in a file or the environment, arguments show in `ps`
    #[arg(long, global = true, env = "SECRET_KEY", hide_env_values = true, value_parser = secret)]
    pub secret_key: Option<SecretString>,
    /// File with the S3 access key
    #[arg(long, global = true, env = "VCB_ACCESS_KEY_FILE", value_name = "FILE")]
    pub access_key_file: Option<PathBuf>,
    /// File with the S3 secret key
    #[arg(long, global = true, env = "VCB_SECRET_KEY_FILE", value_name = "FILE")]
    pub secret_key_file: Option<PathBuf>,
    /// Plain http for an endpoint without a scheme; no check of the server's certificate
    #[arg(long, global = true, env = "INSECURE", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = FalseyValueParser::new(), value_name = "BOOL")]
    pub insecure: Option<bool>,
    /// PEM certificates to trust beside the system's
    #[arg(long, global = true, env = "VCB_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Where the bucket's name goes in the URL [default: auto]
    #[arg(long, global = true, env = "VCB_ADDRESSING", value_enum)]
    pub addressing: Option<Addressing>,
    /// Log every S3 request, without credentials
    #[arg(long, global = true, env = "TRACE", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = FalseyValueParser::new(), value_name = "BOOL")]
    pub trace: Option<bool>,
    /// The database [default: /data/state.db or /data/server/db/state.db, whichever is there]
    #[arg(long, global = true, env = "BACKUP_FILE", value_name = "PATH")]
    pub database: Option<PathBuf>,
    /// age recipient to encrypt to (repeatable)
    #[arg(long, global = true, env = "VCB_RECIPIENT", value_name = "age1…", value_delimiter = ',')]
    pub recipient: Vec<String>,
    /// File with age recipients, one a line; read again when it changes
    #[arg(long, global = true, env = "VCB_RECIPIENTS_FILE", value_name = "FILE")]
    pub recipients_file: Option<PathBuf>,
    /// File with the age identities that decrypt, one a line; all are tried
    #[arg(long, global = true, env = "VCB_IDENTITY_FILE", value_name = "FILE")]
    pub identity_file: Option<PathBuf>,
    /// Passphrase, instead of recipients and identity
    #[arg(long, global = true, env = "ENC_KEY", hide_env_values = true, value_parser = secret)]
    pub enc_key: Option<SecretString>,
    /// File with the key that signs
    #[arg(long, global = true, env = "VCB_SIGNING_KEY_FILE", value_name = "FILE")]
    pub signing_key_file: Option<PathBuf>,
    /// Accept only objects signed by this key, or by one of these (repeatable)
    #[arg(long, global = true, env = "VCB_SIGNER", value_name = "PUB", value_delimiter = ',')]
    #[serde(deserialize_with = "separated")]
    pub signer: Vec<Signer>,
    /// Whose backup this is
    #[arg(long, global = true, env = "VCB_OWNER", value_name = "NAMESPACE/NAME[/UID]")]
    pub owner: Option<Owner>,
    /// text or json [default: text]
    #[arg(long, global = true, env = "VCB_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// How much is logged [default: info]
    #[arg(long, global = true, env = "VCB_LOG_LEVEL", value_enum)]
    pub log_level: Option<LogLevel>,
    /// Serve /metrics, /healthz, /readyz and /status here, as :8090 or 127.0.0.1:8090
    #[arg(long, global = true, env = "VCB_LISTEN", value_name = "ADDR", value_parser = listen)]
    #[serde(deserialize_with = "deserialize_listen")]
    pub listen: Option<SocketAddr>,
    /// Ship new revisions this often [default: 1s]
    #[arg(long, global = true, env = "VCB_SYNC_INTERVAL", value_parser = span::parse, value_name = "SPAN")]
    #[serde(deserialize_with = "span::deserialize")]
    pub sync_interval: Option<Duration>,
    /// Ship this often while there is nothing new but leases and events [default: 30s]
    #[arg(long, global = true, env = "VCB_IDLE_INTERVAL", value_parser = span::parse, value_name = "SPAN")]
    #[serde(deserialize_with = "span::deserialize")]
    pub idle_interval: Option<Duration>,
    /// Go on shipping this long after SIGTERM while kine still writes [default: 8s]
    #[arg(long, global = true, env = "VCB_SHUTDOWN_GRACE", value_parser = span::parse, value_name = "SPAN")]
    #[serde(deserialize_with = "span::deserialize")]
    pub shutdown_grace: Option<Duration>,
    /// Take a snapshot this often; a bare number counts minutes [default: 1h]
    #[arg(long, global = true, env = "BACKUP_INTERVAL", value_parser = span::parse_or_minutes, value_name = "SPAN")]
    #[serde(deserialize_with = "span::deserialize_or_minutes")]
    pub snapshot_interval: Option<Duration>,
    /// Keep every revision restorable this far back from the newest capture [default: 7d]
    #[arg(long, global = true, env = "VCB_PITR_WINDOW", value_parser = span::parse, value_name = "SPAN")]
    #[serde(deserialize_with = "span::deserialize")]
    pub pitr_window: Option<Duration>,
    /// Keep this many newest snapshots [default: 3]
    #[arg(long, global = true, env = "VCB_KEEP_LAST", value_name = "N")]
    pub keep_last: Option<u32>,
    /// Keep one snapshot of each of so many hours [default: 24]
    #[arg(long, global = true, env = "VCB_KEEP_HOURLY", value_name = "N")]
    pub keep_hourly: Option<u32>,
    /// Keep one snapshot of each of so many days [default: 7]
    #[arg(long, global = true, env = "VCB_KEEP_DAILY", value_name = "N")]
    pub keep_daily: Option<u32>,
    /// Keep one snapshot of each of so many weeks [default: 4]
    #[arg(long, global = true, env = "VCB_KEEP_WEEKLY", value_name = "N")]
    pub keep_weekly: Option<u32>,
    /// Keep one snapshot of each of so many months [default: 6]
    #[arg(long, global = true, env = "VCB_KEEP_MONTHLY", value_name = "N")]
    pub keep_monthly: Option<u32>,
    /// Delete nothing: merge beside what is merged, prune nothing (for a policy without s3:DeleteObject)
    #[arg(long, global = true, env = "VCB_APPEND_ONLY", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = FalseyValueParser::new(), value_name = "BOOL")]
    pub append_only: Option<bool>,
    /// Back up this file or folder beside the database (repeatable)
    #[arg(long, global = true, env = "VCB_INCLUDE", value_name = "PATH", value_delimiter = ',')]
    pub include: Vec<PathBuf>,
    /// Named restore points to make; in the configuration file only.
    #[arg(skip)]
    pub pins: Vec<PinRequest>,
    /// A restore that was asked for; in the configuration file only.
    #[arg(skip)]
    pub restore: Option<RestoreRequest>,
    /// As [`Ensure::auto_restore`], whose flag wins.
    #[arg(skip)]
    pub auto_restore: Option<Vec<AutoRestore>>,
    /// As [`Ensure::on_unreachable`], whose flag wins.
    #[arg(skip)]
    pub on_unreachable: Option<OnUnreachable>,
    /// As [`Ensure::adopt`], whose flag wins.
    #[arg(skip)]
    pub adopt: Option<Adopt>,
    /// As [`Ensure::on_damage`], whose flag wins.
    #[arg(skip)]
    pub on_damage: Option<OnDamage>,
}

#[allow(clippy::unnecessary_wraps)] // clap's signature
fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(text.to_owned().into())
}

/// `:8090` listens on every address, as Go programs write it.
fn listen(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    full.parse().map_err(|_| format!("'{text}' is not an address: write it as :8090 or 127.0.0.1:8090"))
}

/// Several, separated by commas, as the flag takes them.
fn separated<'de, D: serde::Deserializer<'de>, T: FromStr<Err: Display>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let text: Option<String> = Deserialize::deserialize(deserializer)?;
    let parts = text.iter().flat_map(|text| text.split(','));
    parts.map(|part| part.trim().parse().map_err(serde::de::Error::custom)).collect()
}

fn deserialize_listen<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text: Option<String> = Deserialize::deserialize(deserializer)?;
    text.map(|text| listen(&text).map_err(serde::de::Error::custom)).transpose()
}
