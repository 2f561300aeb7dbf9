//! Glob patterns, exactly as Redis matches them (`stringmatchlen`, with case).
//!
//! `*` is any run of bytes, `?` one byte, `[a-z]` one of a class, `[^a-z]` one of its complement, `\` takes the next byte
//! literally. What Redis does with patterns that are not well formed is kept too: a class may lack its end, the ends of
//! a range may be in the wrong order, bytes from 128 on come before the others in a range, and no `*` matches an
//! empty text.
//!
//! Every part of a pattern but `*` takes exactly one byte, so when a text does not fit, only the last `*` needs to be
//! tried with more: a loop, no recursion that a pattern could drive deep.

/// Whether `text` matches `pattern`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut pattern, mut text) = (pattern, text);
    // What comes after the last `*`, and where in the text it was tried last.
    let mut retry: Option<(&[u8], &[u8])> = None;
    while let Some((&byte, text_rest)) = text.split_first() {
        if let Some(rest) = pattern.strip_prefix(b"*") {
            pattern = after_stars(rest);
            if pattern.is_empty() {
                return true;
            }
            retry = Some((pattern, text));
            continue;
        }
        match one(pattern, byte) {
            Some((true, rest)) => (pattern, text) = (rest, text_rest),
            _ => {
                let Some((after_star, tried)) = retry else {
                    return false;
                };
                let Some((_, later)) = tried.split_first() else {
                    return false;
                };
                (pattern, text) = (after_star, later);
                retry = Some((after_star, later));
            }
        }
    }
    after_stars(pattern).is_empty()
}

fn after_stars(mut pattern: &[u8]) -> &[u8] {
    while let Some(rest) = pattern.strip_prefix(b"*") {
        pattern = rest;
    }
    pattern
}

/// Whether the pattern's first part takes `byte`, and the parts after it; `None` if there is no part left.
fn one(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some((true, rest)),
        [b'[', rest @ ..] => Some(class(rest, byte)),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => Some((*literal == byte, rest)),
    }
}

/// The same for a class, from behind its `[`.
fn class(pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    let (negated, mut pattern) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    let mut found = false;
    loop {
        pattern = match pattern {
            [] => return (found != negated, pattern),
            [b'\\', literal, rest @ ..] => {
                found |= *literal == byte;
                rest
            }
            [b']', rest @ ..] => return (found != negated, rest),
            [start, b'-', end, rest @ ..] => {
                found |= in_range(*start, *end, byte);
                rest
            }
            [literal, rest @ ..] => {
                found |= *literal == byte;
                rest
            }
        };
    }
}

/// Bytes are signed here, as C's `char` is on most machines that run Redis.
fn in_range(start: u8, end: u8, byte: u8) -> bool {
    let [start, end, byte] = [start, end, byte].map(u8::cast_signed);
    (start.min(end)..=start.max(end)).contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testserver::Server;

    #[test]
    fn what_patterns_mean() {
        for (pattern, text, expected) in [
            ("news.*", "news.art", true),
            ("news.*", "news", false),
            ("*", "", false),
            ("", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-", false),
            ("h[^a-c]llo", "hello", true),
            ("h[^a-c]llo", "hbllo", false),
            ("[z-a]", "m", true),
            ("[ab", "b", true),
            ("[^", "x", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a\\", "a\\", true),
            ("a**", "a", true),
            ("*a", "ba", true),
            ("*a?", "ba", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern:?} {text:?}"
            );
        }
    }

    /// Pieces that meet each other's edges.
    const PIECES: [&[u8]; 20] = [
        b"a",
        b"b",
        b"c",
        b"-",
        b"*",
        b"*",
        b"?",
        b"[",
        b"]",
        b"^",
        b"\\",
        b"[a-c]",
        b"[^b]",
        b"\x80",
        b"\xff",
        b"\x7f",
        b"\0",
        b"[\x7f-\x80]",
        b"[c-a]",
        b"ab",
    ];

    struct Random(u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % n as u64) as usize
        }

        fn text(&mut self, pieces: &[&[u8]], max: usize) -> Vec<u8> {
            (0..self.below(max + 1))
                .flat_map(|_| pieces[self.below(pieces.len())].to_vec())
                .collect()
        }
    }

    /// `PUBSUB CHANNELS pattern` of a real server, over channels that somebody has subscribed to.
    #[test]
    fn a_real_server_agrees() {
        let server = Server::start();
        let (mut subscriber, mut asker) = (server.client(3), server.client(2));
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let texts: std::collections::BTreeSet<Vec<u8>> = (0..300)
            .map(|_| {
                random.text(
                    &[
                        b"a", b"b", b"c", b"-", b"]", b"\\", b"\x80", b"\xff", b"\x7f", b"^",
                    ],
                    6,
                )
            })
            .collect();
        for text in &texts {
            subscriber.call(&[b"SUBSCRIBE".to_vec(), text.clone()]);
        }
        let mut matched = 0;
        for _ in 0..4000 {
            let pattern = random.text(&PIECES, 7);
            let reply = asker.call(&[b"PUBSUB".to_vec(), b"CHANNELS".to_vec(), pattern.clone()]);
            let mut theirs: Vec<Vec<u8>> = crate::resp::walk::Elements::of(&reply)
                .unwrap()
                .unwrap()
                .map(|element| crate::resp::walk::text(element.unwrap()).unwrap().to_vec())
                .collect();
            theirs.sort();
            let ours: Vec<Vec<u8>> = texts
                .iter()
                .filter(|text| matches(&pattern, text))
                .cloned()
                .collect();
            matched += ours.len();
            assert_eq!(ours, theirs, "{}", pattern.escape_ascii());
        }
        assert!(matched > 1000, "the patterns match something: {matched}");
    }

    #[test]
    fn a_pattern_of_stars_is_no_trap() {
        let pattern = b"*a".repeat(50_000);
        let text = vec![b'a'; 49_999];
        assert!(!matches(&pattern, &text));
        assert!(matches(&pattern, &[&text[..], b"a"].concat()));
    }
}
