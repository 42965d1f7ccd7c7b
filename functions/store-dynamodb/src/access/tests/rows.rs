//! Rows of the next version are read and kept, and damaged ones are reported.

use super::*;
use crate::table::{Item, Table as _, Value, Write, WriteCondition};

const LATER: &str = "laterText";

/// All rows, with an attribute that this version does not know.
async fn write_as_the_next_version(table: &MemoryTable) {
    let items: Vec<Item> = table.look(|items| {
        let items = items.iter().map(|(partition, sort, attributes)| {
            let mut attributes = attributes.clone();
            attributes.insert(LATER.to_owned(), Value::S("kept".to_owned()));
            let key = crate::keys::key(partition, sort);
            Item { key, attributes }
        });
        items.collect()
    });
    for item in items {
        let condition = WriteCondition::Always;
        table.write(&Write::Put { item, condition }).await.unwrap();
    }
}

#[tokio::test]
async fn attributes_of_the_next_version_are_kept() {
    let table = MemoryTable::new();
    let store = store_over(table.clone());
    add(&store, "one", NOW).await;
    write_as_the_next_version(&table).await;
    let read = store.account(cx(), &name("one")).await.unwrap();
    assert_eq!(read, Some(account("one")));
    add(&store, "one", NOW).await;
    for sort in ["state", "a#one", "audit"] {
        let kept = table.look(|items| items.attributes("A", sort).unwrap().contains_key(LATER));
        assert!(kept, "{sort}");
    }
}

#[tokio::test]
async fn damaged_rows_are_reported() {
    let table = MemoryTable::new();
    let store = store_over(table.clone());
    let query = registry::store::access::AuditQuery::default();
    add(&store, "one", NOW).await;
    for (partition, sort, attribute) in [
        ("A".to_owned(), "state".to_owned(), "version"),
        ("A".to_owned(), "a#one".to_owned(), "keys"),
        {
            let key = table.look(|items| {
                let mut rows = items.iter().filter(|(partition, ..)| partition.starts_with("U#"));
                rows.next()
                    .map(|(partition, sort, _)| (partition.to_owned(), sort.to_owned()))
            });
            let (partition, sort) = key.unwrap();
            (partition, sort, "event")
        },
    ] {
        let damage = Write::Update {
            key: crate::keys::key(partition, &*sort),
            set: vec![(attribute, Value::S("{".to_owned()))],
            remove: Vec::new(),
            condition: WriteCondition::Exists,
        };
        table.write(&damage).await.unwrap();
        let error = match sort.as_str() {
            "state" => store.state(cx()).await.unwrap_err(),
            "a#one" => store.account(cx(), &name("one")).await.unwrap_err(),
            _ => store.audit(cx(), &query, None, 10).await.unwrap_err(),
        };
        assert!(error.damage().is_some(), "{sort}: {error}");
    }
}
