//! Programs that know no accounts do not use a table that has an account or a policy.

use super::*;
use crate::layout::{OpenError, WITH_ACCOUNTS};
use crate::records::attributes;
use crate::schema;
use crate::table::{Table as _, Value, Write, WriteCondition};

/// The layout version of the last program that knows no accounts. It works with tables of one version below and above.
const WITHOUT_ACCOUNTS: u64 = 1;

async fn initialised() -> (MemoryTable, DynamoStore) {
    let table = MemoryTable::new();
    let store = store_over(table.clone());
    schema::write_version(store.main.within(cx()), "table").await.unwrap();
    (table, store)
}

fn layout(table: &MemoryTable) -> u64 {
    table.look(
        |items| match items.attributes("K", "schema").unwrap()[attributes::VERSION] {
            Value::N(version) => version,
            ref other => panic!("{other:?}"),
        },
    )
}

/// Whether the program without accounts uses the table.
fn earlier_program_starts(table: &MemoryTable) -> bool {
    match schema::check_version_of(WITHOUT_ACCOUNTS, layout(table), "table") {
        Ok(()) => true,
        Err(OpenError::TooNew { found, .. }) => {
            assert_eq!(found, WITH_ACCOUNTS);
            false
        }
        Err(other) => panic!("{other}"),
    }
}

async fn own_program_starts(store: &DynamoStore) -> bool {
    schema::check(store.main.within(cx()), "table").await.is_ok()
}

#[tokio::test]
async fn programs_without_accounts_start_until_the_first_account_or_policy() {
    for change in [
        creation(AccessState::default(), "one", NOW),
        policy_change(AccessState::default(), "{}", NOW),
    ] {
        let (table, store) = initialised().await;
        assert!(earlier_program_starts(&table) && own_program_starts(&store).await);
        // The keys of tokens alone are of no consequence for an earlier program.
        let keys = bare_change(AccessState::default());
        apply(&store, &keys).await;
        assert!(earlier_program_starts(&table) && own_program_starts(&store).await);

        let mut change = change;
        change.state.version = 2;
        if let Some(policy) = &mut change.policy {
            policy.version = 2;
        }
        apply(&store, &change).await;
        assert!(!earlier_program_starts(&table) && own_program_starts(&store).await);
        let version = schema::write_version(store.main.within(cx()), "table").await.unwrap();
        assert_eq!(version, WITH_ACCOUNTS, "a later init changes nothing");
    }
}

#[tokio::test]
async fn a_later_layout_version_is_not_lowered() {
    let (table, store) = initialised().await;
    let later = Write::Update {
        key: crate::keys::schema(),
        set: vec![(attributes::VERSION, Value::N(WITH_ACCOUNTS + 1))],
        remove: Vec::new(),
        condition: WriteCondition::Exists,
    };
    table.write(&later).await.unwrap();
    add(&store, "one", NOW).await;
    assert_eq!(layout(&table), WITH_ACCOUNTS + 1);
}

/// A process that has seen accounts in one table raises the version of another one that was made under its name.
#[tokio::test]
async fn the_version_of_a_table_that_was_made_again_is_raised() {
    let (table, store) = initialised().await;
    for text in ["one", "two"] {
        add(&store, text, NOW).await;
    }
    let keys: Vec<_> = table.look(|items| {
        let keys = items
            .iter()
            .map(|(partition, sort, _)| crate::keys::key(partition, sort));
        keys.collect()
    });
    for key in keys {
        table.write(&Write::delete(key)).await.unwrap();
    }
    schema::write_version(store.main.within(cx()), "table").await.unwrap();
    assert!(earlier_program_starts(&table));
    add(&store, "three", NOW).await;
    assert!(!earlier_program_starts(&table));
    let found = table.look(|items| items.attributes("A", "audit").is_some());
    assert!(found, "since when there are events");
}

#[tokio::test]
async fn accounts_do_not_show_that_a_registry_was_used() {
    let (_, store) = initialised().await;
    for number in 0..30 {
        add(&store, &format!("robot{number}"), NOW).await;
    }
    assert!(store.is_new(cx()).await.unwrap());
}
