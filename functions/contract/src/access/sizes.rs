//! Records as large as the limits allow.

use registry::auth::{GroupName, RepositoryGrant};
use registry::store::access::state::PublicKeyBytes;
use registry::store::access::{Account, AccountKey, Applied, AuditKind, KeyHash, PublicKey, Withdrawn};

use super::{AccessTest, grant, key_id};

/// 16 grants with long patterns.
fn grants() -> Vec<RepositoryGrant> {
    let grants = (0..Account::MAX_GRANTS).map(|number| {
        let pattern = format!("{}/{number:02}/**", "long-component/".repeat(14).trim_end_matches('/'));
        grant(&pattern, &["pull", "push", "delete"])
    });
    grants.collect()
}

/// An account with as many groups, grants and keys as it may have, each key with a scope of its own.
fn largest(test: &AccessTest, number: usize) -> Account {
    let mut account = test.robot(&format!("{number:0>64}"));
    account.groups = (0..Account::MAX_GROUPS)
        .map(|number| {
            format!("{:g>62}{number:02}", "")
                .parse::<GroupName>()
                .expect("a legal name")
        })
        .collect();
    account.grants = grants();
    account.keys = (0..Account::MAX_KEYS)
        .map(|number| {
            let key = AccountKey {
                hash: KeyHash([u8::try_from(number).expect("a small number"); 32]),
                scope: Some(grants()),
                created: test.now(),
                by: account.principal().to_string(),
                expires: Some(test.now()),
            };
            (key_id(number), key)
        })
        .collect();
    account
}

/// Accounts with 20 keys, 20 groups and 16 grants are stored and listed.
pub async fn the_largest_accounts_are_stored_and_listed(test: AccessTest) {
    let accounts: Vec<_> = (0..30).map(|number| largest(&test, number)).collect();
    for account in &accounts {
        test.add(account.clone()).await;
        assert_eq!(test.account(account.name.as_str()).await.as_ref(), Some(account));
    }
    for limit in [7, 1_000] {
        let mut listed: Vec<Account> = Vec::new();
        loop {
            let after = listed.last().map(|last| last.name.to_string());
            let page = test.accounts(after.as_deref(), limit).await;
            listed.extend(page.items);
            if !page.more {
                break;
            }
        }
        assert!(
            listed == accounts,
            "{} of {} with pages of {limit}",
            listed.len(),
            accounts.len()
        );
    }
}

/// A policy of 64 KiB, as it was written and as canonical JSON, is stored and listed.
pub async fn the_largest_policies_are_stored_and_listed(test: AccessTest) {
    const LARGEST: usize = 64 << 10;
    let mut written = Vec::new();
    for number in 0..12_usize {
        let filled = |sign: &str| format!("{number:02}{}", sign.repeat((LARGEST - 2) / sign.len()));
        let mut change = test.policy_change(&filled("\"")).await;
        let policy = change.policy.as_mut().expect("the change has a policy");
        policy.source = filled("é");
        policy.note = Some("n".repeat(1_000));
        assert_eq!((policy.document.len(), policy.source.len()), (LARGEST, LARGEST));
        assert_eq!(test.apply(&change).await, Applied::Applied);
        written.extend(change.policy);
    }
    for policy in &written {
        assert!(test.document(policy.version).await.as_ref() == Some(&policy.document));
        let read = test.store.policy(test.cx(), policy.version).await.expect("policy");
        assert!(read.as_ref() == Some(policy));
    }
    written.reverse();
    for limit in [1, 5, 1_000] {
        let listed = test.all_policies(limit).await;
        assert!(listed == written, "{} with pages of {limit}", listed.len());
    }
}

/// A state with 200 withdrawn principals and keys, and 50 signing keys.
pub async fn the_largest_state_is_stored(test: AccessTest) {
    let mut change = test.change(AuditKind::SigningKeyRotated).await;
    let withdrawn = &mut change.state.withdrawn;
    for number in 0..Withdrawn::MAX_ENTRIES / 2 {
        let robot = largest(&test, number).principal();
        withdrawn.withdraw_principal(&robot, u64::MAX >> 1, test.now());
        withdrawn.withdraw_key(key_id(number), test.now());
    }
    assert_eq!(
        withdrawn.principals.len() + withdrawn.keys.len(),
        Withdrawn::MAX_ENTRIES
    );
    change.state.keys = (0..50_u8)
        .map(|number| PublicKey {
            kid: format!("{number:016}").parse().expect("a legal id"),
            x: PublicKeyBytes([number; 32]),
            from: test.now(),
            until: Some(test.now()),
        })
        .collect();
    assert_eq!(test.apply(&change).await, Applied::Applied);
    assert_eq!(test.state().await, change.state);
}
