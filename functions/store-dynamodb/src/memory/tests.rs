//! The table in memory follows the rules of DynamoDB.

use bytes::Bytes;

use super::*;
use crate::table::{ITEM_BYTES, Range, TRANSACTION_BYTES, TRANSACTION_ITEMS, Value};

fn key(sort: impl Into<String>) -> ItemKey {
    ItemKey {
        partition: "p".to_owned(),
        sort: sort.into(),
    }
}

fn item(sort: impl Into<String>, value: u64) -> Item {
    Item {
        key: key(sort),
        attributes: [("n".to_owned(), Value::N(value))].into(),
    }
}

/// An item of `size` bytes.
fn big(sort: &str, size: usize) -> Item {
    // The two names of key attributes, the key, and the name of the attribute.
    let rest = "pk".len() + "p".len() + "sk".len() + sort.len() + "b".len();
    Item {
        key: key(sort),
        attributes: [("b".to_owned(), Value::B(Bytes::from(vec![0; size - rest])))].into(),
    }
}

fn put(item: Item, condition: WriteCondition) -> Write {
    Write::Put { item, condition }
}

fn query(from: &str, to: &str, limit: usize) -> RangeQuery {
    RangeQuery {
        range: Range {
            partition: "p".to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
        },
        after: None,
        descending: false,
        limit,
        consistency: Consistency::Strong,
    }
}

fn is_fatal<T>(answer: &Result<T, TableError>) -> bool {
    matches!(answer, Err(TableError::Fatal(_)))
}

async fn sorts(table: &MemoryTable, query: &RangeQuery) -> Vec<String> {
    let found = table.query(query).await.expect("query");
    found.items.into_iter().map(|item| item.key.sort).collect()
}

#[tokio::test]
async fn conditions_are_checked_against_the_current_item() {
    let table = MemoryTable::new();
    let is = |value| WriteCondition::Is("n", Value::N(value));
    let cases = [
        (WriteCondition::Exists, false),
        (WriteCondition::Lacks("other"), false),
        (is(1), false),
        (WriteCondition::Absent, true),
        (WriteCondition::Absent, false),
        (WriteCondition::Exists, true),
        (is(1), true),
        (is(2), false),
        (WriteCondition::Lacks("n"), false),
        (WriteCondition::Lacks("other"), true),
        (WriteCondition::All(vec![is(1), WriteCondition::Lacks("n")]), false),
        (WriteCondition::Any(vec![is(1), WriteCondition::Lacks("n")]), true),
        (WriteCondition::Always, true),
    ];
    for (condition, is_met) in cases {
        let write = put(item("a", 1), condition.clone());
        let expected = if is_met {
            Written::Done
        } else {
            Written::Refused(vec![0])
        };
        assert_eq!(table.write(&write).await.expect("a write"), expected, "{condition:?}");
    }
}

