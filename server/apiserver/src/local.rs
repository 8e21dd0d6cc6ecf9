//! The in-process transport: the same registry as over HTTPS, without encoding; entries are shared.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use skiff_api::{
    request::{ContentType, Request, Verb},
    status::ApiError,
    user::UserInfo,
};
use skiff_client::{List, Transport, WatchStream};

use crate::registry::{Answer, Dispatch};

/// The answer to the deletion of a collection: that it succeeded. The list of what there was is not encoded.
const DELETED: &[u8] = br#"{"kind":"Status","apiVersion":"v1","status":"Success"}"#;

/// A client inside of the server's process, authorized as its user like any other.
pub struct Local {
    dispatch: Arc<dyn Dispatch>,
    user: UserInfo,
    program: String,
}

impl Local {
    /// A client that asks as `user`; `program` manages the fields that it writes, as the name in a `User-Agent` does.
    pub fn new(dispatch: Arc<dyn Dispatch>, user: UserInfo, program: &str) -> Self {
        Self { dispatch, user, program: program.to_owned() }
    }

    async fn ask(&self, mut request: Request) -> Result<Answer, ApiError> {
        let options = &mut request.options;
        if options.field_manager.is_none() && request.content_type != ContentType::ApplyPatch {
            options.field_manager = Some(self.program.clone());
        }
        Ok(self.dispatch.dispatch(&self.user, request).await?.answer)
    }
}

fn unexpected(what: &str) -> ApiError {
    ApiError::internal(format!("the registry did not answer with {what}"))
}

#[async_trait]
impl Transport for Local {
    async fn call(&self, request: Request) -> Result<Bytes, ApiError> {
        let is_collection = request.verb == Verb::DeleteCollection;
        match self.ask(request).await? {
            Answer::Object { entry, .. } => Ok(entry.json.clone()),
            Answer::Json { body, .. } => Ok(body),
            Answer::List { .. } if is_collection => Ok(Bytes::from_static(DELETED)),
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
