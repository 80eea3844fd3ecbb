//! The **cause** of an error, for logs and people: the whole chain in one line.

use std::error::Error;

/// The error and its causes, each once: a transparent error repeats its source.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut told: Vec<String> = Vec::new();
    for cause in std::iter::successors(Some(error), |error| (*error).source()) {
        let cause = cause.to_string();
        if !told.last().is_some_and(|last| last.ends_with(&cause)) {
            told.push(cause);
        }
    }
    told.join(": ")
}
