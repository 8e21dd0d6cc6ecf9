//! A child that writes to a store and says what was acknowledged, and what must be true of the store it leaves behind,
//! however it ended.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use skiff_api::kinds::Durability;
use skiff_store::{
    Event, EventStream, Expect, RangeOptions, Revision, SqliteStore, Store, StoreError, Write, WriteOutcome,
    sqlite::SqliteOptions,
};

/// How many write at once.
pub const WRITERS: usize = 8;

/// Where the child finds its store; without it the child's test does nothing.
const FOLDER: &str = "SKIFF_STORE_LOAD_FOLDER";

/// How many writes each writer of the child does before the store is closed; without it there is no end.
const TURNS: &str = "SKIFF_STORE_LOAD_TURNS";

/// The store in a folder, with heartbeats, checkpoints and compactions all the time.
pub fn open(folder: &Path) -> Result<SqliteStore, StoreError> {
    let options = SqliteOptions {
        heartbeat_delay: Duration::from_millis(30),
        renewal_delay: Duration::from_millis(60),
        history_revisions: 20_000,
        tick: Duration::from_millis(20),
        checkpoint_bytes: 256 << 10,
        ..SqliteOptions::default()
    };
    SqliteStore::open_with(&folder.join("state.db"), options)
}

/// A value whose every part says the same number.
pub fn value(number: u64) -> Bytes {
    format!("{number} ").repeat(100).into()
}

/// The number of a value, if it is whole.
pub fn number(value: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(value).map_err(|error| error.to_string())?;
    let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
    match numbers.as_deref() {
        Ok([first, rest @ ..]) if rest.iter().all(|number| number == first) => Ok(*first),
        _ => Err(format!("half a write: {text}")),
    }
}

/// The command that runs the child on a folder.
pub fn child(folder: &Path, turns: Option<u64>) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(FOLDER, folder);
    if let Some(turns) = turns {
        command.env(TURNS, turns.to_string());
    }
    command
}

/// What the child does, in the test binary that is its own parent.
pub async fn run_child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let turns = std::env::var(TURNS).ok().and_then(|turns| turns.parse().ok());
    let store = Arc::new(open(&folder).unwrap());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(Arc::clone(&store), writer, turns.unwrap_or(u64::MAX)));
    }
    writers.join_all().await;
    store.close().await.unwrap();
}

/// Writes, each key its own counter; says what was acknowledged.
async fn write(store: Arc<SqliteStore>, writer: usize, turns: u64) {
    let heartbeat = writer.is_multiple_of(4);
    let durability = if heartbeat { Durability::Heartbeat } else { Durability::Synced };
    let class = if heartbeat { "beat" } else { "sync" };
    for turn in 0..turns {
        let key = format!("/g/{class}/{writer}-{}", turn % 5);
        let there = store.get(&key).await.unwrap();
        let expect = there.as_ref().map_or(Expect::Absent, |pair| Expect::At(pair.mod_revision));
        let next = there.as_ref().map_or(1, |pair| number(&pair.value).unwrap() + 1);
        // Now and then a key goes, and comes again.
        let delete = there.is_some() && next.is_multiple_of(11) && !heartbeat;
        let write = Write { key: key.clone(), expect, value: (!delete).then(|| value(next)), durability };
        let outcome = store.write(write).await.unwrap();
        let WriteOutcome::Done(revision) = outcome else { panic!("{key} is nobody else's: {outcome:?}") };
        let line = format!("ack {key} {revision} {}\n", if delete { 0 } else { next });
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}

/// The newest acknowledged write of each key; the number 0 is a delete.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    pub keys: HashMap<String, (Revision, u64)>,
    pub newest: Revision,
}

