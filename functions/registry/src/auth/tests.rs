#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

/// What the policy says of an action that no rule allows.
fn forbidden(action: ActionKind, repository: &str) -> Denied {
    Denied::Policy {
        action,
        repository: repository.parse().unwrap(),
        rule: None,
    }
}

fn rule(name: &str, repositories: &str, actions: Actions) -> AccessRule {
    AccessRule {
        name: name.into(),
        repositories: vec![repositories.parse().unwrap()],
        actions,
    }
}

fn anonymous(rules: Rules) -> Identity {
    Identity::new(Principal::ANONYMOUS, rules)
}

#[test]
fn permits() {
    let only: RepositoryName = "a/b".parse().unwrap();
    let creator = Rules::new(vec![rule("r", "a/b", Actions::CREATE)], Vec::new());
    for (identity, repository, expected) in [
        (anonymous(Rules::everything()), "a/b", [true; 5]),
        (anonymous(Rules::pull_only()), "a/b", [true, false, false, false, true]),
        (anonymous(Rules::nothing()), "a/b", [false; 5]),
        (anonymous(creator.clone()), "a/b", [false, true, false, false, false]),
        (anonymous(creator.clone()), "a/b/c", [false; 5]),
        (
            anonymous(Rules::everything()).with_token_scope(Scope::upload(&only)),
            "a/b",
            [false, true, false, false, false],
        ),
        (
            anonymous(Rules::everything()).with_token_scope(Scope::upload(&only)),
            "a",
            [false; 5],
        ),
    ] {
        let repository = repository.parse().unwrap();
        let granted = [
            identity.permit::<Pull>(&repository).is_ok(),
            identity.permit::<Push>(&repository).is_ok(),
            identity.permit::<Move>(&repository).is_ok(),
            identity.permit::<Delete>(&repository).is_ok(),
            identity.permit::<List>(&repository).is_ok(),
        ];
        assert_eq!(granted, expected, "{identity:?} {repository}");
        let may = [
            identity.may::<Pull>(&repository),
            identity.may::<Push>(&repository),
            identity.may::<Move>(&repository),
            identity.may::<Delete>(&repository),
            identity.may::<List>(&repository),
        ];
        assert_eq!(may, expected, "{identity:?} {repository}");
        assert_eq!(identity.is_unrestricted(), expected == [true; 5]);
    }
    let identity = anonymous(Rules::everything());
    let name: RepositoryName = "x".parse().unwrap();
    assert_eq!(identity.permit::<Pull>(&name).unwrap().repository(), &name);
}

#[test]
fn a_refusal_says_what_and_why() {
    let (name, tags): (RepositoryName, Vec<Tag>) = ("a/b".parse().unwrap(), vec!["t".parse().unwrap()]);
    let rules = Rules::new(
        vec![rule(
            "all",
            "**",
            Actions::ALL.without(Actions::of(&[ActionKind::Move])),
        )],
        vec![rule("kept", "a/**", Actions::of(&[ActionKind::Delete]))],
    );
    let identity = Identity::new(Principal::user("alice").unwrap(), rules);
    let denied = Denied::Policy {
        action: ActionKind::Delete,
        repository: name.clone(),
        rule: Some("kept".into()),
    };
    assert_eq!(identity.permit::<Delete>(&name).unwrap_err(), denied);
    // Whether a tag exists is not known yet, so the guard of its tags decides about them.
    assert!(identity.permit_tags(&name, tags).is_ok());
}

#[test]
fn a_permit_gives_further_permits_of_the_same_identity_only() {
    let (here, there): (RepositoryName, RepositoryName) = ("a/b".parse().unwrap(), "c".parse().unwrap());
    let alice = Principal::user("alice").unwrap();
    let key: CredentialId = "3f9aK2dQ".parse().unwrap();
    let reader = Identity::new(alice.clone(), Rules::pull_only())
        .with_credential(key)
        .unwrap();
    let permit = reader.permit::<Pull>(&here).unwrap();
    assert_eq!((permit.principal(), permit.repository()), (&alice, &here));
    assert_eq!(permit.credential(), Some(key));
    assert!(permit.also::<List>() && !permit.also::<Push>() && !permit.also::<Delete>());
    let another = permit.another::<Pull>(&there).unwrap();
    assert_eq!((another.principal(), another.repository()), (&alice, &there));
    assert_eq!(another.credential(), Some(key));
    assert_eq!(
        permit.another::<Push>(&there).unwrap_err(),
        forbidden(ActionKind::Write, "c")
    );
    let uploader = anonymous(Rules::everything()).with_token_scope(Scope::upload(&here));
    let permit = uploader.permit::<Push>(&here).unwrap();
    assert!(permit.principal().is_anonymous() && permit.credential().is_none() && !permit.also::<Pull>());
    assert_eq!(permit.another::<Push>(&there).unwrap_err(), Denied::Scope);
}

