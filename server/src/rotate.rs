//! Another server token in the place of the one that is: what is sealed with it in the datastore is sealed anew, and
//! the old one neither opens that nor lets nodes join from then on. Snapshots stay sealed with what they were.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use serde_json::{Value, json};
use skiff_api::status::ApiError;
use skiff_apiserver::front::actions::Action;
use skiff_store::EtcdStore;

use crate::{
    ServerError,
    pki::Pki,
    shared_pki,
    token::{self, Live, Token},
};

/// The path of the action; its answer holds the new token.
pub const PATH: &str = "/skiff/v1/token/rotate";

/// What a rotation concerns.
pub(crate) struct Rotation {
    pub(crate) etcd: Option<Arc<EtcdStore>>,
    pub(crate) pki: Arc<Pki>,
    pub(crate) token: Live,
    /// The server's folder.
    pub(crate) data_dir: PathBuf,
    /// One at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Rotation {
    /// Makes a new token and puts it in the place of the old one; gives it in full.
    async fn rotate(&self) -> Result<String, ServerError> {
        let _turn = self.turn.lock().await;
        let fresh = Token::fresh(token::random()?);
        if let Some(etcd) = &self.etcd {
            shared_pki::seal_anew(etcd, &self.pki, &fresh).await?;
        }
        fresh.keep(&token::path(&self.data_dir), self.pki.server_ca())?;
        let full = fresh.full(self.pki.server_ca())?;
        self.token.set(fresh);
        Ok(full)
    }
}

#[async_trait]
impl Action for Rotation {
    async fn run(&self, _query: &str) -> Result<Value, ApiError> {
        self.rotate().await.map(|token| json!({"token": token})).map_err(ApiError::internal)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_new_token_is_kept_and_counts_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Arc::new(Pki::open(dir.path().join("tls"), jiff::Timestamp::now()).unwrap());
        let token = Live::new(Token::parse("old").unwrap());
        let rotation = Rotation {
            etcd: None,
            pki,
            token: token.clone(),
            data_dir: dir.path().to_owned(),
            turn: tokio::sync::Mutex::default(),
        };
        let told = rotation.run("").await.unwrap()["token"].as_str().unwrap().to_owned();
        let kept = Token::read(&token::path(dir.path())).unwrap().unwrap();
        assert_eq!(Token::parse(&told).unwrap(), kept);
        assert_eq!(token.get().secret(), kept.secret());
        assert_ne!(kept.secret(), "old");
    }
}
