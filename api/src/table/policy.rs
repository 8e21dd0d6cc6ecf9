//! Disruption budgets, roles, certificates, leases, runtime and priority classes.

use jiff::SignedDuration;
use serde_json::Value;

use super::{
    Printer, Row,
    format::{NONE, field, scalar},
    human_duration,
};

pub(super) fn printer(resource: &str) -> Option<Printer> {
    Some(match resource {
        "poddisruptionbudgets" => disruption_budget,
        "clusterrolebindings" | "rolebindings" => role_binding,
        "certificatesigningrequests" => signing_request,
        "leases" => |row| vec![row.name(), row.text("spec/holderIdentity").into(), row.age().into()],
        "runtimeclasses" => |row| vec![row.name(), row.text("handler").into(), row.age().into()],
        "priorityclasses" => priority_class,
        _ => return None,
    })
}

fn disruption_budget(row: &Row<'_>) -> Vec<Value> {
    let bound = |path: &str| row.at(path).map_or_else(|| "N/A".to_owned(), scalar).into();
    vec![
        row.name(),
        bound("spec/minAvailable"),
        bound("spec/maxUnavailable"),
        row.int("status/disruptionsAllowed").into(),
        row.age().into(),
    ]
}

fn role_binding(row: &Row<'_>) -> Vec<Value> {
    let role = format!("{}/{}", row.text("roleRef/kind"), row.text("roleRef/name"));
    let of_kind = |kind: &str| {
        let subjects = row.list("subjects").iter().filter(|subject| field(subject, "kind") == kind);
        let name = |subject: &Value| match (kind, field(subject, "name")) {
            ("ServiceAccount", name) => format!("{}/{name}", field(subject, "namespace")),
            (_, name) => name.to_owned(),
        };
        Value::from(subjects.map(name).collect::<Vec<_>>().join(", "))
    };
    vec![row.name(), role.into(), row.age().into(), of_kind("User"), of_kind("Group"), of_kind("ServiceAccount")]
}

fn signing_request(row: &Row<'_>) -> Vec<Value> {
    let has = |kind: &str| row.condition(kind).is_some();
    let mut status = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        status.push_str(",Failed");
    }
    if !row.text("status/certificate").is_empty() {
        status.push_str(",Issued");
    }
    let seconds = row.at("spec/expirationSeconds").and_then(Value::as_i64);
    vec![
        row.name(),
        row.age().into(),
        row.text_or("spec/signerName", NONE).into(),
        row.text("spec/username").into(),
        seconds.map_or_else(|| NONE.to_owned(), |s| human_duration(SignedDuration::from_secs(s))).into(),
        status.into(),
    ]
}

fn priority_class(row: &Row<'_>) -> Vec<Value> {
    vec![
        row.name(),
        row.int("value").into(),
        row.flag("globalDefault").into(),
        row.age().into(),
        row.text_or("preemptionPolicy", "PreemptLowerPriority").into(),
    ]
}
