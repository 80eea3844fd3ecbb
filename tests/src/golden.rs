//! **Golden** files: what a rendering printed when somebody last looked at it, in `tests/golden/`.
//!
//! `UPDATE_GOLDEN=1` writes them anew; the difference is then read in the commit.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// Fails where `text` differs from the golden file `name`.
pub fn check(name: &str, text: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1") {
        let folder = path.parent().context("a golden file lies in a folder")?;
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, text))
            .with_context(|| format!("cannot write {}", path.display()))?;
        return Ok(());
    }
    let golden = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}: UPDATE_GOLDEN=1 writes it", path.display()))?;
    match difference(&golden, text) {
        None => Ok(()),
        Some(difference) => {
            bail!("not as in {}; if it should be so, UPDATE_GOLDEN=1 writes it\n{difference}", path.display())
        }
    }
}

/// The first lines that differ, with those before them; none if nothing does.
pub fn difference(golden: &str, text: &str) -> Option<String> {
    if golden == text {
        return None;
    }
    let (golden, text): (Vec<&str>, Vec<&str>) = (golden.lines().collect(), text.lines().collect());
    let same = golden.iter().zip(&text).take_while(|(a, b)| a == b).count();
    let begin = same.saturating_sub(3);
    let shown = |lines: &[&str], sign: char| -> Vec<String> {
        lines.iter().skip(same).take(8).map(|line| format!("{sign} {line}")).collect()
    };
    let mut told = vec![format!("line {}:", same + 1)];
    told.extend(golden[begin..same].iter().map(|line| format!("  {line}")));
    told.extend(shown(&golden, '-'));
    told.extend(shown(&text, '+'));
    Some(told.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_show_their_place() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(difference("a\nb\nc\n", "a\nx\nc\n").as_deref(), Some("line 2:\n  a\n- b\n- c\n+ x\n+ c"));
        // A line more or less, or a last line without its end, is a difference too.
        assert_eq!(difference("a\n", "a\nb\n").as_deref(), Some("line 2:\n  a\n+ b"));
        assert!(difference("a\n", "a").is_some());
    }
}
