//! Label and field selectors.

use crate::wire::Head;

/// What a list or watch selects by: labels, fields, or both.
#[derive(Clone, Debug, Default)]
pub struct Selector {}

impl Selector {
    /// The selector that matches everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Whether an object with this head is selected.
    pub fn matches(&self, _head: &Head) -> bool {
        true
    }
}
