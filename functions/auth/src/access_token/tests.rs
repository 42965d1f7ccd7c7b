#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod confusion;

use oci::RepositoryName;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use registry::auth::{ActionKind, Actions};
use registry::store::access::{Account, Withdrawn};
use serde_json::{Value, json};

use super::*;
use crate::scope::RequestedScope;
use crate::test_environment::{TestEnvironment, one_in};

const SERVICE: &str = "registry.example.com";
const NOW: Timestamp = TestEnvironment::NOW;

/// What is in the token of [`TokenServer::token`].
const SCOPE: &str = "repository:payments/api:pull,push";

struct TokenServer {
    signer: TokenSigner,
    keys: KeySet,
    environment: TestEnvironment,
}

impl TokenServer {
    fn new() -> Self {
        let signer = TokenSigner::from_seed(&[7; 32]);
        Self {
            keys: KeySet::new(&[signer.public(Timestamp(0))]),
            signer,
            environment: TestEnvironment::new(1),
        }
    }

    fn issue(&self, scope: &str, change: impl FnOnce(&mut Holder)) -> Result<IssuedToken, TooLong> {
        let (access, requested) = (granted(scope), requested(scope));
        let mut holder = Holder {
            service: SERVICE.to_owned(),
            principal: Principal::robot("ci").unwrap(),
            generation: Generation::Account(1_795_000_000_123),
            credential: Some("3f9aK2dQ".parse().unwrap()),
            key_scope: None,
            groups: ["ci".parse().unwrap()].into(),
            grants: vec![grant("payments/**", &["pull", "create"]), grant("other/**", &["pull"])],
        };
        change(&mut holder);
        let token = NewToken {
            service: &holder.service,
            principal: &holder.principal,
            generation: holder.generation,
            credential: holder.credential,
            key_scope: holder.key_scope.as_deref(),
            groups: &holder.groups,
            grants: &holder.grants,
            requested: &requested,
            access: &access,
            lifetime_seconds: 600,
        };
        token.issue(&self.signer, &self.environment)
    }

    fn token(&self) -> String {
        self.issue(SCOPE, |_| {}).unwrap().token
    }

    fn verify(&self, token: &str) -> Result<VerifiedToken, TokenRefused> {
        verify(token, &self.keys, SERVICE, NOW)
    }

    /// Signs any payload, as only the owner of the key can.
    fn sign(&self, payload: &str) -> String {
        jws::sign(&self.signer, payload.as_bytes())
    }
}

/// For whom a token is issued.
struct Holder {
    service: String,
    principal: Principal,
    generation: Generation,
    credential: Option<CredentialId>,
    key_scope: Option<Vec<RepositoryGrant>>,
    groups: BTreeSet<GroupName>,
    grants: Vec<RepositoryGrant>,
}

fn granted(scope: &str) -> GrantedScope {
    let registry = RegistryAccess {
        catalog: true,
        api: true,
    };
    requested(scope).grant(|_| Actions::ALL, registry)
}

fn requested(scope: &str) -> RequestedScope {
    RequestedScope::read([scope]).unwrap()
}

