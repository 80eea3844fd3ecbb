//! The composition function: what a `Vcluster` asks for, turned into what Crossplane shall compose.
//!
//! Two halves. The **core** is one pure pass over one request, [`function::run`], with clock and randomness
//! passed in; all that it knows comes with the request. The **runtime** is everything that Crossplane expects
//! of a function's pod, and knows nothing of virtual clusters:
//!
//! ```text
//!  args ──► server ──► tls        certificates, read again when they change
//!             │  ├────► metrics   /metrics
//!             │  └────► health, reflection
//!             └───────► function  the core: request in, response out
//! ```

pub mod args;
pub mod chart;
pub mod check;
pub mod condition;
pub mod config;
pub mod connection;
pub mod credentials;
pub mod cron_job;
pub mod drill;
pub mod fatal;
pub mod function;
pub mod glob;
pub mod input;
pub mod metrics;
pub mod names;
pub mod object;
pub mod policy;
pub mod progress;
pub mod protection;
pub mod prune;
pub mod rancher;
pub mod recipient;
pub mod reference;
pub mod release;
pub mod report;
pub mod request;
pub mod response;
pub mod restart;
pub mod restore;
pub mod schedule;
pub mod schema;
pub mod server;
pub mod sidecar;
pub mod source;
pub mod span;
pub mod spec;
pub mod status;
pub mod storage;
pub mod subject;
pub mod telemetry;
pub mod tls;
pub mod typed;
pub mod upgrade;
pub mod values;
pub mod xr;
