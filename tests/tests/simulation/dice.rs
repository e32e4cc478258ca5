//! All random choices of a history, from one seed.

use std::time::Duration;

/// `SplitMix64` (Steele, Lea, Flood 2014): small, and the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Returns `true` in `percent` of all cases.
    pub(crate) fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns one of these.
    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        let index = self.below(all.len() as u64);
        all[usize::try_from(index).unwrap_or_default()]
    }

    /// Returns a time below `end`, on a logarithmic scale: some are seconds, some hours.
    pub(crate) fn time(&mut self, end: Duration) -> Duration {
        let end = u64::try_from(end.as_millis()).unwrap_or(u64::MAX);
        let magnitude = self.below(u64::from(end.max(2).ilog2()) + 1);
        Duration::from_millis(self.below((1_u64 << (magnitude + 1)).min(end)))
    }
}
