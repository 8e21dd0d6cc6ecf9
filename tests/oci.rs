//! OCI containers by a real containerd: what a pod may ask of its containers, Wasm pods beside them, and crashes.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod common;
#[path = "common/host.rs"]
mod host;
#[path = "common/machine.rs"]
mod machine;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Output, Stdio},
};

use common::{project, read_some, text, wait_for};
use host::Host;
use serde_json::Value;

/// A pod with one container that runs a shell script.
fn script_pod(name: &str, more: &str, container: &str, script: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 1
  {more}
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, '{script}']
    {container}
"
    )
}

const EVERYTHING: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: green, file.txt: from the map}
---
apiVersion: v1
kind: Pod
metadata: {name: everything, labels: {tier: front}}
spec:
  hostname: web-0
  subdomain: web
  terminationGracePeriodSeconds: 1
  hostAliases: [{ip: 192.0.2.7, hostnames: [elsewhere]}]
  dnsConfig: {nameservers: [192.0.2.53], searches: [lan.example]}
  securityContext: {runAsUser: 1234, runAsGroup: 2345, fsGroup: 3456}
  volumes:
  - {name: map, configMap: {name: settings}}
  - {name: shared, emptyDir: {}}
  - {name: fast, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
  - {name: about, downwardAPI: {items: [{path: tier, fieldRef: {fieldPath: "metadata.labels['tier']"}}]}}
  initContainers:
  - name: first
    image: busybox:1
    command: [sh, -c, 'echo first > /shared/order']
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: side
    image: busybox:1
    restartPolicy: Always
    command: [sh, -c, 'echo side >> /shared/order; exec sleep 1000']
    startupProbe: {exec: {command: [grep, side, /shared/order]}, periodSeconds: 1}
    volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, 'echo main >> /shared/order; cat /shared/order > /shared/index.html; exec httpd -f -p 8080 -h /shared']
    env:
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    ports: [{containerPort: 8080}]
    resources: {requests: {cpu: 10m}, limits: {memory: 64Mi}}
    readinessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 1}
    livenessProbe: {exec: {command: ['true']}, periodSeconds: 1}
    securityContext:
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
    volumeMounts:
    - {name: map, mountPath: /map}
    - {name: shared, mountPath: /shared}
    - {name: fast, mountPath: /fast}
    - {name: about, mountPath: /about}
"#;

fn sh(host: &Host, pod: &str, script: &str) -> String {
    host.kubectl(&["exec", pod, "-c", "main", "--", "sh", "-c", script])
}

/// What a container finds around it.
fn looks_right(host: &Host) {
    let found = sh(host, "everything", "cat /shared/order /map/file.txt; echo; cat /about/tier");
    assert_eq!(found, "first\nside\nmain\nfrom the map\nfront");
    let found = sh(host, "everything", "echo $COLOR $LIMIT $IP; id -u; id -g; id -G; hostname");
    let ip = host.status("everything", "/podIP");
    let ip = ip.as_str().expect("an address");
    assert_eq!(found, format!("green 67108864 {ip}\n1234\n2345\n2345 3456\nweb-0\n"));
    let found = sh(host, "everything", "stat -c %g:%a /shared; touch /x 2>&1; cat /etc/hosts /etc/resolv.conf");
    assert!(found.starts_with("3456:2777\ntouch: /x: Read-only file system\n"), "{found}");
    assert!(found.contains(&format!("{ip}\tweb-0.web.default.svc.cluster.local\tweb-0")), "{found}");
    assert!(found.contains("192.0.2.7\telsewhere") && found.contains("nameserver 192.0.2.53"), "{found}");
    assert!(found.contains("lan.example"), "{found}");
    let found = sh(host, "everything", "df -k /fast; head -c 9000000 /dev/zero > /fast/x; stat -c %g /fast/x");
    assert!(found.contains("tmpfs") && found.contains(" 8192 ") && found.contains("3456"), "{found}");
    let found = sh(host, "everything", "grep -E \"^(CapBnd|NoNewPrivs)\" /proc/self/status");
    assert_eq!(found.split_whitespace().collect::<Vec<_>>(), ["CapBnd:", "0000000000000000", "NoNewPrivs:", "1"]);
    let answer = host.run("curl", &["-sS", "--max-time", "5", &format!("http://{ip}:8080/index.html")]);
    assert_eq!(answer, "first\nside\nmain\n");
}

