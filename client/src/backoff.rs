//! Delays between attempts: exponential, with a limit and with jitter, so that those who failed together do not
//! come back together.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// A growing delay.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    attempts: u32,
}

impl Backoff {
    /// Delays that begin at `first` and double up to `limit`.
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, attempts: 0 }
    }

    /// The next delay: between half of the exponential value and the whole of it. `random` is any number.
    pub fn next(&mut self, random: u64) -> Duration {
        let whole = exponential(self.first, self.limit, self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        jittered(whole, random)
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// `first` doubled `attempts` times, at most `limit`.
pub fn exponential(first: Duration, limit: Duration, attempts: u32) -> Duration {
    2_u32.checked_pow(attempts).and_then(|factor| first.checked_mul(factor)).map_or(limit, |delay| delay.min(limit))
}

/// Between half of a delay and the whole of it. `random` is any number.
pub fn jittered(whole: Duration, random: u64) -> Duration {
    let half = whole / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_nanos(random % nanos)
}

/// A number that differs from call to call and from process to process. Good for jitter, not for secrets.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit() {
        let (first, limit) = (Duration::from_millis(100), Duration::from_secs(1));
        let whole: Vec<u128> = (0..6).map(|n| exponential(first, limit, n).as_millis()).collect();
        assert_eq!(whole, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(exponential(first, limit, 4000), limit);
        for seed in [0, 1, u64::MAX] {
            let delay = jittered(limit, seed);
            assert!(delay >= limit / 2 && delay <= limit, "{delay:?}");
        }
    }
}
