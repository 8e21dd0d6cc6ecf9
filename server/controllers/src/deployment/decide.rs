//! What a Deployment needs next. No I/O. One step at a time: what follows is decided when its effect is seen.

use std::{cmp::Reverse, sync::Arc};

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::sets::{
    DESIRED, HASH_LABEL, MAX, annotations, available, by_age, find_new, is_rolling, max_total, max_unavailable, number,
    revision, size, sizes, sum, template_hash, wanted,
};
use crate::meta::{controller_reference, is_deleting, name, namespace};

/// What is known when deciding.
pub struct View<'a> {
    /// The Deployment.
    pub deployment: &'a Deployment,
    /// The sets that it controls.
    pub sets: &'a [Arc<ReplicaSet>],
    /// Whether a set that is not the new one still has pods that have not ended; asked only for `Recreate`.
    pub old_pods_run: bool,
}

/// One step.
#[derive(Debug)]
pub enum Step {
    /// Create the new set.
    Create(Box<ReplicaSet>),
    /// Bring the new set's annotations and `minReadySeconds` up to date.
    Update(Box<ReplicaSet>),
    /// Give the Deployment this revision.
    Revision(i64),
    /// Make a set a different size.
    Scale {
        /// The set.
        set: Arc<ReplicaSet>,
        /// The size.
        to: i32,
    },
    /// Delete a set of an old revision.
    Delete(Arc<ReplicaSet>),
}

/// The sets, told apart.
pub struct Split {
    /// The one with the Deployment's template.
    pub new: Option<Arc<ReplicaSet>>,
    /// The others, the oldest first.
    pub old: Vec<Arc<ReplicaSet>>,
}

/// Tells the sets apart.
pub fn split(view: &View<'_>) -> Split {
    let new = find_new(view.deployment, view.sets);
    let is_new = |set: &Arc<ReplicaSet>| new.as_ref().is_some_and(|new| new.metadata.uid == set.metadata.uid);
    let old = by_age(view.sets).into_iter().filter(|set| !is_new(set)).collect();
    Split { new, old }
}

/// The next steps. Nothing while the Deployment is being deleted.
pub fn decide(view: &View<'_>) -> Vec<Step> {
    if is_deleting(&view.deployment.metadata) {
        return Vec::new();
    }
    let split = split(view);
    let steps = adjust_new(view.deployment, &split);
    if !steps.is_empty() {
        return steps;
    }
    let paused = view.deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
    if paused || is_scaling(view) {
        let steps = scale_in_proportion(view.deployment, &split);
        return if steps.is_empty() && paused { cleanup(view.deployment, &split) } else { steps };
    }
    let steps = if is_rolling(view.deployment) { roll(view.deployment, &split) } else { recreate(view, &split) };
    if steps.is_empty() && is_complete(view.deployment, &split) { cleanup(view.deployment, &split) } else { steps }
}

/// Revisions: the new set's is one more than the greatest of the others, and the Deployment's is the new set's.
fn adjust_new(deployment: &Deployment, split: &Split) -> Vec<Step> {
    let Some(new) = &split.new else { return Vec::new() };
    let next = next_revision(split).max(revision(new));
    let mut changed = (**new).clone();
    changed.metadata.annotations = Some(annotations(deployment, Some(new), next));
    if let (Some(spec), Some(from)) = (&mut changed.spec, &deployment.spec) {
        spec.min_ready_seconds = from.min_ready_seconds;
    }
    let min_ready = |set: &ReplicaSet| set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default();
    if changed.metadata.annotations != new.metadata.annotations || min_ready(&changed) != min_ready(new) {
        return vec![Step::Update(Box::new(changed))];
    }
    let own = number(&deployment.metadata, super::sets::REVISION).unwrap_or_default();
    if own == revision(new) { Vec::new() } else { vec![Step::Revision(revision(new))] }
}

fn next_revision(split: &Split) -> i64 {
    split.old.iter().map(|set| revision(set)).max().unwrap_or_default() + 1
}

