//! The OCI runtime of a node: a containerd that is given, or skiff's own from the distribution's packages.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use skiff_agent::{
    PodNetwork, RuntimeEndpoint,
    runtime::containerd::{Containerd, Places, host, images::Importer},
};
use tokio_util::sync::CancellationToken;

/// Where a stock containerd looks for its network's configuration.
const STOCK_CNI: &str = "/etc/cni/net.d";

/// Which OCI runtime a node is to have.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// None, for the reason given.
    Without(&'static str),
    /// skiff's own containerd, where the machine has what it needs.
    Own,
    /// One that runs already, by its CRI socket.
    Given(PathBuf),
}

impl Choice {
    /// What `--container-runtime-endpoint` says.
    pub(crate) fn of(endpoint: Option<&str>) -> Self {
        match endpoint {
            None | Some("") => Self::Own,
            Some("none") => Self::Without("--container-runtime-endpoint is none"),
            Some(socket) => Self::Given(PathBuf::from(socket.strip_prefix("unix://").unwrap_or(socket))),
        }
    }
}

/// A node's OCI runtime, or why it has none.
pub(crate) struct Oci {
    /// The runtime's socket and network.
    pub(crate) endpoint: Result<RuntimeEndpoint, String>,
    /// The child, if skiff runs it.
    pub(crate) process: Option<Containerd>,
}

impl Oci {
    /// No OCI runtime.
    fn without(why: impl Into<String>) -> Self {
        Self { endpoint: Err(why.into()), process: None }
    }

    /// Starts or finds the runtime. A node where that fails runs Wasm alone and says why.
    pub(crate) async fn start(choice: &Choice, data_dir: &Path, cancel: CancellationToken) -> Self {
        let places = Places::of(data_dir);
        let endpoint = |socket: PathBuf, configuration: PathBuf| RuntimeEndpoint {
            socket,
            handlers: vec![String::new(), "runc".to_owned()],
            network: PodNetwork::Bridge { name: places.bridge(), configuration, leases: places.cni_leases() },
        };
        match choice {
            Choice::Without(why) => Self::without(*why),
            Choice::Given(socket) => Self { endpoint: Ok(endpoint(socket.clone(), STOCK_CNI.into())), process: None },
            Choice::Own => match own(&places, cancel).await {
                Ok(process) => {
                    Self { endpoint: Ok(endpoint(places.socket(), places.cni_conf())), process: Some(process) }
                }
                Err(error) => {
                    tracing::warn!("no OCI containers on this node: {error:#}");
                    Self::without(format!("{error:#}"))
                }
            },
        }
    }
}

async fn own(places: &Places, cancel: CancellationToken) -> Result<Containerd> {
    let programs = host::find()?;
    let containerd = Containerd::start(&programs, places, cancel).await?;
    import_archives(containerd.importer(), &places.archives()).await;
    Ok(containerd)
}

/// Imports what lies in the node's folder of archives; one that cannot be imported keeps no node from starting.
async fn import_archives(importer: &Importer, folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()).filter(|path| path.is_file()) {
        if let Err(error) = importer.import(&path).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "an image could not be loaded");
        }
    }
}

/// Imports an archive into the node's containerd; where that does not run, it is put where the next start finds it.
pub(crate) async fn import(file: &Path, data_dir: &Path) -> Result<Vec<String>> {
    let places = Places::of(data_dir);
    match Importer::running(&places) {
        Some(importer) => Ok(importer.import(file).await?),
        None => {
            let name = file.file_name().context("the archive's path has no file name")?;
            let target = places.archives().join(name);
            std::fs::create_dir_all(places.archives())
                .and_then(|()| std::fs::copy(file, &target))
                .with_context(|| format!("copying to {}", target.display()))?;
            Ok(vec![format!("{} (imported when the node starts)", target.display())])
        }
    }
}
