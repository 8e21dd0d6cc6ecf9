//! Who asks.

use std::collections::BTreeMap;

/// An authenticated identity, `authentication.k8s.io/v1` `UserInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UserInfo {
    /// User name, e.g. `system:node:n1` or `system:serviceaccount:kube-system:deployment-controller`.
    pub name: String,
    /// Unique id, empty where the authenticator has none.
    pub uid: String,
    /// Groups, `system:authenticated` included.
    pub groups: Vec<String>,
    /// Whatever else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}
