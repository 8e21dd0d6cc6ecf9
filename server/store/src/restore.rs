//! What is common to all implementations of [`Store::restore`](crate::Store::restore).

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::{Revision, StoreError};

/// Keys and values in batches, keys ascending; an error ends a restore.
pub type PairStream = BoxStream<'static, Result<Vec<(String, Bytes)>, StoreError>>;

/// The greatest revision that a restore may begin at: beyond any that a store could reach by writing, and far from the
/// end of the numbers.
const MAX_BASE: Revision = 1 << 60;

/// Checks that keys ascend, so that none comes twice.
#[derive(Debug, Default)]
pub struct Ascending {
    last: Option<String>,
}

impl Ascending {
    /// Takes the next key.
    pub fn check(&mut self, key: &str) -> Result<(), StoreError> {
        match &mut self.last {
            Some(last) if last.as_str() >= key => {
                Err(StoreError::Corrupt(format!("the key {key} comes after {last}, but keys must ascend")))
            }
            Some(last) => {
                key.clone_into(last);
                Ok(())
            }
            None => {
                self.last = Some(key.to_owned());
                Ok(())
            }
        }
    }
}

/// The revision after which restored pairs begin; at least one revision is used, so that a store that is restored to
/// nothing has also moved on.
pub(crate) fn base(floor: Revision, newest: Revision) -> Result<Revision, StoreError> {
    match floor.max(newest).checked_add(1) {
        Some(base) if base <= MAX_BASE => Ok(base),
        _ => Err(StoreError::Corrupt(format!("a store cannot begin at revision {floor}"))),
    }
}