#[test]
fn a_pod_finds_all_that_it_asks_for() {
    let host = Host::start();
    host.apply(EVERYTHING);
    host.ready("everything");
    looks_right(&host);
    let node = host.get(&["node", "n1"]);
    assert_eq!(node["metadata"]["labels"]["skiff.dev/oci"], "true");
    assert!(node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().expect("text").starts_with("containerd://"));
    let id = host.status("everything", "/containerStatuses/0/containerID");
    assert!(id.as_str().expect("an id").starts_with("containerd://"), "{id}");

    // A container that looks at another one's processes, and more memory for one that runs.
    let peek = ["debug", "everything", "--image=busybox:1", "--target=main", "-c", "peek", "--", "sh", "-c", "ps"];
    host.kubectl(&peek);
    host.wait("it has looked", || {
        !host.status("everything", "/ephemeralContainerStatuses/0/state/terminated").is_null()
    });
    let seen = host.kubectl(&["logs", "everything", "-c", "peek"]);
    assert!(seen.contains("httpd -f -p 8080"), "{seen}");
    let more = r#"{"spec":{"containers":[{"name":"main","resources":{"limits":{"memory":"96Mi"}}}]}}"#;
    host.kubectl(&["patch", "pod", "everything", "--subresource=resize", "--patch", more]);
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true";
    host.wait("it has more memory", || sh(&host, "everything", limit).trim() == "100663296");
    host.wait("it says so", || host.status("everything", "/containerStatuses/0/resources/limits/memory") == "96Mi");
    assert_eq!(host.status("everything", "/containerStatuses/0/restartCount"), 0);
    uses(&host);
    streams(&host);

    // The node's network: the node's name, its addresses, no interface of its own (a veth may be called veth0...).
    host.apply(&script_pod("on-node", "hostNetwork: true", "", "ip -o addr | grep -cw eth0; exec sleep 1000"));
    host.ready("on-node");
    assert_eq!(host.status("on-node", "/podIP"), "127.0.0.1");
    host.wait("its log", || host.kubectl(&["logs", "on-node"]) == "0\n");
    let refused = "securityContext: {runAsNonRoot: true}";
    host.apply(&script_pod("root", refused, "", "sleep 1000"));
    host.wait("root is refused", || {
        host.status("root", "/containerStatuses/0/state/waiting/reason") == "CreateContainerConfigError"
    });
}

/// What makes kubectl speak SPDY, as older ones do.
const SPDY: [(&str, &str); 2] =
    [("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false"), ("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")];

/// kubectl of an age, with a protocol, given some input.
fn kubectl_given(host: &Host, age: &str, env: &[(&str, &str)], args: &[&str], input: &str) -> Output {
    let mut command = host.command(common::tools().join(format!("kubectl-{age}")));
    command.args(args).envs(env.iter().copied());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl runs");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("input");
    child.wait_with_output().expect("its end")
}

/// Input, output, errors, exit codes and ports of a container, over WebSocket and SPDY, by kubectl of all ages.
fn streams(host: &Host) {
    let large = "0123456789abcdef\n".repeat(20_000);
    for (turn, age) in common::KUBECTLS.iter().enumerate() {
        for (protocol, env) in [("websocket", &[][..]), ("spdy", &SPDY)] {
            // The input's end reaches the container, both outputs come back apart, and the exit code with them.
            let script = "cat; echo complaint >&2; exit 7";
            let exec = ["exec", "-i", "everything", "-c", "main", "--", "sh", "-c", script];
            let output = kubectl_given(host, age, env, &exec, &large);
            assert_eq!(output.status.code(), Some(7), "kubectl {age} over {protocol}: {}", text(&output));
            assert!(output.stdout == large.as_bytes(), "{} of {} bytes came back", output.stdout.len(), large.len());
            assert!(String::from_utf8_lossy(&output.stderr).starts_with("complaint\n"), "{}", text(&output));
            forwards(host, age, env);
            attaches(host, &format!("cat-{turn}-{protocol}"), age, env);
        }
    }
}

/// Two connections through one forwarded port.
fn forwards(host: &Host, age: &str, env: &[(&str, &str)]) {
    let mut forward = host.command(common::tools().join(format!("kubectl-{age}")));
    forward.args(["port-forward", "pod/everything", ":8080"]).envs(env.iter().copied()).stdout(Stdio::piped());
    let mut forward = forward.spawn().expect("kubectl runs");
    let mut lines = BufReader::new(forward.stdout.take().expect("its output")).lines();
    let said = lines.next().expect("a line").expect("text");
    let port = said.split([':', ' ']).nth(3).expect("a port");
    let url = format!("http://127.0.0.1:{port}/index.html");
    let answers: Vec<String> = (0..2).map(|_| host.run("curl", &["-sS", "--max-time", "5", &url])).collect();
    forward.kill().expect("a kill");
    forward.wait().expect("its end");
    assert_eq!(answers, ["first\nside\nmain\n"; 2], "kubectl {age}: {said}");
}

