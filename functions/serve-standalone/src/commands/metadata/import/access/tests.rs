#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use registry::auth::Actions;
use registry::store::Timestamp;
use registry::store::access::{
    AccountKey, AccountKind, AuditQuery, FailureKey, Failures, KeyHash, PasswordHash, PolicyForm, TokenSeed,
};
use registry::store::memory::MemoryMetadata;
use sha2::{Digest as _, Sha256};
use store_embedded::{Embedded, EmbeddedOptions};
use tempfile::TempDir;

use super::super::super::export::access as export;
use super::super::super::format::{Begin, Mark, VERSION, write_line};
use super::super::contents::Contents;
use super::*;

const SEED: [u8; 32] = [0xab; 32];

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn key(byte: u8, expires: Option<Timestamp>) -> AccountKey {
    AccountKey {
        hash: KeyHash([byte; 32]),
        scope: expires
            .map(|_| serde_json::from_str(r#"[{"repositories":"team/**","actions":["pull","create"]}]"#).unwrap()),
        created: Timestamp(5),
        by: "alice".to_owned(),
        expires,
    }
}

fn user(account: &str, groups: &[&str]) -> Account {
    Account {
        name: name(account),
        kind: AccountKind::User,
        generation: 1_796_000_000_000,
        disabled: false,
        groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
        grants: Vec::new(),
        password: Some(PasswordHash::new(format!(
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA${}",
            STANDARD_NO_PAD.encode(Sha256::digest(account))
        ))),
        keys: BTreeMap::from([("key00001".parse().unwrap(), key(1, None))]),
        created: Timestamp(5),
        by: "alice".to_owned(),
    }
}

fn robot(account: &str) -> Account {
    Account {
        kind: AccountKind::Robot,
        grants: serde_json::from_str(r#"[{"repositories":"**","actions":["pull"]}]"#).unwrap(),
        password: None,
        keys: BTreeMap::from([
            ("key00002".parse().unwrap(), key(2, None)),
            ("key00003".parse().unwrap(), key(3, Some(Timestamp(9_000_000_000_000)))),
        ]),
        ..user(account, &["ci"])
    }
}

fn accounts() -> Vec<Account> {
    let mut disabled = user("bob", &["admins"]);
    disabled.disabled = true;
    vec![user("alice", &["admins", "ops"]), disabled, robot("ci")]
}

fn version(number: u64) -> PolicyVersion {
    PolicyVersion {
        version: number,
        document: format!(
            r#"{{"syntax":1,"allow":[{{"name":"rule {number}","who":["anyone"],"repositories":["**"],"actions":["pull"]}}]}}"#
        ),
        source: format!("# {number}\nsyntax = 1\n"),
        form: PolicyForm::Toml,
        principal: "alice".to_owned(),
        at: Timestamp(100 + number),
        note: (number > 3).then(|| "why".to_owned()),
    }
}

/// A registry with accounts, three versions of the policy of which the last is in force, and everything else that a store
/// of accounts has. Its numbers have gaps.
async fn filled() -> MemoryMetadata {
    let store = MemoryMetadata::new();
    let mut state = AccessState::default();
    let mut changes = vec![(None, Some(version(1)))];
    changes.extend(accounts().into_iter().map(|account| (Some(account), None)));
    changes.extend([(None, Some(version(5))), (None, Some(version(6)))]);
    for (account, policy) in changes {
        state.version += 1;
        state.accounts += u64::from(account.is_some());
        state.admins += u64::from(account.as_ref().is_some_and(Account::is_active_admin));
        state.had_admin |= state.admins > 0;
        state.policy = policy.as_ref().map(|policy| policy.version).or(state.policy);
        let kind = AuditKind::AccountCreated;
        let at = Timestamp(now().0 - 1_000 + state.version);
        let change = AccessChange {
            state: state.clone(),
            account: account.map(|account| AccountChange::Put(Box::new(account))),
            policy,
            event: Some(AuditEvent::new(kind, "alice".to_owned(), at, Uid(state.version))),
        };
        assert_eq!(store.apply(cx(), &change).await.unwrap(), Applied::Applied);
    }
    let seed = TokenSeed {
        kid: "0123456789abcdef".parse().unwrap(),
        seed: SEED,
        created: Timestamp(5),
    };
    assert!(store.add_token_seed(cx(), &seed).await.unwrap());
    assert!(
        store
            .put_failures(cx(), FailureKey([3; 16]), &Failures::default())
            .await
            .unwrap()
    );
    store
        .record_use(cx(), &name("ci"), "key00002".parse().unwrap(), 20_000)
        .await
        .unwrap();
    store
}

/// A file with the records about accounts of a store.
async fn exported(folder: &TempDir, store: &dyn AccessStore, with_audit: bool) -> PathBuf {
    let path = folder.path().join("export");
    let mut text = Vec::new();
    let begin = Begin {
        version: VERSION,
        program: "test".into(),
        source: "there".into(),
        at: Timestamp(1),
    };
    write_line(&mut text, &Mark::Begin(begin)).unwrap();
    let records = export::write(store, with_audit, &mut text).await.unwrap();
    write_line(&mut text, &Mark::End { records }).unwrap();
    std::fs::File::create(&path).unwrap().write_all(&text).unwrap();
    path
}

async fn all_accounts(store: &dyn AccessStore) -> Vec<Account> {
    store.accounts(cx(), None, 100).await.unwrap().items
}

async fn events(store: &dyn AccessStore) -> Vec<AuditEvent> {
    store
        .audit(cx(), &AuditQuery::default(), None, 1_000)
        .await
        .unwrap()
        .items
}

/// The versions of the policy, newest first, without their numbers.
async fn policies(store: &dyn AccessStore) -> Vec<PolicyVersion> {
    let policies = store.policies(cx(), None, 100).await.unwrap().items;
    let without_number = |policy| PolicyVersion { version: 0, ..policy };
    policies.into_iter().map(without_number).collect()
}

/// Everything that decides about a login or a permission is moved, to a store of either kind, and a second import changes
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn accounts_and_policies_are_moved() {
    let folder = TempDir::new().unwrap();
    let from = filled().await;
    let path = exported(&folder, &from, true).await;
    let contents = Contents::of(&path).unwrap();
    assert_eq!(contents.accounts.len(), 3);
    assert_eq!(contents.records, 3 + 3 + 6);
    let embedded = Embedded::open(&EmbeddedOptions {
        data: folder.path().join("data"),
        sync: store_embedded::Sync::Off,
        upload_memory: 1 << 20,
        memory_timeout: EmbeddedOptions::MEMORY_TIMEOUT,
    });
    let targets: [Arc<dyn AccessStore>; 2] = [embedded.unwrap().metadata, Arc::new(MemoryMetadata::new())];
    for to in targets {
        require_no_others(&*to, &contents.accounts).await.unwrap();
        require_no_replacements(&path, contents.access, &*to).await.unwrap();
        write(&path, contents.access, &*to).await.unwrap();
        assert_eq!(all_accounts(&*to).await, accounts());
        assert_eq!(policies(&*to).await, policies(&from).await);
        let state = to.state(cx()).await.unwrap();
        assert_eq!((state.accounts, state.admins, state.had_admin), (3, 1, true));
        let document = to.policy_document(cx(), state.policy.unwrap()).await.unwrap();
        assert_eq!(document, Some(version(6).document));
        let recorded = events(&*to).await;
        for event in events(&from).await {
            assert!(recorded.contains(&event), "{event:?}");
        }
        let of_import = recorded.iter().filter(|event| event.principal == OPERATOR);
        assert_eq!(of_import.count(), 3 + 3);
        assert_eq!(recorded.len(), 3 + 3 + 6);
        assert_eq!(to.token_seeds(cx()).await.unwrap(), []);
        assert_eq!(
            to.failures(cx(), FailureKey([3; 16])).await.unwrap(),
            Failures::default()
        );

        require_no_others(&*to, &contents.accounts).await.unwrap();
        require_no_replacements(&path, contents.access, &*to).await.unwrap();
        write(&path, contents.access, &*to).await.unwrap();
        assert_eq!(to.state(cx()).await.unwrap(), state);
        assert_eq!(events(&*to).await, recorded);
    }
}

/// A file has the hashes of passwords and keys, never a seed, and the audit trail only on request.
#[tokio::test]
async fn a_file_has_no_seeds_and_the_audit_trail_on_request() {
    let folder = TempDir::new().unwrap();
    let from = filled().await;
    for with_audit in [false, true] {
        let text = std::fs::read_to_string(exported(&folder, &from, with_audit).await).unwrap();
        assert_eq!(text.contains("{\"record\":\"audit\""), with_audit);
        let hash = STANDARD_NO_PAD.encode(Sha256::digest("alice"));
        assert!(text.contains(&format!("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA${hash}")));
        let hash = String::from(KeyHash([3; 32]));
        assert!(text.contains(&hash));
        let seed = String::from(KeyHash(SEED));
        for secret in [seed.as_str(), "0123456789abcdef", "abababab", "[171,171"] {
            assert!(!text.contains(secret), "{secret}");
        }
    }
}

/// An account that differs becomes that of the file. Its tokens are withdrawn, because it may have lost something.
#[tokio::test]
async fn an_account_that_differs_is_replaced() {
    let folder = TempDir::new().unwrap();
    let path = exported(&folder, &filled().await, false).await;
    let to = MemoryMetadata::new();
    let mut present = user("ci", &["admins"]);
    present.generation = 1_900_000_000_000_000;
    let change = AccessChange {
        state: AccessState {
            version: 1,
            accounts: 1,
            admins: 1,
            had_admin: true,
            ..AccessState::default()
        },
        account: Some(AccountChange::Put(Box::new(present.clone()))),
        policy: None,
        event: None,
    };
    assert_eq!(to.apply(cx(), &change).await.unwrap(), Applied::Applied);
    is_refused(&path, &to, "the account ci").await;
    write(&path, 0, &to).await.unwrap();
    let replaced = to.account(cx(), &name("ci")).await.unwrap().unwrap();
    assert_eq!(replaced.generation, present.generation + 1);
    let expected = Account {
        generation: replaced.generation,
        ..robot("ci")
    };
    assert_eq!(replaced, expected);
    let state = to.state(cx()).await.unwrap();
    assert_eq!((state.accounts, state.admins), (3, 1));
    let is_withdrawn = |generation| {
        let withdrawn = &state.withdrawn;
        withdrawn.contains(&name("ci").user(), generation, None, now())
    };
    assert!(is_withdrawn(present.generation) && !is_withdrawn(replaced.generation));
    write(&path, 0, &to).await.unwrap();
    assert_eq!(to.state(cx()).await.unwrap(), state);
}

/// Without `--force` nothing of the registry is replaced, and the error names what would be.
async fn is_refused(path: &Path, store: &dyn AccessStore, what: &str) {
    let Err(Failure::Failed(text)) = require_no_replacements(path, 0, store).await else {
        panic!("it was accepted")
    };
    assert!(text.contains(what) && text.contains("--force"), "{text}");
}

/// Every part of an account counts, but for its generation.
#[tokio::test]
async fn what_was_changed_since_the_export_is_not_replaced() {
    let folder = TempDir::new().unwrap();
    let changes: [fn(&mut Account); 5] = [
        |account| account.disabled = !account.disabled,
        |account| drop(account.keys.pop_first()),
        |account| drop(account.groups.pop_first()),
        |account| account.password = None,
        |account| account.by = "somebody".to_owned(),
    ];
    for change in changes {
        let to = filled().await;
        let path = exported(&folder, &to, false).await;
        require_no_replacements(&path, 0, &to).await.unwrap();
        let mut account = user("alice", &["admins", "ops"]);
        account.generation += 1;
        put(&to, account.clone()).await;
        require_no_replacements(&path, 0, &to).await.unwrap();
        change(&mut account);
        put(&to, account).await;
        is_refused(&path, &to, "the account alice").await;
    }
}

async fn put(store: &dyn AccessStore, account: Account) {
    let mut state = store.state(cx()).await.unwrap();
    state.version += 1;
    let change = AccessChange {
        state,
        account: Some(AccountChange::Put(Box::new(account))),
        policy: None,
        event: None,
    };
    assert_eq!(store.apply(cx(), &change).await.unwrap(), Applied::Applied);
}

/// A policy that was set since the export stays in force. One that the file has already, under whatever number, is the same.
#[tokio::test]
async fn a_policy_that_was_set_since_the_export_is_not_replaced() {
    let folder = TempDir::new().unwrap();
    let to = filled().await;
    let path = exported(&folder, &to, false).await;
    let mut state = to.state(cx()).await.unwrap();
    state.version += 1;
    state.policy = Some(state.version);
    let newer = PolicyVersion {
        at: Timestamp(1_000),
        ..version(state.version)
    };
    let change = AccessChange {
        state,
        account: None,
        policy: Some(newer),
        event: None,
    };
    assert_eq!(to.apply(cx(), &change).await.unwrap(), Applied::Applied);
    is_refused(&path, &to, "the policy in force").await;
    write(&path, 0, &to).await.unwrap();
    require_no_replacements(&path, 0, &to).await.unwrap();
}

/// A registry with another account is refused, unless the file has no accounts.
#[tokio::test]
async fn a_registry_with_other_accounts_is_refused() {
    let to = filled().await;
    let ours: BTreeSet<_> = ["alice", "ci", "zoe"].map(name).into();
    let Err(Failure::Failed(text)) = require_no_others(&to, &ours).await else {
        panic!("it was accepted")
    };
    assert!(text.contains("the account bob") && text.contains("--force"), "{text}");
    let all: BTreeSet<_> = ["alice", "bob", "ci", "zoe"].map(name).into();
    require_no_others(&to, &all).await.unwrap();
    require_no_others(&to, &BTreeSet::new()).await.unwrap();
}

/// A file with an account that no registry makes is refused as a whole.
#[tokio::test]
async fn accounts_beyond_the_limits_are_refused() {
    let folder = TempDir::new().unwrap();
    let read = async |change: &dyn Fn(&mut Account)| {
        let store = MemoryMetadata::new();
        let mut account = robot("ci");
        change(&mut account);
        let change = AccessChange {
            state: AccessState {
                version: 1,
                ..AccessState::default()
            },
            account: Some(AccountChange::Put(Box::new(account))),
            policy: None,
            event: None,
        };
        assert_eq!(store.apply(cx(), &change).await.unwrap(), Applied::Applied);
        let path = exported(&folder, &store, false).await;
        Contents::of(&path).map(drop).map_err(|error| error.to_string())
    };
    let groups = |count: usize| {
        move |account: &mut Account| {
            account.groups = (0..count).map(|number| format!("g{number}").parse().unwrap()).collect();
        }
    };
    let keys = |count: usize| {
        move |account: &mut Account| {
            account.keys = (0..count)
                .map(|number| (format!("key{number:05}").parse().unwrap(), key(1, None)))
                .collect();
        }
    };
    let grants = |count: usize| move |account: &mut Account| account.grants = vec![account.grants[0].clone(); count];
    read(&groups(20)).await.unwrap();
    read(&keys(20)).await.unwrap();
    read(&grants(16)).await.unwrap();
    assert!(read(&groups(21)).await.unwrap_err().contains("21 groups"));
    assert!(read(&keys(21)).await.unwrap_err().contains("21 keys"));
    assert!(read(&grants(17)).await.unwrap_err().contains("17 grants"));
    let error = read(&|account| account.password = Some(PasswordHash::new("x".to_owned()))).await;
    assert!(error.unwrap_err().contains("robots have keys, and no password"));
    let as_user = |account: &mut Account| (account.kind, account.grants) = (AccountKind::User, Vec::new());
    let short_hash = |account: &mut Account| {
        as_user(account);
        account.password = Some(PasswordHash::new("$argon2id$v=19$m=19456,t=2,p=1$salt$hash".to_owned()));
    };
    assert!(
        read(&short_hash)
            .await
            .unwrap_err()
            .contains("the hash of the password")
    );
    read(&as_user).await.unwrap();
    assert!(
        read(&|account| account.kind = AccountKind::User).await.is_err(),
        "a user with grants"
    );
    assert!(
        read(&|account| account.grants[0].actions = Actions::NONE)
            .await
            .is_err()
    );
    read(&|account| account.generation = 999_999_999_999_999).await.unwrap();
    let error = read(&|account| account.generation = 1_000_000_000_000_000).await;
    assert!(error.unwrap_err().contains("too large"));
}

/// A policy comes in force only if this program can read it, and accepts what it says. Earlier versions may be any text.
#[tokio::test]
async fn a_policy_that_would_stop_every_server_is_refused() {
    let folder = TempDir::new().unwrap();
    let read = async |document: &str, is_in_force: bool| {
        let store = MemoryMetadata::new();
        let mut versions = vec![PolicyVersion {
            document: document.to_owned(),
            ..version(1)
        }];
        if !is_in_force {
            versions.push(version(2));
        }
        for policy in versions {
            let change = AccessChange {
                state: AccessState {
                    version: policy.version,
                    policy: Some(policy.version),
                    ..AccessState::default()
                },
                account: None,
                policy: Some(policy),
                event: None,
            };
            assert_eq!(store.apply(cx(), &change).await.unwrap(), Applied::Applied);
        }
        let path = exported(&folder, &store, false).await;
        Contents::of(&path).map(drop).map_err(|error| error.to_string())
    };
    let workload = r#"{"syntax":1,"issuer":[{"name":"ci","url":"https://ci.example","audience":["roadstead"]}]}"#;
    for (document, reason) in [
        ("", "mistakes"),
        (r#"{"syntax":2}"#, "syntax"),
        (r#"{"syntax":1,"allow":[{"name":"a"}]}"#, "mistakes"),
        (workload, "accepts no ID tokens yet"),
    ] {
        let error = read(document, true).await.unwrap_err();
        assert!(error.contains(reason), "{document}: {error}");
        read(document, false).await.unwrap();
    }
    read(r#"{"syntax":1}"#, true).await.unwrap();
}

/// The tokens of an account that is imported again soon after its removal are good, and those from before are not.
#[tokio::test]
async fn an_account_that_was_removed_comes_back() {
    let folder = TempDir::new().unwrap();
    let path = exported(&folder, &filled().await, false).await;
    let to = MemoryMetadata::new();
    let withdrawn_generation = now().0;
    let mut state = AccessState {
        version: 1,
        ..AccessState::default()
    };
    state
        .withdrawn
        .withdraw_principal(&robot("ci").principal(), withdrawn_generation, now());
    let change = AccessChange {
        state,
        account: None,
        policy: None,
        event: None,
    };
    assert_eq!(to.apply(cx(), &change).await.unwrap(), Applied::Applied);
    write(&path, 0, &to).await.unwrap();
    let account = to.account(cx(), &name("ci")).await.unwrap().unwrap();
    let state = to.state(cx()).await.unwrap();
    let is_withdrawn = |generation| state.withdrawn.contains(&account.principal(), generation, None, now());
    assert!(!is_withdrawn(account.generation) && is_withdrawn(withdrawn_generation - 1));
}
