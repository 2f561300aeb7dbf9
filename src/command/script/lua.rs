//! Lua taken apart into words, strings and single characters: just enough to see which functions a script calls.
//!
//! Comments are left out and strings are kept whole, whatever brackets they are in. Broken Lua is taken apart all the
//! same; the server will refuse it.

/// One piece of Lua.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name, a keyword or a number.
    Word(&'a [u8]),
    /// What is between the quotes; escapes are left as they are.
    Text(&'a [u8]),
    /// Any other character.
    Mark(u8),
}

/// The pieces of a script, without comments.
pub(super) fn tokens(text: &[u8]) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    if rest.starts_with(b"#") {
        rest = behind_line(rest);
    }
    while let Some((&first, behind)) = rest.split_first() {
        rest = match first {
            b'-' if behind.starts_with(b"-") => {
                let comment = behind.strip_prefix(b"-").unwrap_or_default();
                long_bracket(comment).map_or_else(|| behind_line(comment), |(_, behind)| behind)
            }
            b'"' | b'\'' => {
                let (inside, behind) = quoted(behind, first);
                tokens.push(Token::Text(inside));
                behind
            }
            b'[' => match long_bracket(rest) {
                Some((inside, behind)) => {
                    tokens.push(Token::Text(inside));
                    behind
                }
                None => {
                    tokens.push(Token::Mark(b'['));
                    behind
                }
            },
            _ if is_word(first) => {
                let end = rest.iter().position(|&byte| !is_word(byte)).unwrap_or(rest.len());
                let (word, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
                tokens.push(Token::Word(word));
                behind
            }
            _ => {
                if !first.is_ascii_whitespace() && first != 0x0b {
                    tokens.push(Token::Mark(first));
                }
                behind
            }
        };
    }
    tokens
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn behind_line(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|&byte| byte == b'\n').unwrap_or(text.len());
    text.split_at_checked(end).map_or(&[], |(_, behind)| behind)
}

/// What is inside of a quoted string that has just been opened, and what is behind it.
fn quoted(text: &[u8], quote: u8) -> (&[u8], &[u8]) {
    let mut escaped = false;
    let end = text.iter().position(|&byte| {
        let ends = byte == quote && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    let (inside, behind) = text
        .split_at_checked(end.unwrap_or(text.len()))
        .unwrap_or((text, &[]));
    (inside, behind.split_first().map_or(&[], |(_, behind)| behind))
}

/// `[[…]]` or `[==[…]==]` at the start of the text: what is inside, and what is behind.
fn long_bracket(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let opened = text.strip_prefix(b"[")?;
    let level = opened.iter().take_while(|&&byte| byte == b'=').count();
    let inside = opened.split_at_checked(level)?.1.strip_prefix(b"[")?;
    let closing = |rest: &[u8]| {
        let equals = rest.strip_prefix(b"]")?.split_at_checked(level)?;
        (equals.0.iter().all(|&byte| byte == b'=') && equals.1.starts_with(b"]")).then_some(())
    };
    let mut rest = inside;
    let mut read = 0;
    while !rest.is_empty() && closing(rest).is_none() {
        rest = rest.split_first().map_or(&[], |(_, behind)| behind);
        read += 1;
    }
    let (inside, behind) = inside.split_at_checked(read)?;
    Some((
        inside,
        behind
            .split_at_checked(level + 2)
            .map_or(&[], |(_, behind)| behind),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_are_told_apart() {
        assert_eq!(
            tokens(b"a[b]--[=[ ]] ]=]'c\\'d'"),
            [
                Token::Word(b"a"),
                Token::Mark(b'['),
                Token::Word(b"b"),
                Token::Mark(b']'),
                Token::Text(b"c\\'d"),
            ]
        );
        assert_eq!(tokens(b"#!lua x\n-- 'a\nb"), [Token::Word(b"b")]);
        assert_eq!(
            tokens(b"[==[ ]] ]=] ]==]c"),
            [Token::Text(b" ]] ]=] "), Token::Word(b"c")]
        );
        assert_eq!(tokens(b"'\\\\'a"), [Token::Text(b"\\\\"), Token::Word(b"a")]);
    }
}