/// A container that is given its input by who attaches to it, and ends with it.
fn attaches(host: &Host, pod: &str, age: &str, env: &[(&str, &str)]) {
    host.apply(&script_pod(pod, "restartPolicy: Never", "stdin: true\n    stdinOnce: true", "cat"));
    host.ready(pod);
    let output = kubectl_given(host, age, env, &["attach", "-i", pod], "hello there\n");
    assert!(String::from_utf8_lossy(&output.stdout).contains("hello there\n"), "kubectl {age}: {}", text(&output));
    host.wait("it has ended", || host.status(pod, "/phase") == "Succeeded");
    assert_eq!(host.kubectl(&["logs", pod]), "hello there\n");
}

/// What the node's API says of what pods use.
fn uses(host: &Host) {
    let raw = |path: &str| host.kubectl(&["get", "--raw", &format!("/api/v1/nodes/n1/proxy/{path}")]);
    let summary: Value = serde_json::from_str(&raw("stats/summary")).expect("JSON");
    let pods = summary["pods"].as_array().expect("pods");
    let pod = pods.iter().find(|pod| pod["podRef"]["name"] == "everything").expect("the pod");
    assert!(pod["memory"]["workingSetBytes"].as_u64().expect("a number") > 0, "{pod}");
    assert!(summary["node"]["memory"]["workingSetBytes"].as_u64().expect("a number") > 0, "{summary}");
    let metrics = raw("metrics/resource");
    for name in
        ["node_cpu_usage_seconds_total ", "pod_memory_working_set_bytes{namespace=\"default\",pod=\"everything\"} "]
    {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{metrics}");
    }
}

fn terminated(host: &Host, pod: &str) -> Value {
    host.status(pod, "/containerStatuses/0/state/terminated")
}

#[test]
fn containers_end_and_come_again() {
    let host = Host::start();
    let says = "terminationMessagePolicy: FallbackToLogsOnError";
    let hungry = "resources: {limits: {memory: 16Mi}}";
    host.apply(&script_pod("failed", "restartPolicy: Never", "", "echo -n it broke > /dev/termination-log; exit 3"));
    host.apply(&script_pod("told", "restartPolicy: Never", says, "echo the end is near; exit 4"));
    host.apply(&script_pod("hungry", "", hungry, "tail /dev/zero"));
    host.apply(&script_pod("done", "restartPolicy: OnFailure", "", "echo fine"));
    host.apply(&script_pod("again", "", "", "echo try; sleep 1; exit 1"));
    for (pod, phase) in [("failed", "Failed"), ("told", "Failed"), ("done", "Succeeded")] {
        host.wait(&format!("{pod} is {phase}"), || host.status(pod, "/phase") == phase);
    }
    let failed = terminated(&host, "failed");
    assert_eq!(
        (&failed["exitCode"], &failed["reason"], &failed["message"]),
        (&3.into(), &"Error".into(), &"it broke".into())
    );
    assert_eq!(terminated(&host, "told")["message"], "the end is near\n");
    // That the kernel's word of why it ended gets through is not certain each time: containerd may hear of the end
    // first, and of nothing more once the cgroup is gone.
    host.wait("it is said that memory ran out", || {
        let status = host.status("hungry", "/containerStatuses/0");
        let ends = [&status["state"]["terminated"], &status["lastState"]["terminated"]];
        ends.iter().any(|end| end["reason"] == "OOMKilled" && end["exitCode"] == 137)
    });
    assert_eq!(terminated(&host, "done")["reason"], "Completed");

    let count = || host.status("again", "/containerStatuses/0/restartCount").as_i64().unwrap_or_default();
    host.wait("it was restarted", || count() >= 1);
    host.wait("it waits", || host.status("again", "/containerStatuses/0/state/waiting/reason") == "CrashLoopBackOff");
    assert_eq!(host.kubectl(&["logs", "again", "--previous"]), "try\n");

    host.apply(&script_pod("talks", "", "", "n=0; while true; do n=$((n+1)); echo line $n; sleep 0.2; done"));
    host.ready("talks");
    let mut follower = host.command(common::tools().join("kubectl-1.36"));
    let mut follower =
        follower.args(["logs", "-f", "--tail=1", "talks"]).stdout(Stdio::piped()).spawn().expect("kubectl runs");
    let mut heard = String::new();
    let followed = wait_for(common::PATIENCE, || {
        heard.push_str(&read_some(&mut follower));
        heard.lines().count() >= 3
    });
    follower.kill().expect("a kill");
    follower.wait().expect("its end");
    assert!(followed && heard.starts_with("line "), "{heard}");
}

