//! What a Deployment's ReplicaSets say: revisions, sizes, annotations, which one is the new one.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

/// The label that keeps the pods of a Deployment's sets apart.
pub const HASH_LABEL: &str = "pod-template-hash";
/// The annotation with a revision's number, on a Deployment and its sets.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// The annotation with the revisions that a set has had before.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The annotation with `spec.replicas` of the Deployment at the last scaling.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The annotation with the most pods that there might be at the last scaling.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of a Deployment that its sets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// `spec.replicas` of a Deployment, 1 where absent.
pub fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// `spec.replicas` of a set, 1 where absent.
pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// How many of a set's pods are available.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
}

/// The sum over sets.
pub fn sum<'a>(sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>, count: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.into_iter().map(|set| count(set)).fold(0, i32::saturating_add)
}

/// An annotation that is a number.
pub fn number(metadata: &ObjectMeta, annotation: &str) -> Option<i64> {
    metadata.annotations.as_ref()?.get(annotation)?.parse().ok()
}

/// A set's revision, 0 where it has none.
pub fn revision(set: &ReplicaSet) -> i64 {
    number(&set.metadata, REVISION).unwrap_or_default()
}

/// Whether the Deployment's strategy is `RollingUpdate`, which is also the default.
pub fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()).is_none_or(|kind| kind != "Recreate")
}

/// `maxSurge` and `maxUnavailable` in pods. Surge is rounded up, unavailable down; both zero would never move, so
/// one may then be unavailable.
pub fn limits(deployment: &Deployment) -> (i32, i32) {
    if !is_rolling(deployment) {
        return (0, 0);
    }
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let total = wanted(deployment);
    let surge = scaled(rolling.and_then(|rolling| rolling.max_surge.as_ref()), total, true);
    let unavailable = scaled(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), total, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// How many pods may be unavailable for the Deployment still to be available; never more than there are.
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    if !is_rolling(deployment) || wanted(deployment) == 0 {
        return 0;
    }
    limits(deployment).1.min(wanted(deployment))
}

/// The most pods that there may be at once.
pub fn max_total(deployment: &Deployment) -> i32 {
    wanted(deployment).saturating_add(limits(deployment).0)
}

/// A number or a share of a total; 25% where absent.
fn scaled(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    let quarter = || IntOrString::String("25%".to_owned());
    crate::meta::scaled(value.unwrap_or(&quarter()), total, up)
}

/// Whether two templates make the same pods: the hash label does not count.
pub fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let bare = |template: &PodTemplateSpec| {
        let mut metadata = template.metadata.clone().unwrap_or_default();
        if let Some(labels) = &mut metadata.labels {
            labels.remove(HASH_LABEL);
        }
        metadata.creation_timestamp = None;
        (metadata.labels.unwrap_or_default(), metadata.annotations.unwrap_or_default(), metadata.finalizers)
    };
    a.spec == b.spec && bare(a) == bare(b)
}

/// The set whose template is the Deployment's, the oldest if there are several.
pub fn find_new(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let template = &deployment.spec.as_ref()?.template;
    let same = |set: &&Arc<ReplicaSet>| {
        set.spec.as_ref().and_then(|spec| spec.template.as_ref()).is_some_and(|own| same_template(own, template))
    };
    by_age(sets).iter().find(same).cloned()
}

/// The sets, the oldest first.
pub fn by_age(sets: &[Arc<ReplicaSet>]) -> Vec<Arc<ReplicaSet>> {
    let mut sets = sets.to_vec();
    sets.sort_by_key(|set| (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.clone()));
    sets
}

/// A name for a template: the hash of its content and of how often names have collided, in letters that make no
/// words, as Kubernetes' `SafeEncodeString`.
pub fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    content_hash(&serde_json::to_vec(template).unwrap_or_default(), collisions)
}

/// As [`template_hash`], of any content.
pub fn content_hash(content: &[u8], collisions: i32) -> String {
    let hash = content
        .iter()
        .chain(&collisions.to_le_bytes())
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    safe_encode(&hash.to_string())
}

/// Digits as letters and digits that make no words.
pub fn safe_encode(text: &str) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    text.bytes().map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])).collect()
}

/// The annotations that a set gets: the Deployment's, its sizes, and its revision with those it had before.
pub fn annotations(
    deployment: &Deployment,
    existing: Option<&ReplicaSet>,
    new_revision: i64,
) -> BTreeMap<String, String> {
    let mut all = existing.and_then(|set| set.metadata.annotations.clone()).unwrap_or_default();
    for (name, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&name.as_str()) {
            all.insert(name.clone(), value.clone());
        }
    }
    let old = existing.map(revision).unwrap_or_default();
    if old < new_revision {
        if old > 0 {
            let history = all.get(REVISION_HISTORY).filter(|text| !text.is_empty());
            let history = history.map_or_else(|| old.to_string(), |text| format!("{text},{old}"));
            all.insert(REVISION_HISTORY.to_owned(), history);
        }
        all.insert(REVISION.to_owned(), new_revision.to_string());
    }
    if existing.is_none() {
        all.extend(sizes(deployment));
    }
    all
}

/// The annotations that tell at which size of the Deployment a set was scaled.
pub fn sizes(deployment: &Deployment) -> [(String, String); 2] {
    [(DESIRED.to_owned(), wanted(deployment).to_string()), (MAX.to_owned(), max_total(deployment).to_string())]
}
