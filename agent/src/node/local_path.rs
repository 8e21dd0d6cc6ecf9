//! Removes the folders of volumes of this node when the control plane asks for it, and says so
//! ([`skiff_api::local_path`]).

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use skiff_api::{
    local_path::{ASKED, DONE, REMOVAL},
    request::ContentType,
    status::ApiError,
};
use skiff_client::{Client, Informer};
use tokio_util::sync::CancellationToken;

/// When what failed is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// The task.
pub(super) struct Remover {
    /// The API server.
    pub(super) client: Client,
    /// Where the volumes are.
    pub(super) folder: PathBuf,
    /// The node itself.
    pub(super) nodes: Arc<Informer<Node>>,
}

impl Remover {
    /// Removes what is asked for until cancelled.
    pub(super) async fn run(self, cancel: CancellationToken) {
        let mut changes = self.nodes.subscribe();
        loop {
            let mut failed = false;
            for node in self.nodes.list() {
                for volume in asked(&node) {
                    failed |= !self.remove(&node, volume).await;
                }
            }
            let again = if failed { AGAIN } else { Duration::MAX };
            tokio::select! {
                () = cancel.cancelled() => return,
                change = changes.next() => if change.is_none() { return },
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Removes a volume's folder and says so; whether both were done.
    async fn remove(&self, node: &Node, volume: &str) -> bool {
        let (folder, name) = (self.folder.clone(), volume.to_owned());
        let removed = tokio::task::spawn_blocking(move || remove(&folder, &name)).await;
        if let Err(e) = removed.map_err(io::Error::other).and_then(|removed| removed) {
            tracing::warn!(error = %e, volume, "a volume's folder cannot be removed");
            return false;
        }
        match self.say(node, volume).await {
            Ok(()) => true,
            Err(e) => {
                tracing::warn!(error = %e, volume, "cannot say that a volume's folder is gone");
                false
            }
        }
    }

    async fn say(&self, node: &Node, volume: &str) -> Result<(), ApiError> {
        let patch = json!({"metadata": {"annotations": {format!("{REMOVAL}{volume}"): DONE}}});
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let form = ContentType::MergePatch;
        self.nodes.observe(self.client.patch::<Node>("", name, None, form, &patch).await?);
        Ok(())
    }
}

/// The volumes whose folders are to go.
fn asked(node: &Node) -> Vec<&str> {
    let all = node.metadata.annotations.iter().flatten();
    all.filter(|(_, state)| *state == ASKED).filter_map(|(key, _)| key.strip_prefix(REMOVAL)).collect()
}

/// Removes the folders of a volume that are directly in the folder of all: `VOLUME_...`, whatever claim they are
/// named after. Nothing else is touched, whatever the name says.
fn remove(folder: &Path, volume: &str) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let of_volume = name.to_str().and_then(|name| name.split_once('_')).is_some_and(|(first, _)| first == volume);
        if of_volume && volume.starts_with("pvc-") {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_the_volumes_own_folder_goes() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["pvc-1_n_c", "pvc-12_n_c", "pvc-1", "other_n_c"] {
            fs::create_dir_all(dir.path().join(name).join("deep")).unwrap();
        }
        for name in ["pvc-1", "other", "..", "", "../x", "absent"] {
            remove(dir.path(), name).unwrap();
        }
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["other_n_c", "pvc-1", "pvc-12_n_c"]);
        remove(&dir.path().join("none"), "pvc-1").unwrap();
    }
}
