//! **Checks** of names that people write, before anything is made of them.

use crate::condition::{Kind, Reason};
use crate::fatal::Fatal;

/// Longest name of a Kubernetes label, namespace and S3 bucket.
pub const LABEL: usize = 63;
/// Longest name of a Kubernetes object.
const SUBDOMAIN: usize = 253;
/// Longest folder in a bucket: an object's whole name may have 1024 bytes.
const FOLDER: usize = 512;

/// Checks a name that goes into DNS: a namespace, a Service.
pub fn label(field: &str, name: &str) -> Result<(), Fatal> {
    if name.len() <= LABEL && is_framed(name, "-") {
        return Ok(());
    }
    Err(Fatal::new(
        field,
        "it is no DNS label",
        "take at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit",
    ))
}

/// Checks the name of a Kubernetes object.
pub fn subdomain(field: &str, name: &str) -> Result<(), Fatal> {
    if name.len() <= SUBDOMAIN && name.split('.').all(|label| is_framed(label, "-")) {
        return Ok(());
    }
    Err(Fatal::new(field, "it is no name of a Kubernetes object", "take a-z, 0-9, - and ."))
}

/// Checks a pin's name, which becomes part of an object's name in the bucket.
pub fn pin(field: &str, name: &str) -> Result<(), Fatal> {
    if name.len() <= LABEL && is_framed(name, "-.") {
        return Ok(());
    }
    Err(Fatal::new(
        field,
        "it is no name of a pin",
        "take at most 63 of a-z, 0-9, - and ., beginning and ending with a letter or digit",
    ))
}

/// Checks an S3 bucket's name: what every server takes.
pub fn bucket(field: &str, name: &str) -> Result<(), Fatal> {
    if (3..=LABEL).contains(&name.len()) && is_framed(name, "-.") && !name.contains("..") {
        return Ok(());
    }
    Err(Fatal::new(
        field,
        "it is no bucket name",
        "take 3 to 63 of a-z, 0-9, - and ., beginning and ending with a letter or digit",
    )
    .shown_as(Kind::StorageReady, Reason::Refused))
}

/// Checks a folder in a bucket.
pub fn folder(field: &str, name: &str) -> Result<(), Fatal> {
    if (1..=FOLDER).contains(&name.len()) && name.chars().all(|c| c.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Fatal::new(field, "it is no folder of a bucket", "take 1 to 512 visible ASCII characters"))
}

/// Lower-case letters and digits, and between them any of `inner`.
fn is_framed(name: &str, inner: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.starts_with(plain) && name.ends_with(plain) && name.chars().all(|c| plain(c) || inner.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_their_readers_take() {
        type Check = fn(&str, &str) -> Result<(), Fatal>;
        let long = "a".repeat(64);
        let cases: [(Check, &[&str], &[&str]); 5] = [
            (label, &["a", "team-a", "0"], &["", "-a", "a-", "A", "a.b", "a_b", "é", &long]),
            (subdomain, &["a.b", "team-a.dev-backup"], &["", "a..b", ".a", "a-.b"]),
            (pin, &["before-1.2"], &["", ".a", "a/b", "..", &long]),
            (bucket, &["vcb-a", "a.b"], &["ab", "a..b", "a/b", "-ab", &long]),
            (folder, &["prod/team-a/dev", "_cluster/x"], &["", "a b", "é", "\u{0}"]),
        ];
        for (check, good, bad) in cases {
            for name in good {
                assert!(check("field", name).is_ok(), "{name}");
            }
            for name in bad {
                assert!(check("field", name).is_err(), "{name}");
            }
        }
    }
}
