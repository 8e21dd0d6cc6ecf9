//! The scheduler: a pure core that picks a node for a pod, and a thin shell that binds it.
//!
//! - [`snapshot`]: nodes and what runs on them, kept current change by change.
//! - [`decide`]: the core; [`filters`], [`volumes`] and [`topology`] say which nodes can take a pod, [`scores`] which is
//!   best.
//! - [`queue`]: pods that wait.
//! - `shell`: the loop that follows the informers, schedules and binds; [`prepare`]: what it does for volumes first.

pub mod decide;
pub mod filters;
pub mod prepare;
pub mod queue;
pub mod resources;
pub mod scores;
mod shell;
pub mod snapshot;
#[cfg(test)]
mod tests;
pub mod topology;
pub mod volumes;

use skiff_client::{Client, EventRecorder, Informers};
use tokio_util::sync::CancellationToken;

/// What the scheduler needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pods with this `spec.schedulerName` are scheduled, and events are recorded under it.
    pub scheduler_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { scheduler_name: "default-scheduler".to_owned() }
    }
}

/// Runs the scheduler until cancelled. `client` has the identity `system:kube-scheduler`.
pub async fn run(client: Client, informers: Informers, config: Config, cancel: CancellationToken) {
    let events = EventRecorder::new(client.clone(), &config.scheduler_name, "", cancel.clone());
    let shell = shell::Shell {
        client,
        events,
        config,
        pods: informers.of(),
        nodes: informers.of(),
        namespaces: informers.of(),
        storage: prepare::Volumes::new(&informers),
        snapshot: snapshot::Snapshot::default(),
        queue: queue::SchedulingQueue::default(),
    };
    shell.run(cancel).await;
}
