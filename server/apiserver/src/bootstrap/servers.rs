//! Which servers there are where several share a datastore: the endpoints of the Service `kubernetes` name all of
//! them.
//!
//! As the original's `--endpoint-reconciler-type=lease`: each server keeps a *record* of itself in the datastore, which
//! it renews. A record that has not changed for as long as it holds, by the clock of whoever looks, so that clocks need
//! not agree, is removed by whoever sees it first; a server that ends removes its own. Whenever the records change
//! every server makes the endpoints say what they say. With one server alone none of this happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use serde_json::json;
use skiff_api::{
    kinds::{Durability, StorageKey},
    object::Object,
    status::ApiError,
    wire::Entry,
};
use skiff_store::{
    Expect, Revision, StoreError,
    cache::{CacheOutcome, CacheStream, WatchQuery},
};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::own;
use crate::registry::Registry;

/// How long a record holds, as `DefaultEndpointReconcilerTTL`.
const LEASE: Duration = Duration::from_secs(15);

/// How often a server renews its own, as `DefaultEndpointReconcilerInterval`.
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// How long to wait after something went wrong.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long an ending server tries to remove itself; the others see to it when its record has ended.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

fn records() -> StorageKey {
    // No API group is called so, see `registry::claims`.
    StorageKey { group: "skiff".to_owned(), resource: "servers".to_owned() }
}

fn failed(error: &StoreError) -> ApiError {
    ApiError::internal(error)
}

/// A server's name in its record.
fn address_of(entry: &Entry) -> Option<Ipv4Addr> {
    entry.head.name.parse().ok()
}

fn server_of(entry: &Entry) -> Option<SocketAddrV4> {
    let port = entry.object().ok()?.at(&["port"])?.as_u64()?;
    Some(SocketAddrV4::new(address_of(entry)?, u16::try_from(port).ok()?))
}

/// Since when each record has been as it is.
#[derive(Debug, Default)]
struct Seen(BTreeMap<Ipv4Addr, (Revision, Instant)>);

impl Seen {
    /// Takes note of the records that there are.
    fn look(&mut self, present: impl IntoIterator<Item = (Ipv4Addr, Revision)>, now: Instant) {
        let before = std::mem::take(&mut self.0);
        let since = |address: &Ipv4Addr, revision| match before.get(address) {
            Some((same, since)) if *same == revision => *since,
            _ => now,
        };
        self.0 = present.into_iter().map(|(of, revision)| (of, (revision, since(&of, revision)))).collect();
    }

    /// The records that nobody has renewed in time.
    fn ended(&self, now: Instant) -> Vec<(Ipv4Addr, Revision)> {
        let ended = self.0.iter().filter(|(_, (_, since))| *since + LEASE <= now);
        ended.map(|(address, (revision, _))| (*address, *revision)).collect()
    }

    /// When the next one ends.
    fn next_end(&self) -> Option<Instant> {
        self.0.values().map(|(_, since)| *since + LEASE).min()
    }
}

/// One server among others.
struct Servers {
    registry: Arc<Registry>,
    itself: SocketAddrV4,
    /// The version of its record that it has written last.
    written: Option<Revision>,
    seen: Seen,
}

/// Keeps this server in the endpoints and those that have died out of them, until cancelled.
pub async fn keep_endpoints(registry: Arc<Registry>, cancel: CancellationToken) {
    if registry.cacher().is_sole_writer() {
        return;
    }
    let config = registry.config();
    let itself = SocketAddrV4::new(config.advertise_address, config.advertise_port);
    let mut servers = Servers { registry, itself, written: None, seen: Seen::default() };
    while !cancel.is_cancelled() {
        if let Some(Err(error)) = cancel.run_until_cancelled(servers.follow()).await {
            tracing::warn!(%error, "the endpoints of the API servers could not be kept");
        }
        cancel.run_until_cancelled(tokio::time::sleep(RETRY_AFTER)).await;
    }
    if !matches!(timeout(LEAVE_TIMEOUT, servers.leave()).await, Ok(Ok(()))) {
        tracing::info!("this server could not take itself out of the endpoints; the others will");
    }
}

impl Servers {
    /// Renews, removes and writes until the watch ends or something fails.
    async fn follow(&mut self) -> Result<(), ApiError> {
        let query = WatchQuery { after: Some(self.registry.cacher().revision()), ..WatchQuery::default() };
        let watch = self.registry.cacher().watch(&records(), query).await;
        let mut changes = watch.map_err(|error| failed(&error))?;
        let mut renew_at = Instant::now();
        loop {
            if renew_at <= Instant::now() || !self.is_recorded() {
                renew_at = Instant::now() + RENEW_EVERY;
                self.renew().await?;
            }
            self.look();
            self.remove_ended().await?;
            self.write_endpoints().await?;
            let next = self.seen.next_end().map_or(renew_at, |end| end.min(renew_at));
            if !change_until(&mut changes, next).await {
                return Ok(());
            }
        }
    }

