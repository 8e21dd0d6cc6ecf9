//! Routes to the pods of other nodes on the same network: each node's range by that node, as flannel's `host-gw` does.
//! A node that is not a neighbour has none; its pods are reached by its tunnel alone.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Node;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol},
};
use skiff_client::Informer;
use tokio_util::sync::CancellationToken;

use super::cni::Network;

/// What marks the routes as skiff's (`/etc/iproute2/rt_protos` leaves this number free).
const PROTOCOL: u8 = 83;

/// How often routes that the kernel refused are tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// The ranges of other nodes, each with the node's address.
type Plan = BTreeMap<(Ipv4Addr, u8), Ipv4Addr>;

/// Which routes there are to be. Only ranges within the cluster's that nobody else has, least of all this node: what a
/// node says of itself must not lead others' packets astray.
fn plan(nodes: &[Arc<Node>], own: &str, cluster: Network) -> Plan {
    let mut sorted: Vec<&Arc<Node>> = nodes.iter().collect();
    let is_own = |node: &Node| node.metadata.name.as_deref() == Some(own);
    // This node first, then who was there first.
    sorted.sort_by_key(|node| (!is_own(node), node.metadata.creation_timestamp.clone(), node.metadata.name.clone()));
    let (mut taken, mut plan): (Vec<Network>, Plan) = (Vec::new(), Plan::new());
    for node in sorted {
        let range = node.spec.as_ref().and_then(|spec| Network::parse(spec.pod_cidr.as_deref()?));
        let Some(range) = range.filter(|range| cluster.contains(*range)) else { continue };
        if taken.iter().any(|other| other.contains(range) || range.contains(*other)) {
            continue;
        }
        taken.push(range);
        if let Some(address) = internal_address(node).filter(|_| !is_own(node)) {
            plan.insert((range.base, range.prefix), address);
        }
    }
    plan
}

fn internal_address(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().find(|address| address.type_ == "InternalIP")?;
    internal.address.parse().ok().filter(|address: &Ipv4Addr| !address.is_loopback())
}

fn message((base, prefix): (Ipv4Addr, u8), gateway: Ipv4Addr) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(base, prefix)
        .gateway(gateway)
        .protocol(RouteProtocol::Other(PROTOCOL))
        .build()
}

/// The routes that are skiff's.
async fn present(handle: &Handle) -> Result<Plan, rtnetlink::Error> {
    let all = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    let mine = |route: &RouteMessage| route.header.protocol == RouteProtocol::Other(PROTOCOL);
    let read = |route: RouteMessage| {
        let (mut range, mut gateway) = (None, None);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(base)) => range = Some(*base),
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
                _ => {}
            }
        }
        Some(((range?, route.header.destination_prefix_length), gateway?))
    };
    let routes: Vec<RouteMessage> = all.try_collect().await?;
    Ok(routes.into_iter().filter(mine).filter_map(read).collect())
}

/// Makes the routes what they are to be. One that the kernel refuses, because the node is no neighbour, is left out.
async fn apply(handle: &Handle, wanted: &Plan) -> Result<(), rtnetlink::Error> {
    let there = present(handle).await?;
    for (range, gateway) in &there {
        if wanted.get(range) != Some(gateway) {
            handle.route().del(message(*range, *gateway)).execute().await?;
        }
    }
    for (range, gateway) in wanted.iter().filter(|(range, gateway)| there.get(*range) != Some(*gateway)) {
        if let Err(error) = handle.route().add(message(*range, *gateway)).replace().execute().await {
            tracing::debug!(%error, range = %range.0, %gateway, "no route to the pods of a node that is no neighbour");
        }
    }
    Ok(())
}

/// The cluster's range of pod addresses, if it is one that can be routed: `skiff dev` has one of loopback.
pub fn routed(cluster: &str) -> Option<Network> {
    Network::parse(cluster).filter(|cluster| !cluster.base.is_loopback())
}

/// Keeps the routes those of the nodes until cancelled. They stay then: pods go on without the agent.
pub async fn run(nodes: Arc<Informer<Node>>, own: String, cluster: Network, cancel: CancellationToken) {
    let (connection, handle, _messages) = match rtnetlink::new_connection() {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!(%error, "no routes to the pods of other nodes");
            return;
        }
    };
    tokio::spawn(connection);
    let mut changes = nodes.subscribe();
    let mut applied: Option<Plan> = None;
    loop {
        if nodes.is_synced() {
            let wanted = plan(&nodes.list(), &own, cluster);
            if applied.as_ref() != Some(&wanted) {
                match apply(&handle, &wanted).await {
                    Ok(()) => applied = Some(wanted),
                    Err(error) => tracing::warn!(%error, "the routes to the pods of other nodes"),
                }
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            // Who was no neighbour may have become one; nothing tells.
            () = tokio::time::sleep(AGAIN) => applied = None,
            change = changes.next() => if change.is_none() { return },
        }
        while changes.try_next().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn node(name: &str, range: &str, address: &str, at: &str) -> Arc<Node> {
        serde_json::from_value(json!({
            "metadata": {"name": name, "creationTimestamp": at}, "spec": {"podCIDR": range},
            "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]},
        }))
        .map(Arc::new)
        .unwrap()
    }

    #[test]
    fn each_range_by_its_node_and_none_that_is_anothers() {
        const AT: [&str; 2] = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"];
        let nodes = [
            node("own", "10.64.0.0/19", "10.0.0.1", AT[1]),
            node("other", "10.64.32.0/19", "10.0.0.2", AT[0]),
            node("greedy", "0.0.0.0/1", "10.0.0.3", AT[0]),
            node("outside", "10.43.0.0/16", "10.0.0.4", AT[0]),
            node("mine", "10.64.0.0/19", "10.0.0.5", AT[0]),
            node("later", "10.64.32.0/20", "10.0.0.6", AT[1]),
            node("nowhere", "10.64.64.0/19", "127.0.0.1", AT[0]),
        ];
        let plan = plan(&nodes, "own", Network::parse("10.64.0.0/12").unwrap());
        let expected: Plan = [(("10.64.32.0".parse().unwrap(), 19), "10.0.0.2".parse().unwrap())].into();
        assert_eq!(plan, expected);
    }
}
