//! Reading schedules. What is refused is refused in `robfig/cron`'s words, which clients see.

use std::time::Duration;

use super::{Calendar, CronError, Field, Schedule, Times, zone};

/// How long a schedule's text may be, in bytes.
const MAX_BYTES: usize = 256;

/// The longest `@every`, which is as long as Go's durations are.
const LONGEST: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The bounds of a field, and the names of its values from the first on.
struct Bounds {
    first: u64,
    last: u64,
    names: &'static [&'static str],
}

const MINUTE: Bounds = Bounds { first: 0, last: 59, names: &[] };
const HOUR: Bounds = Bounds { first: 0, last: 23, names: &[] };
const DAY: Bounds = Bounds { first: 1, last: 31, names: &[] };
const MONTH: Bounds = Bounds { first: 1, last: 12, names: &MONTHS };
const WEEKDAY: Bounds = Bounds { first: 0, last: 6, names: &WEEKDAYS };

fn refuse<T>(why: String) -> Result<T, CronError> {
    Err(CronError(why))
}

/// Reads a schedule.
pub(super) fn schedule(text: &str) -> Result<Schedule, CronError> {
    if text.is_empty() {
        return refuse("empty spec string".to_owned());
    }
    if text.len() > MAX_BYTES {
        return refuse(format!("a schedule has at most {MAX_BYTES} bytes"));
    }
    let named = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="));
    let (zone, text) = match named.map(|named| named.split_once(' ').unwrap_or((named, ""))) {
        None => (None, text),
        Some((name, rest)) => match zone(name) {
            Some(zone) => (Some(zone), rest.trim()),
            None => return refuse(format!("provided bad location {name}: unknown time zone {name}")),
        },
    };
    let times = if text.starts_with('@') { descriptor(text)? } else { Times::Calendar(calendar(text)?) };
    Ok(Schedule { times, zone })
}

fn descriptor(text: &str) -> Result<Times, CronError> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => return every(text),
    };
    calendar(fields).map(Times::Calendar)
}

fn every(text: &str) -> Result<Times, CronError> {
    let Some(given) = text.strip_prefix("@every ") else {
        return refuse(format!("unrecognized descriptor: {text}"));
    };
    match duration(given) {
        Some(delay) => Ok(Times::Every(Duration::from_secs(delay.as_secs().max(1)))),
        None => refuse(format!("failed to parse duration {text}: time: invalid duration {given:?}")),
    }
}

/// A duration as Go writes it: `1h30m`, `-1.5s`. What is below zero is nothing here.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u32); 8] =
        [("ns", 1), ("us", 1_000), ("µs", 1_000), ("μs", 1_000), ("ms", 1_000_000), ("s", 0), ("m", 60), ("h", 3_600)];
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut whole = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (name, after) = after.split_at(unit_end);
        let (_, size) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        let unit = match name {
            "s" => Duration::from_secs(1),
            "m" | "h" => Duration::from_secs(u64::from(*size)),
            _ => Duration::from_nanos(u64::from(*size)),
        };
        whole = whole.checked_add(times(number, unit)?).filter(|whole| *whole <= LONGEST)?;
        rest = after;
    }
    Some(if negative { Duration::ZERO } else { whole })
}

/// A decimal number of some unit.
fn times(number: &str, unit: Duration) -> Option<Duration> {
    let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
    if integer.is_empty() && fraction.is_empty() {
        return None;
    }
    let read = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok() };
    // More digits than a nanosecond in the largest unit has say nothing.
    let fraction = fraction.get(..fraction.len().min(15))?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let tenths = read(integer)?.checked_mul(scale)?.checked_add(read(fraction)?)?;
    u64::try_from(tenths.checked_mul(unit.as_nanos())? / scale).ok().map(Duration::from_nanos)
}

fn calendar(text: &str) -> Result<Calendar, CronError> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else {
        return refuse(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    };
    Ok(Calendar {
        minute: MINUTE.field(minute)?,
        hour: HOUR.field(hour)?,
        day: DAY.field(day)?,
        month: MONTH.field(month)?,
        weekday: WEEKDAY.field(weekday)?,
    })
}

/// A number, refused in the words of Go's `strconv.Atoi`.
fn number(text: &str) -> Result<u64, CronError> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit());
    let why = match text.parse::<i64>() {
        Ok(number) => match u64::try_from(number) {
            Ok(number) => return Ok(number),
            Err(_) => return refuse(format!("negative number ({number}) not allowed: {text}")),
        },
        Err(_) if digits => "value out of range",
        Err(_) => "invalid syntax",
    };
    refuse(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}"))
}

impl Bounds {
    fn value(&self, text: &str) -> Result<u64, CronError> {
        let named = self.names.iter().zip(self.first..).find(|(name, _)| text.eq_ignore_ascii_case(name));
        named.map_or_else(|| number(text), |(_, value)| Ok(value))
    }

