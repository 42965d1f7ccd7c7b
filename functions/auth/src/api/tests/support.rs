//! A registry with accounts, and requests to its API.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::deadlines::Deadlines;
use http::{HeaderMap, Request};
use http_body::Body as _;
use oci::{Algorithm, Digest, MediaType, RepositoryName};
use registry::api_endpoint::ApiOperation;
use registry::auth::{AccountName, Actions, AuthenticationError, CredentialId, RepositoryGrant};
use registry::budget::ClientKey;
use registry::collection::{CollectionOptions, Report, collect};
use registry::environment::Environment;
use registry::random::SplitMix64;
use registry::store::access::{AccessStore, AccountKind, PolicyForm};
use registry::store::memory::{MemoryBlobs, MemoryCollection, MemoryMetadata, MemorySessions};
use registry::store::metadata::{AllowAll, ManifestPut, MetadataStore, NewContent, PutManifest};
use registry::store::wrapped::Wrapped;
use registry::store::{Context, Timestamp, Uid};
use registry::{Client, Deadline, Registry, RequestBody, Settings, Stores};
use serde_json::{Value, json};

use super::broken_trail::BrokenTrail;
use super::counted_threads::CountedThreads;
use super::meanwhile::Meanwhile;
use crate::accounts::{AccountAuthenticator, AccountParts, AccountSettings, BootstrapSecret, PasswordUsers};
use crate::administration::accounts::NewAccount;
use crate::administration::keys::NewKey;
use crate::administration::policies::{MadeFrom, NewPolicy};
use crate::administration::{Administration, Author};
use crate::api::{Api, ApiParts};
use crate::password::{Parameters, PasswordHasher};
use crate::test_rival::Rival;

/// The password of every user.
pub(super) const PASSWORD: &str = "correct horse battery";
/// The bootstrap secret.
pub(super) const BOOTSTRAP: &str = "0123456789abcdef0123456789abcdef";
/// A policy that lets users pull.
pub(super) const POLICY: &str =
    r#"{"syntax":1,"allow":[{"name":"p","who":["users"],"repositories":["**"],"actions":["pull"]}]}"#;

/// A clock that the test moves, and random bytes that a seed repeats.
pub(super) struct Clock {
    now: AtomicU64,
    random: Mutex<SplitMix64>,
}

impl Clock {
    pub(super) fn pass(&self, millis: u64) {
        self.now.fetch_add(millis, Ordering::SeqCst);
    }
}

#[async_trait]
impl Environment for Clock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut random = self.random.lock().unwrap();
        bytes.fill_with(|| random.bits().to_be_bytes()[0]);
    }

    async fn sleep(&self, _: u64) {}
}

/// The user `filer` of a file.
struct FileUsers;

#[async_trait]
impl PasswordUsers for FileUsers {
    async fn generation(&self, user: &str) -> Option<u64> {
        (user == "filer").then_some(0xfeed_beef_0000_0001)
    }

    async fn known(&self, _: ClientKey, _: &str, _: &str) -> Option<bool> {
        None
    }

    async fn verify(&self, _: ClientKey, user: &str, password: &str) -> Result<bool, AuthenticationError> {
        Ok(user == "filer" && password == PASSWORD)
    }

    fn hidden_by_account(&self, _: &str) {}
}

/// A registry with an API, and what is in it.
pub(super) struct World {
    pub(super) clock: Arc<Clock>,
    pub(super) administration: Administration,
    pub(super) metadata: Arc<MemoryMetadata>,
    stores: Stores,
    pub(super) trail: BrokenTrail,
    pub(super) meanwhile: Meanwhile,
    /// Those of the calls of all stores.
    pub(super) deadlines: Deadlines,
    pub(super) hashes: Arc<CountedThreads>,
    registry: Registry,
    /// Makes other changes before those of the API.
    pub(super) rival: Rival,
    /// The id of a key of `alice`, and the key.
    pub(super) key: (String, String),
    /// A key of `alice` with a scope.
    pub(super) scoped_key: String,
    /// A key of the robot `ci`.
    pub(super) robot_key: String,
    /// The version of the policy in force.
    pub(super) policy: u64,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The headers, without the id of the request.
    pub(super) fn headers_but_id(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.remove("x-request-id");
        headers
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// A request that is being built.
pub(super) struct Call<'a> {
    world: &'a World,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    deadline: Option<Deadline>,
}

impl Call<'_> {
    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    pub(super) fn basic(self, user: &str, secret: &str) -> Self {
        let encoded = STANDARD.encode(format!("{user}:{secret}"));
        self.header("authorization", format!("Basic {encoded}"))
    }