impl Acknowledged {
    /// Takes in a line of the child's, which may be cut where the child ended.
    pub fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        if let ["ack", key, revision, number] = words[..]
            && let (Ok(revision), Ok(number)) = (revision.parse(), number.parse())
        {
            let before = self.keys.insert(key.to_owned(), (revision, number)).map_or(0, |(revision, _)| revision);
            assert!(revision > before, "revision {revision} of {key} after {before}");
            self.newest = self.newest.max(revision);
        }
    }

    /// What was found in the store is as good as acknowledged.
    fn found(&mut self, found: &Mirror) {
        for (key, place) in &mut self.keys {
            *place = found.get(key).copied().unwrap_or((place.0, 0));
        }
    }

    /// What of it is not in a store though it should be; heartbeats may be older.
    fn check(&self, found: &Mirror) -> Result<(), String> {
        for (key, (revision, number)) in self.keys.iter().filter(|(key, _)| key.starts_with("/g/sync/")) {
            match found.get(key) {
                // The write that was under way may have been done too.
                Some((at, there)) if at == revision && there == number => {}
                Some((at, _)) if at > revision => {}
                Some((at, there)) => return Err(format!("{key} is {there} at {at}, not {number} at {revision}")),
                None if *number == 0 || (*number + 1).is_multiple_of(11) => {}
                None => return Err(format!("{key} at {revision} is gone")),
            }
        }
        Ok(())
    }
}

/// What a watcher knows: each key's revision and number.
pub type Mirror = BTreeMap<String, (Revision, u64)>;

fn apply(mirror: &mut Mirror, event: &Event) -> Result<(), String> {
    let before = match &event.value {
        Some(value) => mirror.insert(event.key.clone(), (event.revision, number(value)?)),
        None => mirror.remove(&event.key),
    };
    let previous = match &event.previous {
        Some(previous) => Some((previous.mod_revision, number(&previous.value)?)),
        None => None,
    };
    match previous == before {
        true => Ok(()),
        false => Err(format!("a change of {} is missing before {}", event.key, event.revision)),
    }
}

fn text(error: &StoreError) -> String {
    error.to_string()
}

/// All pairs, as a watcher would know them.
pub async fn everything(store: &SqliteStore, revision: Option<Revision>) -> Result<Mirror, String> {
    let options = RangeOptions { revision, ..RangeOptions::default() };
    let range = store.range("/g/", options).await.map_err(|error| text(&error))?;
    let pairs = range.items.iter().map(|pair| Ok((pair.key.clone(), (pair.mod_revision, number(&pair.value)?))));
    pairs.collect()
}

/// Brings a mirror from one revision to another.
async fn follow(
    watch: &mut EventStream,
    mut place: Revision,
    end: Revision,
    mirror: &mut Mirror,
) -> Result<(), String> {
    while place < end {
        let batch = watch.next().await.ok_or("the watch ended")?.map_err(|error| text(&error))?;
        for event in batch {
            if event.revision <= place {
                return Err(format!("{} after {place}", event.revision));
            }
            place = event.revision;
            apply(mirror, &event)?;
        }
    }
    Ok(())
}

/// Checks a store that has been opened again: nothing acknowledged is lost, nothing is there by halves, revisions go
/// on behind those acknowledged, and who watched up to `place` goes on without a gap. Writes a mark, brings `mirror`
/// up to it and returns its revision.
pub async fn check(
    store: &SqliteStore,
    acknowledged: &mut Acknowledged,
    place: Revision,
    mirror: &mut Mirror,
) -> Result<Revision, String> {
    let start = store.revision().await.map_err(|error| text(&error))?;
    if start < acknowledged.newest {
        return Err(format!("{} was acknowledged, {start} is the newest", acknowledged.newest));
    }
    // Who saw the newest revision goes on, or lists again.
    if let Err(error) = store.watch(acknowledged.newest).await
        && !matches!(error, StoreError::Compacted { .. })
    {
        return Err(text(&error));
    }
    let mut watch = store.watch(place).await.map_err(|error| text(&error))?;
    let there = store.get("/g/end").await.map_err(|error| text(&error))?;
    let expect = there.map_or(Expect::Absent, |pair| Expect::At(pair.mod_revision));
    let end = Write { key: "/g/end".to_owned(), expect, value: Some(value(1)), durability: Durability::Synced };
    let end = match store.write(end).await.map_err(|error| text(&error))? {
        WriteOutcome::Done(end) if end == start + 1 => end,
        other => return Err(format!("the write after {start} came to {other:?}")),
    };
    follow(&mut watch, place, end, mirror).await?;
    let found = everything(store, None).await?;
    if found != *mirror {
        return Err(format!("there is {found:?}, a watcher knows {mirror:?}"));
    }
    acknowledged.check(&found)?;
    acknowledged.found(&found);
    Ok(end)
}
