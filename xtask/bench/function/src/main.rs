//! `cargo xtask bench function`: RunFunction, and the same composition written with Crossplane's official Go SDK, on the
//! same request, on this machine, in turns. Absolute figures are the machine's; the ratios are what carries over.

#![forbid(unsafe_code)]

mod caller;
#[allow(clippy::unwrap_used)] // of the tests that it belongs to
#[path = "../../../../function/tests/common/case.rs"]
mod case;
mod contender;
mod own_time;
mod steady;
#[path = "../../src/table.rs"]
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use serde::Serialize;
use serde_json::json;

use caller::{Caller, percentile};
use contender::Contender;
use table::Table;

/// Turns that each contender has; what else the machine does then meets both.
const ROUNDS: usize = 5;

/// Calls of one caller in a turn, and for how long many callers call.
const CALLS: usize = 1000;
const SPELL: Duration = Duration::from_secs(2);
const CALLERS: usize = 16;

/// The composition function beside the official Go SDK; about a minute.
#[derive(Parser)]
#[command(name = "cargo xtask bench function", max_term_width = 110)]
struct Args {
    /// One JSON document on stdout in place of the table
    #[arg(long)]
    json: bool,
}

/// What was measured of one contender.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    /// Of a call by one caller over loopback, microseconds.
    p50_micros: f64,
    p99_micros: f64,
    /// By 16 callers on one connection, as Crossplane has it; the median of all turns.
    calls_per_second: f64,
    /// On processors for each of these, microseconds: what else the machine does has little say in it.
    cpu_micros: f64,
    peak_memory_bytes: u64,
    answer_bytes: usize,
}

#[tokio::main(flavor = "current_thread")] // the other core is the contender's
async fn main() -> ExitCode {
    match measured(&Args::parse()).await {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measured(args: &Args) -> Result<String> {
    let request = steady::request()?;
    eprintln!("RunFunction in this process");
    let own = own_time::of(&request)?;
    let contenders = [Contender::ours().await?, Contender::peer().await?];
    eprintln!("both over loopback, in {ROUNDS} turns");
    let mut callers = Vec::new();
    for contender in &contenders {
        callers.push(Caller::new(contender.port(), &request).await?);
    }
    same_composition(&mut callers).await?;
    let mut figures = Vec::new();
    let mut took = [Vec::new(), Vec::new()];
    let mut rates = [Vec::new(), Vec::new()];
    let mut cost = [(0, Duration::ZERO); 2];
    for _ in 0..ROUNDS {
        for (turn, caller) in callers.iter_mut().enumerate() {
            took[turn].extend(caller.one_by_one(CALLS).await?);
            let before = contenders[turn].cpu()?;
            let (calls, spell) = caller.in_parallel(CALLERS, SPELL).await?;
            rates[turn].push(f64::from(calls) / spell.as_secs_f64());
            cost[turn].0 += calls;
            cost[turn].1 += contenders[turn].cpu()?.saturating_sub(before);
        }
    }
    for (turn, contender) in contenders.iter().enumerate() {
        took[turn].sort_unstable();
        rates[turn].sort_by(f64::total_cmp);
        let micros = |share| percentile(&took[turn], share).as_secs_f64() * 1e6;
        figures.push(Figures {
            p50_micros: micros(50),
            p99_micros: micros(99),
            calls_per_second: rates[turn][ROUNDS / 2],
            cpu_micros: (cost[turn].1 / cost[turn].0.max(1)).as_secs_f64() * 1e6,
            peak_memory_bytes: contender.peak_memory()?,
            answer_bytes: callers[turn].answer_bytes(),
        });
    }
    let [ours, peer] = [figures[0], figures[1]];
    if args.json {
        return Ok(json!({"ownTime": own, "function": ours, "goSdk": peer}).to_string());
    }
    let mut table = Table::new(["with the Go SDK", "function-vcluster-backup"]);
    table.line("RunFunction itself, p50", "µs", [None, Some(own.p50_micros)]);
    table.line("RunFunction itself, p99", "µs", [None, Some(own.p99_micros)]);
    table.line("RunFunction itself, on a processor", "µs", [None, Some(own.cpu_micros)]);
    let mut line = |name, unit, of: fn(&Figures) -> f64| {
        table.line(name, unit, [&peer, &ours].map(|figures| Some(of(figures))));
    };
    line("a call over loopback, p50", "µs", |figures| figures.p50_micros);
    line("a call over loopback, p99", "µs", |figures| figures.p99_micros);
    line("calls by 16 callers", "/s", |figures| figures.calls_per_second);
    line("a call of these, on processors", "µs", |figures| figures.cpu_micros);
    line("most memory", "MiB", |figures| mebibytes(figures.peak_memory_bytes));
    line("answer", "kB", |figures| kilobytes(figures.answer_bytes));
    Ok(table.to_string())
}

/// Both compose the same objects under the same keys, and about as much.
async fn same_composition(callers: &mut [Caller]) -> Result<()> {
    let mut answers = Vec::new();
    for caller in callers {
        answers.push(caller.answer().await?);
    }
    let keys = |answer: &vcluster_backup_proto::v1::RunFunctionResponse| -> Vec<String> {
        let desired = answer.desired.clone().unwrap_or_default();
        desired.resources.into_keys().collect()
    };
    let [ours, peer] = [&answers[0], &answers[1]];
    ensure!(
        peer.results.iter().all(|result| result.severity() != vcluster_backup_proto::v1::Severity::Fatal),
        "the peer refuses the request: {:?}",
        peer.results
    );
    ensure!(keys(ours) == keys(peer), "not the same objects: {:?} and {:?}", keys(ours), keys(peer));
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // bytes of a process fit 53 bits
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

#[allow(clippy::cast_precision_loss)]
fn kilobytes(bytes: usize) -> f64 {
    bytes as f64 / 1000.0
}
