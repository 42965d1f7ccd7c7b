//! Tests of accounts, policy and audit that are about this store: the version of the file, costs, and removal of old rows.

use registry::auth::AccountName;
use registry::store::access::{
    AccessChange, AccessState, AccessStore, Account, AccountChange, AccountKey, AccountKind, Applied, AuditEvent,
    AuditKind, AuditQuery, FailureKey, Failures, KeyHash, KeyId, PolicyForm, PolicyVersion, TokenSeed,
};

use super::*;
use crate::sqlite::schema::SchemaError;

const DAY: u64 = 24 * 60 * 60 * 1000;

fn name() -> AccountName {
    "alice".parse().unwrap()
}

fn account() -> Account {
    let key = AccountKey {
        hash: KeyHash([1; 32]),
        scope: None,
        created: Timestamp(5),
        by: "admin".to_owned(),
        expires: None,
    };
    Account {
        name: name(),
        kind: AccountKind::User,
        generation: 1,
        disabled: false,
        groups: ["ci".parse().unwrap()].into(),
        grants: Vec::new(),
        password: None,
        keys: (0..3)
            .map(|number| (format!("key0000{number}").parse().unwrap(), key.clone()))
            .collect(),
        created: Timestamp(5),
        by: "admin".to_owned(),
    }
}

/// A change that records an event at a time, and nothing else.
fn change(version: u64, at: Timestamp) -> AccessChange {
    AccessChange {
        state: AccessState {
            version,
            ..AccessState::default()
        },
        account: None,
        policy: None,
        event: Some(AuditEvent::new(
            AuditKind::AccountChanged,
            "admin".to_owned(),
            at,
            Uid(version),
        )),
    }
}

fn policy(version: u64) -> PolicyVersion {
    PolicyVersion {
        version,
        document: "{}".to_owned(),
        source: "{}".to_owned(),
        form: PolicyForm::Json,
        principal: "admin".to_owned(),
        at: Timestamp(5),
        note: None,
    }
}

fn file_version(opened: &OpenedStore) -> usize {
    let version: i64 = opened
        .other_process()
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    usize::try_from(version).unwrap()
}

/// Everything but an account and a policy leaves the version of the file as it was, and so does a change that is refused.
/// The version stays raised after the last account was removed, since accounts of then may have left tokens.
#[tokio::test]
async fn the_first_account_or_policy_raises_the_version_of_the_file() {
    let with_account = |version| AccessChange {
        account: Some(AccountChange::Put(Box::new(account()))),
        ..change(version, Timestamp(9))
    };
    let with_policy = |version| AccessChange {
        policy: Some(policy(version)),
        ..change(version, Timestamp(9))
    };
    for raising in [with_account(3), with_policy(3)] {
        let opened = open(Sync::Full);
        let store = &opened.store;
        assert_eq!(file_version(&opened), SCHEMA_VERSION);
        assert_eq!(store.apply(cx(), &with_account(2)).await.unwrap(), Applied::Conflict);
        assert_eq!(
            store.apply(cx(), &change(1, Timestamp(7))).await.unwrap(),
            Applied::Applied
        );
        let removal = AccessChange {
            account: Some(AccountChange::Remove(name())),
            ..change(2, Timestamp(8))
        };
        assert_eq!(store.apply(cx(), &removal).await.unwrap(), Applied::Applied);
        assert!(
            store
                .put_failures(cx(), FailureKey([1; 16]), &Failures::default())
                .await
                .unwrap()
        );
        assert_eq!(file_version(&opened), SCHEMA_VERSION);

        assert_eq!(store.apply(cx(), &raising).await.unwrap(), Applied::Applied);
        assert_eq!(file_version(&opened), SCHEMA_VERSION + 1);
        let removal = AccessChange {
            account: Some(AccountChange::Remove(name())),
            ..change(4, Timestamp(10))
        };
        assert_eq!(store.apply(cx(), &removal).await.unwrap(), Applied::Applied);
        assert_eq!(file_version(&opened), SCHEMA_VERSION + 1);
        store.close();

        // This program opens it again.
        let again = SqliteStore::open(&opened.directory.path().join("metadata.db"), Sync::Full).unwrap();
        assert_eq!(again.state(cx()).await.unwrap().version, 4);
        again.close();
        drop(again);

        // A later one has raised it further.
        opened
            .other_process()
            .pragma_update(None, "user_version", i64::try_from(SCHEMA_VERSION + 2).unwrap())
            .unwrap();
        let refused = SqliteStore::open(&opened.directory.path().join("metadata.db"), Sync::Full).unwrap_err();
        assert!(matches!(refused, SchemaError::Newer { .. }), "{refused}");
    }
}