#[tokio::test]
async fn an_update_changes_attributes_or_creates_the_item() {
    let table = MemoryTable::new();
    let update = |set: Vec<(&'static str, Value)>, remove: Vec<&'static str>| Write::Update {
        key: key("a"),
        set,
        remove,
        condition: WriteCondition::Always,
    };
    let write = update(vec![("x", Value::N(1)), ("y", Value::N(2))], vec!["z"]);
    table.write(&write).await.expect("made");
    let write = update(vec![("x", Value::N(3))], vec!["y"]);
    table.write(&write).await.expect("changed");
    let found = table
        .get(&key("a"), Consistency::Strong)
        .await
        .expect("get")
        .expect("an item");
    assert_eq!(found.attributes, [("x".to_owned(), Value::N(3))].into());
}

#[tokio::test]
async fn an_item_has_at_most_400_kb() {
    let table = MemoryTable::new();
    let write = put(big("a", ITEM_BYTES), WriteCondition::Always);
    assert_eq!(table.write(&write).await.expect("at the bound"), Written::Done);
    let write = put(big("a", ITEM_BYTES + 1), WriteCondition::Always);
    assert!(is_fatal(&table.write(&write).await), "one past it");
}

#[tokio::test]
async fn a_transaction_has_at_most_100_items_and_4_mb_and_each_item_once() {
    let table = MemoryTable::new();
    let items = |count: usize| -> Vec<_> {
        let items = (0..count).map(|number| put(item(format!("{number:04}"), 1), WriteCondition::Always));
        items.collect()
    };
    let answer = table.transact(&items(TRANSACTION_ITEMS), "a").await;
    assert_eq!(answer.expect("at the bound"), Written::Done);
    assert!(is_fatal(&table.transact(&items(TRANSACTION_ITEMS + 1), "b").await));
    assert!(is_fatal(&table.transact(&[], "c").await));

    let full = ITEM_BYTES;
    let mut bytes: Vec<_> = (0..TRANSACTION_BYTES / full)
        .map(|number| put(big(&format!("b{number}"), full), WriteCondition::Always))
        .collect();
    assert_eq!(table.transact(&bytes, "d").await.expect("at the bound"), Written::Done);
    bytes.push(put(item("more", 1), WriteCondition::Always));
    assert!(is_fatal(&table.transact(&bytes, "e").await));

    let twice = [
        put(item("a", 1), WriteCondition::Always),
        put(item("a", 2), WriteCondition::Always),
    ];
    assert!(is_fatal(&table.transact(&twice, "f").await));
}

#[tokio::test]
async fn a_transaction_is_atomic_and_done_once_per_token() {
    let table = MemoryTable::new();
    let refused = [
        put(item("a", 1), WriteCondition::Always),
        put(item("b", 1), WriteCondition::Exists),
        Write::Check {
            key: key("c"),
            condition: WriteCondition::Exists,
        },
    ];
    assert_eq!(
        table.transact(&refused, "t").await.expect("an answer"),
        Written::Refused(vec![1, 2])
    );
    assert_eq!(table.look(|items| items.iter().count()), 0);

    // A refused token can be used again. A used token does not apply its writes a second time.
    let done = [put(item("a", 1), WriteCondition::Absent)];
    for _ in 0..2 {
        assert_eq!(table.transact(&done, "t").await.expect("an answer"), Written::Done);
    }
    let other = [put(item("a", 2), WriteCondition::Always)];
    assert!(is_fatal(&table.transact(&other, "t").await));
}

#[tokio::test]
async fn a_query_returns_items_in_order_and_in_pages() {
    let table = MemoryTable::new();
    for sort in ["c", "a", "B", "b", "d"] {
        table
            .write(&put(item(sort, 1), WriteCondition::Always))
            .await
            .expect("put");
    }
    assert_eq!(sorts(&table, &query("a", "c", 9)).await, ["a", "b", "c"]);
    let descending = RangeQuery {
        descending: true,
        after: Some("c".to_owned()),
        ..query("a", "c", 9)
    };
    assert_eq!(sorts(&table, &descending).await, ["b", "a"]);
    let page = table.query(&query("a", "c", 3)).await.expect("query");
    assert_eq!(page.more_after, Some(key("c")), "a full page may be the last");
    let after_last = RangeQuery {
        after: Some("c".to_owned()),
        ..query("a", "c", 3)
    };
    assert_eq!(table.query(&after_last).await.expect("query"), ItemPage::default());
    let outside = RangeQuery {
        after: Some("d".to_owned()),
        ..query("a", "c", 3)
    };
    assert!(is_fatal(&table.query(&outside).await));
    assert!(is_fatal(&table.query(&query("c", "a", 3)).await));
}

#[tokio::test]
async fn a_page_ends_at_1_mb() {
    let table = MemoryTable::new();
    for sort in ["a", "b", "c", "d"] {
        let write = put(big(sort, ITEM_BYTES), WriteCondition::Always);
        table.write(&write).await.expect("put");
    }
    let found = table.query(&query("a", "z", 100)).await.expect("query");
    assert_eq!((found.items.len(), found.more_after), (3, Some(key("c"))));
}

#[tokio::test]
async fn a_scan_returns_every_item_once() {
    let table = MemoryTable::new();
    let mut expected = std::collections::BTreeSet::new();
    for number in 0..60 {
        let key = ItemKey {
            partition: format!("p{}", number % 7),
            sort: format!("{number:02}"),
        };
        let attributes = item("x", 1).attributes;
        expected.insert(key.clone());
        let write = put(Item { key, attributes }, WriteCondition::Always);
        table.write(&write).await.expect("put");
    }
    let mut met = std::collections::BTreeSet::new();
    let mut after = None;
    loop {
        let found = table.scan(after.as_ref(), 7).await.expect("scan");
        for item in found.items {
            assert!(met.insert(item.key), "met twice");
        }
        after = found.more_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(met, expected);
}

#[tokio::test]
async fn an_eventually_consistent_read_may_be_stale() {
    let table = MemoryTable::faulty(FaultRates::STALE, 1);
    let read = |consistency| {
        let table = table.clone();
        async move { table.get(&key("a"), consistency).await.expect("get") }
    };
    table
        .write(&put(item("a", 1), WriteCondition::Always))
        .await
        .expect("put");
    assert_eq!(read(Consistency::Eventual).await, None);
    assert_eq!(read(Consistency::Strong).await, Some(item("a", 1)));
    table
        .write(&put(item("a", 2), WriteCondition::Always))
        .await
        .expect("put");
    assert_eq!(read(Consistency::Eventual).await, Some(item("a", 1)));
    let delete = Write::Delete {
        key: key("a"),
        condition: WriteCondition::Exists,
    };
    table.write(&delete).await.expect("delete");
    assert_eq!(read(Consistency::Eventual).await, Some(item("a", 2)));
    let stale = RangeQuery {
        consistency: Consistency::Eventual,
        ..query("a", "z", 9)
    };
    assert_eq!(sorts(&table, &stale).await, ["a"]);
    assert_eq!(sorts(&table, &query("a", "z", 9)).await, Vec::<String>::new());
}

#[tokio::test]
async fn faults_report_whether_the_write_was_done() {
    let only = |faults: fn(&mut FaultRates)| {
        let mut none = FaultRates::NONE;
        faults(&mut none);
        none
    };
    let cases = [
        (only(|faults| faults.conflicts = 1000), true, false),
        (only(|faults| faults.throttles = 1000), true, false),
        (only(|faults| faults.lost = 1000), false, true),
    ];
    for (faults, expected, done) in cases {
        let table = MemoryTable::faulty(faults, 1);
        match table.write(&put(item("a", 1), WriteCondition::Absent)).await {
            Err(TableError::Retry { not_done, .. }) => assert_eq!(not_done, expected),
            other => panic!("{other:?}"),
        }
        table.set_faults(FaultRates::NONE);
        let found = table.get(&key("a"), Consistency::Strong).await.expect("get");
        assert_eq!(found.is_some(), done, "{faults:?}");
    }
}

#[tokio::test]
async fn a_batch_returns_its_unprocessed_parts() {
    let faults = FaultRates {
        unprocessed: 500,
        ..FaultRates::NONE
    };
    let table = MemoryTable::faulty(faults, 3);
    let mut left: Vec<_> = (0..BATCH_WRITES)
        .map(|number| put(item(format!("{number}"), 1), WriteCondition::Always))
        .collect();
    let mut rounds = 0;
    while !left.is_empty() {
        left = table.batch_write(&left).await.expect("batch");
        rounds += 1;
    }
    assert!(rounds > 1);
    assert_eq!(table.look(|items| items.iter().count()), BATCH_WRITES);

    let keys: Vec<_> = (0..BATCH_WRITES).map(|number| key(format!("{number}"))).collect();
    let (found, left) = table.batch_get(&keys).await.expect("batch");
    assert!(!left.is_empty());
    assert_eq!(found.len() + left.len(), keys.len());

    let twice = [key("1"), key("1")];
    assert!(is_fatal(&table.batch_get(&twice).await));
    let conditional = [put(item("1", 1), WriteCondition::Absent)];
    assert!(is_fatal(&table.batch_write(&conditional).await));
}