    pub(super) fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// As a user with the password of every user.
    pub(super) fn user(self, name: &str) -> Self {
        self.basic(name, PASSWORD)
    }

    pub(super) fn json(self, body: &Value) -> Self {
        self.text("application/json", body.to_string())
    }

    pub(super) fn text(self, content_type: &str, body: impl Into<String>) -> Self {
        self.bytes(content_type, body.into().into_bytes())
    }

    pub(super) fn bytes(mut self, content_type: &str, body: Vec<u8>) -> Self {
        self.body = body;
        self.header("content-type", content_type)
    }

    pub(super) fn until(self, at: Timestamp) -> Self {
        let deadline = Some(Deadline::hard(at));
        Self { deadline, ..self }
    }

    pub(super) fn if_match(self, version: &str) -> Self {
        self.header("if-match", format!("\"{version}\""))
    }

    pub(super) async fn send(mut self) -> Reply {
        let body = RequestBody::full(std::mem::take(&mut self.body));
        self.send_body(body).await
    }

    /// Sends it with another body.
    pub(super) async fn send_body(self, body: RequestBody) -> Reply {
        let mut request = Request::builder()
            .method(self.method.as_str())
            .uri(self.path)
            .header("host", "localhost:5000")
            .extension(Client(IpAddr::from([192, 0, 2, 1])));
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let mut request = request.body(body).unwrap();
        if let Some(deadline) = self.deadline {
            request.extensions_mut().insert(deadline);
        }
        let response = self.world.registry.handle(request).await;
        let (head, body) = response.into_parts();
        let mut body = std::pin::pin!(body);
        let mut bytes = Vec::new();
        while let Some(frame) = std::future::poll_fn(|task| body.as_mut().poll_frame(task)).await {
            bytes.extend(frame.unwrap().into_data().unwrap());
        }
        Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8(bytes).unwrap(),
        }
    }
}

impl World {
    /// No accounts.
    pub(super) fn empty() -> Self {
        Self::without_accounts(false)
    }

    /// No accounts; whether everyone may pull, whatever the policy says.
    pub(super) fn without_accounts(anonymous_pull: bool) -> Self {
        Self::with_settings(|settings| settings.anonymous_pull = anonymous_pull)
    }

    /// No accounts, and these changes of the settings.
    pub(super) fn with_settings(change: impl FnOnce(&mut AccountSettings)) -> Self {
        Self::over(MemoryBlobs::new(), |records| records, change)
    }

    /// No accounts, over a blob store that redirects pulls to `https://objects.example/bucket/`.
    pub(super) fn redirecting() -> Self {
        let blobs = MemoryBlobs::redirecting("https://objects.example/bucket");
        Self::over(blobs, |records| records, |_| ())
    }

    /// The same as `with_settings`. Requests reach the records of accounts through a store of the test.
    pub(super) fn through(
        store: impl FnOnce(Arc<dyn AccessStore>) -> Arc<dyn AccessStore>,
        change: impl FnOnce(&mut AccountSettings),
    ) -> Self {
        Self::over(MemoryBlobs::new(), store, change)
    }

