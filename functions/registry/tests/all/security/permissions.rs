//! Every endpoint with every permission: one table, which does not compile when an endpoint or a permission is missing.

use std::sync::Arc;

use http::Method;
use registry::api_endpoint::ApiOperation;
use registry::auth::{ActionKind, Actions, GroupName, PrincipalKind, Rules, Subject};
use registry::policy::Policy;
use registry::{Endpoint, Principal};

use super::access::same_but_for_names;
use super::examples::{Example, Fixture, is_by_token};
use crate::support::{Answer, Users, World};

/// Some clients, each with another permission in `private/**` and `absent/**`. Of the two, nothing exists under `absent/`.
const POLICY: &str = r#"{
    "syntax": 1,
    "allow": [
        {"name": "for pull", "who": ["user:pull"], "repositories": ["private/**", "absent/**"], "actions": ["pull"]},
        {"name": "for create", "who": ["user:create"], "repositories": ["private/**", "absent/**"], "actions": ["create"]},
        {"name": "for push", "who": ["user:push"], "repositories": ["private/**", "absent/**"], "actions": ["push"]},
        {"name": "for delete", "who": ["user:delete"], "repositories": ["private/**", "absent/**"], "actions": ["delete"]}
    ]
}"#;

/// The statuses of one request for each client; 0: the status with which it succeeds.
struct Row {
    anonymous: u16,
    no_rule: u16,
    pull: u16,
    create: u16,
    push: u16,
    delete: u16,
    admin: u16,
}

impl Row {
    /// A request that only some of the permissions allow.
    const REFUSED: Self = Self {
        anonymous: 401,
        no_rule: 403,
        pull: 403,
        create: 403,
        push: 403,
        delete: 403,
        admin: 0,
    };

