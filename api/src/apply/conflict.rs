//! What is said when managers want different things.

use serde_json::json;

use super::{
    managers::{Entry, Kind},
    set::FieldSet,
};
use crate::status::{ApiError, Reason};

/// 409 with a cause for every field, worded as by Kubernetes.
pub(super) fn error(conflicts: &[(&Entry, FieldSet)]) -> ApiError {
    let mut causes = Vec::new();
    let mut by_manager: Vec<(String, Vec<String>)> = Vec::new();
    for (entry, fields) in conflicts {
        let who = who(entry);
        let paths = fields.paths();
        for path in &paths {
            let message = format!("conflict with {who}");
            causes.push(json!({"reason": "FieldManagerConflict", "message": message, "field": path}));
        }
        by_manager.push((who, paths));
    }
    by_manager.sort();
    let message = match by_manager.as_slice() {
        [(who, paths)] if paths.len() == 1 => {
            format!("Apply failed with 1 conflict: conflict with {who}: {}", paths.concat())
        }
        all => {
            let lines =
                |(who, paths): &(String, Vec<String>)| format!("conflicts with {who}:\n- {}", paths.join("\n- "));
            let lines: Vec<String> = all.iter().map(lines).collect();
            format!("Apply failed with {} conflicts: {}", causes.len(), lines.join("\n"))
        }
    };
    ApiError { details: json!({"causes": causes}), ..ApiError::new(Reason::Conflict, message) }
}

fn who(entry: &Entry) -> String {
    let mut who = format!("{:?}", entry.manager);
    if !entry.subresource.is_empty() {
        who = format!("{who} with subresource {:?}", entry.subresource);
    }
    match entry.kind {
        Kind::Update => format!("{who} using {}", entry.api_version),
        Kind::Apply => who,
    }
}
