//! Which volumes a container gets, and where.

use std::{
    fs,
    path::{Path, PathBuf},
};

use k8s_cri::v1::{Mount, MountPropagation};
use k8s_openapi::api::core::v1::{Container, Volume, VolumeMount};

use super::{VolumeError, payload::stays_inside};
use crate::pods::env;

/// The mounts of a container. `path` says where a volume is on the host.
pub fn of(
    container: &Container,
    volumes: &[Volume],
    env: &[(String, String)],
    path: impl Fn(&Volume) -> PathBuf,
) -> Result<Vec<Mount>, VolumeError> {
    container
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| {
            let volume = volumes.iter().find(|volume| volume.name == mount.name);
            let volume = volume.ok_or_else(|| VolumeError::Missing { kind: "volume", name: mount.name.clone() })?;
            let host_path = within(&path(volume), &sub_path(mount, env))?;
            let of_objects = volume.config_map.is_some() || volume.secret.is_some() || volume.projected.is_some();
            let only_read = volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true));
            let of_objects = of_objects || volume.downward_api.is_some();
            Ok(Mount {
                container_path: mount.mount_path.clone(),
                host_path: host_path.display().to_string(),
                readonly: mount.read_only == Some(true) || of_objects || only_read,
                propagation: match mount.mount_propagation.as_deref() {
                    Some("HostToContainer") => MountPropagation::PropagationHostToContainer.into(),
                    Some("Bidirectional") => MountPropagation::PropagationBidirectional.into(),
                    _ => MountPropagation::PropagationPrivate.into(),
                },
                ..Mount::default()
            })
        })
        .collect()
}

fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> String {
    match (&mount.sub_path, &mount.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => path.clone(),
        (_, Some(expression)) => env::expand_one(expression, env),
        _ => String::new(),
    }
}

/// A path below a volume: made if it is not there, refused if a link leads out of the volume.
fn within(volume: &Path, sub_path: &str) -> Result<PathBuf, VolumeError> {
    if sub_path.is_empty() {
        return Ok(volume.to_owned());
    }
    if !stays_inside(sub_path) {
        return Err(VolumeError::Path(sub_path.to_owned()));
    }
    let path = volume.join(sub_path);
    let io = |source| VolumeError::Io { path: path.clone(), source };
    if !path.exists() {
        fs::create_dir_all(&path).map_err(io)?;
    }
    let (real, root) = (path.canonicalize().map_err(io)?, volume.canonicalize().map_err(io)?);
    if real.starts_with(root) { Ok(real) } else { Err(VolumeError::Path(sub_path.to_owned())) }
}