/// The present identity may have lost the permission, or belong to another principal. It does not widen the token of the
/// request.
#[test]
fn s17_a_permit_is_renewed_under_the_present_rules() {
    let here: RepositoryName = "a/b".parse().unwrap();
    let alice = |rules| Identity::new(Principal::user("alice").unwrap(), rules);
    let key: CredentialId = "3f9aK2dQ".parse().unwrap();
    let before = alice(Rules::everything()).with_token_scope(Scope::upload(&here));
    let permit = before.with_credential(key).unwrap().permit::<Push>(&here).unwrap();
    let creates = Rules::new(vec![rule("r", "a/b", Actions::CREATE)], Vec::new());
    for (identity, expected) in [
        (alice(Rules::everything()), Ok(())),
        (alice(creates), Ok(())),
        (alice(Rules::pull_only()), Err(forbidden(ActionKind::Write, "a/b"))),
        // The scope of its key has become narrower.
        (
            alice(Rules::everything()).with_token_scope(Scope::PULL_ONLY),
            Err(Denied::Scope),
        ),
        (
            Identity::new(Principal::user("bob").unwrap(), Rules::everything()),
            Err(Denied::OtherPrincipal),
        ),
        (anonymous(Rules::everything()), Err(Denied::OtherPrincipal)),
    ] {
        let renewed = permit.renewed(&identity);
        if let Ok(renewed) = &renewed {
            assert_eq!((renewed.repository(), renewed.credential()), (&here, Some(key)));
            assert!(
                !renewed.also::<Pull>() && !renewed.also::<Delete>(),
                "the token is for the upload"
            );
        }
        assert_eq!(renewed.map(drop), expected, "{identity:?}");
    }
    // A permission that the push asks for later has to be in the token of the request, and in the present scope of its key.
    let scope = |actions| {
        let repositories = "a/**".parse().unwrap();
        Scope::new(vec![RepositoryGrant { repositories, actions }]).unwrap()
    };
    for (before, now, moves) in [
        (Actions::PUSH, Actions::PUSH, true),
        (Actions::PUSH, Actions::ALL, true),
        (Actions::PUSH, Actions::CREATE, false),
        (Actions::CREATE, Actions::PUSH, false),
    ] {
        let of = |actions| alice(Rules::everything()).with_token_scope(scope(actions));
        let renewed = of(before).permit::<Push>(&here).unwrap().renewed(&of(now)).unwrap();
        assert_eq!(renewed.also::<Move>(), moves, "{before:?} {now:?}");
        assert!(!renewed.also::<Pull>() && !renewed.also::<Delete>());
    }
    // The present rules decide about it, too.
    let before = alice(Rules::everything()).permit::<Push>(&here).unwrap();
    let creates = Rules::new(vec![rule("r", "a/b", Actions::CREATE)], Vec::new());
    let renewed = before.renewed(&alice(creates)).unwrap();
    assert!(before.also::<Move>() && !renewed.also::<Move>());
}

/// A renewed permit is as old as the identity by which it was renewed.
#[test]
fn s17_a_permit_is_as_old_as_the_oldest_read_that_decided_about_it() {
    let here: RepositoryName = "a/b".parse().unwrap();
    let key: CredentialId = "3f9aK2dQ".parse().unwrap();
    let alice = |reads: &[u64]| {
        let identity = Identity::new(Principal::user("alice").unwrap(), Rules::everything());
        let reads = reads.iter().copied().map(Timestamp);
        reads.fold(identity, Identity::with_state_read)
    };
    for (reads, expected) in [(&[] as &[u64], u64::MAX), (&[5], 5), (&[5, 7], 5), (&[7, 5], 5)] {
        let identity = alice(reads).with_token_scope(Scope::upload(&here));
        let identity = identity.with_credential(key).unwrap();
        let permit = identity.permit::<Push>(&here).unwrap();
        assert_eq!(permit.state_read(), Timestamp(expected));
        let renewed = permit.renewed(&alice(&[9])).unwrap();
        assert_eq!(renewed.state_read(), Timestamp(9));
    }
}

