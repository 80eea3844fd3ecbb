//! The **harness**: real components and our own programs as processes, on loopback, in temp folders, gone when
//! dropped. The tests are in `tests/`, one file per subject.
//!
//! A test names the tools it needs ([`toolbox`]); where one cannot be had, it is skipped by name. Everything
//! listens on a free port ([`port`]), and every wait has a condition and a deadline ([`process`]).

pub mod agent;
pub mod api_server;
pub mod certificates;
pub mod chart_server;
pub mod core;
pub mod crossplane;
pub mod dice;
pub mod etcd;
pub mod fault;
pub mod fault_proxy;
pub mod function;
pub mod golden;
pub mod history;
pub mod host_cluster;
pub mod kine;
pub mod kine_shaped;
pub mod lag;
pub mod latency;
pub mod metrics;
pub mod minio;
pub mod pod;
pub mod port;
pub mod process;
pub mod program;
pub mod provider_helm;
pub mod reach;
pub mod record;
pub mod restored;
pub mod s3;
pub mod sidecar;
pub mod site;
pub mod tenant;
pub mod toolbox;
pub mod traffic;
pub mod vcluster;
pub mod wal;
pub mod writer;
