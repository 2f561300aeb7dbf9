//! What is asked of a list, or done to it, by offsets and values. Only segments that it concerns are asked: where they begin is known by
//! the lengths of those before them.

use bytes::Bytes;

use super::super::segments::texts;
use super::super::whole::Whole;
use super::super::{NULL, Steps, count_of, sound, whole};
use super::ends::array;
use crate::command::Special;
use crate::command::number::integer;
use crate::ingress::answer::{NOT_AN_INTEGER, SYNTAX};
use crate::ingress::gather::elements;
use crate::ingress::procedure::{Procedure, Step, answer};
use crate::request::Outcome;
use crate::resp::walk::text;
use crate::resp::{Args, encode};

const NO_INDEX: &str = "ERR index out of range";

const NO_KEY: &str = "ERR no such key";

pub(super) fn is_possible(special: Special) -> bool {
    use Special::*;
    matches!(special, Lrange | Lindex | Lset | Linsert | Lrem | Ltrim | Lpos)
}

/// Executes it.
pub(super) async fn execute(p: &Procedure, steps: &Steps, special: Special) -> Step<Outcome> {
    use Special::*;
    let args = steps.args();
    let mut whole = whole(p, steps, args.arg(1)).await?;
    let reply = match special {
        Lrange => {
            let found = range(p, &whole, number(&args, 2)?, number(&args, 3)?).await?;
            array(&found)
        }
        Lindex => {
            let at = number(&args, 2)?;
            let found = range(p, &whole, at, at).await?;
            found.first().map_or(NULL, |element| encode::bulk_frame(element))
        }
        Lset => set(p, &whole, &args).await?,
        Linsert => insert(p, &mut whole, &args).await?,
        Lrem => remove(p, &mut whole, &args).await?,
        Ltrim => trim(p, &mut whole, &args).await?,
        _ => positions(p, &whole, &args).await?,
    };
    whole.finish();
    Ok(answer(reply))
}

/// `LLEN`: what is counted, and the tail is asked, so that a sidecar whose time is over does not answer by what it remembers.
pub(super) async fn length(p: &Procedure, steps: &Steps) -> Step<Outcome> {
    let args = steps.args();
    let whole = whole(p, steps, args.arg(1)).await?;
    let tail = whole.segments() - 1;
    let found = whole.read(p, b"LLEN", vec![(tail, Vec::new())]).await?;
    let at_tail = found.first().and_then(|reply| text(reply)).and_then(integer);
    let total = whole.base(tail) as i64 + at_tail.unwrap_or(0);
    whole.finish();
    Ok(answer(encode::integer(total)))
}

fn number(args: &Args<'_>, at: usize) -> Step<i64> {
    integer(args.arg(at)).ok_or_else(|| answer(encode::error(NOT_AN_INTEGER)))
}

fn text_of(number: impl ToString) -> Bytes {
    number.to_string().into()
}

async fn range(p: &Procedure, whole: &Whole, start: i64, stop: i64) -> Step<Vec<Bytes>> {
    let slices = whole.slices(start, stop);
    let asked = slices
        .iter()
        .map(|slice| (slice.at, vec![text_of(slice.from), text_of(slice.to)]));
    let found = whole.read(p, b"LRANGE", asked.collect()).await?;
    Ok(found.iter().flat_map(texts).collect())
}

async fn set(p: &Procedure, whole: &Whole, args: &Args<'_>) -> Step<Bytes> {
    let at = number(args, 2)?;
    match whole.slices(at, at).first() {
        Some(slice) => {
            let local = slice.from.to_string();
            whole
                .on(p, slice.at, b"LSET", &[local.as_bytes(), args.arg(3)])
                .await
        }
        _ if whole.total() == 0 => Ok(encode::error(NO_KEY)),
        _ => Ok(encode::error(NO_INDEX)),
    }
}

async fn insert(p: &Procedure, whole: &mut Whole, args: &Args<'_>) -> Step<Bytes> {
    let words: Vec<&[u8]> = args.iter().skip(2).collect();
    for at in 0..whole.segments() {
        let reply = sound(whole.on(p, at, b"LINSERT", &words).await?)?;
        if count_of(&reply) > 0 {
            whole.count(at, 1);
            return Ok(encode::integer(whole.total() as i64));
        }
    }
    Ok(encode::integer(if whole.total() == 0 { 0 } else { -1 }))
}

async fn remove(p: &Procedure, whole: &mut Whole, args: &Args<'_>) -> Step<Bytes> {
    let count = number(args, 2)?;
    let mut left = count.unsigned_abs();
    let mut removed = 0;
    let order: Vec<usize> = match count < 0 {
        true => (0..whole.segments()).rev().collect(),
        false => (0..whole.segments()).collect(),
    };
    for at in order {
        let wanted = match count {
            0 => "0".to_owned(),
            _ if left == 0 => break,
            1.. => left.to_string(),
            _ => format!("-{left}"),
        };
        let reply = whole
            .on(p, at, b"LREM", &[wanted.as_bytes(), args.arg(3)])
            .await?;
        let here = count_of(&sound(reply)?);
        whole.count(at, -here);
        removed += here;
        left = left.saturating_sub(here as u64);
    }
    whole.settle(p).await?;
    Ok(encode::integer(removed))
}

