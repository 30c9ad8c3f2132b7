//! Rust text as tokens: comments, strings and lifetimes are left out, so that a word in the text is a word of the code.

/// A word, a number, `::`, or one character; a literal string or character is `""`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'t> {
    /// From 1.
    pub line: usize,
    pub text: &'t str,
}

impl Token<'_> {
    pub fn is_word(&self) -> bool {
        self.text.starts_with(is_of_word)
    }
}

/// The tokens of a text, and the numbers of its lines on which there is a comment.
pub struct Lexed<'t> {
    pub tokens: Vec<Token<'t>>,
    pub commented: Vec<usize>,
}

pub fn lex(text: &str) -> Lexed<'_> {
    let mut lexed = Lexed { tokens: Vec::new(), commented: Vec::new() };
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let (length, token) = next(rest, first);
        let taken = &rest[..length];
        if taken.starts_with("//") || taken.starts_with("/*") {
            lexed.commented.extend(line..=line + taken.matches('\n').count());
        } else if let Some(text) = token {
            lexed.tokens.push(Token { line, text });
        }
        line += taken.matches('\n').count();
        rest = &rest[length..];
    }
    lexed
}

/// How many bytes the next token takes, and its text if it is one that counts.
fn next(rest: &str, first: char) -> (usize, Option<&str>) {
    const LITERAL: Option<&str> = Some("\"\"");
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), None);
    }
    if rest.starts_with("/*") {
        return (rest.find("*/").map_or(rest.len(), |end| end + 2), None);
    }
    if let Some(length) = raw_string(rest) {
        return (length, LITERAL);
    }
    if first == '"' {
        return (quoted(rest, '"'), LITERAL);
    }
    if first == '\'' {
        let mut after = rest[1..].chars();
        return match (after.next(), after.next()) {
            (Some('\\'), _) | (Some(_), Some('\'')) => (quoted(rest, '\''), LITERAL),
            _ => (1 + word(&rest[1..]).len(), None),
        };
    }
    if is_of_word(first) {
        let word = word(rest);
        return (word.len(), Some(word));
    }
    if rest.starts_with("::") {
        return (2, Some(&rest[..2]));
    }
    let length = first.len_utf8();
    (length, (!first.is_whitespace()).then(|| &rest[..length]))
}

/// The length of `r"…"`, `r#"…"#`, `br"…"` and the like, if the text begins with one.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.trim_start_matches(['b', 'c']).strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(rest.len() - body.len() + length)
}

/// The length of a literal that begins and ends with `quote`.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// The word that the text begins with; empty if it begins with none.
pub fn word(text: &str) -> &str {
    text.find(|c| !is_of_word(c)).map_or(text, |end| &text[..end])
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[test]
fn only_code_is_tokens() {
    let text = "use a::b; // c\nlet d = \"e\\\"f\"; /* g\n */ let h: &'i str = r#\"j\"k\"#; 'l'; '\\''; m";
    let lexed = lex(text);
    let words: Vec<&str> = lexed.tokens.iter().filter(|token| token.is_word()).map(|token| token.text).collect();
    assert_eq!(words, ["use", "a", "b", "let", "d", "let", "h", "str", "m"]);
    assert_eq!(lexed.commented, [1, 2, 3]);
    assert_eq!(lexed.tokens.last().map(|token| (token.line, token.text)), Some((3, "m")));
}
