//! What a client is told when the store fails.

use serde_json::json;
use skiff_api::status::{ApiError, Reason};
use skiff_store::StoreError;

/// The HTTP code of a full disk (RFC 4918); Kubernetes has no reason of its own for it.
const INSUFFICIENT_STORAGE: u16 = 507;

/// A revision that is yet to come: 504 with the cause by which clients know it.
pub(super) fn too_large(asked: u64, newest: u64) -> ApiError {
    let message = format!("Too large resource version: {asked}, current: {newest}");
    let causes = json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
    let details = json!({"causes": causes, "retryAfterSeconds": 1});
    ApiError { details, ..ApiError::new(Reason::Timeout, format!("Timeout: {message}")) }
}

/// The error of a store as a client is told it.
pub(super) fn to_api(error: &StoreError) -> ApiError {
    match error {
        StoreError::Compacted { asked, oldest } => {
            ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
        }
        StoreError::Future { asked, newest } => too_large(*asked, *newest),
        StoreError::Unavailable(_) => {
            let details = json!({"retryAfterSeconds": 1});
            ApiError { details, ..ApiError::new(Reason::ServiceUnavailable, error.to_string()) }
        }
        StoreError::TooLarge(why) => {
            ApiError::new(Reason::RequestEntityTooLarge, format!("Request entity too large: {why}"))
        }
        StoreError::NoSpace => ApiError { code: INSUFFICIENT_STORAGE, ..ApiError::internal(error) },
        StoreError::ReadOnly(_) | StoreError::NewerSchema { .. } | StoreError::Corrupt(_) => ApiError::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: &StoreError, code: u16, reason: Reason, says: &str) {
        let told = to_api(error);
        assert_eq!((told.code, told.reason), (code, reason));
        assert!(told.message.contains(says), "{}", told.message);
        assert_eq!(told.to_status()["code"], code);
    }

    #[test]
    fn a_disk_that_takes_no_writes_is_told_clearly() {
        check(&StoreError::NoSpace, 507, Reason::InternalError, "no space left for the datastore");
        let read_only = StoreError::ReadOnly("/data/state.db".to_owned());
        check(&read_only, 500, Reason::InternalError, "/data/state.db is read-only");
        let unavailable = StoreError::Unavailable("disk I/O error".to_owned());
        check(&unavailable, 503, Reason::ServiceUnavailable, "disk I/O error");
    }

    #[test]
    fn what_the_datastore_does_not_take_is_the_clients_to_make_smaller() {
        let error = StoreError::TooLarge("it is larger than etcd takes".to_owned());
        check(&error, 413, Reason::RequestEntityTooLarge, "Request entity too large: it is larger than etcd takes");
    }

    #[test]
    fn revisions_that_are_gone_or_to_come_have_the_codes_that_clients_know() {
        check(&StoreError::Compacted { asked: 1, oldest: 7 }, 410, Reason::Expired, "too old resource version: 1 (7)");
        check(&StoreError::Future { asked: 9, newest: 7 }, 504, Reason::Timeout, "Too large resource version: 9");
    }
}
