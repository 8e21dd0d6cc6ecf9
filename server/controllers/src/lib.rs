//! The controllers, each a pure core (`decide`) in one frame: one informer a kind, a work queue, its own identity.
//!
//! - [`frame`]: the frame; how a controller sees its own writes.
//! - [`replicaset`] (and ReplicationControllers), [`deployment`]: pods from templates; [`pods`]: what those share.
//! - [`daemonset`], [`statefulset`], and [`revisions`] of their templates; [`disruption`]: how many pods may go.
//! - [`job`], [`cronjob`]: pods that run to their end; [`ttl`]: when finished Jobs go.
//! - [`endpointslice`]: which pods are behind a Service.
//! - [`endpoints`]: the older form of that.
//! - [`accounts`]: what every namespace has.
//! - [`tokens`]: tokens in Secrets; [`legacy_tokens`]: those that nobody uses any more; [`bootstrap_tokens`]: those that
//!   nodes join with go when their time is over.
//! - [`certificates`]: requests for certificates, approved, signed and forgotten.
//! - [`namespace`]: what goes with a namespace; [`garbage`]: what goes with its owner; [`events`]: what goes with time.
//! - [`nodes`]: address ranges, lost nodes, evictions; [`podgc`]: pods that nobody else deletes.
//! - [`quota`]: what is used of ResourceQuotas.
//! - [`protection`]: volumes and claims that are in use stay. [`binder`]: how they find each other; [`local_path`]:
//!   volumes that are folders of nodes.
//! - [`catalog`]: the resources that there are, built-in and custom.

pub mod accounts;
pub mod binder;
pub mod bootstrap_tokens;
pub mod catalog;
pub mod certificates;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disrupt;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod events;
pub mod frame;
pub mod garbage;
pub mod job;
pub mod legacy_tokens;
pub mod local_path;
pub mod meta;
pub mod namespace;
pub mod nodes;
pub mod podgc;
pub mod pods;
pub mod protection;
pub mod quota;
pub mod replicaset;
pub mod revisions;
pub mod statefulset;
#[cfg(test)]
mod testing;
pub mod tokens;
pub mod ttl;

use std::sync::Arc;

use certificates::Signer;
use frame::Context;
use skiff_client::{Client, EventRecorder, Informers};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What the controllers need to know of the cluster.
#[derive(Clone)]
pub struct Config {
    /// The CA of the API server's certificate, as PEM, for `kube-root-ca.crt`.
    pub root_ca: String,
    /// What concerns nodes.
    pub nodes: nodes::Config,
    /// Who signs certificates.
    pub signer: Arc<dyn Signer>,
    /// The API as the API server itself: for what Kubernetes' does without a controller.
    pub server: Client,
    /// Signs the tokens in Secrets.
    pub sign_token: tokens::Sign,
    /// Whether volumes that are folders of nodes are provisioned.
    pub local_path: bool,
}

/// Makes the context of a controller by its name.
type Contexts<'a> = dyn Fn(&str) -> Context + 'a;

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
    start_workloads(&mut all, &context);
    start_network(&mut all, &context);
    start_cluster(&mut all, &context, &config);
    all.spawn(events::run(config.server, events::TTL, cancel.clone()));
    while let Some(ended) = all.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller ended by itself");
        }
    }
}

/// What makes pods.
fn start_workloads(all: &mut JoinSet<()>, context: &Contexts<'_>) {
    all.spawn(replicaset::run(context(replicaset::NAME)));
    all.spawn(replicaset::run_replication(context(replicaset::REPLICATION_NAME)));
    all.spawn(deployment::run(context(deployment::NAME)));
    all.spawn(job::run(context(job::NAME)));
    all.spawn(cronjob::run(context(cronjob::NAME)));
    all.spawn(daemonset::run(context(daemonset::NAME)));
    all.spawn(statefulset::run(context(statefulset::NAME)));
    all.spawn(disruption::run(context(disruption::NAME)));
    all.spawn(ttl::run(context(ttl::NAME)));
}

/// What leads to pods.
fn start_network(all: &mut JoinSet<()>, context: &Contexts<'_>) {
    all.spawn(endpointslice::run(context(endpointslice::NAME)));
    all.spawn(endpoints::run(context(endpoints::NAME)));
}

/// What keeps the cluster in order.
fn start_cluster(all: &mut JoinSet<()>, context: &Contexts<'_>, config: &Config) {
    all.spawn(accounts::run_accounts(context(accounts::ACCOUNTS_NAME)));
    let sign_token = config.sign_token.clone();
    all.spawn(tokens::run(context(tokens::NAME), config.root_ca.clone(), sign_token));
    all.spawn(legacy_tokens::run(context(legacy_tokens::NAME)));
    all.spawn(accounts::run_root_ca(context(accounts::ROOT_CA_NAME), config.root_ca.clone()));
    all.spawn(certificates::run(context(certificates::NAME), Arc::clone(&config.signer)));
    all.spawn(certificates::names::run(context(certificates::NAME)));
    all.spawn(bootstrap_tokens::run(context(bootstrap_tokens::NAME)));
    all.spawn(namespace::run(context(namespace::NAME)));
    all.spawn(garbage::run(context(garbage::NAME)));
    all.spawn(nodes::run_ranges(context(nodes::NAME), config.nodes.clone()));
    all.spawn(nodes::run_lifecycle(context(nodes::NAME), config.nodes.clone()));
    all.spawn(podgc::run(context(podgc::NAME), podgc::MAX_ENDED_PODS));
    all.spawn(quota::run(context(quota::NAME)));
    all.spawn(protection::run_claims(context(protection::CLAIMS_NAME)));
    all.spawn(protection::run_volumes(context(protection::VOLUMES_NAME)));
    all.spawn(binder::run(context(binder::NAME)));
    if config.local_path {
        all.spawn(local_path::run(context(local_path::NAME)));
    }
}
