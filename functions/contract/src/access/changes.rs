//! Changes of administration: all of a change or nothing of it, and only from the state that it was made from.

use std::collections::BTreeSet;

use registry::store::access::{AccessState, AccountChange, Applied, AuditKind, Withdrawn};

use super::{AccessTest, key_id, name};

/// Before the first change there is the default state, and nothing else.
pub async fn the_state_before_the_first_change_is_the_default(test: AccessTest) {
    assert_eq!(test.state().await, AccessState::default());
    assert_eq!(test.account("alice").await, None);
    let both = test.store.state_and_account(test.cx(), &name("alice")).await;
    assert_eq!(both.expect("state_and_account"), (AccessState::default(), None));
    let accounts = test.accounts(None, 10).await;
    assert_eq!((accounts.items, accounts.more), (Vec::new(), false));
    let policies = test.policies(None, 10).await;
    assert_eq!((policies.items, policies.more), (Vec::new(), false));
    assert_eq!(test.document(1).await, None);
    assert_eq!(test.store.policy(test.cx(), 1).await.expect("policy"), None);
    assert_eq!(test.events().await, []);
}

/// A change writes the state, the account, the policy and the event together, and each is read as it was written.
pub async fn a_change_writes_all_that_it_holds(test: AccessTest) {
    let mut change = test.creation(test.robot("ci")).await;
    change.state.policy = Some(1);
    change.state.had_admin = true;
    change.state.withdrawn.withdraw_key(key_id(9), test.now());
    change
        .state
        .withdrawn
        .withdraw_principal(&name("bob").user(), 7, test.now());
    let mut policy = test.policy_version(1, r#"{"syntax":1}"#);
    policy.note = Some("why \"not\"\n".to_owned());
    change.policy = Some(policy.clone());
    let mut event = test.event(AuditKind::AccountCreated);
    event.credential = Some(key_id(3));
    event.address = Some("2001:db8::1".to_owned());
    event.repository = Some("team/app".parse().expect("a name"));
    event.reference = Some("ci".to_owned());
    event.before = Some(String::new());
    event.after = Some("groups: ci, release".to_owned());
    event.request = Some("4711".to_owned());
    event.detail = Some("é\u{10ffff}'\"%_\n".to_owned());
    change.event = Some(event.clone());
    assert_eq!(test.apply(&change).await, Applied::Applied);

    assert_eq!(test.state().await, change.state);
    let robot = test.account("ci").await;
    assert_eq!(robot, Some(test.robot("ci")));
    let both = test.store.state_and_account(test.cx(), &name("ci")).await;
    assert_eq!(both.expect("state_and_account"), (change.state, robot));
    assert_eq!(test.document(1).await, Some(policy.document.clone()));
    assert_eq!(test.store.policy(test.cx(), 1).await.expect("policy"), Some(policy));
    assert_eq!(test.events().await, [event]);
}

/// Each change raises the version by one. A change without an account, a policy or an event changes the state alone.
pub async fn each_change_raises_the_version(test: AccessTest) {
    test.add(test.user("alice")).await;
    assert_eq!(test.state().await.version, 1);
    test.set_policy("{}").await;
    assert_eq!(test.state().await.version, 2);
    let mut change = test.change(AuditKind::SigningKeyRotated).await;
    change.event = None;
    change.state.withdrawn.all_before = Some(test.now());
    assert_eq!(test.apply(&change).await, Applied::Applied);
    let state = test.state().await;
    assert_eq!((state.version, state.policy, state.accounts), (3, Some(2), 1));
    assert_eq!(state.withdrawn.all_before, Some(test.now()));
    assert_eq!(test.events().await.len(), 2);
}

/// A change from a state that is not the present one changes nothing: not the state, the account, the policy or the audit
/// trail.
pub async fn a_change_from_another_state_changes_nothing(test: AccessTest) {
    // The first change is made from version 0, and from no other.
    let mut early = test.creation(test.user("alice")).await;
    early.state.version = 2;
    assert_eq!(test.apply(&early).await, Applied::Conflict);
    assert_eq!(test.state().await, AccessState::default());
    assert_eq!(test.account("alice").await, None);

    let outdated = test.policy_change("outdated").await;
    test.add(test.user("alice")).await;
    test.set_policy("in force").await;
    let (state, events) = (test.state().await, test.events().await);
    let mut changed = test.user("alice");
    changed.disabled = true;
    for (version, account) in [
        (1, AccountChange::Put(Box::new(changed.clone()))),
        (2, AccountChange::Put(Box::new(changed.clone()))),
        (2, AccountChange::Remove(name("alice"))),
        (4, AccountChange::Put(Box::new(test.user("bob")))),
        (u64::MAX >> 1, AccountChange::Remove(name("alice"))),
    ] {
        let mut change = outdated.clone();
        change.state.version = version;
        change.state.policy = Some(version);
        change.policy = Some(test.policy_version(version, "outdated"));
        change.account = Some(account);
        change.event = Some(test.event(AuditKind::AccountChanged));
        assert_eq!(test.apply(&change).await, Applied::Conflict, "{version}");
        assert_eq!(test.state().await, state);
        assert_eq!(test.account("alice").await, Some(test.user("alice")));
        assert_eq!(test.account("bob").await, None);
        assert_eq!(test.document(2).await.as_deref(), Some("in force"));
        assert_eq!(test.all_policies(10).await.len(), 1);
        assert_eq!(test.events().await, events);
    }
}

/// A change whose answer was lost is made again: it is found to be made already, also after later changes, and nothing is
/// written twice.
pub async fn a_change_that_was_made_already_is_applied(test: AccessTest) {
    let change = test.creation(test.user("alice")).await;
    for _ in 0..3 {
        assert_eq!(test.apply(&change).await, Applied::Applied);
    }
    assert_eq!(test.events().await.len(), 1);
    let policy = test.policy_change("{}").await;
    for _ in 0..2 {
        assert_eq!(test.apply(&policy).await, Applied::Applied);
    }
    let mut disabled = test.user("alice");
    disabled.disabled = true;
    let mut later = test.change(AuditKind::AccountDisabled).await;
    later.account = Some(AccountChange::Put(Box::new(disabled.clone())));
    assert_eq!(test.apply(&later).await, Applied::Applied);
    for earlier in [&change, &policy, &later] {
        assert_eq!(test.apply(earlier).await, Applied::Applied);
        assert_eq!(test.state().await, later.state);
        assert_eq!(test.account("alice").await, Some(disabled.clone()));
    }
    assert_eq!(test.events().await.len(), 3);
    assert_eq!(test.all_policies(10).await.len(), 1);
}

/// An account is replaced as a whole: what the new one lacks is gone.
pub async fn an_account_is_replaced_as_a_whole(test: AccessTest) {
    test.add(test.robot("ci")).await;
    let mut bare = test.robot("ci");
    bare.keys.remove(&key_id(1));
    bare.groups = BTreeSet::new();
    bare.grants.pop();
    bare.disabled = true;
    bare.generation += 1;
    let mut change = test.change(AuditKind::AccountChanged).await;
    change.account = Some(AccountChange::Put(Box::new(bare.clone())));
    assert_eq!(test.apply(&change).await, Applied::Applied);
    assert_eq!(test.account("ci").await, Some(bare.clone()));
    assert_eq!(test.accounts(None, 10).await.items, [bare]);
}

/// A removed account is gone with its keys and their days of last use, and can be made again. Removing an account that does
/// not exist changes the state alone.
pub async fn an_account_can_be_removed_and_made_again(test: AccessTest) {
    test.add(test.robot("ci")).await;
    test.add(test.robot("ci2")).await;
    for account in ["ci", "ci2"] {
        test.use_key(account, 1, 20_000).await;
    }
    for _ in 0..2 {
        let mut change = test.change(AuditKind::AccountRemoved).await;
        change.state.accounts = 1;
        change.account = Some(AccountChange::Remove(name("ci")));
        assert_eq!(test.apply(&change).await, Applied::Applied);
        assert_eq!(test.account("ci").await, None);
        assert_eq!(test.account_names(10).await, ["ci2"]);
        assert_eq!(test.state().await, change.state);
    }
    test.add(test.robot("ci")).await;
    assert_eq!(test.account("ci").await, Some(test.robot("ci")));
    let uses = async |account: &str| {
        test.store
            .last_uses(test.cx(), &name(account))
            .await
            .expect("last_uses")
    };
    assert_eq!(uses("ci").await, [].into());
    assert_eq!(uses("ci2").await, [(key_id(1), 20_000)].into());
}

/// One of two changes from the same state is made, and the other changes nothing.
pub async fn one_of_racing_changes_is_made(test: AccessTest) {
    for round in 0..10 {
        let from = test.state().await;
        let mut changes = Vec::new();
        for number in 0..4 {
            let mut change = test.creation(test.user(&format!("user{round}-{number}"))).await;
            change.state.withdrawn = Withdrawn::default();
            change.state.withdrawn.withdraw_key(key_id(number), test.now());
            changes.push(change);
        }
        let answers = test
            .together(changes.len(), |number| {
                let (test, change) = (test.clone(), changes[number].clone());
                async move { test.apply(&change).await }
            })
            .await;
        let made: Vec<_> = (0..changes.len())
            .filter(|number| answers[*number] == Applied::Applied)
            .collect();
        let [made] = made[..] else {
            panic!("{answers:?}");
        };
        assert_eq!(test.state().await, changes[made].state);
        for number in 0..changes.len() {
            let account = test.account(&format!("user{round}-{number}")).await;
            assert_eq!(account.is_some(), number == made, "{round} {number}");
        }
        assert_eq!(changes[made].state.version, from.version + 1);
        assert_eq!(test.events().await.len(), round + 1);
    }
}

/// Instances that make their changes again from the new state lose none of them.
pub async fn racing_changes_are_all_made_in_the_end(test: AccessTest) {
    test.together(6, |number| {
        let test = test.clone();
        async move {
            loop {
                let change = test.creation(test.user(&format!("user{number}"))).await;
                if test.apply(&change).await == Applied::Applied {
                    return;
                }
            }
        }
    })
    .await;
    let state = test.state().await;
    assert_eq!((state.version, state.accounts), (6, 6));
    assert_eq!(test.account_names(4).await.len(), 6);
    assert_eq!(test.events().await.len(), 6);
}
