//! Every operation with every kind of caller: one table, which does not compile when an operation or a kind is missing.

use registry::api_endpoint::ApiOperation;
use registry::auth::{Actions, RepositoryGrant};

use super::support::{BOOTSTRAP, Call, World};
use crate::api::document;

/// How an auditor or an administrator proves who they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Proof {
    Password,
    Key,
    KeyAsToken,
    /// A token for the API.
    Token,
    /// A token that does not have the scope of the API.
    TokenWithoutScope,
    /// A key that has a scope.
    ScopedKey,
    /// A token for such a key.
    TokenOfScopedKey,
}

impl Proof {
    const ALL: [Self; 7] = [
        Self::Password,
        Self::Key,
        Self::KeyAsToken,
        Self::Token,
        Self::TokenWithoutScope,
        Self::ScopedKey,
        Self::TokenOfScopedKey,
    ];

    async fn call<'a>(self, world: &World, call: Call<'a>, user: &str) -> Call<'a> {
        match self {
            Self::Password => call.user(user),
            Self::Key => call.basic(user, &world.issue(user, None).await.1),
            Self::KeyAsToken => call.bearer(&world.issue(user, None).await.1),
            Self::Token => call.bearer(&world.token_of(user, "registry:api:*").await),
            Self::TokenWithoutScope => call.bearer(&world.token_of(user, "repository:a/b:pull").await),
            Self::ScopedKey | Self::TokenOfScopedKey => {
                let everything = RepositoryGrant {
                    repositories: "**".parse().unwrap(),
                    actions: Actions::ALL,
                };
                let key = world.issue(user, Some(vec![everything])).await.1;
                if self == Self::ScopedKey {
                    return call.basic(user, &key);
                }
                call.bearer(&world.token_for(user, &key, "registry:api:*").await)
            }
        }
    }

    /// The status, if it is not good for the API, whoever has it. Another token may be, and no token of a key with a scope is.
    fn refusal(self) -> Option<u16> {
        match self {
            Self::Password | Self::Key | Self::KeyAsToken | Self::Token => None,
            Self::TokenWithoutScope => Some(401),
            Self::ScopedKey | Self::TokenOfScopedKey => Some(403),
        }
    }
}

/// The kinds of callers. The things of the requests belong to `alice`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Anonymous,
    WrongPassword,
    /// With the right secret, after there was an administrator.
    Bootstrap,
    OwnerByPassword,
    OwnerByKey,
    OwnerByKeyAsToken,
    OwnerByToken,
    /// With a token that does not have the scope of the API.
    OwnerWithoutScope,
    /// With a key that has a scope.
    OwnerByScopedKey,
    OtherUser,
    Robot,
    UserOfFile,
    Auditor(Proof),
    Admin(Proof),
}

impl Kind {
    const WITHOUT_GROUP: [Self; 12] = [
        Self::Anonymous,
        Self::WrongPassword,
        Self::Bootstrap,
        Self::OwnerByPassword,
        Self::OwnerByKey,
        Self::OwnerByKeyAsToken,
        Self::OwnerByToken,
        Self::OwnerWithoutScope,
        Self::OwnerByScopedKey,
        Self::OtherUser,
        Self::Robot,
        Self::UserOfFile,
    ];

    fn all() -> impl Iterator<Item = Self> {
        let with_group = Proof::ALL
            .into_iter()
            .flat_map(|proof| [Self::Auditor(proof), Self::Admin(proof)]);
        Self::WITHOUT_GROUP.into_iter().chain(with_group)
    }