#[test]
fn a_token_allows_what_both_its_scope_and_the_policy_allow() {
    let (here, there): (RepositoryName, RepositoryName) = ("a/b".parse().unwrap(), "c".parse().unwrap());
    let alice = Identity::new(Principal::user("alice").unwrap(), Rules::pull_only());
    let identity = alice.clone().with_token_scope(Scope::upload(&here));
    // The policy decides first: a token with a wider scope would not help.
    assert_eq!(
        identity.permit::<Push>(&here).unwrap_err(),
        forbidden(ActionKind::Write, "a/b")
    );
    assert_eq!(identity.permit::<Pull>(&here).unwrap_err(), Denied::Scope);
    assert_eq!(identity.permit::<Pull>(&there).unwrap_err(), Denied::Scope);
    assert!(alice.may::<Pull>(&there) && !identity.may::<Pull>(&there));
    let identity = alice.with_token_scope(Scope::PULL_ONLY);
    assert!(identity.permit::<Pull>(&there).is_ok());
    let alice = Identity::new(Principal::user("alice").unwrap(), Rules::everything());
    assert!(alice.is_unrestricted() && !alice.with_token_scope(Scope::PULL_ONLY).is_unrestricted());
}

/// The scope of a key and the policy narrow the next token too.
#[test]
fn another_token_helps_if_only_the_request_for_this_one_was_too_narrow() {
    let (here, there): (RepositoryName, RepositoryName) = ("a/b".parse().unwrap(), "c".parse().unwrap());
    let upload = Scope::upload(&here);
    for (rules, scope, expected) in [
        (Rules::everything(), Scope::EVERYTHING, false),
        (Rules::everything(), upload.clone(), false),
        (Rules::everything(), upload.clone().extensible(), true),
        (Rules::everything(), Scope::PULL_ONLY.extensible(), false),
        (Rules::everything(), upload.clone().of_key(), false),
        (Rules::everything(), upload.clone().within_key(upload.clone()), false),
        (Rules::everything(), upload.clone().within_key(Scope::PULL_ONLY), true),
        (Rules::nothing(), upload.clone().within_key(Scope::PULL_ONLY), false),
        (Rules::pull_only(), upload.clone().extensible(), true),
        (Rules::nothing(), upload.clone().extensible(), false),
        (
            Rules::new(vec![rule("r", "a/**", Actions::ALL)], Vec::new()),
            upload.extensible(),
            false,
        ),
    ] {
        let alice = Identity::new(Principal::user("alice").unwrap(), rules);
        assert!(!alice.needs_token_for::<Pull>(&there), "it has no token");
        let identity = alice.with_token_scope(scope);
        assert_eq!(identity.needs_token_for::<Pull>(&there), expected, "{identity:?}");
        assert!(!expected || identity.permit::<Pull>(&there).unwrap_err() == Denied::Scope);
    }
}

/// Only what the scope of a key contains can be in a token for it, so nothing is asked for again that is not.
#[test]
fn what_the_scope_of_a_key_withholds_no_token_gives() {
    let (here, there): (RepositoryName, RepositoryName) = ("a/b".parse().unwrap(), "c".parse().unwrap());
    let alice = Identity::new(Principal::user("alice").unwrap(), Rules::everything());
    let nothing = || Scope::new(Vec::new()).unwrap();
    let withheld = |action| Denied::Key {
        action,
        repository: there.clone(),
    };
    for (scope, pull, push) in [
        (Scope::EVERYTHING.of_key(), None, None),
        (Scope::PULL_ONLY.of_key(), None, Some(withheld(ActionKind::Write))),
        (
            Scope::upload(&here).of_key(),
            Some(withheld(ActionKind::Read)),
            Some(withheld(ActionKind::Write)),
        ),
        // A token that contains less than its key.
        (
            nothing().within_key(Scope::PULL_ONLY),
            Some(Denied::Scope),
            Some(withheld(ActionKind::Write)),
        ),
        (
            Scope::upload(&here).within_key(Scope::EVERYTHING),
            Some(Denied::Scope),
            Some(Denied::Scope),
        ),
        (nothing(), Some(Denied::Scope), Some(Denied::Scope)),
        // Of a long scope, a token has what concerns some repositories.
        (
            nothing().within_part_of_key(Scope::PULL_ONLY, vec![there.clone()]),
            Some(Denied::Scope),
            Some(withheld(ActionKind::Write)),
        ),
        (
            nothing().within_part_of_key(Scope::PULL_ONLY, vec![here.clone()]),
            Some(Denied::Scope),
            Some(Denied::Scope),
        ),
    ] {
        let identity = alice.clone().with_token_scope(scope);
        assert_eq!(identity.permit::<Pull>(&there).err(), pull, "{identity:?}");
        assert_eq!(identity.permit::<Push>(&there).err(), push, "{identity:?}");
    }
    // The policy decides first.
    let bob = Identity::new(Principal::user("bob").unwrap(), Rules::nothing());
    let denied = bob.with_token_scope(nothing().of_key()).permit::<Pull>(&there);
    assert_eq!(denied.unwrap_err(), forbidden(ActionKind::Read, "c"));
}

