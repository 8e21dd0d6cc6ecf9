//! What a path and a query of the node's API ask for; the paths are the kubelet's.

use percent_encoding::percent_decode_str;

/// The container that a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name; empty for requests about a pod.
    pub container: String,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/healthz` and `/healthz/*`
    Health,
    /// `/pods`
    Pods,
    /// `/configz`
    Configz,
    /// `/stats/summary`
    Stats,
    /// `/metrics`, `/metrics/resource`
    Metrics,
    /// `/metrics/cadvisor`
    Cadvisor,
    /// `/containerLogs/...`
    Logs(Place),
    /// `/exec/...`
    Exec(Place),
    /// `/attach/...`
    Attach(Place),
    /// `/portForward/...`
    PortForward(Place),
}

impl Route {
    /// The route of a path.
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let place = |namespace: &str, pod: &str, container: &str| Place {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: container.to_owned(),
        };
        Some(match parts.as_slice() {
            ["healthz", ..] => Self::Health,
            ["pods"] => Self::Pods,
            ["configz"] => Self::Configz,
            ["stats", "summary"] => Self::Stats,
            ["metrics", "cadvisor"] => Self::Cadvisor,
            ["metrics", ..] => Self::Metrics,
            ["containerLogs", namespace, pod, container] => Self::Logs(place(namespace, pod, container)),
            ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
                Self::Exec(place(namespace, pod, container))
            }
            ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
                Self::Attach(place(namespace, pod, container))
            }
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
                Self::PortForward(place(namespace, pod, ""))
            }
            _ => return None,
        })
    }

    /// The subresource of `nodes` that RBAC rules name for it.
    pub fn subresource(&self) -> &'static str {
        match self {
            Self::Health => "healthz",
            Self::Pods => "pods",
            Self::Configz => "configz",
            Self::Stats => "stats",
            Self::Metrics | Self::Cadvisor => "metrics",
            Self::Logs(_) | Self::Exec(_) | Self::Attach(_) | Self::PortForward(_) => "proxy",
        }
    }
}

/// The pairs of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query.
    pub fn parse(query: Option<&str>) -> Self {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect(),
        )
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of a name.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// Whether a switch is on.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "true" | "True" | "t" | "T" | "TRUE"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_read() {
        let place = |container: &str| Place { namespace: "n".into(), pod: "p".into(), container: container.into() };
        assert_eq!(Route::parse("/exec/n/p/c"), Some(Route::Exec(place("c"))));
        assert_eq!(Route::parse("/exec/n/p/uid/c"), Some(Route::Exec(place("c"))));
        assert_eq!(Route::parse("/portForward/n/p"), Some(Route::PortForward(place(""))));
        assert_eq!(Route::parse("/run/n/p/c"), None);
        let query = Query::parse(Some("command=echo&command=a%20b+c&input=1&tty=false"));
        assert_eq!(query.all("command"), ["echo", "a b c"]);
        assert!(query.flag("input") && !query.flag("tty") && !query.flag("error"));
    }
}
