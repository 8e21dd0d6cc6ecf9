//! Sets of completion indexes, written as `1,3-5,7`. No I/O.

use std::fmt::Write as _;

/// A set of indexes, as intervals that neither touch nor overlap, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads `1,3-5,7`; what is not below `limit`, not in order, or no number is left out.
    pub fn parse(text: &str, limit: i32) -> Self {
        let mut all = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.trim().parse::<i32>(), last.trim().parse::<i32>()) else { continue };
            let last = last.min(limit.saturating_sub(1));
            if first < 0 || first > last {
                continue;
            }
            all.append(first, last);
        }
        all
    }

    /// Adds an interval that does not begin before the last one.
    fn append(&mut self, first: i32, last: i32) {
        match self.0.last_mut() {
            Some(end) if first <= end.1.saturating_add(1) => end.1 = end.1.max(last),
            _ => self.0.push((first, last)),
        }
    }

    /// With further indexes.
    pub fn with(&self, further: impl IntoIterator<Item = i32>) -> Self {
        let mut all: Vec<(i32, i32)> = further.into_iter().map(|index| (index, index)).collect();
        if all.is_empty() {
            return self.clone();
        }
        all.extend(&self.0);
        all.sort_unstable();
        let mut merged = Self::default();
        all.into_iter().for_each(|(first, last)| merged.append(first, last));
        merged
    }

    /// Whether an index is in the set.
    pub fn contains(&self, index: i32) -> bool {
        let place = self.0.partition_point(|(first, _)| *first <= index);
        place > 0 && self.0[place - 1].1 >= index
    }

    /// How many there are.
    pub fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).fold(0, i32::saturating_add)
    }

    /// How many are in both sets.
    pub fn common(&self, other: &Self) -> i32 {
        let (mut a, mut b, mut count) = (0, 0, 0_i32);
        while let (Some(one), Some(two)) = (self.0.get(a), other.0.get(b)) {
            let (first, last) = (one.0.max(two.0), one.1.min(two.1));
            count = count.saturating_add((last - first + 1).max(0));
            if one.1 < two.1 {
                a += 1;
            } else {
                b += 1;
            }
        }
        count
    }

    /// The indexes below a limit that are not in the set, lowest first.
    pub fn missing(&self, limit: i32) -> impl Iterator<Item = i32> + '_ {
        let starts = std::iter::once(0).chain(self.0.iter().map(|(_, last)| last + 1));
        let ends = self.0.iter().map(move |(first, _)| (*first).min(limit)).chain(std::iter::once(limit));
        starts.zip(ends).flat_map(|(start, end)| start..end)
    }
}

impl std::fmt::Display for Indexes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        for (first, last) in &self.0 {
            let comma = if text.is_empty() { "" } else { "," };
            match last - first {
                0 => write!(text, "{comma}{first}")?,
                // Two neighbours are written apart, as Kubernetes does.
                1 => write!(text, "{comma}{first},{last}")?,
                _ => write!(text, "{comma}{first}-{last}")?,
            }
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_and_writing() {
        for (text, total) in [("", 0), ("3", 1), ("1,2", 2), ("0-2", 3), ("1,3-5,7", 5)] {
            let all = Indexes::parse(text, 100);
            assert_eq!((all.to_string().as_str(), all.total()), (text, total));
        }
        assert_eq!(Indexes::parse("1,3-5,7", 5).to_string(), "1,3,4");
        assert_eq!(Indexes::parse("x,-1,4-2,6", 100).to_string(), "6");
    }

    /// Against a plain list of booleans.
    #[test]
    fn every_small_set_behaves() {
        for bits in 0..1_u32 << 8 {
            let members: Vec<i32> = (0..8).filter(|index| bits >> index & 1 == 1).collect();
            let all = Indexes::default().with(members.iter().rev().copied());
            assert_eq!(all, Indexes::parse(&all.to_string(), 8));
            assert_eq!(all.total(), i32::try_from(members.len()).unwrap_or_default());
            let missing: Vec<i32> = (0..8).filter(|index| !members.contains(index)).collect();
            assert_eq!(all.missing(8).collect::<Vec<_>>(), missing);
            assert_eq!((0..9).filter(|index| all.contains(*index)).collect::<Vec<_>>(), members);
            let other = Indexes::parse("1-3,6", 8);
            let common = members.iter().filter(|index| other.contains(**index)).count();
            assert_eq!(usize::try_from(all.common(&other)), Ok(common), "{all}");
        }
    }
}
