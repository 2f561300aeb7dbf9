//! Is this a reply? Written again from the protocol's description, and strictly, to check the proxy's own code against.

/// The length of the first complete reply in `bytes`, and whether it has a type that RESP2 lacks; `None` if `bytes` does
/// not begin with a reply to the letter.
pub fn reply(bytes: &[u8]) -> Option<(usize, bool)> {
    let mut at = 0;
    let mut values = 1_u64;
    let mut resp3 = false;
    while values > 0 {
        let kind = *bytes.get(at)?;
        let line = line(bytes.get(at + 1..)?)?;
        at += 1 + line.len() + 2;
        resp3 |= !b"+-:$*".contains(&kind);
        values -= u64::from(kind != b'|');
        match kind {
            b'+' | b'-' | b',' | b'(' => {}
            b':' if integer(line) => {}
            b'#' if matches!(line, b"t" | b"f") => {}
            b'_' if line.is_empty() => {}
            b'$' | b'*' if line == b"-1" => {}
            b'$' | b'!' | b'=' => {
                let len = count(line)?;
                let body = bytes.get(at..)?.get(..len)?;
                if kind == b'=' && body.get(3) != Some(&b':') {
                    return None;
                }
                at += len;
                bytes.get(at..)?.starts_with(b"\r\n").then_some(())?;
                at += 2;
            }
            b'*' | b'~' | b'>' => values += count(line)? as u64,
            b'%' | b'|' => values += 2 * count(line)? as u64,
            _ => return None,
        }
    }
    Some((at, resp3))
}

/// Whether `bytes` are exactly one reply of RESP2.
pub fn is_resp2(bytes: &[u8]) -> bool {
    reply(bytes) == Some((bytes.len(), false))
}

/// Whether `bytes` are exactly one reply of RESP3.
pub fn is_resp3(bytes: &[u8]) -> bool {
    reply(bytes).is_some_and(|(len, _)| len == bytes.len())
}

/// Up to the line's end, in which there is neither CR nor LF.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    let len = bytes.iter().position(|&byte| byte == b'\r' || byte == b'\n')?;
    let (line, end) = bytes.split_at(len);
    end.starts_with(b"\r\n").then_some(line)
}

fn integer(line: &[u8]) -> bool {
    let digits = line.strip_prefix(b"-").unwrap_or(line);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// A length as a server writes it: no sign, no zeros in front, and not beyond what could be there.
fn count(line: &[u8]) -> Option<usize> {
    let plain = line == b"0" || (!line.starts_with(b"0") && line.iter().all(u8::is_ascii_digit));
    let n: usize = std::str::from_utf8(line).ok()?.parse().ok()?;
    (plain && n < 1 << 30).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_to_the_letter() {
        for good in [
            "+OK\r\n",
            "$-1\r\n",
            "*2\r\n$0\r\n\r\n:-1\r\n",
            "*0\r\n",
            "$2\r\n\r\n\r\n",
        ] {
            assert!(is_resp2(good.as_bytes()), "{good:?}");
        }
        for good in [
            "%1\r\n+a\r\n_\r\n",
            "|1\r\n+a\r\n#t\r\n~1\r\n(1\r\n",
            "=5\r\ntxt:a\r\n",
        ] {
            assert!(
                is_resp3(good.as_bytes()) && !is_resp2(good.as_bytes()),
                "{good:?}"
            );
        }
        for bad in [
            "",
            "+OK\n",
            "+O\nK\r\n",
            "$1\r\nab\r\n",
            "*1\r\n",
            "*-2\r\n",
            "$01\r\na\r\n",
            "+a\r\n+b\r\n",
            "|0\r\n",
        ] {
            assert!(!is_resp3(bad.as_bytes()), "{bad:?}");
        }
    }
}
