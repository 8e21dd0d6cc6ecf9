//! The in-process transport: the same registry as over HTTPS, without encoding; entries are shared.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use skiff_api::{request::Request, status::ApiError, user::UserInfo};
use skiff_client::{List, Transport, WatchStream};

use crate::registry::{Answer, Dispatch};

/// A client inside of the server's process, authorized as its user like any other.
pub struct Local {
    dispatch: Arc<dyn Dispatch>,
    user: UserInfo,
}

impl Local {
    /// A client that asks as `user`.
    pub fn new(dispatch: Arc<dyn Dispatch>, user: UserInfo) -> Self {
        Self { dispatch, user }
    }

    async fn ask(&self, request: Request) -> Result<Answer, ApiError> {
        Ok(self.dispatch.dispatch(&self.user, request).await?.answer)
    }
}

fn unexpected(what: &str) -> ApiError {
    ApiError::internal(format!("the registry did not answer with {what}"))
}

#[async_trait]
impl Transport for Local {
    async fn call(&self, request: Request) -> Result<Bytes, ApiError> {
        match self.ask(request).await? {
            Answer::Object { entry, .. } => Ok(entry.json.clone()),
            Answer::Json { body, .. } => Ok(body),
            Answer::List { .. } | Answer::Watch(_) => Err(unexpected("one object")),
        }
    }

    async fn list(&self, request: Request) -> Result<List, ApiError> {
        match self.ask(request).await? {
            Answer::List { list, .. } => Ok(list),
            _ => Err(unexpected("a list")),
        }
    }

    async fn watch(&self, request: Request) -> Result<WatchStream, ApiError> {
        match self.ask(request).await? {
            Answer::Watch(events) => Ok(events),
            _ => Err(unexpected("a watch")),
        }
    }
}
