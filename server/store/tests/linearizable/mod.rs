//! Whether a concurrent history of compare-and-swap registers can be put in one order that each client could have
//! seen: the search of Wing and Gong, with the states that lead nowhere remembered (Lowe).

use std::collections::{BTreeMap, HashMap, HashSet};

use skiff_store::{Expect, Revision};

/// A value and the revision of its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    pub value: u64,
    pub revision: Revision,
}

/// What a client asks for. Each swap's value is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Read,
    Swap { expect: Expect, value: Option<u64> },
}

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was read, or what was there instead of what the swap expected.
    Found(Option<Pair>),
    /// The swap was done.
    Swapped(Revision),
    /// It was done, or not, or will be.
    Unknown,
}

/// One operation between two ticks of the run's clock.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub key: usize,
    pub began: u64,
    pub ended: u64,
    pub action: Action,
    pub outcome: Outcome,
}

/// A write that was acknowledged.
pub struct Done {
    pub key: usize,
    pub value: Option<u64>,
    pub revision: Revision,
}

/// All operations of a run.
pub struct History {
    pub ops: Vec<Op>,
}

/// A register: what is there, and the revision of its last change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Register {
    there: Option<Pair>,
    last: Revision,
}

/// An operation in the search: it must be placed unless it may never have been done.
#[derive(Clone, Copy, Debug)]
struct Piece {
    op: Op,
    optional: bool,
}

impl Register {
    fn fits(&self, expect: Expect) -> bool {
        match expect {
            Expect::Absent => self.there.is_none(),
            Expect::At(revision) => self.there.is_some_and(|pair| pair.revision == revision),
        }
    }

    /// The register after an operation, if it can have had this outcome here.
    fn apply(&self, op: &Op) -> Option<Self> {
        match (op.action, op.outcome) {
            (Action::Read, Outcome::Found(found)) => (found == self.there).then_some(*self),
            (Action::Swap { expect, .. }, Outcome::Found(found)) => {
                (found == self.there && !self.fits(expect)).then_some(*self)
            }
            (Action::Swap { expect, value }, Outcome::Swapped(revision)) => {
                let there = value.map(|value| Pair { value, revision });
                (self.fits(expect) && revision > self.last).then_some(Self { there, last: revision })
            }
            // Of a deletion whose revision nobody was told.
            (Action::Swap { expect, value: None }, Outcome::Unknown) => {
                self.fits(expect).then_some(Self { there: None, ..*self })
            }
            _ => None,
        }
    }
}

/// The pieces of one key. A write of unknown outcome whose value was seen was done at the revision that it was seen
/// with; one whose value was never seen can have been done last at most, and is left out.
fn pieces(ops: &[Op]) -> Vec<Piece> {
    let mut seen: HashMap<u64, Revision> = HashMap::new();
    for op in ops {
        if let Outcome::Found(Some(pair)) = op.outcome {
            seen.insert(pair.value, pair.revision);
        }
    }
    let mut pieces = Vec::new();
    for op in ops {
        let mut op = *op;
        let mut optional = false;
        if op.outcome == Outcome::Unknown {
            op.ended = u64::MAX;
            match op.action {
                Action::Read => continue,
                Action::Swap { value: None, .. } => optional = true,
                Action::Swap { value: Some(value), .. } => match seen.get(&value) {
                    Some(revision) => op.outcome = Outcome::Swapped(*revision),
                    None => continue,
                },
            }
        }
        pieces.push(Piece { op, optional });
    }
    pieces.sort_by_key(|piece| piece.op.began);
    pieces
}

/// The search for an order.
struct Search {
    pieces: Vec<Piece>,
    placed: Vec<bool>,
    /// What has been placed, with the register then: a way that was gone before.
    tried: HashSet<(Vec<u64>, Register)>,
}

impl Search {
    fn new(pieces: Vec<Piece>) -> Self {
        let placed = vec![false; pieces.len()];
        Self { pieces, placed, tried: HashSet::new() }
    }

    fn is_done(&self) -> bool {
        self.pieces.iter().zip(&self.placed).all(|(piece, placed)| *placed || piece.optional)
    }

    fn place(&mut self, at: usize, placed: bool) {
        self.placed[at] = placed;
    }

    fn signature(&self) -> Vec<u64> {
        let word = |chunk: &[bool]| chunk.iter().fold(0, |word, placed| word << 1 | u64::from(*placed));
        self.placed.chunks(64).map(word).collect()
    }

    /// What can come next: what began before anything that is left has ended.
    fn next(&self, from: usize) -> Option<usize> {
        let left = || self.pieces.iter().enumerate().filter(|(at, _)| !self.placed[*at]);
        let first_end = left().map(|(_, piece)| piece.op.ended).min()?;
        left().find(|(at, piece)| *at >= from && piece.op.began < first_end).map(|(at, _)| at)
    }

    /// Depth first, without recursion: a stack of what was placed and the register before.
    fn run(&mut self) -> Result<(), Register> {
        let mut register = Register::default();
        let mut stack: Vec<(usize, Register)> = Vec::new();
        let mut from = 0;
        let mut furthest = (0, register);
        while !self.is_done() {
            match self.next(from) {
                Some(at) => {
                    from = at + 1;
                    let Some(after) = register.apply(&self.pieces[at].op) else { continue };
                    self.place(at, true);
                    if !self.tried.insert((self.signature(), after)) {
                        self.place(at, false);
                        continue;
                    }
                    stack.push((at, register));
                    register = after;
                    from = 0;
                    if stack.len() > furthest.0 {
                        furthest = (stack.len(), register);
                    }
                }
                None => {
                    let Some((at, before)) = stack.pop() else { return Err(furthest.1) };
                    self.place(at, false);
                    register = before;
                    from = at + 1;
                }
            }
        }
        Ok(())
    }
}

