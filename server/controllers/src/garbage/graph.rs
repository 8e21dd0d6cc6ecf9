//! Who owns whom, by UID, over all kinds. No I/O.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde::Deserialize;
use skiff_api::object::Object;

use crate::catalog::Known;

/// The finalizer of an owner whose dependents are to be left.
pub const ORPHAN: &str = "orphan";
/// The finalizer of an owner that goes after its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";

/// An entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    /// The owner's `group/version`.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// The owner's UID.
    pub uid: String,
    /// Whether foreground deletion of the owner waits for this dependent.
    pub block_owner_deletion: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    namespace: Option<String>,
    name: String,
    uid: String,
    owner_references: Option<Vec<Owner>>,
    finalizers: Option<Vec<String>>,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Partial {
    metadata: Metadata,
}

/// An object, as far as ownership goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its resource.
    pub known: Arc<Known>,
    /// Its namespace, empty for cluster-scoped ones.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its owners.
    pub owners: Vec<Owner>,
    /// Whether its deletion has begun.
    pub deleting: bool,
    /// Whether it is to leave its dependents.
    pub orphans: bool,
    /// Whether it is to go after its dependents.
    pub foreground: bool,
}

impl Node {
    /// Reads an object's metadata from its JSON. Answers with the UID.
    pub fn read(known: &Arc<Known>, json: &[u8]) -> Option<(String, Self)> {
        let Partial { metadata } = serde_json::from_slice(json).ok()?;
        let has = |name: &str| metadata.finalizers.iter().flatten().any(|finalizer| finalizer == name);
        let node = Self {
            known: Arc::clone(known),
            orphans: has(ORPHAN),
            foreground: has(FOREGROUND),
            namespace: metadata.namespace.unwrap_or_default().into(),
            name: metadata.name.into(),
            owners: metadata.owner_references.unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
        };
        (!metadata.uid.is_empty()).then_some((metadata.uid, node))
    }

    /// Whether it keeps an owner from going in the foreground.
    pub fn blocks(&self, owner: &str) -> bool {
        self.owners.iter().any(|known| known.uid == owner && known.block_owner_deletion)
    }

    /// Whether it waits for its dependents to go.
    pub fn is_waiting(&self) -> bool {
        self.deleting && self.foreground
    }
}

/// All objects.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    /// One object.
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// An owner, if it is there as a dependent says: under its name, in its namespace or in none.
    pub fn owner_of(&self, dependent: &Node, owner: &Owner) -> Option<&Node> {
        let is_near = |known: &&Node| known.namespace.is_empty() || known.namespace == dependent.namespace;
        self.get(&owner.uid).filter(|known| *known.name == *owner.name).filter(is_near)
    }

    /// The UIDs of the objects that name this one as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &String> {
        self.dependents.get(uid).into_iter().flatten()
    }

    /// How many of the dependents keep this object from going in the foreground.
    pub fn blocking(&self, uid: &str) -> usize {
        self.dependents(uid).filter(|dependent| self.get(dependent).is_some_and(|node| node.blocks(uid))).count()
    }

    /// The UIDs of a resource's objects.
    pub fn of_resource(&self, known: &Known) -> Vec<String> {
        self.nodes.iter().filter(|(_, node)| *node.known == *known).map(|(uid, _)| uid.clone()).collect()
    }

    /// An object came or changed. Answers with what has to be looked at.
    pub fn set(&mut self, uid: &str, node: Node) -> Vec<String> {
        let mut look = Vec::new();
        let old = self.nodes.get(uid);
        if old == Some(&node) {
            return look;
        }
        if node.deleting && (node.orphans || node.foreground) {
            look.push(uid.to_owned());
        }
        let owner_is_unsure = |owner: &Owner| self.owner_of(&node, owner).is_none_or(Node::is_waiting);
        if old.is_none_or(|old| old.owners != node.owners) && node.owners.iter().any(owner_is_unsure) {
            look.push(uid.to_owned());
        }
        let let_go = old.map(|old| old.owners.clone()).unwrap_or_default();
        // An owner that waits in the foreground may wait for this one no longer.
        look.extend(
            let_go.iter().map(|owner| owner.uid.clone()).filter(|uid| self.get(uid).is_some_and(Node::is_waiting)),
        );
        self.unlink(uid, &let_go);
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.to_owned());
        }
        self.nodes.insert(uid.to_owned(), node);
        look
    }

    /// An object is gone. Answers with what has to be looked at: its dependents, and owners that wait for it.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        self.unlink(uid, &node.owners);
        let mut look: Vec<String> = self.dependents(uid).cloned().collect();
        look.extend(
            node.owners.into_iter().map(|owner| owner.uid).filter(|uid| self.get(uid).is_some_and(Node::is_waiting)),
        );
        look
    }

    fn unlink(&mut self, uid: &str, owners: &[Owner]) {
        for owner in owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }
}

/// What an owner of an object is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is there.
    Solid,
    /// It is not there any more.
    Absent,
    /// It is there and waits for its dependents to go.
    Waiting,
}

/// What is to be done with a dependent.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// Take out the owners with these UIDs: others keep the object.
    Release(Vec<String>),
    /// Delete it, by a policy.
    Delete(&'static str),
}

/// Judges an object by its owners.
pub fn judge(owners: &[(String, Standing)], object: &Object, has_dependents: bool) -> Verdict {
    let any = |standing| owners.iter().any(|(_, own)| *own == standing);
    if owners.is_empty() {
        return Verdict::Keep;
    }
    if any(Standing::Solid) {
        let rest = owners.iter().filter(|(_, standing)| *standing != Standing::Solid);
        let rest: Vec<String> = rest.map(|(uid, _)| uid.clone()).collect();
        return if rest.is_empty() { Verdict::Keep } else { Verdict::Release(rest) };
    }
    if any(Standing::Waiting) && has_dependents {
        return Verdict::Delete("Foreground");
    }
    let has = |name: &str| object.finalizers().any(|finalizer| finalizer == name);
    Verdict::Delete(if has(ORPHAN) {
        "Orphan"
    } else if has(FOREGROUND) {
        "Foreground"
    } else {
        "Background"
    })
}
