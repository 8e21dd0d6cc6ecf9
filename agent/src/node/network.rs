//! Gives each runtime its part of the node's range, and what it needs to use it.

use std::{fs, path::Path, time::Duration};

use k8s_cri::v1::{NetworkConfig, RuntimeConfig, StatusRequest, UpdateRuntimeConfigRequest};

use crate::{
    PodNetwork,
    net::{
        anyip,
        cni::{self, Bridge, Network, Shares},
    },
    runtime::{
        Cri, CriError,
        containerd::host,
        router::{Runtime, Runtimes},
    },
};

/// How long a runtime may take to take up a CNI configuration.
const NETWORK_READY: Duration = Duration::from_secs(10);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(20);
/// The name of the CNI configuration, before others in order.
const FILE: &str = "10-skiff.conflist";

/// The pods have no network.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetworkError {
    /// The range is none, or too small.
    #[error("the node's podCIDR {0:?} cannot be shared by Wasm and OCI pods: it must be an IPv4 network up to a /22")]
    Range(String),
    /// Addresses cannot be bound.
    #[error("the addresses of pods")]
    Addresses(#[from] anyip::AnyIpError),
    /// The CNI configuration cannot be written.
    #[error("cannot write the pod network's configuration to {folder}")]
    Write {
        /// Where.
        folder: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A runtime does not take the range.
    #[error("the runtime {runtime} did not take the podCIDR")]
    Runtime {
        /// Its name.
        runtime: String,
        /// Why.
        #[source]
        source: CriError,
    },
}

/// Gives each runtime its part of the range.
pub(super) async fn set_up(runtimes: &Runtimes, cidr: &str) -> Result<(), NetworkError> {
    let bridged = runtimes.all().iter().any(|runtime| runtime.network != PodNetwork::AnyIp);
    let shares = match bridged {
        true => Some(Network::parse(cidr).and_then(cni::share).ok_or_else(|| NetworkError::Range(cidr.to_owned()))?),
        false => None,
    };
    let own = shares.as_ref().map_or_else(|| vec![cidr.to_owned()], |s| s.own.iter().map(Network::to_string).collect());
    for range in &own {
        anyip::own(range).await?;
    }
    for runtime in runtimes.all() {
        let part = match (&runtime.network, &shares) {
            (PodNetwork::Bridge { name, configuration, leases }, Some(shares)) => {
                write(name, configuration, leases, shares)?;
                shares.bridge.to_string()
            }
            _ => own.join(","),
        };
        tell(runtime, part).await?;
    }
    Ok(())
}

fn write(name: &str, folder: &Path, leases: &Path, shares: &Shares) -> Result<(), NetworkError> {
    let failed = |source| NetworkError::Write { folder: folder.display().to_string(), source };
    let iptables = host::program("iptables").is_some();
    if !iptables {
        tracing::warn!("iptables is not installed: OCI pods do not reach the world, and have no host ports");
    }
    let bridge = Bridge { name, network: shares.bridge, leases, iptables };
    fs::create_dir_all(folder).map_err(failed)?;
    // Written aside and renamed: the runtime watches the folder.
    let (new, file) = (folder.join(".new"), folder.join(FILE));
    fs::write(&new, cni::configuration(&bridge).to_string()).map_err(failed)?;
    fs::rename(&new, &file).map_err(failed)
}

/// Tells a runtime its range and waits until it has a network.
async fn tell(runtime: &Runtime, pod_cidr: String) -> Result<(), NetworkError> {
    let failed = |source| NetworkError::Runtime { runtime: runtime.name.clone(), source };
    let runtime_config = Some(RuntimeConfig { network_config: Some(NetworkConfig { pod_cidr }) });
    runtime.cri.update_runtime_config(UpdateRuntimeConfigRequest { runtime_config }).await.map_err(failed)?;
    let waited = tokio::time::timeout(NETWORK_READY, async {
        while !has_network(&*runtime.cri).await {
            tokio::time::sleep(LOOK).await;
        }
    });
    if waited.await.is_err() {
        tracing::warn!(runtime = runtime.name, "the runtime has no network yet");
    }
    Ok(())
}

async fn has_network(cri: &dyn Cri) -> bool {
    let Ok(answer) = cri.status(StatusRequest { verbose: false }).await else { return false };
    let conditions = answer.status.map(|status| status.conditions).unwrap_or_default();
    !conditions.iter().any(|condition| condition.r#type == "NetworkReady" && !condition.status)
}
