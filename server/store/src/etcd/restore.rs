//! Replacing everything in etcd, which has no transaction of that size.
//!
//! First the base of revisions says that a restore has begun: from then on every server refuses everything, for each
//! of their reads and writes looks at it, and so does the next start. Only when all is written the base says so, with
//! a number that no revision before reaches; then the history before is compacted. Whoever begins another restore
//! meanwhile takes this one's place: each step requires the base to be as this one has left it.

use bytes::Bytes;
use etcd_client::{Compare, CompareOp, DeleteOptions, Txn, TxnOp};
use futures::TryStreamExt;

use super::{Inner, endpoints::Again, failure::Failure, found, layout::Base, revision_of};
use crate::{Ascending, PairStream, Revision, StoreError};

/// How many pairs and bytes are written at once: below etcd's --max-txn-ops and --max-request-bytes, as they are by
/// default.
const STEP: (usize, usize) = (100, 1 << 20);

/// A restore under way.
struct Restore<'a> {
    inner: &'a Inner,
    /// The base as this restore has left it.
    base: Base,
    step: Vec<TxnOp>,
    step_bytes: usize,
}

/// Replaces everything; see [`crate::Store::restore`].
pub(super) async fn run(inner: &Inner, mut pairs: PairStream, floor: Revision) -> Result<Revision, StoreError> {
    let mut restore = Restore::begin(inner, floor).await?;
    let mut order = Ascending::default();
    while let Some(batch) = pairs.try_next().await? {
        for (key, value) in batch {
            order.check(&key)?;
            restore.put(&key, &value).await?;
        }
    }
    restore.end(floor).await
}

impl<'a> Restore<'a> {
    /// Says that it has begun, and deletes what is there.
    async fn begin(inner: &'a Inner, floor: Revision) -> Result<Self, StoreError> {
        let key = inner.layout.base_key();
        let read = Txn::new().and_then([TxnOp::get(key.clone(), None)]);
        let response = inner.transact(Again::Harmless, read).await.map_err(Failure::into_error)?;
        let before = Base::read(found(&response, 0).as_ref())?;
        // Refused before anything is touched.
        crate::restore::base(floor, before.ours(revision_of(response.header())))?;
        let marked = Base { restoring: true, ..before };
        let mut restore = Self { inner, base: before, step: Vec::new(), step_bytes: 0 };
        restore.base = restore.set(marked).await?;
        let (first, end) = inner.layout.bounds("", None);
        restore.step.push(TxnOp::delete(first, Some(DeleteOptions::new().with_range(end))));
        restore.flush().await?;
        Ok(restore)
    }

    async fn put(&mut self, key: &str, value: &Bytes) -> Result<(), StoreError> {
        let bytes = key.len() + value.len();
        if self.step.len() >= STEP.0 || self.step_bytes + bytes > STEP.1 {
            self.flush().await?;
        }
        self.step.push(TxnOp::put(self.inner.layout.key(key), value.as_ref(), None));
        self.step_bytes += bytes;
        Ok(())
    }

    /// Does a step. Done twice it leaves the same.
    async fn flush(&mut self) -> Result<(), StoreError> {
        let step = std::mem::take(&mut self.step);
        self.step_bytes = 0;
        if step.is_empty() {
            return Ok(());
        }
        let same = Compare::mod_revision(self.inner.layout.base_key(), CompareOp::Equal, self.base.written);
        let txn = Txn::new().when([same]).and_then(step);
        let response = self.inner.transact(Again::Harmless, txn).await.map_err(Failure::into_error)?;
        if response.succeeded() { Ok(()) } else { Err(overtaken()) }
    }

    /// Sets the base, from what this restore has left it as.
    async fn set(&self, base: Base) -> Result<Base, StoreError> {
        let key = self.inner.layout.base_key();
        let same = Compare::mod_revision(key.clone(), CompareOp::Equal, self.base.written);
        let txn = Txn::new().when([same]).and_then([TxnOp::put(key, base.text(), None)]);
        let response = self.inner.transact(Again::Never, txn).await.map_err(Failure::into_error)?;
        if !response.succeeded() {
            return Err(overtaken());
        }
        let base = Base { written: revision_of(response.header()), ..base };
        self.inner.set_base(base);
        Ok(base)
    }

    /// Says that it is done, and forgets all history.
    async fn end(mut self, floor: Revision) -> Result<Revision, StoreError> {
        self.flush().await?;
        // Whatever has been given had etcd's revision of now at most, with the base of before.
        let read = Txn::new().and_then([TxnOp::get(self.inner.layout.base_key(), None)]);
        let response = self.inner.transact(Again::Harmless, read).await.map_err(Failure::into_error)?;
        let given = self.base.ours(revision_of(response.header()));
        let added = crate::restore::base(floor, given)?;
        self.base = self.set(Base { added, restoring: false, ..self.base }).await?;
        self.inner.compact(self.base.written).await.map_err(Failure::into_error)?;
        Ok(self.base.ours(self.base.written))
    }
}

fn overtaken() -> StoreError {
    StoreError::Unavailable("another restore of the datastore has begun meanwhile".to_owned())
}
