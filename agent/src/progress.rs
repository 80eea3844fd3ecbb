//! **Progress** of long work: a bar with rate and remaining time, on a terminal only.

use std::io::{IsTerminal as _, Read};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar, or nothing where nobody looks.
#[derive(Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar over `bytes`; hidden unless stderr is a terminal.
    pub fn bytes(what: &'static str, bytes: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(bytes);
        let style = "{msg:<12} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what);
        Self(bar)
    }

    /// A bar over so many objects; hidden unless stderr is a terminal.
    pub fn objects(what: &'static str, objects: usize) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::hidden();
        }
        let bar = ProgressBar::new(objects as u64);
        let style = "{msg:<12} {wide_bar} {pos}/{len} {per_sec} {eta} left";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what);
        Self(bar)
    }

    /// One object more is done.
    pub fn advance(&self) {
        self.0.inc(1);
    }

    /// No bar.
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Counts what is read.
    pub fn reading<R: Read>(&self, reader: R) -> impl Read + use<R> {
        self.0.wrap_read(reader)
    }

    /// Clears the bar.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
