//! The metadata that the server owns.

use jiff::Timestamp;
use skiff_api::{kinds::ResourceDef, object::Object, status::ApiError};
use uuid::Uuid;

/// The letters and digits of generated names: no vowels, so that no words come out, and nothing easily misread.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// How many characters are generated.
const SUFFIX_CHARS: usize = 5;

/// The longest generated name: that of a label.
const MAX_GENERATED_CHARS: usize = 63;

/// Metadata that a client cannot give to a new object.
const NOT_FOR_NEW: [&str; 5] =
    ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"];

/// Metadata that an update cannot change, and need not name.
const KEPT: [&str; 5] = ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

/// A time as Kubernetes writes it: UTC, whole seconds.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A name from the beginning of one.
pub(crate) fn generated_name(base: &str, random: Uuid) -> String {
    let front: String = base.chars().take(MAX_GENERATED_CHARS - SUFFIX_CHARS).collect();
    let suffix = random.as_bytes().iter().take(SUFFIX_CHARS);
    let letters = suffix.filter_map(|byte| ALPHABET.get(usize::from(*byte) % ALPHABET.len())).map(|b| char::from(*b));
    front.chars().chain(letters).collect()
}

/// Puts an object into the namespace of the URL; 400 where it says that it is in another.
pub(super) fn place(def: &ResourceDef, object: &mut Object, namespace: &str) -> Result<(), ApiError> {
    if !def.namespaced {
        object.remove_at(&["metadata", "namespace"]);
        return Ok(());
    }
    match object.namespace() {
        given if given == namespace => Ok(()),
        "" => {
            object.set_at(&["metadata", "namespace"], namespace);
            Ok(())
        }
        _ => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

/// Gives a new object what the server gives to every object.
pub(super) fn fill_new(object: &mut Object, now: Timestamp, uid: Uuid) {
    for field in NOT_FOR_NEW {
        object.remove_at(&["metadata", field]);
    }
    object.set_at(&["metadata", "uid"], uid.to_string());
    object.set_at(&["metadata", "creationTimestamp"], time(now));
}

/// The object of an update has the name in the URL, or none.
pub(super) fn check_name(object: &mut Object, name: &str) -> Result<(), ApiError> {
    let given = object.name();
    if given.is_empty() {
        object.set_at(&["metadata", "name"], name);
    } else if given != name {
        let message = format!("the name of the object ({given}) does not match the name on the URL ({name})");
        return Err(ApiError::bad_request(message));
    }
    Ok(())
}

/// What an update cannot change stays; what it says otherwise about its UID or creation is for validation to refuse.
pub(super) fn keep(object: &mut Object, old: &Object) {
    for field in KEPT {
        let path = ["metadata", field];
        let named = matches!(field, "uid" | "creationTimestamp") && object.str_at(&path).is_some_and(|s| !s.is_empty());
        match old.at(&path) {
            Some(value) if !named => object.set_at(&path, value.clone()),
            None => drop(object.remove_at(&path)),
            Some(_) => {}
        }
    }
    object.remove_at(&["metadata", "selfLink"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_names() {
        let random = Uuid::from_bytes([0, 26, 27, 255, 5, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
        assert_eq!(generated_name("web-", random), "web-b9bqh");
        assert_eq!(generated_name(&"x".repeat(100), random).len(), 63);
    }

    #[test]
    fn times_are_whole_seconds_of_utc() {
        let at = Timestamp::from_millisecond(1_700_000_000_999);
        assert_eq!(at.map(time).unwrap_or_default(), "2023-11-14T22:13:20Z");
    }
}
