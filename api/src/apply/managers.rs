//! `metadata.managedFields`: the managers of an object and the fields of each.

use serde_json::{Map, Value, json};

use super::set::FieldSet;
use crate::object::Object;

/// How many managers that update are told apart; the fields of older ones are put together, as in Kubernetes.
const MAX_UPDATE_MANAGERS: usize = 10;
/// Who then has those fields.
const ANCIENT: &str = "ancient-changes";

/// How a manager came by its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Apply,
    Update,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One manager.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) kind: Kind,
    pub(super) api_version: String,
    pub(super) time: Option<String>,
    pub(super) subresource: String,
    pub(super) fields: FieldSet,
}

impl Entry {
    /// Whether this is the manager of a name. One that applies is the same in every version.
    pub(super) fn is(&self, manager: &str, kind: Kind, subresource: &str, api_version: &str) -> bool {
        self.manager == manager
            && self.kind == kind
            && self.subresource == subresource
            && (kind == Kind::Apply || self.api_version == api_version)
    }

    fn is_same_as(&self, other: &Self) -> bool {
        self.is(&other.manager, other.kind, &other.subresource, &other.api_version)
    }

    fn read(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = match text("operation").as_str() {
            "Apply" => Kind::Apply,
            "Update" => Kind::Update,
            _ => return None,
        };
        Some(Self {
            manager: text("manager"),
            kind,
            api_version: text("apiVersion"),
            time: Some(text("time")).filter(|time| !time.is_empty()),
            subresource: text("subresource"),
            fields: FieldSet::of_value(value.get("fieldsV1")?),
        })
    }

    fn to_value(&self) -> Value {
        let mut map = Map::new();
        let mut put = |name: &str, value: &str| {
            if !value.is_empty() {
                map.insert(name.to_owned(), value.into());
            }
        };
        put("manager", &self.manager);
        put("operation", self.kind.as_str());
        put("apiVersion", &self.api_version);
        put("time", self.time.as_deref().unwrap_or_default());
        put("fieldsType", "FieldsV1");
        map.insert("fieldsV1".to_owned(), self.fields.to_value());
        if !self.subresource.is_empty() {
            map.insert("subresource".to_owned(), json!(self.subresource));
        }
        Value::Object(map)
    }
}

/// All managers of an object.
#[derive(Clone, Debug, Default)]
pub(super) struct Managers(Vec<Entry>);

impl Managers {
    /// Reads those of an object; entries that cannot be read are nobody's.
    pub(super) fn of(object: &Object) -> Self {
        let list = object.at(&["metadata", "managedFields"]).and_then(Value::as_array);
        Self(list.into_iter().flatten().filter_map(Entry::read).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.0.iter_mut()
    }

    /// Gives a manager other fields and a new time; the fields that it had.
    pub(super) fn replace(&mut self, entry: Entry) -> Option<FieldSet> {
        match self.0.iter_mut().find(|known| known.is_same_as(&entry)) {
            Some(known) => Some(std::mem::replace(known, entry).fields),
            None => {
                self.0.push(entry);
                None
            }
        }
    }

    /// Gives a manager more fields and a new time.
    pub(super) fn insert(&mut self, mut entry: Entry) {
        if let Some(known) = self.0.iter_mut().find(|known| known.is_same_as(&entry)) {
            entry.fields.unite(&known.fields);
            *known = entry;
        } else {
            self.0.push(entry);
        }
    }

    pub(super) fn drop_empty(&mut self) {
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// Whether the same managers have the same fields, whenever they came by them.
    pub(super) fn same_fields(&self, other: &Self) -> bool {
        let is_in_other = |entry: &Entry| {
            let known = other.0.iter().find(|known| known.is_same_as(entry));
            known.is_some_and(|known| known.fields == entry.fields && known.api_version == entry.api_version)
        };
        self.0.len() == other.0.len() && self.0.iter().all(is_in_other)
    }

    /// Puts the fields of the oldest managers together where there are too many.
    pub(super) fn cap(&mut self) {
        let is_update = |entry: &Entry| entry.kind == Kind::Update;
        let count = self.0.iter().filter(|entry| is_update(entry)).count();
        if count <= MAX_UPDATE_MANAGERS {
            return;
        }
        self.sort();
        let mut excess = count - MAX_UPDATE_MANAGERS + 1;
        let mut old = Vec::new();
        self.0.retain(|entry| {
            let goes = is_update(entry) && excess > 0;
            if goes {
                excess -= 1;
                old.push(entry.clone());
            }
            !goes
        });
        for entry in old {
            self.insert(Entry { manager: ANCIENT.to_owned(), subresource: String::new(), ..entry });
        }
    }

    fn sort(&mut self) {
        self.0.sort_by(|a, b| {
            let key = |entry: &Entry| {
                (
                    entry.kind,
                    entry.time.clone(),
                    entry.manager.clone(),
                    entry.api_version.clone(),
                    entry.subresource.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
    }

    /// As `metadata.managedFields`, those that apply first, then by time.
    pub(super) fn to_value(&self) -> Value {
        let mut sorted = self.clone();
        sorted.sort();
        sorted.0.iter().map(Entry::to_value).collect()
    }
}

/// Whether a client asks to forget all managers: a list of one empty entry.
pub(super) fn is_reset(object: &Object) -> bool {
    let list = object.at(&["metadata", "managedFields"]).and_then(Value::as_array);
    matches!(list.map(Vec::as_slice), Some([Value::Object(entry)]) if entry.is_empty())
}
