//! Whether the node runs short of memory, disk or process ids, what it says of that, and which pod goes first; pure.
//!
//! The order is the kubelet's (kubernetes/pkg/kubelet/eviction): a pod that uses more than it asked for goes before one
//! that does not, then the less important one, then the one that exceeds by more. What is short is said by thresholds
//! ([`super::settings`]), some of them only after a grace period.

use std::{cmp::Reverse, collections::BTreeMap};

use jiff::{SignedDuration, Timestamp};

/// Pods of this priority and above are never evicted (kubernetes/pkg/apis/scheduling).
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// What can run short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Memory, in bytes.
    Memory,
    /// The file system of the agent's folder, in bytes.
    Disk,
    /// Its files.
    Inodes,
    /// The file system of the images, in bytes.
    ImageDisk,
    /// Its files.
    ImageInodes,
    /// Process ids.
    Pids,
}

impl Resource {
    /// As the kubelet's messages name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk | Self::ImageDisk => "ephemeral-storage",
            Self::Inodes | Self::ImageInodes => "inodes",
            Self::Pids => "pids",
        }
    }

    /// The signal by which thresholds name it.
    pub fn signal(self) -> &'static str {
        match self {
            Self::Memory => "memory.available",
            Self::Disk => "nodefs.available",
            Self::Inodes => "nodefs.inodesFree",
            Self::ImageDisk => "imagefs.available",
            Self::ImageInodes => "imagefs.inodesFree",
            Self::Pids => "pid.available",
        }
    }

    /// The resource of a signal.
    pub fn of_signal(signal: &str) -> Option<Self> {
        use Resource::{Disk, ImageDisk, ImageInodes, Inodes, Memory, Pids};
        [Memory, Disk, Inodes, ImageDisk, ImageInodes, Pids].into_iter().find(|resource| resource.signal() == signal)
    }

    /// Whether taking images away gives some of it back.
    pub fn is_disk(self) -> bool {
        matches!(self, Self::Disk | Self::Inodes | Self::ImageDisk | Self::ImageInodes)
    }
}

/// How much must be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So much.
    Amount(u64),
    /// So many hundredths of a percent of all there is.
    Percent(u64),
    /// So many percent of all there is, but no more than the most.
    Capped {
        /// The percent.
        percent: u64,
        /// The most.
        most: u64,
    },
}

impl Limit {
    /// How much must be left of all there is.
    pub fn of(self, capacity: u64) -> u64 {
        let part = |share: u64, of: u64| {
            u64::try_from(u128::from(capacity) * u128::from(share) / u128::from(of)).unwrap_or(u64::MAX)
        };
        match self {
            Self::Amount(amount) => amount,
            Self::Percent(hundredths) => part(hundredths, 10_000),
            Self::Capped { percent, most } => part(percent, 100).min(most),
        }
    }
}

/// When a resource counts as short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// The resource.
    pub resource: Resource,
    /// How much must be left.
    pub limit: Limit,
    /// How long it may be less; `None` for not at all.
    pub grace: Option<SignedDuration>,
}

/// A threshold that calls for an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What is short.
    pub resource: Resource,
    /// How much there is.
    pub reading: Reading,
    /// How much must be left.
    pub threshold: u64,
    /// Whether there was a grace period: then pods have one too.
    pub is_soft: bool,
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

/// When each resource was last short, and since when each threshold is not kept.
#[derive(Clone, Debug)]
pub struct Pressure {
    thresholds: Vec<Threshold>,
    transition: SignedDuration,
    last: BTreeMap<Resource, Timestamp>,
    since: BTreeMap<usize, Timestamp>,
}

impl Pressure {
    /// Nothing was read yet. A condition stays for `transition` after its shortage is over, so that it does not come
    /// and go.
    pub fn new(thresholds: &[Threshold], transition: SignedDuration) -> Self {
        let mut thresholds = thresholds.to_vec();
        // The most urgent first; hard ones before soft ones.
        thresholds.sort_by_key(|threshold| (threshold.resource, threshold.grace.is_some()));
        Self { thresholds, transition, last: BTreeMap::new(), since: BTreeMap::new() }
    }