    /// Every client, with its status.
    fn clients(&self) -> [(&'static str, u16); 7] {
        let Self {
            anonymous,
            no_rule,
            pull,
            create,
            push,
            delete,
            admin,
        } = *self;
        [
            ("", anonymous),
            ("no-rule", no_rule),
            ("pull", pull),
            ("create", create),
            ("push", push),
            ("delete", delete),
            ("admin", admin),
        ]
    }
}

/// The client that has the permission, and not all.
fn client_with(kind: ActionKind) -> (&'static str, Actions) {
    match kind {
        ActionKind::Read => ("pull", Actions::PULL),
        ActionKind::Write => ("create", Actions::CREATE),
        // Who moves a tag pushes a manifest.
        ActionKind::Move => ("push", Actions::PUSH),
        ActionKind::Delete => ("delete", Actions::of(&[ActionKind::Delete])),
    }
}

/// The table.
fn row(endpoint: Endpoint, example: &Example) -> Row {
    match endpoint {
        // The page for people is the same for everyone. The endpoint of tokens reads the credentials itself.
        Endpoint::Home | Endpoint::IssueToken | Endpoint::GetKeySet | Endpoint::Api(ApiOperation::GetApiDocument) => {
            Row {
                anonymous: 0,
                no_rule: 0,
                pull: 0,
                create: 0,
                push: 0,
                delete: 0,
                admin: 0,
            }
        }
        // Groups decide about the API, except about repositories. What the account of another user has is absent.
        Endpoint::Api(
            ApiOperation::GetAccount
            | ApiOperation::ChangeAccount
            | ApiOperation::RemoveAccount
            | ApiOperation::SetPassword
            | ApiOperation::ListKeys
            | ApiOperation::CreateKey
            | ApiOperation::ChangeKey
            | ApiOperation::RemoveKey
            | ApiOperation::RotateKey,
        ) => Row {
            no_rule: 404,
            pull: 404,
            create: 404,
            push: 404,
            delete: 404,
            ..Row::REFUSED
        },
        // Any identity; an anonymous client only where it may do everything, or may pull something.
        Endpoint::Api(ApiOperation::GetIdentity | ApiOperation::Explain | ApiOperation::SearchRepositories)
        | Endpoint::Base
        | Endpoint::ListRepositories => Row {
            anonymous: 401,
            no_rule: 0,
            pull: 0,
            create: 0,
            push: 0,
            delete: 0,
            admin: 0,
        },
        // A rollback and a promotion need two permissions, of which each client has one.
        Endpoint::Api(
            ApiOperation::ListAccounts
            | ApiOperation::CreateAccount
            | ApiOperation::GetPolicy
            | ApiOperation::SetPolicy
            | ApiOperation::CheckPolicy
            | ApiOperation::ListPolicyVersions
            | ApiOperation::GetPolicyVersion
            | ApiOperation::CreateRepository
            | ApiOperation::ListAuditEvents
            | ApiOperation::ListSigningKeys
            | ApiOperation::RotateSigningKeys
            | ApiOperation::RollBackTag
            | ApiOperation::PromoteTag,
        ) => Row::REFUSED,
        Endpoint::Api(ApiOperation::DescribeTags | ApiOperation::GetTagHistory)
        | Endpoint::GetBlob
        | Endpoint::GetManifest
        | Endpoint::ListTags
        | Endpoint::ListReferrers => Row {
            pull: 0,
            ..Row::REFUSED
        },
        Endpoint::OpenUpload => {
            // The source of a mount is asked for pull. Without it, the blob has to be uploaded.
            let pushed = if example.target.contains("mount=") { 202 } else { 0 };
            Row {
                create: pushed,
                push: pushed,
                ..Row::REFUSED
            }
        }
        Endpoint::PutManifest => {
            // Only this tag exists.
            let moves = example.target.contains("/manifests/latest") || example.target.contains("?tag=latest");
            Row {
                create: if moves { 403 } else { 0 },
                push: 0,
                ..Row::REFUSED
            }
        }
        Endpoint::DeleteManifest | Endpoint::DeleteBlob => Row {
            delete: 0,
            ..Row::REFUSED
        },
        // The token of the upload is the authority, but not for another principal than that of the upload.
        Endpoint::PatchUpload | Endpoint::FinishUpload | Endpoint::GetUpload | Endpoint::CancelUpload => Row {
            anonymous: 0,
            admin: 403,
            ..Row::REFUSED
        },
    }
}

/// A registry with this policy, for the clients of the table.
async fn fixture() -> Fixture {
    let policy = Policy::from_json(POLICY).unwrap();
    let users = Users::new(Some(policy.rules(&Subject::new(Principal::ANONYMOUS))));
    for name in ["no-rule", "pull", "create", "push", "delete", "admin"] {
        users.change(name, rules(&policy, name));
    }
    Fixture::of(users).await
}

fn rules(policy: &Policy, name: &str) -> Rules {
    let mut subject = Subject::new(Principal::user(name).unwrap());
    assert_eq!(subject.principal.kind(), PrincipalKind::User);
    if name == "admin" {
        subject.groups.insert(GroupName::ADMINS.parse().unwrap());
    }
    policy.rules(&subject)
}

/// Sends the request to another repository. Some requests of the API name it in their body.
async fn send(world: &World, example: &Example, repository: &str, user: &str) -> Answer {
    let body = String::from_utf8(example.body.clone()).unwrap();
    let example = Example {
        what: example.what.clone(),
        method: example.method.clone(),
        target: example.target.replace("private/x", repository),
        body: body.replace("private/x", repository).into_bytes(),
        success: example.success,
    };
    let call = example.call(world);
    if user.is_empty() { call } else { call.user(user) }.send().await
}

#[test]
fn each_permission_has_a_client() {
    let policy = Policy::from_json(POLICY).unwrap();
    let name = "private/x".parse().unwrap();
    for kind in ActionKind::ALL {
        let (client, actions) = client_with(kind);
        assert!(actions.contains(kind) && Row::REFUSED.clients().iter().any(|(name, _)| *name == client));
        for other in ActionKind::ALL {
            assert_eq!(
                rules(&policy, client).allow(other, &name),
                actions.contains(other),
                "{client} {other:?}"
            );
        }
    }
}

/// Sends the requests of some endpoints for some clients. What a permission does not allow is refused before a store is asked,
/// and changes nothing.
async fn check(is_endpoint: impl Fn(Endpoint) -> bool, is_client: impl Fn(&str) -> bool) {
    for &endpoint in Endpoint::ALL.iter().filter(|endpoint| is_endpoint(**endpoint)) {
        let count = fixture().await.examples(endpoint, "private/x").len();
        for number in 0..count {
            for client in 0..Row::REFUSED.clients().len() {
                if !is_client(Row::REFUSED.clients()[client].0) {
                    continue;
                }
                let fixture = fixture().await;
                let world = &fixture.guarded;
                let example = &fixture.examples(endpoint, "private/x")[number];
                let (user, status) = row(endpoint, example).clients()[client];
                let before = world.metadata.counts();
                let _ = world.counts.take();
                let answer = send(world, example, "private/x", user).await;
                let expected = if status == 0 { example.success } else { status };
                assert_eq!(answer.status, expected, "{user:?}: {}", example.what);
                if matches!(expected, 401 | 403) && !is_push_of_tag_by_creator(endpoint, user) {
                    let calls = world.counts.all();
                    let may_read_keys = usize::from(is_by_token(endpoint));
                    assert!(calls.len() <= may_read_keys, "{user:?}: {}: {calls:?}", example.what);
                    assert_eq!(world.metadata.counts(), before, "{user:?}: {}", example.what);
                }
                if expected == 401 {
                    assert!(answer.get("www-authenticate").is_some());
                }
            }
        }
    }
}

/// Who may create tags, and not move them, is refused by the store that knows whether the tag exists. That client may push to
/// the repository, so what exists there is not hidden from it.
fn is_push_of_tag_by_creator(endpoint: Endpoint, user: &str) -> bool {
    endpoint == Endpoint::PutManifest && user == "create"
}

/// The endpoints that give access to the bytes of a blob, if a client knows its digest.
fn is_way_to_a_blob(endpoint: Endpoint) -> bool {
    matches!(endpoint, Endpoint::GetBlob | Endpoint::OpenUpload)
}

#[tokio::test]
async fn s01_each_way_to_a_blob_with_each_permission() {
    check(is_way_to_a_blob, |client| !client.is_empty()).await;
}

#[tokio::test]
async fn s03_each_endpoint_with_each_permission() {
    check(|endpoint| !is_way_to_a_blob(endpoint), |client| !client.is_empty()).await;
}

#[tokio::test]
async fn s14_each_endpoint_without_a_login() {
    check(|_| true, str::is_empty).await;
}

/// A client that may not do something learns nothing by it about what exists: status, headers, body and the number of
/// store calls are the same for a repository that does not exist.
#[tokio::test]
async fn s23_forbidden_and_absent_are_the_same_for_each_permission() {
    let fixture = fixture().await;
    let world = &fixture.guarded;
    for &endpoint in Endpoint::ALL {
        if is_by_token(endpoint) {
            continue;
        }
        for example in fixture.examples(endpoint, "private/x") {
            for (user, status) in row(endpoint, &example).clients() {
                if !matches!(status, 401 | 403) || is_push_of_tag_by_creator(endpoint, user) {
                    continue;
                }
                let mut answers = Vec::new();
                for repository in ["private/x", "absent/y"] {
                    let _ = world.counts.take();
                    let answer = send(world, &example, repository, user).await;
                    answers.push((answer, world.counts.take()));
                }
                let [(forbidden, calls), (absent, calls_for_absent)] = &answers[..] else {
                    panic!("two answers")
                };
                assert_eq!(calls, calls_for_absent, "{user:?}: {}", example.what);
                assert!(
                    same_but_for_names(forbidden, absent, ["private/x", "absent/y"]),
                    "{user:?}: {}: {forbidden:?} {absent:?}",
                    example.what
                );
            }
        }
    }
}

/// A refusal says what is forbidden, to clients that are logged in.
#[tokio::test]
async fn a_refusal_is_explained() {
    let fixture = fixture().await;
    let policy = r#"{"syntax": 1,
        "allow": [{"name": "all", "who": ["users"], "repositories": ["**"], "actions": ["pull", "delete"]}],
        "deny": [{"name": "kept", "who": ["anyone"], "repositories": ["private/**"], "actions": ["delete"]}]}"#;
    let policy = Policy::from_json(policy).unwrap();
    fixture.users.change("reader", rules(&policy, "reader"));
    let target = "/v2/private/x/manifests/latest";
    for (method, user, status, message, detail) in [
        (
            Method::DELETE,
            "reader",
            403,
            r#"the rule "kept" of the policy denies the action delete in private/x"#,
            serde_json::json!({"action": "delete", "repository": "private/x", "rule": "kept"}),
        ),
        (
            Method::PUT,
            "reader",
            403,
            "no rule of the policy allows you the action create in private/x",
            serde_json::json!({"action": "create", "repository": "private/x"}),
        ),
        (
            Method::DELETE,
            "",
            401,
            "authentication required; log in first",
            serde_json::Value::Null,
        ),
    ] {
        let call = fixture.guarded.call(method, target);
        let call = if user.is_empty() { call } else { call.user(user) };
        let answer = call.send().await.expect(status);
        let error = &answer.json()["errors"][0];
        assert_eq!((&error["message"], &error["detail"]), (&message.into(), &detail));
    }
}

