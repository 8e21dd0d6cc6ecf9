//! The table that the API server translates between JSON and protobuf by: every message that a built-in kind is made
//! of, with the JSON name, number and type of its fields.
//!
//! Three facts meet here: the recorded messages have numbers and types but Go's names; the recorded schemas have the
//! JSON names; and `pointers.txt` names the scalar fields that are pointers in Go, of which an explicit zero says
//! something (`replicas: 0`) while a zero of any other field is the same as absent. A field that only one of the
//! first two knows is an error, so that no field is lost silently.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value};

/// The scalar fields that are pointers in Go: a line a message, its name and the fields' protobuf names.
const POINTERS: &str = include_str!("pointers.txt");

const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";

/// Messages that no schema names but that go over the wire on their own.
const ROOTS: [&str; 3] = [
    "k8s.io.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata",
    "k8s.io.apimachinery.pkg.apis.meta.v1.PartialObjectMetadataList",
    "k8s.io.apimachinery.pkg.apis.meta.v1beta1.PartialObjectMetadataList",
];

/// Messages whose JSON is no object of their fields, with the word that the table has for them.
const SPECIAL: [(&str, &str); 14] = [
    ("k8s.io.apimachinery.pkg.apis.meta.v1.Time", "time"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime", "microtime"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1", "raw"),
    ("k8s.io.apimachinery.pkg.runtime.RawExtension", "raw"),
    ("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSON", "raw"),
    ("k8s.io.apimachinery.pkg.api.resource.Quantity", "quantity"),
    ("k8s.io.apimachinery.pkg.util.intstr.IntOrString", "intorstring"),
    ("k8s.io.api.authentication.v1.ExtraValue", "strings"),
    ("k8s.io.api.authorization.v1.ExtraValue", "strings"),
    ("k8s.io.api.certificates.v1.ExtraValue", "strings"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.Verbs", "strings"),
    ("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", "schemaorbool"),
    ("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", "schemaorarray"),
    ("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray", "schemaorstrings"),
];

const SCALARS: [&str; 6] = ["string", "int32", "int64", "bool", "double", "bytes"];

type Object = Map<String, Value>;

/// The facts that meet.
struct Facts<'a> {
    messages: &'a Object,
    schemas: &'a Object,
    pointers: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

/// The table: a line `apiVersion message` a message (`-` where it is no kind), then a line `number name type` a field.
pub(crate) fn table(messages: &Value, schemas: &Value) -> anyhow::Result<String> {
    let facts = Facts {
        messages: messages.as_object().context("the messages are no object")?,
        schemas: schemas.as_object().context("the schemas are no object")?,
        pointers: POINTERS.lines().map(pointer_line).collect(),
    };
    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    let mut waiting: BTreeSet<String> = ROOTS.into_iter().map(str::to_owned).collect();
    waiting.extend(facts.messages.keys().filter(|name| facts.api_version(name).is_some()).cloned());
    while let Some(name) = waiting.pop_first() {
        let text = facts.message(&name, &mut |used| {
            if used != name && !lines.contains_key(used) {
                waiting.insert(used.to_owned());
            }
        })?;
        lines.insert(name, text);
    }
    Ok(lines.into_values().collect())
}

fn pointer_line(line: &str) -> (&str, BTreeSet<&str>) {
    let mut words = line.split(' ');
    (words.next().unwrap_or_default(), words.collect())
}

/// The schema's name of a message.
fn component(message: &str) -> String {
    message
        .replacen("k8s.io.", "io.k8s.", 1)
        .replace("apiextensions_apiserver", "apiextensions-apiserver")
        .replace("kube_aggregator", "kube-aggregator")
}

fn special(message: &str) -> Option<&'static str> {
    SPECIAL.iter().find(|(name, _)| *name == message).map(|(_, word)| *word)
}