fn grant(pattern: &str, words: &[&str]) -> RepositoryGrant {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    RepositoryGrant {
        repositories: pattern.parse().unwrap(),
        actions: words.try_into().unwrap(),
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The decoded parts of a token.
fn parts(token: &str) -> [Vec<u8>; 3] {
    let parts: Vec<Vec<u8>> = token
        .split('.')
        .map(|part| URL_SAFE_NO_PAD.decode(part).unwrap())
        .collect();
    parts.try_into().unwrap()
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&parts(token)[1]).unwrap()
}

#[test]
fn a_token_says_what_was_issued() {
    let server = TokenServer::new();
    let issued = server.issue(SCOPE, |_| {}).unwrap();
    assert_eq!((issued.expires_in, issued.access.to_string().as_str()), (600, SCOPE));
    let [header, payload, _] = parts(&issued.token);
    let kid = server.signer.kid();
    assert_eq!(
        header,
        format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"JWT"}}"#).into_bytes()
    );
    let expected = concat!(
        r#"{"iss":"registry.example.com","aud":"registry.example.com","sub":"robot:ci","iat":1796000000,"exp":1796000660,"#,
        r#""jti":"ID","access":[{"type":"repository","name":"payments/api","actions":["pull","push"]}],"#,
        r#""rs":{"gen":"1795000000123","cred":"3f9aK2dQ","groups":["ci"],"grants":[["payments/**","pull","create"]]}}"#
    );
    assert_eq!(String::from_utf8(payload).unwrap(), expected.replace("ID", &issued.id));
    assert_eq!(issued.id.len(), 12);
    let verified = server.verify(&issued.token).unwrap();
    assert_eq!(verified.principal, Principal::robot("ci").unwrap());
    assert_eq!(verified.access, issued.access);
    assert_eq!(verified.scope, issued.access.permissions().unwrap().extensible());
    assert_eq!(verified.generation, Generation::Account(1_795_000_000_123));
    assert_eq!(verified.credential, Some("3f9aK2dQ".parse().unwrap()));
    assert_eq!(verified.groups, ["ci".parse().unwrap()].into());
    assert_eq!(verified.grants, [grant("payments/**", &["pull", "create"])]);
    assert_eq!(
        (verified.issued, verified.expires),
        (Timestamp(1_796_000_000_000), Timestamp(1_796_000_660_000))
    );
    assert_eq!(verified.id, issued.id);
    assert!(!format!("{issued:?}").contains(&issued.token));
    assert_ne!(server.token(), server.token(), "each has an id of its own");
}

/// The word `push` of a token stands for tags that are created and moved. A key that may only create gets it too, and the
/// token remembers that the key may not move.
#[test]
fn s04_a_token_allows_no_more_than_the_scope_of_its_key() {
    use ActionKind::{Delete, Move, Read, Write};

    let server = TokenServer::new();
    let scope = vec![
        grant("payments/**", &["create"]),
        grant("payments/api", &["pull"]),
        grant("payments/web", &["push"]),
        grant("other/**", &["delete"]),
    ];
    let key = Scope::new(scope.clone()).unwrap();
    let asked = "repository:payments/api:pull,push repository:payments/web:push repository:elsewhere:pull";
    let issued = server
        .issue(asked, |holder| holder.key_scope = Some(scope.clone()))
        .unwrap();
    let verified = server.verify(&issued.token).unwrap();
    assert_eq!(verified.scope, verified.scope.clone().within_key(key));
    let of = |name: &str| {
        let name: RepositoryName = name.parse().unwrap();
        let kinds = [Read, Write, Move, Delete].into_iter();
        kinds
            .filter(|kind| verified.scope.covers(*kind, &name))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("payments/api"), [Read, Write]);
    assert_eq!(of("payments/web"), [Write, Move]);
    assert!(of("elsewhere").is_empty() && of("other/x").is_empty());
    assert_eq!(
        claims(&issued.token)["rs"]["scope"],
        json!([
            ["payments/**", "create"],
            ["payments/api", "pull"],
            ["payments/web", "push"],
            ["other/**", "delete"]
        ])
    );
    // An empty scope is one, and withholds everything.
    let nothing = server
        .issue(SCOPE, |holder| holder.key_scope = Some(Vec::new()))
        .unwrap();
    let nothing = server.verify(&nothing.token).unwrap();
    assert!(!nothing.scope.covers(Read, &"payments/api".parse().unwrap()));
    // Only keys have a scope, and no more grants than they may have.
    let whole = server.issue(SCOPE, |_| {}).unwrap().token;
    for (what, credential, count, expected) in [
        ("as issued", true, Account::MAX_GRANTS, true),
        ("too many", true, Account::MAX_GRANTS + 1, false),
        ("without a key", false, 1, false),
    ] {
        for claim in ["scope", "part"] {
            let mut changed = claims(&whole);
            if !credential {
                changed["rs"].as_object_mut().unwrap().remove("cred");
            }
            changed["rs"][claim] = json!(vec![json!(["payments/api", "pull"]); count]);
            let verified = server.verify(&server.sign(&changed.to_string()));
            assert_eq!(verified.is_ok(), expected, "{what} {claim}");
        }
    }
    let mut both = claims(&whole);
    both["rs"]["scope"] = json!([]);
    both["rs"]["part"] = json!([]);
    assert!(server.verify(&server.sign(&both.to_string())).is_err());
}

