//! Rows of the next version are read and kept, and damaged ones are reported.

use registry::store::access::{KeyId, TokenSeed};

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

/// One damaged seed locks nobody out: the others are read, and the one of the password secret is written anew.
#[tokio::test]
async fn damaged_seeds_are_left_out_and_replaced() {
    let table = MemoryTable::new();
    let store = store_over(table.clone());
    let seed = |kid: KeyId, byte: u8| TokenSeed {
        kid,
        seed: [byte; 32],
        created: NOW,
    };
    let (good, other) = ("0123456789abcdef".parse().unwrap(), "fedcba9876543210".parse().unwrap());
    let damages = [
        vec![("secret", Value::B(vec![7; 31].into()))],
        vec![("secret", Value::S("text".to_owned()))],
        vec![("created", Value::S("text".to_owned()))],
    ];
    for (round, set) in (0..).zip(damages) {
        for kid in [good, other, KeyId::PASSWORD_SECRET] {
            store.remove_token_seed(cx(), kid).await.unwrap();
            assert!(store.add_token_seed(cx(), &seed(kid, round)).await.unwrap());
        }
        for kid in [other, KeyId::PASSWORD_SECRET] {
            let damage = Write::Update {
                key: crate::keys::key("K", format!("token#{kid}")),
                set: set.clone(),
                remove: Vec::new(),
                condition: WriteCondition::Exists,
            };
            table.write(&damage).await.unwrap();
        }
        // Its id is none.
        let key = crate::keys::key("K", "token#short");
        let item = Item {
            key,
            attributes: set
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        };
        let condition = WriteCondition::Always;
        table.write(&Write::Put { item, condition }).await.unwrap();
        assert_eq!(store.token_seeds(cx()).await.unwrap(), [seed(good, round)], "{round}");
        let new = seed(KeyId::PASSWORD_SECRET, round + 100);
        assert!(store.add_token_seed(cx(), &new).await.unwrap(), "{round}");
        assert!(
            !store.add_token_seed(cx(), &seed(new.kid, round)).await.unwrap(),
            "{round}"
        );
        assert_eq!(
            store.token_seeds(cx()).await.unwrap(),
            [seed(good, round), new],
            "{round}"
        );
    }
}

/// The password secret comes last in their order.
#[tokio::test]
async fn every_seed_is_read_however_many_there_are() {
    let store = store_over(MemoryTable::new());
    for number in 0..1_001 {
        let seed = TokenSeed {
            kid: format!("{number:016}").parse().unwrap(),
            seed: [1; 32],
            created: NOW,
        };
        assert!(store.add_token_seed(cx(), &seed).await.unwrap());
    }
    let secret = TokenSeed {
        kid: KeyId::PASSWORD_SECRET,
        seed: [2; 32],
        created: NOW,
    };
    assert!(store.add_token_seed(cx(), &secret).await.unwrap());
    let seeds = store.token_seeds(cx()).await.unwrap();
    assert_eq!((seeds.len(), seeds.last()), (1_002, Some(&secret)));
}