#[test]
fn lists_show_what_both_policy_and_token_allow() {
    let rules = Rules::new(vec![rule("r", "team/**", Actions::PULL)], Vec::new());
    let alice = Identity::new(Principal::user("alice").unwrap(), rules);
    let of = |pattern: &str, actions| {
        let repositories = pattern.parse().unwrap();
        Scope::new(vec![RepositoryGrant { repositories, actions }]).unwrap()
    };
    let nothing = Scope::new(Vec::new()).unwrap();
    // Which of three repositories it may list, and whether another token is needed to list any.
    for (scope, expected, needs_token) in [
        (Scope::EVERYTHING, [true, true, false], false),
        (of("team/a", Actions::PULL), [true, false, false], false),
        (of("other/**", Actions::PULL), [false, false, false], false),
        (of("team/**", Actions::CREATE), [false, false, false], true),
        // A key lists what it may pull, also if that is nothing; a token for the key does if it is for the catalog.
        (of("team/a", Actions::PULL).of_key(), [true, false, false], false),
        (Scope::PULL_ONLY.of_key(), [true, true, false], false),
        (of("team/**", Actions::CREATE).of_key(), [false, false, false], false),
        (
            nothing.clone().within_key(of("team/a", Actions::PULL)).with_catalog(),
            [true, false, false],
            false,
        ),
        (
            nothing.clone().within_key(of("team/a", Actions::PULL)),
            [false, false, false],
            true,
        ),
        (nothing.clone(), [false, false, false], true),
        // The token of a client that asked for the catalog.
        (nothing.with_catalog(), [true, true, false], false),
        (
            of("team/**", Actions::CREATE).with_catalog(),
            [true, true, false],
            false,
        ),
    ] {
        let identity = alice.clone().with_token_scope(scope);
        for (name, expected) in ["team/a", "team/b", "x"].into_iter().zip(expected) {
            let name = name.parse().unwrap();
            assert_eq!(identity.may::<List>(&name), expected, "{name}");
            assert!(!expected || identity.list_ranges().contains(&name), "{name}");
        }
        assert_eq!(identity.needs_token_to_list(), needs_token);
    }
    // Where the policy allows everything, the scope alone decides whether names have to be compared.
    let root = Identity::new(Principal::user("root").unwrap(), Rules::everything());
    let narrow = || of("team/a", Actions::PULL);
    let known = vec!["team/a".parse().unwrap()];
    for (scope, expected) in [
        (Scope::EVERYTHING, true),
        (Scope::PULL_ONLY.of_key(), true),
        (Scope::new(Vec::new()).unwrap().with_catalog(), true),
        (narrow().of_key(), false),
        (narrow().within_key(narrow()).with_catalog(), false),
        (narrow().within_part_of_key(narrow(), known).with_catalog(), false),
    ] {
        let identity = root.clone().with_token_scope(scope);
        assert_eq!(identity.may_list_everything(), expected, "{identity:?}");
        for (name, is_listed) in [("team/a", true), ("team/b", expected), ("x", expected)] {
            let name = name.parse().unwrap();
            assert_eq!(identity.may::<List>(&name), is_listed, "{name} {identity:?}");
            assert_eq!(identity.list_ranges().contains(&name), is_listed, "{name} {identity:?}");
        }
    }
    let nobody = Identity::new(Principal::user("bob").unwrap(), Rules::nothing());
    assert!(nobody.list_ranges().is_empty() && !nobody.needs_token_to_list());
}

#[test]
fn only_accounts_have_keys() {
    let key: CredentialId = "3f9aK2dQ".parse().unwrap();
    for (principal, expected) in [
        (Principal::user("alice").unwrap(), Ok(Some(key))),
        (Principal::robot("ci").unwrap(), Ok(Some(key))),
        (Principal::workload("main", "acme/app").unwrap(), Err(NoAccount)),
        (Principal::ANONYMOUS, Err(NoAccount)),
    ] {
        let identity = Identity::new(principal, Rules::everything()).with_credential(key);
        assert_eq!(identity.map(|identity| identity.credential()), expected);
    }
}
