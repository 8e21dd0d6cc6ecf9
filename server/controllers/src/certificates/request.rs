//! What a certificate request asks for, and whether a signer signs such. No I/O.
//!
//! Source of the rules: the API of CertificateSigningRequests, "Kubernetes signers".

use std::net::{IpAddr, Ipv4Addr};

use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509CertificationRequest, parse_x509_pem};

/// The organization of nodes.
const NODES: &str = "system:nodes";
/// What the name of a node's user begins with.
const NODE_PREFIX: &str = "system:node:";

/// A request, as far as signers look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The request in DER.
    pub der: Vec<u8>,
    /// The subject's common name.
    pub common_name: String,
    /// The subject's organizations.
    pub organizations: Vec<String>,
    /// The SHA-256 of the public key, in hexadecimal digits.
    pub key_sha256: String,
    /// The DNS names that it is for.
    pub dns_names: Vec<String>,
    /// The addresses that it is for.
    pub addresses: Vec<IpAddr>,
    /// How many mail addresses.
    pub mails: usize,
    /// How many URIs.
    pub uris: usize,
}

impl Asked {
    /// Reads `spec.request`: PEM, and signed by the key that it asks a certificate for.
    pub fn read(pem: &[u8]) -> Result<Self, String> {
        let (_, block) = parse_x509_pem(pem).map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
        if block.label != "CERTIFICATE REQUEST" && block.label != "NEW CERTIFICATE REQUEST" {
            return Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
        }
        let (rest, request) = X509CertificationRequest::from_der(&block.contents)
            .map_err(|error| format!("the certificate request cannot be read: {error}"))?;
        if !rest.is_empty() {
            return Err("something follows the certificate request".to_owned());
        }
        request.verify_signature().map_err(|_| "the request is not signed by the key that it is for".to_owned())?;
        let mut asked = Self { der: block.contents.clone(), ..Self::default() };
        let subject = &request.certification_request_info.subject;
        let text = |value: Result<&str, _>| value.map(str::to_owned).unwrap_or_default();
        asked.common_name = subject.iter_common_name().next().map(|name| text(name.as_str())).unwrap_or_default();
        asked.organizations = subject.iter_organization().map(|name| text(name.as_str())).collect();
        let key = Sha256::digest(request.certification_request_info.subject_pki.raw);
        asked.key_sha256 = key.iter().map(|byte| format!("{byte:02x}")).collect();
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| asked.add(name));
            }
        }
        Ok(asked)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => self.addresses.push(address(bytes)),
            GeneralName::RFC822Name(_) => self.mails += 1,
            GeneralName::URI(_) => self.uris += 1,
            _ => {}
        }
    }

    /// Whether this is the client certificate of a kubelet.
    pub fn check_kubelet_client(&self, usages: &[String]) -> Result<(), String> {
        self.check_node()?;
        if !self.dns_names.is_empty() {
            return Err("DNS subjectAltNames are not allowed".to_owned());
        }
        if !self.addresses.is_empty() {
            return Err("IP subjectAltNames are not allowed".to_owned());
        }
        self.check_other_names()?;
        check_usages(usages, "client auth")
    }

    /// Whether this is the serving certificate of a kubelet.
    pub fn check_kubelet_serving(&self, usages: &[String]) -> Result<(), String> {
        self.check_node()?;
        if self.dns_names.is_empty() && self.addresses.is_empty() {
            return Err("DNS or IP subjectAltName is required".to_owned());
        }
        self.check_other_names()?;
        check_usages(usages, "server auth")
    }

    /// The name of the node that the subject is.
    pub fn node(&self) -> &str {
        self.common_name.strip_prefix(NODE_PREFIX).unwrap_or_default()
    }

    fn check_node(&self) -> Result<(), String> {
        if self.organizations != [NODES] {
            return Err(format!("subject organization is not {NODES}"));
        }
        if !self.common_name.starts_with(NODE_PREFIX) {
            return Err(format!("subject common name does not begin with {NODE_PREFIX}"));
        }
        Ok(())
    }

    fn check_other_names(&self) -> Result<(), String> {
        if self.mails > 0 {
            return Err("Email subjectAltNames are not allowed".to_owned());
        }
        if self.uris > 0 {
            return Err("URI subjectAltNames are not allowed".to_owned());
        }
        Ok(())
    }
}

/// An address of a certificate; the unspecified one, which nothing has, where it is none.
fn address(bytes: &[u8]) -> IpAddr {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// A kubelet's key signs, and serves or asks; it may also encipher keys.
fn check_usages(usages: &[String], purpose: &str) -> Result<(), String> {
    let mut rest: Vec<&str> = usages.iter().map(String::as_str).filter(|usage| *usage != "key encipherment").collect();
    rest.sort_unstable();
    rest.dedup();
    let mut wanted = ["digital signature", purpose];
    wanted.sort_unstable();
    if rest == wanted {
        return Ok(());
    }
    Err(format!("usages did not match [key encipherment digital signature {purpose}] or [digital signature {purpose}]"))
}

/// Whether the usages are those of a client of the API server.
pub fn check_client_usages(usages: &[String]) -> Result<(), String> {
    let known = |usage: &String| matches!(usage.as_str(), "digital signature" | "key encipherment" | "client auth");
    if usages.iter().all(known) && usages.iter().any(|usage| usage == "client auth") {
        return Ok(());
    }
    Err("usages must be client auth, and may be digital signature and key encipherment".to_owned())
}

/// When a certificate ends, as seconds since 1970; `None` where it cannot be read.
pub fn not_after_seconds(pem: &[u8]) -> Option<i64> {
    let (_, block) = parse_x509_pem(pem).ok()?;
    Some(block.parse_x509().ok()?.validity().not_after.timestamp())
}
