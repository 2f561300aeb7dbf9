//! Streams: entries, counters, groups, consumers, and what is pending.

use super::*;

/// Streams of all kinds.
async fn fill_streams(control: &mut Control) -> Vec<Vec<u8>> {
    say(
        control,
        &[
            "XGROUP CREATE never g 0 MKSTREAM",
            "XADD emptied 5-1 a b",
            "XADD emptied 7-1 a b",
            "XDEL emptied 5-1 7-1",
            "XADD trimmed 5-1 a b",
            "XADD trimmed 6-1 a b",
            "XGROUP CREATE trimmed 'g g' 0",
            "XGROUP CREATECONSUMER trimmed 'g g' idle",
            "XREADGROUP GROUP 'g g' c STREAMS trimmed >",
            "XTRIM trimmed MAXLEN 0",
            "XADD first 0-1 '' ''",
            "XADD first 0-2 a b c d",
            "XSETID first 9-9 ENTRIESADDED 77 MAXDELETEDID 3-3",
            "XADD plain 1-1 a b",
        ],
    )
    .await;
    for i in 0..3000 {
        let id = format!("{}-{}", 1 + i / 3, 1 + i % 3);
        let value = binary(i);
        control
            .call(&[b"XADD", b"large", id.as_bytes(), b"f", &value, b"\0\r\n", b""])
            .await
            .unwrap();
    }
    say(
        control,
        &[
            "XGROUP CREATE large all 0",
            "XGROUP CREATE large middle 500-2",
            "XGROUP CREATE large end $ ENTRIESREAD 3000",
            "XGROUP CREATE large other 0",
            "XREADGROUP GROUP all one COUNT 1700 STREAMS large >",
            "XREADGROUP GROUP all two COUNT 600 STREAMS large >",
            "XREADGROUP GROUP middle three COUNT 700 STREAMS large >",
            "XREADGROUP GROUP other four NOACK STREAMS large >",
            "XACK large all 3-1 3-2 3-3",
            "XCLAIM large all five 0 10-1 20-1 30-2 TIME 1600000000123 RETRYCOUNT 7",
            "XCLAIM large all five 0 11-1 RETRYCOUNT 0 JUSTID",
            "XDEL large 1-1 10-1 400-2 1000-3",
            "XTRIM large MINID = 9-1",
        ],
    )
    .await;
    ["never", "emptied", "trimmed", "first", "plain", "large"]
        .map(|key| key.as_bytes().to_vec())
        .to_vec()
}

#[tokio::test]
async fn streams_with_all_that_belongs_to_them() {
    let mut two = Two::start().await;
    let keys = fill_streams(&mut two.source).await;
    say(&mut two.source, &["PEXPIREAT first 4102444800123"]).await;
    for way in [Way::Any, Way::Ranges, Way::Ranges] {
        two.copy(way, 0, &keys).await;
        two.compare(way, 0, &keys).await;
        let digests = |c: BytesFrame| text(c);
        for key in &keys {
            let question: [&[u8]; 3] = [b"DEBUG", b"DIGEST-VALUE", key];
            let expected = digests(two.source.call(&question).await.unwrap());
            assert_eq!(digests(two.target.call(&question).await.unwrap()), expected);
        }
    }
    // What comes next is the same too.
    let next = [
        "XADD large * a b",
        "XREADGROUP GROUP all one COUNT 3 STREAMS large >",
    ];
    say(&mut two.source, &next).await;
    say(&mut two.target, &next).await;
    let question: [&[u8]; 4] = [b"XPENDING", b"large", b"middle", b"-"];
    let question = [&question[..], &[b"+", b"3000"]].concat();
    let idle = |frame: BytesFrame| match frame {
        BytesFrame::Array { data, .. } => data.len(),
        _ => 0,
    };
    assert_eq!(idle(two.source.call(&question).await.unwrap()), 700);
    assert_eq!(idle(two.target.call(&question).await.unwrap()), 700);
}
