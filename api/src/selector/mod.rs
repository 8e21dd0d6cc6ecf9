//! Label and field selectors: parsed from Kubernetes' string syntax and from `LabelSelector` objects, matched
//! against the head of an object, and printed back.
//!
//! - [`LabelSelector`]: requirements on labels, usable alone by controllers.
//! - [`FieldSelector`]: requirements on the selectable fields of a kind.
//! - [`Selector`]: both together, as a list or a watch has them.

mod fields;
mod labels;
mod lexer;
mod nodes;
mod rules;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use fields::FieldSelector;
pub use labels::{LabelSelector, Labels, Operator, Requirement};
pub use nodes::matches_term;

use crate::{status::ApiError, wire::Head};

/// What a list or watch selects by: labels, fields, or both. Cloning shares the requirements.
#[derive(Clone, Debug, Default)]
pub struct Selector(Option<Arc<Parts>>);

#[derive(Debug, Default)]
struct Parts {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selector {
    /// The selector that matches everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// The selector of two requirements that both must hold.
    pub fn new(labels: LabelSelector, fields: FieldSelector) -> Self {
        if labels.is_everything() && fields.is_everything() {
            return Self::everything();
        }
        Self(Some(Arc::new(Parts { labels, fields })))
    }

    /// Parses the `labelSelector` and `fieldSelector` of a query. `selectable` names the fields that the kind can be
    /// selected by besides its name and namespace. What cannot be parsed or selected by is a 400.
    pub fn parse(labels: Option<&str>, fields: Option<&str>, selectable: &[&'static str]) -> Result<Self, ApiError> {
        let labels = LabelSelector::parse(labels.unwrap_or_default()).map_err(ApiError::bad_request)?;
        let fields = FieldSelector::parse(fields.unwrap_or_default()).map_err(ApiError::bad_request)?;
        fields.check(selectable).map_err(ApiError::bad_request)?;
        Ok(Self::new(labels, fields))
    }

    /// Whether an object with this head is selected.
    pub fn matches(&self, head: &Head) -> bool {
        let Some(parts) = &self.0 else { return true };
        parts.labels.matches(&head.labels) && parts.fields.matches(head)
    }

    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        self.0.is_none()
    }

    /// The one name that can be selected, if the selector pins one (`metadata.name=x`).
    pub fn pinned_name(&self) -> Option<&str> {
        self.0.as_ref()?.fields.pinned("metadata.name")
    }

    /// The value that a field must have, if the selector pins one (`spec.nodeName=x`).
    pub fn pinned_field(&self, field: &str) -> Option<&str> {
        self.0.as_ref()?.fields.pinned(field)
    }

    /// The requirements on labels, printed.
    pub fn label_text(&self) -> String {
        self.0.as_ref().map(|parts| parts.labels.to_string()).unwrap_or_default()
    }

    /// The requirements on fields, printed.
    pub fn field_text(&self) -> String {
        self.0.as_ref().map(|parts| parts.fields.to_string()).unwrap_or_default()
    }
}
