//! The flags that say where a server keeps the cluster's state.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use skiff_server::{Datastore, EtcdTls, trusted_by_this_machine};

/// Names are k3s's.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct DatastoreFlags {
    /// The addresses of an etcd that several servers share, e.g. https://a:2379,https://b:2379. Without it the state
    /// is kept in a file of this server's.
    #[arg(long, value_name = "URL,...", value_delimiter = ',', env = "SKIFF_DATASTORE_ENDPOINT")]
    pub(crate) datastore_endpoint: Vec<String>,
    /// Who signed etcd's certificates; by default those whom this machine trusts.
    #[arg(long, value_name = "FILE", env = "SKIFF_DATASTORE_CAFILE")]
    pub(crate) datastore_cafile: Option<PathBuf>,
    /// The certificate that this server shows to etcd.
    #[arg(long, value_name = "FILE", env = "SKIFF_DATASTORE_CERTFILE")]
    pub(crate) datastore_certfile: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", env = "SKIFF_DATASTORE_KEYFILE")]
    pub(crate) datastore_keyfile: Option<PathBuf>,
}

fn read(path: &PathBuf) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

impl DatastoreFlags {
    /// What the flags say.
    pub(crate) fn datastore(&self) -> Result<Datastore> {
        if self.datastore_endpoint.is_empty() {
            return Ok(Datastore::Embedded);
        }
        let endpoints: Vec<String> = self.datastore_endpoint.iter().map(|url| url.trim().to_owned()).collect();
        if let Some(bad) = endpoints.iter().find(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            bail!("--datastore-endpoint {bad}: it must be addresses of etcd such as https://10.0.0.1:2379");
        }
        Ok(Datastore::Etcd { tls: self.tls(&endpoints)?, endpoints })
    }

    fn tls(&self, endpoints: &[String]) -> Result<Option<EtcdTls>> {
        let identity = match (&self.datastore_certfile, &self.datastore_keyfile) {
            (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
            (None, None) => None,
            _ => bail!("--datastore-certfile and --datastore-keyfile belong together"),
        };
        if let Some(ca) = &self.datastore_cafile {
            return Ok(Some(EtcdTls { ca: read(ca)?, identity }));
        }
        if !endpoints.iter().any(|url| url.starts_with("https://")) {
            return Ok(None);
        }
        match trusted_by_this_machine() {
            ca if ca.is_empty() => {
                bail!("--datastore-endpoint with https:// needs --datastore-cafile: who signed etcd's certificates")
            }
            ca => Ok(Some(EtcdTls { ca, identity })),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn flags(endpoints: &[&str]) -> DatastoreFlags {
        DatastoreFlags {
            datastore_endpoint: endpoints.iter().map(|url| (*url).to_owned()).collect(),
            ..DatastoreFlags::default()
        }
    }

    #[test]
    fn what_cannot_work_is_refused_at_once() {
        assert!(matches!(flags(&[]).datastore().unwrap(), Datastore::Embedded));
        assert!(matches!(flags(&["http://a:2379"]).datastore().unwrap(), Datastore::Etcd { tls: None, .. }));
        let refused = flags(&["a:2379"]).datastore().unwrap_err().to_string();
        assert!(refused.contains("addresses of etcd"), "{refused}");
        let half = DatastoreFlags { datastore_certfile: Some("/x".into()), ..flags(&["http://a:2379"]) };
        assert!(half.datastore().unwrap_err().to_string().contains("belong together"));
    }
}
