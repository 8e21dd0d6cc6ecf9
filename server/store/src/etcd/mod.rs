//! The store on etcd, for several servers.
//!
//! - [`endpoints`]: which member is asked, and which one next. Every call has a deadline, and none is answered
//!   without a leader: a partition ends in [`StoreError::Unavailable`], not in an old answer.
//! - [`failure`]: what an error means; a write is made again only where it certainly was not done.
//! - [`layout`]: keys and revisions.
//! - [`feed`]: a watch that outlives connections and members.
//! - [`compaction`]: one of the servers forgets old history from time to time.
//! - [`restore`]: everything replaced, in steps that no other server takes part in.
//!
//! Everything is as durable as etcd makes it, a heartbeat too.

mod compaction;
mod endpoints;
mod failure;
mod feed;
mod layout;
mod restore;

use std::{iter, sync::Arc, time::Duration};

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, GetOptions, GetResponse, Txn, TxnOp, TxnOpResponse, TxnResponse};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    EventStream, Expect, KeyValue, PairStream, Range, RangeOptions, Revision, Store, StoreError, Write, WriteOutcome,
};
use endpoints::{Again, Endpoints};
use failure::Failure;
use layout::{Base, Layout};

/// How many pairs are asked for at once.
const PAGE_KEYS: usize = 500;

/// By whom etcd is asked and who answers, as PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// Who signed etcd's certificates.
    pub ca: String,
    /// The client's certificate and its key, where etcd asks for one.
    pub identity: Option<(String, String)>,
}

impl std::fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EtcdTls(..)")
    }
}

/// Where etcd is and how it is asked.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// The members' addresses, each `http://` or `https://`.
    pub endpoints: Vec<String>,
    /// For `https://`.
    pub tls: Option<EtcdTls>,
    /// Below which key everything lies.
    pub prefix: String,
    /// How long one member may take to answer before another is asked.
    pub attempt: Duration,
    /// How long a call may take altogether.
    pub deadline: Duration,
    /// How often history is compacted, to what it was the time before; `None` leaves that to others.
    pub compact_every: Option<Duration>,
}

impl EtcdOptions {
    /// The defaults for these members.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            tls: None,
            prefix: "/skiff/".to_owned(),
            attempt: Duration::from_secs(2),
            deadline: Duration::from_secs(6),
            // As kube-apiserver's --etcd-compaction-interval.
            compact_every: Some(Duration::from_secs(300)),
        }
    }
}

/// A store on etcd.
pub struct EtcdStore {
    inner: Arc<Inner>,
}

/// What a read found.
struct Found {
    base: Base,
    /// etcd's revision then.
    revision: i64,
    answer: Option<GetResponse>,
}

/// What the store and its tasks share.
struct Inner {
    endpoints: Endpoints,
    layout: Layout,
    base: watch::Sender<Base>,
    /// The newest revision of etcd that somebody has asked for, and waits for a watch to reach.
    wanted: watch::Sender<i64>,
    stop: CancellationToken,
}

fn closed() -> StoreError {
    StoreError::Unavailable("the datastore is closed".to_owned())
}

fn unrestored() -> StoreError {
    StoreError::Unavailable("a snapshot is being restored; if that was broken off, restore one again".to_owned())
}

/// The revision of etcd that an answer was made at.
fn revision_of(header: Option<&etcd_client::ResponseHeader>) -> i64 {
    header.map_or(0, etcd_client::ResponseHeader::revision)
}

fn as_count(number: i64) -> usize {
    usize::try_from(number).unwrap_or_default()
}

/// The pair that a transaction's read found.
fn found(response: &TxnResponse, at: usize) -> Option<etcd_client::KeyValue> {
    match response.op_responses().get(at) {
        Some(TxnOpResponse::Get(get)) => get.kvs().first().cloned(),
        _ => None,
    }
}

