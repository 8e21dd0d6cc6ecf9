//! Node selectors: whether a node matches a term, as scheduler and agent ask.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm};

use super::{LabelSelector, Operator, Requirement};

/// Whether a node matches a term: all of its expressions and fields. An empty term matches nothing.
pub fn matches_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    let (labels, fields) =
        (term.match_expressions.as_deref().unwrap_or(&[]), term.match_fields.as_deref().unwrap_or(&[]));
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    let name = [("metadata.name", node.metadata.name.as_deref().unwrap_or_default())];
    requirements(labels).is_some_and(|all| all.matches(&node.metadata.labels))
        && requirements(fields).is_some_and(|all| all.matches::<[(&str, &str)]>(&name))
}

/// The expressions as a selector; `None` if one cannot be read.
fn requirements(list: &[NodeSelectorRequirement]) -> Option<LabelSelector> {
    let read = |one: &NodeSelectorRequirement| {
        let operator = match one.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::Greater,
            "Lt" => Operator::Less,
            _ => return None,
        };
        Requirement::new(&one.key, operator, one.values.clone().unwrap_or_default()).ok()
    };
    list.iter().map(read).collect::<Option<Vec<_>>>().map(LabelSelector::new)
}
