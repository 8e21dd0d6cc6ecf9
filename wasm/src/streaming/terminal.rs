//! A terminal's line discipline, for guests, which know none: input is edited and handed over line by line, echoed, and
//! Ctrl-C and Ctrl-D mean what they mean at any terminal. Output gets the carriage returns that raw terminals need.

/// Longest line that is edited; what is longer is handed over in parts.
const MAX_LINE_BYTES: usize = 4096;

/// The keys with a meaning.
mod key {
    pub(super) const INTERRUPT: u8 = 0x03;
    pub(super) const END: u8 = 0x04;
    pub(super) const BACKSPACE: u8 = 0x08;
    pub(super) const RETURN: u8 = b'\r';
    pub(super) const KILL_LINE: u8 = 0x15;
    pub(super) const DELETE: u8 = 0x7f;
}

/// What typing led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    /// For the guest.
    pub(super) input: Vec<u8>,
    /// For the screen.
    pub(super) echo: Vec<u8>,
    /// The guest's input is at its end.
    pub(super) ends: bool,
    /// The guest is to be interrupted.
    pub(super) interrupts: bool,
}

/// The line that is being typed.
#[derive(Debug, Default)]
pub(super) struct Terminal {
    line: Vec<u8>,
}

impl Terminal {
    /// Takes what was typed.
    pub(super) fn typed(&mut self, bytes: &[u8]) -> Typed {
        let mut typed = Typed::default();
        for byte in bytes {
            self.key(*byte, &mut typed);
        }
        typed
    }

    fn key(&mut self, byte: u8, typed: &mut Typed) {
        match byte {
            key::INTERRUPT => {
                self.line.clear();
                typed.echo.extend(b"^C\r\n");
                typed.interrupts = true;
            }
            key::END if self.line.is_empty() => typed.ends = true,
            key::END => typed.input.append(&mut self.line),
            key::RETURN | b'\n' => {
                typed.echo.extend(b"\r\n");
                typed.input.append(&mut self.line);
                typed.input.push(b'\n');
            }
            key::BACKSPACE | key::DELETE => self.erase(typed),
            key::KILL_LINE => {
                while !self.line.is_empty() {
                    self.erase(typed);
                }
            }
            _ => self.append(byte, typed),
        }
    }

    fn append(&mut self, byte: u8, typed: &mut Typed) {
        if self.line.len() == MAX_LINE_BYTES {
            typed.input.append(&mut self.line);
        }
        self.line.push(byte);
        match byte {
            b'\t' | 0x20.. => typed.echo.push(byte),
            control => typed.echo.extend([b'^', control + b'@']),
        }
    }

    /// Takes the last character back, all its bytes.
    fn erase(&mut self, typed: &mut Typed) {
        while let Some(byte) = self.line.pop() {
            let width = if byte < 0x20 && byte != b'\t' { 2 } else { 1 };
            // The bytes of a character after its first.
            if byte & 0xc0 != 0x80 {
                for _ in 0..width {
                    typed.echo.extend(b"\x08 \x08");
                }
                return;
            }
        }
    }
}

/// A guest's output as a raw terminal needs it.
pub(super) fn shown(bytes: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(bytes.len() + bytes.len() / 16);
    for byte in bytes {
        if *byte == b'\n' {
            shown.push(b'\r');
        }
        shown.push(*byte);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[&str]) -> (String, String, bool, bool) {
        let mut terminal = Terminal::default();
        let mut all = Typed::default();
        for bytes in keys {
            let typed = terminal.typed(bytes.as_bytes());
            all.input.extend(typed.input);
            all.echo.extend(typed.echo);
            all.ends |= typed.ends;
            all.interrupts |= typed.interrupts;
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (text(all.input), text(all.echo), all.ends, all.interrupts)
    }

    #[test]
    fn lines_are_edited_and_echoed() {
        for (keys, input, echo) in [
            (&["ab\r"][..], "ab\n", "ab\r\n"),
            (&["a", "b"], "", "ab"),
            (&["ax\x7fb\r"], "ab\n", "ax\x08 \x08b\r\n"),
            (&["aü\x7f\r"], "a\n", "aü\x08 \x08\r\n"),
            (&["\x7f\x7fa\n"], "a\n", "a\r\n"),
            (&["no\x15yes\r"], "yes\n", "no\x08 \x08\x08 \x08yes\r\n"),
            (&["\x1b\x7f\r"], "\n", "^[\x08 \x08\x08 \x08\r\n"),
            (&["part\x04"], "part", "part"),
        ] {
            assert_eq!(typed(keys), (input.to_owned(), echo.to_owned(), false, false), "{keys:?}");
        }
    }

    #[test]
    fn ends_and_interrupts() {
        assert_eq!(typed(&["a\r\x04"]), ("a\n".to_owned(), "a\r\n".to_owned(), true, false));
        assert_eq!(typed(&["lost\x03"]), (String::new(), "lost^C\r\n".to_owned(), false, true));
    }

    #[test]
    fn an_endless_line_is_handed_over_in_parts() {
        let (input, ..) = typed(&[&"x".repeat(MAX_LINE_BYTES * 3), "y"]);
        assert_eq!(input.len(), MAX_LINE_BYTES * 2 + MAX_LINE_BYTES);
    }

    #[test]
    fn output_gets_carriage_returns() {
        assert_eq!(shown(b"a\nb\r\n"), b"a\r\nb\r\r\n");
    }
}
