//! RBAC over the watch cache.
//!
//! The four kinds are compiled into an [`Index`] by subject; a change of any of them makes the index stale, and the
//! next question rebuilds it. The registry says so itself after its own writes, so that a binding holds from the
//! moment its write is acknowledged; [`Rbac::follow`] says so for the writes of other servers.

mod aggregate;
pub mod escalation;
mod index;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures::StreamExt;
use parking_lot::{Mutex, RwLock};
use skiff_api::{kinds::StorageKey, object::Object, user::UserInfo};
use skiff_store::cache::{Cacher, WatchQuery};
use tokio_util::sync::CancellationToken;

pub use aggregate::aggregated_rules;
pub use index::{Index, Kinds};

use super::{Attributes, Authorizer, Decision, MASTERS, rules::Rule};

/// The API group of RBAC.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// The plural names of the four kinds.
pub const RESOURCES: [&str; 4] = ["clusterroles", "clusterrolebindings", "roles", "rolebindings"];

/// How long a lost watch waits before it is opened again.
const REOPEN_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// Decides by the roles and bindings in the watch cache.
pub struct Rbac {
    cacher: Arc<Cacher>,
    /// The index, and of which change it is the first to know.
    index: RwLock<(u64, Arc<Index>)>,
    rebuild: Mutex<()>,
    /// How many changes there have been.
    changes: AtomicU64,
}

/// The storage key of one of the four kinds.
pub fn storage(resource: &str) -> StorageKey {
    StorageKey { group: GROUP.to_owned(), resource: resource.to_owned() }
}

impl Rbac {
    /// An authorizer over a cache; the index is built when it is first asked.
    pub fn new(cacher: Arc<Cacher>) -> Self {
        Self { cacher, index: RwLock::default(), rebuild: Mutex::new(()), changes: AtomicU64::new(1) }
    }

    /// Tells that one of the four kinds changed.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// The index of the newest roles and bindings. Whoever comes while it is built waits: an answer from the index
    /// before would not know of a change that was acknowledged already.
    pub fn index(&self) -> Arc<Index> {
        let wanted = self.changes.load(Ordering::Acquire);
        if let Some(index) = self.built_since(wanted) {
            return index;
        }
        let _one_at_a_time = self.rebuild.lock();
        if let Some(index) = self.built_since(wanted) {
            return index;
        }
        // Read before the roles are: a change from here on asks for another index.
        let newest = self.changes.load(Ordering::Acquire);
        let index = Arc::new(Index::build(&self.kinds()));
        *self.index.write() = (newest, index.clone());
        index
    }

    /// The present index, if it knows of a change.
    fn built_since(&self, change: u64) -> Option<Arc<Index>> {
        let present = self.index.read();
        (present.0 >= change).then(|| present.1.clone())
    }

    /// Every object of the four kinds; what cannot be parsed grants nothing.
    fn kinds(&self) -> Kinds {
        let all = |resource: &str| -> Vec<Object> {
            let entries = self.cacher.peek_all(&storage(resource), None);
            entries.iter().filter_map(|entry| entry.object().ok()).collect()
        };
        let [cluster_roles, cluster_role_bindings, roles, role_bindings] = RESOURCES.map(all);
        Kinds { cluster_roles, cluster_role_bindings, roles, role_bindings }
    }

    /// Every rule that holds for a user in a namespace.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        self.index().rules_for(user, namespace)
    }

    /// Marks the index stale at every change of the four kinds, until cancelled.
    pub async fn follow(self: Arc<Self>, cancel: CancellationToken) {
        let tasks = RESOURCES.map(|resource| self.follow_kind(resource, &cancel));
        futures::future::join_all(tasks).await;
    }

    /// [`Self::follow`] for one kind.
    async fn follow_kind(&self, resource: &'static str, cancel: &CancellationToken) {
        let kind = storage(resource);
        while !cancel.is_cancelled() {
            let query = WatchQuery { after: Some(self.cacher.revision()), ..WatchQuery::default() };
            self.changed();
            if let Ok(mut events) = self.cacher.watch(&kind, query).await {
                while let Some(Some(Ok(_))) = cancel.run_until_cancelled(events.next()).await {
                    self.changed();
                }
            }
            cancel.run_until_cancelled(tokio::time::sleep(REOPEN_AFTER)).await;
        }
    }
}

impl Authorizer for Rbac {
    fn authorize(&self, attributes: Attributes<'_>) -> Decision {
        if attributes.user.groups.iter().any(|group| group == MASTERS) {
            return Decision::Allow(String::new());
        }
        self.index().authorize(&attributes)
    }
}
