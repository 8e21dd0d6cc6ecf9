//! Gives every node its ranges of pod addresses.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use skiff_api::{request::ContentType, status::ApiError};
use skiff_client::{EventType, Informer, Key};

use super::{
    Config, NAME,
    cidr::{Cidr, allocate},
};
use crate::frame::{Again, Context, Controller, Frame};

struct Ranges {
    context: Context,
    nodes: Arc<Informer<Node>>,
    clusters: Vec<(Cidr, u8)>,
}

/// Gives every node its ranges of pod addresses.
pub async fn run_ranges(context: Context, config: Config) {
    let clusters = config.pod_cidrs.iter().filter_map(|(text, mask)| Some((Cidr::parse(text)?, *mask))).collect();
    let nodes = context.informers.of::<Node>();
    let cancel = context.cancel.clone();
    let controller = Ranges { context, nodes: Arc::clone(&nodes), clusters };
    // One worker: two must not pick the same range.
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch_if(&nodes, |_, _| false, |node| vec![Key::of(node)])
        .run(1)
        .await;
}

#[async_trait]
impl Controller for Ranges {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(node) = self.nodes.get("", &key.name) else { return Ok(None) };
        let has = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref()).is_some_and(|range| !range.is_empty());
        if has || self.clusters.is_empty() {
            return Ok(None);
        }
        let used: Vec<Cidr> = self.nodes.list().iter().flat_map(|node| ranges_of(node)).collect();
        let picked: Option<Vec<String>> =
            self.clusters.iter().map(|(cluster, mask)| Some(allocate(cluster, *mask, &used)?.to_string())).collect();
        let Some(picked) = picked else {
            let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
            self.context.events.event(&*node, EventType::Normal, "CIDRNotAvailable", message);
            return Err(ApiError::internal("no range of pod addresses is left"));
        };
        let patch = json!({"spec": {"podCIDR": picked.first(), "podCIDRs": picked}});
        let node = self.context.client.patch("", &key.name, None, ContentType::MergePatch, &patch).await?;
        self.nodes.observe(node);
        Ok(None)
    }
}

fn ranges_of(node: &Node) -> Vec<Cidr> {
    let spec = node.spec.as_ref();
    let all = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
    all.into_iter().chain(spec.and_then(|spec| spec.pod_cidr.clone())).filter_map(|text| Cidr::parse(&text)).collect()
}
