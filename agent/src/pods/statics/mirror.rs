//! Keeps a mirror of every static pod in the API, so that people see it there. A mirror that is deleted comes back; the
//! pod itself does not notice.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, OwnerReference, Preconditions},
};
use skiff_api::status::ApiError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{MIRROR, Statics, mirrored};
use crate::context::Context;

/// When what failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// What is to be done about mirrors.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// There is to be a mirror of this pod.
    Create(Arc<Pod>),
    /// This mirror is to go.
    Delete(Arc<Pod>),
}

/// What is to be done about mirrors, given what is to run and the node's pods in the API; pure.
pub fn decide(statics: &Statics, pods: &[Arc<Pod>]) -> Vec<Step> {
    let name = |pod: &Pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone());
    let wanted: BTreeMap<_, _> = statics.values().map(|pod| (name(pod), pod)).collect();
    let there: BTreeMap<_, _> = pods.iter().map(|pod| (name(pod), pod)).collect();
    let mut steps = Vec::new();
    for pod in pods {
        let Some(of) = mirrored(pod) else { continue };
        let going = pod.metadata.deletion_timestamp.is_some();
        let current = wanted.get(&name(pod)).is_some_and(|wanted| wanted.metadata.uid.as_deref() == Some(of));
        if going || !current {
            steps.push(Step::Delete(Arc::clone(pod)));
        }
    }
    // One that is to go first makes room by going, which is heard of.
    steps.extend(
        wanted.iter().filter(|(name, _)| !there.contains_key(*name)).map(|(_, pod)| Step::Create(Arc::clone(pod))),
    );
    steps
}

/// Keeps mirrors until cancelled.
pub async fn keep(ctx: Arc<Context>, mut statics: watch::Receiver<Statics>, cancel: CancellationToken) {
    let mut changes = ctx.pods.subscribe();
    loop {
        let steps = match ctx.pods.is_synced() {
            true => decide(&statics.borrow_and_update(), &ctx.pods.list()),
            false => Vec::new(),
        };
        let mut failed = false;
        for step in steps {
            if let Err(e) = act(&ctx, &step).await {
                tracing::debug!(error = %e, "a static pod has no mirror yet");
                failed = true;
            }
        }
        let again = if failed { AGAIN } else { Duration::MAX };
        tokio::select! {
            () = cancel.cancelled() => return,
            change = changes.next() => if change.is_none() { return },
            changed = statics.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(again) => {}
        }
    }
}

async fn act(ctx: &Context, step: &Step) -> Result<(), ApiError> {
    match step {
        Step::Create(pod) => {
            let node: Node = ctx.client.get("", &ctx.node_name).await?;
            match ctx.client.create(&mirror_of(pod, &node)).await {
                Ok(mirror) => {
                    ctx.pods.observe(mirror);
                    Ok(())
                }
                Err(e) => Err(e),
            }
        }
        Step::Delete(mirror) => {
            let metadata = &mirror.metadata;
            let options = DeleteOptions {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: metadata.uid.clone(), resource_version: None }),
                ..DeleteOptions::default()
            };
            let (namespace, name) =
                (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
            match ctx.client.delete::<Pod>(namespace, name, &options).await {
                Err(e) if !e.is_not_found() && e.code != 409 => Err(e),
                _ => Ok(()),
            }
        }
    }
}

/// The mirror of a static pod.
fn mirror_of(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = pod.clone();
    let uid = mirror.metadata.uid.take().unwrap_or_default();
    mirror.metadata.annotations.get_or_insert_default().insert(MIRROR.to_owned(), uid);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror.status = None;
    mirror
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, uid: &str, more: Value) -> Arc<Pod> {
        let mut metadata = json!({"name": name, "namespace": "default", "uid": uid});
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Arc::new(serde_json::from_value(json!({"metadata": metadata})).unwrap())
    }

    #[test]
    fn mirrors_come_and_go() {
        let statics: Statics = [("h".to_owned(), pod("web", "h", json!({})))].into();
        let mirror = |name: &str, of: &str, more: Value| {
            let mut metadata = json!({"annotations": {MIRROR: of}});
            metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            pod(name, "of the API", metadata)
        };
        let none = || json!({});
        assert_eq!(decide(&statics, &[]), [Step::Create(pod("web", "h", none()))]);
        assert_eq!(decide(&statics, &[mirror("web", "h", none())]), []);
        for bad in
            [mirror("web", "older", none()), mirror("web", "h", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}))]
        {
            assert_eq!(decide(&statics, &[Arc::clone(&bad)]), [Step::Delete(bad)]);
        }
        let left = mirror("gone", "x", none());
        assert_eq!(decide(&Statics::new(), &[Arc::clone(&left), pod("own", "o", none())]), [Step::Delete(left)]);
        let foreign = pod("web", "somebody's", none());
        assert_eq!(decide(&statics, &[foreign]), [], "a pod of the name that is no mirror is let be");
    }

    #[test]
    fn a_mirror_is_the_nodes() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n", "uid": "node-uid"}})).unwrap();
        let mirror = mirror_of(&pod("web", "h", json!({})), &node);
        assert_eq!((mirrored(&mirror), mirror.metadata.uid.as_ref()), (Some("h"), None));
        assert_eq!(mirror.metadata.owner_references.unwrap()[0].uid, "node-uid");
    }
}
