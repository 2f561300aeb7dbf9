//! Commands in the form in which nodes get them. Input: one command, and behind it a node's answer to the probe.

use bytes::Bytes;
use ringfence::command::decide::Decision;
use ringfence::command::rewrite::{Form, PoolClock, StreamId, deterministic, rule_for, second_chance};
use ringfence::command::spec::Class;
use ringfence::resp::{Args, CommandScanner, Scanned, Spans};

use super::client::table;
use crate::valid;

/// What nodes get is one whole command that would not be rewritten again; what clients get is one whole reply.
pub fn rewrite(data: &[u8]) {
    let (frame, spans, answer) = match CommandScanner::new(1 << 20).scan(data) {
        Ok(Scanned::Command { len, spans }) => (Bytes::copy_from_slice(&data[..len]), spans, &data[len..]),
        Ok(Scanned::Inline { len, frame, spans }) => (frame, spans, &data[len..]),
        _ => return,
    };
    let args = Args {
        bytes: &frame,
        spans: &spans,
    };
    let Ok(command) = table().lookup(&args) else {
        return;
    };
    let Some(rule) = command.rewrite else { return };
    let mut random = crate::cuts::Random::of(data);
    let now_ms = [0, 1_700_000_000_000, 1 << 62, u64::MAX][random.below(4)];
    let last_stream_id = if random.below(4) == 0 {
        StreamId {
            ms: u64::MAX,
            seq: u64::MAX - random.below(2) as u64,
        }
    } else {
        StreamId { ms: now_ms, seq: 7 }
    };
    let mut clock = PoolClock {
        now_ms,
        last_stream_id,
    };
    match deterministic(rule, &args, &mut clock) {
        Form::AsIs => {}
        Form::Rewritten(rewritten) => {
            settled(&rewritten, now_ms);
            let late =
                b"-ERR The ID specified in XADD is equal or smaller than the target stream top item\r\n";
            if let Some(decision) = second_chance(rule, &args, late) {
                decided(decision, &args, answer, now_ms);
            }
        }
        Form::Decide(decision) => decided(decision, &args, answer, now_ms),
    }
}

fn decided(decision: Decision, args: &Args<'_>, answer: &[u8], now_ms: u64) {
    let probe = decision.probe(args);
    let spans = spans_of(&probe);
    let probe = Args {
        bytes: &probe,
        spans: &spans,
    };
    let asks = table()
        .lookup(&probe)
        .expect("a probe is a command")
        .class(&probe);
    assert!(matches!(asks, Class::Read), "a probe changes nothing: {asks:?}");
    let conclusion = decision.conclude(args, answer, now_ms);
    for write in &conclusion.write {
        settled(write, now_ms);
    }
    // The writes are answered with what the probe was: any reply will do.
    for replies in [vec![], vec![answer]] {
        let reply = conclusion.finish(replies);
        assert!(
            valid::is_resp3(&reply) || !valid::is_resp3(answer),
            "{:?}",
            String::from_utf8_lossy(&reply)
        );
    }
}

/// A command that means the same to every node, and at any time: much later it would go out with the same arguments.
fn settled(frame: &Bytes, now_ms: u64) {
    let spans = spans_of(frame);
    let args = Args {
        bytes: frame,
        spans: &spans,
    };
    let name = String::from_utf8_lossy(args.arg(0)).to_lowercase();
    let Some(rule) = rule_for(&name) else { return };
    let mut much_later = PoolClock {
        now_ms: now_ms.max(1 << 62),
        ..PoolClock::default()
    };
    match deterministic(rule, &args, &mut much_later) {
        Form::AsIs => {}
        Form::Rewritten(again) => assert_eq!(sorted(&again), sorted(frame), "{frame:?} becomes {again:?}"),
        Form::Decide(decision) => panic!("{frame:?} would be decided: {decision:?}"),
    }
}

fn sorted(frame: &Bytes) -> Vec<Vec<u8>> {
    let spans = spans_of(frame);
    let args = Args {
        bytes: frame,
        spans: &spans,
    };
    let mut all: Vec<Vec<u8>> = args.iter().map(<[u8]>::to_vec).collect();
    all.sort_unstable();
    all
}

fn spans_of(frame: &Bytes) -> Spans {
    match CommandScanner::new(usize::MAX).scan(frame) {
        Ok(Scanned::Command { len, spans }) if len == frame.len() => spans,
        other => panic!("{other:?}: {:?}", String::from_utf8_lossy(frame)),
    }
}
