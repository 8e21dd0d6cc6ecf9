//! Three machines: a server; a node on the same network that takes no connections from outside; and a node behind a
//! router that translates addresses.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Output, Stdio},
    time::Duration,
};

use crate::{
    common::{KUBECTLS, project, text, tools, wait_for},
    machine::Machine,
};

/// How long a condition may take to come true: a node that was killed is noticed late, and the machine is busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program.
const SKIFF: &str = env!("CARGO_BIN_EXE_skiff");

/// The server's machine, with a node of its own.
pub(crate) struct Site {
    server: Machine,
    router: Machine,
    skiff: Option<Child>,
}

/// A node on another machine.
pub(crate) struct Agent {
    pub(crate) name: String,
    machine: Machine,
    skiff: Option<Child>,
}

fn log(machine: &Machine) -> fs::File {
    fs::File::options().create(true).append(true).open(machine.dir().join("log")).expect("a log")
}

fn read_log(machine: &Machine) -> String {
    fs::read_to_string(machine.dir().join("log")).unwrap_or_default()
}

fn import_hello(machine: &Machine) {
    let hello = project().join("examples/hello/hello.wasm");
    let args = ["image", "import", hello.to_str().expect("a path"), "--data-dir", &machine.path("data")];
    let output = machine.output(SKIFF, &args);
    assert!(output.status.success(), "{}", text(&output));
}

fn answer(machine: &Machine, address: &str) -> String {
    let url = format!("http://{address}:8080/");
    text(&machine.output("curl", &["-sS", "--max-time", "5", &url]))
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ended = child.wait();
    }
}

impl Site {
    /// Makes the server's machine and the router; nothing runs yet. The server's token is known beforehand.
    pub(crate) fn start() -> Self {
        let (server, router) = (Machine::start("server"), Machine::start("router"));
        server.connect("lan", &router, "lan0");
        server.script("ip addr add 10.9.0.1/24 dev lan; ip link set lan up");
        // The router is the switch of the network too.
        router.script(
            "ip link add br0 type bridge; ip link set br0 up; ip link set lan0 master br0 up; \
             ip addr add 10.9.0.254/24 dev br0; echo 1 > /proc/sys/net/ipv4/ip_forward; \
             iptables -t nat -A POSTROUTING -s 192.168.7.0/24 -o br0 -j MASQUERADE; \
             iptables -A FORWARD -i br0 -o home -m conntrack --ctstate NEW -j DROP",
        );
        fs::write(server.dir().join("token"), "a-secret-of-the-operator").expect("a token");
        import_hello(&server);
        Self { server, router, skiff: None }
    }

    /// A machine on the server's network that takes no connection from anybody.
    pub(crate) fn walled(&self) -> Agent {
        let machine = Machine::start("walled");
        machine.connect("lan", &self.router, "lan1");
        self.router.script("ip link set lan1 master br0 up");
        machine.script(
            "ip addr add 10.9.0.2/24 dev lan; ip link set lan up; \
             iptables -A INPUT -i lan -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT; \
             iptables -A INPUT -i lan -j DROP",
        );
        Agent::on(machine, "walled")
    }

    /// A machine behind the router, which nobody on the server's network knows.
    pub(crate) fn natted(&self) -> Agent {
        let machine = Machine::start("natted");
        machine.connect("home", &self.router, "home");
        self.router.script("ip addr add 192.168.7.1/24 dev home; ip link set home up");
        machine
            .script("ip addr add 192.168.7.2/24 dev home; ip link set home up; ip route add default via 192.168.7.1");
        Agent::on(machine, "natted")
    }

