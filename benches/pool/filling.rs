//! What a pool that grows is filled with, and what its clients do meanwhile.
//!
//! Values of all types, most of them small, and some lists so large that they are copied by ranges; half of those are
//! pushed to and popped from all the time. A client pushes before it pops, so no list runs empty.

use crate::tape::{Tape, request, shuffled};

/// Bytes of a list's element, and of whatever else is small.
const ELEMENT_BYTES: usize = 100;
/// Bytes of a string.
const STRING_BYTES: usize = 256;
/// Elements that one command brings to a large list.
const PUSH_ELEMENTS: usize = 500;
/// Elements of the lists that clients use.
const LIST_ELEMENTS: usize = 300;
/// Lists that clients use.
const LISTS: usize = 100;
/// Units (four commands) of the clients' tape: a multiple of every pipeline.
const UNITS: usize = 8192;

/// How much of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filling {
    pub(crate) strings: usize,
    /// Hashes, sets, sorted sets and streams of 10 elements, of each so many.
    pub(crate) small: usize,
    /// Lists that nobody uses, of 50 elements.
    pub(crate) lists: usize,
    /// Elements of each large list.
    pub(crate) large_elements: usize,
    /// Large lists that nobody uses, and as many of those that clients do.
    pub(crate) large: usize,
}

impl Filling {
    /// About 200 MB.
    pub(crate) const FULL: Filling = Filling {
        strings: 200_000,
        small: 20_000,
        lists: 10_000,
        large_elements: 100_000,
        large: 3,
    };

    /// So that it does not rot.
    pub(crate) const QUICK: Filling = Filling {
        strings: 800,
        small: 40,
        lists: 40,
        large_elements: 4_000,
        large: 1,
    };

    /// Whether all copies can be compared in no time.
    pub(crate) fn is_small(&self) -> bool {
        self.strings <= Filling::QUICK.strings
    }

    /// All of it, once.
    pub(crate) fn tape(&self) -> Tape {
        let [element, string] = [ELEMENT_BYTES, STRING_BYTES].map(noise);
        let elements = |count: usize| vec![element.as_slice(); count];
        let numbered: Vec<String> = (0..10).map(|number| format!("{number:0>50}")).collect();
        let pushes = self.large_elements / PUSH_ELEMENTS;
        let parts = [
            self.strings,
            4 * self.small,
            self.lists,
            LISTS,
            2 * self.large * pushes,
        ];
        Tape::written(parts.iter().sum(), 1, |out, place| {
            let mut number = place;
            let part = parts.iter().position(|count| match number.checked_sub(*count) {
                Some(left) => {
                    number = left;
                    false
                }
                None => true,
            });
            let push = |out: &mut Vec<u8>, key: String, count: usize| {
                request(out, &[&[b"RPUSH", key.as_bytes()], &elements(count)[..]].concat());
            };
            match part {
                Some(0) => request(out, &[b"SET", string_key(number).as_bytes(), &string]),
                Some(1) => {
                    let key = format!("grow:small:{number:08}");
                    let command: &[u8] = match number % 4 {
                        0 => b"HSET",
                        1 => b"SADD",
                        2 => b"ZADD",
                        _ => b"XADD",
                    };
                    let mut args: Vec<&[u8]> = vec![command, key.as_bytes()];
                    if command == b"XADD" {
                        args.push(b"*");
                    }
                    for member in &numbered {
                        match command {
                            b"SADD" => {}
                            b"ZADD" => args.push(b"1"),
                            _ => args.push(member.as_bytes()),
                        }
                        args.push(member.as_bytes());
                    }
                    request(out, &args);
                }
                Some(2) => push(out, format!("grow:quiet:{number:08}"), 50),
                Some(3) => push(out, list_key(number), LIST_ELEMENTS),
                _ if number % 2 == 0 => {
                    push(out, list_key(number / 2 % self.large), PUSH_ELEMENTS);
                }
                _ => push(
                    out,
                    format!("grow:large:{}", number / 2 % self.large),
                    PUSH_ELEMENTS,
                ),
            }
        })
    }

    /// What clients send: `LPUSH`, `GET`, `SET`, `RPOP`.
    pub(crate) fn traffic(&self) -> Tape {
        let [element, string] = [ELEMENT_BYTES, STRING_BYTES].map(noise);
        let order = shuffled(UNITS);
        Tape::written(4 * UNITS, 1, |out, place| {
            let number = order.get(place / 4).copied().unwrap_or(0);
            let list = list_key(number % LISTS);
            let key = |step: usize| string_key((number + step * UNITS) * 17 % self.strings);
            match place % 4 {
                0 => request(out, &[b"LPUSH", list.as_bytes(), &element]),
                1 => request(out, &[b"GET", key(0).as_bytes()]),
                2 => request(out, &[b"SET", key(1).as_bytes(), &string]),
                _ => request(out, &[b"RPOP", list.as_bytes()]),
            }
        })
    }
}

/// What does not become smaller where servers compress it.
fn noise(length: usize) -> Vec<u8> {
    let steps = std::iter::successors(Some(0x9e37_79b9_7f4a_7c15_u64), |state| {
        Some(
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407),
        )
    });
    steps.map(|state| (state >> 56) as u8).take(length).collect()
}

fn string_key(number: usize) -> String {
    format!("grow:string:{number:08}")
}

fn list_key(number: usize) -> String {
    format!("grow:list:{number:04}")
}
