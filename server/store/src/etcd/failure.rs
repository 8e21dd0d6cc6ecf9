//! What an error of etcd means for the call that got it; pure.

use std::error::Error;

use etcd_client::Error as EtcdError;
use tonic::{Code, ConnectError, Status};

use crate::StoreError;

/// What an operator can do about it: etcd's own limit, 1.5 MiB by default.
const TOO_LARGE: &str = "it is larger than etcd takes (etcd's --max-request-bytes)";

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It was certainly not carried out; another member may do it.
    NotDone(String),
    /// It may have been carried out, or may be yet.
    Unknown(String),
    /// The revision is compacted.
    Compacted,
    /// The revision does not exist yet.
    Future,
    /// The request or its answer is larger than one message may be.
    TooMuch,
    /// Every member would answer so.
    Final(StoreError),
}

impl Failure {
    /// The error of a write, whose answer is small: if anything is too large it is what was to be written.
    pub(super) fn into_write_error(self) -> StoreError {
        match self {
            Self::TooMuch => StoreError::TooLarge(TOO_LARGE.to_owned()),
            other => other.into_error(),
        }
    }

    /// The error where nothing else is to be made of it.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::NotDone(why) => StoreError::Unavailable(why),
            Self::Unknown(why) => StoreError::Unavailable(format!("{why}; whether the request was done is not known")),
            Self::Compacted => StoreError::Unavailable("etcd has compacted what was asked for".to_owned()),
            Self::Future => StoreError::Unavailable("etcd is behind what was asked for".to_owned()),
            Self::TooMuch => StoreError::Unavailable("etcd's answer is too large".to_owned()),
            Self::Final(error) => error,
        }
    }
}

/// Whether the connection could not be made, so that nothing was sent.
fn not_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The causes of an error in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn of_status(status: &Status) -> Failure {
    let message = status.message();
    let has = |part: &str| message.contains(part);
    match status.code() {
        Code::OutOfRange if has("has been compacted") => Failure::Compacted,
        Code::OutOfRange if has("is a future revision") => Failure::Future,
        Code::OutOfRange | Code::ResourceExhausted if has("message length") || has("larger than max") => {
            Failure::TooMuch
        }
        Code::ResourceExhausted if has("database space exceeded") => Failure::Final(StoreError::NoSpace),
        Code::ResourceExhausted if has("too many requests") => Failure::NotDone(message.to_owned()),
        Code::InvalidArgument if has("request is too large") => {
            Failure::Final(StoreError::TooLarge(TOO_LARGE.to_owned()))
        }
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument | Code::FailedPrecondition => {
            Failure::Final(StoreError::Unavailable(format!("etcd refuses skiff: {message}")))
        }
        Code::DataLoss => Failure::Final(StoreError::Corrupt(message.to_owned())),
        // Asked before anything is proposed, as every call requires a leader.
        Code::Unavailable if message == "etcdserver: no leader" => Failure::NotDone("etcd has no leader".to_owned()),
        _ if not_connected(status) => Failure::NotDone(status.source().map_or_else(|| message.to_owned(), chain)),
        _ => Failure::Unknown(if message.is_empty() { chain(status) } else { message.to_owned() }),
    }
}

/// What an error means.
pub(super) fn of(error: &EtcdError) -> Failure {
    match error {
        EtcdError::GRpcStatus(status) => of_status(status),
        other => Failure::Unknown(chain(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: Code, message: &str) -> Failure {
        of(&EtcdError::GRpcStatus(Status::new(code, message)))
    }

    #[test]
    fn what_etcd_says_is_understood() {
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        assert_eq!(failure(Code::OutOfRange, compacted), Failure::Compacted);
        let future = "etcdserver: mvcc: required revision is a future revision";
        assert_eq!(failure(Code::OutOfRange, future), Failure::Future);
        let full = "etcdserver: mvcc: database space exceeded";
        assert_eq!(failure(Code::ResourceExhausted, full), Failure::Final(StoreError::NoSpace));
        let large = "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes";
        assert_eq!(failure(Code::OutOfRange, large), Failure::TooMuch);
    }

    #[test]
    fn only_what_was_surely_not_done_may_be_done_again() {
        assert!(matches!(failure(Code::Unavailable, "etcdserver: no leader"), Failure::NotDone(_)));
        for message in ["etcdserver: leader changed", "etcdserver: request timed out", "transport is closing", ""] {
            assert!(matches!(failure(Code::Unavailable, message), Failure::Unknown(_)), "{message}");
        }
        assert!(matches!(failure(Code::Unknown, "h2 protocol error"), Failure::Unknown(_)));
    }
}
