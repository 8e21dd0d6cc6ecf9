//! The tunnels that the node keeps open to the API servers, over which they reach its own API and its pods, see
//! [`skiff_client::link`]. The node needs no open port, and may be behind NAT.
//!
//! - `link`: one tunnel, opened again whenever it breaks.
//!
//! There is one to each API server that the Service `kubernetes` has, and one to the address that the node joined by:
//! that may be the only one of them that is reachable from here.

mod link;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use skiff_client::{Informer, https::Https};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Credentials, context::Context, streaming::Api};

/// How many servers are connected to; a cluster has some few.
const MAX_SERVERS: usize = 16;

/// What all tunnels share.
pub(crate) struct Tunnels {
    /// The server that the node joined by.
    pub(crate) server_url: String,
    /// Who the node is.
    pub(crate) credentials: watch::Receiver<Credentials>,
    /// The node's own way to the servers, which is told of all of them too.
    pub(crate) transport: Arc<Https>,
    /// The node's API.
    pub(crate) api: Arc<Api>,
    /// The node.
    pub(crate) ctx: Arc<Context>,
}

impl Tunnels {
    /// Keeps a tunnel to each API server until cancelled.
    pub(crate) async fn run(self: Arc<Self>, slices: Arc<Informer<EndpointSlice>>, cancel: CancellationToken) {
        let mut changes = slices.subscribe();
        let mut kept: BTreeMap<String, CancellationToken> = BTreeMap::new();
        loop {
            let wanted = wanted(&self.server_url, &slices.list());
            if let Err(error) = self.transport.set_servers(wanted.iter().map(String::as_str)) {
                tracing::warn!(%error, "the node goes on with the servers that it knows");
            }
            kept.retain(|url, end| {
                let keep = wanted.contains(url);
                if !keep {
                    end.cancel();
                }
                keep
            });
            for url in wanted {
                kept.entry(url).or_insert_with_key(|url| {
                    let end = cancel.child_token();
                    tokio::spawn(link::keep(Arc::clone(&self), url.clone(), end.clone()));
                    end
                });
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                change = changes.next() => if change.is_none() { return },
            }
            while changes.try_next().is_some() {}
        }
    }

    /// Whether a server may be connected to an address: a pod's of this node, or the node's own.
    fn is_here(&self, address: SocketAddr) -> bool {
        let is_own = |text: &str| text.parse() == Ok(address.ip());
        let of_pod = |pod: &k8s_openapi::api::core::v1::Pod| {
            let ips = pod.status.as_ref().and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
            ips.iter().any(|ip| is_own(&ip.ip))
        };
        self.ctx.host_ips.contains(&address.ip()) || self.ctx.pods.list().iter().any(|pod| of_pod(pod))
    }
}

/// The URLs of the servers to connect to.
fn wanted(server_url: &str, slices: &[Arc<EndpointSlice>]) -> BTreeSet<String> {
    let named = |slice: &&Arc<EndpointSlice>| {
        let labels = slice.metadata.labels.as_ref();
        slice.metadata.namespace.as_deref() == Some("default")
            && labels
                .and_then(|labels| labels.get("kubernetes.io/service-name"))
                .is_some_and(|name| name == "kubernetes")
    };
    let urls = slices.iter().filter(named).flat_map(|slice| {
        let port = slice.ports.iter().flatten().find_map(|port| u16::try_from(port.port?).ok());
        let ready = slice
            .endpoints
            .iter()
            .flatten()
            .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false));
        let addresses = ready.flat_map(|endpoint| &endpoint.addresses).filter_map(|text| text.parse::<IpAddr>().ok());
        addresses.filter_map(move |ip| Some(format!("https://{}", SocketAddr::new(ip, port?))))
    });
    let own = server_url.trim_end_matches('/').to_owned();
    std::iter::once(own).chain(urls.collect::<BTreeSet<_>>()).take(MAX_SERVERS).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn one_to_each_server_and_one_to_where_it_joined() {
        let slice = |namespace: &str, service: &str, endpoints: serde_json::Value| -> Arc<EndpointSlice> {
            serde_json::from_value(json!({
                "metadata": {"namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4", "ports": [{"name": "https", "port": 6443}], "endpoints": endpoints,
            }))
            .map(Arc::new)
            .unwrap()
        };
        let slices = [
            slice(
                "default",
                "kubernetes",
                json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
                    {"addresses": ["10.0.0.3"], "conditions": {"ready": false}}]),
            ),
            slice("other", "kubernetes", json!([{"addresses": ["10.6.6.6"]}])),
            slice("default", "web", json!([{"addresses": ["10.6.6.7"]}])),
        ];
        let urls: Vec<String> = wanted("https://10.0.0.1:6443/", &slices).into_iter().collect();
        assert_eq!(urls, ["https://10.0.0.1:6443", "https://10.0.0.2:6443"]);
        let urls: Vec<String> = wanted("https://cluster.example:6443", &slices[..1]).into_iter().collect();
        assert_eq!(urls, ["https://10.0.0.1:6443", "https://10.0.0.2:6443", "https://cluster.example:6443"]);
        assert_eq!(wanted("https://10.0.0.9:6443", &[]).len(), 1);
    }
}
