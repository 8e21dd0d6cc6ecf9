//! How generated data is written: JSON that diffs well, and gzip whose bytes depend on its content alone.

use std::io::Write;

use flate2::{Compression, GzBuilder};
use serde_json::Value;

/// The widest line on which a list or an object is written whole.
const LINE_WIDTH_CHARS: usize = 140;

/// JSON with what is short on one line and what is long on a line an entry.
pub(crate) fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write_value(value, 0, &mut out);
    out.push('\n');
    out
}

fn write_value(value: &Value, depth: usize, out: &mut String) {
    let compact = value.to_string();
    if compact.len() + depth <= LINE_WIDTH_CHARS {
        out.push_str(&compact);
        return;
    }
    match value {
        Value::Object(map) => {
            let entries: Vec<_> =
                map.iter().map(|(name, child)| (format!("{}:", Value::from(name.as_str())), child)).collect();
            write_entries(('{', '}'), &entries, depth, out);
        }
        Value::Array(list) => {
            let entries: Vec<_> = list.iter().map(|child| (String::new(), child)).collect();
            write_entries(('[', ']'), &entries, depth, out);
        }
        _ => out.push_str(&compact),
    }
}

fn write_entries(brackets: (char, char), entries: &[(String, &Value)], depth: usize, out: &mut String) {
    out.push(brackets.0);
    for (index, (label, child)) in entries.iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        out.extend(std::iter::repeat_n(' ', depth + 1));
        out.push_str(label);
        write_value(child, depth + 1, out);
    }
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', depth));
    out.push(brackets.1);
}

/// The bytes compressed; the header carries neither a time nor a name, so the same input gives the same file.
pub(crate) fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}