/// A file without the tables, as the program before this one left it, gets them.
#[tokio::test]
async fn a_file_without_accounts_gets_their_tables() {
    let opened = open(Sync::Full);
    opened.commit_blob(1).await.unwrap();
    opened.store.close();
    let other = opened.other_process();
    for table in [
        "access_state",
        "account",
        "account_key",
        "key_use",
        "policy",
        "audit",
        "token_key",
        "failure",
    ] {
        other.execute(&format!("DROP TABLE {table}"), []).unwrap();
    }
    drop(other);
    let store = SqliteStore::open(&opened.directory.path().join("metadata.db"), Sync::Full).unwrap();
    let change = AccessChange {
        account: Some(AccountChange::Put(Box::new(account()))),
        ..change(1, Timestamp(9))
    };
    assert_eq!(store.apply(cx(), &change).await.unwrap(), Applied::Applied);
    assert_eq!(store.account(cx(), &name()).await.unwrap(), Some(account()));
    assert!(store.link(cx(), &repository(), &digest(1)).await.unwrap().is_some());
}

/// A read is one statement, a change one transaction, and a counter one row.
#[tokio::test]
async fn operations_cost_what_the_contract_says() {
    let opened = open(Sync::Full);
    let store = &opened.store;
    let whole = AccessChange {
        account: Some(AccountChange::Put(Box::new(account()))),
        policy: Some(policy(1)),
        ..change(1, Timestamp(9))
    };
    let (applied, cost) = opened.cost(store.apply(cx(), &whole)).await;
    assert_eq!(applied.unwrap(), Applied::Applied);
    // The state, the account with three keys, the policy and the event.
    assert_eq!((cost.writes, cost.commits, cost.syncs), (7, 1, 1));
    assert_eq!(cost.reads, 2, "the event and the version");

    let (account, cost) = opened.cost(store.account(cx(), &name())).await;
    assert_eq!(account.unwrap().unwrap().keys.len(), 3);
    assert_eq!((cost.reads, cost.writes), (1, 0));
    let (_, cost) = opened.cost(store.state(cx())).await;
    assert_eq!((cost.reads, cost.writes), (1, 0));
    let (_, cost) = opened.cost(store.state_and_account(cx(), &name())).await;
    assert_eq!((cost.reads, cost.writes), (2, 0));
    let (_, cost) = opened.cost(store.policy_document(cx(), 1)).await;
    assert_eq!((cost.reads, cost.writes), (1, 0));
    let (_, cost) = opened.cost(store.failures(cx(), FailureKey([1; 16]))).await;
    assert_eq!((cost.reads, cost.writes), (1, 0));
    let (failures, name) = (Failures::default(), name());
    let put = store.put_failures(cx(), FailureKey([1; 16]), &failures);
    let (put, cost) = opened.cost(put).await;
    assert!(put.unwrap());
    assert_eq!((cost.reads, cost.writes, cost.syncs), (0, 1, 0));
    let used = store.record_use(cx(), &name, "key00000".parse().unwrap(), 20_000);
    let (_, cost) = opened.cost(used).await;
    assert_eq!((cost.reads, cost.writes, cost.syncs), (0, 1, 0));
}

