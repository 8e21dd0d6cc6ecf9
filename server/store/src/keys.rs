//! Prefixes of keys as ranges, in the order of UTF-8 bytes.

/// The least key that is greater than every key with this prefix.
pub(crate) fn prefix_end(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        if let Some(next) = next_char(last) {
            end.push(next);
            return end;
        }
    }
    // No key begins with the greatest character twice: the greatest bound that UTF-8 has to offer.
    "\u{10FFFF}\u{10FFFF}".to_owned()
}

/// The character after this one; UTF-8 keeps their order in bytes.
fn next_char(c: char) -> Option<char> {
    (u32::from(c) + 1..=u32::from(char::MAX)).find_map(char::from_u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_bounds_it() {
        for (prefix, end) in
            [("/core/pods/", "/core/pods0"), ("a", "b"), ("a\u{10FFFF}", "b"), ("\u{D7FF}", "\u{E000}")]
        {
            assert_eq!(prefix_end(prefix), end);
        }
        assert!(prefix_end("").as_str() > "/zzz");
    }
}
