//! The order of merged lists in a strategic merge patch: that of the patch for what the patch names, that of the
//! server for the rest, and between the two as the server had them.

use std::collections::HashMap;

use serde_json::Value;

use super::strategic::Fault;

/// What tells an entry of a list apart: its merge key's value, or for scalars the entry.
pub(super) fn identity(entry: &Value, key: Option<&str>) -> Result<String, Fault> {
    match key {
        None => Ok(entry.to_string()),
        Some(key) => {
            let value = entry.get(key).ok_or_else(|| Fault::NoMergeKey(entry.to_string(), key.to_owned()))?;
            Ok(value.to_string())
        }
    }
}

/// Where each entry stands in a list.
pub(super) struct Places(HashMap<String, usize>);

impl Places {
    pub(super) fn of(list: &[Value], key: Option<&str>) -> Result<Self, Fault> {
        let mut places = HashMap::with_capacity(list.len());
        for (index, entry) in list.iter().enumerate() {
            places.entry(identity(entry, key)?).or_insert(index);
        }
        Ok(Self(places))
    }

    pub(super) fn get(&self, identity: &str) -> Option<usize> {
        self.0.get(identity).copied()
    }
}

/// Orders a merged list: `patch_order` for the entries that it has, `server_order` for the others.
pub(super) fn arrange(
    merged: Vec<Value>,
    patch_order: &Places,
    server_order: &Places,
    key: Option<&str>,
) -> Result<Vec<Value>, Fault> {
    let mut from_patch = Vec::new();
    let mut from_server = Vec::new();
    for entry in merged {
        let identity = identity(&entry, key)?;
        let on_server = server_order.get(&identity);
        match patch_order.get(&identity) {
            Some(place) => from_patch.push((place, on_server, entry)),
            None => from_server.push((on_server.unwrap_or(usize::MAX), on_server, entry)),
        }
    }
    from_patch.sort_by_key(|(place, ..)| *place);
    from_server.sort_by_key(|(place, ..)| *place);
    Ok(interleave(from_server, from_patch))
}

type Placed = (usize, Option<usize>, Value);

/// Merges two ordered lists: an entry of the first goes first only where the server had both, in that order.
fn interleave(server: Vec<Placed>, patch: Vec<Placed>) -> Vec<Value> {
    let mut out = Vec::with_capacity(server.len() + patch.len());
    let mut server = server.into_iter().peekable();
    let mut patch = patch.into_iter().peekable();
    loop {
        let server_first = match (server.peek(), patch.peek()) {
            (None, None) => return out,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((_, left, _)), Some((_, right, _))) => matches!((left, right), (Some(l), Some(r)) if l < r),
        };
        let next = if server_first { server.next() } else { patch.next() };
        out.extend(next.map(|(.., entry)| entry));
    }
}
