//! The objects that a fresh cluster holds: those of Kubernetes 1.36 ([`recorded`]) and skiff's own ([`own`]).
//!
//! [`run`] makes what is missing and leaves what is there as it is, so that it may run at every start. All writes are
//! under way at once, so that they share the store's group commits.

mod aggregation;
mod kept;
mod own;
mod recorded;
mod servers;
mod storage;
mod tracking;

use futures::{StreamExt, TryStreamExt, stream};
use skiff_api::{object::Object, request::GroupVersionResource, status::ApiError};

pub use aggregation::keep_aggregated;
pub use servers::keep_endpoints;
pub use tracking::keep_tracking;

use crate::registry::Registry;

/// The name of the readiness check that holds until [`run`] is done.
pub const READINESS: &str = "poststarthook/rbac/bootstrap-roles";

/// The group of what nodes join with. A bootstrap token that is to let nodes join names it in `auth-extra-groups`.
pub const JOINING_GROUP: &str = "system:bootstrappers:skiff:default-node-token";

/// How many objects are written at once.
const CONCURRENCY: usize = 256;

/// One object that is to be there.
struct Seed {
    gvr: GroupVersionResource,
    object: Object,
    /// Fields that are put right where the object is there already.
    kept: &'static [&'static str],
}

/// Makes what is missing of the objects that every cluster holds.
pub async fn run(registry: &Registry) -> Result<(), ApiError> {
    let mut seeds = recorded::seeds();
    seeds.extend(own::seeds(registry.config(), registry.now()));
    if registry.cacher().is_sole_writer() {
        seeds.extend(own::sole_server(registry.config()));
    }
    stream::iter(seeds)
        .map(|seed| async move {
            if seed.kept.is_empty() {
                registry.seed(&seed.gvr, &seed.object).await.map(|_| ())
            } else {
                registry.seed_fields(&seed.gvr, &seed.object, seed.kept).await
            }
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect::<()>()
        .await
}
