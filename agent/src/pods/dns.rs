//! How a pod resolves names: the lines of its `resolv.conf`; pure.

use k8s_cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::PodSpec;

/// Most name servers that resolvers use (resolv.conf(5), `MAXNS`).
const MAX_SERVERS: usize = 3;
/// Most search domains (kubernetes/pkg/apis/core/validation).
const MAX_SEARCHES: usize = 32;
/// Most bytes of all search domains with spaces between them.
const MAX_SEARCH_BYTES: usize = 2048;

/// What the cluster and the node know of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The cluster's DNS server; `None` where there is none.
    pub server: Option<String>,
    /// The cluster's domain, e.g. `cluster.local`.
    pub domain: String,
    /// The node's own `resolv.conf`.
    pub node: DnsConfig,
}

/// Reads a `resolv.conf`.
pub fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => config.servers.extend(words.next()),
            // The last line counts; `domain` is an old word for one search domain.
            Some("search" | "domain") => config.searches = words.map(|name| trimmed(&name)).collect(),
            Some("options") => config.options.extend(words),
            _ => {}
        }
    }
    config
}

/// A domain without its last dot, unless it is the root.
fn trimmed(name: &str) -> String {
    if name == "." { name.to_owned() } else { name.trim_end_matches('.').to_owned() }
}

/// The configuration of a pod in a namespace, and what was left out because there is too much of it.
pub fn config(spec: &PodSpec, namespace: &str, names: &Names) -> (DnsConfig, Option<String>) {
    let host_network = spec.host_network == Some(true);
    let policy = match (spec.dns_policy.as_deref().unwrap_or("ClusterFirst"), &names.server) {
        ("None", _) => "None",
        ("ClusterFirstWithHostNet", Some(_)) => "ClusterFirst",
        ("ClusterFirst", Some(_)) if !host_network => "ClusterFirst",
        _ => "Default",
    };
    let mut config = match policy {
        "ClusterFirst" => cluster_first(namespace, names),
        "None" => DnsConfig::default(),
        _ => names.node.clone(),
    };
    add_own(spec, &mut config);
    let omitted = limit(&mut config);
    (config, omitted)
}

fn cluster_first(namespace: &str, names: &Names) -> DnsConfig {
    let domain = &names.domain;
    let own = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    let mut searches: Vec<String> = vec![];
    for search in own.iter().chain(&names.node.searches).filter(|search| *search != ".") {
        if !searches.contains(search) {
            searches.push(search.clone());
        }
    }
    DnsConfig { servers: names.server.clone().into_iter().collect(), searches, options: vec!["ndots:5".to_owned()] }
}

/// What the pod says itself is added; its options go over those of the same name.
fn add_own(spec: &PodSpec, config: &mut DnsConfig) {
    let own = spec.dns_config.clone().unwrap_or_default();
    let mut add = |list: fn(&mut DnsConfig) -> &mut Vec<String>, more: Option<Vec<String>>| {
        for one in more.unwrap_or_default() {
            if !list(config).contains(&one) {
                list(config).push(one);
            }
        }
    };
    add(|config| &mut config.servers, own.nameservers);
    add(|config| &mut config.searches, own.searches.map(|all| all.iter().map(|name| trimmed(name)).collect()));
    for option in own.options.unwrap_or_default() {
        let name = option.name.unwrap_or_default();
        let same = |other: &String| other.split(':').next() == Some(&*name);
        config.options.retain(|other| !same(other));
        config.options.push(option.value.map_or(name.clone(), |value| format!("{name}:{value}")));
    }
}

/// Cuts what resolvers would not use; says so as the kubelet's `DNSConfigForming` event does.
fn limit(config: &mut DnsConfig) -> Option<String> {
    let mut omitted = vec![];
    if config.servers.len() > MAX_SERVERS {
        config.servers.truncate(MAX_SERVERS);
        let applied = config.servers.join(" ");
        omitted.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {applied}"
        ));
    }
    let mut bytes = 0;
    let fits = config.searches.iter().take(MAX_SEARCHES).take_while(|search| {
        bytes += search.len() + 1;
        bytes <= MAX_SEARCH_BYTES + 1
    });
    let fits = fits.count();
    if fits < config.searches.len() {
        config.searches.truncate(fits);
        let applied = config.searches.join(" ");
        omitted.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {applied}"
        ));
    }
    (!omitted.is_empty()).then(|| omitted.join("; "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::{Value, json};

    fn names() -> Names {
        let node = parse("# x\nnameserver 9.9.9.9\nsearch example.org. lan\noptions edns0\n");
        Names { server: Some("10.43.0.10".into()), domain: "cluster.local".into(), node }
    }

    fn of(spec: Value) -> DnsConfig {
        config(&serde_json::from_value(spec).unwrap(), "n", &names()).0
    }

    #[test]
    fn policies() {
        let cluster = of(json!({"containers": []}));
        assert_eq!(cluster.servers, ["10.43.0.10"]);
        let wanted = ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org", "lan"];
        assert_eq!((cluster.searches, cluster.options), (wanted.map(str::to_owned).to_vec(), vec!["ndots:5".into()]));
        let node = names().node;
        assert_eq!(of(json!({"containers": [], "dnsPolicy": "Default"})), node);
        assert_eq!(of(json!({"containers": [], "hostNetwork": true})), node);
        let both = of(json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}));
        assert_eq!(both.servers, ["10.43.0.10"]);
        assert_eq!(of(json!({"containers": [], "dnsPolicy": "None"})), DnsConfig::default());
        let alone = Names { server: None, ..names() };
        let spec = serde_json::from_value(json!({"containers": []})).unwrap();
        assert_eq!(config(&spec, "n", &alone).0, node, "a cluster without DNS uses the node's");
    }

    #[test]
    fn the_pods_own_is_added() {
        let own = json!({"nameservers": ["1.1.1.1", "10.43.0.10"], "searches": ["a.b."],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        let config = of(json!({"containers": [], "dnsConfig": own}));
        assert_eq!(config.servers, ["10.43.0.10", "1.1.1.1"]);
        assert_eq!(config.searches.last().unwrap(), "a.b");
        assert_eq!(config.options, ["ndots:2", "edns0"]);
    }

    #[test]
    fn too_much_is_cut_and_told() {
        let servers: Vec<_> = (1..6).map(|at| format!("10.0.0.{at}")).collect();
        let searches: Vec<_> = (0..40).map(|at| format!("s{at}")).collect();
        let spec =
            json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": servers, "searches": searches}});
        let (config, omitted) = config(&serde_json::from_value(spec).unwrap(), "n", &names());
        assert_eq!((config.servers.len(), config.searches.len()), (3, 32));
        assert!(omitted.unwrap().contains("10.0.0.1 10.0.0.2 10.0.0.3"));
        let long = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"searches": ["x".repeat(2048), "y"]}});
        let (config, omitted) = super::config(&serde_json::from_value(long).unwrap(), "n", &names());
        assert!(config.searches.len() == 1 && omitted.is_some());
    }
}
