//! Schedules in the form of cron: five fields, or one of the short forms.
//!
//! The form and its meaning are those that Kubernetes and k3s take (`robfig/cron`'s standard parser): minute, hour, day
//! of month, month, day of week (0 to 6, Sunday is 0), names for the last two, `*`, `?`, lists, ranges and steps,
//! `@yearly` (`@annually`), `@monthly`, `@weekly`, `@daily` (`@midnight`), `@hourly`. Where both days are restricted, either is enough.
//!
//! A time that a change of the clock skips is not made up; one that it repeats comes twice.

use jiff::{Timestamp, ToSpan, Zoned, tz::TimeZone};

/// How far a next time is looked for; a schedule that has none within (30 February) has none.
const HORIZON_YEARS: i32 = 5;

/// How long a schedule's text may be, in bytes.
const MAX_BYTES: usize = 256;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What a schedule's text has that it must not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronError(String);

impl std::fmt::Display for CronError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CronError {}

/// One field: a bit for each value that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    bits: u64,
    /// Whether it is not restricted.
    star: bool,
}

impl Field {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits & (1 << value) != 0)
    }
}

/// A schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

/// The bounds of a field, and the names of its values from the first on.
struct Bounds {
    what: &'static str,
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

const MINUTE: Bounds = Bounds { what: "minute", first: 0, last: 59, names: &[] };
const HOUR: Bounds = Bounds { what: "hour", first: 0, last: 23, names: &[] };
const DAY: Bounds = Bounds { what: "day of the month", first: 1, last: 31, names: &[] };
const MONTH: Bounds = Bounds { what: "month", first: 1, last: 12, names: &MONTHS };
const WEEKDAY: Bounds = Bounds { what: "day of the week", first: 0, last: 6, names: &WEEKDAYS };

impl Bounds {
    fn error(&self, text: &str) -> CronError {
        CronError(format!("{text:?} is no {} ({} to {})", self.what, self.first, self.last))
    }

    fn value(&self, text: &str) -> Result<u32, CronError> {
        let named = self.names.iter().zip(self.first..).find(|(name, _)| text.eq_ignore_ascii_case(name));
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = named.map(|(_, value)| value).or_else(|| text.parse().ok().filter(|_| digits));
        value.filter(|value| (self.first..=self.last).contains(value)).ok_or_else(|| self.error(text))
    }

    /// `*`, `a`, `a-b`, each with `/step`.
    fn range(&self, text: &str) -> Result<Field, CronError> {
        let (span, step) = match text.split_once('/') {
            Some((span, step)) => (span, Some(step)),
            None => (text, None),
        };
        let star = matches!(span, "*" | "?");
        let (from, to) = match span.split_once('-') {
            _ if star => (self.first, self.last),
            Some((from, to)) => (self.value(from)?, self.value(to)?),
            None if step.is_some() => (self.value(span)?, self.last),
            None => (self.value(span)?, self.value(span)?),
        };
        let digits = |step: &str| step.bytes().all(|byte| byte.is_ascii_digit());
        let step = match step.map(|step| step.parse::<u32>().ok().filter(|_| digits(step))) {
            None => 1,
            Some(Some(step)) if step > 0 => step,
            Some(_) => return Err(CronError(format!("{text:?}: the step must be a number above 0"))),
        };
        if from > to {
            return Err(CronError(format!("{text:?}: the range ends before it begins")));
        }
        let values = (from..=to).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        Ok(Field { bits: values.fold(0, |bits, value| bits | 1 << value), star: star && step == 1 })
    }

    fn field(&self, text: &str) -> Result<Field, CronError> {
        let mut all = Field { bits: 0, star: false };
        for part in text.split(',') {
            let part = self.range(part)?;
            all = Field { bits: all.bits | part.bits, star: all.star || part.star };
        }
        Ok(all)
    }
}

impl Schedule {
    /// Reads a schedule.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        if text.len() > MAX_BYTES {
            return Err(CronError(format!("a schedule has at most {MAX_BYTES} bytes")));
        }
        let text = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            let problem = "a schedule has five fields: minute, hour, day of the month, month, day of the week";
            return Err(CronError(format!("{problem}; {text:?} has {}", fields.len())));
        };
        Ok(Self {
            minute: MINUTE.field(minute)?,
            hour: HOUR.field(hour)?,
            day: DAY.field(day)?,
            month: MONTH.field(month)?,
            weekday: WEEKDAY.field(weekday)?,
        })
    }

    fn has_day(&self, at: &Zoned) -> bool {
        let (day, weekday) = (self.day.has(at.day()), self.weekday.has(at.weekday().to_sunday_zero_offset()));
        if self.day.star || self.weekday.star { day && weekday } else { day || weekday }
    }

    /// The first time after a moment, in a time zone; `None` where there is none within five years.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
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
        ] {
            assert_eq!(next(schedule, after).as_deref(), Some(expected), "{schedule} after {after}");
        }
        assert_eq!(next("0 0 30 2 *", "2026-11-27T00:00:00Z"), None);
    }

    #[test]
    fn changes_of_the_clock_skip_and_repeat() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let next = |schedule: &str, after: &str| {
            let schedule = Schedule::parse(schedule).unwrap();
            schedule.next_after(after.parse().unwrap(), &zone).unwrap().to_string()
        };
        // 29 March 2026: two o'clock is three o'clock. 25 October: three is two again.
        assert_eq!(next("30 2 * * *", "2026-03-28T12:00:00Z"), "2026-03-30T00:30:00Z");
        assert_eq!(next("30 2 * * *", "2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
        assert_eq!(next("30 2 * * *", "2026-10-25T00:30:00Z"), "2026-10-25T01:30:00Z");
        assert_eq!(next("0 12 * * *", "2026-03-29T00:00:00Z"), "2026-03-29T10:00:00Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 7",
            "*/0 * * * *",
            "5-1 * * * *",
            "1- * * * *",
            "a * * * *",
            "* * * foo *",
            "+1 * * * *",
            "1,,2 * * * *",
            "1//2 * * * *",
            "*/+2 * * * *",
            "@reboot",
            "-1 * * * *",
            "99999999999999999999 * * * *",
        ] {
            assert!(Schedule::parse(text).is_err(), "{text:?}");
        }
        let said = Schedule::parse("61 * * * *").unwrap_err().to_string();
        assert_eq!(said, "\"61\" is no minute (0 to 59)");
    }
}