    /// Starts the server and waits until its own node is Ready.
    pub(crate) fn start_server(&mut self) {
        let (server, log) = (&self.server, log(&self.server));
        let mut command = server.command(SKIFF);
        command.args(["-v", "server", "--node-name=server", "--node-ip=10.9.0.1"]);
        command.args(["--container-runtime-endpoint=none", "--data-dir", &server.path("data")]);
        command.args(["--write-kubeconfig", &server.path("kubeconfig")]);
        if !server.dir().join("data/server/token").exists() {
            command.args(["--token-file", &server.path("token")]);
        }
        self.skiff = Some(command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("skiff starts"));
        self.node_is_ready("server");
    }

    /// Ends the server as a power cut would.
    pub(crate) fn kill_server(&mut self) {
        self.server.kill("-v server");
        end(&mut self.skiff);
        self.server.wait_gone("wasm-runtime");
    }

    /// The server's token, on the machine of a node.
    pub(crate) fn copy_token(&self, agent: &Agent) -> String {
        fs::copy(self.server.dir().join("token"), agent.machine.dir().join("token")).expect("a token");
        agent.machine.path("token")
    }

    /// The server's token as it keeps it.
    pub(crate) fn token(&self) -> String {
        fs::read_to_string(self.server.dir().join("data/server/token")).expect("the server's token")
    }

    /// A skiff command on the server's machine; it must succeed. What it prints to standard output.
    pub(crate) fn skiff(&self, args: &[&str]) -> String {
        let data = self.server.path("data");
        let output = self.server.output(SKIFF, &[args, &["--data-dir", &data]].concat());
        assert!(output.status.success(), "skiff {args:?}: {}\n{}", text(&output), self.tail());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Tries to join on the server's machine from an empty folder.
    pub(crate) fn try_join(&self, args: &[&str]) -> Output {
        let dir = tempfile::tempdir_in(self.server.dir()).expect("a folder");
        let mut command = self.server.command("timeout");
        command.args(["60", SKIFF, "agent", "--server=https://10.9.0.1:6443", "--container-runtime-endpoint=none"]);
        command.arg("--data-dir").arg(dir.path()).args(args).output().expect("skiff runs")
    }

    pub(crate) fn kubectl_output(&self, version: &str, args: &[&str]) -> Output {
        self.server.output(tools().join(format!("kubectl-{version}")), args)
    }

    /// What kubectl prints; it must succeed.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        let output = self.kubectl_output(KUBECTLS[1], args);
        assert!(output.status.success(), "kubectl {args:?}: {}\n{}", text(&output), self.tail());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn apply(&self, manifest: &str) {
        fs::write(self.server.dir().join("manifest.yaml"), manifest).expect("a manifest");
        self.kubectl(&["apply", "-f", &self.server.path("manifest.yaml")]);
    }

    pub(crate) fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        assert!(wait_for(PATIENCE, &mut condition), "waited in vain until {what}\n{}", self.tail());
    }

    pub(crate) fn node_is_ready(&self, name: &str) {
        let node = format!("node/{name}");
        self.wait(&format!("{name} is Ready"), || {
            let args = ["wait", "--for=condition=Ready", &node, "--timeout=1s"];
            self.kubectl_output(KUBECTLS[1], &args).status.success()
        });
    }

