#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use std::sync::LazyLock;

use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use serde_json::{Value, json};
use skiff_api::request::Verb;

use super::*;
use crate::testing::{Running, eventually, object};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";

/// One key for all tests: making one takes time.
static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

/// A certificate request of a subject, for a host where that is not empty.
fn csr(common_name: &str, organization: &str, host: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, organization);
    if !host.is_empty() {
        params.subject_alt_names.push(SanType::DnsName(host.try_into().unwrap()));
    }
    params.serialize_request(&*KEY).unwrap().pem().unwrap().into_bytes()
}

fn request(signer: &str, csr: Vec<u8>, usages: &[&str], conditions: Value) -> CertificateSigningRequest {
    let mut request: CertificateSigningRequest = object(json!({
        "metadata": {"name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"request": "", "signerName": signer, "usages": usages, "username": "system:node:n", "groups": ["g"]},
        "status": {"conditions": conditions},
    }));
    request.spec.request = ByteString(csr);
    request
}

/// The request of who comes with a token.
fn joining(csr: Vec<u8>, conditions: Value) -> CertificateSigningRequest {
    let mut request = request(KUBELET, csr, &["digital signature", "client auth"], conditions);
    request.spec.username = Some("system:bootstrap:abcdef".to_owned());
    request.spec.groups = Some(vec!["system:bootstrappers".to_owned()]);
    request
}

fn said(kind: &str) -> Value {
    json!([{"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z"}])
}

fn told(step: &Step) -> String {
    match step {
        Step::Wait => "wait".to_owned(),
        Step::Delete => "delete".to_owned(),
        Step::Review(all, claim) => {
            let claimed = claim.iter().map(|claim| format!("{} to {}", claim.node, &claim.key_sha256.len()));
            all.iter().map(|one| one.subresource.to_owned()).chain(claimed).collect::<Vec<_>>().join(",")
        }
        Step::Serve(addresses) => format!("serve {addresses:?}"),
        Step::Fail(why) => why.clone(),
        Step::Sign(order) => format!("{:?} {}h", order.authority, order.lifetime.as_secs() / 3600),
    }
}

#[test]
fn what_a_request_needs_next() {
    let of = |name: &str, host: &str| csr(&format!("system:node:{name}"), "system:nodes", host);
    let (node, serving) = (|| of("n", ""), || of("n", "host"));
    let (client, server) =
        (["digital signature", "client auth"], ["digital signature", "key encipherment", "server auth"]);
    let (none, approved) = (json!([]), said("Approved"));
    let cases: &[(&str, CertificateSigningRequest, &str)] = &[
        ("a kubelet asks for itself", request(KUBELET, node(), &client, none.clone()), "selfnodeclient,nodeclient"),
        ("somebody asks for a kubelet", request(KUBELET, of("m", ""), &client, none.clone()), "nodeclient"),
        ("no node", request(KUBELET, csr("me", "system:nodes", ""), &client, none.clone()), "wait"),
        (
            "a serving certificate of another name is for people to approve",
            request(SERVING, serving(), &server, none.clone()),
            "wait",
        ),
        ("of its own name", request(SERVING, of("n", "n"), &server, none.clone()), "serve []"),
        ("of another node", request(SERVING, of("m", "m"), &server, none.clone()), "wait"),
        ("who joins claims the name", joining(node(), none), "nodeclient,n to 64"),
        ("approved", request(KUBELET, node(), &client, approved.clone()), "Client 8760h"),
        (
            "approved, with a name",
            request(KUBELET, serving(), &client, approved.clone()),
            "DNS subjectAltNames are not allowed",
        ),
        (
            "approved, of no node",
            request(KUBELET, csr("me", "x", ""), &client, approved.clone()),
            "subject organization is not system:nodes",
        ),
        ("approved, for serving", request(SERVING, serving(), &server, approved.clone()), "Node 8760h"),
        (
            "approved, for serving nothing",
            request(SERVING, node(), &server, approved.clone()),
            "DNS or IP subjectAltName is required",
        ),
        (
            "approved, for the wrong use",
            request(SERVING, serving(), &client, approved.clone()),
            "usages did not match [key encipherment digital signature server auth] or [digital signature server auth]",
        ),
        ("a user", request(CLIENT, csr("me", "team", ""), &client, approved.clone()), "Client 8760h"),
        (
            "a user that would serve",
            request(CLIENT, csr("me", "team", ""), &server, approved.clone()),
            "usages must be client auth, and may be digital signature and key encipherment",
        ),
        (
            "of old",
            request("kubernetes.io/legacy-unknown", csr("x", "y", "host"), &server, approved.clone()),
            "Server 8760h",
        ),
        ("another's", request("example.com/signer", node(), &client, approved.clone()), "wait"),
        ("denied", request(KUBELET, node(), &client, said("Denied")), "wait"),
        (
            "no request",
            request(CLIENT, b"nonsense".to_vec(), &client, approved),
            "PEM block type must be CERTIFICATE REQUEST",
        ),
    ];
    for (what, request, expected) in cases {
        let (step, _) = decide(request, "2026-01-01T00:30:00Z".parse().unwrap());
        assert_eq!(told(&step), *expected, "{what}");
    }
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    let mut der = request::Asked::read(&csr("me", "x", "")).unwrap().der;
    let last = der.len() - 1;
    der[last] ^= 1;
    let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", base64(&der));
    assert!(request::Asked::read(pem.as_bytes()).is_err());
}

fn base64(bytes: &[u8]) -> String {
    serde_json::to_value(ByteString(bytes.to_vec())).unwrap().as_str().unwrap().to_owned()
}

#[test]
fn old_requests_are_forgotten() {
    let new = |conditions| request(CLIENT, csr("me", "x", ""), &["client auth"], conditions);
    let fate = |request: &CertificateSigningRequest, at: &str| {
        let (step, again) = decide(request, at.parse().unwrap());
        (step == Step::Delete, again.map(|again| again.as_secs() / 60))
    };
    assert_eq!(fate(&new(json!([])), "2026-01-01T23:00:00Z"), (false, Some(60)));
    assert_eq!(fate(&new(json!([])), "2026-01-02T00:00:00Z"), (true, None));
    assert_eq!(fate(&new(said("Denied")), "2026-01-01T00:30:00Z"), (false, Some(30)));
    assert_eq!(fate(&new(said("Denied")), "2026-01-01T01:00:00Z"), (true, None));
    assert_eq!(fate(&new(said("Failed")), "2026-01-01T01:00:00Z"), (true, None));
    let mut issued = new(said("Approved"));
    issued.status.as_mut().unwrap().certificate = Some(ByteString(b"x".to_vec()));
    assert_eq!(fate(&issued, "2026-01-01T00:59:00Z"), (false, Some(1)));
    assert_eq!(fate(&issued, "2026-01-01T01:00:00Z"), (true, None));
}

struct Stamp;

impl Signer for Stamp {
    fn sign(&self, order: &Order) -> Result<String, String> {
        Ok(format!("signed by {:?}", order.authority))
    }
}

#[tokio::test]
async fn a_kubelet_that_may_is_approved_and_signed_and_another_is_not() {
    let cluster = Running::start(|context| run(context, Arc::new(Stamp)));
    cluster.api.answer_when(|request| {
        (request.verb == Verb::Create && request.resource.resource == "subjectaccessreviews").then(|| {
            let mut review: Value = serde_json::from_slice(&request.body).unwrap();
            let attributes = &review["spec"]["resourceAttributes"];
            let allowed = attributes["subresource"] == "selfnodeclient" && attributes["verb"] == "create";
            review["status"] = json!({"allowed": allowed});
            review
        })
    });
    for (request_name, common_name) in [("own", "system:node:n"), ("other", "system:node:m")] {
        let mut new =
            request(KUBELET, csr(common_name, "system:nodes", ""), &["digital signature", "client auth"], json!([]));
        new.metadata.name = Some(request_name.to_owned());
        new.metadata.creation_timestamp = Some(Time(Timestamp::now()));
        new.status = None;
        cluster.client.create(&new).await.unwrap();
    }
    let get = async |name: &str| cluster.client.get::<CertificateSigningRequest>("", name).await.unwrap();
    eventually(async || {
        let status = get("own").await.status.unwrap_or_default();
        status.certificate == Some(ByteString(b"signed by Client".to_vec()))
            && status.conditions.unwrap()[0].reason.as_deref() == Some("AutoApproved")
    })
    .await;
    let reviews = cluster.api.take_requests().into_iter().filter(|r| r.resource.resource == "subjectaccessreviews");
    let asked: Vec<Value> =
        reviews.map(|r| serde_json::from_slice::<Value>(&r.body).unwrap()["spec"].clone()).collect();
    assert!(asked.iter().any(|spec| spec["user"] == "system:node:n" && spec["groups"] == json!(["g"])));
    assert!(get("other").await.status.is_none());
}