    /// `*`, `a`, `a-b`, each with `/step`.
    fn range(&self, text: &str) -> Result<Field, CronError> {
        let (span, step) = text.split_once('/').map_or((text, None), |(span, step)| (span, Some(step)));
        let (from, to) = span.split_once('-').map_or((span, None), |(from, to)| (from, Some(to)));
        let star = matches!(from, "*" | "?");
        let (from, mut to, alone) = match to {
            _ if star => (self.first, self.last, to.is_none()),
            Some(to) if to.contains('-') => return refuse(format!("too many hyphens: {text}")),
            Some(to) => (self.value(from)?, self.value(to)?, false),
            None => (self.value(from)?, self.value(from)?, true),
        };
        let step = match step {
            None => 1,
            Some(step) if step.contains('/') => return refuse(format!("too many slashes: {text}")),
            Some(step) => {
                // `N/STEP` goes on to the end.
                to = if alone { self.last } else { to };
                number(step)?
            }
        };
        self.check(from, to, step, text)?;
        let values = (from..=to).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        Ok(Field { bits: values.fold(0, |bits, value| bits | 1 << value), star: star && step == 1 })
    }

    fn check(&self, from: u64, to: u64, step: u64, text: &str) -> Result<(), CronError> {
        let Self { first, last, .. } = self;
        if from < *first {
            return refuse(format!("beginning of range ({from}) below minimum ({first}): {text}"));
        }
        if to > *last {
            return refuse(format!("end of range ({to}) above maximum ({last}): {text}"));
        }
        if from > to {
            return refuse(format!("beginning of range ({from}) beyond end of range ({to}): {text}"));
        }
        if step == 0 {
            return refuse(format!("step of range should be a positive number: {text}"));
        }
        Ok(())
    }

    fn field(&self, text: &str) -> Result<Field, CronError> {
        let mut all = Field { bits: 0, star: false };
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let part = self.range(part)?;
            all = Field { bits: all.bits | part.bits, star: all.star || part.star };
        }
        Ok(all)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_schedule_is_refused_in_the_originals_words() {
        let atoi = |text: &str, why| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}");
        let wrong = "invalid syntax";
        for (text, why) in [
            ("", "empty spec string".to_owned()),
            (" ", "expected exactly 5 fields, found 0: []".into()),
            ("* * *  *", "expected exactly 5 fields, found 4: [* * * *]".into()),
            ("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]".into()),
            ("60 * * * *", "end of range (60) above maximum (59): 60".into()),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0".into()),
            ("* * * * 7", "end of range (7) above maximum (6): 7".into()),
            ("*/0 * * * *", "step of range should be a positive number: */0".into()),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1".into()),
            ("1- * * * *", atoi("", wrong)),
            ("-1 * * * *", atoi("", wrong)),
            ("* * * foo *", atoi("foo", wrong)),
            ("*/-2 * * * *", "negative number (-2) not allowed: -2".into()),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3".into()),
            ("1/2/3 * * * *", "too many slashes: 1/2/3".into()),
            ("99999999999999999999 * * * *", atoi("99999999999999999999", "value out of range")),
            ("@reboot", "unrecognized descriptor: @reboot".into()),
            ("@every 5x", "failed to parse duration @every 5x: time: invalid duration \"5x\"".into()),
            ("TZ=Mars/Olympus @daily", "provided bad location Mars/Olympus: unknown time zone Mars/Olympus".into()),
        ] {
            assert_eq!(Schedule::parse(text).unwrap_err().to_string(), why, "{text:?}");
        }
        assert!(Schedule::parse(&"*".repeat(MAX_BYTES + 1)).is_err());
        assert!(Schedule::parse("1,,2 * * * *").is_ok(), "as the original takes it");
    }

    #[test]
    fn durations_are_gos() {
        for (text, millis) in [
            ("5s", 5_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            (".5m", 30_000),
            ("1500ms", 1_500),
            ("2000000us", 2_000),
            ("+3s", 3_000),
            ("0", 0),
            ("-5s", 0),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", ".s", "1.2.3s", "5 s", "9999999999h", "-", "1h x"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    /// Whatever bytes come, reading ends with an answer.
    #[test]
    fn nonsense_is_refused_and_not_more() {
        let mut seed = 7_u64;
        let alphabet = b"0123456789*/-,? @emjansuvry.TZ=";
        for _ in 0..20_000 {
            let letter = |_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from(alphabet[usize::try_from(seed >> 33).unwrap() % alphabet.len()])
            };
            let text: String = (0..12).map(letter).collect();
            let _ = Schedule::parse(&text);
            let _ = every(&format!("@every {text}"));
        }
    }
}
