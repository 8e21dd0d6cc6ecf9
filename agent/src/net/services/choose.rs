//! Which endpoint a client gets: in turn, or the one that it had before.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::plan::Backend;

/// How many clients an affinity is kept for; the one that was seen longest ago makes room.
const MAX_CLIENTS: usize = 10_000;

/// Chooses among the endpoints of one frontend.
#[derive(Debug)]
pub struct Chooser {
    backend: Backend,
    next: usize,
    clients: BTreeMap<IpAddr, (SocketAddr, Instant)>,
}

impl Chooser {
    /// A chooser among the endpoints of a backend.
    pub fn new(backend: Backend) -> Self {
        Self { backend, next: 0, clients: BTreeMap::new() }
    }

    /// The endpoints are others from now on.
    pub fn set(&mut self, backend: Backend) {
        self.clients.retain(|_, (endpoint, _)| backend.endpoints.contains(endpoint));
        self.backend = backend;
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.backend.endpoints.len()
    }

    /// Whether there are no endpoints.
    pub fn is_empty(&self) -> bool {
        self.backend.endpoints.is_empty()
    }

    /// The endpoint for a client.
    pub fn choose(&mut self, client: IpAddr, now: Instant) -> Option<SocketAddr> {
        let Some(stays) = self.backend.affinity else { return self.in_turn() };
        let kept = self.clients.get(&client).filter(|(_, seen)| now.duration_since(*seen) < stays);
        let endpoint = match kept {
            Some((endpoint, _)) => *endpoint,
            None => self.in_turn()?,
        };
        self.make_room(client);
        self.clients.insert(client, (endpoint, now));
        Some(endpoint)
    }

    /// An endpoint did not take a connection: its client is not sent there again.
    pub fn failed(&mut self, client: IpAddr) {
        self.clients.remove(&client);
    }

    fn in_turn(&mut self) -> Option<SocketAddr> {
        let endpoint = self.backend.endpoints.get(self.next % self.backend.endpoints.len().max(1)).copied();
        self.next = self.next.wrapping_add(1);
        endpoint
    }

    fn make_room(&mut self, client: IpAddr) {
        if self.clients.len() >= MAX_CLIENTS && !self.clients.contains_key(&client) {
            let oldest = self.clients.iter().min_by_key(|(_, (_, seen))| *seen).map(|(ip, _)| *ip);
            if let Some(oldest) = oldest {
                self.clients.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use super::*;

    fn backend(endpoints: &[&str], affinity: Option<u64>) -> Backend {
        let endpoints = endpoints.iter().map(|text| text.parse().unwrap()).collect();
        Backend { service: Default::default(), endpoints, affinity: affinity.map(Duration::from_secs) }
    }

    #[test]
    fn clients_get_the_endpoints_in_turn() {
        let mut chooser = Chooser::new(backend(&["127.0.0.1:1", "127.0.0.1:2"], None));
        let client = "127.0.0.9".parse().unwrap();
        let ports: Vec<u16> = (0..4).filter_map(|_| chooser.choose(client, Instant::now())).map(|e| e.port()).collect();
        assert_eq!(ports, [1, 2, 1, 2]);
    }

    #[test]
    fn a_client_stays_with_its_endpoint_until_it_is_gone_or_time_is_up() {
        let mut chooser = Chooser::new(backend(&["127.0.0.1:1", "127.0.0.1:2"], Some(10)));
        let (a, b) = ("127.0.0.8".parse().unwrap(), "127.0.0.9".parse().unwrap());
        let now = Instant::now();
        assert_eq!(chooser.choose(a, now).unwrap().port(), 1);
        assert_eq!(chooser.choose(b, now).unwrap().port(), 2);
        assert_eq!(chooser.choose(a, now + Duration::from_secs(9)).unwrap().port(), 1);
        chooser.set(backend(&["127.0.0.1:2"], Some(10)));
        assert_eq!(chooser.choose(a, now + Duration::from_secs(9)).unwrap().port(), 2);
    }
}
