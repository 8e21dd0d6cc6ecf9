//! What an administrator asks of the server itself rather than of its objects, on paths of the server's own.
//!
//! Only members of `system:masters` may, whatever RBAC grants: what such an action does (e.g. writes all Secrets into
//! a file) is beyond what a rule on a path says.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use http::{Method, request::Parts};
use parking_lot::RwLock;
use skiff_api::{
    status::{ApiError, Reason},
    user::UserInfo,
};

use super::{
    Front,
    negotiate::{PLAIN_OFFER, negotiate},
    respond::{Reply, json_in_form},
};

/// The group that may.
const MASTERS: &str = "system:masters";

/// One action, started by a `POST`.
#[async_trait]
pub trait Action: Send + Sync {
    /// Does it; takes the URL's query, gives what the client is told. Sets its own limits of time.
    async fn run(&self, query: &str) -> Result<serde_json::Value, ApiError>;
}

/// Actions by their paths.
#[derive(Default)]
pub struct Actions(RwLock<HashMap<String, Arc<dyn Action>>>);

impl Actions {
    /// Adds an action on a path.
    pub fn add(&self, path: &str, action: Arc<dyn Action>) {
        self.0.write().insert(path.to_owned(), action);
    }

    /// The action on a path.
    pub(super) fn get(&self, path: &str) -> Option<Arc<dyn Action>> {
        self.0.read().get(path).cloned()
    }
}

/// Runs an action.
pub(super) async fn answer(
    front: &Front,
    user: &UserInfo,
    parts: &Parts,
    path: &str,
    action: &dyn Action,
) -> Result<Reply, ApiError> {
    if !user.groups.iter().any(|group| group == MASTERS) {
        let verb = parts.method.as_str().to_ascii_lowercase();
        let message = format!("forbidden: User {:?} cannot {verb} path {path:?}: only {MASTERS} may", user.name);
        return Err(ApiError::new(Reason::Forbidden, message));
    }
    if parts.method != Method::POST {
        let message = "the server does not allow this method on the requested resource";
        return Err(ApiError::new(Reason::MethodNotAllowed, message));
    }
    let form = negotiate(&parts.headers, parts.uri.query(), PLAIN_OFFER)?;
    let _turn = front.turn(user).await?;
    let done = action.run(parts.uri.query().unwrap_or_default()).await?;
    json_in_form(200, done.to_string().into(), form)
}