/// A scope that is too long for a token is in it as far as it concerns the granted repositories. Then another token may be
/// wider, for all that is known.
#[test]
fn s04_of_a_long_scope_a_token_contains_what_concerns_it() {
    let server = TokenServer::new();
    let long = "long-name".repeat(22);
    let mut scope = vec![grant("payments/**", &["create"])];
    scope.extend((1..Account::MAX_GRANTS).map(|number| grant(&format!("{long}/{number}/**"), &["pull"])));
    let issued = server
        .issue("repository:payments/api:pull,push", |holder| {
            holder.key_scope = Some(scope.clone());
        })
        .unwrap();
    assert_eq!(claims(&issued.token)["rs"]["part"], json!([["payments/**", "create"]]));
    assert_eq!(claims(&issued.token)["rs"].get("scope"), None);
    let verified = server.verify(&issued.token).unwrap();
    let one = |pattern: &str| Scope::new(vec![grant(pattern, &["create"])]).unwrap();
    let known = vec!["payments/api".parse().unwrap()];
    assert_eq!(
        verified.scope,
        one("payments/api").within_part_of_key(one("payments/**"), known)
    );
    // The list of repositories is as long as fits.
    let listing = server
        .issue("registry:catalog:*", |holder| {
            holder.key_scope = Some(scope.clone());
            holder.grants = Vec::new();
        })
        .unwrap();
    assert!(listing.access.registry().catalog);
    let part = claims(&listing.token)["rs"]["part"].as_array().unwrap().len();
    assert!((5..Account::MAX_GRANTS).contains(&part), "{part} grants");
}

#[test]
fn tokens_of_every_kind_of_principal() {
    let server = TokenServer::new();
    let file = Generation::of_htpasswd("$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC");
    for (principal, subject, generation) in [
        (Principal::ANONYMOUS, "", Generation::NONE),
        (Principal::user("alice").unwrap(), "alice", Generation::Account(7)),
        (Principal::user("zo\u{eb} \"x\"").unwrap(), "zo\u{eb} \"x\"", file),
        (
            Principal::robot("ci").unwrap(),
            "robot:ci",
            Generation::Account(u64::from(u32::MAX)),
        ),
        (
            Principal::workload("main", "acme/app").unwrap(),
            "workload:main:acme/app",
            Generation::NONE,
        ),
    ] {
        let issued = server.issue("", |token| {
            (token.principal, token.generation, token.credential) = (principal.clone(), generation, None);
        });
        let token = issued.unwrap().token;
        let verified = server.verify(&token).unwrap();
        assert_eq!((&verified.principal, verified.generation), (&principal, generation));
        assert!(verified.access.resources().is_empty() && verified.grants.is_empty());
        let claims = claims(&token);
        assert_eq!(
            (claims["sub"].as_str(), claims["rs"].get("cred")),
            (Some(subject), None)
        );
    }
}

