//! ResourceQuota, the last of the admission plugins: what a write adds is charged before it is done.
//!
//! A namespace's writes that count wait for each other, from the count to the end of the write: so what is counted is
//! all that is there, and a quota is never exceeded, however many write at once. Where other servers write to the
//! store too, what they have charged counts as well: the charge is a compare-and-swap of the quota's status.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use skiff_api::{
    kinds::ResourceDef,
    object::Object,
    quota::{self, Amounts, Limit, Usage},
    request::{GroupVersionResource, Request, Verb},
    status::ApiError,
};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::{
    Registry,
    call::Call,
    seed::itself,
    update::{self, Proposal},
};
use crate::{
    admission::{Operation, World as _, Write},
    strategy::Part,
};

/// How many namespaces' books are kept while nobody writes there.
const MAX_BOOKS: usize = 256;

/// What the objects of a namespace counted for when they were last looked at, by resource and name, each with its
/// revision.
#[derive(Default)]
pub(super) struct Book {
    counted: HashMap<(String, String), HashMap<String, (u64, Arc<Usage>)>>,
}

/// The books of the namespaces that have quotas.
#[derive(Default)]
pub(super) struct Books(Mutex<HashMap<String, Arc<AsyncMutex<Book>>>>);

/// The turn of a write that counts; to be held until the write is done.
pub(super) struct Turn {
    _book: Option<OwnedMutexGuard<Book>>,
}

impl Books {
    /// The book of a namespace. Where there are too many, those of namespaces in which nobody writes go.
    fn of(&self, namespace: &str) -> Arc<AsyncMutex<Book>> {
        let mut books = self.0.lock();
        if books.len() >= MAX_BOOKS && !books.contains_key(namespace) {
            books.retain(|_, book| Arc::strong_count(book) > 1);
        }
        Arc::clone(books.entry(namespace.to_owned()).or_default())
    }
}

impl Book {
    /// What every object of a resource in a namespace counts for.
    fn count(&mut self, registry: &Registry, (group, resource): (&str, &str), namespace: &str) -> Vec<Arc<Usage>> {
        let key = (group.to_owned(), resource.to_owned());
        let mut before = self.counted.remove(&key).unwrap_or_default();
        let entries = registry.cacher.peek_all(&super::world::storage(group, resource), Some(namespace));
        let now = registry.now();
        let mut counted = HashMap::with_capacity(entries.len());
        for entry in entries {
            let known = before.remove(&entry.head.name).filter(|(revision, _)| *revision == entry.resource_version);
            let usage = match known {
                Some((_, usage)) => usage,
                None => Arc::new(quota::usage(group, resource, &entry.object().unwrap_or_default(), now)),
            };
            counted.insert(entry.head.name.clone(), (entry.resource_version, usage));
        }
        let all = counted.values().map(|(_, usage)| Arc::clone(usage)).collect();
        self.counted.insert(key, counted);
        all
    }
}

/// Whether a write may count for something. Source: `Handles` of the evaluators.
fn counts(write: &Write<'_>) -> bool {
    let is_on = |resources: &[&str]| write.def.gvk.group.is_empty() && resources.contains(&&*write.def.resource);
    match (write.operation, write.subresource) {
        _ if write.namespace.is_empty() => false,
        (Operation::Create, "") => true,
        (Operation::Update, "") => is_on(&["services", "persistentvolumeclaims"]),
        (Operation::Update, "resize") => is_on(&["pods"]),
        _ => false,
    }
}

/// Charges what a write adds to every quota that covers it, or refuses it.
pub(super) async fn charge(call: &Call<'_>, write: &Write<'_>, object: &Object) -> Result<Turn, ApiError> {
    if !counts(write) {
        return Ok(Turn { _book: None });
    }
    let (group, resource) = (write.def.gvk.group.as_str(), write.def.resource.as_str());
    let concerned = || -> Vec<(Object, Limit)> {
        let quotas = call.registry.all("", "resourcequotas", Some(write.namespace));
        let limits = quotas.into_iter().map(|quota| (Limit::read(&quota), quota));
        limits.filter(|(limit, _)| limit.concerns(group, resource)).map(|(limit, quota)| (quota, limit)).collect()
    };
    if concerned().is_empty() {
        return Ok(Turn { _book: None });
    }
    let mut book = call.registry.books.of(write.namespace).lock_owned().await;
    let of = |object: &Object| quota::usage(group, resource, object, call.now);
    let (new, old) = (of(object), write.old.map(of));
    let mut charges = Vec::new();
    for (quota, limit) in concerned() {
        let requested = requested(write, &limit, object, &new, old.as_ref())?;
        if !requested.is_empty() {
            let used = count_used(call.registry, &mut book, &quota, &limit, write.namespace);
            check_room(write, &limit, &used, &requested)?;
            charges.push((limit, used, requested));
        }
    }
    if !call.dry_run {
        for (limit, used, requested) in charges {
            // Boxed: charging is itself an update, though one that counts for nothing.
            Box::pin(write_down(call, write, &limit, &used, &requested)).await?;
        }
    }
    Ok(Turn { _book: Some(book) })
}

