//! Lines of CRI log files: `TIMESTAMP STREAM TAG CONTENT`, where the tag `P` says that the line goes on in the next
//! entry; and which of them a reader gets.

use jiff::Timestamp;

/// What a reader asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with what is written later.
    pub follow: bool,
    /// Of the container before this one.
    pub previous: bool,
    /// Each line with its time.
    pub timestamps: bool,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// This many lines from the end.
    pub tail: Option<u64>,
    /// No more bytes than this.
    pub limit_bytes: Option<usize>,
}

/// Turns entries of a log file into what a reader gets.
#[derive(Clone, Debug)]
pub struct Printer {
    timestamps: bool,
    since: Option<Timestamp>,
    left: Option<usize>,
    within_line: bool,
}

impl Printer {
    /// A printer for what a reader asks for.
    pub fn new(options: &LogOptions) -> Self {
        Self { timestamps: options.timestamps, since: options.since, left: options.limit_bytes, within_line: false }
    }

    /// Whether the reader has got all that it asked for.
    pub fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// Appends what a reader gets of an entry; what is no entry is left out.
    pub fn print(&mut self, entry: &[u8], out: &mut Vec<u8>) {
        let entry = entry.strip_suffix(b"\n").unwrap_or(entry);
        let mut parts = entry.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(_stream), Some(tag)) = (parts.next(), parts.next(), parts.next()) else { return };
        let content = parts.next().unwrap_or_default();
        let Some(at) = std::str::from_utf8(time).ok().and_then(|text| text.parse::<Timestamp>().ok()) else { return };
        if self.since.is_some_and(|since| at < since) {
            return;
        }
        let start = out.len();
        if self.timestamps && !self.within_line {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(content);
        self.within_line = tag.split(|byte| *byte == b':').next() == Some(b"P");
        if !self.within_line {
            out.push(b'\n');
        }
        if let Some(left) = &mut self.left {
            let printed = (out.len() - start).min(*left);
            out.truncate(start + printed);
            *left -= printed;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const LOG: [&str; 4] = [
        "2026-01-01T00:00:01.5Z stdout F one\n",
        "2026-01-01T00:00:02Z stderr P tw\n",
        "2026-01-01T00:00:02Z stderr F o\n",
        "2026-01-01T00:00:03+00:00 stdout F \n",
    ];

    fn printed(options: &LogOptions) -> String {
        let mut printer = Printer::new(options);
        let mut out = vec![];
        LOG.iter().for_each(|entry| printer.print(entry.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn partial_lines_are_joined() {
        assert_eq!(printed(&LogOptions::default()), "one\ntwo\n\n");
    }

    #[test]
    fn times_and_limits_are_kept() {
        let stamped = printed(&LogOptions { timestamps: true, ..LogOptions::default() });
        assert_eq!(stamped, "2026-01-01T00:00:01.5Z one\n2026-01-01T00:00:02Z two\n2026-01-01T00:00:03+00:00 \n");
        assert_eq!(
            printed(&LogOptions { since: "2026-01-01T00:00:02Z".parse().ok(), ..LogOptions::default() }),
            "two\n\n"
        );
        assert_eq!(printed(&LogOptions { limit_bytes: Some(5), ..LogOptions::default() }), "one\nt");
    }

    #[test]
    fn what_is_no_entry_is_left_out() {
        let mut out = vec![];
        for bad in [&b""[..], b"\n", b"x", b"x y z w\n", b"\xff stdout F a\n"] {
            Printer::new(&LogOptions::default()).print(bad, &mut out);
        }
        assert!(out.is_empty());
    }
}
