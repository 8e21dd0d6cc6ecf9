//! The real kubectl, of two ages, against the API server alone.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::server::{ADMIN, Server};

/// The ages of kubectl.
const AGES: [&str; 2] = ["1.32", "1.36"];

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
        let output = tokio::task::block_in_place(|| self.output(args));
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
                .replace("deleted", if age == "1.36" { "deleted from default namespace" } else { "deleted" })
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
const CREATES: [&[&str]; 19] = [
    &["clusterrole", "cr", "--verb=get,list", "--resource=pods"],
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
    &["service", "clusterip", "svc", "--tcp=80:8080"],
    &["service", "nodeport", "np", "--tcp=80"],
    &["service", "externalname", "en", "--external-name=example.com"],
    &["serviceaccount", "sa"],
];

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_that_kubectl_creates() {
    for age in AGES {
        let server = Server::start().await;
        let kubectl = Kubectl::new(&server, age);
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