#[test]
fn texts_of_generations() {
    for (text, expected) in [
        ("0", Some(Generation::Account(0))),
        ("1795000000123", Some(Generation::Account(1_795_000_000_123))),
        ("0123456789abcdef", Some(Generation::Htpasswd(0x0123_4567_89ab_cdef))),
        ("0000000000000000", Some(Generation::Htpasswd(0))),
        ("1234567890123456", Some(Generation::Htpasswd(0x1234_5678_9012_3456))),
        ("18446744073709551615", Some(Generation::Account(u64::MAX))),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("01", None),
        ("1.5", None),
        ("abc", None),
        ("0123456789ABCDEF", None),
        ("+123456789abcdef", None),
        ("18446744073709551616", None),
    ] {
        assert_eq!(text.parse().ok(), expected, "{text:?}");
        if let Some(generation) = expected {
            assert_eq!(generation.to_string(), text);
        }
    }
    // SHA-256 of "abc" begins so.
    assert_eq!(Generation::of_htpasswd("abc").to_string(), "ba7816bf8f01cfea");
}

#[test]
fn a_token_carries_the_grants_that_concern_what_it_grants() {
    let server = TokenServer::new();
    for (scope, expected) in [
        ("", &[][..]),
        ("repository:third/x:pull", &[]),
        ("repository:other/x:pull", &["other/**"]),
        (
            "repository:other/x:pull repository:payments/x:pull",
            &["payments/**", "other/**"],
        ),
        // A list names what all grants allow, and administration explains all of them.
        ("registry:catalog:*", &["payments/**", "other/**"]),
        ("registry:api:*", &["payments/**", "other/**"]),
    ] {
        let verified = server.verify(&server.issue(scope, |_| {}).unwrap().token).unwrap();
        let patterns: Vec<String> = verified
            .grants
            .iter()
            .map(|grant| grant.repositories.to_string())
            .collect();
        assert_eq!(patterns, expected, "{scope:?}");
    }
}

#[test]
fn resources_beyond_the_length_of_a_token_are_left_out_the_last_ones_first() {
    let server = TokenServer::new();
    for length in [1, 20, 80, 255] {
        let names: Vec<String> = (0..100)
            .map(|number| format!("{number:03}{}", "x".repeat(length)))
            .collect();
        let names: Vec<&str> = names.iter().map(|name| &name[..length.max(3)]).collect();
        let scope = names
            .iter()
            .map(|name| format!("repository:{name}:*"))
            .collect::<Vec<_>>()
            .join(" ");
        let issued = server.issue(&scope, |_| {}).unwrap();
        let count = issued.access.resources().len();
        assert!(
            issued.token.len() <= jws::MAX_LEN && (5..100).contains(&count),
            "{length}: {count}"
        );
        assert_eq!(
            issued.access,
            granted(&scope).first(count),
            "the first ones, in their order"
        );
        assert_eq!(server.verify(&issued.token).unwrap().access, issued.access);
        // One more would be too long: an entry is longer than what is left.
        let entry = serde_json::to_vec(&json!({"type": "repository", "name": names[count],
            "actions": ["pull", "push", "delete"]}))
        .unwrap()
        .len()
            + 1;
        assert!(
            jws::len(parts(&issued.token)[1].len() + entry) > jws::MAX_LEN,
            "{length}: {count}"
        );
    }
}

