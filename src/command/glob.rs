//! Redis's glob patterns: `*`, `?`, `[a-c]`, `[^x]`, and `\` before a character that means itself.

/// Whether `text` matches `pattern`, letters of either case being the same.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on if what follows the last `*` does not match: that star takes one byte more.
    let mut retry: Option<(&[u8], &[u8])> = None;
    let (mut pattern, mut text) = (pattern, text);
    loop {
        if let [b'*', rest @ ..] = pattern {
            retry = Some((rest, text));
            pattern = rest;
            continue;
        }
        match (one(pattern, text), text) {
            (Some(rest), [_, after @ ..]) => (pattern, text) = (rest, after),
            _ if pattern.is_empty() && text.is_empty() => return true,
            _ => match retry {
                Some((after_star, [_, shorter @ ..])) => {
                    retry = Some((after_star, shorter));
                    (pattern, text) = (after_star, shorter);
                }
                _ => return false,
            },
        }
    }
}

/// The rest of the pattern if its first element takes the first byte of the text.
fn one<'p>(pattern: &'p [u8], text: &[u8]) -> Option<&'p [u8]> {
    let byte = text.first()?.to_ascii_lowercase();
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => class(rest, byte),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => {
            (literal.to_ascii_lowercase() == byte).then_some(rest)
        }
        [] => None,
    }
}

/// `abc-f]…`: the rest behind the bracket, if the byte is one of them (or, behind `^`, none of them).
fn class(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    let mut found = false;
    let rest = loop {
        rest = match rest {
            // Without its end, a class ends with the pattern.
            [] => break rest,
            [b']', rest @ ..] => break rest,
            [b'\\', literal, rest @ ..] => {
                found |= literal.to_ascii_lowercase() == byte;
                rest
            }
            [low, b'-', high, rest @ ..] => {
                let (low, high) = (low.to_ascii_lowercase(), high.to_ascii_lowercase());
                found |= (low.min(high)..=low.max(high)).contains(&byte);
                rest
            }
            [literal, rest @ ..] => {
                found |= literal.to_ascii_lowercase() == byte;
                rest
            }
        };
    };
    (found != negated).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testserver::Server;

    #[test]
    fn matches_what_redis_matches() {
        let server = Server::start();
        let mut client = server.client(2);
        for pattern in [
            "*",
            "m*",
            "*m*y",
            "MAX*",
            "ma?memory",
            "ma?memorx",
            "max[m-n]emory",
            "max[^x]emory",
            "max[^m]emory",
            "maxmemory",
            "max\\memor?",
            "max[abcm]emory",
            "[m",
            "**y",
            "maxmemory*",
            "maxmemory?",
            "",
            "[z-a]axmemory",
        ] {
            let reply = client.line(&format!("CONFIG GET '{pattern}'"));
            let said = reply.windows(13).any(|w| w == b"\r\nmaxmemory\r\n");
            assert_eq!(matches(pattern.as_bytes(), b"maxmemory"), said, "{pattern}");
        }
    }
}
