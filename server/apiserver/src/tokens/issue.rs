//! Answering a `TokenRequest`. Source: `pkg/registry/core/serviceaccount/storage/token.go` of Kubernetes 1.36.

use jiff::Timestamp;
use serde_json::{Value, json};
use skiff_api::{
    object::Object,
    status::{ApiError, FieldError},
};

use super::{
    TokensConfig, account_user_name,
    check::Records,
    claims::{Claims, Reference},
};
use crate::registry::meta;

/// The shortest life that can be asked for, in seconds.
const MIN_SECONDS: i64 = 600;

/// The longest life that can be asked for, in seconds.
const MAX_SECONDS: i64 = 1 << 32;

/// The life that the volume of every pod asks for, in seconds. Programs that never read their token again are given
/// [`EXTENDED_SECONDS`] instead, as in Kubernetes.
pub const WARN_ONLY_SECONDS: i64 = 60 * 60 + 7;

/// How long a token lives whose program may not know that tokens end, in seconds.
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;

/// What is wrong with a request.
pub fn errors(request: &Object) -> Vec<FieldError> {
    let seconds = request.int_at(&["spec", "expirationSeconds"]).unwrap_or_default();
    let path = "spec.expirationSeconds";
    if seconds < MIN_SECONDS {
        return vec![FieldError::invalid(path, seconds, "may not specify a duration less than 10 minutes")];
    }
    if seconds > MAX_SECONDS {
        return vec![FieldError::invalid(path, seconds, "may not specify a duration larger than 2^32 seconds")];
    }
    Vec::new()
}

/// What a token is to be bound to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parties {
    pod: Option<Reference>,
    node: Option<Reference>,
    secret: Option<Reference>,
}

fn reference(object: &Object) -> Reference {
    Reference { name: object.name().to_owned(), uid: object.uid().to_owned() }
}

impl Parties {
    /// Looks up the object that a request names, and holds it to its UID.
    pub fn find(account: &Object, request: &Object, records: &dyn Records) -> Result<Self, ApiError> {
        let Some(bound) = request.at(&["spec", "boundObjectRef"]).filter(|bound| bound.is_object()) else {
            return Ok(Self::default());
        };
        let text = |field: &str| bound.get(field).and_then(Value::as_str).unwrap_or_default();
        let (name, namespace) = (text("name"), account.namespace());
        let get = |resource: &str, namespace: &str| {
            records.object(resource, namespace, name).ok_or_else(|| ApiError::not_found("", resource, name))
        };
        let (found, parties) = match (text("apiVersion"), text("kind")) {
            ("v1", "Pod") => {
                let pod = get("pods", namespace)?;
                let parties = Self::of_pod(account, &pod, records)?;
                (pod, parties)
            }
            ("v1", "Node") => {
                let node = get("nodes", "")?;
                let parties = Self { node: Some(reference(&node)), ..Self::default() };
                (node, parties)
            }
            ("v1", "Secret") => {
                let secret = get("secrets", namespace)?;
                let parties = Self { secret: Some(reference(&secret)), ..Self::default() };
                (secret, parties)
            }
            (version, kind) => {
                let what = match version.split_once('/') {
                    Some((group, version)) => format!("{group}/{version}, Kind={kind}"),
                    None => format!("/{version}, Kind={kind}"),
                };
                return Err(ApiError::bad_request(format!("cannot bind token to object of type {what}")));
            }
        };
        check_uid(&found, text("kind"), text("uid"))?;
        Ok(parties)
    }

    /// The pod must run as the account; the token says where it runs.
    fn of_pod(account: &Object, pod: &Object, records: &dyn Records) -> Result<Self, ApiError> {
        let name = account.name();
        if pod.str_at(&["spec", "serviceAccountName"]) != Some(name) {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount {name:?} to pod running with different serviceaccount name."
            )));
        }
        let node = pod.str_at(&["spec", "nodeName"]).filter(|node| !node.is_empty()).map(|node| {
            let uid = records.record("nodes", "", node).map(|record| record.uid).unwrap_or_default();
            Reference { name: node.to_owned(), uid }
        });
        Ok(Self { pod: Some(reference(pod)), node, secret: None })
    }
}

fn check_uid(found: &Object, kind: &str, wanted: &str) -> Result<(), ApiError> {
    if wanted.is_empty() || wanted == found.uid() {
        return Ok(());
    }
    let why = format!(
        "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been \
         deleted and then recreated"
    );
    Err(ApiError::conflict("", kind, found.name(), &why))
}

/// The audiences that a request names.
fn audiences(request: &Object) -> Vec<String> {
    let list = request.at(&["spec", "audiences"]).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
}

/// Fills in what a request leaves to the server.
pub fn complete(request: &mut Object, account: &Object, own: &[String], now: Timestamp) {
    if audiences(request).is_empty() {
        request.set_at(&["spec", "audiences"], json!(own));
    }
    request.set_at(&["metadata", "name"], account.name());
    request.set_at(&["metadata", "namespace"], account.namespace());
    request.set_at(&["metadata", "creationTimestamp"], meta::time(now));
    request.0.shift_remove("status");
}

/// The request with its token. What is in it has been found right.
pub fn issue(config: &TokensConfig, account: &Object, request: &Object, parties: &Parties) -> Result<Object, ApiError> {
    let (now, wanted) = ((config.now)(), audiences(request));
    let seconds = request.int_at(&["spec", "expirationSeconds"]).unwrap_or(MIN_SECONDS);
    let for_us = wanted.iter().all(|audience| config.audiences.contains(audience));
    let extends = parties.pod.is_some() && seconds == WARN_ONLY_SECONDS && for_us;
    let begins = now.as_second();
    let claims = Claims {
        issuer: config.issuer.clone(),
        subject: account_user_name(account.namespace(), account.name()),
        audiences: wanted,
        expires: Some(begins + if extends { EXTENDED_SECONDS } else { seconds }),
        not_before: Some(begins),
        issued: Some(begins),
        id: (config.random)().to_string(),
        namespace: account.namespace().to_owned(),
        account: reference(account),
        pod: parties.pod.clone(),
        node: parties.node.clone(),
        secret: parties.secret.clone(),
        warn_after: extends.then_some(begins + seconds),
    };
    let token = config.key.sign(&claims.to_json()).map_err(ApiError::internal)?;
    let ends = Timestamp::from_second(begins + seconds).map_err(ApiError::internal)?;
    let mut issued = request.clone();
    issued.set_at(&["status"], json!({"token": token, "expirationTimestamp": meta::time(ends)}));
    Ok(issued)
}