impl History {
    /// The writes that were acknowledged.
    pub fn done(&self) -> impl Iterator<Item = Done> {
        self.ops.iter().filter_map(|op| match (op.action, op.outcome) {
            (Action::Swap { value, .. }, Outcome::Swapped(revision)) => Some(Done { key: op.key, value, revision }),
            _ => None,
        })
    }

    /// Each register by itself, as linearizability is local; and the revisions of all together.
    pub fn check(&self) -> Result<(), String> {
        self.check_revisions()?;
        let mut keys: BTreeMap<usize, Vec<Op>> = BTreeMap::new();
        for op in &self.ops {
            keys.entry(op.key).or_default().push(*op);
        }
        for (key, ops) in keys {
            let pieces = pieces(&ops);
            let mut search = Search::new(pieces);
            search.run().map_err(|register| {
                let ops: Vec<_> = search.pieces.iter().map(|piece| format!("{:?}", piece.op)).collect();
                format!(
                    "key {key} has no order of its operations; at best it came to {register:?}:\n{}",
                    ops.join("\n")
                )
            })?;
        }
        Ok(())
    }

    /// Every revision is given once, and a write that began after another was acknowledged has the later one.
    fn check_revisions(&self) -> Result<(), String> {
        let mut writes: Vec<(Revision, u64, u64)> = self
            .ops
            .iter()
            .filter_map(|op| match op.outcome {
                Outcome::Swapped(revision) => Some((revision, op.began, op.ended)),
                _ => None,
            })
            .collect();
        writes.sort_unstable();
        let mut latest_began = 0;
        for pair in writes.windows(2) {
            if pair[0].0 == pair[1].0 {
                return Err(format!("revision {} was given twice", pair[0].0));
            }
        }
        for (revision, began, ended) in writes {
            latest_began = latest_began.max(began);
            if ended < latest_began {
                return Err(format!("revision {revision} was given before a smaller one was asked for"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(began: u64, ended: u64, action: Action, outcome: Outcome) -> Op {
        Op { key: 0, began, ended, action, outcome }
    }

    fn swap(began: u64, ended: u64, expect: Expect, value: u64, outcome: Outcome) -> Op {
        op(began, ended, Action::Swap { expect, value: Some(value) }, outcome)
    }

    fn read(began: u64, ended: u64, found: Option<(u64, Revision)>) -> Op {
        let found = found.map(|(value, revision)| Pair { value, revision });
        op(began, ended, Action::Read, Outcome::Found(found))
    }

    fn check(ops: &[Op]) -> Result<(), String> {
        History { ops: ops.to_vec() }.check()
    }

    #[test]
    fn overlapping_operations_may_come_in_any_order() {
        let write = swap(0, 5, Expect::Absent, 7, Outcome::Swapped(1));
        assert!(check(&[write, read(1, 2, None), read(3, 4, Some((7, 1)))]).is_ok());
        assert!(check(&[write, read(1, 2, Some((7, 1))), read(3, 4, None)]).is_err(), "a read goes back in time");
    }

    #[test]
    fn a_stale_read_is_found() {
        let first = swap(0, 1, Expect::Absent, 7, Outcome::Swapped(1));
        let second = swap(2, 3, Expect::At(1), 8, Outcome::Swapped(2));
        assert!(check(&[first, second, read(4, 5, Some((8, 2)))]).is_ok());
        assert!(check(&[first, second, read(4, 5, Some((7, 1)))]).is_err());
    }

    #[test]
    fn a_lost_write_and_two_winners_are_found() {
        let first = swap(0, 1, Expect::Absent, 7, Outcome::Swapped(1));
        assert!(check(&[first, read(2, 3, None)]).is_err());
        let winners =
            [swap(2, 9, Expect::At(1), 8, Outcome::Swapped(2)), swap(3, 8, Expect::At(1), 9, Outcome::Swapped(3))];
        assert!(check(&[first, winners[0], winners[1]]).is_err());
    }

    #[test]
    fn what_is_unknown_may_be_seen_late_or_never() {
        let unknown = swap(0, 1, Expect::Absent, 7, Outcome::Unknown);
        assert!(check(&[unknown, read(2, 3, None)]).is_ok());
        assert!(check(&[unknown, read(2, 3, None), read(4, 5, Some((7, 4)))]).is_ok());
        assert!(check(&[unknown, read(2, 3, Some((7, 4))), read(4, 5, None)]).is_err());
        let deletion = op(6, 7, Action::Swap { expect: Expect::At(4), value: None }, Outcome::Unknown);
        assert!(check(&[unknown, read(2, 3, Some((7, 4))), deletion, read(8, 9, None)]).is_ok());
        assert!(check(&[unknown, read(2, 3, Some((7, 4))), deletion, read(8, 9, Some((7, 4)))]).is_ok());
    }

    #[test]
    fn revisions_grow_over_all_registers() {
        let first = swap(0, 1, Expect::Absent, 7, Outcome::Swapped(5));
        let other = Op { key: 1, ..swap(2, 3, Expect::Absent, 8, Outcome::Swapped(4)) };
        assert!(check(&[first, other]).is_err());
    }
}
