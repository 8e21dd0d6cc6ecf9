//! Whether the node runs short of memory, disk or process ids, what it says of that, and which pod goes first; pure.
//!
//! The order is the kubelet's (kubernetes/pkg/kubelet/eviction): a pod that uses more than it asked for goes before one
//! that does not, then the less important one, then the one that exceeds by more. So are the thresholds, but that a
//! tenth of a large disk is not asked for: on a developer's machine most of what fills it is not the cluster's.

use std::{cmp::Reverse, collections::BTreeMap};

use jiff::{SignedDuration, Timestamp};

/// How long a condition stays after the shortage is over, so that it does not come and go.
const TRANSITION: SignedDuration = SignedDuration::from_secs(300);
/// Pods of this priority and above are never evicted (kubernetes/pkg/apis/scheduling).
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// The most disk that must be left.
const MOST_DISK_BYTES: u64 = 1024 * 1024 * 1024;
/// The most files that must be left.
const MOST_INODES: u64 = 50_000;

/// What can run short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Memory, in bytes.
    Memory,
    /// The file system of the agent's folder, in bytes.
    Disk,
    /// Its files.
    Inodes,
    /// Process ids.
    Pids,
}

impl Resource {
    /// As the kubelet's messages name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        }
    }

    /// How much must be left.
    fn threshold(self, capacity: u64) -> u64 {
        match self {
            Self::Memory => 100 * 1024 * 1024,
            Self::Disk => (capacity / 10).min(MOST_DISK_BYTES),
            Self::Inodes => (capacity / 20).min(MOST_INODES),
            Self::Pids => capacity / 50,
        }
    }
}

/// How much of something there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What is left.
    pub available: u64,
    /// What there is in all; zero where that is not known, which is no shortage.
    pub capacity: u64,
}

/// All that is read at a time.
pub type Readings = BTreeMap<Resource, Reading>;

/// What is short, at least until a moment ago: the node's conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// `MemoryPressure`
    pub memory: bool,
    /// `DiskPressure`
    pub disk: bool,
    /// `PIDPressure`
    pub pids: bool,
}

/// When each resource was last short.
#[derive(Clone, Debug, Default)]
pub struct Pressure {
    last: BTreeMap<Resource, Timestamp>,
}

/// The resource that is short now, the first in order of urgency, with its threshold.
pub fn shortage(readings: &Readings) -> Option<(Resource, Reading, u64)> {
    let short = |(resource, reading): (&Resource, &Reading)| {
        let threshold = resource.threshold(reading.capacity);
        (reading.capacity > 0 && reading.available < threshold).then_some((*resource, *reading, threshold))
    };
    readings.iter().find_map(short)
}

impl Pressure {
    /// Takes in what was read; the conditions that follow.
    pub fn update(&mut self, readings: &Readings, now: Timestamp) -> Conditions {
        for (resource, reading) in readings {
            if shortage(&BTreeMap::from([(*resource, *reading)])).is_some() {
                self.last.insert(*resource, now);
            }
        }
        let is = |resource: Resource| {
            self.last.get(&resource).is_some_and(|last| now.duration_since(*last).abs() < TRANSITION)
        };
        Conditions {
            memory: is(Resource::Memory),
            disk: is(Resource::Disk) || is(Resource::Inodes),
            pids: is(Resource::Pids),
        }
    }
}

/// A pod that might go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Its UID.
    pub uid: String,
    /// Its priority.
    pub priority: i32,
    /// What it uses of the resource.
    pub usage: u64,
    /// What it asked for.
    pub request: u64,
    /// The container that uses most: its name, what it uses, what it asked for.
    pub largest: (String, u64, u64),
}

/// The pod that goes first; `None` where only critical ones are left.
pub fn first(candidates: &[Candidate]) -> Option<&Candidate> {
    let rank = |pod: &&Candidate| {
        let over = pod.usage.saturating_sub(pod.request);
        (Reverse(over > 0), pod.priority, Reverse(over), Reverse(pod.usage), pod.uid.clone())
    };
    candidates.iter().filter(|pod| pod.priority < CRITICAL_PRIORITY).min_by_key(rank)
}

