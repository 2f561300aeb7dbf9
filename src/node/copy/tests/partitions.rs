//! Whole partitions.

use std::collections::BTreeSet;

use super::*;

const PARTITIONS: u16 = 4;
const BOOKKEEPING_DB: u16 = 15;

async fn fill_dbs(control: &mut Control, what: &str) {
    for db in ["0", "3", "15"] {
        control.call(&[b"SELECT", db.as_bytes()]).await.unwrap();
        for i in 0..2000 {
            let key = format!("{what}{i}");
            control
                .call(&[b"SET", key.as_bytes(), what.as_bytes()])
                .await
                .unwrap();
        }
    }
}

/// Keys of all databases that are in partitions 1 and 2, and how many are not.
async fn keys_of(control: &mut Control, scope: &Scope<'_>) -> (BTreeSet<(u16, Vec<u8>)>, usize) {
    let (mut inside, mut outside) = (BTreeSet::new(), 0);
    for db in databases(control).await.unwrap() {
        control
            .call(&[b"SELECT", db.to_string().as_bytes()])
            .await
            .unwrap();
        let BytesFrame::Array { data, .. } = control.call(&[b"KEYS", b"*"]).await.unwrap() else {
            panic!("no keys")
        };
        for key in data {
            let key = bytes_of(&key).to_vec();
            if db != scope.bookkeeping_db && scope.wanted.contains(&scope.keyspace.partition_of(&key)) {
                inside.insert((db, key));
            } else {
                outside += 1;
            }
        }
    }
    (inside, outside)
}

#[tokio::test]
async fn partitions_are_copied_and_removed_and_no_others() {
    let mut two = Two::start().await;
    let wanted = HashSet::from([1, 2]);
    let keyspace = Keyspace::plain(PARTITIONS);
    let scope = Scope {
        keyspace: &keyspace,
        wanted: &wanted,
        bookkeeping_db: BOOKKEEPING_DB,
    };
    let pace = Pace::new(0);
    fill_dbs(&mut two.source, "new").await;
    fill_dbs(&mut two.target, "old").await;
    let (inside, outside) = keys_of(&mut two.source, &scope).await;
    let (there, other) = keys_of(&mut two.target, &scope).await;
    assert!(inside.len() > 1000 && outside > 1000);
    let copied = copy_partitions(&mut two.source, &mut two.target, &scope, &pace)
        .await
        .unwrap();
    assert_eq!(copied.keys as usize, inside.len() + there.len());
    assert_eq!(keys_of(&mut two.target, &scope).await, (inside.clone(), other));
    let removed = remove_partitions(&mut two.target, &scope, &pace).await.unwrap();
    assert_eq!(removed as usize, inside.len());
    assert_eq!(keys_of(&mut two.target, &scope).await, (BTreeSet::new(), other));
    let one_partition = HashSet::from([3]);
    let nothing_left = Scope {
        wanted: &one_partition,
        ..scope
    };
    remove_partitions(&mut two.source, &nothing_left, &pace)
        .await
        .unwrap();
    assert_eq!(keys_of(&mut two.source, &scope).await.0, inside);
}
