//! Certificates for those who ask in the form of a CertificateSigningRequest.

use k8s_openapi::ByteString;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use serde_json::{Value, json};
use x509_parser::prelude::{GeneralName, parse_x509_pem};

use crate::harness::{Plane, eventually, resource};

fn request(common_name: &str, organization: &str, host: Option<&str>, signer: &str, usages: &[&str]) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.subject_alt_names.extend(host.map(|host| SanType::DnsName(host.try_into().unwrap())));
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    json!({"metadata": {"name": "r"}, "spec": {"request": ByteString(pem.into_bytes()), "signerName": signer,
        "usages": usages, "expirationSeconds": 3600}})
}

const REQUESTS: &str = "certificates.k8s.io/v1/certificatesigningrequests";

async fn certificate(plane: &Plane) -> Option<String> {
    let made = plane.get(REQUESTS, "", "r").await.unwrap();
    let bytes: ByteString = serde_json::from_value(made.at(&["status", "certificate"])?.clone()).ok()?;
    String::from_utf8(bytes.0).ok()
}

/// What a certificate says: subject, names, and for how many minutes it is still good; verified by an authority.
fn read(pem: &str, authority: &str) -> (String, Vec<String>, i64) {
    let (_, block) = parse_x509_pem(pem.as_bytes()).unwrap();
    let cert = block.parse_x509().unwrap();
    let (_, authority) = parse_x509_pem(authority.as_bytes()).unwrap();
    cert.verify_signature(Some(authority.parse_x509().unwrap().public_key())).expect("signed by the authority");
    let names = cert.subject_alternative_name().unwrap().map(|names| names.value.general_names.clone());
    let dns =
        |name: &GeneralName<'_>| if let GeneralName::DNSName(name) = name { (*name).to_owned() } else { String::new() };
    let left_minutes = (cert.validity().not_after.timestamp() - jiff::Timestamp::now().as_second()) / 60;
    assert!(!cert.is_ca());
    (cert.subject().to_string(), names.iter().flatten().map(dns).collect(), left_minutes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelets_client_certificate_is_approved_and_signed() {
    let plane = Plane::start().await;
    let usages = ["digital signature", "client auth"];
    let new = request("system:node:n1", "system:nodes", None, "kubernetes.io/kube-apiserver-client-kubelet", &usages);
    plane.create(REQUESTS, "", new).await;
    eventually("it is signed", async || certificate(&plane).await.is_some()).await;
    let (subject, names, minutes) = read(&certificate(&plane).await.unwrap(), plane.server.pki().client_ca());
    assert_eq!((subject.as_str(), names.len()), ("CN=system:node:n1, O=system:nodes", 0));
    assert!((30..=60).contains(&minutes), "{minutes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serving_certificate_waits_for_its_approval() {
    let plane = Plane::start().await;
    let usages = ["digital signature", "server auth"];
    let new = request("system:node:n1", "system:nodes", Some("n1.example"), "kubernetes.io/kubelet-serving", &usages);
    plane.create(REQUESTS, "", new).await;
    let mut approved = plane.get(REQUESTS, "", "r").await.unwrap();
    assert!(certificate(&plane).await.is_none());
    let condition = json!([{"type": "Approved", "status": "True", "reason": "Test", "message": "m"}]);
    approved.set_at(&["status", "conditions"], condition);
    let body = approved.to_vec();
    let request = skiff_api::request::Request {
        body: body.into(),
        subresource: Some("approval".to_owned()),
        ..skiff_api::request::Request::new(skiff_api::request::Verb::Update, resource(REQUESTS), "", "r")
    };
    plane.admin().raw(request).await.unwrap();
    eventually("it is signed", async || certificate(&plane).await.is_some()).await;
    let (_, names, _) = read(&certificate(&plane).await.unwrap(), plane.server.pki().node_ca());
    assert_eq!(names, ["n1.example"]);
}
