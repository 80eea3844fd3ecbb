//! The backup agent of vcluster-backup.
//!
//! A virtual cluster's whole life is one SQLite file, `state.db`, written by kine. This program ships it,
//! encrypted, to S3 without ever blocking kine, and brings it back.
//!
//! Modules, each using only those above it:
//! - values: [`cause`], [`revision`], [`clock`], [`span`], [`timeline`], [`pin`], [`object_name`], [`own_keys`],
//!   [`signing`], [`chain`], [`header`], [`key`], [`envelope`], [`row`], [`segment`], [`snapshot`], [`catalogue`], [`retention`]
//! - ports: [`store`] (S3), [`database`] (SQLite), [`scratch`], [`cluster`] (the host's API), [`cost`], [`metrics`],
//!   [`status`], [`progress`]
//! - work: [`continuity`], [`keyring`], [`body`], [`capture`], [`files`], [`host_secrets`], [`merge`], [`prune`],
//!   [`restore`], [`verify`], [`replicator`], [`ensure`]
//! - edge: [`args`] (as typed), [`point`], [`seed_args`], [`settings`] (resolved), [`commands`], [`listen`],
//!   [`telemetry`], [`shutdown`], [`error`] (exit codes)

#![forbid(unsafe_code)]

pub mod args;
pub mod body;
pub mod capture;
pub mod catalogue;
pub mod cause;
pub mod chain;
pub mod clock;
pub mod cluster;
pub mod commands;
pub mod continuity;
pub mod cost;
pub mod database;
pub mod ensure;
pub mod envelope;
pub mod error;
pub mod files;
pub mod header;
pub mod host_secrets;
pub mod key;
pub mod keyring;
pub mod listen;
pub mod merge;
pub mod metrics;
pub mod object_name;
pub mod own_keys;
pub mod pin;
pub mod point;
pub mod progress;
pub mod prune;
pub mod replicator;
pub mod restore;
pub mod retention;
pub mod revision;
pub mod row;
pub mod scratch;
pub mod seed_args;
pub mod segment;
pub mod settings;
pub mod shutdown;
pub mod signing;
pub mod snapshot;
pub mod span;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod timeline;
pub mod verify;
