//! Tables for people (`as=Table`), in pieces: so that a list of any length is one row at a time, and a watch sends
//! its columns once.

use bytes::Bytes;
use serde_json::Value;
use skiff_api::{
    kinds::ResourceDef,
    object::Object,
    status::ApiError,
    table::{IncludeObject, column_definitions, row},
};

use super::answer::Context;

/// Makes the pieces of a table.
pub struct Tabulator<'a> {
    def: &'a ResourceDef,
    context: &'a Context,
}

impl<'a> Tabulator<'a> {
    /// For answers in this context.
    pub fn new(context: &'a Context) -> Result<Self, ApiError> {
        let def = context.def.as_deref().ok_or_else(|| ApiError::internal("a table of an unknown resource"))?;
        Ok(Self { def, context })
    }

    /// The table up to its first row; the columns are left out of all but a watch's first frame.
    pub fn head(&self, metadata: &str, with_columns: bool) -> String {
        let columns = if with_columns { Value::Array(column_definitions(&self.def.columns)) } else { Value::Null };
        let version = self.context.meta_version();
        format!(
            r#"{{"kind":"Table","apiVersion":"{version}","metadata":{metadata},"columnDefinitions":{columns},"rows":["#
        )
    }

    /// The row of an encoded object.
    pub fn row(&self, json: &Bytes) -> Result<Bytes, ApiError> {
        let object = Object::from_slice(json).map_err(ApiError::internal)?;
        let include: IncludeObject = self.context.include;
        Ok(row(self.def, &object, include, self.context.now).to_string().into())
    }
}
