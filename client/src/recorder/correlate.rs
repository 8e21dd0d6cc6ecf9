//! Which of the things said become events: the same again is counted, the similar combined, the excess dropped.
//! No I/O; time comes with what is said.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

use super::EventType;

/// How many events of one object may be written at once.
pub const SPAM_BURST: u32 = 25;

/// After how long an object may have one more.
pub const SPAM_REFILL: Duration = Duration::from_secs(300);

/// How many events that differ only in their message are written before they are combined.
const SIMILAR_MAX: u32 = 10;

/// Within which time they must fall.
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);

/// How many objects and events are remembered, each.
const MAX_REMEMBERED: usize = 4096;

/// What stands before the message of combined events.
const COMBINED: &str = "(combined from similar events): ";

/// Something that a component says of an object.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) about: ObjectReference,
    pub(super) kind: EventType,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) at: Timestamp,
}

/// What becomes of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Drop,
    Create { name: String, message: String },
    Count { name: String, count: i32, first_at: Timestamp, message: String },
}

/// A keyed hash of what is remembered: it takes the place of texts that are larger than all that is known of them. Two
/// that fall together (one in 10^12 of all that can be remembered at once) are counted as one.
type Mark = u64;

/// A map that forgets its oldest entries.
struct Memory<V> {
    values: HashMap<Mark, V>,
    order: VecDeque<Mark>,
}

impl<V> Default for Memory<V> {
    fn default() -> Self {
        Self { values: HashMap::new(), order: VecDeque::new() }
    }
}

impl<V> Memory<V> {
    fn entry(&mut self, mark: Mark, fresh: impl FnOnce() -> V) -> &mut V {
        if !self.values.contains_key(&mark) {
            if self.order.len() >= MAX_REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.values.remove(&oldest);
            }
            self.order.push_back(mark);
        }
        self.values.entry(mark).or_insert_with(fresh)
    }
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

struct Similar {
    /// Different messages so far, bounded by [`SIMILAR_MAX`].
    messages: Vec<Mark>,
    last_at: Timestamp,
}

struct Written {
    name: String,
    count: i32,
    first_at: Timestamp,
}

#[derive(Default)]
pub(super) struct Correlator {
    hasher: RandomState,
    /// By the object.
    buckets: Memory<Bucket>,
    /// By the object, type and reason.
    similar: Memory<Similar>,
    /// By these and the message.
    written: Memory<Written>,
    counter: u64,
}

impl Correlator {
    pub(super) fn judge(&mut self, said: &Said) -> Outcome {
        let ObjectReference { uid, namespace, name, kind, field_path, .. } = &said.about;
        let about = self.hasher.hash_one((uid, namespace, name, kind));
        let similar = self.hasher.hash_one((about, field_path, said.kind, &said.reason));
        let (identity, message) = self.combine(similar, said);
        if !self.may_speak(about, said.at) {
            return Outcome::Drop;
        }
        self.counter += 1;
        let name = event_name(said, self.counter);
        let fresh = || Written { name: name.clone(), count: 0, first_at: said.at };
        let written = self.written.entry(identity, fresh);
        written.count = written.count.saturating_add(1);
        if written.count == 1 {
            return Outcome::Create { name, message };
        }
        Outcome::Count { name: written.name.clone(), count: written.count, first_at: written.first_at, message }
    }

    /// What makes this event the same as another, and its message.
    fn combine(&mut self, key: Mark, said: &Said) -> (Mark, String) {
        let similar = self.similar.entry(key, || Similar { messages: Vec::new(), last_at: said.at });
        if elapsed(similar.last_at, said.at) > SIMILAR_WITHIN {
            similar.messages.clear();
        }
        similar.last_at = said.at;
        let message = self.hasher.hash_one((key, &said.message));
        let known = similar.messages.contains(&message);
        if !known && similar.messages.len() >= SIMILAR_MAX as usize {
            return (self.hasher.hash_one((key, COMBINED)), format!("{COMBINED}{}", said.message));
        }
        if !known {
            similar.messages.push(message);
        }
        (message, said.message.clone())
    }

    fn may_speak(&mut self, about: Mark, at: Timestamp) -> bool {
        let bucket = self.buckets.entry(about, || Bucket { tokens: f64::from(SPAM_BURST), at });
        let refilled = elapsed(bucket.at, at).as_secs_f64() / SPAM_REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + refilled).min(f64::from(SPAM_BURST));
        bucket.at = at;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// `NAME.HEX`, as client-go names events: by the time in nanoseconds, made different by a counter.
fn event_name(said: &Said, counter: u64) -> String {
    let nanos = said.at.as_nanosecond().unsigned_abs().wrapping_add(u128::from(counter));
    format!("{}.{nanos:x}", said.about.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &str, second: i64) -> Said {
        Said {
            about: ObjectReference { name: Some("web".to_owned()), ..ObjectReference::default() },
            kind: EventType::Normal,
            reason: "Pulled".to_owned(),
            message: message.to_owned(),
            at: Timestamp::from_second(second).unwrap_or_default(),
        }
    }

    fn judged(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Drop => "dropped".to_owned(),
            Outcome::Create { message, .. } => format!("new {message}"),
            Outcome::Count { count, message, .. } => format!("{count} x {message}"),
        }
    }

    #[test]
    fn the_same_is_counted() {
        let mut correlator = Correlator::default();
        let all: Vec<String> = ["a", "a", "b", "a"].iter().map(|m| judged(&correlator.judge(&said(m, 5)))).collect();
        assert_eq!(all, ["new a", "2 x a", "new b", "3 x a"]);
    }

    #[test]
    fn the_similar_is_combined() {
        let mut correlator = Correlator::default();
        let all: Vec<String> = (0..13).map(|n| judged(&correlator.judge(&said(&format!("m{n}"), n)))).collect();
        assert_eq!(all[9], "new m9");
        assert_eq!(all[10], "new (combined from similar events): m10");
        assert_eq!(all[12], "3 x (combined from similar events): m12");
    }

    #[test]
    fn an_object_of_which_too_much_is_said_is_limited() {
        let mut correlator = Correlator::default();
        let spoken = (0..100).filter(|_| correlator.judge(&said("a", 5)) != Outcome::Drop).count();
        assert_eq!(spoken, SPAM_BURST as usize);
        assert_eq!(correlator.judge(&said("a", 100)), Outcome::Drop);
        assert_ne!(correlator.judge(&said("a", 400)), Outcome::Drop);
    }
}
