//! What an operator sets of a node, in the kubelet's words: `--kubelet-arg KEY=VALUE`, as k3s has it; pure.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use skiff_api::quantity::Quantity;

use super::pressure::{Limit, Resource, Threshold};
use crate::pods::sysctls;

/// The most disk that must be left by default: a tenth of a large disk is not asked for, as most of what fills a
/// developer's machine is not the cluster's.
const MOST_DISK_BYTES: u64 = 1024 * 1024 * 1024;
/// The most files that must be left by default.
const MOST_INODES: u64 = 50_000;

/// What can be set, for those who set something else.
const KEYS: &str = "kube-reserved, system-reserved, eviction-hard, eviction-soft, eviction-soft-grace-period, \
    eviction-max-pod-grace-period, eviction-pressure-transition-period, allowed-unsafe-sysctls";

/// A setting cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("--kubelet-arg {argument}: {problem}")]
pub struct SettingError {
    argument: String,
    problem: String,
}

/// What an operator sets of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What is kept from pods for skiff and the runtimes, by resource.
    pub kube_reserved: BTreeMap<String, Quantity>,
    /// What is kept from pods for the rest of the machine.
    pub system_reserved: BTreeMap<String, Quantity>,
    /// When pods are evicted, at once or after a grace period.
    pub thresholds: Vec<Threshold>,
    /// How long pods get at most to end where the threshold has a grace period.
    pub max_pod_grace_seconds: i64,
    /// How long a condition stays after its shortage is over.
    pub transition: SignedDuration,
    /// Kernel parameters that pods may set though they are not safe, as patterns.
    pub allowed_unsafe_sysctls: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let hard = |resource, limit| Threshold { resource, limit, grace: None };
        let at_most = |percent, most| Limit::Capped { percent, most };
        Self {
            kube_reserved: BTreeMap::new(),
            system_reserved: BTreeMap::new(),
            thresholds: vec![
                hard(Resource::Memory, Limit::Amount(100 * 1024 * 1024)),
                hard(Resource::Disk, at_most(10, MOST_DISK_BYTES)),
                hard(Resource::Inodes, at_most(5, MOST_INODES)),
                hard(Resource::ImageDisk, at_most(15, MOST_DISK_BYTES)),
                hard(Resource::ImageInodes, at_most(5, MOST_INODES)),
                hard(Resource::Pids, at_most(2, u64::MAX)),
            ],
            max_pod_grace_seconds: 0,
            transition: SignedDuration::from_secs(300),
            allowed_unsafe_sysctls: Vec::new(),
        }
    }
}

impl Settings {
    /// Reads `KEY=VALUE` arguments; a later one of a key counts.
    pub fn parse(arguments: &[String]) -> Result<Self, SettingError> {
        let mut settings = Self::default();
        let mut graces = BTreeMap::new();
        let (mut hard, mut soft) = (None, Vec::new());
        for argument in arguments {
            let failed = |problem: String| SettingError { argument: argument.clone(), problem };
            let (key, value) =
                argument.split_once('=').ok_or_else(|| failed("it must be of the form KEY=VALUE".to_owned()))?;
            match key {
                "kube-reserved" => settings.kube_reserved = reserved(value).map_err(failed)?,
                "system-reserved" => settings.system_reserved = reserved(value).map_err(failed)?,
                "eviction-hard" => hard = Some(thresholds(value).map_err(failed)?),
                "eviction-soft" => soft = thresholds(value).map_err(failed)?,
                "eviction-soft-grace-period" => graces = grace_periods(value).map_err(failed)?,
                "eviction-max-pod-grace-period" => {
                    let seconds = value.parse().map_err(|_| failed("it must be a number of seconds".to_owned()))?;
                    settings.max_pod_grace_seconds = seconds;
                }
                "eviction-pressure-transition-period" => settings.transition = duration(value).map_err(failed)?,
                "allowed-unsafe-sysctls" => settings.allowed_unsafe_sysctls = patterns(value).map_err(failed)?,
                _ => return Err(failed(format!("unknown; what can be set: {KEYS}"))),
            }
        }
        for threshold in &mut soft {
            let signal = threshold.resource.signal();
            threshold.grace = Some(*graces.get(signal).ok_or_else(|| SettingError {
                argument: "eviction-soft".to_owned(),
                problem: format!("grace period must be specified for the soft eviction threshold {signal}"),
            })?);
        }
        if let Some(hard) = hard {
            settings.thresholds = hard;
        }
        settings.thresholds.extend(soft);
        Ok(settings)
    }

