//! A typed reply, RESP2 and RESP3, that keeps every difference a client can see (three kinds of nil among them).

use std::fmt;
use std::io::{self, BufRead, Read};

/// Deeper than any reply of these tests.
const DEPTH_MAX: usize = 64;

/// One reply. Doubles and big numbers stay text: two servers must send the same text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    /// `$-1`
    NilBulk,
    /// `*-1`
    NilArray,
    /// `_`
    Null,
    Double(String),
    Bool(bool),
    Big(String),
    Verbatim(Vec<u8>),
    Array(Vec<Reply>),
    Set(Vec<Reply>),
    Push(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
}

impl Reply {
    pub fn bulk(text: impl Into<Vec<u8>>) -> Self {
        Self::Bulk(text.into())
    }

    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Simple(text) if text == "OK")
    }

    pub fn is_nil(&self) -> bool {
        matches!(self, Self::NilBulk | Self::NilArray | Self::Null)
    }

    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Error(text) => Some(text),
            _ => None,
        }
    }

    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The bytes of a bulk, simple or verbatim string.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bulk(bytes) | Self::Verbatim(bytes) => Some(bytes),
            Self::Simple(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<String> {
        self.bytes()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The elements of an array, a set, a push or (flattened) a map; none for anything else.
    pub fn items(&self) -> Vec<Reply> {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => items.clone(),
            Self::Map(pairs) => pairs
                .iter()
                .flat_map(|(key, value)| [key.clone(), value.clone()])
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Reads one reply.
    pub fn read(from: &mut impl BufRead) -> io::Result<Self> {
        read_at(from, 0)
    }
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server closed the connection",
        ));
    }
    if !line.ends_with(b"\r\n") {
        return Err(bad(format!(
            "reply line without CRLF: {:?}",
            String::from_utf8_lossy(&line)
        )));
    }
    line.truncate(line.len() - 2);
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn read_body(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut body = vec![0; length + 2];
    from.read_exact(&mut body)?;
    if !body.ends_with(b"\r\n") {
        return Err(bad("bulk reply without CRLF"));
    }
    body.truncate(length);
    Ok(body)
}

fn read_at(from: &mut impl BufRead, depth: usize) -> io::Result<Reply> {
    if depth > DEPTH_MAX {
        return Err(bad("reply nested too deeply"));
    }
    let line = read_line(from)?;
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| bad("empty reply line"))?;
    let number = || {
        rest.parse::<i64>()
            .map_err(|_| bad(format!("bad number in reply line {line:?}")))
    };
    let length = || number().map(|n| n.max(0) as usize);
    let items = |from: &mut _, count: usize| {
        (0..count)
            .map(|_| read_at(from, depth + 1))
            .collect::<io::Result<Vec<_>>>()
    };
    Ok(match kind {
        "+" => Reply::Simple(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Int(number()?),
        "$" if rest == "-1" => Reply::NilBulk,
        "$" => Reply::Bulk(read_body(from, length()?)?),
        "*" if rest == "-1" => Reply::NilArray,
        "*" => Reply::Array(items(from, length()?)?),
        "_" => Reply::Null,
        "," => Reply::Double(rest.to_owned()),
        "#" => Reply::Bool(rest == "t"),
        "(" => Reply::Big(rest.to_owned()),
        "!" => Reply::Error(String::from_utf8_lossy(&read_body(from, length()?)?).into_owned()),
        "=" => Reply::Verbatim(read_body(from, length()?)?),
        "~" => Reply::Set(items(from, length()?)?),
        ">" => Reply::Push(items(from, length()?)?),
        "%" => {
            let flat = items(from, length()? * 2)?;
            Reply::Map(
                flat.chunks(2)
                    .map(|pair| (pair[0].clone(), pair[1].clone()))
                    .collect(),
            )
        }
        _ => return Err(bad(format!("unknown reply line {line:?}"))),
    })
}

/// Bytes as a reader of a test log wants them.
pub fn printable(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 160;
    let shown = bytes.get(..SHOWN_MAX).unwrap_or(bytes).escape_ascii().to_string();
    if bytes.len() > SHOWN_MAX {
        format!("\"{shown}\"...({} bytes)", bytes.len())
    } else {
        format!("\"{shown}\"")
    }
}

fn list(f: &mut fmt::Formatter<'_>, open: &str, items: &[Reply], close: &str) -> fmt::Result {
    f.write_str(open)?;
    for (at, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
    }
    f.write_str(close)
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(f, "+{text}"),
            Self::Error(text) => write!(f, "-{text}"),
            Self::Int(value) => write!(f, ":{value}"),
            Self::Bulk(bytes) => f.write_str(&printable(bytes)),
            Self::NilBulk => f.write_str("nil($-1)"),
            Self::NilArray => f.write_str("nil(*-1)"),
            Self::Null => f.write_str("null(_)"),
            Self::Double(text) => write!(f, ",{text}"),
            Self::Bool(value) => write!(f, "#{value}"),
            Self::Big(text) => write!(f, "({text}"),
            Self::Verbatim(bytes) => write!(f, "={}", printable(bytes)),
            Self::Array(items) => list(f, "[", items, "]"),
            Self::Set(items) => list(f, "~{", items, "}"),
            Self::Push(items) => list(f, ">[", items, "]"),
            Self::Map(pairs) => {
                f.write_str("%{")?;
                for (key, value) in pairs {
                    write!(f, "{key}: {value}, ")?;
                }
                f.write_str("}")
            }
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
