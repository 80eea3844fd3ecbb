//! The repository's own lint: what neither compiler nor clippy can know.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::command::quiet;
use crate::workspace;

/// All of it, in a second.
pub fn check() -> Result<()> {
    ring_alone()?;
    let path = workspace::root().join("Cargo.toml");
    let manifest = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let bare = without_reason(&manifest);
    ensure!(
        bare.is_empty(),
        "dependencies without a reason (`# …` at the end of the line): {}",
        bare.join(", ")
    );
    Ok(())
}

/// ring is the only crypto and TLS provider.
fn ring_alone() -> Result<()> {
    let tree = quiet(&mut workspace::cargo(&[
        "tree",
        "--workspace",
        "--target",
        "all",
        "--edges",
        "all",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]))?;
    let tree = String::from_utf8_lossy(&tree.stdout);
    let found = other_providers(&tree);
    ensure!(found.is_empty(), "ring is the only crypto provider, but the tree has {}", found.join(", "));
    Ok(())
}

fn other_providers(tree: &str) -> Vec<&str> {
    // Not by prefix: openssl-probe only knows where systems keep their certificates.
    let others = ["native-tls", "openssl", "openssl-sys", "openssl-src"];
    let forbidden = |name: &&str| name.starts_with("aws-lc") || others.contains(name);
    let mut found: Vec<&str> =
        tree.lines().filter_map(|line| line.split_ascii_whitespace().next()).filter(forbidden).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Dependencies from outside, in the workspace's own manifest, that do not say why they are in the house.
fn without_reason(manifest: &str) -> Vec<&str> {
    manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#') && !line.contains("path = "))
        .filter_map(|line| {
            let (name, rest) = line.split_once(" = ")?;
            let reason = rest.split_once('#').map_or("", |(_, reason)| reason.trim());
            reason.is_empty().then_some(name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_providers_are_seen() {
        let tree = "ring v0.17.14\naws-lc-rs v1.0.0\nrustls v0.23.0\nopenssl-sys v0.9.0 (*)\naws-lc-rs v1.0.0 (*)\n\
                    openssl-probe v0.2.1\n";
        assert_eq!(other_providers(tree), ["aws-lc-rs", "openssl-sys"]);
    }

    #[test]
    fn every_dependency_says_why() {
        let manifest = "[workspace]\nmembers = []\n[workspace.dependencies]\nown = { path = \"own\" }\n\n# --- both\n\
                        a = \"1\" # errors\nb = \"2\"\nc = { version = \"3\" } #\n[lints]\nd = \"1\"\n";
        assert_eq!(without_reason(manifest), ["b", "c"]);
    }
}
