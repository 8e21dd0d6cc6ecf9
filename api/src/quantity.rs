//! Amounts of resources as Kubernetes writes them: `100m`, `1.5Gi`, `2e3` (`resource.Quantity`).
//!
//! A value is kept exactly, in billionths, which is the precision that Kubernetes keeps.

use std::{cmp::Ordering, fmt, str::FromStr};

use k8s_openapi::apimachinery::pkg::api::resource as openapi;

/// Billionths a unit.
const NANO: i128 = 1_000_000_000;
/// The greatest amount, in billionths: 2^63-1 units, as in Kubernetes. Sums stay within it.
const MAX_NANOS: i128 = i64::MAX as i128 * NANO;
/// A decimal exponent beyond which every amount is out of range on either side.
const EXPONENT_LIMIT: i64 = 64;
/// More digits than any amount in range needs; further ones only count as "more than nothing".
const DIGITS_LIMIT: usize = 64;

const DECIMAL: [(&str, i64); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// How an amount is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    #[default]
    DecimalSi,
}

/// What is wrong with the text of an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It is no number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount. Compares by value: `1000m` equals `1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// Whole units.
    pub fn from_units(units: i64, format: Format) -> Self {
        Self::clamped(i128::from(units) * NANO, format)
    }

    /// Thousandths, e.g. of a CPU.
    pub fn from_milli(milli: i64) -> Self {
        Self::clamped(i128::from(milli) * 1_000_000, Format::DecimalSi)
    }

    fn clamped(nanos: i128, format: Format) -> Self {
        Self { nanos: nanos.clamp(-MAX_NANOS, MAX_NANOS), format }
    }

    /// Whole units, rounded away from zero.
    pub fn value(self) -> i64 {
        self.rounded(NANO)
    }

    /// Thousandths, rounded away from zero; the greatest number where there are more than fit.
    pub fn milli_value(self) -> i64 {
        self.rounded(1_000_000)
    }

    fn rounded(self, unit: i128) -> i64 {
        let whole = div_away(self.nanos, unit);
        i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
    }

    /// The amount as a floating-point number, for ratios.
    #[allow(clippy::cast_precision_loss, reason = "a ratio needs no more")]
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it has a fraction of a unit.
    pub fn has_fraction(self) -> bool {
        self.nanos % NANO != 0
    }

    /// How it is printed.
    pub fn format(self) -> Format {
        self.format
    }

    /// The sum, at most what a quantity can hold. Nothing takes the other's format, as in Kubernetes.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self::clamped(self.nanos + other.nanos, format)
    }

    /// The difference, within what a quantity can hold.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self::clamped(self.nanos - other.nanos, format)
    }

    /// The amount a number of times.
    #[must_use]
    pub fn times(self, factor: i64) -> Self {
        // MAX_NANOS is below 2^93, so that only a factor beyond 2^34 can overflow.
        let nanos = self.nanos.saturating_mul(i128::from(factor));
        Self::clamped(nanos, self.format)
    }
}

/// The canonical form of an amount, e.g. `1` for `1000m`; `None` where it is no amount.
pub fn canonical(text: &str) -> Option<String> {
    text.parse::<Quantity>().ok().map(|quantity| quantity.to_string())
}

fn div_away(value: i128, unit: i128) -> i128 {
    let whole = value / unit;
    if value % unit == 0 { whole } else { whole + value.signum() }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let (sign, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (-1, &text[1..]),
            Some(b'+') => (1, &text[1..]),
            _ => (1, text),
        };
        let (whole, rest) = split_digits(unsigned);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => split_digits(rest),
            None => ("", rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(QuantityError::Format);
        }
        check_suffix_form(suffix)?;
        let (shift, factor, format) = interpret(suffix)?;
        let nanos = scale(whole.trim_start_matches('0'), fraction, shift, factor);
        // A fraction of a binary unit below one is printed as a decimal.
        let small = format == Format::BinarySi && nanos < NANO;
        Ok(Self::clamped(sign * nanos, if small && nanos != 0 { Format::DecimalSi } else { format }))
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `[eEinumkKMGTP]*[-+]?[0-9]*`
fn check_suffix_form(suffix: &str) -> Result<(), QuantityError> {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    if rest.bytes().all(|b| b.is_ascii_digit()) { Ok(()) } else { Err(QuantityError::Format) }
}

/// The decimal exponent, the binary factor and the format of a suffix.
fn interpret(suffix: &str) -> Result<(i64, i128, Format), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(word, _)| *word == suffix) {
        return Ok((*exponent, 1, Format::DecimalSi));
    }
    if let Some((_, bits)) = BINARY.iter().find(|(word, _)| *word == suffix) {
        return Ok((0, 1 << bits, Format::BinarySi));
    }
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent: i64 = digits.parse().map_err(|_| QuantityError::Suffix)?;
    Ok((exponent.clamp(-EXPONENT_LIMIT, EXPONENT_LIMIT), 1, Format::DecimalExponent))
}

/// `whole.fraction * 10^shift * factor` in billionths, rounded up, at most [`MAX_NANOS`].
fn scale(whole: &str, fraction: &str, shift: i64, factor: i128) -> i128 {
    let (fraction, cut) = fraction.split_at(fraction.len().min(DIGITS_LIMIT));
    if whole.len() > DIGITS_LIMIT {
        return MAX_NANOS;
    }
    let mut nanos: i128 = 0;
    let mut inexact = cut.bytes().any(|digit| digit != b'0');
    let places = |length: usize| i64::try_from(length).unwrap_or(EXPONENT_LIMIT);
    for (index, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let exponent = places(whole.len()) - 1 - places(index) + shift + 9;
        let (amount, exact) = digit_at(i128::from(digit - b'0') * factor, exponent);
        nanos = nanos.saturating_add(amount);
        inexact |= !exact;
    }
    exact_sum(nanos, inexact, whole, fraction, shift, factor)
}

