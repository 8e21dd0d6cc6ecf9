//! Service addresses and node ports where several servers give them out.
//!
//! A server's own pools ([`Allocators`]) only say what it has seen; two servers could give one number to two Services
//! at once. So before a Service is written each of its new numbers is *claimed*: an object of that name is created in
//! the datastore, which only one can do. A claim whose Service was never written, or has the number no more, is taken
//! over by whoever needs the number next.
//!
//! With one server the pools are all there is, and nothing of this happens.

use std::{collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use skiff_api::{
    kinds::{Durability, ResourceDef, StorageKey},
    object::Object,
    status::ApiError,
    wire::Entry,
};
use skiff_store::{
    Expect, StoreError,
    cache::{CacheEvent, CacheOutcome, Cacher, WatchQuery},
};
use tokio_util::sync::CancellationToken;

use super::{Registry, store_errors, world};
use crate::strategy::services::{Claims, pool::Hold};

/// How old a claim must be whose Service is not there: a write that began before has ended long since.
const ABANDONED_AFTER: SignedDuration = SignedDuration::from_secs(120);

/// How long to wait before Services are followed again.
const FOLLOW_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

fn claims() -> StorageKey {
    // No API group is called so: a group of one word is Kubernetes' own, and none of those is skiff.
    StorageKey { group: "skiff".to_owned(), resource: "claims".to_owned() }
}

fn services() -> StorageKey {
    world::storage("", "services")
}

fn claim_of(number: u32, service: &Object, now: Timestamp) -> Object {
    let object = json!({
        "apiVersion": "skiff/v1", "kind": "Claim",
        "metadata": {"name": number.to_string(), "uid": service.uid()},
        "service": {"namespace": service.namespace(), "name": service.name()},
        "since": now.to_string(),
    });
    Object(object.as_object().cloned().unwrap_or_default())
}

fn to_api(error: &StoreError) -> ApiError {
    store_errors::to_api(error)
}

/// The claims that were made for one write: numbers, and the versions of their claims.
pub(super) type Made = Vec<(u32, u64)>;

/// Whether numbers of this registry may be given out by another server too.
pub(super) fn may_clash(registry: &Registry, def: &ResourceDef) -> bool {
    def.gvk.group.is_empty() && def.resource == "services" && !registry.cacher.is_sole_writer()
}

/// Makes all of these numbers this Service's alone. `None` where one is another's: then nothing is held, and the
/// pools know that one from now on.
pub(super) async fn secure(
    registry: &Registry,
    service: &Object,
    holds: &mut Vec<Hold>,
) -> Result<Option<Made>, ApiError> {
    let mut made = Made::new();
    if registry.cacher.is_sole_writer() {
        return Ok(Some(made));
    }
    for at in 0..holds.len() {
        let number = holds[at].value();
        match claim(registry, service, number).await? {
            Claim::Made(version) => made.push((number, version)),
            Claim::Had => {}
            Claim::Taken => {
                holds.clear();
                registry.allocators.note(number);
                give_up(registry, made).await;
                return Ok(None);
            }
        }
    }
    Ok(Some(made))
}

/// Gives up claims for a write that is not done, and that nobody else can do.
pub(super) async fn give_up(registry: &Registry, made: Made) {
    for (number, version) in made {
        if let Err(error) = put(&registry.cacher, number, Expect::At(version), None).await {
            tracing::debug!(number, %error, "a claim was not given up");
        }
    }
}

/// How a claim ended.
enum Claim {
    Made(u64),
    /// The Service has it already.
    Had,
    Taken,
}

async fn claim(registry: &Registry, service: &Object, number: u32) -> Result<Claim, ApiError> {
    let now = registry.now();
    let claim = claim_of(number, service, now);
    let there = match put(&registry.cacher, number, Expect::Absent, Some(&claim)).await? {
        CacheOutcome::Done(entry) => return Ok(Claim::Made(entry.resource_version)),
        CacheOutcome::Mismatch(there) => there,
    };
    let Some(entry) = there else { return Ok(Claim::Taken) };
    let held = entry.object().map_err(ApiError::internal)?;
    if held.uid() == service.uid() {
        return Ok(Claim::Had);
    }
    if !is_abandoned(registry, &held, number, now).await? {
        return Ok(Claim::Taken);
    }
    match put(&registry.cacher, number, Expect::At(entry.resource_version), Some(&claim)).await? {
        CacheOutcome::Done(entry) => Ok(Claim::Made(entry.resource_version)),
        CacheOutcome::Mismatch(_) => Ok(Claim::Taken),
    }
}

async fn put(cacher: &Cacher, number: u32, expect: Expect, claim: Option<&Object>) -> Result<CacheOutcome, ApiError> {
    let (kind, name) = (claims(), number.to_string());
    let written = cacher.write(&kind, "", &name, expect, claim, Durability::Synced);
    written.await.map_err(|error| to_api(&error))
}

/// Whether the Service that a claim was made for does not have the number, and no longer can get it.
async fn is_abandoned(registry: &Registry, claim: &Object, number: u32, now: Timestamp) -> Result<bool, ApiError> {
    let since = claim.str_at(&["since"]).and_then(|text| text.parse::<Timestamp>().ok());
    if since.is_some_and(|since| now.duration_since(since) < ABANDONED_AFTER) {
        return Ok(false);
    }
    let text = |field| claim.str_at(&["service", field]).unwrap_or_default();
    let found = registry.cacher.get(&services(), text("namespace"), text("name")).await;
    let Some(entry) = found.map_err(|error| to_api(&error))? else { return Ok(true) };
    let service = entry.object().map_err(ApiError::internal)?;
    Ok(service.uid() != claim.uid() || !Claims::of(&service).has(number))
}

/// Gives up what a Service had and has no more. What fails here is taken over later.
pub(super) async fn release(registry: &Registry, old: Option<&Object>, new: Option<&Object>) {
    let Some(old) = old.filter(|_| !registry.cacher.is_sole_writer()) else { return };
    let after = new.map(Claims::of).unwrap_or_default();
    for number in Claims::of(old).all().filter(|number| !after.has(*number)) {
        let held = registry.cacher.get(&claims(), "", &number.to_string()).await;
        let Ok(Some(entry)) = held else { continue };
        if entry.object().is_ok_and(|claim| claim.uid() == old.uid()) {
            give_up(registry, vec![(number, entry.resource_version)]).await;
        }
    }
}

/// Keeps the pools informed of what other servers' Services have, until cancelled.
pub async fn follow_services(registry: Arc<Registry>, cancel: CancellationToken) {
    if registry.cacher.is_sole_writer() {
        return;
    }
    let mut known: HashMap<(String, String), Object> = HashMap::new();
    loop {
        let query = WatchQuery::default();
        if let Ok(mut events) = registry.cacher.watch(&services(), query).await {
            loop {
                let event = tokio::select! {
                    () = cancel.cancelled() => return,
                    event = futures::StreamExt::next(&mut events) => event,
                };
                let Some(Ok(event)) = event else { break };
                note(&registry, &mut known, &event);
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(FOLLOW_AGAIN) => {}
        }
    }
}

fn note(registry: &Registry, known: &mut HashMap<(String, String), Object>, event: &CacheEvent) {
    let (entry, gone): (&Entry, bool) = match event {
        CacheEvent::Added(entry) | CacheEvent::Modified(entry) => (entry, false),
        CacheEvent::Deleted(entry) => (entry, true),
        CacheEvent::Bookmark { .. } => return,
    };
    let Ok(service) = entry.object() else { return };
    let place = (entry.head.namespace.clone(), entry.head.name.clone());
    let old = known.remove(&place);
    let new = (!gone).then_some(service);
    if let Some(new) = &new {
        registry.allocators.adopt(new);
    }
    registry.allocators.settle(old.as_ref(), new.as_ref());
    known.extend(new.map(|new| (place, new)));
}
