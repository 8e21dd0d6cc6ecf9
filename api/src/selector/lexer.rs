//! Words of the label selector syntax.

/// One word of a label selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    End,
    Identifier,
    Open,
    Close,
    Comma,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    In,
    NotIn,
}

/// The characters that are never part of an identifier.
fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// All words of a selector with their text, [`Token::End`] last.
pub(super) fn scan(text: &str) -> Vec<(Token, &str)> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let (token, length) = if is_symbol(first) { symbol(rest) } else { word(rest) };
        let (literal, after) = rest.split_at(length);
        tokens.push((token, literal));
        rest = after.trim_start_matches(is_space);
    }
    tokens.push((Token::End, ""));
    tokens
}

fn symbol(rest: &str) -> (Token, usize) {
    let two = [("==", Token::DoubleEquals), ("!=", Token::NotEquals)];
    if let Some((_, token)) = two.iter().find(|(symbol, _)| rest.starts_with(symbol)) {
        return (*token, 2);
    }
    let token = match rest.as_bytes().first() {
        Some(b'=') => Token::Equals,
        Some(b'!') => Token::Not,
        Some(b'(') => Token::Open,
        Some(b')') => Token::Close,
        Some(b'>') => Token::Greater,
        Some(b'<') => Token::Less,
        _ => Token::Comma,
    };
    (token, 1)
}

fn word(rest: &str) -> (Token, usize) {
    let length = rest.find(|c| is_symbol(c) || is_space(c)).unwrap_or(rest.len());
    let token = match &rest[..length] {
        "in" => Token::In,
        "notin" => Token::NotIn,
        _ => Token::Identifier,
    };
    (token, length)
}
