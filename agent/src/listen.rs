//! **Being watched**: `/metrics`, `/healthz`, `/readyz` and `/status` over HTTP.

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
    if status.last_success.is_some() && status.phase == Phase::Replicating {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let reason = if status.message.is_empty() { "the first sync is not done" } else { &status.message };
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))
}

async fn status(State(watched): State<Watched>) -> impl IntoResponse {
    let body = serde_json::to_string(&*watched.status.borrow()).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], body)
}