async fn trim(p: &Procedure, whole: &mut Whole, args: &Args<'_>) -> Step<Bytes> {
    let slices = whole.slices(number(args, 2)?, number(args, 3)?);
    for at in 0..whole.segments() {
        let length = whole.length(at);
        let kept = match slices.iter().find(|slice| slice.at == at) {
            None if length == 0 => continue,
            None => {
                sound(whole.on(p, at, b"DEL", &[]).await?)?;
                0
            }
            Some(slice) if slice.to - slice.from + 1 == length => continue,
            Some(slice) => {
                let (from, to) = (slice.from.to_string(), slice.to.to_string());
                sound(
                    whole
                        .on(p, at, b"LTRIM", &[from.as_bytes(), to.as_bytes()])
                        .await?,
                )?;
                slice.to - slice.from + 1
            }
        };
        whole.count(at, kept as i64 - length as i64);
    }
    whole.settle(p).await?;
    Ok(Bytes::from_static(b"+OK\r\n"))
}

/// What `LPOS` asks for.
struct Wanted {
    /// Which match is the first one told; negative from the tail.
    rank: i64,
    /// How many are told; `None`: one, not as an array.
    count: Option<u64>,
    /// How many elements are compared; 0: all.
    compared: u64,
}

impl Wanted {
    fn of(args: &Args<'_>) -> Step<Self> {
        let mut wanted = Self {
            rank: 1,
            count: None,
            compared: 0,
        };
        let wrong = |line: &str| Err(answer(encode::error(line)));
        if args.len().is_multiple_of(2) {
            return wrong(SYNTAX);
        }
        for at in (3..args.len()).step_by(2) {
            match args.arg(at).to_ascii_uppercase().as_slice() {
                b"RANK" => match number(args, at + 1)? {
                    0 => return wrong(RANK_ZERO),
                    rank => wanted.rank = rank,
                },
                b"COUNT" => match integer(args.arg(at + 1)) {
                    Some(count @ 0..) => wanted.count = Some(count as u64),
                    _ => return wrong("ERR COUNT can't be negative"),
                },
                b"MAXLEN" => match integer(args.arg(at + 1)) {
                    Some(compared @ 0..) => wanted.compared = compared as u64,
                    _ => return wrong("ERR MAXLEN can't be negative"),
                },
                _ => return wrong(SYNTAX),
            }
        }
        Ok(wanted)
    }
}

const RANK_ZERO: &str = "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start \
                         from the end of the list";

async fn positions(p: &Procedure, whole: &Whole, args: &Args<'_>) -> Step<Bytes> {
    let wanted = Wanted::of(args)?;
    let is_backward = wanted.rank < 0;
    let order: Vec<usize> = match is_backward {
        true => (0..whole.segments()).rev().collect(),
        false => (0..whole.segments()).collect(),
    };
    let mut skip = wanted.rank.unsigned_abs() - 1;
    let enough = wanted.count.unwrap_or(1);
    let mut left = wanted.compared;
    let mut found: Vec<u64> = Vec::new();
    for at in order {
        if enough > 0 && found.len() as u64 >= enough {
            break;
        }
        let mut asked: Vec<Bytes> = vec![Bytes::copy_from_slice(args.arg(2)), "COUNT".into(), "0".into()];
        asked.extend(["RANK".into(), (if is_backward { "-1" } else { "1" }).into()]);
        if wanted.compared > 0 {
            if left == 0 {
                break;
            }
            asked.extend(["MAXLEN".into(), text_of(left)]);
            left = left.saturating_sub(whole.length(at));
        }
        let replies = whole.read(p, b"LPOS", vec![(at, asked)]).await?;
        let here: Vec<u64> = replies
            .iter()
            .flat_map(|reply| elements(reply))
            .filter_map(|position| u64::try_from(count_of(position)).ok())
            .collect();
        for position in here {
            match skip {
                0 => found.push(whole.base(at) + position),
                _ => skip -= 1,
            }
        }
    }
    if enough > 0 {
        found.truncate(enough as usize);
    }
    Ok(match wanted.count {
        None => found
            .first()
            .map_or(NULL, |position| encode::integer(*position as i64)),
        Some(_) => {
            let mut out = bytes::BytesMut::new();
            encode::header(&mut out, b'*', found.len());
            for position in found {
                out.extend_from_slice(&encode::integer(position as i64));
            }
            out.freeze()
        }
    })
}
