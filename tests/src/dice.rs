//! **Dice**: random choices that are the same for the same seed.

use std::time::{SystemTime, UNIX_EPOCH};

/// Set it to the seed that a failed test printed, and its dice fall the same way again.
pub const SEED: &str = "VCB_SEED";

/// A source of choices.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice whose seed is of the moment, or that of [`SEED`]; it is printed.
    pub fn of_the_moment(what: &str) -> Self {
        let given = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_micros()).unwrap_or(0)
        });
        println!("{what}: {SEED}={seed}");
        Self(seed)
    }

    /// Dice with this seed.
    pub fn with_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // splitmix64: small, and good enough for choices.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    /// One of these, which are not none.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let place = self.below(choices.len() as u64);
        choices[usize::try_from(place).unwrap_or(0)]
    }

    /// Both ends of a range of revisions and `count` between them, sorted, each once.
    pub fn revisions(&mut self, first: i64, last: i64, count: usize) -> Vec<i64> {
        let span = u64::try_from(last - first).unwrap_or(0) + 1;
        let mut between: Vec<i64> =
            (0..count).map(|_| first + i64::try_from(self.below(span)).unwrap_or(0)).collect();
        between.extend([first, last]);
        between.sort_unstable();
        between.dedup();
        between
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_row_of_choices() {
        let throws = |seed| {
            let mut dice = Dice::with_seed(seed);
            (0..20).map(|_| dice.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(throws(7), throws(7));
        assert_ne!(throws(7), throws(8));
        let revisions = Dice::with_seed(7).revisions(5, 5000, 30);
        assert_eq!((revisions.first(), revisions.last()), (Some(&5), Some(&5000)));
        assert!(revisions.is_sorted() && revisions.len() > 25, "{revisions:?}");
        assert_eq!(Dice::with_seed(1).revisions(3, 3, 5), [3]);
    }
}
