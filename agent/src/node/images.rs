//! Which images go when the disk fills up; pure. Thresholds are the kubelet's (`imageGCHighThresholdPercent` and
//! `imageGCLowThresholdPercent`).

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

/// Used so much, images are taken away.
const HIGH_PERCENT: u64 = 85;
/// Until no more than this is used.
const LOW_PERCENT: u64 = 80;
/// An image that was seen for less than this may be about to be used.
const LEAST_AGE: SignedDuration = SignedDuration::from_secs(120);

/// An image of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// Its id.
    pub(super) id: String,
    /// Its size in bytes.
    pub(super) size_bytes: u64,
    /// Whether it must stay: the runtime needs it itself, or it was imported and no registry has it.
    pub(super) pinned: bool,
}

/// When each image was first seen and last used.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    seen: BTreeMap<String, (Timestamp, Timestamp)>,
}

impl History {
    /// Takes in what is there and what containers use.
    pub(super) fn update(&mut self, images: &[Image], in_use: &BTreeSet<String>, now: Timestamp) {
        self.seen.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            let (_, used) = self.seen.entry(image.id.clone()).or_insert((now, Timestamp::UNIX_EPOCH));
            if in_use.contains(&image.id) {
                *used = now;
            }
        }
    }

    /// Whether so much of the disk is used that images are to go.
    pub(super) fn is_full(available: u64, capacity: u64) -> bool {
        let used = capacity.saturating_sub(available);
        capacity > 0 && used.saturating_mul(100) >= capacity.saturating_mul(HIGH_PERCENT)
    }

    /// The images to take away, the one longest unused first. `available` and `capacity` are of the disk, in bytes.
    pub(super) fn collect(
        &self,
        images: &[Image],
        in_use: &BTreeSet<String>,
        available: u64,
        capacity: u64,
        now: Timestamp,
    ) -> Vec<String> {
        let used = capacity.saturating_sub(available);
        if !Self::is_full(available, capacity) {
            return vec![];
        }
        let mut to_free = used.saturating_sub(capacity / 100 * LOW_PERCENT);
        let old = |image: &&Image| {
            let seen = self.seen.get(&image.id).map_or(now, |(seen, _)| *seen);
            !image.pinned && !in_use.contains(&image.id) && now.duration_since(seen) >= LEAST_AGE
        };
        let mut free: Vec<&Image> = images.iter().filter(old).collect();
        free.sort_by_key(|image| self.seen.get(&image.id).map(|(seen, used)| (*used, *seen)));
        let mut going = vec![];
        for image in free {
            if to_free == 0 {
                break;
            }
            to_free = to_free.saturating_sub(image.size_bytes);
            going.push(image.id.clone());
        }
        going
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + seconds)
    }

    fn image(id: &str) -> Image {
        Image { id: id.into(), size_bytes: 10, pinned: id == "pause" }
    }

    #[test]
    fn the_longest_unused_go_until_enough_is_free() {
        let images: Vec<_> = ["pause", "used", "old", "older", "new"].map(image).to_vec();
        let in_use = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        let mut history = History::default();
        history.update(&images[..4], &in_use(&["used", "old", "older"]), at(0));
        history.update(&images[..4], &in_use(&["used", "old"]), at(10));
        let used = in_use(&["used"]);
        history.update(&images, &used, at(1000));
        assert!(history.collect(&images, &used, 20, 100, at(1000)).is_empty(), "80% is not too much");
        assert_eq!(history.collect(&images, &used, 15, 100, at(1000)), ["older"]);
        assert_eq!(history.collect(&images, &used, 5, 100, at(1000)), ["older", "old"]);
        assert_eq!(history.collect(&images, &used, 5, 100, at(2000)), ["new", "older"]);
        assert!(history.collect(&images, &used, 0, 0, at(1000)).is_empty());
    }
}
