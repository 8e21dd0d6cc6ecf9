//! From CRI's configuration of a container to what its instances get.

use std::sync::Arc;

use k8s_cri::v1::ContainerConfig;
use serde::Deserialize;

use super::{Container, Runtime, Sandbox, container::Ready};
use crate::{
    engine::{guest::Pod, outgoing::Outgoing},
    error::Failure,
    images::Entry,
    run::{Spec, stdio::Stdio},
};

/// Where the kubelet writes the container's ports, as in the pod's specification.
const PORTS_ANNOTATION: &str = "io.kubernetes.container.ports";
/// The port of an HTTP component that names none.
const DEFAULT_PORT: u16 = 80;

impl Runtime {
    /// What the instances of a container get.
    pub(crate) fn spec(
        &self,
        sandbox: &Sandbox,
        container: &Container,
        ready: Ready,
        stdio: Stdio,
    ) -> Result<Spec, Failure> {
        let (config, address) = (&container.config, self.listen_address(sandbox)?);
        let env = environment(&hostname(sandbox), config, &ready.image);
        let working_dir = [&config.working_dir, &ready.image.run.working_dir].into_iter().find(|dir| !dir.is_empty());
        Ok(Spec {
            args: arguments(config, &ready.image),
            pod: Pod {
                config: Arc::new(env.iter().map(|(name, value)| (name.clone(), value.clone())).collect()),
                address,
                usage: container.usage.clone(),
                outgoing: Arc::new(Outgoing::new(address)),
            },
            env,
            preopens: container.preopens(),
            working_dir: working_dir.cloned().unwrap_or_default(),
            program: ready.program,
            stdio,
            ticker: self.ticker.clone(),
            places: self.compiler.places().of_pod(),
        })
    }
}

/// The arguments by Kubernetes' rule: `command` replaces the image's entrypoint and its arguments, `args` the image's
/// arguments alone. A Wasm artifact's entrypoint is its own name.
fn arguments(config: &ContainerConfig, image: &Entry) -> Vec<String> {
    let own = [image.program.clone()];
    let entrypoint = if image.run.entrypoint.is_empty() { own.as_slice() } else { &image.run.entrypoint };
    match (config.command.is_empty(), config.args.is_empty()) {
        (false, _) => [config.command.as_slice(), &config.args].concat(),
        (true, false) => [entrypoint, &config.args].concat(),
        (true, true) => [entrypoint, &image.run.cmd].concat(),
    }
}

/// The pod's host name; on the node's network, the node's.
fn hostname(sandbox: &Sandbox) -> String {
    if !sandbox.config.hostname.is_empty() {
        return sandbox.config.hostname.clone();
    }
    let node = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    node.trim_end().to_owned()
}

/// The pod's host name, over it the image's environment, over that the container's own: containerd's order.
fn environment(hostname: &str, config: &ContainerConfig, image: &Entry) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    let of_pod = [("HOSTNAME", hostname)].into_iter().filter(|_| !hostname.is_empty());
    let of_image = image.run.env.iter().filter_map(|pair| pair.split_once('='));
    let own = config.envs.iter().map(|pair| (pair.key.as_str(), pair.value.as_str()));
    for (name, value) in of_pod.chain(of_image).chain(own) {
        match env.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value.to_owned(),
            None => env.push((name.to_owned(), value.to_owned())),
        }
    }
    env
}

/// What counts of a container's port.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    container_port: u16,
    #[serde(default)]
    protocol: String,
}

/// The port that an HTTP component is served at: the first TCP port that the container names.
pub(crate) fn http_port(config: &ContainerConfig) -> u16 {
    let ports = config.annotations.get(PORTS_ANNOTATION);
    let ports: Vec<Port> = ports.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let first = ports.iter().find(|port| port.protocol.is_empty() || port.protocol == "TCP");
    first.map_or(DEFAULT_PORT, |port| port.container_port)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::images::RunConfig;

    fn image(entrypoint: &[&str], cmd: &[&str], env: &[&str]) -> Entry {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        let run =
            RunConfig { entrypoint: list(entrypoint), cmd: list(cmd), env: list(env), working_dir: String::new() };
        Entry::that_runs("hello.wasm", run)
    }

    fn config(command: &[&str], args: &[&str]) -> ContainerConfig {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        ContainerConfig { command: list(command), args: list(args), ..ContainerConfig::default() }
    }

    #[test]
    fn arguments_by_kubernetes_rule() {
        let plain = image(&[], &[], &[]);
        let full = image(&["/app.wasm", "run"], &["all"], &[]);
        for (image, command, args, wanted) in [
            (&plain, &[][..], &[][..], vec!["hello.wasm"]),
            (&plain, &[], &["a", "b"], vec!["hello.wasm", "a", "b"]),
            (&plain, &["x"], &["a"], vec!["x", "a"]),
            (&full, &[], &[], vec!["/app.wasm", "run", "all"]),
            (&full, &[], &["one"], vec!["/app.wasm", "run", "one"]),
            (&full, &["x"], &[], vec!["x"]),
        ] {
            assert_eq!(arguments(&config(command, args), image), wanted);
        }
    }

    #[test]
    fn the_pods_environment_wins() {
        let mut config = config(&[], &[]);
        config.envs = vec![
            k8s_cri::v1::KeyValue { key: "A".into(), value: "pod".into() },
            k8s_cri::v1::KeyValue { key: "C".into(), value: "3".into() },
        ];
        let env = environment("web-0", &config, &image(&[], &[], &["A=image", "B=2=2"]));
        let pairs: Vec<_> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(pairs, ["HOSTNAME=web-0", "A=pod", "B=2=2", "C=3"]);
        assert_eq!(environment("", &config, &image(&[], &[], &[])).len(), 2);
    }

    #[test]
    fn ports() {
        for (json, port) in [
            (None, 80),
            (Some("nonsense"), 80),
            (Some("[]"), 80),
            (Some(r#"[{"containerPort":8080,"protocol":"TCP"}]"#), 8080),
            (Some(r#"[{"containerPort":53,"protocol":"UDP"},{"name":"web","containerPort":8081}]"#), 8081),
        ] {
            let mut config = config(&[], &[]);
            if let Some(json) = json {
                config.annotations.insert(PORTS_ANNOTATION.into(), json.into());
            }
            assert_eq!(http_port(&config), port, "{json:?}");
        }
    }
}
