//! Times as Kubernetes prints them.

use jiff::Timestamp;
use serde_json::Value;

/// The layout that Go's error quotes.
const SECONDS_LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
/// The same for times with microseconds.
const MICROS_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// An RFC 3339 time in UTC with whole seconds, or with microseconds.
pub(super) fn canonical(text: &str, has_micros: bool) -> Result<Value, String> {
    let layout = if has_micros { MICROS_LAYOUT } else { SECONDS_LAYOUT };
    let strict = is_rfc3339(text).then(|| text.parse::<Timestamp>().ok()).flatten();
    let time = strict.ok_or_else(|| {
        let quoted = Value::from(text);
        format!("parsing time {quoted} as {layout:?}: cannot parse {quoted} as \"2006\"")
    })?;
    let format = if has_micros { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(time.strftime(format).to_string().into())
}

/// Whether the text has the form of RFC 3339; the parser would also take others.
fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let front = b"dddd-dd-ddTdd:dd:dd";
    bytes.len() > front.len()
        && front.iter().zip(bytes).all(|(want, got)| match want {
            b'd' => got.is_ascii_digit(),
            other => other == got,
        })
        && (text.ends_with('Z') || matches!(bytes[bytes.len().saturating_sub(6)], b'+' | b'-'))
}
