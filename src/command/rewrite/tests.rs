//! A deterministic form is right if the client cannot tell it from its own command, and two nodes cannot differ.
//!
//! Each case runs on three real servers: the client's own command on the first, its form on the two others (`trio`). The
//! reply must be that of the first, and the data of the two others must be equal in everything, times to the
//! millisecond included.

use super::*;
use crate::command::compare::digest;
use crate::command::decide::{Conclusion, Reply};
use crate::command::spec::Compare;
use crate::resp::walk;
use crate::testserver::{Sent, words};
use trio::{Trio, assert_alike, elements, now_ms, show, shown, text};

mod cases;
mod random;
mod trio;

fn form_sign(form: &Form) -> &'static str {
    match form {
        Form::AsIs => "as-is",
        Form::Rewritten(_) => "rewritten",
        Form::Decide(_) => "decided",
    }
}

#[test]
fn every_case_has_the_same_reply_and_the_same_effect() {
    let mut trio = Trio::start();
    let mut section = ("", "");
    let mut setup: Vec<&str> = Vec::new();
    for line in cases::CASES
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(heading) = line.strip_prefix('[') {
            section = heading.trim_end_matches(']').split_once(", ").unwrap();
            setup.clear();
            continue;
        }
        if let Some(command) = line.strip_prefix("first ") {
            setup.push(command);
            continue;
        }
        trio.everywhere("FLUSHALL");
        trio.all_everywhere(&setup);
        let commands: Vec<&str> = line.split("; ").collect();
        let (command, before) = commands.split_last().unwrap();
        for command in before {
            trio.everywhere(command);
        }
        let command = trio.resolved(command);
        let before_ms = now_ms();
        let want = trio.alone.call(&command);
        let got = trio.by_the_pool(&command);
        let apart_ms = now_ms() - before_ms;
        let (form, likeness) = section;
        assert_eq!(form_sign(&got.form), form, "{line}");
        let of_the_pool = trio.fingerprint(0);
        assert_eq!(
            shown(&of_the_pool),
            shown(&trio.fingerprint(1)),
            "{line}: the two nodes differ"
        );
        match likeness {
            "same" => {
                assert_eq!(show(&got.reply), show(&want), "{line}");
                assert_alike(&trio.fingerprint(2), &of_the_pool, apart_ms, line);
            }
            // What was chosen differs; how much of it does not.
            "alike" => {
                let shape = |reply| digest(Compare::Shape, reply);
                assert_eq!(
                    shape(&got.reply),
                    shape(&want),
                    "{line}: {} {}",
                    show(&got.reply),
                    show(&want)
                );
                for count in ["DBSIZE", "SCARD k", "LLEN d", "XLEN s"] {
                    assert_eq!(
                        show(&trio.alone.line(count)),
                        show(&trio.pool[0].line(count)),
                        "{line}, {count}"
                    );
                }
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn members_that_were_popped_are_gone_and_were_there() {
    let mut trio = Trio::start();
    trio.everywhere("SADD k a b c d e f g h");
    let mut popped = Vec::new();
    for command in ["SPOP k", "SPOP k 3", "SPOP k"] {
        let reply = trio.by_the_pool(&words(command)).reply;
        if reply.starts_with(b"~") {
            popped.extend(elements(&reply).iter().map(|member| text(member)));
        } else {
            popped.push(text(&reply));
        }
    }
    let mut left: Vec<_> = elements(&trio.pool[1].line("SMEMBERS k"))
        .iter()
        .map(|member| text(member))
        .collect();
    assert_eq!((popped.len(), left.len()), (5, 3));
    left.extend(popped);
    left.sort();
    assert_eq!(left, words("a b c d e f g h"));
}

#[test]
fn ties_are_stored_in_one_order() {
    let mut trio = Trio::start();
    for i in 0..50 {
        trio.everywhere(&format!("SADD k m{i}"));
        trio.everywhere(&format!("SET w_m{i} {}", i % 3));
    }
    let outcome = trio.by_the_pool(&words(
        "SORT k BY w_* ALPHA DESC LIMIT 5 40 GET # GET none_* STORE d",
    ));
    assert_eq!(show(&outcome.reply), ":80\\r\\n");
    assert_eq!(trio.fingerprint(0), trio.fingerprint(1));
}

#[test]
fn ids_of_new_entries_only_grow() {
    let mut trio = Trio::start();
    let mut last = StreamId::default();
    for i in 0..200 {
        let reply = trio
            .by_the_pool(&words(&format!("XADD s{} * a {i}", i % 3)))
            .reply;
        let id = StreamId::parse(walk::text(&reply).unwrap()).unwrap();
        assert!(id > last, "{id} after {last}");
        last = id;
    }
    assert!(last.ms.abs_diff(now_ms()) < 5000);
    let mut clock = PoolClock {
        now_ms: 7,
        last_stream_id: StreamId { ms: 9, seq: u64::MAX },
    };
    assert_eq!(clock.next_stream_id(), StreamId { ms: 10, seq: 0 });
    clock.now_ms = 11;
    assert_eq!(clock.next_stream_id(), StreamId { ms: 11, seq: 0 });
    assert_eq!(clock.next_stream_id(), StreamId { ms: 11, seq: 1 });
}

#[test]
fn a_claim_takes_what_is_idle_and_auto_claim_finds_what_was_deleted() {
    let mut trio = Trio::start();
    for id in 1..=30 {
        trio.everywhere(&format!("XADD s {id}-0 a b"));
    }
    trio.everywhere("XGROUP CREATE s g 0");
    trio.everywhere("XREADGROUP GROUP g one STREAMS s >");
    trio.everywhere("XCLAIM s g one 0 1 3 5 7 9 11 13 15 17 19 TIME @long_ago");
    trio.everywhere("XCLAIM s g one 0 2 4 6 8 10 12 14 16 18 20 22 24 26 28 30 21 23 25 27 29 TIME @start");
    trio.everywhere("XDEL s 5 7");
    let mut cursor = "0".to_owned();
    let mut seen = Vec::new();
    // A call looks at ten times its count.
    for call in 0..9 {
        let command = words(&format!("XAUTOCLAIM s g two 60000 {cursor} COUNT 2"));
        let want = elements(&trio.alone.call(&command));
        let got = elements(&trio.by_the_pool(&command).reply);
        assert_eq!(shown(&got), shown(&want), "call {call}");
        assert_eq!(trio.fingerprint(0), trio.fingerprint(1));
        cursor = String::from_utf8(text(&got[0])).unwrap();
        seen.extend(got[1..].iter().map(|part| elements(part).len()));
        if cursor == "0-0" {
            break;
        }
    }
    // Nothing is idle, and there is more than one call looks at.
    let command = words("XAUTOCLAIM s g two 99999999 0 COUNT 1");
    let want = trio.alone.call(&command);
    assert_eq!(show(&trio.by_the_pool(&command).reply), show(&want));
    assert_ne!(text(&elements(&want)[0]), b"0-0");
    assert_eq!(cursor, "0-0");
    assert_eq!(seen.iter().sum::<usize>(), 10, "{seen:?}");
}

#[test]
fn commands_of_newer_servers_are_rewritten_by_their_syntax() {
    let mut clock = PoolClock {
        now_ms: 1_000_000,
        last_stream_id: StreamId::default(),
    };
    for (line, want) in [
        ("HEXPIRE k 10 NX FIELDS 1 f", "HPEXPIREAT k 1010000 NX FIELDS 1 f"),
        ("HPEXPIRE k 10 FIELDS 1 f", "HPEXPIREAT k 1000010 FIELDS 1 f"),
        ("HGETEX k EX 10 FIELDS 1 EX", "HGETEX k PXAT 1010000 FIELDS 1 EX"),
        (
            "HSETEX k FNX px 10 FIELDS 2 PX 1 EX 2",
            "HSETEX k FNX PXAT 1000010 FIELDS 2 PX 1 EX 2",
        ),
        (
            "MSETEX 2 EX EX PX PX NX EX 10",
            "MSETEX 2 EX EX PX PX NX PXAT 1010000",
        ),
        ("SET k v IFEQ EX EX 10", "SET k v IFEQ EX PXAT 1010000"),
        (
            "XADD s KEEPREF MAXLEN ~ 5 LIMIT 10 * a b",
            "XADD s KEEPREF MAXLEN = 5 1000000-0 a b",
        ),
    ] {
        let command = words(line);
        let name = String::from_utf8_lossy(&command[0]).to_lowercase();
        let form = deterministic(rule_for(&name).unwrap(), &Sent::new(&command).args(), &mut clock);
        assert_eq!(
            form,
            Form::Rewritten(Bytes::copy_from_slice(Sent::new(&words(want)).args().bytes)),
            "{line}"
        );
    }
}

#[test]
fn answers_that_make_no_sense_write_nothing_wrong_and_end_nothing() {
    let lines = [
        "SPOP k",
        "SPOP k 2",
        "XCLAIM s g c 5 1-0",
        "XAUTOCLAIM s g c 5 0",
        "SORT k BY w* ALPHA STORE d",
    ];
    let answers: [&[u8]; 9] = [
        b"",
        b":1\r\n",
        b"_\r\n",
        b"*1\r\n_\r\n",
        b"*1\r\n*2\r\n$1\r\nx\r\n:1\r\n",
        b"*1\r\n*4\r\n$3\r\n1-0\r\n+c\r\n:x\r\n:1\r\n",
        b"*3\r\n",
        b"%1\r\n+a\r\n*0\r\n",
        b"-ERR no\r\n",
    ];
    for line in lines {
        let command = words(line);
        let sent = Sent::new(&command);
        let rule = rule_for(&String::from_utf8_lossy(&command[0]).to_lowercase()).unwrap();
        let Form::Decide(decision) = deterministic(rule, &sent.args(), &mut PoolClock::default()) else {
            panic!("{line} is not decided");
        };
        for answer in answers {
            let conclusion = decision.conclude(&sent.args(), answer, 5);
            for written in ["+OK\r\n", "*1\r\n_\r\n", "-NOREPLICAS x\r\n"] {
                let reply = conclusion.finish(conclusion.write.iter().map(|_| written.as_bytes()));
                assert!(
                    walk::frame(&reply).is_ok(),
                    "{line}, {}: {}",
                    show(answer),
                    show(&reply)
                );
            }
            if answer.starts_with(b"-") {
                let passed_on = Reply::Fixed(Bytes::copy_from_slice(answer));
                assert_eq!(
                    conclusion,
                    Conclusion {
                        write: SmallVec::new(),
                        reply: passed_on
                    }
                );
            }
        }
    }
}