    fn over(
        blobs: MemoryBlobs,
        store: impl FnOnce(Arc<dyn AccessStore>) -> Arc<dyn AccessStore>,
        change: impl FnOnce(&mut AccountSettings),
    ) -> Self {
        let clock = Arc::new(Clock {
            now: AtomicU64::new(1_796_000_000_000),
            random: Mutex::new(SplitMix64::new(7)),
        });
        let (metadata, sessions) = (Arc::new(MemoryMetadata::new()), Arc::new(MemorySessions::new()));
        let (held, meanwhile): (Arc<dyn MetadataStore>, _) = (metadata.clone(), Meanwhile::default());
        let stores = Stores {
            blobs: Arc::new(blobs),
            collection: Arc::new(MemoryCollection::new(metadata.clone(), sessions.clone())),
            records: metadata.clone(),
            access: store(metadata.clone()),
            metadata: Arc::new(Wrapped::new(held, meanwhile.clone())),
            sessions,
        };
        let deadlines = Deadlines::default();
        let stores = deadlines.of(&stores);
        let held: Arc<dyn MetadataStore> = metadata.clone();
        let access = stores.access.clone();
        let mut settings = AccountSettings {
            passwords: Parameters::CHEAPEST,
            bootstrap: BootstrapSecret::new(BOOTSTRAP).ok(),
            ..AccountSettings::default()
        };
        change(&mut settings);
        let hashes = Arc::new(CountedThreads::default());
        let parts = AccountParts {
            store: access.clone(),
            environment: clock.clone(),
            users: Some(Arc::new(FileUsers)),
            threads: hashes.clone(),
        };
        let authenticator = Arc::new(AccountAuthenticator::new(parts, settings).unwrap());
        let (rival, trail) = (Rival::default(), BrokenTrail::default());
        let records: Arc<dyn AccessStore> = Arc::new(Wrapped::new(access, trail.clone()));
        let api = Api::new(ApiParts {
            authenticator: authenticator.clone(),
            access: Arc::new(Wrapped::new(records, rival.clone())),
            metadata: Arc::new(Wrapped::new(held, deadlines.clone())),
            environment: clock.clone(),
        });
        let registry = Registry::new(
            stores.clone(),
            authenticator.clone(),
            clock.clone(),
            Arc::new(()),
            Settings::default(),
        );
        Self {
            administration: Administration::new(metadata.clone(), clock.clone(), 1000),
            metadata,
            clock,
            stores,
            trail,
            meanwhile,
            deadlines,
            hashes,
            registry: registry
                .with_token_endpoint(authenticator)
                .with_api_endpoint(Arc::new(api)),
            rival,
            key: (String::new(), String::new()),
            scoped_key: String::new(),
            robot_key: String::new(),
            policy: 0,
        }
    }

    /// The users `alice` with two keys, `bob`, `audra` of the group `auditors` and `root` of the group `admins`, the robot `ci`
    /// with a key, and a policy. In the repository `a/b`, the tag `latest` named the manifest 1, and names 2.
    pub(super) async fn new() -> Self {
        Self::new_in(Self::empty()).await
    }

    /// The same in an empty registry.
    pub(super) async fn new_in(mut world: Self) -> Self {
        for (user, group) in [
            ("alice", "dev"),
            ("bob", "dev"),
            ("audra", "auditors"),
            ("root", "admins"),
        ] {
            let hasher = PasswordHasher::new(Parameters::CHEAPEST).unwrap();
            let new = NewAccount {
                groups: [group.parse().unwrap()].into(),
                password: Some(hasher.hash(PASSWORD, &*world.clock).unwrap()),
                ..NewAccount::new(name(user), AccountKind::User)
            };
            world.administration.create(&Author::operator(), new).await.unwrap();
        }
        let robot = NewAccount::new(name("ci"), AccountKind::Robot);
        world.administration.create(&Author::operator(), robot).await.unwrap();
        world.key = world.issue("alice", None).await;
        let scope = RepositoryGrant {
            repositories: "a/**".parse().unwrap(),
            actions: Actions::PULL,
        };
        world.scoped_key = world.issue("alice", Some(vec![scope])).await.1;
        world.robot_key = world.issue("ci", None).await.1;
        let policy = NewPolicy {
            form: PolicyForm::Json,
            source: POLICY.to_owned(),
            note: None,
            made_from: MadeFrom::Any,
        };
        let set = world.administration.set_policy(&Author::operator(), &policy).await;
        world.policy = set.unwrap().version.version;
        for number in 1..=2 {
            world.put("a/b", &["latest"], number).await;
        }
        world
    }

