//! Quantities as they stand in objects, as numbers; what is no quantity is `None`.

use skiff_api::quantity::Quantity;

/// A quantity in thousandths, rounded up.
pub(crate) fn milli(text: &str) -> Option<i128> {
    text.parse::<Quantity>().ok().map(|quantity| quantity.milli_value().into())
}

/// A quantity in whole units, rounded up.
pub(crate) fn units(text: &str) -> Option<i64> {
    text.parse::<Quantity>().ok().map(Quantity::value)
}
