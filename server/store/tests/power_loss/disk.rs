//! What a disk holds after a power loss at some moment of a trace.
//!
//! What was synced is there. Of what was not, each piece may be there or not: a name may be missing or still there, a
//! length may be the old one or the new, and of a write any of its sectors may have come to the disk, whatever became
//! of the writes before it. A seed says which.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use rand::{Rng, rngs::StdRng};

use super::trace::{Act, Step};

/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;

/// A change of a file and whether it is known to be on disk.
struct Change<'a> {
    act: &'a Act,
    ended: usize,
    synced: bool,
}

/// How much of what was not synced comes to the disk.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Nothing,
    Everything,
    /// Each piece with this chance in a hundred.
    Some(u32),
}

impl Fate {
    fn draw(random: &mut StdRng) -> Self {
        match random.random_range(0..4) {
            0 => Self::Nothing,
            1 => Self::Everything,
            _ => Self::Some(random.random_range(5..95)),
        }
    }

    fn spares(self, random: &mut StdRng) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Some(chance) => random.random_range(0..100) < chance,
        }
    }
}

/// The changes of each file up to a line of the trace, with what syncs made sure of. A sync that was under way, or a
/// change that had not ended when it began, counts for nothing. `heed_syncs` is off to show that syncs matter.
fn changes<'a>(steps: &'a [Step], line: usize, heed_syncs: bool) -> BTreeMap<&'a Path, Vec<Change<'a>>> {
    let mut files: BTreeMap<&Path, Vec<Change<'_>>> = BTreeMap::new();
    for step in steps.iter().take_while(|step| step.began <= line) {
        match &step.act {
            Act::Create { file } | Act::Write { file, .. } | Act::Truncate { file, .. } | Act::Unlink { file } => {
                let change = Change { act: &step.act, ended: step.ended, synced: false };
                files.entry(file).or_default().push(change);
            }
            Act::Sync { file } if heed_syncs && step.ended <= line => {
                for (name, changes) in &mut files {
                    let (itself, its_folder) = (*name == file.as_path(), name.parent() == Some(file));
                    for change in changes.iter_mut().filter(|change| change.ended < step.began) {
                        let names = matches!(change.act, Act::Create { .. } | Act::Unlink { .. });
                        change.synced |= if names { its_folder } else { itself };
                    }
                }
            }
            Act::Sync { .. } | Act::Say { .. } => {}
        }
    }
    files
}

/// One file under a name, from its making to its removal.
struct Life<'a> {
    made: &'a Change<'a>,
    changes: Vec<&'a Change<'a>>,
    removed: Option<&'a Change<'a>>,
}

/// The files that a name stood for, one after the other.
fn lives<'a>(changes: &'a [Change<'a>]) -> Vec<Life<'a>> {
    let mut lives: Vec<Life<'_>> = Vec::new();
    for change in changes {
        let alive = lives.last_mut().filter(|life| life.removed.is_none());
        match (change.act, alive) {
            (Act::Create { .. }, None) => lives.push(Life { made: change, changes: Vec::new(), removed: None }),
            // Opened once more.
            (Act::Create { .. }, Some(_)) => {}
            (Act::Unlink { .. }, Some(life)) => life.removed = Some(change),
            (_, Some(life)) => life.changes.push(change),
            (act, None) => panic!("a file that was never made: {act:?}"),
        }
    }
    lives
}

/// A file as the disk holds it; `None` where its name is not there.
fn content(changes: &[Change<'_>], fate: Fate, random: &mut StdRng) -> Option<Vec<u8>> {
    let lives = lives(changes);
    let mut there = None;
    let names = lives.iter().flat_map(|life| [(Some(life.made), Some(life)), (life.removed, None)]);
    for (change, after) in names.filter_map(|(change, after)| Some((change?, after))) {
        // A file system changes its names in order.
        if !change.synced && !fate.spares(random) {
            break;
        }
        there = after;
    }
    let mut held = Vec::new();
    for change in &there?.changes {
        match change.act {
            Act::Truncate { len, .. } if change.synced || fate.spares(random) => held.resize(*len, 0),
            Act::Write { offset, data, .. } => write(&mut held, *offset, data, change.synced, fate, random),
            _ => {}
        }
    }
    Some(held)
}

/// The files that a disk holds when the power is lost after a line of the trace.
pub fn after_power_loss(
    steps: &[Step],
    line: usize,
    heed_syncs: bool,
    random: &mut StdRng,
) -> BTreeMap<PathBuf, Vec<u8>> {
    let fate = Fate::draw(random);
    let files = changes(steps, line, heed_syncs).into_iter();
    files.filter_map(|(name, changes)| Some((name.to_owned(), content(&changes, fate, random)?))).collect()
}

/// Puts those sectors of a write into a file that came to the disk.
fn write(held: &mut Vec<u8>, offset: usize, data: &[u8], synced: bool, fate: Fate, random: &mut StdRng) {
    let mut from = 0;
    while from < data.len() {
        let to = data.len().min(from + SECTOR_BYTES - (offset + from) % SECTOR_BYTES);
        if synced || fate.spares(random) {
            held.resize(held.len().max(offset + to), 0);
            held[offset + from..offset + to].copy_from_slice(&data[from..to]);
        }
        from = to;
    }
}
