//! What decides on a node's requests.

use super::*;

/// `verb group/resource/subresource namespace/name fields`
fn ask(line: &str) -> Way {
    let mut words = line.split(' ');
    let verb = words.next().unwrap_or_default();
    let target: Vec<&str> = words.next().unwrap_or_default().split('/').collect();
    let (namespace, name) = words.next().and_then(|place| place.split_once('/')).unwrap_or_default();
    let [group, resource, subresource] = target[..] else { return Deny("the test's line is no request") };
    let fields = words.next().unwrap_or_default();
    way(group, resource, "a", &Asked { verb, subresource, namespace, name, fields })
}

#[test]
fn a_node_has_what_is_its_own() {
    let cases = [
        ("get /secrets/ n/s", Related(Vertex::Secret)),
        ("watch /configmaps/ n/c", Related(Vertex::ConfigMap)),
        ("update /secrets/ n/s", Deny("can only read resources of this type")),
        ("list /secrets/ /", Deny("can only read namespaced object of this type")),
        ("get /persistentvolumeclaims/ n/c", Related(Vertex::Claim)),
        ("list /persistentvolumeclaims/ n/", Deny("can only get individual resources of this type")),
        ("patch /persistentvolumeclaims/status n/c", Related(Vertex::Claim)),
        ("get /persistentvolumes/ /v", Related(Vertex::Volume)),
        ("create /serviceaccounts/token n/s", Related(Vertex::ServiceAccount)),
        ("create /serviceaccounts/ n/", Deny("can only create token subresource of serviceaccount")),
        ("list /serviceaccounts/ n/", Deny("can only create tokens for individual service accounts")),
        ("update coordination.k8s.io/leases/ kube-node-lease/a", Allow),
        ("create coordination.k8s.io/leases/ kube-node-lease/", Allow),
        (
            "update coordination.k8s.io/leases/ kube-node-lease/b",
            Deny("can only access node lease with the same name as the requesting node"),
        ),
        (
            "get coordination.k8s.io/leases/ kube-system/a",
            Deny("can only access leases in the \"kube-node-lease\" system namespace"),
        ),
        ("patch storage.k8s.io/csinodes/ /a", Allow),
        (
            "patch storage.k8s.io/csinodes/ /b",
            Deny("can only access CSINode with the same name as the requesting node"),
        ),
        ("get /nodes/ /a", Allow),
        ("get /nodes/ /b", Deny("can only read its own Node")),
        ("list /nodes/ /", Deny("can only read its own Node")),
        ("patch /nodes/status /b", Allow),
        ("list /pods/ / spec.nodeName=a", Allow),
        ("watch /pods/ / status.phase!=Failed,spec.nodeName==a", Allow),
        ("list /pods/ / spec.nodeName=b", Deny("can only list/watch pods with spec.nodeName field selector")),
        ("list /pods/ /", Deny("can only list/watch pods with spec.nodeName field selector")),
        ("get /pods/ n/p", Related(Vertex::Pod)),
        ("patch /pods/ n/p", ByRole),
        ("create /pods/binding n/p", ByRole),
        ("list resource.k8s.io/resourceslices/ / spec.nodeName=a", Allow),
        ("delete resource.k8s.io/resourceslices/ /x", Related(Vertex::ResourceSlice)),
        ("create certificates.k8s.io/certificatesigningrequests/ /", ByRole),
    ];
    for (line, expected) in cases {
        assert_eq!(ask(line), expected, "{line}");
    }
}

#[test]
fn only_members_of_the_nodes_are_nodes() {
    let user = |name: &str, groups: &[&str]| UserInfo {
        name: name.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..UserInfo::default()
    };
    assert_eq!(node_name(&user("system:node:a", &["system:nodes"])), Some("a"));
    assert_eq!(node_name(&user("system:node:a", &["others"])), None);
    assert_eq!(node_name(&user("system:node:", &["system:nodes"])), None);
    assert_eq!(node_name(&user("a", &["system:nodes"])), None);
}
