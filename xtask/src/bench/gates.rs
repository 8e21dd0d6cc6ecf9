//! What it adds to a request to know who asks, whether they may, and what admission says: for an account with many
//! roles, in a namespace with limits and a Pod Security level.
//!
//! Measured inside the server, by its own histograms in `/metrics`, while the requests come over TLS as any do: nothing
//! is switched off or left out, and the clock runs around the very code that decides. All that the server spends on
//! these meanwhile, for whomever, is counted as if it were these requests'.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    cluster::Cluster,
    line::Line,
    wire::{Connection, Target},
};

const NAMESPACE: &str = "bench-gates";
/// Roles that the account is bound to; only the last one lets it do what it does.
const ROLES: usize = 50;
/// Requests of each kind, one after the other, after a tenth as many to warm up.
const REQUESTS: usize = 5_000;
/// What the three may add together, in microseconds.
const TARGET_US: f64 = 20.0;

/// The three, by the families that tell of them.
const GATES: [(&str, &str); 3] = [
    ("authentication", "authentication_duration_seconds_sum"),
    ("authorization", "authorization_duration_seconds_sum"),
    ("admission", "apiserver_admission_step_admission_duration_seconds_sum"),
];

/// Measures.
pub(super) async fn measure(cluster: &Cluster, admin: &Target) -> Result<Vec<Line>> {
    let mut setup = admin.connect().await?;
    furnish(admin, &mut setup).await?;
    let account = cluster.target_with_token(token(admin, &mut setup).await?)?;
    let mut lines = Vec::new();
    let objects = format!("/api/v1/namespaces/{NAMESPACE}");
    let get = |_| account.request("GET", &format!("{objects}/configmaps/kube-root-ca.crt"), "");
    lines.extend(one(admin, &mut setup, &account, "GET ConfigMap", get).await?);
    let create = |n| account.request("POST", &format!("{objects}/configmaps"), &config_map(n).to_string());
    lines.extend(one(admin, &mut setup, &account, "create ConfigMap", create).await?);
    let create = |n| account.request("POST", &format!("{objects}/pods"), &pod(n).to_string());
    lines.extend(one(admin, &mut setup, &account, "create Pod", create).await?);
    Ok(lines)
}

/// Makes an object as the administrator.
async fn make(admin: &Target, setup: &mut Connection, path: &str, body: &Value) -> Result<Value> {
    let (status, answer) = setup.read(&admin.request("POST", path, &body.to_string())).await?;
    ensure!(status == 201, "making {path}: {status} {}", String::from_utf8_lossy(&answer));
    Ok(serde_json::from_slice(&answer)?)
}

/// The namespace, its limits, and the account's roles.
async fn furnish(admin: &Target, setup: &mut Connection) -> Result<()> {
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline"});
    let namespace = json!({"metadata": {"name": NAMESPACE, "labels": labels}});
    make(admin, setup, "/api/v1/namespaces", &namespace).await?;
    let limits = json!([{"type": "Container", "default": {"memory": "64Mi"}, "max": {"memory": "1Gi"}}]);
    let limits = json!({"metadata": {"name": "limits"}, "spec": {"limits": limits}});
    make(admin, setup, &format!("/api/v1/namespaces/{NAMESPACE}/limitranges"), &limits).await?;
    let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}");
    for n in 0..ROLES {
        let name = format!("role-{n:02}");
        let core = if n + 1 == ROLES { json!(["configmaps", "pods"]) } else { json!([format!("resource-{n}")]) };
        let rules = json!([
            {"apiGroups": ["apps"], "resources": [format!("kind-{n}")], "verbs": ["get", "list", "watch"]},
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [format!("s{n}")], "verbs": ["get"]},
            {"apiGroups": [""], "resources": core, "verbs": ["get", "create"]},
        ]);
        make(admin, setup, &format!("{rbac}/roles"), &json!({"metadata": {"name": name}, "rules": rules})).await?;
        let subject = json!([{"kind": "ServiceAccount", "name": "default", "namespace": NAMESPACE}]);
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
        let binding = json!({"metadata": {"name": name}, "roleRef": role, "subjects": subject});
        make(admin, setup, &format!("{rbac}/rolebindings"), &binding).await?;
    }
    Ok(())
}

async fn token(admin: &Target, setup: &mut Connection) -> Result<String> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default/token");
    let answer = make(admin, setup, &path, &json!({})).await?;
    Ok(answer["status"]["token"].as_str().context("no token")?.to_owned())
}

fn config_map(n: usize) -> Value {
    json!({"metadata": {"name": format!("c{n}")}, "data": {"key": "x".repeat(420)}})
}

/// A pod that no scheduler takes.
fn pod(n: usize) -> Value {
    let container = json!({"name": "main", "image": "registry.example.com/app:1.0"});
    json!({"metadata": {"name": format!("p{n}")}, "spec": {"schedulerName": "nobody", "containers": [container]}})
}

/// Makes requests of one kind, and says what each gate added to one.
async fn one(
    admin: &Target,
    setup: &mut Connection,
    account: &Target,
    what: &str,
    request: impl Fn(usize) -> Vec<u8>,
) -> Result<Vec<Line>> {
    let mut connection = account.connect().await?;
    let mut before = [0.0; GATES.len()];
    for n in 0..REQUESTS + REQUESTS / 10 {
        if n == REQUESTS / 10 {
            before = seconds(admin, setup).await?;
        }
        let (status, _) = connection.exchange(&request(n)).await?;
        ensure!(status < 300, "{what} was answered with {status}");
    }
    let after = seconds(admin, setup).await?;
    #[allow(clippy::cast_precision_loss, reason = "a count far below 2^52")]
    let each_us = |at: usize| (after[at] - before[at]) / REQUESTS as f64 * 1e6;
    let parts: Vec<f64> = (0..GATES.len()).map(each_us).collect();
    let what = format!("{what}, account with {ROLES} roles: all gates");
    let all = Line::at_most(TARGET_US, what, parts.iter().sum(), "us");
    let each = GATES.iter().zip(&parts).map(|((name, _), us)| Line::told(format!("  {name}"), *us, "us"));
    Ok(std::iter::once(all).chain(each).collect())
}

/// What the server has spent at each gate since its start.
async fn seconds(admin: &Target, setup: &mut Connection) -> Result<[f64; GATES.len()]> {
    let (status, text) = setup.read(&admin.request("GET", "/metrics", "")).await?;
    ensure!(status == 200, "reading /metrics: {status}");
    let text = String::from_utf8(text)?;
    let sum = |family: &str| {
        let of_family = |line: &&str| line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{'));
        text.lines().filter(of_family).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    Ok(GATES.map(|(_, family)| sum(family)))
}
