//! What Crossplane expects of a function's pod, asked over real sockets on port 0.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod authority;
mod certificates;
mod program;
mod running;
mod serving;

use std::time::Duration;

/// Far more than any step takes: a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// The outcome of a step, which must come.
async fn within<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, step).await.expect("the step did not end in time")
}
