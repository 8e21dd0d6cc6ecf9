//! Errors as Kubernetes words them: a `Status` with code, reason, message and causes.

use serde_json::{Value, json};

/// The machine-readable reason of a failure, `metav1.StatusReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of metav1.StatusReason")]
pub enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    InternalError,
    ServiceUnavailable,
    Timeout,
    ServerTimeout,
    Unknown,
}

impl Reason {
    /// All reasons with the word on the wire and the HTTP code that goes with each.
    const ALL: [(Self, &'static str, u16); 19] = [
        (Self::BadRequest, "BadRequest", 400),
        (Self::Unauthorized, "Unauthorized", 401),
        (Self::Forbidden, "Forbidden", 403),
        (Self::NotFound, "NotFound", 404),
        (Self::MethodNotAllowed, "MethodNotAllowed", 405),
        (Self::NotAcceptable, "NotAcceptable", 406),
        (Self::AlreadyExists, "AlreadyExists", 409),
        (Self::Conflict, "Conflict", 409),
        (Self::Gone, "Gone", 410),
        (Self::Expired, "Expired", 410),
        (Self::RequestEntityTooLarge, "RequestEntityTooLarge", 413),
        (Self::UnsupportedMediaType, "UnsupportedMediaType", 415),
        (Self::Invalid, "Invalid", 422),
        (Self::TooManyRequests, "TooManyRequests", 429),
        (Self::InternalError, "InternalError", 500),
        (Self::ServiceUnavailable, "ServiceUnavailable", 503),
        (Self::Timeout, "Timeout", 504),
        (Self::ServerTimeout, "ServerTimeout", 500),
        (Self::Unknown, "", 500),
    ];

    /// The word on the wire; empty for [`Reason::Unknown`].
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(r, ..)| *r == self).map_or("", |(_, word, _)| word)
    }

    /// The HTTP code that Kubernetes answers with for this reason.
    pub fn code(self) -> u16 {
        Self::ALL.iter().find(|(r, ..)| *r == self).map_or(500, |(.., code)| *code)
    }

    /// The reason of a word on the wire.
    pub fn parse(word: &str) -> Self {
        Self::ALL.iter().find(|(_, w, _)| *w == word).map_or(Self::Unknown, |(r, ..)| *r)
    }
}

/// What is wrong with a field, `field.ErrorType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of field.ErrorType")]
pub enum FieldErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TypeInvalid,
    InternalError,
}

/// One thing wrong with one field of an object (`field.Error`), worded as Kubernetes does.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// The field's path as Kubernetes prints it, e.g. `spec.containers[0].name`.
    pub path: String,
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// The offending value, printed in the message for the kinds that print it.
    pub value: Value,
    /// What would be right.
    pub detail: String,
}

impl FieldError {
    /// A value that is not allowed; prints the value.
    pub fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), kind: FieldErrorKind::Invalid, value: value.into(), detail: detail.into() }
    }

    /// A missing value.
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), kind: FieldErrorKind::Required, value: Value::Null, detail: detail.into() }
    }

    /// A change or a value that is not permitted; does not print the value.
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), kind: FieldErrorKind::Forbidden, value: Value::Null, detail: detail.into() }
    }

    /// The same key or value twice.
    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { path: path.into(), kind: FieldErrorKind::Duplicate, value: value.into(), detail: String::new() }
    }

    /// A value outside of an enumeration.
    pub fn not_supported(path: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let mut words: Vec<String> = supported.iter().map(|word| format!("\"{word}\"")).collect();
        words.sort();
        let detail = format!("supported values: {}", words.join(", "));
        Self { path: path.into(), kind: FieldErrorKind::NotSupported, value: value.into(), detail }
    }

    /// The reason word of the cause.
    pub fn reason(&self) -> &'static str {
        match self.kind {
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::NotSupported => "FieldValueNotSupported",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::TooLong => "FieldValueTooLong",
            FieldErrorKind::TooMany => "FieldValueTooMany",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
            FieldErrorKind::InternalError => "InternalError",
        }
    }

    /// The message without the path, as it stands in a cause.
    pub fn body(&self) -> String {
        let title = match self.kind {
            FieldErrorKind::NotFound => "Not found",
            FieldErrorKind::Required => "Required value",
            FieldErrorKind::Duplicate => "Duplicate value",
            FieldErrorKind::Invalid | FieldErrorKind::TypeInvalid => "Invalid value",
            FieldErrorKind::NotSupported => "Unsupported value",
            FieldErrorKind::Forbidden => "Forbidden",
            FieldErrorKind::TooLong => "Too long",
            FieldErrorKind::TooMany => "Too many",
            FieldErrorKind::InternalError => "Internal error",
        };
        let prints_value = !matches!(
            self.kind,
            FieldErrorKind::Required
                | FieldErrorKind::Forbidden
                | FieldErrorKind::TooLong
                | FieldErrorKind::InternalError
        );
        let mut text = title.to_owned();
        if prints_value {
            text = format!("{text}: {}", self.value);
        }
        if !self.detail.is_empty() {
            text = format!("{text}: {}", self.detail);
        }
        text
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// A request that failed: all that a client is told of it. Becomes a `metav1.Status`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP code, in most cases that of the reason.
    pub code: u16,
    /// The machine-readable reason.
    pub reason: Reason,
    /// The sentence for people.
    pub message: String,
    /// `details` (name, group, kind, uid, causes, retryAfterSeconds), or null.
    pub details: Value,
    /// `metadata.continue`: where a list may go on whose token has expired; `None` with every other failure.
    pub continue_token: Option<String>,
}

