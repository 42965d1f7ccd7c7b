#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const BOTH: RegistryAccess = RegistryAccess {
    catalog: true,
    api: true,
};

fn granted(scopes: &[&str], allowed: Actions) -> String {
    let requested = RequestedScope::read(scopes.iter().copied()).unwrap();
    requested.grant(|_| allowed, BOTH).to_string()
}

fn read_back(granted: &GrantedScope) -> Vec<ResourceActions> {
    RequestedScope::read([granted.to_string().as_str()])
        .unwrap()
        .resources()
        .to_vec()
}

#[test]
fn requests_and_what_is_granted_where_everything_is_allowed() {
    for (scopes, expected) in [
        (&[][..], ""),
        (&[""], ""),
        (&["repository:a/b:pull"], "repository:a/b:pull"),
        (&["repository:a/b:push,pull"], "repository:a/b:pull,push"),
        (&["repository:a/b:*"], "repository:a/b:pull,push,delete"),
        (&["repository:a/b:pull,*"], "repository:a/b:pull,push,delete"),
        (&["repository:a/b:delete"], "repository:a/b:delete"),
        (&["repository(plugin):a/b:pull"], "repository:a/b:pull"),
        (&["registry:catalog:*"], "registry:catalog:*"),
        (&["registry:api:*"], "registry:api:*"),
        // Repeated, joined, and both.
        (
            &["repository:a:pull", "repository:b:pull"],
            "repository:a:pull repository:b:pull",
        ),
        (
            &["repository:b:pull repository:a:push"],
            "repository:b:pull repository:a:push",
        ),
        (
            &["repository:a:pull  repository:b:pull ", "repository:c:pull"],
            "repository:a:pull repository:b:pull repository:c:pull",
        ),
        (
            &["repository:a:pull", "repository:b:pull", "repository:a:push"],
            "repository:a:pull,push repository:b:pull",
        ),
        (&["repository:a:pull", "repository(x):a:pull"], "repository:a:pull"),
        // What is not known grants nothing, and takes nothing away.
        (&["repository:a:pull,create,move,admin,Pull"], "repository:a:pull"),
        (&["repository:a:create"], ""),
        (
            &["registry:catalog:pull", "registry:catalog:pull,*"],
            "registry:catalog:*",
        ),
        (
            &["registry:other:*", "artifact:a:pull", "repository:a:pull"],
            "repository:a:pull",
        ),
    ] {
        assert_eq!(granted(scopes, Actions::ALL), expected, "{scopes:?}");
    }
}

#[test]
fn s24_names_with_colons_are_no_other_repository() {
    for scope in [
        // The actions begin after the last colon, so these ask for names that no repository has.
        "repository:a/b:c:pull",
        "repository:a/b:pull:push",
        "repository:a/b:*:pull",
        "repository:localhost:5000/a/b:pull",
        "repository:registry.example.com:443/a/b:pull,push",
        "repository:[::1]:5000/a:pull",
    ] {
        assert_eq!(granted(&[scope], Actions::ALL), "", "{scope}");
    }
    // Without a port it is the legal name of a repository, and of this one alone.
    let scope = "repository:registry.example.com/a/b:pull";
    assert_eq!(granted(&[scope], Actions::ALL), scope);
}

#[test]
fn s24_garbage_grants_nothing() {
    let long = format!("repository:{}:pull", "a".repeat(RepositoryName::MAX_LEN + 1));
    for scope in [
        "*",
        ":",
        "::",
        ":::",
        "a",
        "repository",
        "repository:",
        "repository:a",
        "repository::pull",
        "repository:a:",
        "repository:a:,",
        "repository:*:*",
        "repository:**:pull",
        "repository:a/*:pull",
        "repository:A:pull",
        "repository:a/../b:pull",
        "repository:/a:pull",
        "repository:a/:pull",
        "repository:a\n:pull",
        "repository:a\0:pull",
        "repository:a:pull\n",
        "repository:a:PULL",
        "repository:a: pull",
        "REPOSITORY:a:pull",
        "repository():a:pull",
        "repository(:a:pull",
        "repository):a:pull",
        "repository(A):a:pull",
        "repository(x)y:a:pull",
        "(x):a:pull",
        "repository%3Aa%3Apull",
        "registry::*",
        "registry:catalog:",
        "registry:*:*",
        "registry:catalog/x:*",
        "repository:\u{e9}:pull",
        "repository:a\u{a0}:pull",
        &long,
    ] {
        assert_eq!(granted(&[scope], Actions::ALL), "", "{scope:?}");
    }
}

