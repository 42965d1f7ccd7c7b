//! Manifests with many references or many tags, and manifests that are stored as objects.

use registry::store::StoreError;
use registry::store::metadata::{Content, Referrer};

use super::*;
use crate::access::is_of_access;
use crate::keys::{self, RecordKey};
use crate::records::tagged_item;
use crate::table::{ItemKey, Write, WriteCondition, Written};

fn keys(table: &MemoryTable) -> Vec<ItemKey> {
    table.look(|items| {
        let keys = items.iter().map(|(partition, sort, _)| ItemKey {
            partition: partition.to_owned(),
            sort: sort.to_owned(),
        });
        keys.collect()
    })
}

/// The keys of all items except those of the catalog, the history, tombstones, the deletion queue and the audit trail,
/// which stay.
fn remaining_keys(table: &MemoryTable) -> Vec<RecordKey> {
    let keys = keys(table);
    let names = keys.iter().filter(|key| !is_of_access(key));
    let names = names.map(|key| RecordKey::of(key).unwrap());
    names
        .filter(|name| {
            !matches!(
                name,
                RecordKey::Repository(_)
                    | RecordKey::Change(..)
                    | RecordKey::Tombstone(..)
                    | RecordKey::PendingDeletion
            )
        })
        .collect()
}

#[tokio::test]
async fn a_manifest_with_4096_references_is_stored_and_deleted() {
    let table = MemoryTable::new();
    let store = store_over(table.clone());
    let mut large = manifest("much");
    large.content = NewContent::Sealed(location(1));
    large.size = 300_000;
    large.excepted = (0..4096)
        .map(|number| Digest::of(Algorithm::Sha512, format!("{number}").as_bytes()))
        .collect();
    large.tags = vec![tag("v1")];
    put(&store, &large).await;

    let names = remaining_keys(&table);
    let count = |pick: fn(&RecordKey) -> bool| names.iter().filter(|name| pick(name)).count();
    assert_eq!(count(|name| matches!(name, RecordKey::Edge { .. })), 4096);
    assert_eq!(count(|name| matches!(name, RecordKey::References { .. })), 5);
    let record = store
        .manifest(cx(), &repository(), &large.digest)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.content, Content::Stored(location(1)));
    let row = store
        .call(cx())
        .read_manifest(&repository(), &large.digest)
        .await
        .unwrap()
        .unwrap();
    let references = store
        .call(cx())
        .references_of(&repository(), &large.digest, &row)
        .await
        .unwrap();
    assert!(references.iter().eq(&large.excepted));

    assert_eq!(delete(&store, &large.digest).await, Removal::Removed);
    // The blob record stays until a collection pass finds that it has no back-link.
    assert_eq!(remaining_keys(&table), [RecordKey::Blob(large.digest)]);
}

#[tokio::test]
async fn a_refused_manifest_leaves_no_rows() {
    let table = MemoryTable::new();
    let store = store_over(table.clone());
    let present = commit(&store, 0..3).await;
    let before = remaining_keys(&table).len();
    for content in [
        NewContent::Sealed(location(9)),
        NewContent::Inline(Bytes::from_static(b"x")),
    ] {
        let mut refused = manifest("refused");
        refused.content = content;
        refused.required = present.clone();
        refused.required.insert(digest("absent"));
        let outcome = store.put_manifest(cx(), &refused, &AllowAll::shared()).await.unwrap();
        assert_eq!(outcome, ManifestPut::Missing(vec![digest("absent")]));
        assert_eq!(remaining_keys(&table).len(), before);
    }
    for blob in &present {
        let removal = store
            .unlink(cx(), &repository(), blob, &Author::new("user"))
            .await
            .unwrap();
        assert_eq!(removal, Removal::Removed, "no edge is left");
    }
}

#[tokio::test]
async fn a_manifest_with_more_tags_than_a_transaction_holds_is_deleted() {
    let table = MemoryTable::new();
    let store = store_over(table.clone());
    let mut wanted = manifest("m");
    for first in (0..100).step_by(20) {
        wanted.tags = (first..first + 20)
            .map(|number| tag(&format!("t{number:03}")))
            .collect();
        put(&store, &wanted).await;
    }
    wanted.tags = vec![tag("last")];
    put(&store, &wanted).await;
    assert_eq!(delete(&store, &wanted.digest).await, Removal::Removed);
    assert_eq!(remaining_keys(&table), []);
    let history = store
        .history(cx(), &repository(), &tag("t042"), None, 10)
        .await
        .unwrap();
    assert_eq!(history.items[0].after, None);
    assert_eq!(history.items.len(), 2);
}