    /// Whether its record is there: one that stood still for a while may have been taken for dead.
    fn is_recorded(&self) -> bool {
        self.registry.cacher().peek(&records(), "", &self.itself.ip().to_string()).is_some()
    }

    fn look(&mut self) {
        let entries = self.registry.cacher().peek_all(&records(), None);
        let others = entries.iter().filter_map(|entry| Some((address_of(entry)?, entry.resource_version)));
        self.seen.look(others.filter(|(address, _)| address != self.itself.ip()), Instant::now());
    }

    async fn put(
        &self,
        address: Ipv4Addr,
        expect: Expect,
        record: Option<&Object>,
    ) -> Result<Result<Revision, Option<Revision>>, ApiError> {
        let (kind, name) = (records(), address.to_string());
        let written = self.registry.cacher().write(&kind, "", &name, expect, record, Durability::Heartbeat).await;
        Ok(match written.map_err(|error| failed(&error))? {
            CacheOutcome::Done(entry) => Ok(entry.resource_version),
            CacheOutcome::Mismatch(there) => Err(there.map(|entry| entry.resource_version)),
        })
    }

    /// Says that this server is there, whatever was said of its address before.
    async fn renew(&mut self) -> Result<(), ApiError> {
        let record = json!({
            "apiVersion": "skiff/v1", "kind": "Server",
            "metadata": {"name": self.itself.ip().to_string()},
            "port": self.itself.port(), "renewed": self.registry.now().to_string(),
        });
        let record = Object(record.as_object().cloned().unwrap_or_default());
        let mut expect = self.written.map_or(Expect::Absent, Expect::At);
        loop {
            match self.put(*self.itself.ip(), expect, Some(&record)).await? {
                Ok(revision) => {
                    self.written = Some(revision);
                    return Ok(());
                }
                Err(there) => expect = there.map_or(Expect::Absent, Expect::At),
            }
        }
    }

    /// Removes what has ended, unless it has been renewed after all.
    async fn remove_ended(&mut self) -> Result<(), ApiError> {
        for (address, revision) in self.seen.ended(Instant::now()) {
            if self.put(address, Expect::At(revision), None).await?.is_ok() {
                tracing::warn!(server = %address, "an API server has not said for {LEASE:?} that it lives");
            }
        }
        self.look();
        Ok(())
    }

    /// Makes the endpoints say what the records say. Without any they stay: what there was is more than nothing.
    async fn write_endpoints(&self) -> Result<(), ApiError> {
        let present = || servers_of(&self.registry);
        if present().is_empty() {
            return Ok(());
        }
        for seed in [own::endpoints, own::endpoint_slice] {
            let (gvr, kept) = (seed(&present()).gvr, seed(&present()).kept);
            self.registry.seed_made(&gvr, &|| seed(&present()).object, kept).await?;
        }
        Ok(())
    }

    /// Takes this server out: its record, if it is still its own, and its address.
    async fn leave(&mut self) -> Result<(), ApiError> {
        let Some(revision) = self.written.take() else { return Ok(()) };
        if self.put(*self.itself.ip(), Expect::At(revision), None).await?.is_ok() {
            self.write_endpoints().await?;
        }
        Ok(())
    }
}

/// The servers that have a record and listen on the port of the first: a Service has one.
fn servers_of(registry: &Registry) -> BTreeSet<SocketAddrV4> {
    let entries = registry.cacher().peek_all(&records(), None);
    let all: BTreeSet<_> = entries.iter().filter_map(|entry| server_of(entry)).collect();
    let port = all.first().map(SocketAddrV4::port);
    all.into_iter().filter(|server| Some(server.port()) == port).collect()
}

/// Waits for a change or a time; `false` where the watch has ended.
async fn change_until(changes: &mut CacheStream, time: Instant) -> bool {
    tokio::select! {
        change = changes.next() => {
            // One look is enough for all that has come.
            let mut last = change;
            while let Some(more) = changes.next().now_or_never() {
                last = more;
            }
            matches!(last, Some(Ok(_)))
        }
        () = sleep_until(time) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_ends_when_it_has_not_changed_for_as_long_as_it_holds() {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let (mut seen, start) = (Seen::default(), Instant::now());
        seen.look([(a, 1), (b, 2)], start);
        assert_eq!(seen.next_end(), Some(start + LEASE));
        // One renews, the other does not.
        seen.look([(a, 3), (b, 2)], start + RENEW_EVERY);
        assert_eq!(seen.ended(start + LEASE - Duration::from_millis(1)), []);
        assert_eq!(seen.ended(start + LEASE), [(b, 2)]);
        // It is gone, and comes back later: its time begins anew.
        seen.look([(a, 3)], start + LEASE);
        assert_eq!(seen.next_end(), Some(start + RENEW_EVERY + LEASE));
        seen.look([(a, 4), (b, 5)], start + LEASE * 2);
        assert_eq!(seen.ended(start + LEASE * 2), []);
    }
}
