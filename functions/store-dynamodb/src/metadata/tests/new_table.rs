//! When a table counts as new.

use registry::store::SessionId;
use registry::store::collection::{CollectionStore, PassStart};
use registry::store::sessions::{Expected, SessionKey, SessionStore, SigningKey};

use super::*;
use crate::schema;

async fn new_table() -> DynamoStore {
    let store = store_over(MemoryTable::new());
    schema::write_version(store.main.within(cx()), "table").await.unwrap();
    store
}

#[tokio::test]
async fn s34_a_table_is_new_until_a_record_is_stored() {
    let store = new_table().await;
    assert!(store.is_new(cx()).await.unwrap());

    let key = SigningKey {
        id: 1,
        secret: [7; 32],
        created: NOW,
    };
    store.signing_keys(cx(), key).await.unwrap();
    assert!(!store.is_new(cx()).await.unwrap(), "a server has started");

    let store = new_table().await;
    let key = SessionKey {
        expires: NOW.plus_millis(1_000),
        id: SessionId(5),
    };
    let until = NOW.plus_millis(500);
    store.claim(cx(), key, Expected::New, until, 9).await.unwrap();
    assert!(!store.is_new(cx()).await.unwrap(), "an upload");

    let store = new_table().await;
    let begun = store.begin_pass(cx(), Uid(7), NOW.plus_millis(500)).await;
    assert!(matches!(begun.unwrap(), PassStart::New));
    assert!(!store.is_new(cx()).await.unwrap(), "an import that has begun");

    // An import writes these records.
    let store = new_table().await;
    commit(&store, [1]).await;
    assert!(!store.is_new(cx()).await.unwrap(), "a blob");
    let store = new_table().await;
    put(&store, &manifest("m")).await;
    assert!(!store.is_new(cx()).await.unwrap(), "a manifest");
}
