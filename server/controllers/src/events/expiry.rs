//! The line of objects that expire, in the order in which they do. No I/O.
//!
//! All objects live equally long after their last write, so that the order of writes is the order of ends and a line
//! is enough: a write costs a step, whatever there is. Places of objects that were written again or are gone stay in
//! the line until it is twice as long as it need be, and are then taken out at once.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

/// The line may have this many places too many before it is tidied up.
const SLACK: usize = 64;

/// An object in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// The revision of the write.
    pub revision: u64,
}

impl Due {
    fn key(&self) -> Box<str> {
        key(&self.namespace, &self.name)
    }
}

fn key(namespace: &str, name: &str) -> Box<str> {
    format!("{namespace}/{name}").into()
}

/// The line.
#[derive(Debug, Default)]
pub struct Expiry {
    line: VecDeque<(Instant, Due)>,
    /// The newest revision of every object.
    newest: HashMap<Box<str>, u64>,
}

impl Expiry {
    /// An object was written. Deadlines do not go back from one write to the next.
    pub fn written(&mut self, due: Due, deadline: Instant) {
        self.newest.insert(due.key(), due.revision);
        self.line.push_back((deadline, due));
        if self.line.len() > 2 * self.newest.len() + SLACK {
            let newest = &self.newest;
            self.line.retain(|(_, due)| newest.get(&due.key()) == Some(&due.revision));
        }
    }

    /// An object is gone.
    pub fn gone(&mut self, namespace: &str, name: &str) {
        self.newest.remove(&key(namespace, name));
    }

    /// These are all objects there are. What has a place for its version already keeps it.
    pub fn replace(&mut self, all: Vec<(Due, Instant)>) {
        let known: HashMap<(Box<str>, u64), Instant> =
            self.line.drain(..).map(|(deadline, due)| ((due.key(), due.revision), deadline)).collect();
        let place =
            |(due, deadline): (Due, Instant)| (known.get(&(due.key(), due.revision)).copied().unwrap_or(deadline), due);
        let mut line: Vec<(Instant, Due)> = all.into_iter().map(place).collect();
        line.sort_by_key(|(deadline, _)| *deadline);
        self.newest = line.iter().map(|(_, due)| (due.key(), due.revision)).collect();
        self.line = line.into();
    }

    /// When the head of the line is due.
    pub fn next(&self) -> Option<Instant> {
        self.line.front().map(|(deadline, _)| *deadline)
    }

    /// Takes out what is due, up to a number of places.
    pub fn take_due(&mut self, now: Instant, most: usize) -> Vec<Due> {
        let mut due = Vec::new();
        for _ in 0..most {
            let Some((_, one)) = self.line.pop_front_if(|(deadline, _)| *deadline <= now) else { break };
            if self.newest.get(&one.key()) == Some(&one.revision) {
                self.newest.remove(&one.key());
                due.push(one);
            }
        }
        due
    }

    /// One that was taken out could not be deleted: it is due again later, ahead of the line.
    pub fn put_back(&mut self, due: Due, deadline: Instant) {
        self.newest.entry(due.key()).or_insert(due.revision);
        self.line.push_front((deadline, due));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn due(name: &str, revision: u64) -> Due {
        Due { namespace: "x".into(), name: name.into(), revision }
    }

    #[tokio::test(start_paused = true)]
    async fn each_ends_by_its_last_write() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut expiry = Expiry::default();
        expiry.written(due("a", 1), at(10));
        expiry.written(due("b", 2), at(11));
        expiry.written(due("a", 3), at(12));
        expiry.written(due("c", 4), at(13));
        expiry.gone("x", "c");
        assert_eq!(expiry.take_due(at(9), 9), []);
        assert_eq!(expiry.take_due(at(11), 9), [due("b", 2)]);
        assert_eq!(expiry.take_due(at(20), 9), [due("a", 3)]);
        assert_eq!(expiry.next(), None);
        assert!(expiry.newest.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_list_keeps_known_deadlines() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut expiry = Expiry::default();
        expiry.written(due("a", 1), at(10));
        expiry.written(due("gone", 2), at(10));
        expiry.replace(vec![(due("new", 3), at(5)), (due("a", 1), at(3))]);
        assert_eq!(expiry.take_due(at(9), 9), [due("new", 3)]);
        assert_eq!(expiry.take_due(at(10), 9), [due("a", 1)]);
    }

    /// One object that is written 100,000 times takes no more room than one that was written once.
    #[tokio::test(start_paused = true)]
    async fn the_line_does_not_grow_with_writes_of_the_same() {
        let start = Instant::now();
        let mut expiry = Expiry::default();
        for revision in 0..100_000 {
            expiry.written(due("a", revision), start);
            assert!(expiry.line.len() <= 2 + SLACK);
        }
        assert_eq!(expiry.take_due(start, usize::MAX), [due("a", 99_999)]);
    }
}
