//! What nobody thought of: commands put together at random from right and wrong parts.

use super::form_sign;
use super::trio::{Trio, assert_alike, now_ms, show, shown};
use crate::resp::walk;
use crate::testserver::words;

/// Commands of random words that are tried.
const ROUNDS: usize = 2000;

/// What a command of each kind may be made of, right and wrong.
const VOCABULARY: &[(&str, &str)] = &[
    (
        "SET k v",
        "EX 10, PX 10000, EXAT 99999999999, NX, XX, GET, KEEPTTL, ex 20, EX 0, PX -1, EX 01, EX x, EX, x",
    ),
    (
        "GETEX k",
        "EX 10, PX 10000, PXAT 9999999999999, PERSIST, px 20000, EX 0, PX -1, EX x, EX, PX 9223372036854775807",
    ),
    ("EXPIRE k 10", "NX, XX, GT, LT, nx, 10, x"),
    ("EXPIRE k 1000", "NX, XX, GT, LT"),
    (
        "PEXPIRE k",
        "10000, 1000000, -5, 0, x, 10000 NX, 1000000 XX, 10000 GT, 1000000 GT, 10000 LT, 10000 NX GT",
    ),
    ("SETEX k", "10 v, -1 v, 0 v, x v, 9223372036854775807 v"),
    (
        "XADD s",
        "MAXLEN ~ 5, MINID ~ 1, MAXLEN = 2, MAXLEN 3, LIMIT 3, LIMIT x, NOMKSTREAM, 500-1 a b, 502-* a b, 1 a b, a b",
    ),
    (
        "XADD s MAXLEN ~ 5",
        "LIMIT 3, LIMIT 0, LIMIT -1, NOMKSTREAM, 500-1 a b, 502-* a b, 500 a b c d, MINID 5",
    ),
    (
        "XTRIM s",
        "MAXLEN 2, MINID 2, MINID = 3-0, MAXLEN ~ 5, LIMIT 5, MAXLEN -1, LIMIT x, a",
    ),
    (
        "XCLAIM s g c 0 1-0",
        "2-0, 3, 99-0, IDLE 5, TIME 5, IDLE -5, TIME x, RETRYCOUNT 5, FORCE, JUSTID, LASTID 5-5, x",
    ),
    (
        "XCLAIM s g c 50000",
        "1-0, 2-0, 3, 4 FORCE, 1-0 1-0, FORCE, JUSTID, LASTID 5, IDLE 70000, IDLE 5, RETRYCOUNT 2, x",
    ),
    (
        "XAUTOCLAIM s g c 50000",
        "0, 1-0, (1-0, 3, -, +, 0 COUNT 1, COUNT 2, COUNT 0, JUSTID, x",
    ),
    (
        "XAUTOCLAIM s g c 0 0",
        "COUNT 1, COUNT 2, COUNT 3, JUSTID, COUNT x",
    ),
    (
        "SORT l",
        "BY nosort, BY w_*, GET #, GET w_*, ALPHA, LIMIT 0 2, ASC, DESC, STORE d, STORE l, x",
    ),
    (
        "SORT l BY w_* ALPHA",
        "GET #, GET none_*, LIMIT 1 5, LIMIT 0 x, DESC, STORE d, STORE l, STORE",
    ),
];

#[test]
fn commands_of_random_words_are_answered_alike() {
    let mut trio = Trio::start();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % n as u64) as usize
    };
    let mut answered = 0;
    for round in 0..ROUNDS {
        let (start, vocabulary) = VOCABULARY[round % VOCABULARY.len()];
        let vocabulary: Vec<&str> = vocabulary.split(", ").collect();
        let mut line = start.to_owned();
        for _ in 0..1 + below(3) {
            line = format!("{line} {}", vocabulary[below(vocabulary.len())]);
        }
        trio.all_everywhere(&[
            "FLUSHALL",
            "RPUSH l c a b",
            "MSET k v w_a 2 w_b 3 w_c 1",
            "PEXPIREAT k @soon",
            "XADD s 1-0 a b",
            "XADD s 2-0 a b",
            "XADD s 3-0 a b",
            "XADD s 4-0 a b",
            "XGROUP CREATE s g 0",
            "XREADGROUP GROUP g one COUNT 3 STREAMS s >",
            "XCLAIM s g one 0 1-0 3-0 TIME @long_ago",
            "XCLAIM s g one 0 2-0 TIME @start",
        ]);
        let command = words(&line);
        let before_ms = now_ms();
        let want = trio.alone.call(&command);
        if want.starts_with(b"-ERR wrong number of arguments") {
            // Checked before a command comes here.
            continue;
        }
        let got = trio.by_the_pool(&command);
        let apart_ms = now_ms() - before_ms;
        assert_eq!(show(&got.reply), show(&want), "{line} as {:?}", got.form);
        assert_alike(&trio.fingerprint(2), &trio.fingerprint(0), apart_ms, &line);
        if form_sign(&got.form) != "as-is" || !line.starts_with("XC") {
            assert_eq!(shown(&trio.fingerprint(0)), shown(&trio.fingerprint(1)), "{line}");
        }
        answered += usize::from(!walk::is_error(&want));
    }
    assert!(answered > 500, "nearly all were errors: {answered}");
}
