//! The **report** of a run: its steps as they go, and at the end what became of each.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::counts::Counts;

/// What was done so far.
#[derive(Default)]
pub struct Report {
    steps: Vec<Step>,
    counts: Counts,
}

struct Step {
    name: &'static str,
    took: Duration,
    outcome: Outcome,
}

enum Outcome {
    Passed,
    Failed(String),
    /// Not run, and why.
    Absent(&'static str),
}

impl Report {
    /// Runs a step and keeps its outcome.
    pub fn step(&mut self, name: &'static str, work: impl FnOnce(&mut Counts) -> Result<()>) {
        eprintln!("\n=== {name}");
        let (start, mut counts) = (Instant::now(), Counts::default());
        let result = work(&mut counts);
        let outcome = match result {
            Ok(()) => Outcome::Passed,
            Err(error) => {
                // What names no failed test (a lint, a compiler's error) still counts.
                counts.failed = counts.failed.max(1);
                Outcome::Failed(format!("{error:#}"))
            }
        };
        self.counts.add(counts);
        let step = Step { name, took: start.elapsed(), outcome };
        eprintln!("=== {}", step.line());
        self.steps.push(step);
    }

    /// Notes a step that cannot be run here.
    pub fn absent(&mut self, name: &'static str, why: &'static str) {
        self.steps.push(Step { name, took: Duration::ZERO, outcome: Outcome::Absent(why) });
    }

    /// Prints the summary. `skips_fail`: a skipped test is a failure too.
    pub fn close(self, skips_fail: bool) -> ExitCode {
        println!("\nsummary");
        for step in &self.steps {
            println!("  {}", step.line());
        }
        for name in &self.counts.failures {
            println!("failed: {name}");
        }
        for (name, reason) in &self.counts.skipped {
            println!("skipped: {name}: {reason}");
        }
        let skipped = self.counts.skipped.len();
        if skips_fail && skipped > 0 {
            println!("CI=true: skipped tests are a failure");
        }
        println!("{} passed, {} failed, {skipped} skipped", self.counts.passed(), self.counts.failed);
        let failed = self.counts.failed > 0 || (skips_fail && skipped > 0);
        if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

impl Step {
    fn line(&self) -> String {
        let what = match &self.outcome {
            Outcome::Passed => "ok".to_owned(),
            Outcome::Failed(error) => format!("FAILED: {error}"),
            Outcome::Absent(why) => format!("not run: {why}"),
        };
        format!("{:<32} {:>6.1} s  {what}", self.name, self.took.as_secs_f64())
    }
}
