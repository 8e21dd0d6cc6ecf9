//! Whose a node's name is. What joins with a token gets the name that it asks for only if nobody has it: the first key
//! that a name was given to is noted in a ConfigMap, and goes with the Node. So a stolen token cannot take over a node
//! that is there. The measure of k3s against that is a password a node; a key does without a further secret.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Node},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::json;
use skiff_api::{request::ContentType, status::ApiError};
use skiff_client::{Client, Informer, Key};

use crate::{
    frame::{Again, Context, Controller, Frame},
    meta::uid,
    pods::delete_options,
};

/// Where the notes are.
const NAMESPACE: &str = "kube-system";
/// The key of a note that holds the node's key: the SHA-256 of its public key.
const KEY: &str = "publicKeySha256";

/// The name of the note on a node's name.
fn note_name(node: &str) -> String {
    format!("{node}.node-key.skiff")
}

/// What is noted on a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    /// Its own UID.
    uid: String,
    /// The key that has the name.
    key: String,
    /// The Node that it goes with, once that is there.
    node_uid: Option<String>,
}

impl Note {
    fn of(map: &ConfigMap) -> Self {
        let owners = map.metadata.owner_references.as_deref().unwrap_or_default();
        Self {
            uid: map.metadata.uid.clone().unwrap_or_default(),
            key: map.data.as_ref().and_then(|data| data.get(KEY).cloned()).unwrap_or_default(),
            node_uid: owners.iter().find(|owner| owner.kind == "Node").map(|owner| owner.uid.clone()),
        }
    }
}

/// Whether a key may have a name.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It has it.
    Own,
    /// Nobody has it.
    Free,
    /// The Node that it went with is gone, and this note goes too.
    Left,
    /// Another has it.
    Taken,
}

fn judge(key: &str, note: Option<&Note>, node_uid: Option<&str>) -> Verdict {
    match (note, node_uid) {
        (Some(note), _) if note.key == key => Verdict::Own,
        (Some(note), None) if note.node_uid.is_some() => Verdict::Left,
        (None, None) => Verdict::Free,
        _ => Verdict::Taken,
    }
}

async fn optional<T>(found: impl Future<Output = Result<T, ApiError>>) -> Result<Option<T>, ApiError> {
    match found.await {
        Err(error) if error.is_not_found() => Ok(None),
        other => other.map(Some),
    }
}

/// Whether a key has a node's name from now on. An error where two ask at once; the later one is to try again.
pub(super) async fn claim(client: &Client, node: &str, key: &str) -> Result<bool, ApiError> {
    let name = note_name(node);
    let note = optional(client.get::<ConfigMap>(NAMESPACE, &name)).await?.map(|map| Note::of(&map));
    let there = optional(client.get::<Node>("", node)).await?;
    let node_uid = there.as_ref().map(|node| uid(&node.metadata));
    match judge(key, note.as_ref(), node_uid) {
        Verdict::Own => return Ok(true),
        Verdict::Taken => return Ok(false),
        Verdict::Free => {}
        Verdict::Left => {
            let uid = note.map(|note| note.uid).unwrap_or_default();
            optional(client.delete::<ConfigMap>(NAMESPACE, &name, &delete_options(&uid))).await?;
        }
    }
    let map = ConfigMap {
        metadata: ObjectMeta { name: Some(name), namespace: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([(KEY.to_owned(), key.to_owned())])),
        ..ConfigMap::default()
    };
    client.create(&map).await.map(|_| true)
}

struct Notes {
    context: Context,
    nodes: Arc<Informer<Node>>,
}

/// Lets each note go with its Node, until cancelled.
pub async fn run(context: Context) {
    let nodes = context.informers.of::<Node>();
    let cancel = context.cancel.clone();
    let controller = Notes { context, nodes: Arc::clone(&nodes) };
    Frame::new(super::NAME, Arc::new(controller), &cancel)
        .watch_if(&nodes, |_, _| false, |node| vec![Key::of(node)])
        .run(1)
        .await;
}

#[async_trait]
impl Controller for Notes {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(node) = self.nodes.get("", &key.name) else { return Ok(None) };
        let (client, name) = (&self.context.client, note_name(&key.name));
        let Some(map) = optional(client.get::<ConfigMap>(NAMESPACE, &name)).await? else { return Ok(None) };
        let node_uid = uid(&node.metadata);
        if Note::of(&map).node_uid.as_deref() == Some(node_uid) {
            return Ok(None);
        }
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": key.name, "uid": node_uid});
        let patch = json!({"metadata": {"uid": uid(&map.metadata), "ownerReferences": [owner]}});
        client.patch::<ConfigMap>(NAMESPACE, &name, None, ContentType::MergePatch, &patch).await.map(|_| None)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::{Running, eventually, object};

    #[test]
    fn a_name_stays_with_the_key_that_had_it_first() {
        let note = |key: &str, node: Option<&str>| {
            Some(Note { uid: "n".into(), key: key.into(), node_uid: node.map(str::to_owned) })
        };
        let cases = [
            (None, None, Verdict::Free),
            // Of a node that did not join by a token, above all a server's own.
            (None, Some("1"), Verdict::Taken),
            (note("mine", None), None, Verdict::Own),
            (note("mine", Some("1")), Some("1"), Verdict::Own),
            (note("other", None), None, Verdict::Taken),
            (note("other", Some("1")), Some("1"), Verdict::Taken),
            (note("other", Some("1")), Some("2"), Verdict::Taken),
            (note("other", Some("1")), None, Verdict::Left),
        ];
        for (note, node, expected) in cases {
            assert_eq!(judge("mine", note.as_ref(), node), expected, "{note:?} {node:?}");
        }
    }

    #[tokio::test]
    async fn a_name_is_free_again_with_its_node() {
        let cluster = Running::start(run);
        assert!(claim(&cluster.client, "n1", "first").await.unwrap());
        assert!(claim(&cluster.client, "n1", "first").await.unwrap());
        assert!(!claim(&cluster.client, "n1", "second").await.unwrap());
        let node: Node = object(json!({"metadata": {"name": "n1"}}));
        cluster.client.create(&node).await.unwrap();
        let note = async || cluster.client.get::<ConfigMap>(NAMESPACE, "n1.node-key.skiff").await.unwrap();
        eventually(async || Note::of(&note().await).node_uid.is_some()).await;
        assert!(!claim(&cluster.client, "n1", "second").await.unwrap());
        cluster.client.delete::<Node>("", "n1", &Default::default()).await.unwrap();
        assert!(claim(&cluster.client, "n1", "second").await.unwrap());
        assert_eq!(Note::of(&note().await).key, "second");
    }
}
