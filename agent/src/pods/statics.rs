//! Static pods: files of a folder on the node that are run with or without the API server.
//!
//! - [`parse`]: from a file to a pod.
//! - [`folder`]: follows the folder.
//! - [`mirror`]: shows the pods in the API.

pub mod folder;
pub mod mirror;
pub mod parse;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;

/// The static pods that are to run, by their UIDs.
pub type Statics = BTreeMap<String, Arc<Pod>>;

/// The annotation of a mirror: the UID of the static pod.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// The annotation of what a pod was made of: its UID.
pub const HASH: &str = "kubernetes.io/config.hash";
/// The annotation of where a pod comes from.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// From a file.
pub const SOURCE_FILE: &str = "file";

/// The UID of the static pod that a pod of the API is the mirror of.
pub fn mirrored(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(MIRROR).map(String::as_str)
}

/// A mirror as what it mirrors, which runs under a UID of its own; `None` for what is no mirror.
pub fn as_run(pod: &Pod) -> Option<Pod> {
    let uid = Some(mirrored(pod)?.to_owned());
    let mut own = pod.clone();
    own.metadata.uid = uid;
    Some(own)
}
