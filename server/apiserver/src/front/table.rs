//! Tables for people (`as=Table`): columns of the kind, a row an object.

use bytes::Bytes;
use serde_json::{Value, json};
use skiff_api::{object::Object, status::ApiError};

use super::answer::{Context, partial};

/// What each row carries of its object (`includeObject`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// From the query's value; what is unknown reads as the default.
    pub fn parse(value: &str) -> Self {
        match value {
            "None" => Self::None,
            "Object" => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// Makes the pieces of a table.
pub struct Tabulator<'a> {
    context: &'a Context,
}

impl<'a> Tabulator<'a> {
    /// For answers in this context.
    pub fn new(context: &'a Context) -> Self {
        Self { context }
    }

    /// The table up to its first row; the columns are left out of all but a watch's first frame.
    pub fn head(&self, metadata: &str, with_columns: bool) -> String {
        let columns = if with_columns { self.columns() } else { Value::Null };
        let version = self.context.meta_version();
        format!(
            r#"{{"kind":"Table","apiVersion":"{version}","metadata":{metadata},"columnDefinitions":{columns},"rows":["#
        )
    }

    fn columns(&self) -> Value {
        let columns = self.context.def.as_ref().map(|def| def.columns.as_slice()).unwrap_or_default();
        let column = |c: &skiff_api::kinds::Column| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority});
        columns.iter().map(column).collect()
    }

    /// The row of an encoded object.
    pub fn row(&self, json: &Bytes) -> Result<Bytes, ApiError> {
        let object = Object::from_slice(json).map_err(ApiError::internal)?;
        let cells = Value::Array(vec![object.name().into()]);
        let mut row = format!(r#"{{"cells":{cells}"#).into_bytes();
        match self.context.include {
            Include::None => row.extend_from_slice(b",\"object\":null"),
            Include::Metadata => {
                row.extend_from_slice(b",\"object\":");
                row.extend_from_slice(&partial(json, self.context.meta_version())?);
            }
            Include::Object => {
                row.extend_from_slice(b",\"object\":");
                row.extend_from_slice(json);
            }
        }
        row.push(b'}');
        Ok(row.into())
    }
}
