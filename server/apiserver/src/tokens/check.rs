//! Whether what a genuine token says still holds: its time, its audience, and that all that it is bound to is there.
//! Source: the validators of `pkg/serviceaccount` of Kubernetes 1.36, and their words.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use memchr::memmem;
use sha2::{Digest as _, Sha256};
use skiff_api::{kinds::StorageKey, object::Object, wire::Entry};
use skiff_store::cache::Cacher;

use super::{
    claims::{Claims, Reference},
    jws::JwsError,
    usage::INVALID_SINCE,
};

/// How far the clocks of two machines may be apart, and how long an object that is going still counts.
const LEEWAY_SECONDS: i64 = 60;

/// A token is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not genuine.
    #[error("invalid bearer token, {0}")]
    Jws(#[from] JwsError),
    /// Its time is over.
    #[error("service account token has expired")]
    Expired,
    /// Its time has not come.
    #[error("service account token is not valid yet")]
    NotYet,
    /// It is for somebody else.
    #[error("token audiences {0:?} is invalid for the target audiences {1:?}")]
    Audience(Vec<String>, Vec<String>),
    /// Its account is not there.
    #[error("serviceaccounts {0:?} not found")]
    NoAccount(String),
    /// Its account is another one of the same name.
    #[error("service account UID ({0}) does not match claim ({1})")]
    OtherAccount(String, String),
    /// Its account has been deleted.
    #[error("service account {0} has been deleted")]
    AccountDeleted(String),
    /// What it is bound to is gone.
    #[error("service account token has been invalidated")]
    Invalidated,
    /// What it is bound to is another one of the same name.
    #[error("{kind} UID ({there}) does not match service account {kind} ref claim ({claimed})")]
    OtherObject {
        /// `pod`, `secret` or `node`.
        kind: &'static str,
        /// The UID of what is there.
        there: String,
        /// The UID that the token says.
        claimed: String,
    },
    /// Nobody had used it for long.
    #[error(
        "the token in secret {namespace}/{secret} for service account {namespace}/{account} has been marked invalid. \
         Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the \
         '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
    )]
    MarkedInvalid {
        /// The namespace of both.
        namespace: String,
        /// The Secret.
        secret: String,
        /// The account.
        account: String,
    },
    /// It is not the token that its Secret holds.
    #[error("token does not match server's copy")]
    NotTheCopy,
}

/// What a check needs to know of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its UID.
    pub uid: String,
    /// When it is or was to be gone, if it is going.
    pub deleted_at: Option<Timestamp>,
}

/// The objects that tokens are bound to.
pub trait Records: Send + Sync {
    /// What is known of an object of the core group.
    fn record(&self, resource: &str, namespace: &str, name: &str) -> Option<Record>;

    /// A whole object of the core group.
    fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Object>;
}

/// The objects in the watch cache.
pub struct CacheRecords(Arc<Cacher>);

impl CacheRecords {
    /// Over a cache.
    pub fn new(cacher: Arc<Cacher>) -> Self {
        Self(cacher)
    }

    fn entry(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        let kind = StorageKey { group: "core".to_owned(), resource: resource.to_owned() };
        self.0.peek(&kind, namespace, name)
    }
}

impl Records for CacheRecords {
    fn record(&self, resource: &str, namespace: &str, name: &str) -> Option<Record> {
        let entry = self.entry(resource, namespace, name)?;
        // An object is parsed only where it may be going: this is on the path of every request with a token.
        let deleted_at = match memmem::find(&entry.json, b"\"deletionTimestamp\":") {
            None => None,
            Some(_) => deletion_time(&entry.object().ok()?),
        };
        Some(Record { uid: entry.head.uid.clone(), deleted_at })
    }

    fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Object> {
        self.entry(resource, namespace, name)?.object().ok()
    }
}

/// When an object is or was to be gone, if it is going.
pub fn deletion_time(object: &Object) -> Option<Timestamp> {
    object.str_at(&["metadata", "deletionTimestamp"])?.parse().ok()
}

