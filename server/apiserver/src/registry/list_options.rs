//! The rules of `resourceVersion`, `resourceVersionMatch`, `continue` and `sendInitialEvents`.
//!
//! Source: the API concepts documentation ("Resource versions", "Streaming lists") and KEP-3157.

use skiff_api::{
    request::Options,
    status::{ApiError, FieldError},
};

use super::options::META_GROUP;

/// At which revision a list is to be consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// The newest one.
    Newest,
    /// Any that is not older.
    NotOlderThan(u64),
    /// This one.
    Exact(u64),
}

/// The path of the errors here.
const MATCH: &str = "resourceVersionMatch";

fn given(option: Option<&String>) -> &str {
    option.map(String::as_str).unwrap_or_default()
}

/// Refuses options with what is wrong with them.
fn refuse_if(errors: Vec<FieldError>) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(META_GROUP, "ListOptions", "", &errors)) }
}

/// A `resourceVersion` as a number; unset is `None`.
pub(super) fn revision(text: &str) -> Result<Option<u64>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let why = |_| {
        let reason = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        let error = FieldError::invalid("resourceVersion", text, reason);
        ApiError::bad_request(format!("invalid resource version: {error}"))
    };
    text.parse().map(Some).map_err(why)
}

/// What is wrong with `resourceVersionMatch` of a list.
fn match_errors(options: &Options) -> Vec<FieldError> {
    let word = given(options.resource_version_match.as_ref());
    let mut errors = Vec::new();
    if options.send_initial_events.is_some() {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if word.is_empty() {
        return errors;
    }
    let version = given(options.resource_version.as_ref());
    if version.is_empty() {
        let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        errors.push(FieldError::forbidden(MATCH, why));
    }
    if options.continue_token.as_deref().is_some_and(|token| !token.is_empty()) {
        errors.push(FieldError::forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided"));
    }
    if !["Exact", "NotOlderThan"].contains(&word) {
        errors.push(FieldError::not_supported(MATCH, word, &["Exact", "NotOlderThan", ""]));
    }
    if word == "Exact" && version == "0" {
        errors.push(FieldError::forbidden(
            MATCH,
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ));
    }
    errors
}

/// At which revision a list without a `continue` token is to be consistent.
pub(super) fn list_at(options: &Options) -> Result<At, ApiError> {
    refuse_if(match_errors(options))?;
    let version = revision(given(options.resource_version.as_ref()))?;
    let pages = options.limit.is_some_and(|limit| limit > 0);
    Ok(match (version, given(options.resource_version_match.as_ref())) {
        (None | Some(0), _) => At::Newest,
        (Some(version), "Exact") => At::Exact(version),
        (Some(version), "") if pages => At::Exact(version),
        (Some(version), _) => At::NotOlderThan(version),
    })
}

/// Where a watch starts: after a revision, or (`None`) with the objects that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WatchFrom {
    pub(super) after: Option<u64>,
    /// Not older than this.
    pub(super) at_least: u64,
    /// Whether a bookmark ends the initial objects.
    pub(super) mark_initial_end: bool,
    /// Start at the newest revision, without the objects that are there.
    pub(super) newest: bool,
}

/// Where a watch starts.
pub(super) fn watch_from(options: &Options) -> Result<WatchFrom, ApiError> {
    refuse_if(watch_errors(options))?;
    let version = revision(given(options.resource_version.as_ref()))?;
    let none = WatchFrom { after: None, at_least: 0, mark_initial_end: false, newest: false };
    Ok(match (options.send_initial_events, version) {
        (Some(true), version) => {
            WatchFrom { at_least: version.unwrap_or_default(), mark_initial_end: options.allow_watch_bookmarks, ..none }
        }
        (Some(false), None | Some(0)) => WatchFrom { newest: true, ..none },
        (None, None | Some(0)) => none,
        (Some(false) | None, Some(version)) => WatchFrom { after: Some(version), ..none },
    })
}

/// What is wrong with the options of a watch.
fn watch_errors(options: &Options) -> Vec<FieldError> {
    let word = given(options.resource_version_match.as_ref());
    let mut errors = Vec::new();
    if options.send_initial_events.is_some() && word != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(MATCH, why));
    }
    if word.is_empty() {
        return errors;
    }
    if options.send_initial_events.is_none() {
        let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        errors.push(FieldError::forbidden(MATCH, why));
    }
    if word != "NotOlderThan" {
        errors.push(FieldError::not_supported(MATCH, word, &["NotOlderThan"]));
    }
    if options.continue_token.as_deref().is_some_and(|token| !token.is_empty()) {
        errors.push(FieldError::forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(version: &str, word: &str, limit: u64) -> Result<At, String> {
        let options = Options {
            resource_version: Some(version.to_owned()),
            resource_version_match: Some(word.to_owned()),
            limit: Some(limit),
            ..Options::default()
        };
        list_at(&options).map_err(|error| error.message)
    }

    #[test]
    fn at_which_revision_a_list_is() {
        let invalid = |why: &str| Err(format!("ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: {why}"));
        let cases = [
            (("", "", 0), Ok(At::Newest)),
            (("0", "", 5), Ok(At::Newest)),
            (("7", "", 0), Ok(At::NotOlderThan(7))),
            (("7", "", 5), Ok(At::Exact(7))),
            (("7", "NotOlderThan", 5), Ok(At::NotOlderThan(7))),
            (("7", "Exact", 0), Ok(At::Exact(7))),
            (
                ("", "Exact", 0),
                invalid("Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"),
            ),
            (
                ("0", "Exact", 0),
                invalid("Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""),
            ),
            (
                ("x", "", 0),
                Err("invalid resource version: resourceVersion: Invalid value: \"x\": strconv.ParseUint: \
                parsing \"x\": invalid syntax"
                    .to_owned()),
            ),
        ];
        for ((version, word, limit), expected) in cases {
            assert_eq!(list(version, word, limit), expected, "{version:?} {word:?} {limit}");
        }
    }
}