impl<'a> Facts<'a> {
    fn schema(&self, message: &str) -> Option<&'a Value> {
        self.schemas.get(&component(message))
    }

    /// The `apiVersion` of a message that is a kind.
    fn api_version(&self, message: &str) -> Option<String> {
        if ROOTS.contains(&message) {
            let beta = if message.contains("v1beta1") { "v1beta1" } else { "v1" };
            return Some(format!("meta.k8s.io/{beta}"));
        }
        let gvk = self.schema(message)?.get("x-kubernetes-group-version-kind")?.get(0)?;
        let (group, version) = (gvk["group"].as_str()?, gvk["version"].as_str()?);
        Some(if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") })
    }

    /// The lines of a message; tells of each message that it uses.
    fn message(&self, name: &str, uses: &mut dyn FnMut(&str)) -> anyhow::Result<String> {
        let schema = self.schema(name);
        let mut unmatched: BTreeSet<&str> =
            schema.and_then(|s| s["properties"].as_object()).into_iter().flatten().map(|(n, _)| n.as_str()).collect();
        let is_kind = self.api_version(name).is_some();
        if is_kind {
            unmatched.remove("apiVersion");
            unmatched.remove("kind");
        }
        let mut fields: Vec<(u64, String)> = Vec::new();
        for (field, facts) in self.fields(name)? {
            let number = facts["n"].as_u64().with_context(|| format!("{name}.{field} has no number"))?;
            let (ty, used) = type_word(name, &facts["t"], facts["repeated"] == true)?;
            if let Some(used) = &used {
                uses(used);
            }
            let (mark, json_name) = match json_name(field, schema) {
                Some(known) => {
                    unmatched.remove(known.as_str());
                    (self.mark(name, field, &known, schema), known)
                }
                None => {
                    let inner = used.with_context(|| format!("{name}.{field} is in no schema"))?;
                    self.take_inlined(&inner, &mut unmatched)?;
                    ("~", field.to_owned())
                }
            };
            fields.push((number, format!(" {number} {json_name} {mark}{ty}\n")));
        }
        ensure!(unmatched.is_empty(), "{name} has no numbers for {unmatched:?}");
        fields.sort();
        let api_version = self.api_version(name).unwrap_or_else(|| "-".to_owned());
        let mut text = format!("{api_version} {name}\n");
        fields.iter().try_for_each(|(_, line)| text.write_str(line))?;
        Ok(text)
    }

    fn fields(&self, message: &str) -> anyhow::Result<impl Iterator<Item = (&'a str, &'a Value)> + use<'a>> {
        let fields = self.messages.get(message).and_then(Value::as_object);
        Ok(fields.with_context(|| format!("no message {message}"))?.iter().map(|(name, value)| (name.as_str(), value)))
    }

    /// `*` for a pointer, `!` for a field that Go prints even where it is zero.
    fn mark(&self, message: &str, field: &str, json_name: &str, schema: Option<&Value>) -> &'static str {
        if self.pointers.get(message).is_some_and(|fields| fields.contains(field)) {
            return "*";
        }
        let required = schema.and_then(|s| s["required"].as_array()).into_iter().flatten();
        if required.into_iter().any(|name| name == json_name) { "!" } else { "" }
    }

    /// Takes the fields of an inlined message from those that have no number yet.
    fn take_inlined(&self, message: &str, unmatched: &mut BTreeSet<&str>) -> anyhow::Result<()> {
        for (field, facts) in self.fields(message)? {
            if !unmatched.remove(field) && self.schema(message).is_none_or(|s| json_name(field, Some(s)).is_none()) {
                match type_word(message, &facts["t"], false)?.1 {
                    Some(inner) => self.take_inlined(&inner, unmatched)?,
                    None => bail!("{message}.{field} is inlined but in no schema"),
                }
            }
        }
        Ok(())
    }
}

/// The JSON name of a field; `None` where its message is inlined. A message without a schema is named as in JSON.
fn json_name(field: &str, schema: Option<&Value>) -> Option<String> {
    let Some(properties) = schema.and_then(|s| s.get("properties")).and_then(Value::as_object) else {
        return Some(field.to_owned());
    };
    let extension = field.strip_prefix('x').filter(|rest| rest.starts_with("Kubernetes")).map(|rest| {
        let dashed = rest.chars().flat_map(|c| c.is_uppercase().then_some('-').into_iter().chain(c.to_lowercase()));
        format!("x{}", dashed.collect::<String>())
    });
    let names = [Some(field.to_owned()), Some(format!("${field}")), extension];
    let exact = names.into_iter().flatten().find(|name| properties.contains_key(name));
    exact.or_else(|| properties.keys().find(|name| name.eq_ignore_ascii_case(field)).cloned())
}

/// The table's word for a type, and the message that it is of.
fn type_word(message: &str, ty: &Value, repeated: bool) -> anyhow::Result<(String, Option<String>)> {
    let ty = ty.as_str().with_context(|| format!("{message} has a field without a type"))?;
    let (prefix, ty) = match ty.strip_prefix("map<string, ").and_then(|rest| rest.strip_suffix('>')) {
        Some(values) => ("{}", values),
        None => (if repeated { "[]" } else { "" }, ty),
    };
    if SCALARS.contains(&ty) {
        return Ok((format!("{prefix}{ty}"), None));
    }
    let package = message.rsplit_once('.').map_or("", |(package, _)| package);
    let full = match ty.strip_prefix('.').unwrap_or(ty) {
        absolute if absolute.contains('.') => absolute.to_owned(),
        local => format!("{package}.{local}"),
    };
    match special(&full) {
        Some("schemaorbool" | "schemaorarray" | "schemaorstrings") => {
            let props = full.split("OrBool").next().and_then(|f| f.split("OrArray").next());
            let props = props.and_then(|f| f.split("OrStringArray").next()).map(str::to_owned);
            Ok((format!("{prefix}{}", special(&full).unwrap_or_default()), props))
        }
        Some(word) => Ok((format!("{prefix}{word}"), None)),
        None if full.starts_with(META) && full.ends_with(".Duration") => bail!("{message} has a duration"),
        None => {
            let short = full.strip_prefix(package).and_then(|rest| rest.strip_prefix('.')).unwrap_or(&full);
            Ok((format!("{prefix}{short}"), Some(full.clone())))
        }
    }
}
