//! The controllers, each a pure core (`decide`) in one frame: one informer a kind, a work queue, its own identity.
//!
//! - [`frame`]: the frame; how a controller sees its own writes.
//! - [`replicaset`], [`deployment`]: pods from templates.
//! - [`endpointslice`]: which pods are behind a Service.
//! - [`endpoints`]: the older form of that.
//! - [`accounts`]: what every namespace has.
//! - [`tokens`]: tokens in Secrets.
//! - [`namespace`]: what goes with a namespace; [`garbage`]: what goes with its owner.
//! - [`nodes`]: address ranges, lost nodes, evictions, pods left behind.
//! - [`catalog`]: the resources that there are, built-in and custom.

pub mod accounts;
pub mod catalog;
pub mod deployment;
pub mod endpoints;
pub mod endpointslice;
pub mod frame;
pub mod garbage;
pub mod meta;
pub mod namespace;
pub mod nodes;
pub mod replicaset;
#[cfg(test)]
mod testing;
pub mod tokens;

use frame::Context;
use skiff_client::{Client, EventRecorder, Informers};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What the controllers need to know of the cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// The CA of the API server's certificate, as PEM, for `kube-root-ca.crt`.
    pub root_ca: String,
    /// What concerns nodes.
    pub nodes: nodes::Config,
    /// Signs the tokens in Secrets.
    pub sign_token: tokens::Sign,
}

/// Runs all controllers until cancelled. `connect` gives a client with the identity of a controller, named as the
/// ServiceAccount in `kube-system` that RBAC knows it by.
pub async fn run_all(
    connect: impl Fn(&str) -> Client,
    informers: Informers,
    config: Config,
    cancel: CancellationToken,
) {
    let mut all = JoinSet::new();
    let context = |name: &str| {
        let client = connect(name);
        let events = EventRecorder::new(client.clone(), name, "", cancel.clone());
        Context { client, informers: informers.clone(), events, cancel: cancel.clone() }
    };
    all.spawn(replicaset::run(context(replicaset::NAME)));
    all.spawn(deployment::run(context(deployment::NAME)));
    all.spawn(endpointslice::run(context(endpointslice::NAME)));
    all.spawn(accounts::run_accounts(context(accounts::ACCOUNTS_NAME)));
    all.spawn(tokens::run(context(tokens::NAME), config.root_ca.clone(), config.sign_token));
    all.spawn(accounts::run_root_ca(context(accounts::ROOT_CA_NAME), config.root_ca));
    all.spawn(endpoints::run(context(endpoints::NAME)));
    all.spawn(namespace::run(context(namespace::NAME)));
    all.spawn(garbage::run(context(garbage::NAME)));
    all.spawn(nodes::run_ranges(context(nodes::NAME), config.nodes.clone()));
    all.spawn(nodes::run_lifecycle(context(nodes::NAME), config.nodes.clone()));
    all.spawn(nodes::run_pod_gc(context(nodes::POD_GC_NAME), config.nodes));
    while let Some(ended) = all.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller ended by itself");
        }
    }
}
