//! What the node as a whole uses, from `/proc`.

use std::{fs, path::Path};

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;

/// The kernel's unit of CPU time in `/proc/stat`: a hundredth of a second (`USER_HZ`, the same on all architectures).
const TICK_NANOSECONDS: u64 = 10_000_000;

/// How fast something that only grows is growing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    last: Option<(u64, Timestamp)>,
}

impl Rate {
    /// Takes in a count: how much it grew a second since the one before.
    pub(crate) fn update(&mut self, count: u64, now: Timestamp) -> u64 {
        let Some((before, then)) = self.last.replace((count, now)) else { return 0 };
        let elapsed = u128::try_from(now.duration_since(then).as_nanos()).unwrap_or(0);
        if elapsed == 0 {
            return 0;
        }
        let grown = u128::from(count.saturating_sub(before)) * 1_000_000_000;
        u64::try_from(grown / elapsed).unwrap_or(u64::MAX)
    }
}

/// What the node uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// CPU time since the machine started, all CPUs together.
    pub(crate) cpu_nanoseconds: u64,
    /// Memory that cannot be had without taking it from someone.
    pub(crate) memory_bytes: u64,
    /// Memory that can.
    pub(crate) available_bytes: u64,
    /// The disk of the agent's folder: used, available, and all of it.
    pub(crate) disk_bytes: (u64, u64, u64),
    /// Its files: used, free, and all.
    pub(crate) inodes: (u64, u64, u64),
}

impl Usage {
    /// CPU time since the machine started, all CPUs together.
    pub(crate) fn cpu_nanoseconds_now() -> u64 {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        busy_ticks(&stat).saturating_mul(TICK_NANOSECONDS)
    }

    /// Reads what is used now; what cannot be read is zero.
    pub(crate) fn read(folder: &Path) -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let meminfo = text("/proc/meminfo");
        let (total, available) = (kib(&meminfo, "MemTotal:"), kib(&meminfo, "MemAvailable:"));
        let mut usage = Self {
            cpu_nanoseconds: Self::cpu_nanoseconds_now(),
            memory_bytes: total.saturating_sub(available) * 1024,
            available_bytes: available * 1024,
            ..Self::default()
        };
        if let Ok(disk) = statvfs(folder) {
            let bytes = |blocks: u64| blocks * disk.fragment_size();
            let used = disk.blocks().saturating_sub(disk.blocks_free());
            usage.disk_bytes = (bytes(used), bytes(disk.blocks_available()), bytes(disk.blocks()));
            usage.inodes = (disk.files().saturating_sub(disk.files_free()), disk.files_free(), disk.files());
        }
        usage
    }
}

/// A line of `/proc/meminfo`, in KiB.
pub(super) fn kib(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// All CPUs' ticks in the first line of `/proc/stat`, without those in which they did nothing (idle and iowait, the
/// fourth and fifth) and without guests' time, which user time holds already.
fn busy_ticks(stat: &str) -> u64 {
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks = line.split_whitespace().map(|word| word.parse::<u64>().unwrap_or(0));
    ticks.take(8).enumerate().filter(|(at, _)| *at != 3 && *at != 4).map(|(_, ticks)| ticks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_ticks_do_not_count() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 1000 8 16 32 64 128\ncpu0 9 9\n"), 1 + 2 + 4 + 8 + 16 + 32);
        assert_eq!(busy_ticks(""), 0);
        assert_eq!(kib("MemTotal:       100 kB\nMemAvailable:   50 kB\n", "MemAvailable:"), 50);
    }

    #[test]
    fn growth_a_second() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap_or_default();
        let mut rate = Rate::default();
        assert_eq!(rate.update(5_000, at(100)), 0, "one count says nothing");
        assert_eq!(rate.update(25_000, at(110)), 2_000);
        assert_eq!(rate.update(10, at(120)), 0, "the machine was restarted");
        assert_eq!(rate.update(20, at(110)), 0, "a clock that went back says nothing");
    }

    #[test]
    fn this_machine_uses_something() {
        let usage = Usage::read(Path::new("/"));
        assert!(usage.cpu_nanoseconds > 0 && usage.memory_bytes > 0 && usage.disk_bytes.2 > 0);
    }
}
