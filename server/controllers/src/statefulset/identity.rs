//! Who a pod of a StatefulSet is: its ordinal, name, host name and claims. No I/O.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec},
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use skiff_client::Kind;

use crate::{
    meta::{controller_reference, name, namespace, uid},
    pods::pod_from_template,
    revisions::{HASH_LABEL, template_of},
};

/// The label of a pod's own name.
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// The label of a pod's ordinal.
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in the name of a pod of a set; `None` where the name is not one.
pub fn ordinal_of(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let rest = name(&pod.metadata).strip_prefix(name(&set.metadata))?.strip_prefix('-')?;
    let is_plain = rest == "0" || (!rest.starts_with('0') && rest.bytes().all(|byte| byte.is_ascii_digit()));
    is_plain.then(|| rest.parse().ok()).flatten()
}

/// The name of the revision by which a pod was made.
pub fn revision_of(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(HASH_LABEL)).map(String::as_str).unwrap_or_default()
}

/// The pod of an ordinal, by a revision.
pub fn pod_for(set: &StatefulSet, ordinal: i32, revision: &ControllerRevision) -> Pod {
    let spec = set.spec.clone().unwrap_or_default();
    let template: PodTemplateSpec = template_of(revision).unwrap_or_else(|| spec.template.clone());
    let mut pod = pod_from_template(template, &set.metadata, "", controller_reference(set));
    let pod_name = format!("{}-{ordinal}", name(&set.metadata));
    pod.metadata.generate_name = Some(format!("{}-", name(&set.metadata)));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(NAME_LABEL.to_owned(), pod_name.clone());
    labels.insert(INDEX_LABEL.to_owned(), ordinal.to_string());
    labels.insert(HASH_LABEL.to_owned(), name(&revision.metadata).to_owned());
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(pod_name.clone());
    pod_spec.subdomain = spec.service_name.clone().filter(|name| !name.is_empty());
    let volumes = claims_of(set, ordinal).into_iter().map(|(volume, claim)| Volume {
        name: volume,
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: name(&claim.metadata).to_owned(),
            read_only: None,
        }),
        ..Volume::default()
    });
    let mut all: Vec<Volume> = volumes.collect();
    let own: Vec<String> = all.iter().map(|volume| volume.name.clone()).collect();
    all.extend(pod_spec.volumes.take().into_iter().flatten().filter(|volume| !own.contains(&volume.name)));
    pod_spec.volumes = (!all.is_empty()).then_some(all);
    pod.metadata.name = Some(pod_name);
    pod
}

/// The claims of an ordinal, each with the name of the volume that it is for.
pub fn claims_of(set: &StatefulSet, ordinal: i32) -> Vec<(String, PersistentVolumeClaim)> {
    let spec = set.spec.as_ref();
    let templates = spec.and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default();
    let claim = |template: &PersistentVolumeClaim| {
        let volume = name(&template.metadata).to_owned();
        let mut labels: BTreeMap<String, String> = template.metadata.labels.clone().unwrap_or_default();
        // The selector's labels, so that who selects the pods selects the claims.
        labels.extend(spec.and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default());
        let metadata = ObjectMeta {
            name: Some(format!("{volume}-{}-{ordinal}", name(&set.metadata))),
            namespace: Some(namespace(&set.metadata).to_owned()),
            labels: (!labels.is_empty()).then_some(labels),
            annotations: template.metadata.annotations.clone(),
            ..ObjectMeta::default()
        };
        (volume, PersistentVolumeClaim { metadata, spec: template.spec.clone(), status: None })
    };
    templates.iter().map(claim).collect()
}

/// Whether anything of the set's claims goes with the set or its pods.
pub fn has_retention(spec: &StatefulSetSpec) -> bool {
    let policy = spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |field: Option<&String>| field.is_some_and(|value| value == "Delete");
    policy.is_some_and(|policy| deletes(policy.when_deleted.as_ref()) || deletes(policy.when_scaled.as_ref()))
}

/// The owners that a claim is to have, where they differ from what it has: the set where claims go with it, the pod
/// where they go with pods that are too many and this is one.
pub fn claim_owners(
    set: &StatefulSet,
    claim: &PersistentVolumeClaim,
    pod: Option<&Pod>,
    condemned: bool,
) -> Option<Vec<OwnerReference>> {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |field: Option<&String>| field.is_some_and(|value| value == "Delete");
    let with_set = policy.is_some_and(|policy| deletes(policy.when_deleted.as_ref()));
    let with_pod = policy.is_some_and(|policy| deletes(policy.when_scaled.as_ref()));
    let by_pod = condemned && with_pod;
    let old = claim.metadata.owner_references.clone().unwrap_or_default();
    let is_other = |owner: &&OwnerReference| owner.uid != uid(&set.metadata) && owner.kind != Pod::KIND_NAME;
    let mut new: Vec<OwnerReference> = old.iter().filter(is_other).cloned().collect();
    if by_pod {
        new.extend(pod.map(plain_reference));
    } else if with_set {
        new.push(controller_reference(set));
    }
    let same = new.len() == old.len() && new.iter().all(|owner| old.iter().any(|known| known.uid == owner.uid));
    (!same).then_some(new)
}

/// The kind of pods as owner references name it.
trait KindName {
    const KIND_NAME: &'static str;
}

impl<K: Kind> KindName for K {
    const KIND_NAME: &'static str = K::KIND;
}

fn plain_reference(pod: &Pod) -> OwnerReference {
    OwnerReference { controller: None, ..controller_reference(pod) }
}
