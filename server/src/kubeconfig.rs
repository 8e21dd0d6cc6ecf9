//! The administrator's kubeconfig.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde_yaml_ng::Value;
use skiff_client::files;

use crate::{ServerError, pki::Identity};

/// The name of cluster, user and context, as k3s has it.
const NAME: &str = "default";

/// The administrator's kubeconfigs that this server has written, and keeps good.
pub(crate) struct Kubeconfigs {
    url: String,
    server_ca: String,
    written: Mutex<(Identity, Vec<PathBuf>)>,
}

impl Kubeconfigs {
    /// None yet; the administrator's certificate is this one for now.
    pub(crate) fn new(url: String, server_ca: &str, admin: Identity) -> Self {
        Self { url, server_ca: server_ca.to_owned(), written: Mutex::new((admin, Vec::new())) }
    }

    /// The API server's URL in them.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Writes one, for the owner alone, and keeps it good from then on.
    pub(crate) fn write(&self, path: &Path) -> Result<(), ServerError> {
        let mut written = self.written.lock();
        self.put(path, &written.0)?;
        written.1.push(path.to_owned());
        Ok(())
    }

    /// Writes all anew where the administrator has another certificate.
    pub(crate) fn renew(&self, admin: &Identity) -> Result<(), ServerError> {
        let mut written = self.written.lock();
        if written.0.cert == admin.cert {
            return Ok(());
        }
        for path in &written.1 {
            self.put(path, admin)?;
        }
        written.0 = admin.clone();
        Ok(())
    }

    /// A file that says the same already is left alone.
    fn put(&self, path: &Path, admin: &Identity) -> Result<(), ServerError> {
        let text = render(&self.url, &self.server_ca, admin);
        let written = files::write_private_if_changed(path, text.as_bytes());
        written.map_err(|source| ServerError::File { action: "writing", path: path.to_owned(), source })
    }
}

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

/// What a kubeconfig of [`render`]'s says.
pub(crate) struct Access {
    pub(crate) url: String,
    pub(crate) server_ca: String,
    pub(crate) admin: Identity,
}

/// Reads what [`render`] wrote; `None` where it is something else.
pub(crate) fn parse(text: &str) -> Option<Access> {
    let file: Value = serde_yaml_ng::from_str(text).ok()?;
    let (cluster, user) = (file.get("clusters")?.get(0)?.get("cluster")?, file.get("users")?.get(0)?.get("user")?);
    let pem = |of: &Value, field| String::from_utf8(STANDARD.decode(of.get(field)?.as_str()?).ok()?).ok();
    Some(Access {
        url: cluster.get("server")?.as_str()?.to_owned(),
        server_ca: pem(cluster, "certificate-authority-data")?,
        admin: Identity { cert: pem(user, "client-certificate-data")?, key: pem(user, "client-key-data")? },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_is_read() {
        let admin = Identity { cert: "cert".to_owned(), key: "key".to_owned() };
        let access = parse(&render("https://127.0.0.1:6443", "ca", &admin)).unwrap();
        let read =
            (access.url.as_str(), access.server_ca.as_str(), access.admin.cert.as_str(), access.admin.key.as_str());
        assert_eq!(read, ("https://127.0.0.1:6443", "ca", "cert", "key"));
        assert!(parse("a: b").is_none() && parse("").is_none() && parse(": :").is_none());
    }
}
