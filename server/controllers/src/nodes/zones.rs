//! How fast nodes that are lost may lose their pods: the fewer of a zone's nodes are well, the slower, and where no
//! node of the cluster is heard of at all it is the control plane that is cut off, and nobody loses anything. No I/O.
//!
//! The rules and numbers are those of Kubernetes' node lifecycle controller.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// A zone is disturbed where more than this share of its nodes is not well, in percent
/// (kube-controller-manager's `--unhealthy-zone-threshold`).
const DISTURBED_PERCENT: usize = 55;

/// With so few nodes that are not well a zone is not disturbed.
const FEW: usize = 2;

/// Zones of up to so many nodes lose no pods while they are disturbed (`--large-cluster-size-threshold`).
const SMALL: usize = 50;

/// How fast nodes lose their pods.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// The time between two nodes of a zone (`--node-eviction-rate`, 0.1 a second).
    pub between: Duration,
    /// The same for large zones that are disturbed (`--secondary-node-eviction-rate`, 0.01 a second).
    pub between_disturbed: Duration,
}

impl Default for Rates {
    fn default() -> Self {
        Self { between: Duration::from_secs(10), between_disturbed: Duration::from_secs(100) }
    }
}

/// Whether a node may lose its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Now.
    Now,
    /// Ask again after this time.
    After(Duration),
    /// Not while its zone is as it is.
    Wait,
    /// No, and those that have lost theirs may have them back.
    Never,
}

/// How a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Normal,
    Disturbed,
    Down,
}

#[derive(Debug, Default)]
struct Zone {
    ready: usize,
    not_ready: usize,
    next: Option<Instant>,
}

impl Zone {
    fn state(&self) -> State {
        if self.ready == 0 && self.not_ready > 0 {
            State::Down
        } else if self.not_ready > FEW && self.not_ready * 100 >= (self.ready + self.not_ready) * DISTURBED_PERCENT {
            State::Disturbed
        } else {
            State::Normal
        }
    }

    fn count(&mut self, is_ready: bool) -> &mut usize {
        if is_ready { &mut self.ready } else { &mut self.not_ready }
    }
}

/// What a change of a node's health means.
#[derive(Debug, Default)]
pub struct Change {
    /// Whether the node was well before; `None` if it was not known.
    pub was_ready: Option<bool>,
    /// Nodes whose permit may have changed.
    pub look: Vec<String>,
}

/// All nodes by zone.
#[derive(Debug)]
pub struct Zones {
    rates: Rates,
    nodes: HashMap<String, (String, bool)>,
    zones: HashMap<String, Zone>,
    /// How many zones have a node that is well.
    responsive: usize,
}

impl Zones {
    /// No nodes yet.
    pub fn new(rates: Rates) -> Self {
        Self { rates, nodes: HashMap::new(), zones: HashMap::new(), responsive: 0 }
    }

    /// A node is there, in a zone, and well or not.
    pub fn set(&mut self, node: &str, zone: &str, is_ready: bool) -> Change {
        let new = (zone.to_owned(), is_ready);
        let old = self.nodes.get(node).cloned();
        let was_ready = old.as_ref().map(|(_, ready)| *ready);
        if old.as_ref() == Some(&new) {
            return Change { was_ready, look: Vec::new() };
        }
        let look = self.follow(zone, |zones| {
            zones.take_out(node);
            *zones.zones.entry(new.0.clone()).or_default().count(is_ready) += 1;
            zones.nodes.insert(node.to_owned(), new);
        });
        Change { was_ready, look }
    }

    /// A node is gone. Answers with the nodes whose permit may have changed.
    pub fn remove(&mut self, node: &str) -> Vec<String> {
        let Some((zone, _)) = self.nodes.get(node).cloned() else { return Vec::new() };
        self.follow(&zone, |zones| zones.take_out(node))
    }

    fn take_out(&mut self, node: &str) {
        let Some((zone, was_ready)) = self.nodes.remove(node) else { return };
        let Some(known) = self.zones.get_mut(&zone) else { return };
        *known.count(was_ready) -= 1;
        if known.ready + known.not_ready == 0 {
            self.zones.remove(&zone);
        }
    }

