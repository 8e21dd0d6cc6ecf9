//! What was allowed over CRI and waits to be taken up: each under a token that nobody can guess, once, for a minute.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How long a ticket is good for.
const LIFETIME: Duration = Duration::from_secs(60);
/// Most tickets that wait at once.
const MAX_WAITING: usize = 1000;

/// Which of a command's streams the caller wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) terminal: bool,
}

/// What was allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ticket {
    /// To run a command in a container.
    Exec { container: String, command: Vec<String>, wanted: Wanted },
    /// To see a container's output, and give it input.
    Attach { container: String, wanted: Wanted },
    /// To reach ports of a pod; those that a WebSocket names.
    PortForward { sandbox: String, ports: Vec<u16> },
}

/// The tickets that wait.
#[derive(Debug, Default)]
pub(super) struct Tickets(HashMap<String, (Instant, Ticket)>);

impl Tickets {
    /// Keeps a ticket under a token; `false` when too many wait.
    pub(super) fn issue(&mut self, now: Instant, token: String, ticket: Ticket) -> bool {
        self.0.retain(|_, (until, _)| *until > now);
        if self.0.len() >= MAX_WAITING {
            return false;
        }
        self.0.insert(token, (now + LIFETIME, ticket));
        true
    }

    /// The ticket of a token, which is good no more.
    pub(super) fn take(&mut self, now: Instant, token: &str) -> Option<Ticket> {
        let (until, ticket) = self.0.remove(token)?;
        (until > now).then_some(ticket)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_ticket_is_good_once_and_for_a_minute() {
        let ticket = Ticket::PortForward { sandbox: "s".into(), ports: vec![] };
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        assert!(tickets.issue(now, "a".into(), ticket.clone()));
        assert!(tickets.issue(now, "b".into(), ticket.clone()));
        assert_eq!(tickets.take(now, "a"), Some(ticket));
        assert_eq!(tickets.take(now, "a"), None);
        assert_eq!(tickets.take(now + LIFETIME, "b"), None);
        assert_eq!(tickets.take(now, "c"), None);
    }

    #[test]
    fn only_so_many_wait() {
        let ticket = Ticket::PortForward { sandbox: "s".into(), ports: vec![] };
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        for n in 0..MAX_WAITING {
            assert!(tickets.issue(now, n.to_string(), ticket.clone()));
        }
        assert!(!tickets.issue(now, "more".into(), ticket.clone()));
        assert!(tickets.issue(now + LIFETIME, "later".into(), ticket));
    }
}
