//! Quantities of resources as numbers.

/// The suffixes and what each multiplies by, in thousandths.
const SUFFIXES: [(&str, i128); 13] = [
    ("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("Ti", 1 << 40), ("Pi", 1 << 50), ("Ei", 1 << 60),
    ("k", 1000), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000), ("E", 1_000_000_000_000_000_000), ("", 1),
];

/// The longest text that is read as a quantity.
const MAX_LEN: usize = 64;

/// A quantity in thousandths, rounded up; `None` where the text is no quantity.
pub fn milli(text: &str) -> Option<i128> {
    let text = text.trim();
    if text.len() > MAX_LEN {
        return None;
    }
    for (suffix, by) in [("m", 1_i128), ("u", 0), ("n", -1)] {
        if let Some(number) = text.strip_suffix(suffix) {
            let thousandths = decimal(number)?;
            return Some(match by {
                1 => div_up(thousandths, 1000),
                0 => div_up(thousandths, 1_000_000),
                _ => div_up(thousandths, 1_000_000_000),
            });
        }
    }
    if let Some((number, exponent)) = text.split_once(['e', 'E']).filter(|(_, exponent)| !exponent.is_empty()) {
        let exponent: i32 = exponent.parse().ok().filter(|exponent: &i32| (-18..=18).contains(exponent))?;
        let scale = 10_i128.checked_pow(exponent.unsigned_abs())?;
        let value = decimal(number)?;
        return if exponent < 0 { Some(div_up(value, scale)) } else { value.checked_mul(scale) };
    }
    let (suffix, by) = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(suffix))?;
    decimal(text.strip_suffix(suffix)?)?.checked_mul(*by)
}

/// A quantity in whole units, rounded up.
pub fn units(text: &str) -> Option<i64> {
    milli(text).and_then(|value| i64::try_from(div_up(value, 1000)).ok())
}

fn div_up(value: i128, by: i128) -> i128 {
    value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0)
}

/// A decimal number in thousandths.
fn decimal(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut thousandths: i128 = 0;
    for at in 0..3 {
        thousandths = thousandths * 10 + i128::from(fraction.as_bytes().get(at).map_or(0, |digit| digit - b'0'));
    }
    let more = fraction.bytes().skip(3).any(|digit| digit != b'0');
    let value = whole.checked_mul(1000)?.checked_add(thousandths + i128::from(more))?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        let cases = [
            ("1", Some(1000)), ("100m", Some(100)), ("0.5", Some(500)), ("1Ki", Some(1_024_000)), ("1.5Gi", Some(1_610_612_736_000)),
            ("2e3", Some(2_000_000)), ("1E", Some(1_000_000_000_000_000_000_000)), ("1u", Some(1)), ("", None), ("x", None), ("-1", Some(-1000)),
        ];
        for (text, wanted) in cases {
            assert_eq!(milli(text), wanted, "{text}");
        }
        assert_eq!(units("1500m"), Some(2));
    }
}