/// The new set, of the size that it may have at once.
fn create(deployment: &Deployment, split: &Split) -> Option<Step> {
    let spec = deployment.spec.as_ref()?;
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or_default();
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = metadata.labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name(&deployment.metadata))),
            namespace: Some(namespace(&deployment.metadata).to_owned()),
            labels,
            annotations: Some(annotations(deployment, None, next_revision(split))),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(room_for_new(deployment, &split.old, 0)),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    Some(Step::Create(Box::new(set)))
}

/// The size that the new set may have, being of a size now.
fn room_for_new(deployment: &Deployment, old: &[Arc<ReplicaSet>], new_size: i32) -> i32 {
    if !is_rolling(deployment) {
        return wanted(deployment);
    }
    let room = max_total(deployment) - (sum(old, size) + new_size);
    if room <= 0 { new_size } else { new_size + room.min(wanted(deployment) - new_size) }
}

fn scale(set: &Arc<ReplicaSet>, to: i32) -> Step {
    Step::Scale { set: Arc::clone(set), to: to.max(0) }
}

fn roll(deployment: &Deployment, split: &Split) -> Vec<Step> {
    let Some(new) = &split.new else { return create(deployment, split).into_iter().collect() };
    let (have, want) = (size(new), wanted(deployment));
    let next = if have > want { want } else { room_for_new(deployment, &split.old, have) };
    if next != have {
        return vec![scale(new, next)];
    }
    shrink_old(deployment, new, &split.old)
}

/// Old sets give up first what is not available anyway, then as much as availability allows.
fn shrink_old(deployment: &Deployment, new: &ReplicaSet, old: &[Arc<ReplicaSet>]) -> Vec<Step> {
    let total = sum(old, size) + size(new);
    if sum(old, size) == 0 {
        return Vec::new();
    }
    let min_available = wanted(deployment) - max_unavailable(deployment);
    let spare = total - min_available - (size(new) - available(new));
    if spare <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = old.iter().map(|set| size(set)).collect();
    let mut left = spare;
    for (set, to) in old.iter().zip(&mut sizes) {
        let drop = (*to - available(set)).clamp(0, left);
        *to -= drop;
        left -= drop;
    }
    // A set that is shrinking may not have said so yet: no more can be available than there should be.
    let mut left = sum(old, |set| available(set).min(size(set))) + available(new) - min_available;
    for to in &mut sizes {
        let drop = (*to).min(left).max(0);
        *to -= drop;
        left -= drop;
    }
    let changed = old.iter().zip(sizes).filter(|(set, to)| size(set) != *to);
    changed.map(|(set, to)| scale(set, to)).collect()
}

fn recreate(view: &View<'_>, split: &Split) -> Vec<Step> {
    let running: Vec<Step> = split.old.iter().filter(|set| size(set) > 0).map(|set| scale(set, 0)).collect();
    if !running.is_empty() || view.old_pods_run {
        return running;
    }
    match &split.new {
        None => create(view.deployment, split).into_iter().collect(),
        Some(new) if size(new) != wanted(view.deployment) => vec![scale(new, wanted(view.deployment))],
        Some(_) => Vec::new(),
    }
}

/// Whether the Deployment's size was changed since its sets were scaled.
fn is_scaling(view: &View<'_>) -> bool {
    let wanted = i64::from(wanted(view.deployment));
    let active = view.sets.iter().filter(|set| size(set) > 0);
    active.filter_map(|set| number(&set.metadata, DESIRED)).any(|desired| desired != wanted)
}

/// Grows or shrinks what is there without rolling: the one set that there is, or all in proportion.
fn scale_in_proportion(deployment: &Deployment, split: &Split) -> Vec<Step> {
    if let Some(one) = active_or_latest(split) {
        let stale = number(&one.metadata, DESIRED) != Some(i64::from(wanted(deployment)));
        let changed = size(&one) != wanted(deployment) || (stale && size(&one) > 0);
        return if changed { vec![scale(&one, wanted(deployment))] } else { Vec::new() };
    }
    if split.new.as_ref().is_some_and(|new| is_saturated(deployment, new)) {
        return split.old.iter().filter(|set| size(set) > 0).map(|set| scale(set, 0)).collect();
    }
    if is_rolling(deployment) { proportions(deployment, split) } else { Vec::new() }
}

