//! The audit trail at its ends: events that are older than 400 days, and of clocks that differ.

use registry::store::access::AuditQuery;

use super::*;
use crate::records::attributes;
use crate::table::Value;

async fn events(store: &DynamoStore, millis: u64) -> Vec<Timestamp> {
    let mut events = Vec::new();
    let mut next = None;
    loop {
        let query = AuditQuery::default();
        let slice = store.audit(cx_at(millis), &query, next.as_ref(), 100).await.unwrap();
        events.extend(slice.items.iter().map(|event| event.at));
        next = slice.next;
        if next.is_none() {
            return events;
        }
    }
}

#[tokio::test]
async fn events_end_after_400_days() {
    let table = MemoryTable::new();
    let store = store_over(table.clone());
    let (first, second) = (NOW, NOW.plus_millis(10 * DAY));
    add(&store, "one", first).await;
    add(&store, "two", second).await;
    assert_eq!(events(&store, 10 * DAY).await, [first, second]);
    assert_eq!(events(&store, 400 * DAY).await, [first, second]);
    assert_eq!(events(&store, 400 * DAY + 1).await, [second]);
    assert_eq!(events(&store, 410 * DAY + 1).await, []);
    let expiries: Vec<u64> = table.look(|items| {
        let rows = items.iter().filter(|(partition, ..)| partition.starts_with("U#"));
        let expiries = rows.map(|(.., attributes)| match attributes.get(attributes::EXPIRES) {
            Some(Value::N(seconds)) => *seconds,
            other => panic!("{other:?}"),
        });
        expiries.collect()
    });
    assert_eq!(expiries.iter().max(), Some(&((second.0 + 400 * DAY) / 1000)));
    assert_eq!(expiries.iter().min(), Some(&((first.0 + 400 * DAY) / 1000)));
}

/// An event of an instance whose clock is behind that of the first event, and of one whose clock is ahead of the reader's.
#[tokio::test]
async fn events_of_clocks_that_differ_are_read() {
    let store = store_over(MemoryTable::new());
    let midnight = Timestamp(NOW.0 / DAY * DAY);
    let before = Timestamp(midnight.0 - 1_000);
    let after = midnight.plus_millis(1_000);
    add(&store, "one", after).await;
    add(&store, "two", before).await;
    let reader = Context { now: before, ..cx() };
    let slice = store.audit(reader, &AuditQuery::default(), None, 100).await.unwrap();
    let found: Vec<_> = slice.items.iter().map(|event| event.at).collect();
    assert_eq!(found, [before, after]);
}

#[tokio::test]
async fn a_text_that_is_no_cursor_is_refused() {
    let store = store_over(MemoryTable::new());
    add(&store, "one", NOW).await;
    for text in [
        "",
        "x",
        "0123",
        "0123456789abcdef#",
        "0123456789abcdef#0",
        "+123456789abcdef",
    ] {
        let cursor = registry::store::Cursor(text.to_owned());
        let refused = store.audit(cx(), &AuditQuery::default(), Some(&cursor), 1).await;
        assert!(refused.is_err(), "{text}");
    }
}
