//! The audit trail at its ends: events that are older than 400 days, and of clocks that differ.

use registry::store::access::AuditQuery;

use super::*;
use crate::metadata::tests::costs::cost;
use crate::metadata::tests::store_with_seed;
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

/// An import makes accounts first, and then brings events that are older. Another process knows the time of the first event
/// from before.
#[tokio::test]
async fn imported_events_that_are_older_than_the_first_one_are_read() {
    let table = MemoryTable::new();
    let (importer, other) = (store_over(table.clone()), store_with_seed(table.clone(), 2));
    let imported_at = NOW.plus_millis(30 * DAY);
    add(&importer, "one", imported_at).await;
    add(&other, "two", imported_at).await;
    let older = [0, 1, 7 * DAY, 29 * DAY].map(|millis| NOW.plus_millis(millis));
    for (id, at) in (1..).zip(older) {
        let mut change = bare_change(state(&importer).await);
        change.event = Some(event(at, id));
        // The second change looks for the row a last time.
        let (applied, asked) = cost(&importer, importer.apply(cx(), &change)).await;
        let expected = match id {
            1 => [1, 0, 3, 3],
            2 => [1, 0, 2, 2],
            _ => [0, 0, 2, 2],
        };
        assert_eq!((applied.unwrap(), asked), (Applied::Applied, expected), "{id}");
    }
    let all = [&older[..], &[imported_at; 2]].concat();
    assert_eq!(events(&importer, 30 * DAY).await, all);
    assert_eq!(events(&other, 30 * DAY).await, all);
    // What the other one knows is later than what the table has: that is enough for events of now.
    add(&other, "three", imported_at).await;
    assert_eq!(events(&other, 30 * DAY).await.len(), all.len() + 1);
}

/// Two imports into the same table move the time of the first event back, in any order.
#[tokio::test]
async fn the_time_of_the_first_event_is_that_of_the_earliest() {
    let table = MemoryTable::new();
    let stores = [1, 2].map(|seed| store_with_seed(table.clone(), seed));
    let days = [20, 12, 15, 3, 10, 1];
    for (number, day) in days.into_iter().enumerate() {
        add(
            &stores[number % 2],
            &format!("robot{number}"),
            NOW.plus_millis(day * DAY),
        )
        .await;
    }
    let mut sorted = days.map(|day| NOW.plus_millis(day * DAY));
    sorted.sort();
    for store in &stores {
        assert_eq!(events(store, 20 * DAY).await, sorted);
    }
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