fn active_or_latest(split: &Split) -> Option<Arc<ReplicaSet>> {
    let all: Vec<_> = split.old.iter().chain(&split.new).collect();
    let active: Vec<_> = all.iter().filter(|set| size(set) > 0).collect();
    match active.as_slice() {
        [] => split.new.clone().or_else(|| split.old.last().cloned()),
        [one] => Some(Arc::clone(one)),
        _ => None,
    }
}

fn is_saturated(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let wanted = wanted(deployment);
    size(set) == wanted && number(&set.metadata, DESIRED) == Some(i64::from(wanted)) && available(set) == wanted
}

fn proportions(deployment: &Deployment, split: &Split) -> Vec<Step> {
    let mut active: Vec<_> = split.old.iter().chain(&split.new).filter(|set| size(set) > 0).cloned().collect();
    let allowed = if wanted(deployment) > 0 { max_total(deployment) } else { 0 };
    let to_add = allowed - sum(&active, size);
    let age = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    match to_add {
        1.. => active.sort_by_key(|set| (Reverse(size(set)), Reverse(age(set)))),
        _ => active.sort_by_key(|set| (Reverse(size(set)), age(set))),
    }
    let mut added = 0;
    let mut sized: Vec<i32> = Vec::new();
    for set in &active {
        let share = share_of(deployment, set, to_add, added);
        added += share;
        sized.push(size(set) + share);
    }
    if let Some(first) = sized.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    let stale = |set: &ReplicaSet| {
        sizes(deployment).iter().any(|(k, v)| set.metadata.annotations.as_ref().and_then(|all| all.get(k)) != Some(v))
    };
    active
        .iter()
        .zip(sized)
        .filter(|(set, to)| size(set) != *to || stale(set))
        .map(|(set, to)| scale(set, to))
        .collect()
}

#[allow(clippy::cast_possible_truncation, reason = "a share of an i32, rounded; a cast from f64 saturates")]
fn share_of(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if to_add == 0 || to_add == added {
        return 0;
    }
    let left = to_add - added;
    let share = if wanted(deployment) == 0 {
        -size(set)
    } else {
        let before = number(&set.metadata, MAX)
            .filter(|max| *max > 0)
            .or_else(|| deployment.status.as_ref()?.replicas.map(i64::from))
            .unwrap_or(1)
            .max(1);
        let before = f64::from(i32::try_from(before).unwrap_or(i32::MAX));
        let grown = f64::from(size(set)) * f64::from(max_total(deployment)) / before;
        grown.round() as i32 - size(set)
    };
    if to_add > 0 { share.min(left) } else { share.max(left) }
}

/// Whether all pods are of the new revision, as many as wanted, and available.
fn is_complete(deployment: &Deployment, split: &Split) -> bool {
    let Some(status) = &deployment.status else { return false };
    let wanted = wanted(deployment);
    let n = |count: Option<i32>| count.unwrap_or_default();
    n(status.updated_replicas) == wanted
        && n(status.replicas) == wanted
        && n(status.available_replicas) == wanted
        && status.observed_generation >= deployment.metadata.generation
        && split.new.is_some()
}

/// Old sets beyond the history that is to be kept.
fn cleanup(deployment: &Deployment, split: &Split) -> Vec<Step> {
    let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let Ok(limit) = usize::try_from(limit) else { return Vec::new() };
    let mut old: Vec<_> = split.old.iter().filter(|set| !is_deleting(&set.metadata)).collect();
    let excess = old.len().saturating_sub(limit);
    old.sort_by_key(|set| (revision(set), set.metadata.creation_timestamp.as_ref().map(|time| time.0)));
    old.into_iter().take(excess).filter(|set| is_idle(set)).map(|set| Step::Delete(Arc::clone(set))).collect()
}

fn is_idle(set: &ReplicaSet) -> bool {
    let status = set.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation);
    size(set) == 0 && status.is_none_or(|status| status.replicas == 0) && observed >= set.metadata.generation
}
