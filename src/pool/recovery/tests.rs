//! What nodes have, and say that they have, after a recovery on real servers.

use std::time::Duration;

use super::*;
use crate::pool::table::TableNode;
use crate::testserver::Server;

const TIMEOUT: Duration = Duration::from_secs(20);
const BOOKKEEPING_DB: u16 = 15;

#[test]
fn a_repair_is_announced_and_read_back() {
    let keys = vec![(0, b"a".to_vec()), (3, b"".to_vec())];
    let back: Vec<_> = decode_repair(&encode_repair(&keys))
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(back, keys);
    assert_eq!(decode_repair(b""), [None], "nothing named: the partition");
}

/// A node that has executed the writes up to `seq`: each pushed its number to a list.
async fn node_at(server: &Server, seq: u64) -> Control {
    let mut control = Control::connect(&server.address(), None, TIMEOUT).await.unwrap();
    let mut touched = BytesMut::new();
    for n in 1..=seq {
        let value = n.to_string();
        control
            .call(&[b"RPUSH", b"list", value.as_bytes()])
            .await
            .unwrap();
        account::put_touched(&mut touched, 0, 0, n, Touch::Key(b"list"));
    }
    control.select(BOOKKEEPING_DB).await.unwrap();
    let position = Position { epoch: 1, seq }.to_string();
    let applied: [&[u8]; 4] = [b"HSET", account::APPLIED, b"0", position.as_bytes()];
    control.call(&applied).await.unwrap();
    control
        .call(&[b"HSET", account::TOUCHED, b"0", &touched])
        .await
        .unwrap();
    control
}

/// What the node has, where it stands, and whether it is marked.
async fn found(server: &Server) -> (i64, Option<Position>, bool) {
    let mut control = Control::connect(&server.address(), None, TIMEOUT).await.unwrap();
    let len = match control.call(&[b"LLEN", b"list"]).await.unwrap() {
        BytesFrame::Number { data, .. } => data,
        other => panic!("{other:?}"),
    };
    let account = read_account(&mut control, BOOKKEEPING_DB).await.unwrap();
    let at = account.applied.get(&0).copied();
    (len, at, account.repairing.contains_key(&0))
}

/// What it was given counts from there on, whatever becomes of the others.
#[tokio::test]
async fn who_was_brought_up_to_date_stands_there_at_once() {
    let servers = [Server::start(), Server::start()];
    let mut source = node_at(&servers[0], 5).await;
    let mut target = node_at(&servers[1], 2).await;
    let position = Position { epoch: 1, seq: 5 };
    let plan = Plan {
        keys: BTreeMap::from([(0, vec![(0, b"list".to_vec())])]),
        whole: HashSet::new(),
        reached: BTreeMap::from([(0, position)]),
    };
    let space = Keyspace::plain(1);
    plan.carry_out(&mut source, &mut target, &space, BOOKKEEPING_DB)
        .await
        .unwrap();
    assert_eq!(found(&servers[1]).await, (5, Some(position), false));
    let account = read_account(&mut target, BOOKKEEPING_DB).await.unwrap();
    assert_eq!(
        account.touched,
        [],
        "its own batches do not tell how it came there"
    );
}

/// All of it: three nodes at three places become one.
#[tokio::test]
async fn all_stand_where_the_first_one_stood() {
    let servers = [Server::start(), Server::start(), Server::start()];
    let nodes = servers.iter().zip(["a", "b", "c"]);
    let nodes = nodes.map(|(server, name)| TableNode::new(name.into(), server.address(), 100, None));
    let mut table = Table::create("test", "id".into(), nodes.collect(), 1, 3, 2);
    let mut controls = HashMap::new();
    for (node, seq) in [(0, 4), (1, 5), (2, 2)] {
        controls.insert(node, node_at(&servers[usize::from(node)], seq).await);
    }
    // Somebody was stopped while he put a value together that is not behind any more.
    let stray = name_beside(&table.keyspace(), b"list");
    let mut client = Control::connect(&servers[1].address(), None, TIMEOUT)
        .await
        .unwrap();
    client.call(&[b"SET", &stray, b"half"]).await.unwrap();
    client.select(BOOKKEEPING_DB).await.unwrap();
    let mark = encode_repair(&[(0, b"list".to_vec())]);
    client
        .call(&[b"HSET", account::REPAIR, b"0", &mark])
        .await
        .unwrap();
    recover_all(&mut table, 2, BOOKKEEPING_DB, 2, &mut controls)
        .await
        .unwrap();
    client.select(0).await.unwrap();
    let there = client.call(&[b"EXISTS", &stray]).await.unwrap();
    assert_eq!(text_of(&there), "0", "what was put together is gone");
    let at = Some(Position { epoch: 2, seq: 5 });
    for server in &servers {
        assert_eq!(found(server).await, (5, at, false));
    }
    assert_eq!(table.rows[0].in_sync, 0b111);
}
