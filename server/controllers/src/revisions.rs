//! ControllerRevisions: what the template of a DaemonSet or StatefulSet was, for `kubectl rollout history` and `undo`,
//! and to know a pod's revision by its label.

use std::sync::Arc;

use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::{
        apis::meta::v1::{DeleteOptions, ObjectMeta},
        runtime::RawExtension,
    },
};
use serde_json::{Value, json};
use skiff_api::status::ApiError;
use skiff_client::{Informer, Kind};

use crate::{
    deployment::sets::content_hash,
    frame::Context,
    meta::{
        BY_CONTROLLER, controller_of, controller_reference, controller_values, is_controlled_by, name, namespace, uid,
    },
    pods::{delete_options, is_namespace_terminating},
};

/// The label of a pod that says by which revision it was made.
pub const HASH_LABEL: &str = "controller-revision-hash";
/// The label of a revision with its hash.
const REVISION_HASH: &str = "controller.kubernetes.io/hash";

/// How often names may collide in one pass.
const MAX_COLLISIONS: usize = 8;

/// How many revisions are kept by default, beside those in use.
const DEFAULT_LIMIT: i32 = 10;

/// The revision that the template of an owner is, and what that took.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// It is the newest one.
    Use(Arc<ControllerRevision>),
    /// It was one before (`rollout undo`): it becomes the newest, under this number.
    Renumber(Arc<ControllerRevision>, i64),
    /// It is new.
    Create(ControllerRevision),
}

/// What a revision keeps of an owner: a patch that puts its template back.
pub fn content(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The template that a revision keeps.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    serde_json::from_value(revision.data.as_ref()?.0.get("spec")?.get("template")?.clone()).ok()
}

/// The hash of a revision, as pods carry it.
pub fn hash_of(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(REVISION_HASH)).map(String::as_str).unwrap_or_default()
}

/// Decides which of an owner's revisions its template is.
pub fn decide<K: Kind>(
    owner: &K,
    template: &PodTemplateSpec,
    revisions: &[Arc<ControllerRevision>],
    collisions: i32,
) -> Step {
    let content = content(template);
    let newest = revisions.iter().map(|revision| revision.revision).max().unwrap_or_default();
    let same = |revision: &&Arc<ControllerRevision>| revision.data.as_ref().is_some_and(|data| data.0 == content);
    match revisions.iter().filter(same).max_by_key(|revision| revision.revision) {
        Some(known) if known.revision == newest => Step::Use(Arc::clone(known)),
        Some(known) => Step::Renumber(Arc::clone(known), newest + 1),
        None => Step::Create(revision_of(owner, template, content, newest + 1, collisions)),
    }
}

fn revision_of<K: Kind>(
    owner: &K,
    template: &PodTemplateSpec,
    content: Value,
    number: i64,
    collisions: i32,
) -> ControllerRevision {
    let hash = content_hash(&serde_json::to_vec(&content).unwrap_or_default(), collisions);
    let mut labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    labels.insert(REVISION_HASH.to_owned(), hash.clone());
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let metadata = ObjectMeta {
        name: Some(format!("{}-{hash}", name(owner.metadata()))),
        namespace: owner.metadata().namespace.clone(),
        labels: Some(labels),
        annotations: owner.metadata().annotations.clone(),
        owner_references: Some(vec![controller_reference(owner)]),
        ..ObjectMeta::default()
    };
    ControllerRevision { metadata, data: Some(RawExtension(content)), revision: number }
}