    /// What is kept from pods of a resource, in its units; `capacity` is what there is of it.
    pub fn reserved(&self, resource: &str, capacity: Quantity) -> Quantity {
        let of = |map: &BTreeMap<String, Quantity>| map.get(resource).copied().unwrap_or(Quantity::ZERO);
        let kept = of(&self.kube_reserved).plus(of(&self.system_reserved));
        let signal = match resource {
            "memory" => Resource::Memory,
            "ephemeral-storage" => Resource::Disk,
            _ => return kept,
        };
        let hard = self.thresholds.iter().find(|one| one.resource == signal && one.grace.is_none());
        let capacity = u64::try_from(capacity.value()).unwrap_or(0);
        let hard = hard.map_or(0, |hard| i64::try_from(hard.limit.of(capacity)).unwrap_or(i64::MAX));
        kept.plus(Quantity::from_units(hard, skiff_api::quantity::Format::BinarySi))
    }
}

/// `cpu=100m,memory=200Mi`
fn reserved(text: &str) -> Result<BTreeMap<String, Quantity>, String> {
    let mut all = BTreeMap::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (name, amount) = part.split_once('=').ok_or(format!("{part:?} must be of the form RESOURCE=AMOUNT"))?;
        if !matches!(name.trim(), "cpu" | "memory" | "ephemeral-storage" | "pid") {
            return Err(format!("cannot reserve {:?} resource", name.trim()));
        }
        let amount: Quantity = amount.trim().parse().map_err(|_| format!("{amount:?} is no quantity"))?;
        if amount.is_negative() {
            return Err(format!("resource quantity for {:?} cannot be negative", name.trim()));
        }
        all.insert(name.trim().to_owned(), amount);
    }
    Ok(all)
}

/// `kernel.msg*,net.core.somaxconn`
fn patterns(text: &str) -> Result<Vec<String>, String> {
    let all: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
    match all.iter().find(|pattern| !sysctls::is_namespaced(pattern)) {
        Some(other) => Err(format!("the sysctls {other:?} are not known to be namespaced")),
        None => Ok(all),
    }
}

/// `memory.available<100Mi,nodefs.available<10%`
fn thresholds(text: &str) -> Result<Vec<Threshold>, String> {
    let mut all: Vec<Threshold> = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let invalid = || format!("invalid eviction threshold syntax {part:?}, expected <signal><operator><value>");
        let (signal, value) = part.split_once('<').ok_or_else(invalid)?;
        let resource =
            Resource::of_signal(signal.trim()).ok_or(format!("unknown eviction signal {:?}", signal.trim()))?;
        if all.iter().any(|known| known.resource == resource) {
            return Err(format!("found duplicate eviction threshold for signal {}", signal.trim()));
        }
        let limit = limit(value.trim()).ok_or(format!("eviction threshold {part:?} must be positive"))?;
        // Nothing at all is how a threshold is turned off.
        if limit.of(u64::MAX) > 0 {
            all.push(Threshold { resource, limit, grace: None });
        }
    }
    Ok(all)
}