    /// Of the newest pod on a node; empty where there is none.
    fn of_pod(&self, node: &str, path: &str) -> String {
        let of_node = format!("--field-selector=spec.nodeName={node}");
        let args = ["get", "pods", "-l", "app=hello", &of_node, "--sort-by=.metadata.creationTimestamp", "-o"];
        let template = format!("jsonpath={{.items[-1:]{path}}}");
        // Where there is none, kubectl fails.
        let output = self.kubectl_output(KUBECTLS[1], &[&args[..], &[&template]].concat());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The name of the pod on a node.
    pub(crate) fn pod(&self, node: &str) -> String {
        self.of_pod(node, ".metadata.name")
    }

    /// The address of the pod on a node.
    pub(crate) fn address(&self, node: &str) -> String {
        self.of_pod(node, ".status.podIP")
    }

    /// When the container on a node was started, and which one it is.
    pub(crate) fn started(&self, node: &str) -> String {
        self.of_pod(node, ".status.containerStatuses[0].containerID")
    }

    pub(crate) fn pod_is_ready(&self, node: &str) {
        let ready = ".status.conditions[?(@.type==\"Ready\")].status";
        self.wait(&format!("the pod on {node} is Ready"), || self.of_pod(node, ready) == "True");
    }

    /// What a pod answers through a forwarded port.
    pub(crate) fn forwarded(&self, version: &str, pod: &str) -> String {
        let mut command = self.server.command(tools().join(format!("kubectl-{version}")));
        command.args(["port-forward", pod, ":8080"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl runs");
        let mut line = String::new();
        // Kept to the end: kubectl goes on printing.
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        output.read_line(&mut line).expect("a line");
        // Forwarding from 127.0.0.1:PORT -> 8080
        let port = line.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split_once(' ')).expect(&line).0;
        let url = format!("http://127.0.0.1:{port}/");
        let answer = text(&self.server.output("curl", &["-sS", "--max-time", "20", &url]));
        // kubectl is the child of nsenter, which passes no signal on.
        self.server.kill("port-forward");
        let _ended = child.wait();
        answer
    }

    /// What a pod or a Service answers on the server's machine.
    pub(crate) fn answer(&self, address: &str) -> String {
        answer(&self.server, address)
    }

    /// What is known, for failures.
    pub(crate) fn tail(&self) -> String {
        let mut all = read_log(&self.server);
        for args in [&["get", "pods,nodes,csr", "-o", "wide", "--request-timeout=5s"][..], &["get", "events"]] {
            all.push_str(&text(&self.kubectl_output(KUBECTLS[1], args)));
        }
        all
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.end();
        end(&mut self.skiff);
    }
}

impl Agent {
    fn on(machine: Machine, name: &str) -> Self {
        let agent = Self { name: name.to_owned(), machine, skiff: None };
        agent.import_hello();
        agent
    }

    /// Puts the component into the node.
    pub(crate) fn import_hello(&self) {
        import_hello(&self.machine);
    }

    /// Starts the agent.
    pub(crate) fn start(&mut self, args: &[&str]) {
        let log = log(&self.machine);
        let mut command = self.machine.command(SKIFF);
        command.args(["-v", "agent", "--server=https://10.9.0.1:6443", "--container-runtime-endpoint=none"]);
        command.args(["--node-name", &self.name, "--data-dir", &self.machine.path("data")]);
        // Of the flags that are given twice the last one counts.
        command.args(args).stdout(log.try_clone().expect("a log")).stderr(log);
        self.skiff = Some(command.spawn().expect("skiff starts"));
    }

    /// Ends the agent as a power cut would; its Wasm runtime ends with it. It may have ended by itself.
    pub(crate) fn kill(&mut self) {
        if !self.machine.processes("-v agent").is_empty() {
            self.machine.kill("-v agent");
        }
        end(&mut self.skiff);
        self.machine.wait_gone("wasm-runtime");
    }

    /// Empties the machine.
    pub(crate) fn wipe(&self) {
        fs::remove_dir_all(self.machine.dir().join("data")).expect("an empty machine");
    }

    /// Waits until the agent has printed a text.
    pub(crate) fn says(&self, part: &str) {
        let said = wait_for(PATIENCE, || read_log(&self.machine).contains(part));
        assert!(said, "the agent does not say {part:?}:\n{}", read_log(&self.machine));
    }

    /// What a pod or a Service answers on this node.
    pub(crate) fn answer(&self, address: &str) -> String {
        answer(&self.machine, address)
    }

    /// Takes connections from now on.
    pub(crate) fn open_the_wall(&self) {
        self.machine.script("iptables -F INPUT");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent {} said:\n{}", self.name, read_log(&self.machine));
        }
        self.machine.end();
        end(&mut self.skiff);
    }
}
