//! Makes a pod's volumes, refreshes those that are made of objects, takes them away.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, EmptyDirVolumeSource, HostPathVolumeSource, Secret, Volume, VolumeProjection,
};
use parking_lot::Mutex;
use skiff_client::{Client, Kind};

use super::{
    VolumeError, atomic,
    claims::{self, Claimed},
    memory, ownership,
    payload::{self, DEFAULT_MODE, File, Payload, mode},
    tokens::Tokens,
};
use crate::{keep::transport::is_away, pods::fields::Fields, quantity};

/// The folder of empty dirs, as the kubelet calls it.
const EMPTY_DIR: &str = "empty-dir";

/// Where an `emptyDir` of the pod with a folder is.
pub fn empty_dir_path(pod_folder: &Path, volume: &str) -> PathBuf {
    pod_folder.join("volumes").join(format!("kubernetes.io~{EMPTY_DIR}")).join(volume)
}

/// One pod's volumes on the node.
#[derive(Debug)]
pub struct Volumes {
    folder: PathBuf,
    client: Client,
    tokens: Tokens,
    /// By volume: those that are claims, once they were found.
    claimed: Mutex<BTreeMap<String, Claimed>>,
}

impl Volumes {
    /// The volumes of the pod with this folder.
    pub fn new(pod_folder: &Path, client: Client) -> Self {
        Self { folder: pod_folder.join("volumes"), client, tokens: Tokens::default(), claimed: Mutex::default() }
    }

    /// Where a volume is on the host.
    pub fn path(&self, volume: &Volume) -> PathBuf {
        if let Some(host) = &volume.host_path {
            return PathBuf::from(&host.path);
        }
        if let Some(claimed) = self.claimed.lock().get(&volume.name) {
            return claimed.path.clone();
        }
        let plugin = match volume {
            Volume { empty_dir: Some(_), .. } => EMPTY_DIR,
            Volume { config_map: Some(_), .. } => "configmap",
            Volume { secret: Some(_), .. } => "secret",
            Volume { downward_api: Some(_), .. } => "downward-api",
            _ => "projected",
        };
        self.folder.join(format!("kubernetes.io~{plugin}")).join(&volume.name)
    }

    /// Makes or refreshes all volumes, and asks for all that they are made of at once; the error names the volume.
    pub async fn set_up(&self, fields: &Fields<'_>, now: Timestamp) -> Result<(), (String, VolumeError)> {
        let volumes = fields.desired.spec().volumes.iter().flatten();
        let each = volumes.map(|volume| async move {
            let made = self.set_up_one(volume, fields, now).await;
            made.and_then(|()| self.give(volume, fields)).map_err(|e| (volume.name.clone(), e))
        });
        try_join_all(each).await.map(drop)
    }

    /// Gives a volume's files to the pod's group, if it names one. The host's own files are left alone.
    fn give(&self, volume: &Volume, fields: &Fields<'_>) -> Result<(), VolumeError> {
        let context = fields.desired.spec().security_context.as_ref();
        let group = context.and_then(|context| context.fs_group).and_then(|group| u32::try_from(group).ok());
        let (Some(context), Some(group), None) = (context, group, &volume.host_path) else { return Ok(()) };
        let claimed = self.claimed.lock().get(&volume.name).cloned();
        if claimed.as_ref().is_some_and(|claimed| !claimed.is_ours) {
            return Ok(());
        }
        let path = self.path(volume);
        let read_only = volume.empty_dir.is_none() && claimed.is_none();
        let lazy = context.fs_group_change_policy.as_deref() == Some("OnRootMismatch");
        ownership::give(&path, group, read_only, lazy).map_err(|source| VolumeError::Io { path, source })
    }

    /// The claims among the volumes that one pod alone may use.
    pub fn exclusive(&self) -> Vec<String> {
        self.claimed.lock().values().filter_map(|claimed| claimed.exclusive.clone()).collect()
    }

    /// When a token must be renewed.
    pub fn renew_at(&self) -> Option<Timestamp> {
        self.tokens.renew_at()
    }

