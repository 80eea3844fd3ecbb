//! RunFunction's **own time**: the pass over a request, without gRPC.

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use function_vcluster_backup::function;
use ring::rand::SystemRandom;
use serde::Serialize;
use vcluster_backup_proto::v1::RunFunctionRequest;

use crate::caller::percentile;

const PASSES: usize = 5000;
const WARM_UP: usize = 500;
/// Requests that are copied, outside of what is measured, before they are answered.
const BATCH: usize = 50;

/// How long passes took.
#[allow(clippy::struct_field_names)] // a unit belongs into a name
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnTime {
    /// Half of them took no longer, microseconds.
    pub p50_micros: f64,
    /// 99 of 100 took no longer, microseconds.
    pub p99_micros: f64,
    /// Time on a processor, on average, microseconds: what else the machine does has little say in it.
    pub cpu_micros: f64,
}

/// Measures it. Each pass has a request of its own, as each call does.
pub fn of(request: &RunFunctionRequest) -> Result<OwnTime> {
    let random = SystemRandom::new();
    let mut took = Vec::with_capacity(PASSES);
    let mut cpu = Duration::ZERO;
    for _ in 0..(WARM_UP + PASSES) / BATCH {
        let requests = vec![request.clone(); BATCH];
        let mut answers = Vec::with_capacity(BATCH);
        let before = on_processor()?;
        for request in requests {
            let begin = Instant::now();
            answers.push(black_box(function::run(request, SystemTime::now(), &random)));
            took.push(begin.elapsed());
        }
        cpu += on_processor()?.saturating_sub(before);
    }
    let passes = u32::try_from(took.len())?;
    took.drain(..WARM_UP);
    took.sort_unstable();
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    Ok(OwnTime {
        p50_micros: micros(percentile(&took, 50)),
        p99_micros: micros(percentile(&took, 99)),
        cpu_micros: micros(cpu / passes),
    })
}

/// How long this thread was on a processor.
fn on_processor() -> Result<Duration> {
    let path = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let nanoseconds = text.split_ascii_whitespace().next().with_context(|| format!("{path} is empty"))?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}
