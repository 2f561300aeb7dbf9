//! As much RESP as a fake node and the checks need. Deliberately not the crate's own code: it is what is tested.

/// A command's arguments.
pub type Cmd = Vec<Vec<u8>>;

fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], end + 2))
}

fn number(text: &[u8]) -> usize {
    std::str::from_utf8(text)
        .unwrap()
        .parse()
        .expect("a number in a command's header")
}

/// The first whole command in `bytes`, and its length.
pub fn command(bytes: &[u8]) -> Option<(Cmd, usize)> {
    let (head, mut at) = line(bytes)?;
    assert_eq!(
        head.first(),
        Some(&b'*'),
        "not a command: {:?}",
        String::from_utf8_lossy(bytes)
    );
    let mut args = Vec::new();
    for _ in 0..number(&head[1..]) {
        let (head, used) = line(&bytes[at..])?;
        assert_eq!(head.first(), Some(&b'$'), "not a bulk string");
        let len = number(&head[1..]);
        let start = at + used;
        args.push(bytes.get(start..start + len)?.to_vec());
        bytes.get(start + len..start + len + 2)?;
        at = start + len + 2;
    }
    Some((args, at))
}

/// A reply as the checks look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Int(i64),
    Text(Vec<u8>),
    Null,
    Error(String),
    List(Vec<Reply>),
}

impl Reply {
    pub fn texts(&self) -> Option<Vec<Vec<u8>>> {
        let Self::List(items) = self else { return None };
        items
            .iter()
            .map(|item| {
                if let Self::Text(text) = item {
                    Some(text.clone())
                } else {
                    None
                }
            })
            .collect()
    }
}

/// All replies in `bytes`; `None` if they are not whole.
pub fn replies(mut bytes: &[u8]) -> Option<Vec<Reply>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (reply, used) = reply(bytes)?;
        all.push(reply);
        bytes = &bytes[used..];
    }
    Some(all)
}

fn reply(bytes: &[u8]) -> Option<(Reply, usize)> {
    let (head, mut at) = line(bytes)?;
    let text = String::from_utf8_lossy(head.get(1..)?).into_owned();
    let reply = match *head.first()? {
        b':' => Reply::Int(text.parse().ok()?),
        b'+' => Reply::Text(text.into_bytes()),
        b'-' => Reply::Error(text),
        b'_' => Reply::Null,
        b'$' => {
            let len: usize = text.parse().ok()?;
            let payload = bytes.get(at..at + len)?.to_vec();
            bytes.get(at + len..at + len + 2)?;
            at += len + 2;
            Reply::Text(payload)
        }
        b'*' => {
            let mut items = Vec::new();
            for _ in 0..text.parse::<usize>().ok()? {
                let (item, used) = self::reply(&bytes[at..])?;
                items.push(item);
                at += used;
            }
            Reply::List(items)
        }
        _ => return None,
    };
    Some((reply, at))
}

pub fn put_bulk(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

pub fn put_int(out: &mut Vec<u8>, n: i64) {
    out.extend_from_slice(format!(":{n}\r\n").as_bytes());
}

pub fn put_list(out: &mut Vec<u8>, items: &[Vec<u8>]) {
    out.extend_from_slice(format!("*{}\r\n", items.len()).as_bytes());
    for item in items {
        put_bulk(out, item);
    }
}