/// Each new event removes some that are older than 400 days, and each counter some that have ended.
#[tokio::test]
async fn old_rows_are_removed_by_new_ones() {
    let opened = open(Sync::Off);
    let store = &opened.store;
    let mut version = 0;
    let mut record = async |at: Timestamp| {
        version += 1;
        let cx = Context::internal(at, 20_000, Uid(1));
        assert_eq!(store.apply(cx, &change(version, at)).await.unwrap(), Applied::Applied);
    };
    for number in 0..10 {
        record(Timestamp(number)).await;
    }
    let times = async || -> Vec<u64> {
        let slice = store.audit(cx(), &AuditQuery::default(), None, 100).await.unwrap();
        slice.items.iter().map(|event| event.at.0).collect()
    };
    let later = AuditEvent::LIFETIME_MS + 9;
    record(Timestamp(9 + AuditEvent::LIFETIME_MS - 9)).await;
    assert_eq!(times().await.len(), 11, "400 days are not over");
    record(Timestamp(later)).await;
    assert_eq!(times().await[..2], [4, 5]);
    record(Timestamp(later)).await;
    record(Timestamp(later)).await;
    assert_eq!(
        times().await,
        [9, later - 9, later, later, later],
        "of the last millisecond, and new ones"
    );

    let put = async |number: u8, at: u64| {
        let counter = Failures {
            at: Some(Timestamp(at)),
            ..Failures::default()
        };
        let cx = Context::internal(Timestamp(at), 20_000, Uid(1));
        assert!(
            store
                .put_failures(cx, FailureKey([number; 16]), &counter)
                .await
                .unwrap()
        );
    };
    let has = async |number: u8| store.failures(cx(), FailureKey([number; 16])).await.unwrap().version > 0;
    for number in 0..6 {
        put(number, u64::from(number)).await;
    }
    put(100, DAY - 1).await;
    assert!(has(0).await);
    put(101, DAY + 4).await;
    assert!(!has(3).await && has(4).await && has(5).await);
    put(102, DAY + 4).await;
    assert!(!has(4).await && has(5).await && has(100).await);
}

/// A value that this program does not write is an error, and not an account with fewer restrictions.
#[tokio::test]
async fn a_damaged_account_is_an_error() {
    let opened = open(Sync::Off);
    let store = &opened.store;
    let change = AccessChange {
        account: Some(AccountChange::Put(Box::new(account()))),
        ..change(1, Timestamp(9))
    };
    assert_eq!(store.apply(cx(), &change).await.unwrap(), Applied::Applied);
    for damage in [
        "UPDATE account_key SET scope = '[{\"repositories\":\"**\"}]'",
        "UPDATE account_key SET scope = '[', hash = 'AQ'",
        "UPDATE account SET groups = '{}'",
        "UPDATE account SET grants = ''",
        "UPDATE account SET generation = -1",
    ] {
        let other = opened.other_process();
        other.execute_batch("BEGIN; CREATE TABLE kept_account AS SELECT * FROM account; CREATE TABLE kept_key AS SELECT * FROM account_key; COMMIT").unwrap();
        other.execute(damage, []).unwrap();
        let error = store.account(cx(), &name()).await.unwrap_err();
        assert!(matches!(error, StoreError::Failed(_)), "{damage}: {error}");
        store.accounts(cx(), None, 10).await.unwrap_err();
        other
            .execute_batch(
                "BEGIN; DELETE FROM account; INSERT INTO account SELECT * FROM kept_account; DROP TABLE kept_account; \
                 DELETE FROM account_key; INSERT INTO account_key SELECT * FROM kept_key; DROP TABLE kept_key; COMMIT",
            )
            .unwrap();
    }
    assert_eq!(
        store.account(cx(), &name()).await.unwrap(),
        Some(super::access::account())
    );
}