fn limit(text: &str) -> Option<Limit> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.parse().ok()?;
        // Hundredths of a percent are as fine as anybody means it.
        let hundredths = (0.0..=100.0).contains(&percent).then_some((percent * 100.0).round())?;
        return Some(Limit::Percent(format!("{hundredths:.0}").parse().ok()?));
    }
    let amount: Quantity = text.parse().ok()?;
    u64::try_from(amount.value()).ok().map(Limit::Amount)
}

/// `memory.available=1m30s,nodefs.available=2m`
fn grace_periods(text: &str) -> Result<BTreeMap<&'static str, SignedDuration>, String> {
    let mut all = BTreeMap::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (signal, period) = part.split_once('=').ok_or(format!("{part:?} must be of the form SIGNAL=PERIOD"))?;
        let resource =
            Resource::of_signal(signal.trim()).ok_or(format!("unknown eviction signal {:?}", signal.trim()))?;
        all.insert(resource.signal(), duration(period.trim())?);
    }
    Ok(all)
}

/// A duration as Go prints it: `1h30m`, `45s`, `500ms`; never negative.
pub(crate) fn duration(text: &str) -> Result<SignedDuration, String> {
    let invalid = || format!("{text:?} is no duration such as 1m30s");
    let parsed: SignedDuration = text.parse().map_err(|_| invalid())?;
    if parsed.is_negative() { Err(invalid()) } else { Ok(parsed) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, String> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        Settings::parse(&arguments).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_set_is_what_counts() {
        assert_eq!(parse(&[]), Ok(Settings::default()));
        let set = parse(&[
            "kube-reserved=cpu=100m,memory=200Mi",
            "system-reserved=memory=56Mi",
            "eviction-hard=memory.available<5%,nodefs.available<2Gi,nodefs.inodesFree<0%",
            "eviction-soft=memory.available<300Mi",
            "eviction-soft-grace-period=memory.available=1m30s",
            "eviction-max-pod-grace-period=60",
            "eviction-pressure-transition-period=30s",
        ])
        .unwrap();
        let hard = |resource, limit| Threshold { resource, limit, grace: None };
        assert_eq!(
            set.thresholds,
            [
                hard(Resource::Memory, Limit::Percent(500)),
                hard(Resource::Disk, Limit::Amount(2 << 30)),
                Threshold {
                    resource: Resource::Memory,
                    limit: Limit::Amount(300 << 20),
                    grace: Some(SignedDuration::from_secs(90)),
                },
            ]
        );
        assert_eq!((set.max_pod_grace_seconds, set.transition), (60, SignedDuration::from_secs(30)));
        let gib: Quantity = "1Gi".parse().unwrap();
        assert_eq!(set.reserved("memory", gib).value(), (256 << 20) + (1 << 30) / 20);
        assert_eq!(set.reserved("cpu", gib).milli_value(), 100);
        assert_eq!(set.reserved("pods", gib), Quantity::ZERO);
    }

    #[test]
    fn what_cannot_be_set_is_said() {
        let said = |argument: &str| parse(&[argument]).unwrap_err();
        assert!(said("eviction-hard").contains("KEY=VALUE"));
        assert!(said("feature-gates=X=true").contains("what can be set: kube-reserved"));
        assert!(said("eviction-hard=disk<1").contains("unknown eviction signal \"disk\""));
        assert!(said("eviction-hard=memory.available>1").contains("invalid eviction threshold syntax"));
        assert!(said("eviction-hard=memory.available<-1").contains("must be positive"));
        assert!(said("eviction-hard=memory.available<101%").contains("must be positive"));
        assert!(said("eviction-hard=memory.available<1,memory.available<2").contains("duplicate"));
        assert!(said("eviction-soft=memory.available<1Gi").contains("grace period must be specified"));
        assert!(said("kube-reserved=gpu=1").contains("cannot reserve"));
        assert!(said("allowed-unsafe-sysctls=vm.*").contains("not known to be namespaced"));
        assert!(said("kube-reserved=cpu=-1").contains("negative"));
        assert!(said("eviction-pressure-transition-period=-5s").contains("no duration"));
    }
}