impl EtcdStore {
    /// Opens the store; fails where etcd does not answer in time.
    pub async fn open(options: EtcdOptions) -> Result<Self, StoreError> {
        let inner = Arc::new(Inner {
            endpoints: Endpoints::new(&options).await?,
            layout: Layout::new(&options.prefix),
            base: watch::Sender::default(),
            wanted: watch::Sender::default(),
            stop: CancellationToken::new(),
        });
        match inner.newest().await {
            // A store that is not restored is opened to be restored; nothing else can be done with it.
            Err(_) if inner.base().restoring => {}
            other => drop(other?),
        }
        if let Some(every) = options.compact_every {
            tokio::spawn(compaction::run(Arc::clone(&inner), every));
        }
        Ok(Self { inner })
    }

    /// A value that servers share beside the cluster's state, if it has been set.
    pub async fn shared(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let txn = Txn::new().and_then([TxnOp::get(self.inner.layout.shared_key(name), None)]);
        let response = self.inner.transact(Again::Harmless, txn).await.map_err(Failure::into_error)?;
        Ok(found(&response, 0).map(|pair| pair.value().to_vec()))
    }

    /// Sets such a value unless another has done so before; gives the one that is there now.
    pub async fn share(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let key = self.inner.layout.shared_key(name);
        let txn = Txn::new()
            .when([Compare::mod_revision(key.clone(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.clone(), value, None)])
            .or_else([TxnOp::get(key, None)]);
        let response = self.inner.transact(Again::Harmless, txn).await.map_err(Failure::into_error)?;
        Ok(found(&response, 0).map_or_else(|| value.to_vec(), |pair| pair.value().to_vec()))
    }

    /// Sets such a value, whatever is there.
    pub async fn replace_shared(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let txn = Txn::new().and_then([TxnOp::put(self.inner.layout.shared_key(name), value, None)]);
        self.inner.transact(Again::Harmless, txn).await.map(drop).map_err(Failure::into_error)
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

impl Inner {
    fn base(&self) -> Base {
        *self.base.borrow()
    }

    /// A read that has all that was acknowledged before it, with the base that its revisions have.
    async fn read(&self, read: Option<TxnOp>) -> Result<Found, Failure> {
        let base = TxnOp::get(self.layout.base_key(), None);
        let txn = Txn::new().and_then(iter::once(base).chain(read).collect::<Vec<_>>());
        let response = self.transact(Again::Harmless, txn).await?;
        let mut answers = response.op_responses().into_iter();
        let mut next = || match answers.next() {
            Some(TxnOpResponse::Get(answer)) => Some(answer),
            _ => None,
        };
        let base = next().and_then(|answer| answer.kvs().first().cloned());
        let base = Base::read(base.as_ref()).map_err(Failure::Final)?;
        self.set_base(base);
        if base.restoring {
            return Err(Failure::Final(unrestored()));
        }
        Ok(Found { base, revision: revision_of(response.header()), answer: next() })
    }

    async fn transact(&self, again: Again, txn: Txn) -> Result<TxnResponse, Failure> {
        let call = |member: &endpoints::Member| {
            let (mut kv, txn) = (member.kv.clone(), txn.clone());
            async move { kv.txn(txn).await }
        };
        self.endpoints.call(again, call).await
    }

    fn set_base(&self, base: Base) {
        self.base.send_if_modified(|present| {
            let newer = base.written > present.written;
            *present = if newer { base } else { *present };
            newer
        });
    }

    /// The oldest revision of etcd that is kept.
    async fn oldest(&self) -> Revision {
        match feed::compacted(self).await {
            Some(compacted) => self.base().ours(compacted),
            None => self.base().added,
        }
    }

    /// What to tell of a revision that cannot be read.
    async fn explain(&self, failure: Failure, asked: Revision) -> StoreError {
        match failure {
            Failure::Compacted => StoreError::Compacted { asked, oldest: self.oldest().await },
            Failure::Future => match self.newest().await {
                Ok(newest) => StoreError::Future { asked, newest },
                Err(error) => error,
            },
            other => other.into_error(),
        }
    }

    async fn newest(&self) -> Result<Revision, StoreError> {
        let found = self.read(None).await.map_err(Failure::into_error)?;
        self.wanted.send_if_modified(|wanted| {
            let newer = found.revision > *wanted;
            *wanted = found.revision.max(*wanted);
            newer
        });
        Ok(found.base.ours(found.revision))
    }

    /// etcd's revision of one of ours, unless it is from before the base.
    async fn etcds(&self, base: Base, asked: Revision) -> Result<i64, StoreError> {
        match base.etcds(asked).filter(|etcd| *etcd > 0) {
            Some(etcds) => Ok(etcds),
            None => Err(self.explain(Failure::Compacted, asked).await),
        }
    }

    /// etcd's revision of one of ours, if it can be read.
    async fn readable(&self, asked: Revision) -> Result<i64, StoreError> {
        let at = self.etcds(self.base(), asked).await?;
        let there = TxnOp::get(self.layout.base_key(), Some(GetOptions::new().with_revision(at)));
        match self.read(Some(there)).await {
            Ok(found) if found.base.etcds(asked) == Some(at) => Ok(at),
            Ok(_) => Err(self.explain(Failure::Compacted, asked).await),
            Err(failure) => Err(self.explain(failure, asked).await),
        }
    }

    /// One page of a range, in as many pieces as its size needs.
    async fn page(&self, (first, end): (&str, &str), at: i64, limit: usize) -> Result<Found, Failure> {
        let mut limit = limit.clamp(1, PAGE_KEYS);
        loop {
            let keys = i64::try_from(limit).unwrap_or(i64::MAX);
            let options = GetOptions::new().with_range(end).with_limit(keys).with_revision(at);
            match self.read(Some(TxnOp::get(first, Some(options)))).await {
                Err(Failure::TooMuch) if limit > 1 => limit /= 2,
                answer => return answer,
            }
        }
    }

    async fn range(&self, prefix: &str, options: &RangeOptions) -> Result<Range, StoreError> {
        let (mut first, end) = self.layout.bounds(prefix, options.start_after.as_deref());
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
        let mut base = self.base();
        let (asked, mut at) = match options.revision {
            Some(asked) => (asked, self.etcds(base, asked).await?),
            None => (0, 0),
        };
        let mut items = Vec::new();
        loop {
            let found = match self.page((&first, &end), at, limit - items.len()).await {
                Ok(found) if at == 0 || found.base == base => found,
                Ok(_) => return Err(self.explain(Failure::Compacted, asked).await),
                Err(failure) => return Err(self.explain(failure, asked).await),
            };
            if at == 0 {
                (base, at) = (found.base, found.revision);
            }
            let page = found.answer.ok_or_else(|| StoreError::Corrupt("etcd gives no range".to_owned()))?;
            for pair in page.kvs() {
                items.push(self.layout.pair(pair, base)?);
            }
            if !page.more() || items.len() >= limit || page.kvs().is_empty() {
                let left = as_count(page.count()).saturating_sub(page.kvs().len());
                let remaining = options.count.then_some(left);
                return Ok(Range { revision: base.ours(at), items, more: page.more(), remaining });
            }
            if let Some(last) = items.last() {
                first = self.layout.bounds(prefix, Some(&last.key)).0;
            }
        }
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        let read = TxnOp::get(self.layout.key(key), None);
        let found = self.read(Some(read)).await.map_err(Failure::into_error)?;
        let pair = found.answer.as_ref().and_then(|answer| answer.kvs().first());
        pair.map(|pair| self.layout.pair(pair, found.base)).transpose()
    }

    /// One compare-and-swap; `None` where revisions have got another base meanwhile, so that nothing was done.
    async fn swap(&self, write: &Write) -> Result<Option<WriteOutcome>, StoreError> {
        let base = self.base();
        if base.restoring {
            return Err(unrestored());
        }
        let (key, base_key) = (self.layout.key(&write.key), self.layout.base_key());
        let expected = match write.expect {
            Expect::Absent => 0,
            Expect::At(revision) => base.expected(revision),
        };
        let change = match &write.value {
            Some(value) => TxnOp::put(key.clone(), value.as_ref(), None),
            None => TxnOp::delete(key.clone(), None),
        };
        let txn = Txn::new()
            .when([
                Compare::mod_revision(key.clone(), CompareOp::Equal, expected),
                Compare::mod_revision(base_key.clone(), CompareOp::Equal, base.written),
            ])
            .and_then([change])
            .or_else([TxnOp::get(key, None), TxnOp::get(base_key, None)]);
        let response = self.transact(Again::Never, txn).await.map_err(Failure::into_write_error)?;
        if response.succeeded() {
            return Ok(Some(WriteOutcome::Done(base.ours(revision_of(response.header())))));
        }
        let newer = Base::read(found(&response, 1).as_ref())?;
        if newer.written != base.written {
            self.set_base(newer);
            return if newer.restoring { Err(unrestored()) } else { Ok(None) };
        }
        let there = found(&response, 0).map(|pair| self.layout.pair(&pair, base)).transpose()?;
        Ok(Some(WriteOutcome::Mismatch(there)))
    }

    /// Writes a key of skiff's that says nothing, so that every watch is told of a newer revision.
    async fn tick(&self) -> Result<(), Failure> {
        let txn = Txn::new().and_then([TxnOp::put(self.layout.tick_key(), "", None)]);
        self.transact(Again::Harmless, txn).await.map(drop)
    }

    /// Forgets what is older than a revision of etcd.
    async fn compact(&self, at: i64) -> Result<(), Failure> {
        let call = |member: &endpoints::Member| {
            let mut kv = member.kv.clone();
            async move { kv.compact(at, None).await }
        };
        match self.endpoints.call(Again::Harmless, call).await {
            // That much has been forgotten already.
            Ok(_) | Err(Failure::Compacted) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        self.inner.get(key).await
    }

    async fn range(&self, prefix: &str, options: RangeOptions) -> Result<Range, StoreError> {
        self.inner.range(prefix, &options).await
    }

    async fn write(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        if self.inner.stop.is_cancelled() {
            return Err(closed());
        }
        if write.value.is_none() && write.expect == Expect::Absent {
            // Deleting what is expected to be absent changes nothing and has no revision.
            return Ok(WriteOutcome::Mismatch(self.inner.get(&write.key).await?));
        }
        loop {
            if let Some(outcome) = self.inner.swap(&write).await? {
                return Ok(outcome);
            }
        }
    }

    async fn watch(&self, after: Revision) -> Result<EventStream, StoreError> {
        if self.inner.stop.is_cancelled() {
            return Err(closed());
        }
        let at = self.inner.readable(after).await?;
        Ok(feed::stream(Arc::clone(&self.inner), at))
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        let Some(at) = self.inner.base().etcds(before).filter(|etcd| *etcd > 0) else { return Ok(()) };
        match self.inner.compact(at).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.inner.explain(failure, before).await),
        }
    }

    async fn restore(&self, pairs: PairStream, floor: Revision) -> Result<Revision, StoreError> {
        if self.inner.stop.is_cancelled() {
            return Err(closed());
        }
        restore::run(&self.inner, pairs, floor).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.inner.newest().await
    }

    async fn size_bytes(&self) -> Result<u64, StoreError> {
        let call = |member: &endpoints::Member| {
            let mut maintenance = member.maintenance.clone();
            async move { maintenance.status().await }
        };
        let status = self.inner.endpoints.call(Again::Harmless, call).await.map_err(Failure::into_error)?;
        Ok(u64::try_from(status.db_size()).unwrap_or_default())
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.inner.newest().await?;
        let call = |member: &endpoints::Member| {
            let mut maintenance = member.maintenance.clone();
            async move { maintenance.status().await }
        };
        let status = self.inner.endpoints.call(Again::Harmless, call).await.map_err(Failure::into_error)?;
        match status.errors().iter().find(|error| error.contains("NOSPACE") || error.contains("CORRUPT")) {
            Some(error) if error.contains("NOSPACE") => Err(StoreError::NoSpace),
            Some(error) => Err(StoreError::Corrupt(error.clone())),
            None => Ok(()),
        }
    }

    fn sole_writer(&self) -> bool {
        false
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.stop.cancel();
        Ok(())
    }
}
