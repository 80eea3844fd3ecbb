//! `cargo xtask bench agent`: the agent, no agent and litestream side by side on this machine, in one run, on real kine and
//! MinIO. Absolute figures are the machine's; the ratios are what carries over.

#![forbid(unsafe_code)]

mod beside;
mod litestream;
mod measure;
mod table;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::{Value, json};

use beside::Contender;
use measure::{Cost, Writes};
use table::Table;

/// The agent, no agent and litestream side by side; about six minutes.
#[derive(Parser)]
#[command(name = "cargo xtask bench agent", max_term_width = 110)]
struct Args {
    /// One JSON document on stdout in place of the table
    #[arg(long)]
    json: bool,
}

/// All that was measured.
struct Figures {
    alone: Writes,
    agent: (Writes, Cost),
    litestream: (Writes, Cost),
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match measured().await {
        Ok(figures) if args.json => println!("{}", figures.to_json()),
        Ok(figures) => println!("{}", figures.to_table()),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

async fn measured() -> Result<Figures> {
    eprintln!("kine alone: writes through compactions");
    let alone = measure::writes(Contender::Alone).await?;
    let mut both = Vec::new();
    for (contender, name) in [(Contender::Agent, "the agent"), (Contender::Litestream, "litestream")] {
        eprintln!("{name}: writes through compactions");
        let writes = measure::writes(contender).await?;
        eprintln!("{name}: a minute's cost on 200 MB, restore");
        both.push((writes, measure::cost(contender).await?));
    }
    let litestream = both.pop().context("both were measured")?;
    let agent = both.pop().context("both were measured")?;
    Ok(Figures { alone, agent, litestream })
}

impl Figures {
    fn to_json(&self) -> Value {
        let contender = |(writes, cost): &(Writes, Cost)| json!({"writes": writes, "cost": cost});
        json!({
            "alone": {"writes": self.alone},
            "agent": contender(&self.agent),
            "litestream": contender(&self.litestream),
        })
    }

    #[allow(clippy::cast_precision_loss)] // bytes and counts of a bench fit 53 bits
    fn to_table(&self) -> Table<3> {
        let mut table = Table::new(["kine alone", "with the agent", "with litestream"]);
        let writes = |of: fn(&Writes) -> f64| {
            [&self.alone, &self.agent.0, &self.litestream.0].map(|writes| Some(of(writes)))
        };
        table.line("a write takes, p50", "ms", writes(|writes| writes.p50_ms));
        table.line("a write takes, p99", "ms", writes(|writes| writes.p99_ms));
        table.line("a write takes at most", "ms", writes(|writes| writes.max_ms));
        table.line(
            "failed writes; the first ends it",
            "",
            writes(|writes| f64::from(u8::from(writes.failed))),
        );
        let cost = |of: fn(&Cost) -> f64| [None, Some(of(&self.agent.1)), Some(of(&self.litestream.1))];
        table.line("uploaded in a minute", "kB", cost(|cost| cost.uploaded_bytes as f64 / 1e3));
        table.line("uploads in a minute", "", cost(|cost| cost.uploads as f64));
        table.line("all requests in a minute", "", cost(|cost| cost.requests.values().sum::<u64>() as f64));
        table.line("restore of 200 MB", "s", cost(|cost| cost.restore_seconds));
        table.line("most memory", "MiB", cost(|cost| cost.peak_memory_bytes as f64 / 1_048_576.0));
        table
    }
}