#[test]
fn the_largest_account_fits_into_a_token() {
    let server = TokenServer::new();
    let groups: BTreeSet<GroupName> = (0..20)
        .map(|n| format!("{n:02}{}", "g".repeat(62)).parse().unwrap())
        .collect();
    let grants: Vec<RepositoryGrant> = (0..16)
        .map(|n| grant(&format!("a/{n}{}/**", "x".repeat(200)), &["pull", "push", "delete"]))
        .collect();
    let robot = Principal::robot(&"r".repeat(64)).unwrap();
    let service = format!("{}:65535", "s".repeat(253));
    let issue = |scope: &str| {
        server
            .issue(scope, |token| {
                (token.service, token.principal) = (service.clone(), robot.clone());
                (token.groups, token.grants) = (groups.clone(), grants.clone());
            })
            .unwrap()
    };
    let issued = issue("repository:b:pull repository:a/b:pull");
    assert_eq!(issued.access.resources().len(), 2);
    let verified = verify(&issued.token, &server.keys, &service, NOW).unwrap();
    assert_eq!((verified.groups, verified.principal), (groups.clone(), robot.clone()));
    // With the catalog all grants would be in it, which is too much. The first ones that fit are; and those of the
    // repositories in any case.
    let patterns = |token: &str| {
        let verified = verify(token, &server.keys, &service, NOW).unwrap();
        let patterns = verified.grants.iter().map(|grant| grant.repositories.to_string());
        patterns.collect::<Vec<_>>()
    };
    let all: Vec<_> = grants.iter().map(|grant| grant.repositories.to_string()).collect();
    for scope in [
        "repository:b:pull registry:catalog:* repository:c:pull",
        "registry:catalog:* repository:b:pull",
        "registry:catalog:*",
    ] {
        let issued = issue(scope);
        assert_eq!(issued.access.to_string(), scope);
        let found = patterns(&issued.token);
        assert!((1..16).contains(&found.len()), "{scope}: {}", found.len());
        assert_eq!(found, all[..found.len()], "{scope}");
        let one_more = jws::len(parts(&issued.token)[1].len() + all[0].len() + 30);
        assert!(one_more > jws::MAX_LEN, "{scope}: {one_more}");
    }
    let last = format!("a/15{}/x", "x".repeat(200));
    let found = patterns(&issue(&format!("registry:catalog:* repository:{last}:pull")).token);
    assert_eq!(found.last(), all.last(), "the grant of the repository");
    assert_eq!(found[..found.len() - 1], all[..found.len() - 1]);
    // What still does not fit is left out at the end.
    let many: Vec<_> = (0..99).map(|number| format!("repository:b/{number}:pull")).collect();
    let issued = issue(&format!("registry:catalog:* {}", many.join(" ")));
    assert!(patterns(&issued.token).is_empty());
    let text = issued.access.to_string();
    assert!(text.starts_with("registry:catalog:* repository:b/0:pull"), "{text}");
    // Only names without a bound do not fit at all.
    let user = Principal::user(&"u".repeat(4096)).unwrap();
    let too_long = server.issue("repository:b:pull", |token| token.principal = user);
    assert_eq!(too_long, Err(TooLong));
}

#[test]
fn what_was_withdrawn_is_known_by_what_a_token_says() {
    let server = TokenServer::new();
    let verified = server.verify(&server.token()).unwrap();
    let Generation::Account(generation) = verified.generation else {
        panic!("an account")
    };
    let mut withdrawn = Withdrawn::default();
    let contains = |withdrawn: &Withdrawn| {
        withdrawn.contains(&verified.principal, generation, verified.credential, verified.issued)
    };
    assert!(!contains(&withdrawn));
    withdrawn.withdraw_principal(&verified.principal, generation + 1, NOW);
    assert!(contains(&withdrawn));
}

#[test]
fn a_service_has_its_own_tokens_and_a_key_its_time() {
    let server = TokenServer::new();
    let token = server.token();
    let at = |keys: &KeySet| verify(&token, keys, SERVICE, NOW);
    let kid = server.signer.kid();
    assert_eq!(at(&KeySet::default()), Err(TokenRefused::UnknownKey(kid)));
    let until = |until: u64| {
        let mut public = server.signer.public(Timestamp(0));
        public.until = Some(Timestamp(until));
        KeySet::new(&[public])
    };
    assert!(at(&until(NOW.0 + 1)).is_ok());
    assert_eq!(at(&until(NOW.0)), Err(TokenRefused::UnknownKey(kid)));
    // It is published before it signs, and verifies at once: another instance's clock may be ahead.
    assert!(at(&KeySet::new(&[server.signer.public(NOW.plus_millis(30_000))])).is_ok());
}

