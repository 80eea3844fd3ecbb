//! The **definitions** that ship, made of the Rust types that read them: both XRDs and the Input's CRD. So a field
//! cannot be in one and not in the other, and a default is said once. Run by `cargo xtask schemas`.
//!
//! ```text
//!  Spec, Status, Input ──schemars──► JSON schema ──structural──► what Kubernetes takes ──yaml──► files
//! ```

mod definition;
mod structural;
mod yaml;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;

use definition::File;

/// Writes the definitions that ship, or checks them.
#[derive(Parser)]
#[command(name = "vcluster-backup-schemas")]
struct Args {
    /// Write nothing; fail if a file is not what the types say
    #[arg(long)]
    check: bool,
}

fn main() -> Result<ExitCode> {
    let check = Args::parse().check;
    let mut code = ExitCode::SUCCESS;
    for File { path, text } in definition::all()? {
        let place = root().join(path);
        let there = fs::read_to_string(&place).unwrap_or_default();
        if there == text {
            continue;
        }
        if check {
            eprintln!("{path}: {}", difference(&there, &text));
            code = ExitCode::FAILURE;
        } else {
            fs::write(&place, text).with_context(|| format!("cannot write {path}"))?;
            eprintln!("{path}: written");
        }
    }
    if code == ExitCode::FAILURE {
        eprintln!("The types are what counts: `cargo xtask schemas` writes the files anew.");
    }
    Ok(code)
}

/// The folder with the workspace's `Cargo.toml`.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where two texts part, as a person looks for it.
fn difference(there: &str, wanted: &str) -> String {
    let line = |text: &str, at: usize| {
        text.lines().nth(at).map_or("the end of the file".to_owned(), |line| format!("`{}`", line.trim()))
    };
    let at = there.lines().zip(wanted.lines()).take_while(|(a, b)| a == b).count();
    format!("line {} has {}, and the types say {}", at + 1, line(there, at), line(wanted, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_shown_where_it_begins() {
        assert_eq!(difference("a\n  b\n", "a\n  c\n"), "line 2 has `b`, and the types say `c`");
        assert_eq!(difference("", "a\n"), "line 1 has the end of the file, and the types say `a`");
    }
}
