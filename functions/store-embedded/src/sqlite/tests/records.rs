//! Exports records from one file and imports them into another.

use std::collections::BTreeMap;

use registry::store::Cursor;
use registry::store::metadata::{Referrer, Removal};
use registry::store::records::{Record, RecordStore};

use super::*;

async fn walk(store: &SqliteStore, limit: usize) -> Vec<Record> {
    let (mut all, mut after) = (Vec::new(), None::<Cursor>);
    loop {
        let slice = store.records(cx(), after.as_ref(), limit).await.unwrap();
        assert!(slice.items.len() <= limit);
        all.extend(slice.items);
        after = slice.next;
        if after.is_none() {
            return all;
        }
    }
}

/// All rows of all tables that contain records.
fn tables(opened: &OpenedStore) -> BTreeMap<&'static str, Vec<String>> {
    let other = opened.other_process();
    [
        "blob",
        "backlink",
        "link",
        "manifest",
        "edge",
        "referrer",
        "tag",
        "tag_history",
        "repository",
    ]
    .into_iter()
    .map(|table| {
        let mut statement = other.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let mut rows: Vec<String> = statement
            .query_map([], |row| {
                let values = (0..columns).map(|column| row.get::<_, rusqlite::types::Value>(column));
                Ok(format!("{:?}", values.collect::<Result<Vec<_>, _>>()?))
            })
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        rows.sort();
        (table, rows)
    })
    .collect()
}

async fn filled() -> OpenedStore {
    let opened = open(Sync::Off);
    for number in 0..40 {
        opened.commit_blob(number).await.unwrap();
    }
    let store = &opened.store;
    let other: RepositoryName = "other/app".parse().unwrap();
    assert!(store.mount(cx(), &other, &digest(1), &repository()).await.unwrap());
    for number in 0..40 {
        let mut put = manifest(&[number, 1], &["latest", &format!("v{number}")]);
        put.digest = digest(500 + number);
        put.artifact_type = (number % 2 == 0).then(|| "a/type".parse().unwrap());
        if number % 3 == 0 {
            put.content = NewContent::Sealed(location(600 + number));
        }
        if number > 30 {
            let descriptor = format!(
                "{{\"mediaType\":\"a/b\",\"digest\":\"{}\",\"size\":3,\"annotations\":{{\"k\":\"v\"}}}}",
                put.digest
            );
            let referrer = Referrer {
                descriptor: serde_json::from_str(&descriptor).unwrap(),
                annotations_omitted: number % 2 == 0,
            };
            put.subject = Some((digest(500), referrer));
        }
        assert_eq!(
            store.put_manifest(cx(), &put, &AllowAll::shared()).await.unwrap(),
            ManifestPut::Stored
        );
    }
    let removal = store
        .delete_tag(
            cx(),
            &repository(),
            &"v3".parse().unwrap(),
            &Author::new("alice"),
            &AllowAll::shared(),
        )
        .await
        .unwrap();
    assert_eq!(removal, Removal::Removed);
    opened
}

#[tokio::test]
async fn records_can_be_imported_in_any_order_and_repeatedly() {
    let from = filled().await;
    let all = walk(&from.store, 1_000).await;
    // One repository of the catalog (the other has no manifest), blobs, links, manifests, tags, their history.
    assert_eq!(all.len(), 1 + (40 + 14) + 41 + 40 + 40 + (40 + 40 + 1));
    for limit in [1, 7, 33] {
        assert_eq!(walk(&from.store, limit).await, all, "in slices of {limit}");
    }
    // Records travel as text.
    let lines: Vec<_> = all
        .iter()
        .map(|record| serde_json::to_string(record).unwrap())
        .collect();
    let read: Vec<Record> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read, all);

    let expected = tables(&from);
    let to = open(Sync::Off);
    to.store.insert(cx(), &read).await.unwrap();
    assert_eq!(tables(&to), expected);
    to.store.insert(cx(), &read).await.unwrap();
    assert_eq!(tables(&to), expected, "again");
    let backwards = open(Sync::Off);
    let reversed: Vec<_> = read.iter().rev().cloned().collect();
    backwards.store.insert(cx(), &reversed).await.unwrap();
    assert_eq!(tables(&backwards), expected, "in the other order");
}

/// A written record replaces the existing one, with all rows that belong to it.
#[tokio::test]
async fn an_imported_record_replaces_one_with_another_uid() {
    let from = filled().await;
    let all = walk(&from.store, 1_000).await;
    let to = open(Sync::Off);
    let other_uid = Context { uid: Uid(4), ..cx() };
    for number in 0..3 {
        to.store
            .commit_blob(other_uid, &repository(), &digest(number), &location(900), 1)
            .await
            .unwrap();
    }
    // The same manifest with other references and another subject, stored as an object.
    let mut put = manifest(&[0, 2], &["v35"]);
    put.digest = digest(535);
    put.content = NewContent::Sealed(location(901));
    let referrer = Referrer {
        descriptor: serde_json::from_str(&format!(
            "{{\"mediaType\":\"a/b\",\"digest\":\"{}\",\"size\":3}}",
            put.digest
        ))
        .unwrap(),
        annotations_omitted: false,
    };
    put.subject = Some((digest(700), referrer));
    assert_eq!(
        to.store
            .put_manifest(other_uid, &put, &AllowAll::shared())
            .await
            .unwrap(),
        ManifestPut::Stored
    );
    to.store.insert(cx(), &all).await.unwrap();
    let (mut expected, mut found) = (tables(&from), tables(&to));
    // The location of its bytes is a separate record, which the import does not contain. It is unreferenced now.
    found
        .get_mut("blob")
        .unwrap()
        .retain(|row| !row.contains(&digest(535).to_string()));
    // The history keeps changes that have happened.
    let history = |tables: &mut BTreeMap<&str, Vec<String>>| tables.remove("tag_history").unwrap();
    let (expected_history, found_history) = (history(&mut expected), history(&mut found));
    assert!(expected_history.iter().all(|row| found_history.contains(row)));
    assert_eq!(found, expected);
}
