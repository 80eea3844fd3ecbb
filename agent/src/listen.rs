//! **Being watched**: `/metrics`, `/healthz`, `/readyz` and `/status` over HTTP.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::status::{Phase, Status};

/// What is shown.
#[derive(Clone)]
pub struct Watched {
    /// The series.
    pub metrics: Metrics,
    /// The replicator's word.
    pub status: watch::Receiver<Status>,
}

/// Listens; `[::]` means every address, also where there is no IPv6.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = match TcpListener::bind(address).await {
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.with_context(|| format!("cannot listen on {address}: correct --listen, or end what listens there"))
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, watched: Watched, stop: CancellationToken) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .with_state(watched);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .context("the listener for metrics and health failed")
}

async fn metrics(State(watched): State<Watched>) -> impl IntoResponse {
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, form)], watched.metrics.encode())
}

/// Ready once the first sync is done and as long as the last one succeeded.
async fn ready(State(watched): State<Watched>) -> impl IntoResponse {
    let status = watched.status.borrow();
    let keeps_up = !status.is_behind;
    if status.last_success.is_some() && status.phase == Phase::Replicating && keeps_up {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let reason = match (status.message.as_str(), keeps_up) {
        ("", true) => "the first sync is not done",
        ("", false) => "the bucket is too far behind the database",
        (message, _) => message,
    };
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))
}

async fn status(State(watched): State<Watched>) -> impl IntoResponse {
    let body = serde_json::to_string(&*watched.status.borrow()).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], body)
}