#[tokio::test]
async fn referrers_are_listed_over_several_pages() {
    let store = store_over(MemoryTable::new());
    let subject = digest("subject");
    let mut expected = BTreeSet::new();
    for number in 0..60 {
        let mut referrer = manifest(format!("referrer {number}"));
        let mut descriptor = oci::Descriptor::new(referrer.media_type.clone(), referrer.digest, referrer.size);
        // Sixty of these are more than the 1 MB that one page holds.
        descriptor.annotations = Some([("text".to_owned(), "x".repeat(30_000))].into());
        let row = Referrer {
            descriptor,
            annotations_omitted: false,
        };
        referrer.subject = Some((subject, row));
        put(&store, &referrer).await;
        expected.insert(referrer.digest);
    }
    let page = store.referrers(cx(), &repository(), &subject, None, 50).await.unwrap();
    assert_eq!((page.items.len(), page.more), (50, true));
    let last = page.items.last().unwrap().descriptor.digest;
    let rest = store
        .referrers(cx(), &repository(), &subject, Some(&last), 50)
        .await
        .unwrap();
    assert_eq!((rest.items.len(), rest.more), (10, false));
    let found = page.items.iter().chain(&rest.items).map(|row| row.descriptor.digest);
    assert!(found.eq(expected));
}

/// Rows of tags that do not name the manifest, which the protocols never leave: a deletion that finds only such rows
/// ends at its deadline.
#[tokio::test]
async fn a_deletion_without_progress_ends_at_its_deadline() {
    let table = MemoryTable::new();
    let store = store_over(table.clone());
    let put_before = manifest("m");
    put(&store, &put_before).await;
    for number in 0..30 {
        let item = tagged_item(&repository(), &put_before.digest, &tag(&format!("t{number}")));
        let row = Write::Put {
            item,
            condition: WriteCondition::Always,
        };
        assert_eq!(table.write(&row).await.unwrap(), Written::Done);
    }
    let removal = store
        .delete_manifest(
            cx(),
            &repository(),
            &put_before.digest,
            &Author::new("user"),
            &AllowAll::shared(),
        )
        .await;
    assert!(matches!(removal, Err(StoreError::Unavailable(_))), "{removal:?}");
}

#[tokio::test]
async fn a_second_object_of_the_same_manifest_is_scheduled_for_deletion() {
    let table = MemoryTable::new();
    let store = store_over(table.clone());
    let mut large = manifest("large");
    for number in 1..=3 {
        large.content = NewContent::Sealed(location(number));
        put(&store, &large).await;
    }
    let pending_deletions: Vec<_> = keys(&table)
        .into_iter()
        .filter(|key| key.partition.starts_with('G'))
        .collect();
    let expected = [2, 3].map(|number| keys::pending_deletion(&location(number)));
    assert_eq!(pending_deletions.len(), 2);
    assert!(
        expected
            .iter()
            .all(|pending_deletion| pending_deletions.contains(pending_deletion)),
        "{pending_deletions:?}"
    );
}

#[tokio::test]
async fn a_tag_list_may_start_after_any_text() {
    let store = store_over(MemoryTable::new());
    let mut wanted = manifest("m");
    wanted.tags = ["a", "b", "z"].map(tag).to_vec();
    put(&store, &wanted).await;
    for (after, expected) in [
        ("", 3),
        ("a", 2),
        ("aaaa", 2),
        ("ä", 0),
        ("\u{10ffff}", 0),
        ("~", 0),
        ("B#", 3),
    ] {
        let page = store.tags(cx(), &repository(), Some(after), 10).await.unwrap();
        assert_eq!(page.items.len(), expected, "after {after:?}");
    }
    let long = "y".repeat(5000);
    let page = store.tags(cx(), &repository(), Some(&long), 10).await.unwrap();
    assert_eq!(page.items, [tag("z")]);
    for (after, expected) in [("", 1), ("team", 1), ("team/app", 0), ("ü", 0)] {
        let page = store.repositories(cx(), Some(after), 10).await.unwrap();
        assert_eq!(page.items.len(), expected, "after {after:?}");
    }
}
