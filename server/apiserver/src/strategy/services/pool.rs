//! A pool of numbers of which each has at most one holder: Service addresses and node ports.

use std::sync::Arc;

use parking_lot::Mutex;

/// Bits a word of the map.
const WORD_BITS: u32 = u64::BITS;

/// A pool holds at most this many numbers (128 KiB of map).
pub const MAX_POOL_SIZE: u32 = 1 << 20;

/// What is taken of a range of numbers.
#[derive(Debug)]
pub struct Pool {
    first: u32,
    size: u32,
    /// Numbers at the beginning that are given out only when asked for by name, or when nothing else is left.
    reserved: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    taken: Vec<u64>,
    /// Where the search for a free number goes on, so that one given back is not given out again at once.
    next: u32,
}

/// Why a number was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// Somebody holds it.
    Taken,
    /// It is not in the pool.
    OutOfRange,
    /// All are held.
    Full,
}

/// A number that is taken; given back when dropped unless it is kept.
#[derive(Debug)]
pub struct Hold {
    /// `None` once the number is kept.
    pool: Option<Arc<Pool>>,
    value: u32,
}

impl Hold {
    /// The number.
    pub fn value(&self) -> u32 {
        self.value
    }

    /// Leaves the number taken: what it was taken for has been written.
    pub fn keep(mut self) {
        self.pool = None;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.release(self.value);
        }
    }
}

impl Pool {
    /// A pool of the numbers from `first` on; no more than [`MAX_POOL_SIZE`] of them are used.
    pub fn new(first: u32, size: u32, reserved: u32) -> Self {
        let size = size.min(MAX_POOL_SIZE);
        let words = size.div_ceil(WORD_BITS) as usize;
        Self { first, size, reserved, state: Mutex::new(State { taken: vec![0; words], next: reserved }) }
    }

    /// Takes one number.
    pub fn take(self: &Arc<Self>, value: u32) -> Result<Hold, PoolError> {
        let at = self.index(value).ok_or(PoolError::OutOfRange)?;
        let mut state = self.state.lock();
        if state.is_taken(at) {
            return Err(PoolError::Taken);
        }
        state.set(at, true);
        Ok(Hold { pool: Some(self.clone()), value })
    }

    /// Takes any free number.
    pub fn take_any(self: &Arc<Self>) -> Result<Hold, PoolError> {
        let mut state = self.state.lock();
        let from = state.next.clamp(self.reserved.min(self.size), self.size);
        let free = (from..self.size).chain(self.reserved..from).chain(0..self.reserved.min(self.size));
        let at = { free }.find(|at| !state.is_taken(*at)).ok_or(PoolError::Full)?;
        state.set(at, true);
        state.next = at + 1;
        Ok(Hold { pool: Some(self.clone()), value: self.first + at })
    }

    /// Marks a number as taken, whoever holds it: what was written before this process started.
    pub fn adopt(&self, value: u32) {
        if let Some(at) = self.index(value) {
            self.state.lock().set(at, true);
        }
    }

    /// Gives a number back.
    pub fn release(&self, value: u32) {
        if let Some(at) = self.index(value) {
            self.state.lock().set(at, false);
        }
    }

    /// The place of a number in the map.
    fn index(&self, value: u32) -> Option<u32> {
        value.checked_sub(self.first).filter(|at| *at < self.size)
    }
}

impl State {
    fn is_taken(&self, at: u32) -> bool {
        self.taken.get((at / WORD_BITS) as usize).is_none_or(|word| word >> (at % WORD_BITS) & 1 == 1)
    }

    fn set(&mut self, at: u32, taken: bool) {
        let Some(word) = self.taken.get_mut((at / WORD_BITS) as usize) else { return };
        let bit = 1 << (at % WORD_BITS);
        *word = if taken { *word | bit } else { *word & !bit };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_dropped_hold_gives_back_and_a_kept_one_does_not() {
        let pool = Arc::new(Pool::new(10, 4, 1));
        let kept = pool.take(12).unwrap();
        assert_eq!(pool.take(12).unwrap_err(), PoolError::Taken);
        kept.keep();
        assert_eq!(Arc::strong_count(&pool), 1);
        drop(pool.take(11).unwrap());
        assert_eq!(pool.take(9).unwrap_err(), PoolError::OutOfRange);
        assert_eq!(pool.take(14).unwrap_err(), PoolError::OutOfRange);
        let given: Vec<u32> = (0..3)
            .map(|_| {
                let hold = pool.take_any().unwrap();
                let value = hold.value();
                hold.keep();
                value
            })
            .collect();
        assert_eq!(given, [11, 13, 10], "the reserved ones come last");
        assert_eq!(pool.take_any().unwrap_err(), PoolError::Full);
        pool.release(13);
        assert_eq!(pool.take_any().unwrap().value(), 13);
    }
}
