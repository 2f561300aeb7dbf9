//! Who may append, and who seals.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::*;

async fn is_pending<T>(future: impl Future<Output = T> + Unpin) -> bool {
    tokio::time::timeout(Duration::from_millis(20), future)
        .await
        .is_err()
}

#[test]
fn an_id_is_a_uuid_in_lower_case() {
    let id = "5083c0f1-0e9c-4a1c-8d1e-5c9a7f1f0b11";
    assert_eq!(
        Id::of(id.as_bytes()),
        Some(Id(0x5083_c0f1_0e9c_4a1c_8d1e_5c9a_7f1f_0b11))
    );
    assert_eq!(
        Id::of(id.as_bytes()).map(|id| id.to_string()).as_deref(),
        Some(id)
    );
    assert_eq!(Id::of(id.to_uppercase().as_bytes()), None);
    for other in [
        "5083c0f1",
        "5083c0f10-e9c-4a1c-8d1e-5c9a7f1f0b11",
        "5083c0f1-0e9c-4a1c-8d1e-5c9a7f1f0b1g",
    ] {
        assert_eq!(Id::of(other.as_bytes()), None, "{other}");
    }
}

#[tokio::test]
async fn a_segment_is_sealed_when_nobody_appends_to_it() {
    let stripe = Arc::new(Stripe::default());
    assert!(matches!(stripe.turn(1, 3).await, Turn::Unread));
    stripe.loaded(Directory::new(5), 0);
    let Turn::Append(first, one) = stripe.turn(2, 3).await else {
        panic!("the first one appends")
    };
    assert_eq!((first.number, first.partition), (0, 5));
    let Turn::Append(_, other) = stripe.turn(1, 3).await else {
        panic!("there is room")
    };
    // Full, but the two are not done.
    let mut third = Box::pin(stripe.turn(1, 3));
    assert!(is_pending(&mut third).await);
    drop(one);
    assert!(is_pending(&mut third).await);
    drop(other);
    let Turn::Seal(full, 3, alone) = third.await else {
        panic!("it is full")
    };
    assert_eq!(full, first);
    // Others wait for it; if it fails, one of them seals.
    let mut fourth = Box::pin(stripe.turn(1, 3));
    assert!(is_pending(&mut fourth).await);
    drop(alone);
    let Turn::Seal(_, 3, alone) = fourth.await else {
        panic!("it is full still")
    };
    let mut directory = Directory::clone(&stripe.directory().unwrap());
    directory.open_next(6, 3);
    stripe.sealed(directory, &alone);
    drop(alone);
    let Turn::Append(second, _inside) = stripe.turn(100, 3).await else {
        panic!("however much it is, an empty segment takes it")
    };
    assert_eq!((second.number, second.partition, second.base), (1, 6, 3));
}

#[tokio::test]
async fn many_append_and_no_segment_gets_too_long() {
    let stripe = Arc::new(Stripe::default());
    stripe.loaded(Directory::new(0), 0);
    let counts: Arc<[AtomicU64]> = (0..40).map(|_| AtomicU64::new(0)).collect();
    let tasks = (0..20).map(|_| {
        let (stripe, counts) = (stripe.clone(), counts.clone());
        async move {
            for _ in 0..10 {
                loop {
                    match stripe.turn(1, 10).await {
                        Turn::Append(segment, _inside) => {
                            tokio::task::yield_now().await;
                            counts[usize::from(segment.number)].fetch_add(1, Relaxed);
                            break;
                        }
                        Turn::Seal(segment, appended, alone) => {
                            assert_eq!(counts[usize::from(segment.number)].load(Relaxed), appended);
                            let mut directory = Directory::clone(&stripe.directory().unwrap());
                            let base = directory.open().base + u128::from(appended);
                            directory.open_next(0, base);
                            stripe.sealed(directory, &alone);
                        }
                        Turn::Unread => panic!("it was read"),
                    }
                }
            }
        }
    });
    futures::future::join_all(tasks).await;
    let found: Vec<u64> = counts.iter().map(|n| n.load(Relaxed)).collect();
    assert_eq!(found.iter().sum::<u64>(), 200);
    assert!(found.iter().all(|&n| n <= 10), "{found:?}");
}

#[test]
fn what_is_seen_elsewhere_is_doubted() {
    let stripes = Stripes::new(Profile::default());
    let id = Id(7);
    stripes.saw_item(0, id, 3);
    assert_eq!(stripes.place(0, id), Some(Place::Segment(3)));
    stripes.saw_item(0, id, 3);
    stripes.saw_item(0, id, 4);
    assert_eq!(stripes.place(0, id), None);
    stripes.put_place(0, id, Place::Own);
    assert_eq!(stripes.place(1, id), None, "another database");
    stripes.stage(0, id, Vec::new(), 100);
    assert!(stripes.is_staged(0, id));
    assert!(stripes.take_old(100).is_empty());
    assert_eq!(stripes.take_old(101).len(), 1);
    assert!(!stripes.is_staged(0, id));
}

#[test]
fn what_is_kept_has_a_bound() {
    let stripes = Stripes::new(Profile::default());
    let frame = Bytes::from(vec![0; 1024 * 1024]);
    let stage = |n: u128| stripes.stage(0, Id(n), vec![(frame.clone(), Spans::default())], 0);
    assert!((0..64).all(stage));
    assert!(!stage(64));
    assert!(stripes.take_staged(0, Id(3)).is_some());
    assert!(stage(65));
    assert_eq!(stripes.take_old(1).len(), 64);
    assert!((100..164).all(stage));
}