/// The message of an evicted pod, in the kubelet's words.
pub fn message(resource: Resource, reading: Reading, threshold: u64, pod: &Candidate) -> String {
    let quantity = |value: u64| match resource {
        Resource::Memory | Resource::Disk => format!("{}Ki", value / 1024),
        Resource::Inodes | Resource::Pids => value.to_string(),
    };
    let name = resource.as_str();
    let mut message = format!(
        "The node was low on resource: {name}. Threshold quantity: {}, available: {}. ",
        quantity(threshold),
        quantity(reading.available)
    );
    let (container, usage, request) = &pod.largest;
    if usage > request {
        message.push_str(&format!(
            "Container {container} was using {}, request is {}, has larger consumption of {name}. ",
            quantity(*usage),
            if *request == 0 { "0".to_owned() } else { quantity(*request) }
        ));
    }
    message
}

/// Why a pod is not let in while something is short; `qos` is its class.
pub fn refuses(conditions: Conditions, qos: &str, priority: i32) -> Option<String> {
    if priority >= CRITICAL_PRIORITY {
        return None;
    }
    let mut met = vec![];
    if conditions.memory && qos == "BestEffort" {
        met.push("MemoryPressure");
    }
    if conditions.disk {
        met.push("DiskPressure");
    }
    if conditions.pids {
        met.push("PIDPressure");
    }
    (!met.is_empty()).then(|| format!("The node had condition: [{}]. ", met.join(" ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn memory(available: u64) -> Readings {
        [(Resource::Memory, Reading { available, capacity: 4096 * MIB })].into()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn a_condition_outlasts_its_shortage() {
        let mut pressure = Pressure::default();
        assert_eq!(pressure.update(&memory(101 * MIB), at(0)), Conditions::default());
        assert!(pressure.update(&memory(99 * MIB), at(10)).memory);
        assert!(pressure.update(&memory(500 * MIB), at(300)).memory);
        assert!(!pressure.update(&memory(500 * MIB), at(311)).memory);
    }

    #[test]
    fn thresholds_are_parts_of_what_there_is() {
        let of = |resource, available| [(resource, Reading { available, capacity: 1000 })].into();
        assert!(shortage(&of(Resource::Disk, 99)).is_some() && shortage(&of(Resource::Disk, 100)).is_none());
        assert!(shortage(&of(Resource::Inodes, 49)).is_some() && shortage(&of(Resource::Inodes, 50)).is_none());
        let unknown = [(Resource::Disk, Reading { available: 0, capacity: 0 })].into();
        assert!(shortage(&unknown).is_none());
    }

    #[test]
    fn who_exceeds_goes_first_and_critical_pods_stay() {
        let pod = |uid: &str, priority, usage, request| Candidate {
            uid: uid.into(),
            priority,
            usage,
            request,
            largest: ("main".into(), usage, request),
        };
        let mut pods = vec![
            pod("within", 0, 900, 1000),
            pod("critical", CRITICAL_PRIORITY, 5000, 0),
            pod("important", 10, 800, 100),
            pod("little", 0, 110, 100),
            pod("much", 0, 300, 100),
        ];
        for wanted in ["much", "little", "important", "within"] {
            let uid = first(&pods).unwrap().uid.clone();
            assert_eq!(uid, wanted);
            pods.retain(|pod| pod.uid != uid);
        }
        assert_eq!(first(&pods), None);
        let reading = Reading { available: 50 * MIB, capacity: 4096 * MIB };
        let text = message(Resource::Memory, reading, 100 * MIB, &pod("u", 0, 3 * MIB, 0));
        assert_eq!(
            text,
            "The node was low on resource: memory. Threshold quantity: 102400Ki, available: 51200Ki. \
             Container main was using 3072Ki, request is 0, has larger consumption of memory. "
        );
    }

    #[test]
    fn who_is_let_in_depends_on_what_is_short() {
        let memory = Conditions { memory: true, ..Conditions::default() };
        assert!(refuses(memory, "BestEffort", 0).unwrap().contains("[MemoryPressure]"));
        assert_eq!(refuses(memory, "Burstable", 0), None);
        assert_eq!(refuses(memory, "BestEffort", CRITICAL_PRIORITY), None);
        let disk = Conditions { disk: true, ..Conditions::default() };
        assert!(refuses(disk, "Guaranteed", 0).is_some());
    }
}