/// One damaged seed locks nobody out: the others are read, and the one of the password secret is written anew.
#[tokio::test]
async fn damaged_seeds_are_left_out_and_replaced() {
    let opened = open(Sync::Off);
    let store = &opened.store;
    let seed = |kid: KeyId, byte: u8| TokenSeed {
        kid,
        seed: [byte; 32],
        created: Timestamp(5),
    };
    let (good, other) = ("0123456789abcdef".parse().unwrap(), "fedcba9876543210".parse().unwrap());
    let damages = [
        "UPDATE token_key SET seed = x'0707' WHERE kid <> '0123456789abcdef'",
        "UPDATE token_key SET created = -1 WHERE kid <> '0123456789abcdef'",
    ];
    for (round, damage) in (0..).zip(damages) {
        for kid in [good, other, KeyId::PASSWORD_SECRET] {
            store.remove_token_seed(cx(), kid).await.unwrap();
            assert!(store.add_token_seed(cx(), &seed(kid, round)).await.unwrap());
        }
        let process = opened.other_process();
        let insert = "INSERT OR REPLACE INTO token_key (kid, seed, created) VALUES ('short', zeroblob(32), 5)";
        let batch = format!("PRAGMA ignore_check_constraints = ON; BEGIN; {damage}; {insert}; COMMIT");
        process.execute_batch(&batch).unwrap();
        assert_eq!(store.token_seeds(cx()).await.unwrap(), [seed(good, round)], "{damage}");
        let new = seed(KeyId::PASSWORD_SECRET, round + 100);
        assert!(store.add_token_seed(cx(), &new).await.unwrap(), "{damage}");
        assert!(
            !store.add_token_seed(cx(), &seed(new.kid, round)).await.unwrap(),
            "{damage}"
        );
        assert_eq!(
            store.token_seeds(cx()).await.unwrap(),
            [seed(good, round), new],
            "{damage}"
        );
    }
}

/// Everything that the changes of the next test are about.
async fn everything(store: &SqliteStore) -> String {
    let state = store.state(cx()).await.unwrap();
    let account = store.account(cx(), &name()).await.unwrap();
    let policy = store.policy(cx(), 2).await.unwrap();
    let uses = store.last_uses(cx(), &name()).await.unwrap();
    let audit = store.audit(cx(), &AuditQuery::default(), None, 10).await.unwrap();
    format!("{state:?} {account:?} {policy:?} {uses:?} {:?}", audit.items)
}

/// A change that fails at any of its statements leaves nothing behind, neither of the account nor of what was withdrawn. Made
/// again, it is whole.
#[tokio::test]
async fn a_change_that_fails_at_any_statement_has_changed_nothing() {
    let mut disabled = account();
    (disabled.generation, disabled.disabled) = (2, true);
    disabled.keys.pop_first();
    let mut losing = AccessChange {
        account: Some(AccountChange::Put(Box::new(disabled))),
        policy: Some(policy(2)),
        ..change(2, Timestamp(9))
    };
    let mut removal = AccessChange {
        account: Some(AccountChange::Remove(name())),
        ..change(2, Timestamp(9))
    };
    for change in [&mut losing, &mut removal] {
        let withdrawn = &mut change.state.withdrawn;
        withdrawn.withdraw_principal(&account().principal(), 2, Timestamp(9));
    }
    let of_losing = [
        "INSERT ON access_state",
        "INSERT ON account",
        "DELETE ON account_key",
        "INSERT ON account_key",
        "INSERT ON policy",
        "INSERT ON audit",
    ];
    let of_removal = [
        "INSERT ON access_state",
        "DELETE ON account",
        "DELETE ON account_key",
        "DELETE ON key_use",
        "INSERT ON audit",
    ];
    for (second, statements) in [(losing, &of_losing[..]), (removal, &of_removal[..])] {
        let opened = open(Sync::Off);
        let store = &opened.store;
        let first = AccessChange {
            account: Some(AccountChange::Put(Box::new(account()))),
            ..change(1, Timestamp(7))
        };
        assert_eq!(store.apply(cx(), &first).await.unwrap(), Applied::Applied);
        let key = "key00001".parse().unwrap();
        store.record_use(cx(), &name(), key, 20_000).await.unwrap();
        let before = everything(store).await;
        for statement in statements {
            for when in ["BEFORE", "AFTER"] {
                let other = opened.other_process();
                let trigger =
                    format!("CREATE TRIGGER failing {when} {statement} BEGIN SELECT raise(ABORT, 'planned'); END");
                other.execute_batch(&trigger).unwrap();
                store.apply(cx(), &second).await.unwrap_err();
                other.execute_batch("DROP TRIGGER failing").unwrap();
                assert_eq!(everything(store).await, before, "{when} {statement}");
            }
        }
        assert_eq!(store.apply(cx(), &second).await.unwrap(), Applied::Applied);
        assert_ne!(everything(store).await, before);
    }
}