    /// Takes everything away.
    pub fn tear_down(&self) -> Result<(), VolumeError> {
        let empty = self.folder.join(format!("kubernetes.io~{EMPTY_DIR}"));
        memory::unmount_all(&empty).map_err(|source| VolumeError::Io { path: empty, source })?;
        match fs::remove_dir_all(&self.folder) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(VolumeError::Io { path: self.folder.clone(), source })
            }
            _ => Ok(()),
        }
    }

    async fn set_up_one(&self, volume: &Volume, fields: &Fields<'_>, now: Timestamp) -> Result<(), VolumeError> {
        let path = self.path(volume);
        if let Some(source) = &volume.host_path {
            return check_host_path(source);
        }
        if let Some(source) = &volume.empty_dir {
            return empty_dir(source, &path);
        }
        if let Some(claimed) = claims::set_up(&self.client, volume, fields).await? {
            self.claimed.lock().insert(volume.name.clone(), claimed);
            return Ok(());
        }
        let payload = match self.make(volume, fields, now).await {
            // What was put there while the server answered is better than nothing: a token may still be good.
            Err(VolumeError::Api { source, .. }) if is_away(&source) && atomic::is_there(&path) => return Ok(()),
            made => made?.ok_or(VolumeError::Unsupported)?,
        };
        let stamp = now.as_nanosecond().to_string();
        make_dir(&path, 0o755)?;
        atomic::write(&path, &payload, &stamp).map_err(|source| VolumeError::Io { path, source })
    }

    /// The files of a volume that is made of objects; `None` for other kinds of volumes.
    async fn make(&self, volume: &Volume, fields: &Fields<'_>, now: Timestamp) -> Result<Option<Payload>, VolumeError> {
        if let Some(source) = &volume.config_map {
            let mode = mode(source.default_mode, DEFAULT_MODE);
            let optional = source.optional == Some(true);
            let payload = self.config_map(&source.name, source.items.as_ref(), optional, mode, fields).await?;
            return Ok(Some(payload));
        }
        if let Some(source) = &volume.secret {
            let mode = mode(source.default_mode, DEFAULT_MODE);
            let name = source.secret_name.as_deref().unwrap_or_default();
            let optional = source.optional == Some(true);
            let payload = self.secret(name, source.items.as_ref(), optional, mode, fields).await?;
            return Ok(Some(payload));
        }
        if let Some(source) = &volume.downward_api {
            let mode = mode(source.default_mode, DEFAULT_MODE);
            let payload = payload::downward(source.items.as_deref().unwrap_or_default(), fields, mode)?;
            return Ok(Some(payload));
        }
        let Some(source) = &volume.projected else { return Ok(None) };
        let mode = mode(source.default_mode, DEFAULT_MODE);
        let projections = source.sources.iter().flatten();
        let parts = projections.map(|projection| self.project(&volume.name, projection, mode, fields, now));
        Ok(Some(try_join_all(parts).await?.into_iter().flatten().collect()))
    }

    async fn project(
        &self,
        volume: &str,
        projection: &VolumeProjection,
        mode: u32,
        fields: &Fields<'_>,
        now: Timestamp,
    ) -> Result<Payload, VolumeError> {
        if let Some(source) = &projection.config_map {
            let optional = source.optional == Some(true);
            return self.config_map(&source.name, source.items.as_ref(), optional, mode, fields).await;
        }
        if let Some(source) = &projection.secret {
            return self.secret(&source.name, source.items.as_ref(), source.optional == Some(true), mode, fields).await;
        }
        if let Some(source) = &projection.downward_api {
            return payload::downward(source.items.as_deref().unwrap_or_default(), fields, mode);
        }
        let Some(source) = &projection.service_account_token else { return Err(VolumeError::Unsupported) };
        if !payload::stays_inside(&source.path) {
            return Err(VolumeError::Path(source.path.clone()));
        }
        let key = format!("{volume}/{}", source.path);
        let token = self.tokens.get(&self.client, key, source, fields, now).await?;
        Ok([(source.path.clone(), File { data: token.into_bytes(), mode })].into())
    }

    async fn config_map(
        &self,
        name: &str,
        items: Option<&Vec<k8s_openapi::api::core::v1::KeyToPath>>,
        optional: bool,
        mode: u32,
        fields: &Fields<'_>,
    ) -> Result<Payload, VolumeError> {
        match fetch::<ConfigMap>(&self.client, fields.desired.namespace(), name).await? {
            Some(map) => payload::config_map(&map, items, optional, mode),
            None if optional => Ok(Payload::new()),
            None => Err(VolumeError::Missing { kind: "configmap", name: name.to_owned() }),
        }
    }

    async fn secret(
        &self,
        name: &str,
        items: Option<&Vec<k8s_openapi::api::core::v1::KeyToPath>>,
        optional: bool,
        mode: u32,
        fields: &Fields<'_>,
    ) -> Result<Payload, VolumeError> {
        match fetch::<Secret>(&self.client, fields.desired.namespace(), name).await? {
            Some(secret) => payload::secret(&secret, items, optional, mode),
            None if optional => Ok(Payload::new()),
            None => Err(VolumeError::Missing { kind: "secret", name: name.to_owned() }),
        }
    }
}