/// `resource` or `resource.group`, as messages name a resource.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

/// What an error is about; what is empty is not told, as in Kubernetes.
fn details(name: &str, group: &str, kind: &str) -> Value {
    json!({"name": name, "group": group, "kind": kind})
}

impl ApiError {
    /// An error of a reason, with the reason's own HTTP code and no details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { code: reason.code(), reason, message: message.into(), details: Value::Null, continue_token: None }
    }

    /// 400: the request itself cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 500: the fault is the server's.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    /// 404 for one object.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, resource));
        let details = details(name, group, resource);
        Self { details, ..Self::new(Reason::NotFound, message) }
    }

    /// 404 for a path that the server does not serve.
    pub fn no_such_path() -> Self {
        Self::new(Reason::NotFound, "the server could not find the requested resource")
    }

    /// 409: an object of that name is there.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, resource));
        let details = details(name, group, resource);
        Self { details, ..Self::new(Reason::AlreadyExists, message) }
    }

    /// 409: the object is not as the client believed it to be.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(group, resource));
        let details = details(name, group, resource);
        Self { details, ..Self::new(Reason::Conflict, message) }
    }

    /// 403 for a request on an object.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let name_part = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        let message = format!("{}{name_part} is forbidden: {why}", qualified(group, resource));
        let details = details(name, group, resource);
        Self { details, ..Self::new(Reason::Forbidden, message) }
    }

    /// 422 with every cause.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let list = match errors {
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let message = format!("{} {name:?} is invalid: {list}", qualified(group, kind));
        let causes: Vec<Value> =
            errors.iter().map(|e| json!({"reason": e.reason(), "message": e.body(), "field": e.path})).collect();
        let mut details = details(name, group, kind);
        details["causes"] = causes.into();
        Self { details, ..Self::new(Reason::Invalid, message) }
    }

    /// 410: the revision asked for is no longer kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// Whether there is no such object.
    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    /// Whether the object was changed since it was read.
    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    /// Whether an object of the name is there already.
    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }

    /// The error as a `v1` `Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message,
        });
        if self.reason != Reason::Unknown {
            status["reason"] = self.reason.as_str().into();
        }
        if let Some(token) = &self.continue_token {
            status["metadata"]["continue"] = token.as_str().into();
        }
        if let Value::Object(details) = &self.details {
            let told = details.iter().filter(|(_, value)| **value != json!("") && **value != json!(0));
            status["details"] = Value::Object(told.map(|(name, value)| (name.clone(), value.clone())).collect());
        }
        status["code"] = self.code.into();
        status
    }

    /// Reads back what [`Self::to_status`] wrote; what is no `Status` becomes an error of the HTTP code.
    pub fn from_status(code: u16, body: &[u8]) -> Self {
        let Ok(status) = serde_json::from_slice::<Value>(body) else {
            let message = format!("the server answered {code}");
            return Self { code, ..Self::new(Reason::Unknown, message) };
        };
        let text = |name: &str| status.get(name).and_then(Value::as_str).unwrap_or_default();
        Self {
            code,
            reason: Reason::parse(text("reason")),
            message: text("message").to_owned(),
            details: status.get("details").cloned().unwrap_or_default(),
            continue_token: status.pointer("/metadata/continue").and_then(Value::as_str).map(str::to_owned),
        }
    }
}
