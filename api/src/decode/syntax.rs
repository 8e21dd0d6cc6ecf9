//! What is wrong with a text that is no JSON, in the words of Go's scanner. It reads bytes, and is run only over texts
//! that the parser has refused.

/// How deep Go lets values nest.
const MAX_DEPTH: usize = 10_000;

/// The first error of a text; `None` where Go would find none.
pub(super) fn error(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { text, at: 0, open: Vec::new() };
    match scanner.document() {
        Ok(()) => None,
        Err(Problem::End) => Some("unexpected end of JSON input".to_owned()),
        Err(Problem::Depth) => Some("exceeded max depth".to_owned()),
        Err(Problem::Byte(byte, context)) => Some(format!("invalid character {} {context}", quoted(byte))),
    }
}

enum Problem {
    /// The text ends too early.
    End,
    /// Too many values in one another.
    Depth,
    /// A byte that may not be there, and where it is.
    Byte(u8, String),
}

type Scanned = Result<(), Problem>;

/// A value that has begun and not ended.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    Object,
    Array,
}

/// What comes next within the open values.
enum Next {
    Value,
    Key,
    /// After a value.
    Comma,
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    open: Vec<Open>,
}

impl Scanner<'_> {
    fn document(&mut self) -> Scanned {
        let mut next = Next::Value;
        loop {
            next = match next {
                Next::Value => self.value()?,
                Next::Key => self.key()?,
                Next::Comma if self.open.is_empty() => break,
                Next::Comma => self.comma()?,
            };
        }
        self.spaces();
        self.text.get(self.at).map_or(Ok(()), |byte| Err(problem(*byte, "after top-level value")))
    }

    fn spaces(&mut self) {
        let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.at += self.text[self.at..].iter().take_while(is_space).count();
    }

    fn byte(&mut self) -> Result<u8, Problem> {
        let byte = self.text.get(self.at).copied().ok_or(Problem::End)?;
        self.at += 1;
        Ok(byte)
    }

    /// The next byte that is no space.
    fn mark(&mut self) -> Result<u8, Problem> {
        self.spaces();
        self.byte()
    }

    fn value(&mut self) -> Result<Next, Problem> {
        match self.mark()? {
            b'{' => return self.begin(Open::Object, b'}', Next::Key),
            b'[' => return self.begin(Open::Array, b']', Next::Value),
            b'"' => self.string()?,
            b't' => self.word("true")?,
            b'f' => self.word("false")?,
            b'n' => self.word("null")?,
            byte @ (b'-' | b'0'..=b'9') => self.number(byte)?,
            byte => return Err(problem(byte, "looking for beginning of value")),
        }
        Ok(Next::Comma)
    }

    fn begin(&mut self, open: Open, end: u8, first: Next) -> Result<Next, Problem> {
        self.open.push(open);
        if self.open.len() > MAX_DEPTH {
            return Err(Problem::Depth);
        }
        self.spaces();
        if self.text.get(self.at) != Some(&end) {
            return Ok(first);
        }
        self.at += 1;
        self.open.pop();
        Ok(Next::Comma)
    }

    fn key(&mut self) -> Result<Next, Problem> {
        match self.mark()? {
            b'"' => self.string()?,
            byte => return Err(problem(byte, "looking for beginning of object key string")),
        }
        match self.mark()? {
            b':' => Ok(Next::Value),
            byte => Err(problem(byte, "after object key")),
        }
    }

    fn comma(&mut self) -> Result<Next, Problem> {
        let open = self.open.last().copied();
        match (self.mark()?, open) {
            (b',', Some(Open::Object)) => Ok(Next::Key),
            (b',', _) => Ok(Next::Value),
            (b'}', Some(Open::Object)) | (b']', Some(Open::Array)) => {
                self.open.pop();
                Ok(Next::Comma)
            }
            (byte, Some(Open::Object)) => Err(problem(byte, "after object key:value pair")),
            (byte, _) => Err(problem(byte, "after array element")),
        }
    }

    fn string(&mut self) -> Scanned {
        loop {
            match self.byte()? {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                byte if byte < b' ' => return Err(problem(byte, "in string literal")),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Scanned {
        match self.byte()? {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => Ok(()),
            b'u' => (0..4).try_for_each(|_| match self.byte()? {
                byte if byte.is_ascii_hexdigit() => Ok(()),
                byte => Err(problem(byte, "in \\u hexadecimal character escape")),
            }),
            byte => Err(problem(byte, "in string escape code")),
        }
    }

    fn word(&mut self, word: &str) -> Scanned {
        word.bytes().skip(1).try_for_each(|wanted| match self.byte()? {
            byte if byte == wanted => Ok(()),
            byte => Err(problem(byte, &format!("in literal {word} (expecting {})", quoted(wanted)))),
        })
    }

    fn number(&mut self, first: u8) -> Scanned {
        let first = match first {
            b'-' => self.digit("in numeric literal")?,
            digit => digit,
        };
        if first != b'0' {
            self.digits();
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.text.get(self.at), Some(b'+' | b'-')));
            self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn digit(&mut self, context: &str) -> Result<u8, Problem> {
        let byte = self.byte()?;
        if byte.is_ascii_digit() { Ok(byte) } else { Err(problem(byte, context)) }
    }

    fn digits(&mut self) {
        self.at += self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    }
}

fn problem(byte: u8, context: &str) -> Problem {
    Problem::Byte(byte, context.to_owned())
}

/// A byte as Go prints it, the byte being taken for the character of that number.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0..=0x1f | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::error;

    #[test]
    fn errors_as_go_words_them() {
        for (text, words) in [
            ("", "unexpected end of JSON input"),
            ("{\"a\":", "unexpected end of JSON input"),
            ("[1, 2", "unexpected end of JSON input"),
            ("-", "unexpected end of JSON input"),
            ("nonsense", "invalid character 'o' in literal null (expecting 'u')"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("01", "invalid character '1' after top-level value"),
            ("{'a': 1}", r"invalid character '\'' looking for beginning of object key string"),
            ("{\"a\": 1,}", "invalid character '}' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\": 1 \"b\": 2}", "invalid character '\"' after object key:value pair"),
            ("{\"a\": [1 2]}", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("[1}", "invalid character '}' after array element"),
            ("\"a\nb\"", r"invalid character '\n' in string literal"),
            ("\"\u{1}\"", r"invalid character '\x01' in string literal"),
            (r#""\x""#, "invalid character 'x' in string escape code"),
            (r#""\u12g4""#, r"invalid character 'g' in \u hexadecimal character escape"),
            ("-a", "invalid character 'a' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1e+x", "invalid character 'x' in exponent of numeric literal"),
            ("\u{e9}", "invalid character 'Ã' looking for beginning of value"),
        ] {
            assert_eq!(error(text.as_bytes()).as_deref(), Some(words), "{text}");
        }
        assert_eq!(error(&b"[".repeat(10_001)).as_deref(), Some("exceeded max depth"));
        for text in
            ["{}", " [1.5e-3, -0, \"\\u00e9\\\\\", {\"a\": {}, \"b\": [[]]}, true, false, null] ", "\"\\ud800\""]
        {
            assert_eq!(error(text.as_bytes()), None, "{text}");
        }
    }
}
