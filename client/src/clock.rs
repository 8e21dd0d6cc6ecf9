//! The time, on machines whose clock may be behind.
//!
//! A board without a battery starts in 1970, or where it was last told the time, and learns better once it reaches a
//! time server. Until then certificates would be "not yet valid", the cluster's own among them. What the process has
//! written before tells that it is later than that: the time is never before the newest file of its folders.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// The earliest that it can be, in seconds since 1970. One for the process, as its clock is.
static FLOOR: AtomicI64 = AtomicI64::new(0);

/// How many files of a folder are looked at.
const MAX_FILES: usize = 10_000;

/// It is at least this late.
pub fn not_before(time: Timestamp) {
    FLOOR.fetch_max(time.as_second(), Ordering::Relaxed);
}

/// It is at least as late as the newest file of a folder was written. Says by how much the clock is behind, if it is.
pub fn learn_from(folder: &Path) -> Option<Duration> {
    let newest = newest_file(folder)?;
    not_before(newest);
    let behind = Duration::try_from(newest.duration_since(Timestamp::now())).ok()?;
    (!behind.is_zero()).then_some(behind)
}

/// When the newest file of a folder was written.
fn newest_file(folder: &Path) -> Option<Timestamp> {
    let files = fs::read_dir(folder).ok()?.take(MAX_FILES).flatten();
    let written = files.filter_map(|file| file.metadata().ok()?.modified().ok()).max()?;
    let seconds = written.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

/// The time.
pub fn now() -> Timestamp {
    let floor = Timestamp::from_second(FLOOR.load(Ordering::Relaxed)).unwrap_or(Timestamp::UNIX_EPOCH);
    Timestamp::now().max(floor)
}

/// The time, as certificates are checked by it.
pub fn unix_now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now().as_second()).unwrap_or_default()))
}

/// Gives the time to rustls.
#[derive(Debug)]
pub struct TlsTime;

impl TimeProvider for TlsTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_now())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_newest_file_tells_the_time() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(newest_file(dir.path()), None);
        for (name, seconds) in [("old", 1_000), ("new", 4_102_444_800_u64)] {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        }
        assert_eq!(newest_file(dir.path()).unwrap().as_second(), 4_102_444_800);
        assert_eq!(newest_file(&dir.path().join("none")), None);
    }
}
