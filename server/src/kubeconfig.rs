//! The administrator's kubeconfig.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::pki::Identity;

/// The name of cluster, user and context, as k3s has it.
const NAME: &str = "default";

/// A kubeconfig that carries its certificates and keys.
pub(crate) fn render(url: &str, server_ca: &str, admin: &Identity) -> String {
    let (ca, cert, key) = (STANDARD.encode(server_ca), STANDARD.encode(&admin.cert), STANDARD.encode(&admin.key));
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: {NAME}
  cluster:
    server: {url}
    certificate-authority-data: {ca}
users:
- name: {NAME}
  user:
    client-certificate-data: {cert}
    client-key-data: {key}
contexts:
- name: {NAME}
  context:
    cluster: {NAME}
    user: {NAME}
current-context: {NAME}
preferences: {{}}
"
    )
}
