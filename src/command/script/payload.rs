//! What `FUNCTION DUMP` gives and `FUNCTION RESTORE` takes, byte for byte as Redis has it:
//!
//! ```text
//! (0xF5, string)*    the text of each library, as strings are kept in an RDB file
//! version            of the RDB format, 2 bytes, little endian
//! CRC-64             of all before it, 8 bytes, little endian
//! ```

/// In front of each library.
const FUNCTION: u8 = 0xf5;

/// The version that is written: Redis 7.0's, which every later one reads.
const VERSION: u16 = 10;

/// The newest version that is read: Valkey 9.1 has it. Functions are kept alike in all of them.
const VERSION_MAX: u16 = 80;

/// Longest text that a library may have once it is unpacked, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is wrong with a payload, in Redis's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Not a payload, a damaged one, or a newer one.
    #[error("ERR DUMP payload version or checksum are wrong")]
    Footer,
    /// A payload of something else.
    #[error("ERR given type is not a function")]
    Type,
    /// It ends too early.
    #[error("ERR failed loading functions payload")]
    Broken,
}

/// The payload of these libraries.
pub fn dump<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for text in texts {
        out.push(FUNCTION);
        put_len(&mut out, text.len());
        out.extend_from_slice(text);
    }
    out.extend_from_slice(&VERSION.to_le_bytes());
    let crc = crc64(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// The texts of the libraries in a payload.
///
/// # Errors
/// See [`PayloadError`].
pub fn parse(payload: &[u8]) -> Result<Vec<Vec<u8>>, PayloadError> {
    let (signed, crc) = payload.split_last_chunk::<8>().ok_or(PayloadError::Footer)?;
    let (mut rest, version) = signed.split_last_chunk::<2>().ok_or(PayloadError::Footer)?;
    if u16::from_le_bytes(*version) > VERSION_MAX || crc64(signed) != u64::from_le_bytes(*crc) {
        return Err(PayloadError::Footer);
    }
    let mut texts = Vec::new();
    while let Some((&kind, behind)) = rest.split_first() {
        if kind != FUNCTION {
            return Err(PayloadError::Type);
        }
        let (text, behind) = string(behind).ok_or(PayloadError::Broken)?;
        texts.push(text);
        rest = behind;
    }
    Ok(texts)
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    match len {
        0..64 => out.push(len as u8),
        64..16384 => out.extend_from_slice(&[0x40 | (len >> 8) as u8, len as u8]),
        _ => {
            out.push(0x80);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

/// A length, and what is behind it. `Err` is how a string that is no plain one is kept.
fn len(bytes: &[u8]) -> Option<(Result<usize, u8>, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    match first >> 6 {
        0 => Some((Ok(usize::from(first & 0x3f)), rest)),
        1 => {
            let (&second, rest) = rest.split_first()?;
            Some((Ok(usize::from(first & 0x3f) << 8 | usize::from(second)), rest))
        }
        2 if first == 0x80 => {
            let (number, rest) = rest.split_first_chunk::<4>()?;
            Some((Ok(u32::from_be_bytes(*number) as usize), rest))
        }
        2 if first == 0x81 => {
            let (number, rest) = rest.split_first_chunk::<8>()?;
            Some((Ok(usize::try_from(u64::from_be_bytes(*number)).ok()?), rest))
        }
        3 => Some((Err(first & 0x3f), rest)),
        _ => None,
    }
}

/// A string, and what is behind it.
fn string(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    match len(bytes)? {
        (Ok(len), rest) => {
            let (text, rest) = rest.split_at_checked(len)?;
            Some((text.to_vec(), rest))
        }
        // Packed by LZF.
        (Err(3), rest) => {
            let (Ok(packed), rest) = len(rest)? else {
                return None;
            };
            let (Ok(unpacked), rest) = len(rest)? else {
                return None;
            };
            let (packed, rest) = rest.split_at_checked(packed)?;
            Some((unpack(packed, unpacked)?, rest))
        }
        // A number is no library.
        _ => None,
    }
}

/// Undoes LZF: stretches as they are, and references to what has already come.
fn unpack(mut packed: &[u8], unpacked: usize) -> Option<Vec<u8>> {
    if unpacked > TEXT_BYTES_MAX {
        return None;
    }
    let mut out = Vec::new();
    while let Some((&control, rest)) = packed.split_first() {
        let control = usize::from(control);
        if control < 32 {
            let (plain, rest) = rest.split_at_checked(control + 1)?;
            out.extend_from_slice(plain);
            packed = rest;
        } else {
            let (more, rest) = match control >> 5 {
                7 => rest
                    .split_first()
                    .map(|(&more, rest)| (usize::from(more), rest))?,
                _ => (0, rest),
            };
            let (&low, rest) = rest.split_first()?;
            let back = ((control & 0x1f) << 8 | usize::from(low)) + 1;
            let from = out.len().checked_sub(back)?;
            for at in from..from + (control >> 5) + more + 2 {
                out.push(*out.get(at)?);
            }
            packed = rest;
        }
        if out.len() > unpacked {
            return None;
        }
    }
    (out.len() == unpacked).then_some(out)
}

/// CRC-64 of Jones, as Redis computes it.
fn crc64(bytes: &[u8]) -> u64 {
    const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u64::from(byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ POLYNOMIAL
            } else {
                crc >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testserver::{Server, words};

    #[test]
    fn the_check_value_of_the_crc() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn payloads_go_to_a_server_and_come_from_one() {
        let server = Server::start();
        let mut client = server.client(2);
        let long = "-- the same again\n".repeat(2000);
        let texts: Vec<Vec<u8>> = ["", "local x = 1\n", &long]
            .iter()
            .enumerate()
            .map(|(at, filling)| {
                format!("#!lua name=lib{at}\n{filling}redis.register_function('f{at}', function() return {at} end)").into_bytes()
            })
            .collect();
        let ours = dump(texts.iter().map(Vec::as_slice));
        let mut restore = words("FUNCTION RESTORE x");
        restore[2] = ours.clone();
        assert_eq!(client.call(&restore), b"+OK\r\n");
        assert_eq!(client.line("FCALL f2 0"), b":2\r\n");
        let reply = client.line("FUNCTION DUMP");
        let start = reply.iter().position(|&b| b == b'\n').unwrap() + 1;
        let theirs = &reply[start..reply.len() - 2];
        assert!(theirs.len() < ours.len(), "packed");
        let mut found = parse(theirs).unwrap();
        found.sort();
        assert_eq!(found, texts);
        assert_eq!(parse(&ours), Ok(texts));
        assert_eq!(parse(&ours[..ours.len() - 1]), Err(PayloadError::Footer));
        assert_eq!(parse(b"x"), Err(PayloadError::Footer));
        for cut in 0..theirs.len() - 10 {
            let mut broken = theirs[..cut].to_vec();
            broken.extend_from_slice(&VERSION.to_le_bytes());
            broken.extend_from_slice(&crc64(&broken).to_le_bytes());
            let read = parse(&broken);
            assert!(read.is_err() || read.is_ok_and(|texts| texts.len() < 3), "{cut}");
        }
    }
}
