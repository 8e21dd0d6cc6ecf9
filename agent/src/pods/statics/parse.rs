//! From a file to a static pod, as the kubelet makes one (kubernetes/pkg/kubelet/config/common.go); pure.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use skiff_api::{
    claims::claims_of,
    decode::{FieldValidation, Form, decode_value, parse},
    defaults,
    kinds::{GroupVersionKind, Kinds},
    object::Object,
    validate,
};

use super::{HASH, SOURCE, SOURCE_FILE};
use crate::{pods::env, volumes::setup};

/// Bytes of a UID in hexadecimal digits: as many as the kubelet's have.
const UID_BYTES: usize = 16;

/// The pod that a file describes, or what is wrong with it.
pub fn pod(bytes: &[u8], file: &str, node: &str) -> Result<Pod, String> {
    let kind = GroupVersionKind { group: String::new(), version: "v1".to_owned(), kind: "Pod".to_owned() };
    let (Some(form), Some(def)) = (Form::builtin(&kind), Kinds::builtin().kind(&kind)) else {
        return Err("pods are not known".to_owned());
    };
    let parsed = parse(bytes, true)?;
    let decoded = decode_value(parsed, &kind, form, FieldValidation::Warn).map_err(|e| e.message)?;
    for warning in &decoded.warnings {
        tracing::warn!(file, warning, "a static pod's file");
    }
    let mut object = decoded.object;
    fill_in(&mut object, file, node)?;
    defaults::apply(&kind, &mut object);
    let errors = validate::create(def, &object);
    if !errors.is_empty() {
        return Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    }
    let pod: Pod = object.to_typed().map_err(|e| e.to_string())?;
    match reference(&pod) {
        Some(what) => Err(format!("static pods can not reference {what}")),
        None => Ok(pod),
    }
}

/// What the kubelet adds: the node in the name, the node itself, the annotations by which static pods are known.
fn fill_in(object: &mut Object, file: &str, node: &str) -> Result<(), String> {
    let name = object.name().to_owned();
    if name.is_empty() {
        return Err("metadata.name: Required value".to_owned());
    }
    let uid = uid(object, file, node);
    object.set_at(&["metadata", "name"], format!("{name}-{}", node.to_lowercase()));
    if object.namespace().is_empty() {
        object.set_at(&["metadata", "namespace"], "default");
    }
    object.set_at(&["metadata", "uid"], uid.as_str());
    object.set_at(&["metadata", "annotations", HASH], uid);
    object.set_at(&["metadata", "annotations", SOURCE], SOURCE_FILE);
    object.set_at(&["spec", "nodeName"], node);
    object.remove_at(&["status"]);
    // A node that is in trouble does not get rid of what its operator put on it.
    let mut tolerations = object.at(&["spec", "tolerations"]).and_then(Value::as_array).cloned().unwrap_or_default();
    tolerations.push(json!({"effect": "NoExecute", "operator": "Exists"}));
    object.set_at(&["spec", "tolerations"], tolerations);
    Ok(())
}

/// What differs where node, file or content do.
fn uid(object: &Object, file: &str, node: &str) -> String {
    let mut digest = Sha256::new();
    for part in [node.as_bytes(), file.as_bytes(), &object.to_vec()] {
        digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().iter().take(UID_BYTES).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// What a pod refers to in the API, which a pod that must start without it may not.
fn reference(pod: &Pod) -> Option<&'static str> {
    let spec: &PodSpec = pod.spec.as_ref()?;
    let named = |name: &Option<String>| name.as_deref().is_some_and(|name| !name.is_empty());
    let (mut maps, mut secrets) = setup::references(spec.volumes.as_deref().unwrap_or_default());
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        let (m, s) = env::references(container);
        maps.extend(m);
        secrets.extend(s);
    }
    let projected = spec.volumes.iter().flatten().flat_map(|volume| &volume.projected);
    let mut sources = projected.flat_map(|projected| projected.sources.iter().flatten());
    let issued = |source: &k8s_openapi::api::core::v1::VolumeProjection| {
        source.service_account_token.is_some() || source.cluster_trust_bundle.is_some()
    };
    let all = [
        (named(&spec.service_account_name) || named(&spec.service_account), "a service account"),
        (!secrets.is_empty() || spec.image_pull_secrets.as_ref().is_some_and(|list| !list.is_empty()), "secrets"),
        (!maps.is_empty(), "configmaps"),
        (!claims_of(pod).is_empty(), "persistentvolumeclaims"),
        (spec.resource_claims.as_ref().is_some_and(|list| !list.is_empty()), "resourceclaims"),
        (sources.any(issued), "tokens or trust bundles"),
    ];
    all.into_iter().find(|(does, _)| *does).map(|(_, what)| what)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const FILE: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: c, image: x}]\n";

    #[test]
    fn a_file_becomes_a_pod_of_its_node() {
        let pod = super::pod(FILE.as_bytes(), "/m/web.yaml", "shop-1").unwrap();
        let (metadata, spec) = (pod.metadata, pod.spec.unwrap());
        assert_eq!((metadata.name.as_deref(), metadata.namespace.as_deref()), (Some("web-shop-1"), Some("default")));
        assert_eq!(metadata.uid.as_ref(), metadata.annotations.as_ref().and_then(|all| all.get(HASH)));
        assert_eq!(spec.node_name.as_deref(), Some("shop-1"));
        assert_eq!(spec.restart_policy.as_deref(), Some("Always"), "defaults apply");
        assert_eq!(spec.tolerations.unwrap()[0].operator.as_deref(), Some("Exists"));
        let again = super::pod(FILE.as_bytes(), "/m/web.yaml", "shop-1").unwrap();
        assert_eq!(again.metadata.uid, metadata.uid);
        for (text, file, node) in [
            (FILE.replace("image: x", "image: y"), "/m/web.yaml", "shop-1"),
            (FILE.to_owned(), "/m/other.yaml", "shop-1"),
            (FILE.to_owned(), "/m/web.yaml", "shop-2"),
        ] {
            assert_ne!(super::pod(text.as_bytes(), file, node).unwrap().metadata.uid, metadata.uid, "{file} {node}");
        }
    }

    #[test]
    fn files_that_are_no_pod() {
        let said = |text: &str| super::pod(text.as_bytes(), "f", "n").unwrap_err();
        assert!(said("{").contains("yaml") || !said("{").is_empty());
        assert!(said("apiVersion: v1\nkind: Service\n").contains("Service"));
        assert!(said("kind: Pod\napiVersion: v1\nspec: {containers: []}").contains("metadata.name"));
        assert!(said(&FILE.replace("image: x", "image: x, imagePullPolicy: Some")).contains("imagePullPolicy"));
        for (more, what) in [
            ("serviceAccountName: s", "a service account"),
            ("imagePullSecrets: [{name: s}]", "secrets"),
            ("volumes: [{name: v, configMap: {name: m}}]", "configmaps"),
            ("volumes: [{name: v, persistentVolumeClaim: {claimName: m}}]", "persistentvolumeclaims"),
        ] {
            let text = format!("{FILE}  {more}\n");
            assert_eq!(said(&text), format!("static pods can not reference {what}"));
        }
    }
}
