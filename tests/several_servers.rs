//! Several `skiff server` on one etcd: they are one cluster, and each goes on without the others.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

#[allow(unused, unreachable_pub, reason = "its other users use the rest")]
mod common;
#[allow(missing_docs, unused, unreachable_pub, reason = "its other users use the rest")]
#[path = "../server/store/tests/etcd_server/one.rs"]
mod etcd_server;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use base64::Engine as _;
use common::{text, tools, wait_for};
use etcd_server::{Etcd, TlsFiles, own_address};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// How long a server may take over after another has died: its Leases hold 15 s, on a slow, busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The secret by which the servers know one another.
const TOKEN: &str = "the-servers-secret";

/// One server. Killed when dropped.
struct Server {
    child: Child,
    dir: tempfile::TempDir,
    address: String,
    _claim: TcpListener,
}

fn start(etcd: &str, token: &str) -> Server {
    start_with(etcd, token, |_| ())
}

/// A server that is told more than where etcd is.
fn start_with(etcd: &str, token: &str, more: impl FnOnce(&mut Command)) -> Server {
    let (address, claim) = own_address();
    let dir = tempfile::Builder::new().prefix("skiff-test-").tempdir().unwrap();
    let log = || fs::File::options().create(true).append(true).open(dir.path().join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_skiff"));
    command.args(["-v", "server", "--disable-agent", "--https-listen-port=6443"]).args([
        format!("--data-dir={}", dir.path().join("data").display()),
        format!("--write-kubeconfig={}", dir.path().join("kubeconfig").display()),
        format!("--bind-address={address}"),
        format!("--node-ip={address}"),
        format!("--datastore-endpoint={etcd}"),
        format!("--token={token}"),
    ]);
    more(&mut command);
    command.stdin(Stdio::null()).stdout(log()).stderr(log());
    let child = command.spawn().expect("skiff starts");
    Server { child, dir, address, _claim: claim }
}

impl Server {
    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    fn is_up(&mut self) {
        let up = wait_for(PATIENCE, || {
            assert!(self.child.try_wait().unwrap().is_none(), "skiff has ended:\n{}", self.log());
            self.log().contains("skiff server is up")
        });
        assert!(up, "skiff is not up:\n{}", self.log());
    }

    fn command(&self, kubeconfig: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(tools().join("kubectl-1.36"));
        command.args(args).arg(format!("--server=https://{}:6443", self.address));
        command.env("KUBECONFIG", kubeconfig).env("HOME", self.dir.path());
        command
    }

    fn try_kubectl(&self, args: &[&str]) -> Output {
        self.command(&self.kubeconfig(), args).output().expect("kubectl runs")
    }

    fn kubectl(&self, args: &[&str]) -> String {
        let output = self.try_kubectl(args);
        assert!(output.status.success(), "kubectl {args:?}: {}\n{}", text(&output), self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The body and the code that the administrator gets without any client's patience.
    fn http(&self, path: &str) -> String {
        let config = fs::read_to_string(self.kubeconfig()).unwrap();
        let pem = |field: &str| {
            let encoded = config.lines().find_map(|line| line.trim().strip_prefix(field)).expect("a field");
            let file = self.dir.path().join(field.trim_end_matches(": "));
            fs::write(&file, base64::engine::general_purpose::STANDARD.decode(encoded.trim()).unwrap()).unwrap();
            file
        };
        let output = Command::new("curl")
            .args(["-sk", "--max-time", "60", "-w", "%{http_code}", "--cert"])
            .arg(pem("client-certificate-data: "))
            .arg("--key")
            .arg(pem("client-key-data: "))
            .arg(format!("https://{}:6443{path}", self.address))
            .output();
        text(&output.expect("curl runs"))
    }

    /// Waits until kubectl prints what is wanted.
    fn wait(&self, what: &str, args: &[&str], wanted: impl Fn(&str) -> bool) {
        let mut last = String::new();
        let came = wait_for(PATIENCE, || {
            let output = self.try_kubectl(args);
            last = text(&output);
            output.status.success() && wanted(&last)
        });
        assert!(came, "waited in vain until {what}; kubectl says {last}\n{}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names that a watch prints, as they come.
struct Watch {
    child: Child,
    lines: mpsc::Receiver<String>,
}

fn watch(server: &Server) -> Watch {
    let args = ["get", "configmaps", "--watch", "-o", "name"];
    let mut child = server.command(&server.kubeconfig(), &args).stdout(Stdio::piped()).spawn().expect("kubectl runs");
    let stdout = child.stdout.take().expect("its output");
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    Watch { child, lines }
}

impl Watch {
    fn until(&self, wanted: &str) {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("the watch goes on");
            if line == wanted {
                return;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const DEPLOYMENT: [&str; 4] = ["--image=registry.example/none", "--replicas=2", "create", "deployment"];

fn deploy(server: &Server, name: &str) {
    server.kubectl(&[&DEPLOYMENT[2..], &[name], &DEPLOYMENT[..2]].concat());
}

fn has_two_pods(server: &Server, name: &str) {
    let selector = format!("--selector=app={name}");
    server.wait("there are two pods", &["get", "pods", &selector, "-o", "name"], |out| out.lines().count() == 2);
}

fn holder(server: &Server, lease: &str) -> String {
    server.kubectl(&["get", "lease", "-n", "kube-system", lease, "-o", "jsonpath={.spec.holderIdentity}"])
}

#[test]
fn two_servers_are_one_cluster_and_one_is_enough() {
    let mut etcd = Etcd::start();
    // Both at once: who makes the cluster's authorities and first objects is decided in the datastore.
    let mut servers = [start(&etcd.url(), TOKEN), start(&etcd.url(), TOKEN)];
    servers.iter_mut().for_each(Server::is_up);
    let [one, two] = &servers;

    // One authority: an administrator of one is one of the other, who shows a certificate that is trusted.
    let output = two.command(&one.kubeconfig(), &["get", "namespaces", "-o", "name"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let refused = start(&etcd.url(), "another-secret");
    check_refused(refused);

    // What one has acknowledged the other reads, without waiting, and tells its watchers of.
    let told = watch(two);
    for n in 0..5 {
        let name = format!("written-{n}");
        one.kubectl(&["create", "configmap", &name, "--from-literal=n=1"]);
        two.kubectl(&["get", "configmap", &name]);
        told.until(&format!("configmap/{name}"));
    }
    drop(told);
    services_have_addresses_of_their_own(one, two);
    the_kubernetes_service_names(one, &[one, two]);
    a_server_comes_and_goes(one, two, &etcd.url());
    deploy(one, "before");
    has_two_pods(two, "before");

    kill_the_leader(&mut servers, &mut etcd);
}

/// A server with another token learns no keys, and says so.
fn check_refused(server: Server) {
    ends_with(server, "another token");
}

/// A server that does not start says why.
fn ends_with(mut server: Server, why: &str) {
    let ended = wait_for(PATIENCE, || server.child.try_wait().unwrap().is_some());
    assert!(ended, "the server runs:\n{}", server.log());
    assert!(server.log().contains(why), "{}", server.log());
}

/// The files of an etcd: an authority, and a certificate of it for both sides.
fn certificates(folder: &Path, address: &str) -> TlsFiles {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec![address.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    TlsFiles {
        ca: file("ca.crt", &ca.pem()),
        cert: file("x.crt", &cert.pem()),
        key: file("x.key", &key.serialize_pem()),
    }
}

#[test]
fn an_etcd_whose_authority_the_machine_trusts_needs_no_further_word() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start_tls(|address| certificates(folder.path(), address));
    let started = |trusted: &str| {
        start_with(&etcd.url(), TOKEN, |command| {
            let file = |name: &str| folder.path().join(name);
            command.arg("--datastore-certfile").arg(file("x.crt")).arg("--datastore-keyfile").arg(file("x.key"));
            command.env("SSL_CERT_FILE", file(trusted)).env_remove("SSL_CERT_DIR");
        })
    };
    let mut server = started("ca.crt");
    server.is_up();
    server.kubectl(&["create", "configmap", "written"]);
    ends_with(started("none"), "needs --datastore-cafile");
}

fn services_have_addresses_of_their_own(one: &Server, two: &Server) {
    const EACH: usize = 6;
    thread::scope(|scope| {
        for (at, server) in [one, two].into_iter().enumerate() {
            scope.spawn(move || {
                for n in 0..EACH {
                    server.kubectl(&["create", "service", "nodeport", &format!("s{at}-{n}"), "--tcp=80"]);
                }
            });
        }
    });
    let all = |path: &str| -> Vec<String> {
        let printed = one.kubectl(&["get", "services", "-o", &format!("jsonpath={{.items[*]{path}}}")]);
        printed.split_whitespace().map(str::to_owned).collect()
    };
    let (addresses, ports) = (all(".spec.clusterIP"), all(".spec.ports[*].nodePort"));
    assert_eq!((addresses.len(), ports.len()), (2 * EACH + 1, 2 * EACH), "with the API server's own");
    let distinct = |numbers: &[String]| numbers.iter().collect::<BTreeSet<_>>().len();
    assert_eq!(distinct(&addresses), addresses.len(), "{addresses:?}");
    assert_eq!(distinct(&ports), ports.len(), "{ports:?}");
    // An address that one has given out cannot be had from the other, until it is free again.
    let taken = one.kubectl(&["get", "service", "s0-0", "-o", "jsonpath={.spec.clusterIP}"]);
    let asked = ["create", "service", "clusterip", "asks", "--tcp=80", &format!("--clusterip={taken}")];
    let refused = two.try_kubectl(&asked);
    assert!(!refused.status.success() && text(&refused).contains("already allocated"), "{}", text(&refused));
    one.kubectl(&["delete", "service", "s0-0"]);
    let freed = wait_for(PATIENCE, || two.try_kubectl(&asked).status.success());
    assert!(freed, "{taken} is not given out again:\n{}", two.log());
}

/// Who is behind the Service by which pods reach the API, as both of its objects say it, in order.
fn named(server: &Server) -> [Vec<String>; 2] {
    let read = |args: &[&str]| {
        let printed = server.kubectl(&[&["get", "-n", "default"], args].concat());
        let mut addresses: Vec<_> = printed.split_whitespace().map(str::to_owned).collect();
        addresses.sort();
        addresses
    };
    [
        read(&["endpoints", "kubernetes", "-o", "jsonpath={.subsets[*].addresses[*].ip}"]),
        read(&["endpointslice", "kubernetes", "-o", "jsonpath={.endpoints[*].addresses[*]}"]),
    ]
}

fn addresses(servers: &[&Server]) -> [Vec<String>; 2] {
    let mut addresses: Vec<_> = servers.iter().map(|server| server.address.clone()).collect();
    addresses.sort();
    [addresses.clone(), addresses]
}

fn the_kubernetes_service_names(asked: &Server, servers: &[&Server]) {
    let wanted = addresses(servers);
    let so = wait_for(PATIENCE, || named(asked) == wanted);
    assert!(so, "{:?} instead of {wanted:?}\n{}", named(asked), asked.log());
}

/// One that ends cleanly has taken itself out when it has ended.
fn a_server_comes_and_goes(one: &Server, two: &Server, etcd: &str) {
    let mut third = start(etcd, TOKEN);
    third.is_up();
    the_kubernetes_service_names(one, &[one, two, &third]);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(third.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(third.child.wait().unwrap().success(), "{}", third.log());
    assert_eq!(named(two), addresses(&[one, two]), "{}", third.log());
}

fn kill_the_leader(servers: &mut [Server; 2], etcd: &mut Etcd) {
    let leader = holder(&servers[0], "kube-controller-manager");
    let dies = servers.iter().position(|server| leader.starts_with(&server.address)).expect("one of them leads");
    servers[dies].child.kill().unwrap();
    servers[dies].child.wait().unwrap();
    let left = &servers[1 - dies];
    // The API goes on at once, the controllers when the dead one's Lease has ended.
    deploy(left, "after");
    has_two_pods(left, "after");
    assert!(holder(left, "kube-controller-manager").starts_with(&left.address));
    the_kubernetes_service_names(left, &[left]);

    // Without etcd there is a clear refusal, and no old answer.
    etcd.member.freeze();
    let refused = left.http("/api/v1/namespaces/default/configmaps/written-0");
    assert!(refused.ends_with("503") && refused.contains("the datastore is unavailable"), "{refused}");
    etcd.member.thaw();
    left.wait("it has recovered", &["get", "configmap", "written-0"], |_| true);
    left.kubectl(&["create", "configmap", "recovered"]);
}
