//! Lists of accounts and of versions of the policy, in pages.

use registry::store::access::{Applied, AuditKind};

use super::{AccessTest, name};

/// Names in the order of their bytes: `-` and `.` come before digits, and `_` between digits and letters.
const NAMES: [&str; 11] = ["0", "10", "2", "a", "a-1", "a.1", "a0", "a_1", "aa", "b", "z-9"];

/// Accounts are listed in ASCII order, after any text, and a page ends exactly at the limit.
pub async fn accounts_are_listed_in_ascii_order(test: AccessTest) {
    for number in 0..NAMES.len() {
        // In an order of their own: 4 and 11 have no common divisor.
        let account = NAMES[number * 4 % NAMES.len()];
        let account = if number % 2 == 0 {
            test.user(account)
        } else {
            test.robot(account)
        };
        test.add(account).await;
    }
    for after in [
        "",
        "-",
        "0",
        "1",
        "10",
        "a",
        "a-",
        "a/",
        "a0",
        "z-9",
        "~",
        "é\u{10ffff}'\"%_",
    ] {
        for limit in 1..=NAMES.len() + 1 {
            let page = test.accounts(Some(after), limit).await;
            let names: Vec<_> = page.items.iter().map(|account| account.name.as_str()).collect();
            let rest: Vec<_> = NAMES.into_iter().filter(|name| *name > after).collect();
            assert_eq!(names, rest[..limit.min(rest.len())], "after {after:?}, {limit}");
            assert_eq!(page.more, rest.len() > limit, "after {after:?}, {limit}");
        }
    }
    for limit in [1, 3, 11, 12] {
        assert_eq!(test.account_names(limit).await, NAMES, "{limit}");
    }
    for account in test.accounts(None, 20).await.items {
        assert_eq!(test.account(account.name.as_str()).await, Some(account));
    }
}

/// A thousand accounts are listed in pages of any size.
pub async fn many_accounts_are_listed(test: AccessTest) {
    let names: Vec<_> = (0..150).map(|number| format!("user-{number:04}")).collect();
    for name in &names {
        test.add(test.user(name)).await;
    }
    for limit in [149, 150, 151, 64] {
        assert_eq!(test.account_names(limit).await, names, "{limit}");
    }
    let state = test.state().await;
    assert_eq!((state.version, state.accounts), (150, 150));
    let both = test.store.state_and_account(test.cx(), &name("user-0100")).await;
    assert_eq!(both.expect("state_and_account").1, Some(test.user("user-0100")));
}

/// Versions of the policy are listed newest first, below any version, and stay when another is in force.
pub async fn versions_of_the_policy_are_listed_newest_first(test: AccessTest) {
    let mut versions = Vec::new();
    for number in 0..5 {
        test.advance(1_000);
        versions.push(test.set_policy(&format!(r#"{{"number":{number}}}"#)).await);
        // Other changes leave gaps between the versions.
        let other = test.change(AuditKind::SigningKeyRotated).await;
        assert_eq!(test.apply(&other).await, Applied::Applied);
    }
    assert_eq!(versions, [1, 3, 5, 7, 9]);
    assert_eq!(test.state().await.policy, Some(9));
    for (number, version) in versions.iter().enumerate() {
        let document = format!(r#"{{"number":{number}}}"#);
        assert_eq!(test.document(*version).await, Some(document.clone()));
        let policy = test.store.policy(test.cx(), *version).await.expect("policy");
        let policy = policy.expect("the version is there");
        assert_eq!((policy.version, policy.document), (*version, document));
        assert_eq!(test.document(*version + 1).await, None);
    }
    versions.reverse();
    for before in [
        None,
        Some(0),
        Some(1),
        Some(2),
        Some(7),
        Some(8),
        Some(9),
        Some(10),
        Some(u64::MAX >> 1),
    ] {
        for limit in 1..=6 {
            let page = test.policies(before, limit).await;
            let listed: Vec<_> = page.items.iter().map(|policy| policy.version).collect();
            let rest: Vec<_> = versions
                .iter()
                .copied()
                .filter(|version| before.is_none_or(|before| *version < before))
                .collect();
            assert_eq!(listed, rest[..limit.min(rest.len())], "before {before:?}, {limit}");
            assert_eq!(page.more, rest.len() > limit, "before {before:?}, {limit}");
        }
    }
    let all = test.all_policies(2).await;
    assert_eq!(all.iter().map(|policy| policy.version).collect::<Vec<_>>(), versions);
    assert!(all.windows(2).all(|pair| pair[0].at > pair[1].at));
}