    async fn call(self, world: &World, operation: ApiOperation) -> Call<'_> {
        let call = world.example(operation);
        match self {
            Self::Anonymous => call,
            Self::WrongPassword => call.basic("alice", "not the password"),
            Self::Bootstrap => call.basic("bootstrap", BOOTSTRAP),
            Self::OwnerByPassword => call.user("alice"),
            Self::OwnerByKey => call.basic("key", &world.key.1),
            Self::OwnerByKeyAsToken => call.bearer(&world.key.1),
            Self::OwnerByToken => call.bearer(&world.token("registry:api:*").await),
            Self::OwnerWithoutScope => call.bearer(&world.token("repository:a/b:pull").await),
            Self::OwnerByScopedKey => call.basic("alice", &world.scoped_key),
            Self::OtherUser => call.user("bob"),
            Self::Robot => call.basic("ci", &world.robot_key),
            Self::UserOfFile => call.user("filer"),
            Self::Auditor(proof) => proof.call(world, call, "audra").await,
            Self::Admin(proof) => proof.call(world, call, "root").await,
        }
    }

    /// Whether the scope of its key is all that withholds an operation.
    fn is_refused_for_its_key(self, rights: &Rights) -> bool {
        let may = |status| status == 0 || rights.is_in_repositories;
        match self {
            Self::OwnerByScopedKey => may(rights.owner),
            Self::Auditor(proof) => proof.refusal() == Some(403) && may(rights.auditor),
            Self::Admin(proof) => proof.refusal() == Some(403),
            _ => false,
        }
    }

    /// Whether a token for the API could help.
    fn lacks_scope(self) -> bool {
        match self {
            Self::OwnerWithoutScope => true,
            Self::Auditor(proof) | Self::Admin(proof) => proof.refusal() == Some(401),
            _ => false,
        }
    }

    /// The status of an operation with these statuses for its callers; 0: that of success.
    fn status(self, rights: &Rights) -> u16 {
        match self {
            Self::Anonymous | Self::WrongPassword | Self::Bootstrap => 401,
            // Another token helps only if the policy allows it. The permissions in repositories are asked for last.
            Self::OwnerWithoutScope if rights.owner == 0 || rights.is_in_repositories => 401,
            Self::OwnerByScopedKey if rights.owner == 0 || rights.is_in_repositories => 403,
            Self::Auditor(proof) if rights.auditor == 0 || rights.is_in_repositories => {
                proof.refusal().unwrap_or(rights.auditor)
            }
            Self::Admin(proof) => proof.refusal().unwrap_or(0),
            Self::OwnerByPassword
            | Self::OwnerByKey
            | Self::OwnerByKeyAsToken
            | Self::OwnerByToken
            | Self::OwnerWithoutScope
            | Self::OwnerByScopedKey => rights.owner,
            Self::OtherUser | Self::UserOfFile => rights.other,
            Self::Robot => rights.robot,
            Self::Auditor(_) => rights.auditor,
        }
    }
}

/// The statuses of an operation; 0: that of success.
struct Rights {
    owner: u16,
    other: u16,
    robot: u16,
    auditor: u16,
    /// Whether the permissions in repositories decide. By the policy, users may pull, and robots may do nothing.
    is_in_repositories: bool,
}

fn rights(operation: ApiOperation) -> Rights {
    let (owner, other, robot, auditor) = match operation {
        ApiOperation::GetIdentity
        | ApiOperation::Explain
        | ApiOperation::GetApiDocument
        | ApiOperation::SearchRepositories => (0, 0, 0, 0),
        ApiOperation::DescribeTags | ApiOperation::GetTagHistory => (0, 0, 403, 0),
        ApiOperation::ListAccounts
        | ApiOperation::GetPolicy
        | ApiOperation::ListPolicyVersions
        | ApiOperation::GetPolicyVersion
        | ApiOperation::ListAuditEvents
        | ApiOperation::ListSigningKeys => (403, 403, 403, 0),
        ApiOperation::CreateAccount
        | ApiOperation::SetPolicy
        | ApiOperation::CheckPolicy
        | ApiOperation::CreateRepository
        | ApiOperation::RollBackTag
        | ApiOperation::PromoteTag
        | ApiOperation::RotateSigningKeys => (403, 403, 403, 403),
        ApiOperation::GetAccount | ApiOperation::ListKeys => (0, 404, 404, 0),
        ApiOperation::ChangeAccount | ApiOperation::RemoveAccount => (403, 404, 404, 403),
        ApiOperation::SetPassword
        | ApiOperation::CreateKey
        | ApiOperation::ChangeKey
        | ApiOperation::RemoveKey
        | ApiOperation::RotateKey => (0, 404, 404, 403),
    };
    Rights {
        owner,
        other,
        robot,
        auditor,
        is_in_repositories: matches!(
            operation,
            ApiOperation::SearchRepositories
                | ApiOperation::DescribeTags
                | ApiOperation::GetTagHistory
                | ApiOperation::RollBackTag
                | ApiOperation::PromoteTag
        ),
    }
}

