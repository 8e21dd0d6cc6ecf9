//! Where things lie in etcd, and how its revisions become ours; pure.
//!
//! etcd begins at revision 1 and its first write has revision 2; ours begin at 0 and 1. A restored snapshot adds to
//! that a *base* that is kept in etcd itself, so that no revision is ever given twice.

use bytes::Bytes;
use etcd_client::KeyValue as EtcdPair;

use crate::{Event, KeyValue, Revision, StoreError, keys::prefix_end};

/// What is added to etcd's revisions, and which write of etcd says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Base {
    /// What is added.
    pub(super) added: Revision,
    /// etcd's revision of the key that says so; 0 if there is none.
    pub(super) written: i64,
    /// Whether a restore has begun that is not done: what there is is not to be shown.
    pub(super) restoring: bool,
}

/// What the key says before the number while a restore is not done.
const RESTORING: &str = "restoring ";

/// No key of etcd was ever written at this revision.
const NEVER: i64 = -1;

/// The first revision of etcd that a write can have.
const FIRST_WRITE: i64 = 2;

fn as_revision(number: i64) -> Revision {
    Revision::try_from(number).unwrap_or_default()
}

impl Base {
    /// Our revision of one of etcd's.
    pub(super) fn ours(self, etcd: i64) -> Revision {
        as_revision(etcd.saturating_sub(1)).saturating_add(self.added)
    }

    /// etcd's revision of one of ours; `None` where it is from before the base was set.
    pub(super) fn etcds(self, ours: Revision) -> Option<i64> {
        let since = ours.checked_sub(self.added)?;
        i64::try_from(since).ok()?.checked_add(1)
    }

    /// The revision that a key must have to be ours at this one.
    pub(super) fn expected(self, ours: Revision) -> i64 {
        self.etcds(ours).filter(|etcd| *etcd >= FIRST_WRITE).unwrap_or(NEVER)
    }

    /// Reads the base from its key.
    pub(super) fn read(pair: Option<&EtcdPair>) -> Result<Self, StoreError> {
        let Some(pair) = pair else { return Ok(Self::default()) };
        let text = pair.value_str().unwrap_or_default();
        let (number, restoring) = text.strip_prefix(RESTORING).map_or((text, false), |number| (number, true));
        let bad = |_| StoreError::Corrupt("the revision base in etcd is no number".to_owned());
        Ok(Self { added: number.parse().map_err(bad)?, written: pair.mod_revision(), restoring })
    }

    /// What its key says.
    pub(super) fn text(self) -> String {
        format!("{}{}", if self.restoring { RESTORING } else { "" }, self.added)
    }
}

/// The keys of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: String,
    data: String,
    meta: String,
}

impl Layout {
    /// Everything below a prefix such as `/skiff/`.
    pub(super) fn new(prefix: &str) -> Self {
        let root = prefix.trim_end_matches('/');
        Self { root: format!("{root}/"), data: format!("{root}/data"), meta: format!("{root}/meta/") }
    }

    /// The bounds of everything that is skiff's.
    pub(super) fn all(&self) -> (String, String) {
        (self.root.clone(), prefix_end(&self.root))
    }

    /// Where one of our keys lies.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}{key}", self.data)
    }

    /// The bounds of the keys with a prefix that come after a key.
    pub(super) fn bounds(&self, prefix: &str, start_after: Option<&str>) -> (String, String) {
        let first = self.key(prefix);
        let after = start_after.map(|key| format!("{}\0", self.key(key))).unwrap_or_default();
        let end = prefix_end(&first);
        (first.max(after), end)
    }

    /// What is added to etcd's revisions.
    pub(super) fn base_key(&self) -> String {
        format!("{}revision-base", self.meta)
    }

    /// What is written only to have been written.
    pub(super) fn tick_key(&self) -> String {
        format!("{}tick", self.meta)
    }

    /// By which servers agree who compacts.
    pub(super) fn compaction_key(&self) -> String {
        format!("{}compaction", self.meta)
    }

    /// A value that is no object: what servers share beside the cluster's state.
    pub(super) fn shared_key(&self, name: &str) -> String {
        format!("{}shared/{name}", self.meta)
    }

    /// Which of our keys this is, if it is one.
    fn ours<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(key.strip_prefix(self.data.as_bytes())?).ok()
    }

    /// One of our pairs.
    pub(super) fn pair(&self, pair: &EtcdPair, base: Base) -> Result<KeyValue, StoreError> {
        let key = self.ours(pair.key()).ok_or_else(|| {
            StoreError::Corrupt(format!(
                "etcd has a key that is none of skiff's: {:?}",
                String::from_utf8_lossy(pair.key())
            ))
        })?;
        Ok(KeyValue {
            key: key.to_owned(),
            value: Bytes::copy_from_slice(pair.value()),
            create_revision: base.ours(pair.create_revision()),
            mod_revision: base.ours(pair.mod_revision()),
        })
    }

    /// What a change in etcd is to us.
    pub(super) fn change(&self, now: &EtcdPair, previous: Option<&EtcdPair>, base: Base) -> Change {
        let revision = base.ours(now.mod_revision());
        if now.key() == self.base_key().as_bytes() {
            return Change::Base;
        }
        let Some(key) = self.ours(now.key()) else { return Change::Other(revision) };
        // A key that was deleted has no version, one that was created has the first.
        let (deleted, created) = (now.version() == 0, now.version() == 1);
        let previous = previous.and_then(|pair| self.pair(pair, base).ok());
        if previous.is_none() && !created {
            return Change::Forgotten;
        }
        let value = (!deleted).then(|| Bytes::copy_from_slice(now.value()));
        Change::Ours(Event { key: key.to_owned(), revision, value, previous: previous.filter(|_| !created) })
    }
}

/// See [`Layout::change`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// One of our keys changed.
    Ours(Event),
    /// Another key changed at this revision of ours.
    Other(Revision),
    /// The base of revisions changed.
    Base,
    /// What the key was before has been compacted.
    Forgotten,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn revisions_go_there_and_back() {
        for added in [0, 1_000] {
            let base = Base { added, ..Base::default() };
            assert_eq!(base.ours(1), added, "nothing has been written");
            assert_eq!((base.ours(2), base.expected(added + 1)), (added + 1, 2));
            for ours in added..added + 5 {
                assert_eq!(base.ours(base.etcds(ours).unwrap()), ours);
            }
        }
    }

    #[test]
    fn a_revision_from_before_the_base_is_none_of_etcds() {
        let base = Base { added: 1_000, written: 7, restoring: false };
        assert_eq!(base.etcds(999), None);
        // Revision 0 would mean an absent key to etcd.
        for ours in [0, 998, 999, 1_000] {
            assert_eq!(base.expected(ours), NEVER, "{ours}");
        }
    }

    #[test]
    fn bounds_hold_a_prefix_and_what_follows_a_key() {
        let layout = Layout::new("/skiff/");
        let (first, end) = layout.bounds("/core/pods/", None);
        assert_eq!((first.as_str(), end.as_str()), ("/skiff/data/core/pods/", "/skiff/data/core/pods0"));
        let (after, _) = layout.bounds("/core/pods/", Some("/core/pods/a/x"));
        assert_eq!(after, "/skiff/data/core/pods/a/x\0");
        let (first, end) = layout.bounds("", None);
        assert!(layout.base_key() < first || layout.base_key() >= end);
        let (from, to) = layout.all();
        for key in [layout.key("/a"), layout.base_key(), layout.tick_key(), layout.shared_key("x")] {
            assert!(from <= key && key < to, "{key}");
        }
    }
}
