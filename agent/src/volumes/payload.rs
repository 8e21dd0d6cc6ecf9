//! The files of a volume that is made of objects: config maps, secrets, fields, tokens.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Secret};

use super::VolumeError;
use crate::pods::fields::Fields;

/// The mode of files where nothing else is said.
pub const DEFAULT_MODE: u32 = 0o644;

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What it holds.
    pub data: Vec<u8>,
    /// Its mode.
    pub mode: u32,
}

/// The files of a volume by their paths within it.
pub type Payload = BTreeMap<String, File>;

/// A mode as the API gives it.
pub fn mode(given: Option<i32>, default: u32) -> u32 {
    given.and_then(|mode| u32::try_from(mode).ok()).map_or(default, |mode| mode & 0o777)
}

/// Whether a path stays within its volume.
pub fn stays_inside(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('/') && path.split('/').all(|part| part != ".." && !part.is_empty())
}

/// All keys of an object, or the listed ones at their paths.
fn choose(
    kind: &'static str,
    all: &BTreeMap<String, Vec<u8>>,
    items: Option<&Vec<KeyToPath>>,
    optional: bool,
    default_mode: u32,
) -> Result<Payload, VolumeError> {
    let Some(items) = items else {
        return Ok(all
            .iter()
            .map(|(key, data)| (key.clone(), File { data: data.clone(), mode: default_mode }))
            .collect());
    };
    let mut files = Payload::new();
    for item in items {
        if !stays_inside(&item.path) {
            return Err(VolumeError::Path(item.path.clone()));
        }
        match all.get(&item.key) {
            Some(data) => {
                files.insert(item.path.clone(), File { data: data.clone(), mode: mode(item.mode, default_mode) });
            }
            None if optional => {}
            None => return Err(VolumeError::Key { kind, key: item.key.clone() }),
        }
    }
    Ok(files)
}

/// The files of a config map.
pub fn config_map(
    map: &ConfigMap,
    items: Option<&Vec<KeyToPath>>,
    optional: bool,
    mode: u32,
) -> Result<Payload, VolumeError> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    choose("configmap", &text.chain(binary).collect(), items, optional, mode)
}

/// The files of a secret.
pub fn secret(
    secret: &Secret,
    items: Option<&Vec<KeyToPath>>,
    optional: bool,
    mode: u32,
) -> Result<Payload, VolumeError> {
    let all = secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    choose("secret", &all.collect(), items, optional, mode)
}

/// The files of the downward API.
pub fn downward(
    files: &[DownwardAPIVolumeFile],
    fields: &Fields<'_>,
    default_mode: u32,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    for file in files {
        if !stays_inside(&file.path) {
            return Err(VolumeError::Path(file.path.clone()));
        }
        let text = match (&file.field_ref, &file.resource_field_ref) {
            (Some(reference), _) => fields.field(&reference.field_path)?,
            (None, Some(reference)) => fields.resource(reference, "")?,
            (None, None) => String::new(),
        };
        payload.insert(file.path.clone(), File { data: text.into_bytes(), mode: mode(file.mode, default_mode) });
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn map() -> ConfigMap {
        let data = [("a", "1"), ("b", "2")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        ConfigMap { data: Some(data.into()), ..ConfigMap::default() }
    }

    #[test]
    fn all_keys_or_the_listed_ones() {
        let all = config_map(&map(), None, false, DEFAULT_MODE).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b"]);
        let item = KeyToPath { key: "b".into(), path: "x/y".into(), mode: Some(0o400) };
        let listed = config_map(&map(), Some(&vec![item]), false, DEFAULT_MODE).unwrap();
        assert_eq!(listed["x/y"], File { data: b"2".to_vec(), mode: 0o400 });
    }

    #[test]
    fn what_is_missing_or_leaves_the_volume_is_refused() {
        let item = |key: &str, path: &str| Some(vec![KeyToPath { key: key.into(), path: path.into(), mode: None }]);
        let of = |items: Option<Vec<KeyToPath>>, optional| config_map(&map(), items.as_ref(), optional, DEFAULT_MODE);
        assert!(of(item("c", "c"), false).is_err());
        assert!(of(item("c", "c"), true).unwrap().is_empty());
        for path in ["../x", "/etc", "a/../../b", ""] {
            assert!(of(item("a", path), false).is_err(), "{path}");
        }
    }
}