/// The audiences that a token and those who ask about it have in common. A token that names none is for the API
/// server.
pub fn shared_audiences(
    claims: &Claims,
    issuer: &str,
    own: &[String],
    wanted: &[String],
) -> Result<Vec<String>, Refusal> {
    let is_for_us = claims.audiences.is_empty() && (claims.is_legacy() || claims.issuer == issuer);
    let audiences = if is_for_us { own } else { &claims.audiences };
    let shared: Vec<String> = audiences.iter().filter(|audience| wanted.contains(audience)).cloned().collect();
    if shared.is_empty() {
        return Err(Refusal::Audience(audiences.to_vec(), wanted.to_vec()));
    }
    Ok(shared)
}

/// Whether a token is good at this moment. `token` is the token itself, which a Secret may hold: that Secret is given.
pub fn check(claims: &Claims, token: &str, now: Timestamp, records: &dyn Records) -> Result<Option<Object>, Refusal> {
    check_time(claims, now.as_second())?;
    let lost = |record: &Record| {
        record.deleted_at.is_some_and(|at| claims.is_legacy() || at.as_second() < now.as_second() - LEEWAY_SECONDS)
    };
    check_account(claims, records, &lost)?;
    let bound = |kind, resource, namespace, reference: &Option<Reference>| {
        let Some(reference) = reference else { return Ok(()) };
        check_bound((kind, resource, namespace), reference, records, &lost)
    };
    bound("secret", "secrets", &claims.namespace, &claims.secret)?;
    bound("pod", "pods", &claims.namespace, &claims.pod)?;
    if claims.pod.is_none() {
        bound("node", "nodes", &String::new(), &claims.node)?;
    }
    claims.is_legacy().then(|| check_copy(claims, token, records)).transpose()
}

fn check_time(claims: &Claims, now: i64) -> Result<(), Refusal> {
    if claims.expires.is_some_and(|end| now > end.saturating_add(LEEWAY_SECONDS)) {
        return Err(Refusal::Expired);
    }
    let begins = claims.not_before.into_iter().chain(claims.issued).max();
    if begins.is_some_and(|begin| now < begin.saturating_sub(LEEWAY_SECONDS)) {
        return Err(Refusal::NotYet);
    }
    Ok(())
}

fn check_account(claims: &Claims, records: &dyn Records, lost: &dyn Fn(&Record) -> bool) -> Result<(), Refusal> {
    let (namespace, account) = (&claims.namespace, &claims.account);
    let record = records.record("serviceaccounts", namespace, &account.name);
    let record = record.ok_or_else(|| Refusal::NoAccount(account.name.clone()))?;
    if lost(&record) {
        return Err(Refusal::AccountDeleted(format!("{namespace}/{}", account.name)));
    }
    if record.uid != account.uid {
        return Err(Refusal::OtherAccount(record.uid, account.uid.clone()));
    }
    Ok(())
}

/// Whether what a token ends with is still there. A token in a Secret does not say which one of the name it was.
fn check_bound(
    (kind, resource, namespace): (&'static str, &str, &str),
    claimed: &Reference,
    records: &dyn Records,
    lost: &dyn Fn(&Record) -> bool,
) -> Result<(), Refusal> {
    let record = records.record(resource, namespace, &claimed.name).ok_or(Refusal::Invalidated)?;
    if lost(&record) {
        return Err(Refusal::Invalidated);
    }
    if !claimed.uid.is_empty() && record.uid != claimed.uid {
        return Err(Refusal::OtherObject { kind, there: record.uid, claimed: claimed.uid.clone() });
    }
    Ok(())
}

/// Whether a token is the one that its Secret holds. Digests are compared, so that how long it takes tells nothing.
fn check_copy(claims: &Claims, token: &str, records: &dyn Records) -> Result<Object, Refusal> {
    let name = claims.secret.as_ref().map(|secret| secret.name.as_str()).unwrap_or_default();
    let secret = records.object("secrets", &claims.namespace, name).ok_or(Refusal::Invalidated)?;
    let held = secret.str_at(&["data", "token"]).and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    if Sha256::digest(held) != Sha256::digest(token) {
        return Err(Refusal::NotTheCopy);
    }
    match secret.at(&["metadata", "labels", INVALID_SINCE]) {
        Some(_) => Err(Refusal::MarkedInvalid {
            namespace: claims.namespace.clone(),
            secret: name.to_owned(),
            account: claims.account.name.clone(),
        }),
        None => Ok(secret),
    }
}
