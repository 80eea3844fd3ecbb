//! **Globs** over namespaces: `*` stands for any text, `?` for one character.

/// Why a pattern was refused.
pub fn check(pattern: &str) -> Result<(), &'static str> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '*' | '?');
    if pattern.is_empty() || !pattern.chars().all(known) {
        Err("it is no glob over namespaces")
    } else {
        Ok(())
    }
}

/// Whether `pattern` admits `name`.
pub fn admits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut upto) = (0, 0);
    // The last `*` and where it began to match: what to go back to, so that the work stays linear in both.
    let mut star: Option<(usize, usize)> = None;
    while upto < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, upto));
                at += 1;
            }
            Some(&c) if c == b'?' || c == name[upto] => {
                at += 1;
                upto += 1;
            }
            _ => match star {
                Some((position, begun)) => {
                    star = Some((position, begun + 1));
                    at = position + 1;
                    upto = begun + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_admit_what_they_say() {
        for (pattern, name, admitted) in [
            ("team-*", "team-a", true),
            ("team-*", "team-", true),
            ("team-*", "kube-system", false),
            ("*", "anything", true),
            ("team-?", "team-a", true),
            ("team-?", "team-ab", false),
            ("*-dev-*", "a-dev-dev-b", true),
            ("*-dev", "a-dev-dev", true),
            ("team-a", "team-a", true),
            ("team-a", "team-ab", false),
            ("", "a", false),
        ] {
            assert_eq!(admits(pattern, name), admitted, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_that_no_namespace_meets_is_refused() {
        for pattern in ["", "Team", "a/b", "[ab]"] {
            assert!(check(pattern).is_err(), "{pattern}");
        }
    }
}