/// The catalog shows what the policy lets a client pull, and names nothing else.
#[tokio::test]
async fn s23_the_catalog_of_each_permission() {
    let fixture = fixture().await;
    for (user, expected) in [
        ("pull", &["private/x"] as &[&str]),
        ("no-rule", &[]),
        ("push", &[]),
        ("admin", &["private/x", "team/app"]),
    ] {
        for n in ["", "?n=1"] {
            let answer = fixture.guarded.get(format!("/v2/_catalog{n}")).user(user).send().await;
            let answer = answer.expect(200);
            let shown = if n.is_empty() {
                expected.len()
            } else {
                expected.len().min(1)
            };
            assert_eq!(
                answer.json(),
                serde_json::json!({"repositories": expected[..shown]}),
                "{user}"
            );
            assert_eq!(
                answer.next().is_some(),
                shown < expected.len(),
                "{user}: a Link only if more can be seen"
            );
            assert_eq!(answer.get("warning"), None);
        }
    }
    // A client without a login that may pull something may list that.
    let policy = Policy::default_policy().allowing_anonymous_pull();
    let users = Users::new(Some(policy.rules(&Subject::new(Principal::ANONYMOUS))));
    let world = fixture
        .open
        .another(Arc::new(users), registry::Settings::default())
        .await;
    let all = serde_json::json!({"repositories": ["private/x", "team/app"]});
    assert_eq!(world.get("/v2/_catalog").send().await.expect(200).json(), all);
}

/// A request that skips too many repositories says that its list may be incomplete.
#[tokio::test]
async fn the_catalog_reads_a_bounded_number_of_rows() {
    let fixture = fixture().await;
    fixture.users.change("reader", Users::may("*/app", Actions::PULL));
    for (catalog_rows, expected, is_cut) in [(2, vec!["team/app"], false), (1, vec![], true)] {
        let mut settings = registry::Settings::default();
        settings.limits.catalog_rows = catalog_rows;
        let world = fixture.open.another(fixture.users.clone(), settings).await;
        let answer = world.get("/v2/_catalog").user("reader").send().await.expect(200);
        assert_eq!(answer.json(), serde_json::json!({ "repositories": expected }));
        assert_eq!((answer.get("warning").is_some(), answer.next()), (is_cut, None));
        assert!(!format!("{answer:?}").contains("private"));
    }
}