/// `amount * 10^exponent`, cut to an integer, and whether nothing was cut off.
fn digit_at(amount: i128, exponent: i64) -> (i128, bool) {
    let power = u32::try_from(exponent.unsigned_abs()).ok().and_then(|e| 10i128.checked_pow(e));
    match (power, exponent < 0) {
        (Some(power), false) => (amount.saturating_mul(power), true),
        (Some(power), true) => (amount / power, amount % power == 0),
        (None, false) => (if amount == 0 { 0 } else { i128::MAX }, true),
        (None, true) => (0, amount == 0),
    }
}

/// Where digits were cut off one by one, their remainders may add up: then the sum is made again with more places.
fn exact_sum(nanos: i128, inexact: bool, whole: &str, fraction: &str, shift: i64, factor: i128) -> i128 {
    if !inexact {
        return nanos.min(MAX_NANOS);
    }
    let digits = format!("{whole}{fraction}");
    let exponent = shift + 9 - i64::try_from(fraction.len()).unwrap_or(EXPONENT_LIMIT);
    let precise = digits.parse::<i128>().ok().and_then(|number| number.checked_mul(factor)).map(|product| {
        let power = u32::try_from(exponent.unsigned_abs()).ok().and_then(|e| 10i128.checked_pow(e));
        power.map_or(1, |power| div_away(product, power))
    });
    precise.unwrap_or(nanos.saturating_add(1)).min(MAX_NANOS)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::BinarySi && !small && !self.has_fraction() {
            return self.fmt_binary(f);
        }
        self.fmt_decimal(f)
    }
}

impl Quantity {
    fn fmt_binary(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.nanos / NANO;
        let fit = BINARY.iter().rev().find(|(_, bits)| units % (1i128 << bits) == 0);
        match fit {
            Some((suffix, bits)) => write!(f, "{}{suffix}", units >> bits),
            None => write!(f, "{units}"),
        }
    }

    fn fmt_decimal(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let fit = DECIMAL.iter().rev().find_map(|(suffix, exponent)| {
            let power = 10i128.checked_pow(u32::try_from(exponent + 9).ok()?)?;
            (self.nanos % power == 0).then_some((self.nanos / power, *suffix, *exponent))
        });
        let (number, suffix, exponent) = fit.unwrap_or((self.nanos, "n", -9));
        match self.format {
            Format::DecimalExponent if exponent != 0 => write!(f, "{number}e{exponent}"),
            Format::DecimalExponent => write!(f, "{number}"),
            _ => write!(f, "{number}{suffix}"),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl TryFrom<&openapi::Quantity> for Quantity {
    type Error = QuantityError;

    fn try_from(quantity: &openapi::Quantity) -> Result<Self, QuantityError> {
        quantity.0.parse()
    }
}

impl From<Quantity> for openapi::Quantity {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn q(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn canonical_forms() {
        for (text, expected) in [
            ("0", "0"),
            ("0n", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("1000k", "1M"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("0.5Gi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("1Ki", "1Ki"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("12e-3", "12e-3"),
            ("-5m", "-5m"),
            ("+5", "5"),
            ("0.0000000001", "1n"),
            ("1.0000000001", "1000000001n"),
            (".5", "500m"),
            ("1.", "1"),
            ("100Ei", "9223372036854775807"),
            ("1e100", "9223372036854775807e0"),
            ("0001", "1"),
            ("0.001Ki", "1024m"),
            ("100e-1", "10"),
            ("123456789123456789123456789", "9223372036854775807"),
        ] {
            let expected = expected.strip_suffix("e0").unwrap_or(expected);
            assert_eq!(q(text).to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity() {
        for text in ["", "-", "a", "1 ", "1i", "1Kii", "1e", "1e1.5", "1.2.3", "٣", "1KiB", "m"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
        assert_eq!("1Zi".parse::<Quantity>().unwrap_err(), QuantityError::Format);
        assert_eq!("1ik".parse::<Quantity>().unwrap_err(), QuantityError::Suffix);
    }

    #[test]
    fn arithmetic() {
        assert_eq!(q("100m").plus(q("0.9")), q("1"));
        assert_eq!(q("0").plus(q("1Gi")).to_string(), "1Gi");
        assert_eq!(q("1Gi").minus(q("1Mi")).to_string(), "1023Mi");
        assert_eq!((q("1n").value(), q("1n").milli_value(), q("-1n").value()), (1, 1, -1));
        assert_eq!(q("8Ei").plus(q("8Ei")), q("9223372036854775807"));
        assert_eq!(q("8E").milli_value(), i64::MAX);
        assert!(q("1Gi") > q("1G"));
    }

    proptest! {
        #[test]
        fn canonical_form_reads_back_and_stays(text in "[+-]?[0-9]{1,22}(\\.[0-9]{0,12})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9]{1,3})?") {
            let quantity: Quantity = text.parse().unwrap();
            let printed = quantity.to_string();
            let again: Quantity = printed.parse().unwrap();
            prop_assert_eq!(quantity, again);
            prop_assert_eq!(printed, again.to_string());
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,40}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