/// What a token of an account or of a user of the file is issued for.
#[derive(Debug)]
struct AnyToken {
    principal: Principal,
    generation: Generation,
    scopes: Vec<String>,
    groups: BTreeSet<GroupName>,
    grants: Vec<RepositoryGrant>,
    lifetime: u64,
}

/// Any tokens, with at most so many scopes, groups and grants.
fn any_token(most: usize) -> impl Strategy<Value = AnyToken> {
    let parts = (
        "[^:\\p{Cc}]{1,80}",
        (any::<u64>(), any::<bool>()),
        vec(
            "repository:(a|b|c)/[a-z]{1,120}:(pull|push|delete|pull,push|\\*)",
            0..most,
        ),
        btree_set("[a-z]{1,20}", 0..most.min(20)),
        vec(("(a|b|\\*\\*|a/\\*|b/\\*\\*)", 1_u8..16), 0..most.min(16)),
        LIFETIME_SECONDS,
    );
    parts.prop_map(
        |(user, (generation, in_file), scopes, groups, grants, lifetime)| AnyToken {
            principal: Principal::user(&user).unwrap(),
            // Generations of accounts are milliseconds since 1970.
            generation: if in_file {
                Generation::Htpasswd(generation)
            } else {
                Generation::Account(generation % 1_000_000_000_000_000)
            },
            scopes,
            groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
            grants: grants
                .into_iter()
                .map(|(pattern, bits)| RepositoryGrant {
                    repositories: pattern.parse().unwrap(),
                    actions: Actions::of(
                        &[
                            ActionKind::Read,
                            ActionKind::Write,
                            ActionKind::Move,
                            ActionKind::Delete,
                        ]
                        .into_iter()
                        .enumerate()
                        .filter(|(index, _)| bits >> index & 1 == 1)
                        .map(|(_, kind)| kind)
                        .collect::<Vec<_>>(),
                    ),
                })
                .collect(),
            lifetime,
        },
    )
}

/// Whatever is issued is read back as it was, and fits.
fn check_issued(wanted: &AnyToken) -> Result<(), TestCaseError> {
    let server = TokenServer::new();
    let scope = wanted.scopes.join(" ");
    let (access, requested) = (granted(&scope), requested(&scope));
    let new = NewToken {
        service: SERVICE,
        principal: &wanted.principal,
        generation: wanted.generation,
        credential: None,
        key_scope: None,
        groups: &wanted.groups,
        grants: &wanted.grants,
        requested: &requested,
        access: &access,
        lifetime_seconds: wanted.lifetime,
    };
    let issued = new.issue(&server.signer, &server.environment).unwrap();
    prop_assert!(issued.token.len() <= jws::MAX_LEN);
    prop_assert_eq!(&issued.access, &access.first(issued.access.resources().len()));
    let verified = server.verify(&issued.token).unwrap();
    prop_assert_eq!(&verified.principal, &wanted.principal);
    prop_assert_eq!(verified.generation, wanted.generation);
    prop_assert_eq!(&verified.groups, &wanted.groups);
    prop_assert_eq!(&verified.access, &issued.access);
    let lifetime = verified.expires.millis_since(verified.issued);
    prop_assert_eq!(lifetime, (wanted.lifetime + SLACK_SECONDS) * 1000);
    // The grants of the token decide about what it grants as all grants do.
    let allowed = |grants: &[RepositoryGrant], name: &RepositoryName| {
        grants
            .iter()
            .filter(|grant| grant.repositories.matches(name))
            .fold(Actions::NONE, |actions, grant| actions.union(grant.actions))
    };
    for name in issued.access.repositories() {
        prop_assert_eq!(allowed(&verified.grants, name), allowed(&wanted.grants, name));
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_issued_is_verified(token in any_token(4)) {
        check_issued(&token)?;
    }
}

proptest! {
    // The scopes of a token of the greatest length take most of the time.
    #![proptest_config(one_in(150))]

    #[test]
    fn a_token_for_more_than_fits_is_verified(token in any_token(60)) {
        check_issued(&token)?;
    }
}
