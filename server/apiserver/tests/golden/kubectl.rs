//! The real kubectl, of three ages, against the API server alone.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use crate::server::{ADMIN, Server};

/// The ages of kubectl.
const AGES: [&str; 3] = ["1.32", "1.36", "1.37"];

/// Where `tests/setup.sh` put kubectl: beside the build.
fn tools() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("tools");
    assert!(folder.is_dir(), "{} is not there: run tests with `cargo xtask test`", folder.display());
    folder
}

/// kubectl for one server.
struct Kubectl<'a> {
    server: &'a Server,
    age: &'static str,
    home: tempfile::TempDir,
}

impl<'a> Kubectl<'a> {
    fn new(server: &'a Server, age: &'static str) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("ca.crt"), &server.ca_pem).unwrap();
        Self { server, age, home }
    }

    fn output(&self, args: &[&str]) -> Output {
        let mut command = Command::new(tools().join(format!("kubectl-{}", self.age)));
        command.arg(format!("--server=https://{}", self.server.address)).arg(format!("--token={ADMIN}"));
        command.arg(format!("--certificate-authority={}", self.home.path().join("ca.crt").display()));
        command.args(args).env("HOME", self.home.path()).env("KUBECONFIG", "").current_dir(self.home.path());
        // The editor of `kubectl edit`.
        command.env("EDITOR", "sed -i s/before/after/").output().unwrap()
    }

    /// What it prints; it must succeed.
    async fn run(&self, args: &[&str]) -> String {
        self.printed(args, &tokio::task::block_in_place(|| self.output(args)))
    }

    /// What it prints while another one does something; both must succeed.
    fn run_while(&self, args: &[&str], other: &[&str]) -> String {
        let both = || {
            std::thread::scope(|scope| {
                let first = scope.spawn(|| self.output(args));
                self.printed(other, &self.output(other));
                first.join().unwrap()
            })
        };
        self.printed(args, &tokio::task::block_in_place(both))
    }

    fn printed(&self, args: &[&str], output: &Output) -> String {
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl-{} {args:?}: {errors}", self.age);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What it says; it must fail.
    async fn fails(&self, args: &[&str]) -> String {
        let output = tokio::task::block_in_place(|| self.output(args));
        assert!(!output.status.success(), "kubectl-{} {args:?} succeeded", self.age);
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, annotations: {note: before}}\n\
    spec:\n  replicas: 2\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n\
    \x20   spec:\n      containers:\n      - name: c\n        image: i:1\n        ports: [{containerPort: 80}]\n\
    \x20       env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]\n";

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_changed_in_every_way() {
    for age in AGES {
        let server = Server::start().await;
        let kubectl = Kubectl::new(&server, age);
        let file = kubectl.file("web.yaml", DEPLOYMENT);
        assert_eq!(kubectl.run(&["apply", "-f", &file]).await, "deployment.apps/web created\n");
        assert_eq!(kubectl.run(&["apply", "-f", &file]).await, "deployment.apps/web unchanged\n");
        assert_eq!(kubectl.run(&["diff", "-f", &file]).await, "");
        let changed = kubectl.file("changed.yaml", &DEPLOYMENT.replace("i:1", "i:2"));
        let diff = tokio::task::block_in_place(|| kubectl.output(&["diff", "-f", &changed]));
        let text = String::from_utf8_lossy(&diff.stdout).into_owned();
        assert!(diff.status.code() == Some(1) && text.contains("+        image: i:2"), "{text}");
        assert_eq!(kubectl.run(&["edit", "deployment/web"]).await, "deployment.apps/web edited\n");
        assert_eq!(
            kubectl.run(&["get", "deploy", "web", "-o", "jsonpath={.metadata.annotations.note}"]).await,
            "after"
        );
        kubectl.run(&["label", "deploy/web", "tier=front"]).await;
        kubectl.run(&["annotate", "deploy/web", "note=again", "--overwrite"]).await;
        kubectl.run(&["scale", "deploy/web", "--replicas=3"]).await;
        kubectl.run(&["set", "image", "deploy/web", "c=i:3"]).await;
        for (kind, patch) in [
            ("json", r#"[{"op":"replace","path":"/spec/replicas","value":4}]"#),
            ("merge", r#"{"spec":{"replicas":5}}"#),
            ("strategic", r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"i:4"}]}}}}"#),
        ] {
            kubectl.run(&["patch", "deploy/web", "--type", kind, "-p", patch]).await;
        }
        let columns =
            "custom-columns=R:.spec.replicas,I:.spec.template.spec.containers[0].image,T:.metadata.labels.tier";
        let line = kubectl.run(&["get", "deploy", "web", "--no-headers", "-o", columns]).await;
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["5", "i:4", "front"]);
        kubectl.run(&["wait", "--for=jsonpath={.spec.replicas}=5", "deploy/web", "--timeout=60s"]).await;
        assert_eq!(
            kubectl.run(&["replace", "--force", "-f", &file]).await,
            "deployment.apps \"web\" deleted\ndeployment.apps/web replaced\n"
                .replace("deleted", if age != "1.32" { "deleted from default namespace" } else { "deleted" })
        );
        kubectl.run(&["delete", "deploy", "web"]).await;
        kubectl.run(&["wait", "--for=delete", "deploy/web", "--timeout=60s"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_side_apply_takes_over_from_client_side_apply() {
    for age in AGES {
        let server = Server::start().await;
        let kubectl = Kubectl::new(&server, age);
        let plain =
            DEPLOYMENT.replace("        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]\n", "");
        let file = kubectl.file("web.yaml", &plain);
        kubectl.run(&["apply", "-f", &file]).await;
        let changed = kubectl.file("changed.yaml", &plain.replace("replicas: 2", "replicas: 3"));
        let said = kubectl.run(&["apply", "--server-side", "-f", &changed]).await;
        assert_eq!(said, "deployment.apps/web serverside-applied\n");
        assert_eq!(kubectl.run(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"]).await, "3");
        kubectl.run(&["scale", "deploy/web", "--replicas=7"]).await;
        let refused = kubectl.fails(&["apply", "--server-side", "-f", &changed]).await;
        let conflict = format!("conflict with \"kubectl-{age}\" with subresource \"scale\"");
        assert!(refused.contains(&conflict), "{refused}");
        kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", &changed]).await;
        assert_eq!(kubectl.run(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"]).await, "3");
        let unknown = kubectl.file("unknown.yaml", &plain.replace("replicas: 2", "replica: 2"));
        let refused = kubectl.fails(&["apply", "--server-side", "-f", &unknown]).await;
        assert!(refused.contains(".spec.replica: field not declared in schema"), "{refused}");
        let refused = kubectl.fails(&["apply", "-f", &unknown]).await;
        assert!(refused.contains("unknown field \"spec.replica\""), "{refused}");
    }
}

/// Every kind that `kubectl create` can make.
const CREATES: [&[&str]; 22] = [
    &["clusterrole", "cr", "--verb=get,list", "--resource=pods"],
    &["clusterrole", "paths", "--verb=get", "--non-resource-url=/logs/*"],
    &["clusterrolebinding", "crb", "--clusterrole=cr", "--user=ann"],
    &["configmap", "cm", "--from-literal=a=b"],
    &["cronjob", "cj", "--image=i", "--schedule=*/5 * * * *"],
    &["deployment", "d", "--image=i", "--replicas=2", "--port=80"],
    &["ingress", "ing", "--rule=a.example.com/x*=svc:80,tls=cert"],
    &["job", "j", "--image=i"],
    &["namespace", "n"],
    &["poddisruptionbudget", "pdb", "--selector=app=d", "--min-available=1"],
    &["priorityclass", "pc", "--value=10"],
    &["quota", "q", "--hard=pods=5,cpu=2"],
    &["role", "r", "--verb=get", "--resource=pods"],
    &["rolebinding", "rb", "--role=r", "--serviceaccount=default:default"],
    &["secret", "generic", "s", "--from-literal=a=b"],
    &["secret", "docker-registry", "dr", "--docker-username=u", "--docker-password=p"],
    &["secret", "tls", "cert", "--cert=tls.crt", "--key=tls.key"],
    &["service", "clusterip", "svc", "--tcp=80:8080"],
    &["service", "nodeport", "np", "--tcp=80"],
    &["service", "loadbalancer", "lb", "--tcp=80:8080"],
    &["service", "externalname", "en", "--external-name=example.com"],
    &["serviceaccount", "sa"],
];

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_that_kubectl_creates() {
    for age in AGES {
        let server = Server::start().await;
        let kubectl = Kubectl::new(&server, age);
        let pair = rcgen::generate_simple_self_signed(["a.example.com".to_owned()]).unwrap();
        kubectl.file("tls.crt", &pair.cert.pem());
        kubectl.file("tls.key", &pair.signing_key.serialize_pem());
        for args in CREATES {
            let said = kubectl.run(&[&["create"], args].concat()).await;
            assert!(said.trim_end().ends_with(" created"), "{args:?}: {said}");
            let again = kubectl.fails(&[&["create"], args].concat()).await;
            assert!(again.contains("already exists"), "{args:?}: {again}");
        }
        let all = kubectl.run(&["get", "all,cm,secret,ingress,pdb,quota,sa", "-o", "wide"]).await;
        assert!(all.contains("deployment.apps/d") && all.contains("service/np"), "{all}");
        let refused = kubectl.fails(&["run", "p", "--image=i", "--restart=Never"]).await;
        assert!(refused.contains("failed quota: q: must specify cpu"), "{refused}");
        kubectl.run(&["delete", "quota", "q"]).await;
        kubectl.run(&["run", "p", "--image=i", "--restart=Never"]).await;
        kubectl.run(&["expose", "deploy/d", "--port=80", "--name=exposed"]).await;
        kubectl.run(&["autoscale", "deploy/d", "--max=3"]).await;
        kubectl.run(&["create", "job", "from", "--from=cronjob/cj"]).await;
        kubectl.run(&["describe", "deploy/d", "pod/p", "svc/np", "cm/cm", "hpa/d"]).await;
        kubectl.run(&["cordon", "-l", "none=such"]).await;
        kubectl.run(&["auth", "can-i", "--list"]).await;
    }
}

const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n";

const REQUEST: &str = "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {name: csr}\n\
    spec: {signerName: example.com/any, usages: [client auth], request: ";

/// A command, and all that it prints.
type Said<'a> = (&'a [&'a str], &'a str);

/// What kubectl prints of a Deployment that is there, in this order.
const SAID: [Said<'_>; 26] = [
    (&["label", "deploy/web", "tier=front"], "deployment.apps/web labeled\n"),
    (&["label", "deploy/web", "tier=front"], "deployment.apps/web not labeled\n"),
    (&["label", "deploy/web", "tier-"], "deployment.apps/web unlabeled\n"),
    (&["annotate", "deploy/web", "note=again", "--overwrite"], "deployment.apps/web annotated\n"),
    (&["scale", "deploy/web", "--replicas=3", "--current-replicas=2"], "deployment.apps/web scaled\n"),
    (&["set", "image", "deploy/web", "c=i:3"], "deployment.apps/web image updated\n"),
    (&["set", "env", "deploy/web", "A=b"], "deployment.apps/web env updated\n"),
    (&["set", "resources", "deploy/web", "--limits=cpu=1"], "deployment.apps/web resource requirements updated\n"),
    (&["patch", "deploy/web", "-p", "{}"], "deployment.apps/web patched (no change)\n"),
    (&["rollout", "pause", "deploy/web"], "deployment.apps/web paused\n"),
    (&["rollout", "resume", "deploy/web"], "deployment.apps/web resumed\n"),
    (&["rollout", "restart", "deploy/web"], "deployment.apps/web restarted\n"),
    (&["get", "deploy", "web", "-o", "name"], "deployment.apps/web\n"),
    (&["get", "deploy", "web", "-o", "go-template={{.kind}} {{.spec.replicas}}"], "Deployment 3"),
    (&["get", "deploy", "-o", "jsonpath={range .items[*]}{.metadata.name}={.spec.replicas};{end}"], "web=3;"),
    (&["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[?(@.name==\"c\")].env[1].value}"], "b"),
    (&["get", "deploy", "-o", "custom-columns-file=columns"], "NAME   WANTED\nweb    3\n"),
    (&["get", "deploy", "--no-headers", "-o", "wide", "-l", "none=such"], ""),
    (&["create", "ns", "dry", "--dry-run=server"], "namespace/dry created (server dry run)\n"),
    (&["create", "cm", "dry", "--dry-run=client", "-o", "name"], "configmap/dry\n"),
    (&["taint", "node", "n1", "key=value:NoSchedule"], "node/n1 tainted\n"),
    (&["cordon", "n1"], "node/n1 cordoned\n"),
    (&["certificate", "approve", "csr"], "certificatesigningrequest.certificates.k8s.io/csr approved\n"),
    (
        &["get", "csr", "csr", "-o", "jsonpath={.status.conditions[*].type} {.status.conditions[*].reason}"],
        "Approved KubectlApprove",
    ),
    (
        &["wait", "--for=condition=Approved", "csr/csr"],
        "certificatesigningrequest.certificates.k8s.io/csr condition met\n",
    ),
    (&["auth", "can-i", "delete", "nodes"], "yes\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_kubectl_prints() {
    for age in AGES {
        let server = Server::start().await;
        let kubectl = Kubectl::new(&server, age);
        kubectl.file("columns", "NAME WANTED\n.metadata.name .spec.replicas\n");
        let request = rcgen::CertificateParams::default().serialize_request(&rcgen::KeyPair::generate().unwrap());
        let request = BASE64.encode(request.unwrap().pem().unwrap());
        for text in [DEPLOYMENT, NODE, &format!("{REQUEST}{request}}}\n")] {
            kubectl.run(&["create", "-f", &kubectl.file("object.yaml", text)]).await;
        }
        for (args, expected) in SAID {
            let said = kubectl.run(args).await;
            assert_eq!(said, expected, "kubectl-{age} {args:?}");
        }
        let list = kubectl.run(&["auth", "can-i", "--list"]).await;
        assert!(list.starts_with("Resources "), "{list}");
        assert!(list.lines().any(|line| line.split_whitespace().eq(["*.*", "[]", "[]", "[*]"])), "{list}");
        let table = kubectl.run(&["get", "deploy", "-o", "wide"]).await;
        let titles: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
        let expected = ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"];
        assert_eq!(titles, expected);
        waits(&kubectl).await;
    }
}

/// Waits that end when another kubectl does something.
async fn waits(kubectl: &Kubectl<'_>) {
    let condition = r#"{"status":{"conditions":[{"type":"Available","status":"True"}]}}"#;
    let patch = ["patch", "deploy/web", "--subresource=status", "--type=merge", "-p", condition];
    let wait = ["wait", "--for=condition=Available", "deploy/web", "--timeout=60s"];
    assert_eq!(kubectl.run_while(&wait, &patch), "deployment.apps/web condition met\n");
    let failed = kubectl.fails(&["wait", "--for=condition=Progressing", "deploy/web", "--timeout=100ms"]).await;
    assert!(failed.contains("timed out waiting for the condition on deployments/web"), "{failed}");
    let wait = ["wait", "--for=delete", "deploy/web", "--timeout=60s"];
    let said = kubectl.run_while(&wait, &["delete", "deploy/web", "--wait=false"]);
    assert!(said.is_empty() || said == "deployment.apps/web condition met\n", "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_explained() {
    let server = Server::start().await;
    for age in AGES {
        let kubectl = Kubectl::new(&server, age);
        let wide = kubectl.run(&["api-resources", "-o", "wide", "--no-headers"]).await;
        assert!(
            wide.contains("deployments") && wide.contains("create,delete,deletecollection,get,list,patch,update,watch")
        );
        let names = kubectl.run(&["api-resources", "-o", "name"]).await;
        assert_eq!(names.lines().count(), wide.lines().count());
        let versions = kubectl.run(&["api-versions"]).await;
        assert!(versions.contains("apps/v1\n") && versions.contains("resource.k8s.io/v1\n"), "{versions}");
        // One age explains all of them; the other a few, to keep the test short.
        let every = if age == "1.36" { 1 } else { 10 };
        for name in names.lines().step_by(every) {
            // A name of three parts has its group's last label taken for a field.
            let (resource, group) = name.split_once('.').unwrap_or((name, ""));
            let version = versions.lines().find(|line| line.starts_with(&format!("{group}/")));
            let version = format!("--api-version={}", version.unwrap_or("v1"));
            let text = kubectl.run(&["explain", "--recursive", resource, &version]).await;
            assert!(text.contains("FIELDS:") && text.contains("metadata"), "{name}: {text}");
        }
        let text = kubectl.run(&["explain", "deployment.spec.strategy.rollingUpdate.maxSurge"]).await;
        assert!(text.contains("DESCRIPTION:") && text.contains("The maximum number of pods"), "{text}");
    }
}
