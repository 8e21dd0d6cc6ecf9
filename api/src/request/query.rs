//! The query of a URL, read as Kubernetes' parameter codec reads it, and printed.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{Options, path::escapes_are_whole};
use crate::{selector::FieldSelector, status::ApiError};

/// What is escaped in a query's names and values.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The pairs of a query, decoded, in order.
pub(super) fn pairs(query: &str) -> Result<Vec<(String, String)>, ApiError> {
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

fn pair(part: &str) -> Result<(String, String), ApiError> {
    let (name, value) = part.split_once('=').unwrap_or((part, ""));
    Ok((decode(name)?, decode(value)?))
}

fn decode(text: &str) -> Result<String, ApiError> {
    if !escapes_are_whole(text) {
        return Err(ApiError::bad_request(format!("invalid URL escape in {text:?}")));
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(|text| text.into_owned()).map_err(|_| ApiError::bad_request(format!("{text:?} is not UTF-8")))
}

/// The options of a query's pairs, and whether it asks for a watch. Of a name given twice the first value counts.
pub(super) fn options(pairs: Vec<(String, String)>) -> Result<(Options, bool), ApiError> {
    let mut options = Options::default();
    let mut watch: Option<bool> = None;
    let mut bookmarks: Option<bool> = None;
    for (name, value) in pairs {
        match name.as_str() {
            "watch" => first(&mut watch, flag(&value)),
            "allowWatchBookmarks" => first(&mut bookmarks, flag(&value)),
            "sendInitialEvents" => first(&mut options.send_initial_events, flag(&value)),
            "force" => first(&mut options.force, flag(&value)),
            "orphanDependents" => first(&mut options.orphan_dependents, flag(&value)),
            "labelSelector" => first(&mut options.label_selector, value),
            "fieldSelector" => first(&mut options.field_selector, value),
            "continue" => first(&mut options.continue_token, value),
            "resourceVersion" => first(&mut options.resource_version, value),
            "resourceVersionMatch" => first(&mut options.resource_version_match, value),
            "fieldManager" => first(&mut options.field_manager, value),
            "fieldValidation" => first(&mut options.field_validation, value),
            "propagationPolicy" => first(&mut options.propagation_policy, value),
            "dryRun" => options.dry_run.push(value),
            "limit" => first(&mut options.limit, count(&value)?),
            "timeoutSeconds" => first(&mut options.timeout_seconds, count(&value)?),
            "gracePeriodSeconds" => first(&mut options.grace_period_seconds, number(&value)?),
            _ => options.other.push((name, value)),
        }
    }
    options.allow_watch_bookmarks = bookmarks.unwrap_or_default();
    Ok((options, watch.unwrap_or_default()))
}

fn first<T>(slot: &mut Option<T>, value: T) {
    slot.get_or_insert(value);
}

/// A parameter that is there is true, unless it says otherwise.
fn flag(value: &str) -> bool {
    !(value.eq_ignore_ascii_case("false") || value == "0")
}

fn number(value: &str) -> Result<i64, ApiError> {
    value.parse().map_err(|error: std::num::ParseIntError| {
        let why = match error.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        ApiError::bad_request(format!("strconv.ParseInt: parsing {value:?}: {why}"))
    })
}

/// A number of which less than none means none.
fn count(value: &str) -> Result<u64, ApiError> {
    number(value).map(|number| u64::try_from(number).unwrap_or_default())
}

/// Prints options as a query; `name` is pinned by a field selector.
pub(super) fn print(options: &Options, is_watch: bool, name: Option<&str>) -> String {
    let mut out = Printer(String::new());
    if is_watch {
        out.push("watch", "true");
    }
    out.text("labelSelector", options.label_selector.as_deref());
    out.text("fieldSelector", field_selector(options, name).as_deref());
    out.display("limit", options.limit);
    out.text("continue", options.continue_token.as_deref());
    out.text("resourceVersion", options.resource_version.as_deref());
    out.text("resourceVersionMatch", options.resource_version_match.as_deref());
    out.display("timeoutSeconds", options.timeout_seconds);
    out.display("allowWatchBookmarks", options.allow_watch_bookmarks.then_some(true));
    out.display("sendInitialEvents", options.send_initial_events);
    out.text("fieldManager", options.field_manager.as_deref());
    out.text("fieldValidation", options.field_validation.as_deref());
    out.display("force", options.force);
    for value in &options.dry_run {
        out.push("dryRun", value);
    }
    out.display("gracePeriodSeconds", options.grace_period_seconds);
    out.text("propagationPolicy", options.propagation_policy.as_deref());
    out.display("orphanDependents", options.orphan_dependents);
    for (name, value) in &options.other {
        out.push(name, value);
    }
    out.0
}

fn field_selector(options: &Options, name: Option<&str>) -> Option<String> {
    let given = options.field_selector.clone();
    let Some(name) = name else { return given };
    let pin = FieldSelector::equals("metadata.name", name).to_string();
    Some(given.filter(|text| !text.is_empty()).map_or(pin.clone(), |text| format!("{text},{pin}")))
}

struct Printer(String);

impl Printer {
    fn push(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.extend(utf8_percent_encode(name, COMPONENT));
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, COMPONENT));
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.push(name, value);
        }
    }

    fn display(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.push(name, &value.to_string());
        }
    }
}
