//! The **counts** of tests, read from what cargo's test harness writes.

use std::collections::BTreeMap;

/// How many tests passed, and which did not.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Reported as passed, skipped ones among them.
    ok: usize,
    /// Reported as failed.
    pub failed: usize,
    /// Names of the failed ones.
    pub failures: Vec<String>,
    /// Tests that did not run in full, and why.
    pub skipped: BTreeMap<String, String>,
    /// How many of them the harness reported as ignored, not as passed.
    ignored: usize,
}

impl Counts {
    /// Reads one line of output.
    pub fn read(&mut self, line: &str) {
        if let Some(sums) = line.strip_prefix("test result: ") {
            // "ok. 9 passed; 0 failed; 1 ignored; 0 measured; …"
            let sum = |word: &str| {
                let before = sums.split([';', '.']).find_map(|part| part.trim().strip_suffix(word));
                before.and_then(|number| number.trim().parse::<usize>().ok()).unwrap_or(0)
            };
            self.ok += sum("passed");
            self.failed += sum("failed");
            self.ignored += sum("ignored");
        } else if let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
        {
            if outcome == "FAILED" {
                self.failures.push(name.to_owned());
            } else if let Some(reason) = outcome.strip_prefix("ignored") {
                let reason =
                    if reason.is_empty() { "ignored" } else { reason.trim_start_matches([',', ' ']) };
                self.skipped.insert(name.to_owned(), reason.to_owned());
            }
        }
    }

    /// Reads the lines `NAME<tab>reason` that skipped tests left behind.
    pub fn skip(&mut self, lines: &str) {
        let pairs = lines.lines().filter_map(|line| line.split_once('\t'));
        self.skipped.extend(pairs.map(|(name, reason)| (name.to_owned(), reason.to_owned())));
    }

    /// Those that ran and passed. A test that skips itself returns, and is reported as passed.
    pub fn passed(&self) -> usize {
        let returned_early = self.skipped.len().saturating_sub(self.ignored);
        self.ok.saturating_sub(returned_early)
    }

    /// Adds those of another step.
    pub fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.failures.extend(other.failures);
        self.skipped.extend(other.skipped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 4 tests
test a::b ... ok
test a::c ... FAILED
test a::d ... ignored
test a::e ... ignored, takes an hour

test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.06s
test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.06s
";

    #[test]
    fn sums_and_names_are_read() {
        let mut counts = Counts::default();
        OUTPUT.lines().for_each(|line| counts.read(line));
        assert_eq!((counts.passed(), counts.failed), (6, 1));
        assert_eq!(counts.failures, ["a::c"]);
        assert_eq!(counts.skipped["a::e"], "takes an hour");
        assert_eq!(counts.skipped.len(), 2);
    }

    #[test]
    fn who_skips_itself_has_not_passed() {
        let mut counts = Counts::default();
        OUTPUT.lines().for_each(|line| counts.read(line));
        counts.skip("f\tkine is missing: no Go\ng\tminio is missing: no Go\nf\tkine is missing: no Go\n");
        assert_eq!((counts.passed(), counts.failed, counts.skipped.len()), (4, 1, 4));
        let mut sum = Counts::default();
        sum.read(
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        sum.add(counts);
        assert_eq!((sum.passed(), sum.failed, sum.skipped.len()), (7, 1, 4));
    }
}
