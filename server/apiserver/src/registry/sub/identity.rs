//! What issues and checks tokens: given to the registry by whoever holds the signing key.

use async_trait::async_trait;
use serde_json::{Value, json};
use skiff_api::{
    object::Object,
    status::{ApiError, Reason},
    user::UserInfo,
};

use super::{
    super::{Answer, admit, call::Call, forms},
    json_value,
};
use crate::{
    admission::Operation,
    front::authn::{AUTHENTICATED, with_group},
    tokens::issue,
};

/// HTTP's "not implemented".
const NOT_IMPLEMENTED: u16 = 501;

/// Whose a token is, and for whom it is.
pub type Reviewed = (UserInfo, Vec<String>);

/// Issues and checks tokens.
#[async_trait]
pub trait Identity: Send + Sync + 'static {
    /// Whose a token is, with the audiences that it shares with those asked for (none: those of the API server);
    /// `None` for a token that is of no known kind; the error says what is wrong with one that is.
    async fn review(&self, token: &str, audiences: &[String]) -> Result<Option<Reviewed>, String>;

    /// Answers a `TokenRequest` for a ServiceAccount: the request with its status.
    async fn issue(&self, account: &Object, request: &Object) -> Result<Object, ApiError>;

    /// The names by which the API server is meant.
    fn audiences(&self) -> &[String];
}

/// Issues a token for a ServiceAccount.
pub(super) async fn issue_token(call: &Call<'_>) -> Result<Answer, ApiError> {
    let Some(identity) = call.registry.identity.get() else {
        let message = "this server has no key to sign tokens with";
        return Err(ApiError { code: NOT_IMPLEMENTED, ..ApiError::new(Reason::Unknown, message) });
    };
    let mut request = forms::decode_as(call, &forms::token_request())?;
    let entry = call.fetch(call.name()).await?.ok_or_else(|| call.not_found(call.name()))?;
    let account = call.parse(&entry)?;
    // Before the audiences are filled in: a node is held to those that it names itself.
    admit::validate_uncounted(call.registry, &call.write(Operation::Create, call.name(), None), &request)?;
    issue::complete(&mut request, &account, identity.audiences(), call.now);
    let errors = issue::errors(&request);
    if !errors.is_empty() {
        return Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", "", &errors));
    }
    let issued = identity.issue(&account, &request).await?;
    Ok(json_value(201, Value::Object(issued.0)))
}

/// The status of a `TokenReview`.
pub(super) async fn review(call: &Call<'_>, review: &Object) -> Result<Value, ApiError> {
    let token = review.str_at(&["spec", "token"]).unwrap_or_default();
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = super::super::options::strings(review.at(&["spec", "audiences"]));
    let result = match call.registry.identity.get() {
        Some(identity) => identity.review(token, &audiences).await,
        None => Err("this server has no key to check tokens with".to_owned()),
    };
    Ok(match result {
        Ok(Some((user, audiences))) => {
            let user = with_group(user, AUTHENTICATED);
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        Ok(None) => json!({"user": {}}),
        Err(why) => json!({"user": {}, "error": why}),
    })
}

/// A user as `authentication.k8s.io/v1` `UserInfo`; what is empty is left out.
pub(super) fn user_info(user: &UserInfo) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}
