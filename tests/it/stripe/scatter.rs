//! Nothing asks all nodes, but for the first look-up of an id that nobody has seen: what each node receives is counted.

use super::*;
use crate::faults::RECOVERY_MAX;
use crate::harness::Client;
use std::collections::BTreeMap;

/// Commands that nodes were sent since this was last asked, but for what keeps them together.
struct Counts {
    clients: Vec<Client>,
}

impl Counts {
    fn of(pool: &Pool) -> Self {
        let mut counts = Self {
            clients: pool.nodes.iter().map(crate::harness::Node::client).collect(),
        };
        counts.take();
        counts
    }

    /// How often each command was executed, by all nodes together.
    fn take(&mut self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for client in &mut self.clients {
            let text = client.call(cmd!["INFO", "commandstats"]).text().unwrap();
            client.call(cmd!["CONFIG", "RESETSTAT"]);
            for line in text.lines() {
                let Some((name, rest)) = line
                    .strip_prefix("cmdstat_")
                    .and_then(|l| l.split_once(":calls="))
                else {
                    continue;
                };
                let calls: u64 = rest.split(',').next().unwrap().parse().unwrap();
                *all.entry(name.to_owned()).or_default() += calls;
            }
        }
        let ours = [
            "lpop",
            "lrange",
            "llen",
            "rpush",
            "xrange",
            "xlen",
            "xreadgroup",
            "xadd",
            "zscore",
            "zrangebyscore",
            "zcard",
            "exists",
            "get",
            "zrevrangebyscore",
        ];
        all.retain(|name, _| ours.contains(&name.as_str()));
        all
    }
}

fn calls(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs
        .iter()
        .map(|(name, calls)| ((*name).to_owned(), *calls))
        .collect()
}

#[test]
fn a_page_asks_one_partition() {
    let mut rng = Rng::new(seed());
    let pool = Pool::start(4);
    let sidecar = Sidecar::start(&striped(&pool, 2, 10));
    let mut driver = Driver::connect(&sidecar.endpoint());
    let all = new_ids(&mut rng, 60);
    for some in all.chunks(5) {
        assert!(driver.post(QUEUE, some, LONG_MS).is_ok());
    }
    // Streams that connect ask, too.
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    let mut counts = Counts::of(&pool);
    // Where a message was put is known, though nobody has listed it yet.
    assert!(driver.client.call(cmd!["ZRANK", INDEX, &all[33]]).int().is_some());
    assert_eq!(counts.take(), calls(&[("zscore", 1)]));
    // From the head: one segment.
    assert_eq!(driver.page(QUEUE, None, 4), all[..4]);
    assert_eq!(counts.take(), calls(&[("zrangebyscore", 1)]));
    // In the middle of a segment: one question for the rank, one for the page.
    assert_eq!(driver.page(QUEUE, Some(&all[3]), 4), all[4..8]);
    assert_eq!(counts.take(), calls(&[("zrangebyscore", 1), ("zscore", 1)]));
    // Over a segment's end: two.
    assert_eq!(driver.page(QUEUE, Some(&all[7]), 4), all[8..12]);
    assert_eq!(counts.take(), calls(&[("zrangebyscore", 2), ("zscore", 1)]));
    // The messages of a page: each is asked for once.
    assert_eq!(driver.bodies(&all[8..12]), all[8..12]);
    assert_eq!(counts.take().get("exists"), None);
    // The tail.
    let tail = driver.client.call(cmd!["ZREVRANGE", INDEX, 0, 0]);
    assert_eq!(ids(&tail), all[59..]);
    assert_eq!(counts.take(), calls(&[("zrevrangebyscore", 1)]));
    // How many there are: what has been counted is not asked again, unless something was removed there. (In the order of writes, so all copies
    // are asked.)
    let mut count = |expected: i64, asked: u64| {
        assert_eq!(driver.client.call(cmd!["ZCARD", INDEX]).int(), Some(expected));
        assert_eq!(counts.take(), calls(&[("zcard", 2 * asked)]));
    };
    count(60, 6);
    count(60, 1);
    assert_eq!(driver.client.call(cmd!["ZREM", INDEX, &all[25]]).int(), Some(1));
    assert_eq!(
        driver.client.call(cmd!["ZCOUNT", INDEX, "-inf", "+inf"]).int(),
        Some(59)
    );
    assert_eq!(counts.take(), calls(&[("zcard", 4)]));
    // An id that nobody has seen is looked for everywhere, once: in each partition, on one node.
    let stranger = new_id(&mut rng);
    for first in [true, false] {
        assert_eq!(driver.client.call(cmd!["EXISTS", stranger]).int(), Some(0));
        let asked = counts.take()["exists"];
        assert_eq!(asked, if first { 64 + 1 } else { 1 });
    }
    // After a restart nothing is remembered: the directory is read once, and a page teaches where its messages are.
    sidecar.restart();
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    let mut driver = Driver::connect(&sidecar.endpoint());
    counts.take();
    assert_eq!(driver.page(QUEUE, None, 4), all[..4]);
    let asked = counts.take();
    assert_eq!(
        (asked.get("get"), asked.get("zrangebyscore")),
        (Some(&2), Some(&1)),
        "{asked:?}"
    );
    assert_eq!(driver.bodies(&all[..4]), all[..4]);
    assert_eq!(counts.take().get("exists"), None);
    // An entry that nobody has listed since: each of the 6 segments is asked, once.
    for asked in [6, 1] {
        assert!(driver.client.call(cmd!["ZRANK", INDEX, &all[33]]).int().is_some());
        assert_eq!(counts.take(), calls(&[("zscore", asked)]));
    }
}

