//! Which Secrets, ConfigMaps, claims and the like a pod mentions: what its node may read for it.

use serde_json::Value;
use skiff_api::object::Object;

/// Every place in a pod's volumes that names an object of one kind, `/` between the fields; the last holds the name.
pub type Places = &'static [&'static str];

/// A kind of object that pods mention.
#[derive(Clone, Copy, Debug)]
pub struct Mentions {
    /// In a volume.
    volumes: Places,
    /// In a source of a projected volume.
    projections: Places,
    /// In an `env` entry's `valueFrom`.
    env: Places,
    /// In an `envFrom` entry.
    env_from: Places,
    /// In the pod's spec: lists of `{name}`.
    lists: Places,
}

/// Secrets. Source: `VisitPodSecretNames`.
pub const SECRETS: Mentions = Mentions {
    volumes: &[
        "secret/secretName",
        "azureFile/secretName",
        "cephfs/secretRef/name",
        "cinder/secretRef/name",
        "flexVolume/secretRef/name",
        "rbd/secretRef/name",
        "scaleIO/secretRef/name",
        "iscsi/secretRef/name",
        "storageos/secretRef/name",
        "csi/nodePublishSecretRef/name",
    ],
    projections: &["secret/name"],
    env: &["secretKeyRef/name"],
    env_from: &["secretRef/name"],
    lists: &["imagePullSecrets"],
};

/// ConfigMaps. Source: `VisitPodConfigmapNames`.
pub const CONFIG_MAPS: Mentions = Mentions {
    volumes: &["configMap/name"],
    projections: &["configMap/name"],
    env: &["configMapKeyRef/name"],
    env_from: &["configMapRef/name"],
    lists: &[],
};

fn array<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, place: &str) -> Option<&'a str> {
    let found = place.split('/').try_fold(value, |value, field| value.get(field))?;
    found.as_str().filter(|name| !name.is_empty())
}

/// The names that a pod mentions, each with where.
pub fn named(pod: &Object, mentions: Mentions) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let Some(spec) = pod.at(&["spec"]) else { return found };
    let mut look = |at: &str, value: &Value, places: Places| {
        for place in places {
            if let Some(name) = text(value, place) {
                found.push((format!("{at}{}", place.replace('/', ".")), name.to_owned()));
            }
        }
    };
    for list in mentions.lists {
        array(spec, list).iter().for_each(|one| look(list, one, &["name"]));
    }
    for volume in array(spec, "volumes") {
        look("volume with ", volume, mentions.volumes);
        let projected = volume.get("projected").unwrap_or(&Value::Null);
        array(projected, "sources")
            .iter()
            .for_each(|source| look("volume with projected.", source, mentions.projections));
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in array(spec, list) {
            let at = format!("container {} with ", container.get("name").and_then(Value::as_str).unwrap_or_default());
            array(container, "envFrom").iter().for_each(|from| look(&format!("{at}envFrom."), from, mentions.env_from));
            let values = array(container, "env").iter().filter_map(|env| env.get("valueFrom"));
            values.for_each(|from| look(&format!("{at}env."), from, mentions.env));
        }
    }
    for (path, _) in &mut found {
        if path.starts_with("imagePullSecrets") {
            "imagePullSecrets".clone_into(path);
        }
    }
    found
}

/// The names that a pod mentions, each once.
pub fn names(pod: &Object, mentions: Mentions) -> Vec<String> {
    let mut names: Vec<String> = named(pod, mentions).into_iter().map(|(_, name)| name).collect();
    names.sort();
    names.dedup();
    names
}

/// The claims that a pod's volumes are, those that are made for it included.
pub fn claims(pod: &Object) -> Vec<String> {
    let Some(spec) = pod.at(&["spec"]) else { return Vec::new() };
    let claim = |volume: &Value| match text(volume, "persistentVolumeClaim/claimName") {
        Some(name) => Some(name.to_owned()),
        None if volume.get("ephemeral").is_some_and(Value::is_object) => {
            Some(format!("{}-{}", pod.name(), text(volume, "name")?))
        }
        None => None,
    };
    array(spec, "volumes").iter().filter_map(claim).collect()
}

/// The ResourceClaims that a pod uses: those that it names, and those that were made for it.
pub fn resource_claims(pod: &Object) -> Vec<String> {
    let spec = pod.at(&["spec"]).map(|spec| array(spec, "resourceClaims")).unwrap_or_default();
    let made = pod.at(&["status"]).map(|status| array(status, "resourceClaimStatuses")).unwrap_or_default();
    spec.iter().chain(made).filter_map(|one| text(one, "resourceClaimName").map(str::to_owned)).collect()
}

/// The account that a pod runs as.
pub fn account(pod: &Object) -> Option<&str> {
    pod.str_at(&["spec", "serviceAccountName"]).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_mention_is_found() {
        let mut pod = Object::default();
        pod.set_at(&["metadata", "name"], "p");
        pod.set_at(&["spec"], json!({
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "s1"}}, {"name": "b", "configMap": {"name": "c1"}},
                {"name": "c", "projected": {"sources": [{"secret": {"name": "s2"}}, {"configMap": {"name": "c2"}}]}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "pvc"}}, {"name": "e", "ephemeral": {}},
            ],
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s3"}}]}],
            "containers": [{"name": "m", "env": [
                {"name": "x", "valueFrom": {"secretKeyRef": {"name": "s4", "key": "k"}}},
                {"name": "y", "valueFrom": {"configMapKeyRef": {"name": "c3", "key": "k"}}}]}],
            "resourceClaims": [{"name": "r", "resourceClaimName": "rc"}],
        }));
        pod.set_at(&["status", "resourceClaimStatuses"], json!([{"name": "t", "resourceClaimName": "made"}]));
        assert_eq!(names(&pod, SECRETS), ["pull", "s1", "s2", "s3", "s4"]);
        assert_eq!(names(&pod, CONFIG_MAPS), ["c1", "c2", "c3"]);
        assert_eq!(claims(&pod), ["pvc", "p-e"]);
        assert_eq!(resource_claims(&pod), ["rc", "made"]);
    }
}
