//! The **story** on the terminal: steps as they run, with a line that moves where one lasts, and a table at the end.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A story being told.
pub struct Story {
    step: u32,
    began: Instant,
}

/// A step that lasts. Gone from the screen when it ends.
pub struct Lasting(ProgressBar);

impl Story {
    /// Begins it.
    pub fn begin(title: &str) -> Self {
        println!("{title}\n");
        Self { step: 0, began: Instant::now() }
    }

    /// Names the next step.
    pub fn step(&mut self, title: &str) {
        self.step += 1;
        println!("{:>2}. {title}", self.step);
    }

    /// The table of figures, and the end.
    pub fn end(&self, figures: &[(&str, String)]) {
        let width = figures.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let values = figures.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
        println!();
        for (name, value) in figures {
            println!("   {name:width$}  {value:>values$}");
        }
        println!("\nEvery step held, in {:.1} s.", self.began.elapsed().as_secs_f64());
    }
}

/// Something seen in a step.
pub fn seen(what: &str) {
    println!("      {what}");
}

impl Lasting {
    /// A line that moves while something lasts; on a terminal only.
    pub fn begin(what: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("      {spinner} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    /// What it is about now.
    pub fn now(&self, what: String) {
        self.0.set_message(what);
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