/// What a write adds to what a quota limits; nothing where the quota does not cover the object.
fn requested(
    write: &Write<'_>,
    limit: &Limit,
    object: &Object,
    new: &Usage,
    old: Option<&Usage>,
) -> Result<Amounts, ApiError> {
    if !limit.covers(new) {
        return Ok(Amounts::new());
    }
    if write.is_on("", "pods")
        && let Some(why) = limit.unspecified(object)
    {
        return Err(write.forbidden(format!("failed quota: {}: {why}", limit.name)));
    }
    let before = old.filter(|old| limit.covers(old)).map(|old| &old.amounts);
    Ok(limit.limited(&quota::growth(&new.amounts, before)))
}

/// What is used of a quota: what is there, and where others write too also what they have charged.
fn count_used(registry: &Registry, book: &mut Book, quota: &Object, limit: &Limit, namespace: &str) -> Amounts {
    let usages: Vec<Arc<Usage>> =
        limit.sources().into_iter().flat_map(|source| book.count(registry, source, namespace)).collect();
    let mut used = quota::used(limit, usages.iter().map(|usage| &**usage));
    if !registry.cacher.is_sole_writer() {
        raise(&mut used, &charged(quota));
    }
    used
}

/// What a quota's status says is used.
fn charged(quota: &Object) -> Amounts {
    quota
        .pairs_at(&["status", "used"])
        .filter_map(|(name, amount)| Some((name.to_owned(), amount.parse().ok()?)))
        .collect()
}

/// Makes every amount at least that of another.
fn raise(amounts: &mut Amounts, to: &Amounts) {
    for (name, least) in to {
        if let Some(amount) = amounts.get_mut(name).filter(|amount| **amount < *least) {
            *amount = *least;
        }
    }
}

/// Refuses what there is no room for.
fn check_room(write: &Write<'_>, limit: &Limit, used: &Amounts, requested: &Amounts) -> Result<(), ApiError> {
    let names = limit.exceeded(used, requested);
    if names.is_empty() {
        return Ok(());
    }
    let show = |amounts: &Amounts| {
        let shown = amounts.iter().filter(|(name, _)| names.contains(&name.as_str()));
        quota::print(&shown.map(|(name, amount)| (name.clone(), *amount)).collect())
    };
    let why = format!(
        "exceeded quota: {}, requested: {}, used: {}, limited: {}",
        limit.name,
        show(requested),
        show(used),
        show(&limit.hard)
    );
    Err(write.forbidden(why))
}

/// Writes down in a quota's status what is used once the write is done.
async fn write_down(
    call: &Call<'_>,
    write: &Write<'_>,
    limit: &Limit,
    used: &Amounts,
    requested: &Amounts,
) -> Result<(), ApiError> {
    let def: Arc<ResourceDef> =
        call.registry.kinds().resource("", "v1", "resourcequotas").cloned().ok_or_else(ApiError::no_such_path)?;
    let gvr = GroupVersionResource::new("", "v1", "resourcequotas");
    let (user, request) = (itself(), Request::new(Verb::Update, gvr, write.namespace, &limit.name));
    let quota_call = Call::new(call.registry, &user, def, &request, false);
    let make = |there: &Object| {
        let mut used = used.clone();
        if !call.registry.cacher.is_sole_writer() {
            // Another server may have charged since.
            raise(&mut used, &charged(there));
            check_room(write, limit, &used, requested)?;
        }
        for (name, amount) in requested {
            let sum = used.get(name).map_or(*amount, |used| used.plus(*amount));
            used.insert(name.clone(), sum);
        }
        let mut object = there.clone();
        object.set_at(&["status", "used"], quota::to_json(&used));
        Ok(Proposal { object, pinned: false })
    };
    // A quota that is deleted meanwhile limits nothing.
    update::change(&quota_call, &limit.name, Part::Whole, &make).await.map(drop)
}
