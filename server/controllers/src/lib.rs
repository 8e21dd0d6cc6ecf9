//! The controllers, each a pure core (`decide`) in one frame: one informer a kind, a work queue, its own identity.
//!
//! - [`frame`]: the frame; how a controller sees its own writes.
//! - [`replicaset`], [`deployment`]: pods from templates.
//! - [`endpointslice`]: which pods are behind a Service.
//! - [`accounts`]: what every namespace has.

pub mod accounts;
pub mod deployment;
pub mod endpointslice;
pub mod frame;
pub mod meta;
pub mod replicaset;
#[cfg(test)]
mod testing;

use frame::Context;
use skiff_client::{Client, EventRecorder, Informers};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What the controllers need to know of the cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// The CA of the API server's certificate, as PEM, for `kube-root-ca.crt`.
    pub root_ca: String,
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
    all.spawn(accounts::run_root_ca(context(accounts::ROOT_CA_NAME), config.root_ca));
    while let Some(ended) = all.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller ended by itself");
        }
    }
}
