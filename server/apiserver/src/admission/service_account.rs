//! ServiceAccount: every pod runs as one. The volume that brings the account's token into the pod is added at
//! [`mount_token`] once tokens can be issued.

use serde_json::Value;
use skiff_api::{object::Object, status::ApiError};

use super::{Operation, World, Write};

/// The account of pods that name none.
const DEFAULT: &str = "default";

/// The annotation of a mirror pod, which runs as no account.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Sets the account of a new pod, and what the account brings.
pub(super) fn mutate(world: &dyn World, write: &Write<'_>, pod: &mut Object) -> Result<(), ApiError> {
    if !write.is(Operation::Create, "", "pods") || pod.at(&["metadata", "annotations", MIRROR]).is_some() {
        return Ok(());
    }
    let named = |field: &str| pod.str_at(&["spec", field]).filter(|name| !name.is_empty());
    let name = named("serviceAccountName").or_else(|| named("serviceAccount")).unwrap_or(DEFAULT).to_owned();
    let account = world.find("", "serviceaccounts", write.namespace, &name);
    let namespace_is_set_up = || world.find("", "serviceaccounts", write.namespace, DEFAULT).is_some();
    if account.is_none() && namespace_is_set_up() {
        let at = write.namespace;
        return Err(
            write.forbidden(format!("error looking up service account {at}/{name}: serviceaccount {name:?} not found"))
        );
    }
    pod.set_at(&["spec", "serviceAccountName"], name.clone());
    pod.set_at(&["spec", "serviceAccount"], name);
    if let Some(account) = account {
        pull_secrets(pod, &account);
        mount_token(pod, &account);
    }
    Ok(())
}

/// A pod without pull secrets has those of its account.
fn pull_secrets(pod: &mut Object, account: &Object) {
    let has = |object: &Object, path: &[&str]| object.at(path).and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    if has(pod, &["spec", "imagePullSecrets"]) || !has(account, &["imagePullSecrets"]) {
        return;
    }
    if let Some(secrets) = account.at(&["imagePullSecrets"]) {
        pod.set_at(&["spec", "imagePullSecrets"], secrets.clone());
    }
}

/// The place of the projected volume `kube-api-access-*` with the account's token, the cluster's CA and the
/// namespace: added here once TokenRequest is answered.
fn mount_token(_pod: &mut Object, _account: &Object) {}
