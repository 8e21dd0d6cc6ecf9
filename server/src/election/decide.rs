//! Who leads, decided from what a Lease says; pure.
//!
//! As `client-go`'s leader election does it: a Lease that another holds is left alone until it has not changed for
//! as long as it holds, by this process's own clock, so that clocks need not agree. Who cannot renew in time stops
//! leading before the others may begin.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The times of an election.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// How long a Lease holds without being renewed.
    pub(crate) lease: Duration,
    /// After how long without a renewal the leader stops.
    pub(crate) renew_deadline: Duration,
    /// How long between two tries.
    pub(crate) retry: Duration,
}

impl Default for Timing {
    /// Kubernetes' own.
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew_deadline: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Who holds it; empty for nobody.
    pub(crate) holder: String,
    /// For how long.
    pub(crate) lease: Duration,
    /// Since when.
    pub(crate) acquired: Option<Timestamp>,
    /// When it was renewed.
    pub(crate) renewed: Option<Timestamp>,
    /// How often it has changed hands.
    pub(crate) transitions: i32,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Write this into the Lease, if it still is as it was read.
    Write(Record),
    /// Leave it alone.
    Wait,
}

/// One candidate.
#[derive(Debug)]
pub(crate) struct Candidate {
    identity: String,
    timing: Timing,
    /// What was read last, and when it was first seen so.
    seen: Option<(Record, Instant)>,
    /// When the last renewal that succeeded was begun.
    renewed: Option<Instant>,
}

impl Candidate {
    /// A candidate under a name that no other process has.
    pub(crate) fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, seen: None, renewed: None }
    }

    /// What to do about a Lease, or about there being none.
    pub(crate) fn decide(&mut self, found: Option<&Record>, now: Instant, wall: Timestamp) -> Step {
        let Some(found) = found else { return Step::Write(self.record(wall, wall, 0)) };
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != found) {
            self.seen = Some((found.clone(), now));
        }
        if found.holder == self.identity {
            let acquired = found.acquired.unwrap_or(wall);
            return Step::Write(self.record(acquired, wall, found.transitions));
        }
        self.renewed = None;
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        let expired = now.saturating_duration_since(since) >= found.lease;
        if !found.holder.is_empty() && !expired {
            return Step::Wait;
        }
        Step::Write(self.record(wall, wall, found.transitions.saturating_add(1)))
    }

    fn record(&self, acquired: Timestamp, renewed: Timestamp, transitions: i32) -> Record {
        Record {
            holder: self.identity.clone(),
            lease: self.timing.lease,
            acquired: Some(acquired),
            renewed: Some(renewed),
            transitions,
        }
    }

    /// What was decided at this time has been written.
    pub(crate) fn written(&mut self, decided: Instant) {
        self.renewed = Some(decided);
    }

    /// Whether this candidate leads.
    pub(crate) fn leads(&self, now: Instant) -> bool {
        self.renewed.is_some_and(|at| now.saturating_duration_since(at) < self.timing.renew_deadline)
    }

    /// What to write so that another may lead at once; `None` where this one does not.
    pub(crate) fn release(&mut self, found: &Record, wall: Timestamp) -> Option<Record> {
        self.renewed = None;
        let mine = found.holder == self.identity;
        // As client-go: nobody holds it, and for a moment only.
        let lease = Duration::from_secs(1);
        mine.then(|| Record { holder: String::new(), lease, renewed: Some(wall), ..found.clone() })
    }
}

#[cfg(test)]
#[allow(clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const WALL: Timestamp = Timestamp::UNIX_EPOCH;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn candidate(name: &str) -> Candidate {
        Candidate::new(name.to_owned(), Timing::default())
    }

    /// Lets a candidate act on a Lease.
    fn act(candidate: &mut Candidate, lease: &mut Option<Record>, now: Instant, wall: Timestamp) {
        if let Step::Write(record) = candidate.decide(lease.as_ref(), now, wall) {
            *lease = Some(record);
            candidate.written(now);
        }
    }

    #[test]
    fn the_first_leads_and_the_second_waits() {
        let (mut a, mut b, mut lease, start) = (candidate("a"), candidate("b"), None, Instant::now());
        act(&mut a, &mut lease, start, WALL);
        for second in 0..60 {
            let (now, wall) = (start + seconds(second), WALL + seconds(second));
            if second % 2 == 0 {
                act(&mut a, &mut lease, now, wall);
            }
            act(&mut b, &mut lease, now, wall);
            assert!(a.leads(now) && !b.leads(now), "at {second}");
        }
        let record = lease.unwrap_or_default();
        assert_eq!((record.holder.as_str(), record.transitions, record.acquired), ("a", 0, Some(WALL)));
    }

    #[test]
    fn a_dead_leader_is_followed_after_its_lease_and_never_led_with() {
        let (mut a, mut b, mut lease, start) = (candidate("a"), candidate("b"), None, Instant::now());
        act(&mut a, &mut lease, start, WALL);
        let mut taken = None;
        for second in 1..60 {
            let now = start + seconds(second);
            act(&mut b, &mut lease, now, WALL + seconds(second));
            assert!(!(a.leads(now) && b.leads(now)), "two lead at {second}");
            if b.leads(now) && taken.is_none() {
                taken = Some(second);
            }
        }
        // It first saw the Lease a second after it was written.
        assert_eq!(taken, Some(16));
        assert_eq!(lease.unwrap_or_default().transitions, 1);
        // The old one comes back to a Lease that is not its own.
        let now = start + seconds(60);
        let held = Record { holder: "b".to_owned(), lease: seconds(15), ..Record::default() };
        assert_eq!(a.decide(Some(&held), now, WALL), Step::Wait);
        assert!(!a.leads(now));
    }

    #[test]
    fn who_cannot_renew_stops_before_the_lease_ends() {
        let (mut a, mut lease, start) = (candidate("a"), None, Instant::now());
        act(&mut a, &mut lease, start, WALL);
        assert!(a.leads(start + seconds(9)));
        assert!(!a.leads(start + seconds(10)));
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let (mut a, mut b, mut lease, start) = (candidate("a"), candidate("b"), None, Instant::now());
        act(&mut a, &mut lease, start, WALL);
        let Some(released) = a.release(&lease.clone().unwrap_or_default(), WALL) else { panic!("it was a's") };
        assert!(!a.leads(start));
        assert_eq!(b.release(&released, WALL), None);
        lease = Some(released);
        act(&mut b, &mut lease, start, WALL);
        assert!(b.leads(start));
    }
}