/// The revisions that are no longer needed: the oldest of those that no pod has, beyond a number.
pub fn outdated(
    revisions: &[Arc<ControllerRevision>],
    limit: Option<i32>,
    is_used: impl Fn(&ControllerRevision) -> bool,
) -> Vec<Arc<ControllerRevision>> {
    let mut unused: Vec<_> = revisions.iter().filter(|revision| !is_used(revision)).cloned().collect();
    unused.sort_by_key(|revision| revision.revision);
    let keep = usize::try_from(limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or_default();
    unused.truncate(unused.len().saturating_sub(keep));
    unused
}

/// Whether there are so many revisions that some may not be needed any more.
pub fn may_be_outdated(revisions: &[Arc<ControllerRevision>], limit: Option<i32>) -> bool {
    revisions.len() > usize::try_from(limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or_default()
}

/// The hands: reads, makes and forgets revisions.
pub struct History {
    context: Context,
    revisions: Arc<Informer<ControllerRevision>>,
}

impl History {
    /// Hands in the name of a controller.
    pub fn new(context: &Context) -> Self {
        let revisions = context.informers.of::<ControllerRevision>();
        revisions.index(BY_CONTROLLER, controller_values);
        Self { context: context.clone(), revisions }
    }

    /// Waits until the revisions are known.
    pub async fn synced(&self) {
        self.revisions.synced().await;
    }

    /// The revisions that an owner controls, the oldest first.
    pub fn of(&self, owner: &ObjectMeta) -> Vec<Arc<ControllerRevision>> {
        let mut all = self.revisions.indexed(BY_CONTROLLER, uid(owner));
        all.sort_by(|a, b| (a.revision, &a.metadata.name).cmp(&(b.revision, &b.metadata.name)));
        all
    }

    /// The revision that the template of an owner is, made where there is none yet, and how often names have
    /// collided by now.
    pub async fn current<K: Kind>(
        &self,
        owner: &K,
        template: &PodTemplateSpec,
        mut collisions: i32,
    ) -> Result<(Arc<ControllerRevision>, i32), ApiError> {
        for _ in 0..MAX_COLLISIONS {
            match decide(owner, template, &self.of(owner.metadata()), collisions) {
                Step::Use(known) => return Ok((known, collisions)),
                Step::Renumber(known, number) => {
                    let changed = ControllerRevision { revision: number, ..(*known).clone() };
                    return Ok((self.update(&changed).await?, collisions));
                }
                Step::Create(new) => match self.create(owner, &new).await? {
                    Some(made) => return Ok((made, collisions)),
                    None => collisions = collisions.saturating_add(1),
                },
            }
        }
        Err(ApiError::internal(format!("no free name for a revision of {}", name(owner.metadata()))))
    }

    /// Makes a revision; `None` where its name is another's. One that nobody controls and that says the same (its
    /// owner was deleted and left it behind) is taken on.
    async fn create<K: Kind>(
        &self,
        owner: &K,
        new: &ControllerRevision,
    ) -> Result<Option<Arc<ControllerRevision>>, ApiError> {
        match self.context.client.create(new).await {
            Ok(made) => {
                self.revisions.observe(made.clone());
                return Ok(Some(Arc::new(made)));
            }
            Err(error) if error.is_already_exists() && !is_namespace_terminating(&error) => {}
            Err(error) => return Err(error),
        }
        let there: ControllerRevision = self.context.client.get(namespace(&new.metadata), name(&new.metadata)).await?;
        if is_controlled_by(&there.metadata, uid(owner.metadata())) && there.data == new.data {
            self.revisions.observe(there.clone());
            return Ok(Some(Arc::new(there)));
        }
        if controller_of(&there.metadata).is_some() || there.data != new.data {
            return Ok(None);
        }
        let mut mine = ControllerRevision { revision: new.revision, ..there };
        mine.metadata.owner_references.get_or_insert_default().push(controller_reference(owner));
        self.update(&mine).await.map(Some)
    }

    async fn update(&self, revision: &ControllerRevision) -> Result<Arc<ControllerRevision>, ApiError> {
        let written = self.context.client.update(revision).await?;
        self.revisions.observe(written.clone());
        Ok(Arc::new(written))
    }

    /// Deletes revisions.
    pub async fn forget(&self, revisions: &[Arc<ControllerRevision>]) -> Result<(), ApiError> {
        for revision in revisions {
            let options: DeleteOptions = delete_options(uid(&revision.metadata));
            let (space, name) = (namespace(&revision.metadata), name(&revision.metadata));
            match self.context.client.delete::<ControllerRevision>(space, name, &options).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
