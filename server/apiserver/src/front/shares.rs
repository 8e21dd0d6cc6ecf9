//! What one user may hold at a time of what all share: one who opens watches without end leaves room for others.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// How many of something each user holds.
pub struct Shares {
    most: usize,
    held: Mutex<HashMap<String, usize>>,
}

/// One of a user's share, until it is dropped.
pub struct Share {
    shares: Arc<Shares>,
    user: String,
}

impl Shares {
    /// Every user may hold so many.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::default() })
    }

    /// One more for a user; `None` where that would be too many.
    pub fn take(self: &Arc<Self>, user: &str) -> Option<Share> {
        let mut held = self.held.lock();
        let count = held.entry(user.to_owned()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Share { shares: Arc::clone(self), user: user.to_owned() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.held.lock();
        if let Some(count) = held.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_holds_no_more_than_a_share_and_others_have_theirs() {
        let shares = Shares::new(2);
        let mut mine: Vec<_> = (0..2).map(|_| shares.take("a")).collect();
        assert!(mine.iter().all(Option::is_some));
        assert!(shares.take("a").is_none());
        assert!(shares.take("b").is_some());
        mine.pop();
        assert!(shares.take("a").is_some());
        drop(mine);
        assert!(shares.held.lock().is_empty(), "nobody is remembered who holds nothing");
    }
}
