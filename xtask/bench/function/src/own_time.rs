//! RunFunction's **own time**: the pass over a request, without gRPC.

use std::hint::black_box;
use std::time::{Instant, SystemTime};

use function_vcluster_backup::function;
use ring::rand::SystemRandom;
use serde::Serialize;
use vcluster_backup_proto::v1::RunFunctionRequest;

use crate::caller::percentile;

const PASSES: usize = 5000;
const WARM_UP: usize = 500;

/// How long passes took.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnTime {
    /// Half of them took no longer, microseconds.
    pub p50_micros: f64,
    /// 99 of 100 took no longer, microseconds.
    pub p99_micros: f64,
}

/// Measures it. Each pass has a request of its own, as each call does.
pub fn of(request: &RunFunctionRequest) -> OwnTime {
    let random = SystemRandom::new();
    let mut took = Vec::with_capacity(PASSES);
    for pass in 0..WARM_UP + PASSES {
        let (request, now) = (request.clone(), SystemTime::now());
        let begin = Instant::now();
        let answer = black_box(function::run(request, now, &random));
        if pass >= WARM_UP {
            took.push(begin.elapsed());
        }
        drop(answer);
    }
    took.sort_unstable();
    let micros = |share| percentile(&took, share).as_secs_f64() * 1e6;
    OwnTime { p50_micros: micros(50), p99_micros: micros(99) }
}
