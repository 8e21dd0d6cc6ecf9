//! Nodes on other machines: they join with a token, the server reaches them through their tunnels, and each side goes
//! on without the other.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/machine.rs"]
mod machine;
mod site;

use std::process::Output;

use common::{KUBECTLS, text};
use site::{Agent, Site};

/// A Wasm pod on every node. It answers HTTP, and says so in its log.
const HELLO: &str = "apiVersion: apps/v1
kind: DaemonSet
metadata: {name: hello}
spec:
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      runtimeClassName: wasm
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists}]
      containers:
      - name: hello
        image: hello:latest
        imagePullPolicy: Never
        ports: [{name: http, containerPort: 8080}]
        env:
        - {name: GREETING, value: Ahoy}
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        readinessProbe: {httpGet: {port: http, path: /}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec: {selector: {app: hello}, ports: [{name: http, port: 8080, targetPort: http}]}
";

/// One site for all: what is shown in one step is the ground of the next.
#[test]
fn nodes_join_from_behind_nat_and_firewall_and_each_side_goes_on_without_the_other() {
    let mut site = Site::start();
    let mut walled = site.walled();
    let mut natted = site.natted();
    join(&mut site, &mut walled, &mut natted);
    site.apply(HELLO);
    for node in ["server", "walled", "natted"] {
        site.pod_is_ready(node);
    }
    for (agent, kubectl) in [(&walled, KUBECTLS[0]), (&natted, KUBECTLS[1]), (&natted, KUBECTLS[0])] {
        the_server_reaches(&site, &agent.name, kubectl);
    }
    on_one_network(&site, &walled);
    refusals(&site);
    killed(&mut site, &mut walled, &natted);
    without_the_server(&mut site, &mut natted);
    deleted_and_joined_again(&mut site, &mut walled);
}

/// One by the printed command, the other by the server's own token, which waits for a server that is not there yet.
fn join(site: &mut Site, walled: &mut Agent, natted: &mut Agent) {
    natted.start(&["--token-file", &site.copy_token(natted), "--node-label", "place=attic,other=1"]);
    natted.says("waiting for the server");
    site.start_server();
    let command = site.skiff(&["token", "create", "--ttl=1h", "--print-join-command"]);
    let words: Vec<&str> = command.split_whitespace().collect();
    assert_eq!(words[..4], ["skiff", "agent", "--server", "https://10.9.0.1:6443"], "{command}");
    walled.start(&[&words[4..], &["--node-taint", "edge=true:NoSchedule"]].concat());
    for agent in [walled, natted] {
        site.node_is_ready(&agent.name);
    }
    let nodes = site.kubectl(&["get", "nodes", "-L", "place", "-o", "wide"]);
    assert!(nodes.contains("attic") && nodes.contains("192.168.7.2"), "{nodes}");
    let taints = site.kubectl(&["get", "node", "walled", "-o", "jsonpath={.spec.taints[*].key}"]);
    assert!(taints.contains("edge"), "{taints}");
    let ranges = site.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDR}"]);
    let distinct: std::collections::BTreeSet<&str> = ranges.split(' ').collect();
    assert_eq!(distinct.len(), 3, "each node has a range of its own: {ranges}");
    // Its time is what was asked for, and its secret is nowhere to be seen.
    let listed = site.skiff(&["token", "list"]);
    let secret = words[5].rsplit_once('.').expect("a token").1;
    assert!(!listed.contains("<forever>") && !listed.contains(secret), "{listed}");
}

