//! What extends and guards the API server: webhooks, admission policies, aggregated services, flow control.

use serde_json::Value;

use super::{
    Printer, Row,
    format::{NONE, UNSET, field, label_selector},
};

pub(super) fn printer(resource: &str) -> Option<Printer> {
    Some(match resource {
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => {
            |row| vec![row.name(), row.count("webhooks").into(), row.age().into()]
        }
        "mutatingadmissionpolicies" => |row| admission_policy(row, "spec/mutations"),
        "validatingadmissionpolicies" => |row| admission_policy(row, "spec/validations"),
        "mutatingadmissionpolicybindings" | "validatingadmissionpolicybindings" => policy_binding,
        "apiservices" => api_service,
        "flowschemas" => flow_schema,
        "prioritylevelconfigurations" => priority_level,
        _ => return None,
    })
}

fn admission_policy(row: &Row<'_>, rules: &str) -> Vec<Value> {
    let kind = match row.at("spec/paramKind") {
        Some(kind) if kind.is_object() => format!("{}/{}", field(kind, "apiVersion"), field(kind, "kind")),
        _ => UNSET.to_owned(),
    };
    vec![row.name(), row.count(rules).into(), kind.into(), row.age().into()]
}

fn policy_binding(row: &Row<'_>) -> Vec<Value> {
    let parameters = match row.at("spec/paramRef") {
        Some(reference) if reference.is_object() => {
            let name = match reference.get("selector") {
                Some(selector) => label_selector(Some(selector)),
                None => field(reference, "name").to_owned(),
            };
            format!("{}/{name}", field(reference, "namespace"))
        }
        _ => UNSET.to_owned(),
    };
    vec![row.name(), row.text("spec/policyName").into(), parameters.into(), row.age().into()]
}

fn api_service(row: &Row<'_>) -> Vec<Value> {
    let service = match row.at("spec/service") {
        Some(service) if service.is_object() => format!("{}/{}", field(service, "namespace"), field(service, "name")),
        _ => "Local".to_owned(),
    };
    let available = match row.condition("Available").map(|c| (field(c, "status"), field(c, "reason"))) {
        None => "Unknown".to_owned(),
        Some(("True", _)) => "True".to_owned(),
        Some((status, "")) => status.to_owned(),
        Some((status, reason)) => format!("{status} ({reason})"),
    };
    vec![row.name(), service.into(), available.into(), row.age().into()]
}

fn flow_schema(row: &Row<'_>) -> Vec<Value> {
    let dangling = row.condition("Dangling").map_or("?", |condition| field(condition, "status"));
    vec![
        row.name(),
        row.text("spec/priorityLevelConfiguration/name").into(),
        row.int("spec/matchingPrecedence").into(),
        row.text_or("spec/distinguisherMethod/type", NONE).into(),
        row.age().into(),
        dangling.into(),
    ]
}

fn priority_level(row: &Row<'_>) -> Vec<Value> {
    let number = |path: &str| row.at(path).map_or_else(|| NONE.to_owned(), Value::to_string);
    let kind = if row.text("spec/type") == "Exempt" { "exempt" } else { "limited" };
    let queuing = |name: &str| number(&format!("spec/limited/limitResponse/queuing/{name}")).into();
    vec![
        row.name(),
        row.text("spec/type").into(),
        number(&format!("spec/{kind}/nominalConcurrencyShares")).into(),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        row.age().into(),
    ]
}