#[test]
fn a_page_of_a_list_asks_one_partition() {
    let pool = Pool::start(4);
    let sidecar = Sidecar::start(&lists::lists(&pool, 2, 10));
    let mut client = sidecar.client();
    for n in 0..60 {
        client.call(cmd!["RPUSH", "list:q", n]);
    }
    assert_eq!(segments_of(&sidecar, "list:q"), 6);
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    let mut counts = Counts::of(&pool);
    let mut page = |from: i64, to: i64| ids(&client.call(cmd!["LRANGE", "list:q", from, to]));
    assert_eq!(page(0, 3), ["0", "1", "2", "3"]);
    assert_eq!(counts.take(), calls(&[("lrange", 1)]));
    assert_eq!(page(33, 36), ["33", "34", "35", "36"]);
    assert_eq!(page(-2, -1), ["58", "59"]);
    assert_eq!(counts.take(), calls(&[("lrange", 2)]));
    assert_eq!(page(38, 41), ["38", "39", "40", "41"]);
    assert_eq!(counts.take(), calls(&[("lrange", 2)]));
    assert_eq!(client.call(cmd!["LLEN", "list:q"]).int(), Some(60));
    assert_eq!(counts.take(), calls(&[("llen", 1)]));
    // To and from an end: its segment's copies.
    assert_eq!(client.call(cmd!["LPOP", "list:q"]).text().unwrap(), "0");
    assert_eq!(counts.take(), calls(&[("lpop", 2)]));
    client.call(cmd!["RPUSH", "list:q", 60]);
    counts.take();
    assert_eq!(client.call(cmd!["RPUSH", "list:q", 61]).int(), Some(61));
    assert_eq!(counts.take(), calls(&[("rpush", 2)]));
}

#[test]
fn a_page_of_a_stream_asks_one_partition() {
    let pool = Pool::start(4);
    let sidecar = Sidecar::start(&streams::streams(&pool, 2, 10));
    let mut client = sidecar.client();
    for n in 1..=60 {
        client.call(cmd!["XADD", "stream:q", n, "f", n]);
    }
    client.call(cmd!["XGROUP", "CREATE", "stream:q", "g", 0]);
    assert_eq!(segments_of(&sidecar, "stream:q"), 6);
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    let mut counts = Counts::of(&pool);
    let mut page = |from: &str, count: u64| {
        let reply = client.call(cmd!["XRANGE", "stream:q", from, "+", "COUNT", count]);
        let first = |entry: &crate::harness::Reply| entry.items()[0].text().unwrap();
        reply.items().iter().map(first).collect::<Vec<_>>()
    };
    assert_eq!(page("-", 2), ["1-0", "2-0"]);
    assert_eq!(counts.take(), calls(&[("xrange", 1)]));
    assert_eq!(page("(33", 2), ["34-0", "35-0"]);
    assert_eq!(counts.take(), calls(&[("xrange", 1)]));
    // Over a segment's end: two partitions, the first of which is asked again, for both to be of one moment.
    assert_eq!(page("(39", 2), ["40-0", "41-0"]);
    assert_eq!(counts.take(), calls(&[("xrange", 3)]));
    assert_eq!(client.call(cmd!["XLEN", "stream:q"]).int(), Some(60));
    assert_eq!(counts.take(), calls(&[("xlen", 1)]));
    client.call(cmd!["XADD", "stream:q", "61", "f", 1]);
    counts.take();
    client.call(cmd!["XADD", "stream:q", "62", "f", 1]);
    assert_eq!(counts.take(), calls(&[("xadd", 2)]));
    // A group's reader goes from segment to segment, and does not begin anew each time.
    let read = cmd![
        "XREADGROUP",
        "GROUP",
        "g",
        "c",
        "COUNT",
        5,
        "STREAMS",
        "stream:q",
        ">"
    ];
    for _ in 0..9 {
        client.call(read.clone());
    }
    counts.take();
    client.call(read);
    let asked = counts.take()["xreadgroup"];
    assert!(asked <= 4, "two copies each of two segments at most: {asked}");
}