#[test]
fn s24_ten_thousand_scopes() {
    let scopes: Vec<String> = (0..10_000)
        .map(|number| format!("repository:a/{number}:pull"))
        .collect();
    let read = |count: usize| RequestedScope::read(scopes[..count].iter().map(String::as_str));
    assert_eq!(read(100).unwrap().resources().len(), 100);
    assert_eq!(read(101), Err(TooManyScopes));
    assert_eq!(read(10_000), Err(TooManyScopes));
    let joined = |count: usize| RequestedScope::read([scopes[..count].join(" ").as_str()]);
    assert_eq!(joined(100), read(100));
    assert_eq!(joined(10_000), Err(TooManyScopes));
    // Also if they are all the same, or grant nothing; spaces are no scopes.
    assert_eq!(RequestedScope::read(vec!["repository:a:pull"; 101]), Err(TooManyScopes));
    assert_eq!(RequestedScope::read(vec!["x"; 101]), Err(TooManyScopes));
    assert!(
        RequestedScope::read([" ".repeat(1 << 20).as_str()])
            .unwrap()
            .resources()
            .is_empty()
    );
    assert!(RequestedScope::read(vec![""; 10_000]).unwrap().resources().is_empty());
}

#[test]
fn what_is_requested_and_allowed_is_granted() {
    let all = "repository:a:*";
    for (allowed, expected) in [
        (Actions::NONE, ""),
        (Actions::PULL, "repository:a:pull"),
        (Actions::CREATE, "repository:a:push"),
        (Actions::PUSH, "repository:a:push"),
        // Without the right to create nothing can be pushed.
        (Actions::of(&[ActionKind::Move]), ""),
        (Actions::of(&[ActionKind::Delete]), "repository:a:delete"),
        (Actions::ALL, "repository:a:pull,push,delete"),
    ] {
        assert_eq!(granted(&[all], allowed), expected, "{allowed:?}");
    }
    assert_eq!(granted(&["repository:a:pull"], Actions::CREATE), "");
    let requested = RequestedScope::read(["registry:catalog:* registry:api:* repository:a:pull"]).unwrap();
    for (catalog, api, expected) in [
        (false, false, ""),
        (true, false, "registry:catalog:*"),
        (false, true, "registry:api:*"),
    ] {
        let granted = requested.grant(|_| Actions::NONE, RegistryAccess { catalog, api });
        assert_eq!(granted.to_string(), expected);
        assert_eq!(granted.registry(), RegistryAccess { catalog, api });
        assert_eq!(granted.repositories().count(), 0);
    }
}

#[test]
fn the_permissions_of_a_token() {
    let requested = RequestedScope::read(["repository:a:pull,push repository:b:delete registry:catalog:*"]).unwrap();
    let granted = requested.grant(|_| Actions::ALL, BOTH);
    let scope = granted.permissions().unwrap();
    for (repository, expected) in [
        ("a", [true, true, true, false]),
        ("b", [false, false, false, true]),
        ("c", [false; 4]),
        ("a/b", [false; 4]),
        ("catalog", [false; 4]),
    ] {
        let repository = repository.parse().unwrap();
        let kinds = [
            ActionKind::Read,
            ActionKind::Write,
            ActionKind::Move,
            ActionKind::Delete,
        ];
        assert_eq!(
            kinds.map(|kind| scope.covers(kind, &repository)),
            expected,
            "{repository}"
        );
    }
    assert_eq!(read_back(&granted), granted.resources());
}

