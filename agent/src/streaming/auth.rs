//! Who calls the node's API, and whether they may.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use skiff_client::Client;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The group whose members may do everything.
const MASTERS: &str = "system:masters";

/// Who calls: a client certificate's common name and organizations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    name: String,
    groups: Vec<String>,
}

impl Caller {
    /// The caller of a certificate that was verified.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let name = certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = certificate.subject().iter_organization().filter_map(|group| group.as_str().ok());
        Some(Self { name, groups: groups.map(str::to_owned).collect() })
    }

    /// Whether the caller may; asks the API server unless the caller is one of the cluster's masters.
    pub(super) async fn may(&self, client: &Client, node: &str, verb: &str, subresource: &str) -> Result<(), String> {
        if self.groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some(subresource.to_owned()),
            name: Some(node.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(self.name.clone()),
            groups: Some(self.groups.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let allowed = client.create(&review).await.map_err(|e| format!("Authorization error: {e}"))?;
        match allowed.status.is_some_and(|status| status.allowed) {
            true => Ok(()),
            false => Err(format!(
                "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{subresource}])",
                self.name
            )),
        }
    }
}
