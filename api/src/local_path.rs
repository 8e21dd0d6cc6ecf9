//! What the control plane and a node tell each other of volumes that are folders of the node: annotations of its Node
//! object, which the node may write itself. A node thus needs no rights on PersistentVolumes that no pod of it uses.

/// The provisioner's name, which is k3s's.
pub const PROVISIONER: &str = "rancher.io/local-path";

/// Where the node keeps such folders; written by the node.
pub const FOLDER: &str = "skiff.dev/local-path-folder";

/// Before a volume's name: its folder is to go ([`ASKED`], by the control plane), or is gone ([`DONE`], by the node).
pub const REMOVAL: &str = "remove-local-path.skiff.dev/";

/// The folder is to be removed.
pub const ASKED: &str = "asked";

/// The folder has been removed.
pub const DONE: &str = "done";

/// The name of a claim's volume.
pub fn volume_name(claim_uid: &str) -> String {
    format!("pvc-{claim_uid}")
}

/// The name of a volume's folder: the volume's, and behind it for the eyes of people the claim's.
pub fn folder_name(volume: &str, namespace: &str, claim: &str) -> String {
    format!("{volume}_{namespace}_{claim}")
}