/// An object, or `None` where it is not there.
pub async fn fetch<K: Kind>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>, VolumeError> {
    match client.get::<K>(namespace, name).await {
        Ok(object) => Ok(Some(object)),
        Err(e) if e.code == 404 => Ok(None),
        Err(source) => Err(VolumeError::Api { what: format!("{} {namespace}/{name}", K::KIND.to_lowercase()), source }),
    }
}

/// The config maps and the secrets that a pod's volumes are made of.
pub fn references(volumes: &[Volume]) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for volume in volumes {
        maps.extend(volume.config_map.as_ref().map(|source| source.name.clone()));
        secrets.extend(volume.secret.as_ref().and_then(|source| source.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            maps.extend(source.config_map.as_ref().map(|source| source.name.clone()));
            secrets.extend(source.secret.as_ref().map(|source| source.name.clone()));
        }
    }
    (maps, secrets)
}

fn make_dir(path: &Path, mode: u32) -> Result<(), VolumeError> {
    let io = |source| VolumeError::Io { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(io)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io)
}

/// An ordinary user cannot mount: memory is the disk's then.
fn empty_dir(source: &EmptyDirVolumeSource, path: &Path) -> Result<(), VolumeError> {
    let in_memory = source.medium.as_deref() == Some("Memory") && nix::unistd::geteuid().is_root();
    if memory::is_mounted(path) {
        return Ok(());
    }
    make_dir(path, 0o777)?;
    if !in_memory {
        return Ok(());
    }
    let limit = source.size_limit.as_ref().and_then(|limit| quantity::units(&limit.0));
    let limit = limit.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    memory::mount(path, limit).map_err(|source| VolumeError::Io { path: path.to_owned(), source })
}

pub(super) fn check_host_path(source: &HostPathVolumeSource) -> Result<(), VolumeError> {
    let path = Path::new(&source.path);
    let found = fs::metadata(path).ok();
    let is = |test: fn(&fs::Metadata) -> bool| found.as_ref().is_some_and(test);
    let (right, wanted) = match source.type_.as_deref().unwrap_or_default() {
        "Directory" => (is(fs::Metadata::is_dir), "directory"),
        "File" => (is(fs::Metadata::is_file), "file"),
        "Socket" => (is(|m| m.file_type().is_socket()), "socket file"),
        "CharDevice" => (is(|m| m.file_type().is_char_device()), "character device"),
        "BlockDevice" => (is(|m| m.file_type().is_block_device()), "block device"),
        "DirectoryOrCreate" if found.is_none() => return make_dir(path, 0o755),
        "DirectoryOrCreate" => (is(fs::Metadata::is_dir), "directory"),
        "FileOrCreate" if found.is_none() => {
            let made = fs::File::create_new(path).map(drop);
            return made.map_err(|error| VolumeError::Io { path: path.to_owned(), source: error });
        }
        "FileOrCreate" => (is(fs::Metadata::is_file), "file"),
        _ => return Ok(()),
    };
    if right { Ok(()) } else { Err(VolumeError::HostPath { path: path.to_owned(), wanted }) }
}
