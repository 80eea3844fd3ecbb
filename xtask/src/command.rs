//! A **command** of another program whose output matters only when it fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};

/// So many last lines of a failed command are shown: a compiler's error, not its whole log.
const TAIL: usize = 40;

/// Runs it to its end. A failure carries the end of what it wrote.
pub fn quiet(command: &mut Command) -> Result<Output> {
    let line = display(command);
    let output = command.output().with_context(|| format!("cannot start {line}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let mut written = String::from_utf8_lossy(&output.stdout).into_owned();
    written.push_str(&String::from_utf8_lossy(&output.stderr));
    bail!("{line}: {}\n{}", output.status, tail(&written))
}

/// The program of this name on the search path.
pub fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|candidate| is_program(candidate))
}

/// Whether it is a file that may be executed.
pub fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn display(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_shows_the_end_of_its_output() {
        let error = quiet(Command::new("sh").args(["-c", "seq 1 100; echo broken >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("sh -c seq 1 100"), "{error}");
        assert!(error.ends_with("\n99\n100\nbroken"), "{error}");
        assert!(!error.contains("\n61\n"), "{error}");
        assert!(
            quiet(&mut Command::new("/no/such/program")).unwrap_err().to_string().contains("cannot start")
        );
    }

    #[test]
    fn only_programs_are_found() {
        assert!(is_program(&on_path("sh").unwrap()));
        assert!(on_path("no-such-program-anywhere").is_none());
        assert!(!is_program(Path::new("/")));
    }
}