    /// The bytes of an index that lists nothing; others for each number.
    pub(super) fn manifest(number: u64) -> Vec<u8> {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_INDEX,
            "manifests": [],
            "annotations": { "number": number.to_string() },
        });
        index.to_string().into_bytes()
    }

    /// The digest of such an index.
    pub(super) fn digest(number: u64) -> Digest {
        Digest::of(Algorithm::Sha256, &Self::manifest(number))
    }

    /// Puts such an index with tags, as an operator.
    pub(super) async fn put(&self, repository: &str, tags: &[&str], number: u64) {
        self.put_bytes(repository, tags, number, Self::manifest(number), MediaType::OCI_INDEX)
            .await;
    }

    /// Puts bytes with the digest of such an index.
    pub(super) async fn put_bytes(
        &self,
        repository: &str,
        tags: &[&str],
        number: u64,
        bytes: Vec<u8>,
        media_type: &str,
    ) {
        self.clock.pass(1);
        let put = PutManifest {
            repository: repository.parse().unwrap(),
            digest: Self::digest(number),
            media_type: media_type.parse().unwrap(),
            size: bytes.len() as u64,
            content: NewContent::Inline(bytes.into()),
            artifact_type: None,
            subject: None,
            required: BTreeSet::new(),
            excepted: BTreeSet::new(),
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
            author: Author::operator(),
        };
        let done = self.metadata.put_manifest(self.cx(), &put, &AllowAll::shared()).await;
        assert_eq!(done.unwrap(), ManifestPut::Stored);
    }

    /// The context of a call of a store.
    pub(super) fn cx(&self) -> Context {
        Context::internal(self.clock.now(), 1000, Uid(self.clock.random.lock().unwrap().bits()))
    }

    /// Several collections, each after so much time that all grace periods have passed.
    pub(super) async fn collect_all(&self) {
        let options = CollectionOptions::default();
        let mut on = |_: &Report| ControlFlow::Continue(());
        for _ in 0..5 {
            self.clock.pass(26 * 3_600_000);
            let collected = collect(&self.stores, self.clock.clone(), &options, &mut on).await;
            collected.unwrap();
        }
    }

    /// What a tag of a repository names.
    pub(super) async fn named(&self, repository: &str, tag: &str) -> Option<Digest> {
        let (repository, tag) = (repository.parse::<RepositoryName>().unwrap(), tag.parse().unwrap());
        let found = self.metadata.tag(self.cx(), &repository, &tag).await.unwrap();
        found.map(|row| row.digest)
    }

    /// Makes a key of an account, as an operator: its id, and the key.
    pub(super) async fn issue(&self, account: &str, scope: Option<Vec<RepositoryGrant>>) -> (String, String) {
        let new = NewKey { scope, expires: None };
        let account = name(account);
        let author = Author::operator();
        let issued = self
            .administration
            .add_key(&author, (&account).into(), &new)
            .await
            .unwrap();
        (issued.id.to_string(), issued.key.expose().to_owned())
    }

    pub(super) fn call(&self, method: &str, path: &str) -> Call<'_> {
        self.request(method, &format!("/api/v1/{path}"))
    }

    /// A request that may be another one than to the API.
    pub(super) fn request(&self, method: &str, path: &str) -> Call<'_> {
        Call {
            world: self,
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            deadline: None,
        }
    }

    pub(super) fn get(&self, path: &str) -> Call<'_> {
        self.call("GET", path)
    }

    /// A request of each operation that succeeds, if its caller may use it. Those about an account are about `alice`.
    pub(super) fn example(&self, operation: ApiOperation) -> Call<'_> {
        let path = operation
            .path()
            .replace("{account}", "alice")
            .replace("{key}", if self.key.0.is_empty() { "3f9aK2dQ" } else { &self.key.0 })
            .replace("{version}", &self.policy.to_string());
        let path = match operation {
            ApiOperation::CreateRepository => format!("{path}?name=new/one"),
            ApiOperation::DescribeTags => format!("{path}?repository=a/b"),
            ApiOperation::GetTagHistory => format!("{path}?repository=a/b&tag=latest"),
            _ => path,
        };
        let method = operation.method();
        let call = self.call(method.as_str(), &path);
        match operation {
            ApiOperation::GetIdentity
            | ApiOperation::ListAccounts
            | ApiOperation::GetAccount
            | ApiOperation::ListKeys
            | ApiOperation::RemoveKey
            | ApiOperation::GetPolicy
            | ApiOperation::ListPolicyVersions
            | ApiOperation::GetPolicyVersion
            | ApiOperation::SearchRepositories
            | ApiOperation::CreateRepository
            | ApiOperation::DescribeTags
            | ApiOperation::GetTagHistory
            | ApiOperation::ListAuditEvents
            | ApiOperation::ListSigningKeys
            | ApiOperation::GetApiDocument => call,
            ApiOperation::Explain => call.json(&json!({ "action": "pull", "repository": "a/b" })),
            ApiOperation::CreateAccount => {
                call.json(&json!({ "name": "new", "kind": "robot", "key": { "expires": "never" } }))
            }
            ApiOperation::ChangeAccount => call.json(&json!({ "groups": ["ops"] })).header("if-match", "*"),
            ApiOperation::RemoveAccount => call.header("if-match", "*"),
            ApiOperation::SetPassword => call
                .json(&json!({ "password": "another long password", "old_password": PASSWORD }))
                .header("if-match", "*"),
            ApiOperation::CreateKey => call.json(&json!({ "expires": "never" })),
            ApiOperation::ChangeKey => call
                .json(&json!({ "expires": "2027-01-01T00:00:00Z" }))
                .header("if-match", "*"),
            ApiOperation::RollBackTag => {
                call.json(&json!({ "repository": "a/b", "tag": "latest", "to": Self::digest(1) }))
            }
            ApiOperation::PromoteTag => call.json(&json!({ "from": "a/b:latest", "to": "c/d:1.0.0" })),
            ApiOperation::RotateKey => call.json(&json!({ "overlap": 60, "expires": "never" })),
            ApiOperation::SetPolicy => call.text("application/json", POLICY).header("if-match", "*"),
            ApiOperation::CheckPolicy => call.text("application/json", POLICY),
            ApiOperation::RotateSigningKeys => call.json(&json!({})),
        }
    }

    /// A token of `alice` for a scope.
    pub(super) async fn token(&self, scope: &str) -> String {
        self.token_of("alice", scope).await
    }

    /// A token of a user for a scope.
    pub(super) async fn token_of(&self, user: &str, scope: &str) -> String {
        self.token_for(user, PASSWORD, scope).await
    }

    /// A token of a user for a scope, by this secret.
    pub(super) async fn token_for(&self, user: &str, secret: &str, scope: &str) -> String {
        let call = self.request("GET", &format!("/token?scope={scope}"));
        let reply = call.basic(user, secret).send().await.expect(200);
        reply.json()["token"].as_str().unwrap().to_owned()
    }

    /// The `Location` of an upload that `root` begins.
    pub(super) async fn upload(&self, repository: &str) -> String {
        let call = Call {
            path: format!("/v2/{repository}/blobs/uploads/"),
            ..self.call("POST", "")
        };
        let reply = call.user("root").send().await.expect(202);
        reply.header("location").unwrap().to_owned()
    }

    /// The version of an account, for `If-Match`.
    pub(super) async fn version(&self, account: &str) -> String {
        let reply = self
            .get(&format!("accounts/{account}"))
            .user("root")
            .send()
            .await
            .expect(200);
        let version = reply.json()["version"].as_str().unwrap().to_owned();
        assert_eq!(reply.header("etag"), Some(format!("\"{version}\"").as_str()));
        version
    }

    /// The events of one kind in the audit trail, oldest first.
    pub(super) async fn events(&self, kind: &str) -> Vec<Value> {
        let page = self.get(&format!("audit?event={kind}")).user("audra").send().await;
        page.expect(200).json()["items"].as_array().unwrap().clone()
    }

    /// The groups of an account, as they are stored.
    pub(super) async fn groups(&self, account: &str) -> BTreeSet<String> {
        let account = name(account);
        let found = self.administration.account((&account).into()).await.unwrap();
        found.groups.iter().map(ToString::to_string).collect()
    }
}

pub(super) fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

/// A key that no account has.
pub(super) fn no_key() -> CredentialId {
    "00000000".parse().unwrap()
}