/// Logs, sessions, forwarded ports, proxies: none of them needs an open port on the node.
fn the_server_reaches(site: &Site, node: &str, kubectl: &str) {
    let pod = site.pod(node);
    let run = |args: &[&str]| {
        let output = site.kubectl_output(kubectl, args);
        assert!(output.status.success(), "{kubectl} {args:?} on {node}: {}\n{}", text(&output), site.tail());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(run(&["exec", &pod, "--", "echo", "from", "within"]).contains("from within"));
    run(&["logs", &pod]);
    assert_eq!(run(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/healthz")]), "ok");
    let stats = run(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/stats/summary")]);
    assert!(stats.contains(&format!("\"nodeName\":\"{node}\"")), "{stats}");
    let proxied = run(&["get", "--raw", &format!("/api/v1/namespaces/default/pods/{pod}:8080/proxy/")]);
    assert!(proxied.contains("Ahoy"), "{proxied}");
    let answers = site.forwarded(kubectl, &pod);
    assert!(answers.contains("Ahoy"), "{answers}");
}

/// Once its wall is down, a neighbour's pods are reached by their addresses, and Services have endpoints on both.
fn on_one_network(site: &Site, walled: &Agent) {
    walled.open_the_wall();
    let (here, there) = (site.pod("server"), site.pod(&walled.name));
    let address = site.address(&walled.name);
    site.wait("its pod answers", || site.answer(&address).contains(&there));
    let own = site.address("server");
    site.wait("the server's pod answers it", || walled.answer(&own).contains(&here));
    let service = site.kubectl(&["get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}"]);
    for pod in [&here, &there] {
        site.wait("the Service leads to each", || site.answer(service.trim()).contains(pod));
        site.wait("from either node", || walled.answer(service.trim()).contains(pod));
    }
}

fn refused(site: &Site, what: &str, args: &[&str], reasons: &[&str]) {
    let output: Output = site.try_join(args);
    assert!(!output.status.success(), "{what}: {}", text(&output));
    let said = text(&output);
    assert!(reasons.iter().all(|reason| said.contains(reason)), "{what}: {said}");
}

/// What keeps a node out says what to do about it.
fn refusals(site: &Site) {
    let mend = "skiff token create --print-join-command";
    refused(site, "no token", &["--node-name=x"], &["has not joined yet", mend]);
    let full = site.skiff(&["token", "create"]);
    let (hash, bare) = full.trim().split_once("::").expect("a full token");
    let (id, _) = bare.split_once('.').expect("a token");
    let wrong = format!("{hash}::{id}.0000000000000000");
    refused(site, "a wrong secret", &["--node-name=x", "--token", &wrong], &["refuses the token", mend]);
    let other = format!("K10{}::{bare}", "0".repeat(64));
    refused(site, "another cluster", &["--node-name=x", "--token", &other], &["not of the cluster", &hash[3..]]);
    refused(site, "no form", &["--node-name=x", "--token", "two words"], &["white space"]);
    for name in ["walled", "server"] {
        let named = format!("--node-name={name}");
        refused(
            site,
            "a taken name",
            &[&named, "--token", bare],
            &["has joined before", &format!("delete node {name}")],
        );
    }
    let short = site.skiff(&["token", "create", "--ttl=1s"]);
    let id = short.rsplit_once("::").expect("a token").1.split_once('.').expect("a token").0.to_owned();
    site.wait("the token is gone with its time", || !site.skiff(&["token", "list"]).contains(&id));
    refused(site, "an expired token", &["--node-name=x", "--token", short.trim()], &["refuses the token", mend]);
    site.skiff(&["token", "delete", bare]);
    refused(site, "a deleted token", &["--node-name=x", "--token", bare], &["refuses the token"]);
    // The server's own, changed while it runs; who joined with the old one stays.
    let old = site.token();
    let new = site.skiff(&["token", "rotate"]);
    assert!(new.starts_with("K10") && new.trim() != old.trim() && new.trim() == site.token().trim(), "{new}");
    refused(site, "the server's old token", &["--node-name=x", "--token", old.trim()], &["refuses the token"]);
    assert_eq!(site.kubectl(&["get", "nodes", "-o", "name"]).lines().count(), 3, "nobody has come in");
}

/// Killed without warning, each side finds the other again; the pods of the other side have noticed nothing.
fn killed(site: &mut Site, walled: &mut Agent, natted: &Agent) {
    let (before, address) = (site.started(&natted.name), site.address(&natted.name));
    site.kill_server();
    assert!(natted.answer(&address).contains("Ahoy"), "the pod runs on");
    site.start_server();
    site.node_is_ready(&natted.name);
    site.wait("the tunnel is back", || reaches(site, &natted.name));
    assert_eq!(site.started(&natted.name), before, "the pod has not been started again");
    walled.kill();
    // No token: it is known by what it was given.
    walled.start(&[]);
    site.wait("the killed agent's tunnel is back", || reaches(site, &walled.name));
    site.pod_is_ready(&walled.name);
}

fn reaches(site: &Site, node: &str) -> bool {
    site.kubectl_output(KUBECTLS[1], &["exec", &site.pod(node), "--", "true"]).status.success()
}

/// An agent that starts while the server is away starts its pods, and the server finds them as they are.
fn without_the_server(site: &mut Site, natted: &mut Agent) {
    let address = site.address(&natted.name);
    site.kill_server();
    natted.kill();
    natted.start(&[]);
    site.wait("the pod is back without the server", || natted.answer(&address).contains("Ahoy"));
    site.start_server();
    site.node_is_ready(&natted.name);
    site.wait("the server reaches it", || reaches(site, &natted.name));
    assert_eq!(site.address(&natted.name), address);
}

/// A machine that was made anew joins under its old name once the old node is deleted.
fn deleted_and_joined_again(site: &mut Site, walled: &mut Agent) {
    walled.kill();
    walled.wipe();
    let token = site.skiff(&["token", "create"]);
    walled.start(&["--token", token.trim()]);
    walled.says("kubectl delete node walled");
    walled.kill();
    site.kubectl(&["delete", "node", "walled"]);
    walled.import_hello();
    walled.start(&["--token", token.trim()]);
    site.node_is_ready("walled");
    site.pod_is_ready("walled");
    site.wait("the server reaches it", || reaches(site, "walled"));
}
