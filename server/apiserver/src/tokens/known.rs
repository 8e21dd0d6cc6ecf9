//! Tokens whose signature has been checked: checking one costs more than all else that a request is asked. What a
//! token says is remembered, and looked at anew with every request.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};

use super::claims::Claims;

/// How many tokens a generation holds; two generations are kept.
const GENERATION: usize = 4_096;

type Tokens = HashMap<[u8; 32], Arc<Claims>>;

/// The tokens of this generation and of the one before.
#[derive(Default)]
pub(super) struct Known(RwLock<(Tokens, Tokens)>);

impl Known {
    /// What a token says that is known to be genuine.
    pub(super) fn get(&self, token: &str) -> Option<Arc<Claims>> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let generations = self.0.read();
        generations.0.get(&digest).or_else(|| generations.1.get(&digest)).cloned()
    }

    /// Remembers a genuine token.
    pub(super) fn put(&self, token: &str, claims: Arc<Claims>) {
        let mut generations = self.0.write();
        if generations.0.len() >= GENERATION {
            generations.1 = std::mem::take(&mut generations.0);
        }
        generations.0.insert(Sha256::digest(token).into(), claims);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_tokens_make_room() {
        let known = Known::default();
        for number in 0..GENERATION * 3 {
            known.put(&number.to_string(), Arc::default());
        }
        assert!(known.get("0").is_none());
        assert!(known.get(&(GENERATION * 3 - 1).to_string()).is_some());
        let held = known.0.read();
        assert!(held.0.len() + held.1.len() <= GENERATION * 2);
    }
}
