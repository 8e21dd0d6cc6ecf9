//! What the labels of a namespace ask for.

use std::fmt;

use skiff_api::{object::Object, status::FieldError};

/// What the labels begin with.
const PREFIX: &str = "pod-security.kubernetes.io/";

/// A version later than all.
const LATEST: u32 = u32::MAX;

/// How much a pod may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Everything.
    #[default]
    Privileged,
    /// Nothing that is known to reach beyond the pod.
    Baseline,
    /// What a hardened pod needs.
    Restricted,
}

/// A level as of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LevelVersion {
    pub(super) level: Level,
    /// The minor version; the greatest number for the latest.
    pub(super) version: u32,
}

impl Default for LevelVersion {
    fn default() -> Self {
        Self { level: Level::Privileged, version: LATEST }
    }
}

impl LevelVersion {
    /// The minor version whose checks hold.
    pub(super) fn minor(self) -> u32 {
        self.version
    }
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            LATEST => write!(f, "{level}:latest"),
            minor => write!(f, "{level}:v1.{minor}"),
        }
    }
}

/// What holds in a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: LevelVersion,
    pub(super) audit: LevelVersion,
    pub(super) warn: LevelVersion,
}

fn level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

fn version(text: &str) -> Option<u32> {
    if text == "latest" {
        return Some(LATEST);
    }
    let digits = text.strip_prefix("v1.")?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && (digits == "0" || !digits.starts_with('0'))).then(|| digits.parse().ok()).flatten()
}

/// Reads labels, and keeps what is wrong with them.
struct Reader<'a> {
    namespace: &'a Object,
    errors: Vec<FieldError>,
}

impl Reader<'_> {
    fn read<T>(&mut self, name: &str, parse: fn(&str) -> Option<T>, otherwise: T, must: &str) -> Option<T> {
        let label = format!("{PREFIX}{name}");
        let text = self.namespace.str_at(&["metadata", "labels", &label])?.to_owned();
        let parsed = parse(&text);
        if parsed.is_none() {
            self.errors.push(FieldError::invalid(format!("metadata.labels[{label}]"), text, must));
        }
        Some(parsed.unwrap_or(otherwise))
    }

    /// The level and version of a mode; a level that cannot be read counts as `otherwise`.
    fn mode(&mut self, mode: &str, otherwise: Level) -> (Option<Level>, Option<u32>) {
        let level = self.read(mode, level, otherwise, "must be one of privileged, baseline, restricted");
        let version = self.read(&format!("{mode}-version"), version, LATEST, "must be \"latest\" or \"v1.x\"");
        (level, version)
    }
}

impl Policy {
    /// Reads a namespace's labels; what is wrong with them is told too.
    pub(super) fn read(namespace: &Object) -> (Self, Vec<FieldError>) {
        let mut reader = Reader { namespace, errors: Vec::new() };
        let or_default = |(level, version): (Option<Level>, Option<u32>)| LevelVersion {
            level: level.unwrap_or_default(),
            version: version.unwrap_or(LATEST),
        };
        let enforced = reader.mode("enforce", Level::Restricted);
        let is_readable = enforced.0.is_some() && reader.errors.is_empty();
        let audit = reader.mode("audit", Level::Privileged);
        let warned = reader.mode("warn", Level::Privileged);
        let (enforce, mut warn) = (or_default(enforced), or_default(warned));
        if warned.0.is_none() && is_readable && enforce.level > warn.level {
            warn.level = enforce.level;
            if warned.1.is_none() {
                warn.version = enforce.version;
            }
        }
        (Self { enforce, audit: or_default(audit), warn }, reader.errors)
    }

    /// Whether nothing is looked at.
    pub(super) fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|mode| mode.level == Level::Privileged)
    }
}
