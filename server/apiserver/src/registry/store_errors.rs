//! What a client is told when the store fails.

use serde_json::json;
use skiff_api::status::{ApiError, Reason};
use skiff_store::StoreError;

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
        StoreError::NoSpace | StoreError::NewerSchema { .. } | StoreError::Corrupt(_) => ApiError::internal(error),
    }
}
