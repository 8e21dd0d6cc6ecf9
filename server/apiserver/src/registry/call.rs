//! One request on its way through the registry, and the one place that writes to the store.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use skiff_api::{
    convert,
    kinds::{Durability, ResourceDef},
    object::Object,
    request::Request,
    status::ApiError,
    user::UserInfo,
    wire::Entry,
};
use skiff_store::{Expect, cache::CacheOutcome};

use super::{Answer, Registry, forms, store_errors};
use crate::{
    admission::{Operation, Write},
    authz::rbac,
    strategy::{Context, table::Rules},
};

/// One request on its way.
pub(super) struct Call<'a> {
    pub(super) registry: &'a Registry,
    pub(super) user: &'a UserInfo,
    pub(super) def: Arc<ResourceDef>,
    pub(super) rules: &'static Rules,
    pub(super) request: &'a Request,
    pub(super) now: Timestamp,
    pub(super) dry_run: bool,
    warnings: Mutex<Vec<String>>,
}

/// What a write left behind.
pub(super) enum Written {
    /// This version.
    Stored(Arc<Entry>),
    /// Nothing: it was a dry run. This is what it would have left.
    Dry(Object),
}

/// How one try to write ended.
pub(super) enum Swap {
    /// Done.
    Done(Arc<Entry>),
    /// Another write came first.
    Lost,
}

impl Written {
    /// The object.
    pub(super) fn object(&self, call: &Call<'_>) -> Result<Object, ApiError> {
        match self {
            Self::Stored(entry) => call.parse(entry),
            Self::Dry(object) => Ok(object.clone()),
        }
    }

    /// The answer.
    pub(super) fn answer(self, call: &Call<'_>, status: u16) -> Result<Answer, ApiError> {
        match self {
            Self::Stored(entry) => Ok(Answer::Object { status, entry: call.present(entry)? }),
            Self::Dry(object) => Ok(json(status, &object)),
        }
    }
}

/// An answer that is no stored object.
pub(super) fn json(status: u16, object: &Object) -> Answer {
    Answer::Json { status, body: object.to_vec().into() }
}

impl<'a> Call<'a> {
    /// A request that has been permitted and routed.
    pub(super) fn new(
        registry: &'a Registry,
        user: &'a UserInfo,
        def: Arc<ResourceDef>,
        request: &'a Request,
        dry_run: bool,
    ) -> Self {
        let rules = crate::strategy::table::rules(&def);
        Self { registry, user, rules, request, now: (registry.config.now)(), dry_run, warnings: Mutex::default(), def }
    }

    /// The same request as one on another resource: an eviction deletes a pod and charges a budget.
    pub(super) fn on(&self, def: Arc<ResourceDef>) -> Call<'a> {
        Self::new(self.registry, self.user, def, self.request, self.dry_run)
    }

    /// The namespace; empty for cluster-scoped objects and for all namespaces.
    pub(super) fn namespace(&self) -> &'a str {
        if self.def.namespaced { self.request.namespace.as_deref().unwrap_or_default() } else { "" }
    }

    /// The name in the URL.
    pub(super) fn name(&self) -> &'a str {
        self.request.name.as_deref().unwrap_or_default()
    }

    /// Says something to the client beside the answer.
    pub(super) fn warn(&self, warnings: impl IntoIterator<Item = String>) {
        self.warnings.lock().extend(warnings);
    }

    /// The warnings, each once.
    pub(super) fn take_warnings(&self) -> Vec<String> {
        let mut once: Vec<String> = Vec::new();
        for warning in std::mem::take(&mut *self.warnings.lock()) {
            if !once.contains(&warning) {
                once.push(warning);
            }
        }
        once
    }

    /// 404 for an object of this resource.
    pub(super) fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.def.gvk.group, &self.def.resource, name)
    }

    /// 409 for an object of this resource.
    pub(super) fn conflict(&self, name: &str, why: &str) -> ApiError {
        ApiError::conflict(&self.def.gvk.group, &self.def.resource, name, why)
    }

    /// The write as admission sees it.
    pub(super) fn write<'b>(&'b self, operation: Operation, name: &'b str, old: Option<&'b Object>) -> Write<'b> {
        Write {
            user: self.user,
            operation,
            def: &self.def,
            subresource: self.request.subresource.as_deref().unwrap_or_default(),
            namespace: self.namespace(),
            name,
            old,
            warnings: &self.warnings,
        }
    }

    /// What strategies are given.
    pub(super) fn context(&self) -> Context<'a> {
        Context::new(self.now, self.user, &self.registry.allocators)
    }

    /// The newest version of an object.
    pub(super) async fn fetch(&self, name: &str) -> Result<Option<Arc<Entry>>, ApiError> {
        let found = self.registry.cacher.get(&self.def.storage, self.namespace(), name).await;
        found.map_err(|error| store_errors::to_api(&error))
    }

    /// An entry's object, in the version that was asked for.
    pub(super) fn parse(&self, entry: &Entry) -> Result<Object, ApiError> {
        let object = entry.object().map_err(ApiError::internal)?;
        Ok(convert::to_version(object, &self.def.gvk))
    }

    /// An entry in the version that was asked for: as it is, in nearly all cases.
    pub(super) fn present(&self, entry: Arc<Entry>) -> Result<Arc<Entry>, ApiError> {
        forms::present(entry, &self.def)
    }

    /// How soon this write must be on disk.
    fn durability(&self) -> Durability {
        let heartbeat = self.def.gvk.group.is_empty()
            && self.def.resource == "nodes"
            && self.request.subresource.as_deref() == Some("status");
        if heartbeat { Durability::Heartbeat } else { self.def.durability }
    }

    /// One compare-and-swap: `old` with its entry is what must be there, `new` what takes its place. What the context
    /// holds of the pools is kept when it is done, and given back when it is not.
    pub(super) async fn swap(
        &self,
        name: &str,
        old: Option<(&Entry, &Object)>,
        new: Option<&Object>,
        cx: Context<'_>,
    ) -> Result<Swap, ApiError> {
        let expect = old.map_or(Expect::Absent, |(entry, _)| Expect::At(entry.resource_version));
        let stored = new.map(|object| forms::to_stored(self.registry.kinds, object, &self.def));
        let (kind, namespace) = (&self.def.storage, self.namespace());
        let written = self.registry.cacher.write(kind, namespace, name, expect, stored.as_deref(), self.durability());
        match written.await.map_err(|error| store_errors::to_api(&error))? {
            CacheOutcome::Mismatch(_) => Ok(Swap::Lost),
            CacheOutcome::Done(entry) => {
                cx.holds.into_iter().for_each(|hold| hold.keep());
                self.settle(old.map(|(_, object)| object), new);
                Ok(Swap::Done(entry))
            }
        }
    }

    /// Tells those who keep something derived from the objects that one has changed.
    fn settle(&self, old: Option<&Object>, new: Option<&Object>) {
        match (self.def.gvk.group.as_str(), self.def.resource.as_str()) {
            ("", "services") => self.registry.allocators.settle(old, new),
            (rbac::GROUP, _) => self.registry.authorizer.changed(),
            _ => {}
        }
    }
}