#[tokio::test]
async fn s14_s16_every_operation_with_every_kind_of_caller() {
    for &operation in ApiOperation::ALL {
        for kind in Kind::all() {
            let world = World::new().await;
            let before = world.administration.state().await.unwrap();
            let call = kind.call(&world, operation).await;
            let reply = call.send().await;
            let status = match kind.status(&rights(operation)) {
                _ if operation == ApiOperation::GetApiDocument => 200,
                0 => document::successes(operation)[0],
                status => status,
            };
            assert_eq!(reply.status, status, "{operation:?} {kind:?}: {reply:?}");
            assert_eq!(
                reply.header("cache-control"),
                Some("no-store"),
                "{operation:?} {kind:?}"
            );
            assert_eq!(reply.header("set-cookie"), None);
            if status >= 400 {
                assert!(
                    document::refusals(operation).contains(&status),
                    "{operation:?} {kind:?}"
                );
                assert_eq!(
                    reply.text.contains("a key with a scope"),
                    kind.is_refused_for_its_key(&rights(operation)),
                    "{reply:?}"
                );
                assert!(reply.json()["errors"][0]["code"].is_string());
                let after = world.administration.state().await.unwrap();
                assert_eq!(
                    (after.accounts, after.policy, after.admins),
                    (before.accounts, before.policy, before.admins)
                );
                let events = world.get("audit").user("root").send().await.expect(200).json();
                let mut events = events["items"].as_array().unwrap().iter();
                assert!(
                    events.all(|event| event["principal"] == ":operator"),
                    "{operation:?} {kind:?}"
                );
            }
            if status == 401 {
                let challenge = reply.header("www-authenticate").unwrap();
                assert!(challenge.starts_with("Bearer ") && challenge.contains(r#"scope="registry:api:*""#));
                assert_eq!(
                    challenge.contains("insufficient_scope"),
                    kind.lacks_scope(),
                    "{challenge}"
                );
            }
        }
    }
}

/// The answer about a thing of another user is that about a thing that does not exist.
#[tokio::test]
async fn s16_other_peoples_things_are_as_if_they_did_not_exist() {
    let world = World::new().await;
    for &operation in ApiOperation::ALL {
        if !operation.path().contains("{account}") {
            continue;
        }
        let of_alice = world.example(operation).user("bob").send().await.expect(404);
        let path = operation
            .path()
            .replace("{account}", "nobody")
            .replace("{key}", &world.key.0);
        let method = operation.method();
        let call = world.call(method.as_str(), &path).user("bob");
        let of_nobody = call.send().await.expect(404);
        let for_admin = world.call(method.as_str(), &path).user("root");
        let for_admin = for_admin
            .header("if-match", "*")
            .text("application/json", body_of(operation));
        let for_admin = for_admin.send().await.expect(404);
        assert_eq!(of_alice.text, of_nobody.text, "{operation:?}");
        assert_eq!(of_alice.headers_but_id(), of_nobody.headers_but_id());
        assert_eq!(of_alice.text, for_admin.text, "{operation:?}");
    }
}

fn body_of(operation: ApiOperation) -> &'static str {
    match operation {
        ApiOperation::SetPassword => r#"{"password":"another long password"}"#,
        ApiOperation::CreateKey => r#"{"expires":"never"}"#,
        ApiOperation::RotateKey => r#"{"expires":"never","overlap":0}"#,
        _ => "{}",
    }
}

/// A cookie is no credential.
#[tokio::test]
async fn s14_nothing_is_authorized_by_a_cookie() {
    let world = World::new().await;
    let token = world.token("registry:api:*").await;
    let call = world
        .get("whoami")
        .header("cookie", format!("token={token}; session={token}"));
    call.send().await.expect(401);
}

/// The bootstrap secret makes accounts as long as there was no administrator, and does nothing else.
#[tokio::test]
async fn s15_the_bootstrap_secret_makes_the_first_administrator_and_nothing_else() {
    let world = World::empty();
    for &operation in ApiOperation::ALL {
        if matches!(operation, ApiOperation::CreateAccount | ApiOperation::GetApiDocument) {
            continue;
        }
        let call = world.example(operation).basic("bootstrap", BOOTSTRAP);
        call.send().await.expect(401);
    }
    let create = |name: &str, group: &str, user: &str, secret: &str| {
        let body = serde_json::json!({
            "name": name, "kind": "user", "groups": [group], "password": "a long new password",
        });
        world.call("POST", "accounts").json(&body).basic(user, secret).send()
    };
    create("eve", "admins", "bootstrap", &BOOTSTRAP[1..]).await.expect(401);
    create("eve", "admins", "admin", BOOTSTRAP).await.expect(401);
    create("ann", "dev", "bootstrap", BOOTSTRAP).await.expect(201);
    // Nobody could log in as this one, and the secret would end with it.
    let body = serde_json::json!({ "name": "root", "kind": "user", "groups": ["admins"] });
    let call = world.call("POST", "accounts").json(&body);
    let refused = call.basic("bootstrap", BOOTSTRAP).send().await.expect(400);
    assert!(
        refused.text.contains("needs a password, or a key without a scope"),
        "{refused:?}"
    );
    let key = serde_json::json!({ "expires": "never", "scope": [{ "repositories": "**", "actions": ["pull"] }] });
    let body = serde_json::json!({ "name": "root", "kind": "robot", "groups": ["admins"], "key": key });
    let call = world.call("POST", "accounts").json(&body);
    call.basic("bootstrap", BOOTSTRAP).send().await.expect(400);
    create("root", "admins", "bootstrap", BOOTSTRAP).await.expect(201);
    create("eve", "admins", "bootstrap", BOOTSTRAP).await.expect(401);
    let events = world
        .get("audit")
        .basic("root", "a long new password")
        .send()
        .await
        .expect(200);
    assert_eq!(events.json()["items"][0]["principal"], "bootstrap");
    // The account works at once.
    let me = world
        .get("whoami")
        .basic("root", "a long new password")
        .send()
        .await
        .expect(200);
    assert_eq!(me.json()["groups"], serde_json::json!(["admins"]));
}

/// Only auditors ask about others; a question about a tag reveals nothing of a repository that the caller may not pull.
#[tokio::test]
async fn questions_about_others_are_for_auditors() {
    let world = World::new().await;
    for (user, principal, status) in [
        ("alice", "alice", 200),
        ("alice", "bob", 403),
        ("alice", "anonymous", 403),
        ("audra", "bob", 200),
        ("audra", "robot:ci", 200),
        ("audra", "robot:nobody", 404),
        ("root", "anonymous", 200),
    ] {
        let body = serde_json::json!({
            "principal": principal, "action": "pull", "repository": "a/b", "tag": "latest",
        });
        let reply = world
            .call("POST", "explain")
            .user(user)
            .json(&body)
            .send()
            .await
            .expect(status);
        if status == 200 {
            let allowed = !matches!(principal, "anonymous" | "robot:ci");
            let decision = if allowed { "allowed" } else { "denied" };
            assert_eq!(reply.json()["decision"], decision, "{principal}: {reply:?}");
        }
    }
}
