//! ServiceAccount: every pod runs as one, and finds the account's token, the cluster's CA and its namespace in a volume.
//! Source: `plugin/pkg/admission/serviceaccount` of Kubernetes 1.36.

use serde_json::{Value, json};
use skiff_api::{object::Object, status::ApiError};
use uuid::Uuid;

use super::{
    Operation, World, Write,
    references::{self, SECRETS},
};
use crate::{registry::meta, tokens::issue::WARN_ONLY_SECONDS};

/// The account of pods that name none.
const DEFAULT: &str = "default";

/// The annotation of a mirror pod, which runs as no account.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// The annotation of an account whose pods may use the account's own Secrets alone.
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

/// What the names of the volumes with tokens begin with.
const VOLUME_PREFIX: &str = "kube-api-access-";

/// Where containers find the volume.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Sets the account of a new pod, and what the account brings.
pub(super) fn mutate(world: &dyn World, write: &Write<'_>, pod: &mut Object) -> Result<(), ApiError> {
    if !write.is(Operation::Create, "", "pods") {
        return Ok(());
    }
    if pod.at(&["metadata", "annotations", MIRROR]).is_some() {
        return mirror_pod(write, pod);
    }
    let named = |field: &str| pod.str_at(&["spec", field]).filter(|name| !name.is_empty());
    let name = named("serviceAccountName").or_else(|| named("serviceAccount")).unwrap_or(DEFAULT).to_owned();
    let account = world.find("", "serviceaccounts", write.namespace, &name);
    // The default account of a namespace comes a moment after the namespace: a pod does not wait for it here, but for
    // its token, on its node.
    if account.is_none() && name != DEFAULT {
        let at = write.namespace;
        return Err(
            write.forbidden(format!("error looking up service account {at}/{name}: serviceaccount {name:?} not found"))
        );
    }
    pod.set_at(&["spec", "serviceAccountName"], name.clone());
    pod.set_at(&["spec", "serviceAccount"], name);
    let account = account.unwrap_or_default();
    if automounts(pod, &account) {
        mount_token(pod);
    }
    pull_secrets(pod, &account);
    own_secrets_only(pod, &account).map_err(|why| write.forbidden(why))
}

/// A mirror pod is nobody's: it refers to nothing that its node could read through it.
fn mirror_pod(write: &Write<'_>, pod: &Object) -> Result<(), ApiError> {
    if pod.str_at(&["spec", "serviceAccountName"]).is_some_and(|name| !name.is_empty()) {
        return Err(write.forbidden("a mirror pod may not reference service accounts"));
    }
    if !references::names(pod, SECRETS).is_empty() {
        return Err(write.forbidden("a mirror pod may not reference secrets"));
    }
    let mut volumes = list(pod, &["spec", "volumes"]).iter();
    let is_token = |source: &Value| source.get("serviceAccountToken").is_some();
    if volumes.any(|volume| projections(volume).iter().any(is_token)) {
        return Err(write.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

fn list<'a>(object: &'a Object, path: &[&str]) -> &'a [Value] {
    object.at(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn projections(volume: &Value) -> &[Value] {
    let sources = volume.get("projected").and_then(|projected| projected.get("sources"));
    sources.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A pod without pull secrets has those of its account.
fn pull_secrets(pod: &mut Object, account: &Object) {
    if !list(pod, &["spec", "imagePullSecrets"]).is_empty() || list(account, &["imagePullSecrets"]).is_empty() {
        return;
    }
    if let Some(secrets) = account.at(&["imagePullSecrets"]) {
        pod.set_at(&["spec", "imagePullSecrets"], secrets.clone());
    }
}

/// Whether the pod, or else its account, wants the token mounted.
fn automounts(pod: &Object, account: &Object) -> bool {
    let says = |value: Option<&Value>| value.and_then(Value::as_bool);
    says(pod.at(&["spec", "automountServiceAccountToken"]))
        .or_else(|| says(account.at(&["automountServiceAccountToken"])))
        .unwrap_or(true)
}

/// Mounts the volume into every container that has nothing at its place, and adds the volume where one needs it.
fn mount_token(pod: &mut Object) {
    let brought = list(pod, &["spec", "volumes"]).iter().find_map(|volume| {
        volume.get("name").and_then(Value::as_str).filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned)
    });
    // The pod's own UID is as random as a name has to be.
    let random = pod.uid().parse::<Uuid>().unwrap_or_default();
    let name = brought.clone().unwrap_or_else(|| meta::generated_name(VOLUME_PREFIX, random));
    let mut needed = false;
    for containers in ["initContainers", "containers"] {
        let Some(mut all) = pod.at(&["spec", containers]).and_then(Value::as_array).cloned() else { continue };
        for container in all.iter_mut().filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if !mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
                needed = true;
            }
        }
        pod.set_at(&["spec", containers], all);
    }
    if needed && brought.is_none() {
        let mut volumes = list(pod, &["spec", "volumes"]).to_vec();
        volumes.push(token_volume(&name));
        pod.set_at(&["spec", "volumes"], volumes);
    }
}

/// The volume with the token, the CA and the namespace.
fn token_volume(name: &str) -> Value {
    let namespace = json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": WARN_ONLY_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]}})
}

/// Refuses Secrets that are not the account's, where the account says so.
fn own_secrets_only(pod: &Object, account: &Object) -> Result<(), String> {
    if account.str_at(&["metadata", "annotations", ENFORCE_MOUNTABLE]) != Some("true") {
        return Ok(());
    }
    let named = |list: &[Value]| -> Vec<String> {
        list.iter().filter_map(|one| one.get("name")?.as_str().map(str::to_owned)).collect()
    };
    let own = named(list(account, &["secrets"]));
    let who = account.name();
    for (path, secret) in references::named(pod, SECRETS) {
        if path != "imagePullSecrets" && !own.contains(&secret) {
            return Err(format!(
                "{path}={secret:?} is not allowed because service account {who} does not reference that secret"
            ));
        }
    }
    let pulls = named(list(account, &["imagePullSecrets"]));
    for secret in named(list(pod, &["spec", "imagePullSecrets"])) {
        if !pulls.contains(&secret) {
            return Err(format!(
                "imagePullSecrets={secret:?} is not allowed because service account {who} does not reference that \
                 imagePullSecret"
            ));
        }
    }
    Ok(())
}
