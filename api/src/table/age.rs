//! Ages as Kubernetes prints them.

use jiff::{SignedDuration, Timestamp};

use super::Row;

/// How long something took or is ago: exact while it is young, ever coarser then (`duration.HumanDuration`).
pub fn human_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |whole: i64, unit: &str, rest: i64, small: &str| {
        if rest == 0 { format!("{whole}{unit}") } else { format!("{whole}{unit}{rest}{small}") }
    };
    match (seconds, minutes, hours) {
        // A clock that is off by less than two seconds is forgiven.
        (..=-2, ..) => "<invalid>".to_owned(),
        (..0, ..) => "0s".to_owned(),
        (..120, ..) => format!("{seconds}s"),
        (_, ..10, _) => two(minutes, "m", seconds % 60, "s"),
        (_, ..180, _) => format!("{minutes}m"),
        (_, _, ..8) => two(hours, "h", minutes % 60, "m"),
        (_, _, ..48) => format!("{hours}h"),
        (_, _, ..192) => two(hours / 24, "d", hours % 24, "h"),
        (_, _, ..17_520) => format!("{}d", hours / 24),
        (_, _, ..70_080) => two(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

impl Row<'_> {
    /// How long a time is ago, or `<unknown>`.
    pub(super) fn since(&self, time: Option<&str>) -> String {
        let Some(then) = time.and_then(|time| time.parse::<Timestamp>().ok()) else { return "<unknown>".to_owned() };
        human_duration(self.now.duration_since(then))
    }

    /// The object's age.
    pub(super) fn age(&self) -> String {
        self.since(self.object.str_at(&["metadata", "creationTimestamp"]))
    }
}
