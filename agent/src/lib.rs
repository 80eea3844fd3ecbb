//! The backup agent of vcluster-backup.
//!
//! A virtual cluster's whole life is one SQLite file, `state.db`, written by kine. This program ships it,
//! encrypted, to S3 without ever blocking kine, and brings it back.
//!
//! Modules, each using only those above it:
//! - values, no I/O: [`revision`], [`clock`], [`span`], [`timeline`], [`object_name`], [`signing`], [`header`],
//!   [`key`], [`envelope`], [`snapshot`], [`catalogue`], [`retention`]
//! - ports: [`store`] (S3), [`database`] (SQLite)
//! - work: [`capture`], [`replicator`], [`restore`]
//! - edge: [`args`] (as typed), [`seed_args`], [`settings`] (resolved), [`commands`], [`listen`], [`metrics`],
//!   [`progress`], [`telemetry`], [`shutdown`], [`error`] (exit codes)

#![forbid(unsafe_code)]

pub mod args;
pub mod capture;
pub mod catalogue;
pub mod clock;
pub mod database;
pub mod envelope;
pub mod error;
pub mod header;
pub mod key;
pub mod metrics;
pub mod object_name;
pub mod progress;
pub mod restore;
pub mod retention;
pub mod revision;
pub mod seed_args;
pub mod settings;
pub mod shutdown;
pub mod signing;
pub mod snapshot;
pub mod span;
pub mod store;
pub mod telemetry;
pub mod timeline;