/// Scopes that may mean something, and those that do not.
fn scope() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "(repository|repository\\(x\\)|registry):(a|b|a/b|a:b|catalog|api|\\*):((pull|push|delete|create|\\*)(,(pull|push|\\*))?)?",
        1 => "[a-z:,*()/ ]{0,20}",
        1 => "\\PC{0,20}",
    ]
}

proptest! {
    /// Whatever is requested: nothing is granted that is not allowed, or was not requested.
    #[test]
    fn s24_grants_are_within_the_policy(
        scopes in vec(scope(), 0..20),
        policy in vec(0_u8..16, 3),
        catalog in any::<bool>(),
        api in any::<bool>(),
    ) {
        let actions = |bits: u8| {
            let kinds = [ActionKind::Read, ActionKind::Write, ActionKind::Move, ActionKind::Delete];
            let kinds = kinds.into_iter().enumerate().filter(|(index, _)| bits >> index & 1 == 1);
            Actions::of(&kinds.map(|(_, kind)| kind).collect::<Vec<_>>())
        };
        let allowed = |name: &RepositoryName| match name.as_str() {
            "a" => actions(policy[0]),
            "b" => actions(policy[1]),
            _ => actions(policy[2]),
        };
        let registry = RegistryAccess { catalog, api };
        let Ok(requested) = RequestedScope::read(scopes.iter().map(String::as_str)) else { return Ok(()) };
        let granted = requested.grant(allowed, registry);
        let token = granted.permissions().unwrap();
        for one in granted.resources() {
            prop_assert!(!one.actions.is_empty());
            let asked = requested.resources().iter().find(|asked| asked.resource == one.resource).unwrap();
            prop_assert_eq!(one.actions.intersection(asked.actions), one.actions);
            match &one.resource {
                Resource::Repository(name) => {
                    let policy = allowed(name);
                    prop_assert!(!one.actions.pull || policy.contains(ActionKind::Read));
                    prop_assert!(!one.actions.push || policy.contains(ActionKind::Write));
                    prop_assert!(!one.actions.delete || policy.contains(ActionKind::Delete));
                    prop_assert_eq!(token.covers(ActionKind::Read, name), one.actions.pull);
                    prop_assert_eq!(token.covers(ActionKind::Write, name), one.actions.push);
                    prop_assert_eq!(token.covers(ActionKind::Delete, name), one.actions.delete);
                }
                Resource::Catalog => prop_assert!(catalog),
                Resource::Api => prop_assert!(api),
            }
        }
        // Each resource once, and the answer's text says the same.
        let mut resources: Vec<_> = granted.resources().iter().map(ToString::to_string).collect();
        resources.sort();
        resources.dedup_by_key(|text| text.rsplit_once(':').map(|(resource, _)| resource.to_owned()));
        prop_assert_eq!(resources.len(), granted.resources().len());
        prop_assert_eq!(&read_back(&granted), granted.resources());
    }

    /// A narrower policy never grants more.
    #[test]
    fn a_narrower_policy_grants_no_more(scopes in vec(scope(), 0..10), wide in 0_u8..16, narrow in 0_u8..16) {
        let of = |bits: u8| Actions::ALL.without(Actions::of(
            &[ActionKind::Read, ActionKind::Write, ActionKind::Move, ActionKind::Delete]
                .into_iter()
                .enumerate()
                .filter(|(index, _)| bits >> index & 1 == 0)
                .map(|(_, kind)| kind)
                .collect::<Vec<_>>(),
        ));
        let Ok(requested) = RequestedScope::read(scopes.iter().map(String::as_str)) else { return Ok(()) };
        let wide_grant = requested.grant(|_| of(wide), BOTH);
        let narrow_grant = requested.grant(|_| of(wide & narrow), RegistryAccess::default());
        for one in narrow_grant.resources() {
            let other = wide_grant.resources().iter().find(|other| other.resource == one.resource);
            prop_assert!(other.is_some_and(|other| other.actions.intersection(one.actions) == one.actions));
        }
    }
}
