//! The **latency** of many writes: the usual one, the bad one, the worst.

use std::fmt;
use std::time::Duration;

/// What so many writes took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// How many.
    pub count: usize,
    /// Half of them took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// None took longer.
    pub max: Duration,
}

impl Latency {
    /// Of these; none if there are none.
    pub fn of(took: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let mut took: Vec<Duration> = took.into_iter().collect();
        took.sort_unstable();
        // The nearest rank: a value that was measured, not one between two.
        let rank = |percent: usize| took.get((took.len() * percent).div_ceil(100).max(1) - 1).copied();
        Some(Self { count: took.len(), p50: rank(50)?, p99: rank(99)?, max: rank(100)? })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = [self.p50, self.p99, self.max].map(|took| took.as_secs_f64() * 1000.0);
        write!(f, "{:>6} writes  p50 {p50:>7.2} ms  p99 {p99:>7.2} ms  max {max:>8.2} ms", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_values_that_were_measured() {
        let latency = Latency::of((1..=200).rev().map(Duration::from_millis));
        let ms = Duration::from_millis;
        assert_eq!(latency, Some(Latency { count: 200, p50: ms(100), p99: ms(198), max: ms(200) }));
        assert_eq!(Latency::of([ms(5)]).map(|one| (one.p50, one.p99, one.max)), Some((ms(5), ms(5), ms(5))));
        assert_eq!(Latency::of([]), None);
    }
}