/// What pods leave on a host: their mounts, interfaces, processes, cgroups.
fn left(host: &Host, uids: &[String]) -> Vec<String> {
    let mut left = vec![];
    let mounts = host.run("cat", &["/proc/mounts"]);
    let ours = |line: &&str| line.contains("/containerd/") || line.contains("/agent/pods/");
    left.extend(mounts.lines().filter(ours).map(str::to_owned));
    left.extend(host.run("ip", &["-o", "link"]).lines().filter(|line| line.contains("veth")).map(str::to_owned));
    left.extend(host.processes("containerd-shim").iter().map(|pid| format!("shim {pid}")));
    for folder in fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
        for (class, uid) in
            ["", "burstable", "besteffort"].iter().flat_map(|class| uids.iter().map(move |uid| (class, uid)))
        {
            let path = folder.path().join("kubepods").join(class).join(format!("pod{uid}"));
            left.extend(path.exists().then(|| path.display().to_string()));
        }
    }
    let pods = fs::read_dir(host.data_dir().join("agent/pods")).expect("pods").flatten();
    left.extend(pods.map(|entry| entry.path().display().to_string()));
    left
}

fn uid(host: &Host, pod: &str) -> String {
    host.get(&["pod", pod])["metadata"]["uid"].as_str().expect("a uid").to_owned()
}

/// A container and a Wasm pod, each behind a Service, that reach each other.
fn start_both(host: &Host) {
    let hello = host.dir().join("hello.wasm");
    fs::copy(project().join("examples/hello/hello.wasm"), &hello).expect("a copy");
    host.skiff(&["image", "import", hello.to_str().expect("a path"), "--name", "hello:latest"]);
    let serve = "echo from a container > /tmp/index.html; exec httpd -f -p 80 -h /tmp";
    let memory = "volumes: [{name: fast, emptyDir: {medium: Memory}}]";
    host.apply(&script_pod("oci", memory, "ports: [{containerPort: 80}]", serve));
    host.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: wasm, labels: {app: wasm}}
spec:
  runtimeClassName: wasm
  containers: [{name: main, image: 'hello:latest', imagePullPolicy: Never, ports: [{containerPort: 80}]}]
",
    );
    host.ready("oci");
    host.ready("wasm");
    for pod in ["oci", "wasm"] {
        host.kubectl(&["expose", "pod", pod, "--port=80"]);
    }
    let cluster_ip = |name: &str| host.get(&["service", name])["spec"]["clusterIP"].as_str().expect("an IP").to_owned();
    let (oci, wasm) = (cluster_ip("oci"), cluster_ip("wasm"));
    let pod_ip = host.status("wasm", "/podIP").as_str().expect("an address").to_owned();
    let from_container = |ip: &str| {
        let script = format!("printf \"GET /x HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n\" | timeout 5 nc {ip} 80");
        text(&host.kubectl_output(&["exec", "oci", "--", "sh", "-c", &script]))
    };
    host.wait("the container reaches itself by its Service", || from_container(&oci).contains("404 Not Found"));
    host.wait("the container reaches the Wasm Service", || from_container(&wasm).contains("you asked for /x"));
    host.wait("the container reaches the Wasm pod", || from_container(&pod_ip).contains("you asked for /x"));
    let from_node = host.run("curl", &["-sS", "--max-time", "5", &format!("http://{oci}/index.html")]);
    assert_eq!(from_node, "from a container\n");
}

#[test]
fn a_killed_skiff_interrupts_no_container_and_nothing_is_left_behind() {
    let mut host = Host::start();
    start_both(&host);
    let before = (host.status("oci", "/containerStatuses/0/containerID"), host.processes("httpd -f"));
    let containerd = host.processes("containerd --config");
    let uids = [uid(&host, "oci"), uid(&host, "wasm")];
    host.kill_skiff();
    assert_eq!(host.processes("httpd -f"), before.1, "the container must run on");
    host.start_skiff();
    assert_eq!(host.processes("containerd --config"), containerd, "containerd must be taken over");
    host.ready("oci");
    host.ready("wasm");
    assert_eq!((host.status("oci", "/containerStatuses/0/containerID"), host.processes("httpd -f")), before);
    assert_eq!(host.status("oci", "/containerStatuses/0/restartCount"), 0);

    // The one that was taken over is watched all the same: a crash of it is answered, and interrupts nothing either.
    host.kill("containerd --config");
    host.wait("containerd is started again", || {
        let now = host.processes("containerd --config");
        !now.is_empty() && now != containerd
    });
    host.apply(&script_pod("later", "", "", "exec sleep 1000"));
    host.ready("later");
    assert_eq!((host.status("oci", "/containerStatuses/0/containerID"), host.processes("httpd -f")), before);
    assert_eq!(host.status("oci", "/containerStatuses/0/restartCount"), 0);

    host.kubectl(&["delete", "pod", "oci", "wasm", "later", "--grace-period=1"]);
    let nothing_left = wait_for(common::PATIENCE, || left(&host, &uids).is_empty());
    assert!(nothing_left, "left behind: {:#?}", left(&host, &uids));
}
