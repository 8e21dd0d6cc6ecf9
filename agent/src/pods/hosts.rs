//! The `/etc/hosts` of a pod's containers; pure.

use std::{fmt::Write, net::IpAddr};

use super::{config::hostname, model::DesiredPod};

/// What every host knows of itself.
const OWN: &str = "# Kubernetes-managed hosts file.\n\
    127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\n\
    fe00::2\tip6-allrouters\n";

/// The name of a pod within the cluster's domain, if it has one: `subdomain.namespace.svc.domain`.
fn domain(desired: &DesiredPod, cluster_domain: &str) -> Option<String> {
    let subdomain = desired.spec().subdomain.as_deref().filter(|name| !name.is_empty())?;
    Some(format!("{subdomain}.{}.svc.{cluster_domain}", desired.namespace()))
}

/// The file's text. `node` is the node's own file, for pods on its network.
pub fn text(desired: &DesiredPod, ips: &[IpAddr], cluster_domain: &str, node: &str) -> String {
    let mut text = String::new();
    if desired.spec().host_network == Some(true) {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(node);
    } else {
        text.push_str(OWN);
        let name = hostname(desired);
        let long = domain(desired, cluster_domain).filter(|_| desired.spec().hostname_override.is_none());
        for ip in ips {
            let _infallible = match &long {
                Some(domain) => writeln!(text, "{ip}\t{name}.{domain}\t{name}"),
                None => writeln!(text, "{ip}\t{name}"),
            };
        }
    }
    let aliases = desired.spec().host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let _infallible = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t"));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::pods::tests::desired;
    use serde_json::json;

    #[test]
    fn a_pod_knows_itself_and_its_aliases() {
        let pod = desired(json!({"containers": [], "hostname": "web-0", "subdomain": "web",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let text = text(&pod, &["10.64.0.5".parse().unwrap()], "cluster.local", "");
        assert!(text.contains("\n10.64.0.5\tweb-0.web.n.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }

    #[test]
    fn on_the_nodes_network_it_is_the_nodes() {
        let pod = desired(json!({"containers": [], "hostNetwork": true}));
        let text = text(&pod, &["10.0.0.1".parse().unwrap()], "cluster.local", "127.0.0.1 node\n");
        assert!(text.ends_with("\n127.0.0.1 node\n") && !text.contains("10.0.0.1"), "{text}");
    }
}