    /// Makes a change, and says whom it concerns: all where the whole cluster comes or goes, else those of the zone.
    fn follow(&mut self, zone: &str, change: impl FnOnce(&mut Self)) -> Vec<String> {
        let before = (self.is_all_down(), self.zones.get(zone).map(Zone::state));
        change(self);
        self.responsive = self.zones.values().filter(|zone| zone.ready > 0).count();
        let after = (self.is_all_down(), self.zones.get(zone).map(Zone::state));
        if before == after {
            return Vec::new();
        }
        let concerned = |(name, (theirs, ready)): (&String, &(String, bool))| {
            (!ready && (before.0 != after.0 || theirs == zone)).then(|| name.clone())
        };
        self.nodes.iter().filter_map(concerned).collect()
    }

    fn is_all_down(&self) -> bool {
        self.responsive == 0
    }

    /// Whether a node that is not well may lose its pods. One that has begun to needs no new permit.
    pub fn permit(&mut self, node: &str, has_begun: bool, now: Instant) -> Permit {
        if self.is_all_down() {
            return Permit::Never;
        }
        let zone = self.nodes.get(node).and_then(|(zone, _)| self.zones.get_mut(zone));
        let (false, Some(zone)) = (has_begun, zone) else { return Permit::Now };
        let between = match zone.state() {
            State::Normal | State::Down => self.rates.between,
            State::Disturbed if zone.ready + zone.not_ready > SMALL => self.rates.between_disturbed,
            State::Disturbed => return Permit::Wait,
        };
        match zone.next {
            Some(next) if next > now => Permit::After(next - now),
            _ => {
                zone.next = Some(now + between);
                Permit::Now
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(nodes: &[(&str, &str, bool)]) -> Zones {
        let mut zones = Zones::new(Rates::default());
        for (node, zone, ready) in nodes {
            zones.set(node, zone, *ready);
        }
        zones
    }

    #[test]
    fn one_node_at_a_time() {
        let mut all = zones(&[("a", "z", false), ("b", "z", false), ("c", "z", true), ("d", "z", true)]);
        let now = Instant::now();
        assert_eq!(all.permit("a", false, now), Permit::Now);
        assert_eq!(all.permit("b", false, now), Permit::After(Duration::from_secs(10)));
        assert_eq!(all.permit("a", true, now), Permit::Now, "it has begun");
        assert_eq!(all.permit("b", false, now + Duration::from_secs(10)), Permit::Now);
    }

    #[test]
    fn a_disturbed_zone_waits_and_another_does_not() {
        let mut all = zones(&[("a", "z", false), ("b", "z", false), ("c", "z", false), ("d", "z", true)]);
        all.set("e", "y", false);
        all.set("f", "y", true);
        let now = Instant::now();
        assert_eq!(all.permit("a", false, now), Permit::Wait);
        assert_eq!(all.permit("e", false, now), Permit::Now);
        let mut look = all.set("b", "z", true).look;
        look.sort();
        assert_eq!(look, ["a", "c"]);
        assert_eq!(all.permit("a", false, now), Permit::Now);
    }

    #[test]
    fn a_zone_that_is_down_loses_its_pods_but_not_where_all_are_down() {
        let mut all = zones(&[("a", "z", false), ("b", "y", true)]);
        let now = Instant::now();
        assert_eq!(all.permit("a", false, now), Permit::Now);
        let mut look = all.set("b", "y", false).look;
        look.sort();
        assert_eq!(look, ["a", "b"]);
        assert_eq!(all.permit("a", true, now), Permit::Never);
        assert_eq!(all.remove("b"), Vec::<String>::new());
        assert_eq!(all.set("c", "x", true).look, ["a"]);
        assert_eq!(all.permit("a", true, now), Permit::Now);
    }

    #[test]
    fn counts_follow_every_change() {
        let mut all = zones(&[("a", "z", true), ("b", "z", false)]);
        assert_eq!(all.set("a", "z", true).was_ready, Some(true));
        assert_eq!(all.set("a", "y", false).was_ready, Some(true));
        assert!(all.is_all_down());
        all.remove("a");
        all.remove("b");
        assert!(all.zones.is_empty() && all.nodes.is_empty());
    }
}