    /// Takes in what was read: the conditions that follow, and what calls for an eviction.
    pub fn update(&mut self, readings: &Readings, now: Timestamp) -> (Conditions, Option<Shortage>) {
        let mut urgent = None;
        for (index, threshold) in self.thresholds.iter().enumerate() {
            let reading = readings.get(&threshold.resource).filter(|reading| reading.capacity > 0);
            let least = reading.map_or(0, |reading| threshold.limit.of(reading.capacity));
            let Some(reading) = reading.filter(|reading| reading.available < least) else {
                self.since.remove(&index);
                continue;
            };
            self.last.insert(threshold.resource, now);
            let since = *self.since.entry(index).or_insert(now);
            if now.duration_since(since) >= threshold.grace.unwrap_or(SignedDuration::ZERO) {
                let resource = threshold.resource;
                let is_soft = threshold.grace.is_some();
                urgent.get_or_insert(Shortage { resource, reading: *reading, threshold: least, is_soft });
            }
        }
        (self.conditions(now), urgent)
    }

    fn conditions(&self, now: Timestamp) -> Conditions {
        let is = |of: &dyn Fn(Resource) -> bool| {
            let mut all = self.last.iter().filter(|(resource, _)| of(**resource));
            all.any(|(_, last)| *last == now || now.duration_since(*last).abs() < self.transition)
        };
        Conditions {
            memory: is(&|resource| resource == Resource::Memory),
            disk: is(&Resource::is_disk),
            pids: is(&|resource| resource == Resource::Pids),
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
        Resource::Memory | Resource::Disk | Resource::ImageDisk => format!("{}Ki", value / 1024),
        Resource::Inodes | Resource::ImageInodes | Resource::Pids => value.to_string(),
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
    use crate::node::settings::Settings;

    const MIB: u64 = 1024 * 1024;

    fn memory(available: u64) -> Readings {
        [(Resource::Memory, Reading { available, capacity: 4096 * MIB })].into()
    }

    fn fresh() -> Pressure {
        let settings = Settings::default();
        Pressure::new(&settings.thresholds, settings.transition)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn a_condition_outlasts_its_shortage() {
        let mut pressure = fresh();
        assert_eq!(pressure.update(&memory(101 * MIB), at(0)), (Conditions::default(), None));
        let (conditions, short) = pressure.update(&memory(99 * MIB), at(10));
        assert!(conditions.memory && short.is_some_and(|short| !short.is_soft && short.threshold == 100 * MIB));
        assert!(pressure.update(&memory(500 * MIB), at(300)).0.memory);
        assert!(!pressure.update(&memory(500 * MIB), at(311)).0.memory);
    }

    #[test]
    fn a_soft_threshold_has_patience() {
        let grace = Some(SignedDuration::from_secs(60));
        let soft = Threshold { resource: Resource::Memory, limit: Limit::Percent(5000), grace };
        let mut pressure = Pressure::new(&[soft], SignedDuration::ZERO);
        let mut short = |available: u64, seconds| {
            let (conditions, short) = pressure.update(&memory(available * MIB), at(seconds));
            assert_eq!(conditions.memory, available < 2048, "the condition does not wait");
            short.map(|short| short.is_soft)
        };
        assert_eq!(short(1000, 0), None);
        assert_eq!(short(1000, 59), None);
        assert_eq!(short(3000, 70), None);
        assert_eq!(short(1000, 80), None, "it counts from anew");
        assert_eq!(short(1000, 140), Some(true));
    }

    #[test]
    fn thresholds_are_parts_of_what_there_is() {
        let short = |resource, available, capacity| {
            let readings = [(resource, Reading { available, capacity })].into();
            fresh().update(&readings, at(0)).1.is_some()
        };
        assert!(short(Resource::Disk, 99, 1000) && !short(Resource::Disk, 100, 1000));
        assert!(short(Resource::Inodes, 49, 1000) && !short(Resource::Inodes, 50, 1000));
        assert!(short(Resource::ImageDisk, 149, 1000) && !short(Resource::ImageDisk, 150, 1000));
        assert!(!short(Resource::Disk, 0, 0), "what is not known is not short");
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
