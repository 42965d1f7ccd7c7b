//! A client that pushes, deletes and reads, and knows what must exist.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use oci::{Digest, MediaType};
use registry::auth::ActionKind;
use registry::store::access::AuditKind;

use super::client::{Answer, RoundRobinClient, TestRequest};
use super::clock::{Clock, MINUTE, Random, TimeWindow};
use super::jitter::cut;
use super::pool::{self, BLOBS, Document, Pool};
use super::releases::Releases;
use super::trail::Acknowledged;
use super::{ChurnOptions, ChurnStatistics, PUSH, REQUEST, Shared, users};

/// The number of repositories in which all workers push and delete.
const SHARED: usize = 2;

/// The number of images that several workers push, each in its own repository.
const COMMON: usize = 6;

fn own(worker: usize) -> String {
    format!("own/{}", users::user(worker))
}

fn shared(number: usize) -> String {
    format!("shared/{number}")
}

/// All repositories of a churn.
pub(super) fn repositories(workers: usize) -> Vec<String> {
    (0..workers).map(own).chain((0..SHARED).map(shared)).collect()
}

/// A manifest that was acknowledged, and that no other worker deletes.
#[derive(Clone, Debug)]
struct Pushed {
    repository: String,
    document: Document,
}

/// Why a push did not succeed.
enum Unpushed {
    /// It was interrupted, and may take effect later.
    Cut,
    /// Another worker deleted a blob that it had found.
    Refused,
    /// A tag is immutable, or may only be created.
    Protected,
}

pub(super) struct Worker {
    client: RoundRobinClient,
    /// Sends no credentials.
    stranger: RoundRobinClient,
    clock: Arc<Clock>,
    options: ChurnOptions,
    pool: Pool,
    random: Random,
    number: usize,
    serial: u64,
    manifests: Vec<Pushed>,
    /// The tags of the worker's own repository.
    tags: BTreeMap<String, Digest>,
    /// The immutable tags that any worker knows.
    releases: Arc<Releases>,
    /// The manifests, with their repositories, that interrupted pushes may have given an immutable tag.
    perhaps_released: Vec<(String, Digest)>,
    /// The changes that were acknowledged.
    pub(super) acknowledged: Vec<Acknowledged>,
    /// An interrupted request may still take effect in the worker's own repository.
    uncertain: bool,
    /// The time windows of interrupted requests, which may still be running.
    lingering: VecDeque<TimeWindow>,
    pub(super) statistics: ChurnStatistics,
}

impl Worker {
    pub(super) fn new(shared: &Shared, number: usize) -> Self {
        Self {
            client: shared.client.signed_in(&users::user(number)),
            stranger: shared.client.clone(),
            clock: shared.clock.clone(),
            options: shared.options,
            pool: shared.pool.clone(),
            random: Random::new(shared.options.seed.wrapping_mul(1000) + number as u64),
            number,
            serial: 0,
            manifests: Vec::new(),
            tags: BTreeMap::new(),
            releases: shared.releases.clone(),
            perhaps_released: Vec::new(),
            acknowledged: Vec::new(),
            uncertain: false,
            lingering: VecDeque::new(),
            statistics: ChurnStatistics::default(),
        }
    }

    pub(super) async fn work(&mut self) {
        for _ in 0..self.options.operations {
            if self.lingering.len() > 1 {
                self.lingering.pop_front();
            }
            self.rest(60 * MINUTE).await;
            match self.random.below(100) {
                0..30 => self.push_image().await,
                30..38 => self.push_index().await,
                38..46 => self.push_again().await,
                46..56 => self.delete_manifest().await,
                56..62 => self.delete_tag().await,
                62..70 => self.delete_blob().await,
                70..76 => self.abandon().await,
                76..84 => self.ask().await,
                _ => self.verify_one().await,
            }
        }
        self.challenge_a_release().await;
        self.lingering.clear();
    }

    /// Waits for up to `millis` milliseconds.
    async fn rest(&mut self, millis: u64) {
        let millis = self.random.next() % millis;
        self.clock.rest(millis).await;
    }

    async fn send(&self, call: TestRequest) -> Answer {
        self.client.send(call).await
    }

    /// Sends a request of a push, and interrupts some.
    async fn send_or_cut(&mut self, call: TestRequest) -> Result<Answer, Unpushed> {
        if self.random.percent(30) {
            self.rest(15 * MINUTE).await;
        }
        let waits = (self.options.cuts && self.random.percent(8)).then(|| self.random.below(25));
        let window_guard = self.clock.window(REQUEST);
        if let Some(answer) = cut(self.client.send(call), waits).await {
            return Ok(answer);
        }
        self.lingering.push_back(window_guard);
        Err(Unpushed::Cut)
    }

    fn own(&self) -> String {
        own(self.number)
    }

    /// The worker's own repository, or a shared one.
    fn somewhere(&mut self) -> String {
        if self.random.percent(60) {
            self.own()
        } else {
            shared(self.random.below(SHARED))
        }
    }

    fn name(&mut self) -> String {
        self.serial += 1;
        format!("worker {} pushes {}", self.number, self.serial)
    }

    async fn push_image(&mut self) {
        let repository = self.somewhere();
        let document = if repository == self.own() && self.random.percent(40) {
            // The same image in the repositories of several workers.
            let common = self.random.below(COMMON);
            let mut random = Random::new(self.options.seed ^ (common as u64) << 32);
            self.pool.image(&format!("common {common}"), &mut random, None)
        } else {
            let there: Vec<_> = self
                .manifests
                .iter()
                .filter(|pushed| pushed.repository == repository)
                .collect();
            let subject = self.random.percent(20).then(|| self.random.choose(&there)).flatten();
            let subject = subject.map(|pushed| pushed.document.clone());
            let name = self.name();
            self.pool.image(&name, &mut self.random, subject.as_ref())
        };
        let pushed = self.push(&repository, document).await;
        self.count(&pushed);
    }

    async fn push_index(&mut self) {
        let repository = self.own();
        let there: Vec<_> = self
            .manifests
            .iter()
            .filter(|pushed| pushed.repository == repository)
            .cloned()
            .collect();
        let mut children = Vec::new();
        for _ in 0..=self.random.below(2) {
            children.extend(self.random.choose(&there).map(|pushed| &pushed.document));
        }
        if children.is_empty() {
            return;
        }
        let name = self.name();
        let pushed = self.push(&repository, pool::index(&name, &children)).await;
        self.count(&pushed);
    }

    /// Pushes an existing manifest again, perhaps with more tags.
    async fn push_again(&mut self) {
        let Some(pushed) = self.random.choose(&self.manifests).cloned() else {
            return;
        };
        let pushed = self.push(&pushed.repository, pushed.document).await;
        self.count(&pushed);
    }

    fn count(&mut self, pushed: &Result<(), Unpushed>) {
        match pushed {
            Ok(()) => self.statistics.pushed += 1,
            Err(Unpushed::Refused) => self.statistics.refused += 1,
            Err(Unpushed::Protected) => self.statistics.protected += 1,
            Err(Unpushed::Cut) => self.statistics.cut += 1,
        }
    }

    fn may(&self, action: ActionKind, repository: &str) -> bool {
        users::may(Some(self.number), action, repository)
    }

    fn acknowledge(&mut self, kind: AuditKind, repository: &str, reference: &impl ToString) {
        self.acknowledged.push(Acknowledged {
            kind,
            principal: users::user(self.number),
            repository: repository.to_owned(),
            reference: reference.to_string(),
        });
    }

    /// Any tag, also an immutable one.
    fn tag(&mut self) -> String {
        if self.random.percent(25) {
            users::release(self.random.below(64))
        } else {
            format!("t{}", self.random.below(8))
        }
    }

    /// Whether a push of these tags is refused, which names a tag that may not be moved. `None`: that depends on what this
    /// worker does not know.
    fn is_protected(&self, repository: &str, tags: &[String], digest: Digest) -> Option<bool> {
        let is_own = repository == self.own();
        let may_move = self.may(ActionKind::Move, repository);
        let mut answer = Some(false);
        for tag in tags.iter().filter(|tag| !may_move || users::is_release(tag)) {
            let known = match self.tags.get(tag) {
                Some(named) if is_own => Some(*named),
                _ => self.releases.get(repository, tag),
            };
            match known {
                Some(named) if named != digest => return Some(true),
                Some(_) => {}
                None if is_own && !self.uncertain => {}
                None => answer = None,
            }
        }
        answer
    }

    /// Pushes a manifest with some tags.
    async fn push(&mut self, repository: &str, document: Document) -> Result<(), Unpushed> {
        let mut tags = Vec::new();
        for _ in 0..self.random.below(3) {
            tags.push(self.tag());
        }
        tags.sort();
        tags.dedup();
        self.push_tagged(repository, document, tags).await
    }

    /// Pushes a manifest with those of its blobs that do not exist, as a client does.
    async fn push_tagged(&mut self, repository: &str, document: Document, tags: Vec<String>) -> Result<(), Unpushed> {
        let clock = self.clock.clone();
        let _push = clock.window(PUSH);
        for number in &document.blobs {
            self.push_blob(repository, *number).await?;
        }
        let is_own = repository == self.own();
        let is_protected = self.is_protected(repository, &tags, document.digest);
        let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
        let query = query.join("&");
        let target = format!("/v2/{repository}/manifests/{}?{query}", document.digest);
        let call = TestRequest::new(Method::PUT, target)
            .content_type(document.media_type)
            .body(document.bytes.clone());
        let answer = match self.send_or_cut(call).await {
            Ok(answer) => answer,
            Err(cut) => {
                if is_own {
                    self.uncertain = true;
                    // Any of these tags may still be written, unless it is immutable and stands.
                    for tag in tags.iter().filter(|tag| !users::is_release(tag)) {
                        self.tags.remove(tag);
                    }
                }
                if tags.iter().any(|tag| users::is_release(tag)) {
                    self.perhaps_released.push((repository.to_owned(), document.digest));
                }
                return Err(cut);
            }
        };
        if answer.status == 403 {
            assert!(
                is_protected != Some(false) && answer.says("DENIED"),
                "{tags:?}: {answer:?}"
            );
            return Err(Unpushed::Protected);
        }
        if answer.status == 400 && !is_own {
            // Another worker has deleted a blob that was found or pushed here just before.
            assert!(answer.says("MANIFEST_BLOB_UNKNOWN"), "{answer:?}");
            return Err(Unpushed::Refused);
        }
        let answer = answer.expect(&[201]);
        assert!(is_protected != Some(true), "{tags:?} were moved: {answer:?}");
        self.acknowledge(AuditKind::ManifestPushed, repository, &document.digest);
        for tag in tags {
            if users::is_release(&tag) {
                self.releases.stands(repository, &tag, document.digest);
            }
            if is_own {
                self.tags.insert(tag, document.digest);
            }
        }
        let known = self
            .manifests
            .iter()
            .any(|pushed| pushed.repository == repository && pushed.document.digest == document.digest);
        if !known {
            self.manifests.push(Pushed {
                repository: repository.to_owned(),
                document,
            });
        }
        Ok(())
    }

    async fn push_blob(&mut self, repository: &str, number: usize) -> Result<(), Unpushed> {
        let (digest, bytes) = self.pool.blob(number);
        let head = TestRequest::new(Method::HEAD, format!("/v2/{repository}/blobs/{digest}"));
        if self.send_or_cut(head).await?.expect(&[200, 404]).status == 200 {
            return Ok(());
        }
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let ways = self.random.below(6);
        let mut may_mount = ways == 1;
        let opening = match ways {
            0 => {
                let call = TestRequest::new(Method::POST, format!("{uploads}?digest={digest}")).body(bytes);
                self.send_or_cut(call).await?.expect(&[201]);
                return Ok(());
            }
            1 => format!("{uploads}?mount={digest}"),
            2 => {
                let all = repositories(self.options.workers);
                let from = self.random.choose(&all).cloned().unwrap_or_default();
                may_mount = self.may(ActionKind::Read, &from);
                format!("{uploads}?mount={digest}&from={from}")
            }
            _ => uploads,
        };
        let opened = self.send_or_cut(TestRequest::new(Method::POST, opening)).await?;
        let opened = opened.expect(if may_mount { &[201, 202] } else { &[202] });
        if opened.status == 201 {
            return Ok(());
        }
        let mut location = opened.location().to_owned();
        let chunks = self.random.below(4);
        let mut rest = bytes;
        for _ in 0..chunks {
            let chunk = rest.split_to(rest.len() / 2);
            let patched = self
                .send_or_cut(TestRequest::new(Method::PATCH, &*location).body(chunk))
                .await?;
            patched.expect(&[202]).location().clone_into(&mut location);
        }
        if chunks > 0 && self.random.percent(50) {
            let patched = self
                .send_or_cut(TestRequest::new(Method::PATCH, &*location).body(rest.split_off(0)))
                .await?;
            patched.expect(&[202]).location().clone_into(&mut location);
        }
        let target = format!("{location}?digest={digest}");
        let last = TestRequest::new(Method::PUT, &*target).body(rest);
        self.send_or_cut(last).await?.expect(&[201]);
        if self.random.percent(20) {
            // The answer was lost, and the client sends the request again.
            let again = self.send_or_cut(TestRequest::new(Method::PUT, &*target)).await?;
            if again.status == 404 && repository != self.own() {
                // Another worker has deleted the blob since.
                assert!(again.says("BLOB_UPLOAD_UNKNOWN"), "{again:?}");
                return Err(Unpushed::Refused);
            }
            again.expect(&[201]);
        }
        Ok(())
    }

    /// Abandons an upload, or cancels it.
    async fn abandon(&mut self) {
        let repository = self.somewhere();
        let clock = self.clock.clone();
        let _push = clock.window(PUSH);
        let opened = self
            .send(TestRequest::new(
                Method::POST,
                format!("/v2/{repository}/blobs/uploads/"),
            ))
            .await;
        let mut location = opened.expect(&[202]).location().to_owned();
        for _ in 0..self.random.below(3) {
            let (_, bytes) = self.pool.blob(self.random.below(BLOBS));
            let patched = self.send(TestRequest::new(Method::PATCH, &*location).body(bytes)).await;
            patched.expect(&[202]).location().clone_into(&mut location);
        }
        match self.random.below(3) {
            0 => drop(
                self.send(TestRequest::new(Method::DELETE, location))
                    .await
                    .expect(&[204]),
            ),
            1 => {
                let wrong = Digest::of(oci::Algorithm::Sha256, b"other bytes");
                let target = format!("{location}?digest={wrong}");
                self.send(TestRequest::new(Method::PUT, target)).await.expect(&[400]);
            }
            _ => {}
        }
    }

    async fn delete_manifest(&mut self) {
        if self.manifests.is_empty() {
            return;
        }
        let at = self.random.below(self.manifests.len());
        let Pushed { repository, document } = self.manifests[at].clone();
        let digest = document.digest;
        let parent = self
            .manifests
            .iter()
            .any(|pushed| pushed.repository == repository && pushed.document.children.contains(&digest));
        let may_delete = self.may(ActionKind::Delete, &repository);
        let is_released = self.releases.names(&repository, &digest);
        let perhaps_released = self.perhaps_released.contains(&(repository.clone(), digest));
        let target = format!("/v2/{repository}/manifests/{digest}");
        let answer = self.send(TestRequest::new(Method::DELETE, target)).await;
        let mut allowed = Vec::new();
        if !may_delete || is_released || perhaps_released {
            allowed.push(403);
        }
        // The push of an index that was interrupted may have succeeded.
        if may_delete && (parent || self.uncertain) {
            allowed.push(405);
        }
        if may_delete && !parent && !is_released {
            allowed.push(202);
        }
        match answer.expect(&allowed).status {
            403 if may_delete => self.statistics.protected += 1,
            403 => self.statistics.denied += 1,
            405 => self.statistics.still_referenced += 1,
            _ => self.forget_manifest(at),
        }
    }

    /// A manifest was deleted, with its tags.
    fn forget_manifest(&mut self, at: usize) {
        let Pushed { repository, document } = self.manifests.swap_remove(at);
        let digest = document.digest;
        self.statistics.deleted += 1;
        self.acknowledge(AuditKind::ManifestDeleted, &repository, &digest);
        if repository == self.own() {
            self.tags.retain(|_, named| *named != digest);
        }
    }

    async fn delete_tag(&mut self) {
        let tag = self.tag();
        let repository = self.somewhere();
        let is_release = users::is_release(&tag);
        let stands = is_release && self.releases.get(&repository, &tag).is_some();
        let may_delete = self.may(ActionKind::Delete, &repository);
        let is_own = repository == self.own();
        let target = format!("/v2/{repository}/manifests/{tag}");
        let answer = self.send(TestRequest::new(Method::DELETE, target)).await;
        let allowed: &[u16] = match (may_delete, is_release) {
            (false, _) => &[403],
            (true, true) if stands => &[403],
            (true, true) if is_own && !self.uncertain => &[404],
            (true, true) => &[403, 404],
            (true, false) if is_own && self.tags.contains_key(&tag) => &[202],
            (true, false) => &[202, 404],
        };
        match answer.expect(allowed).status {
            403 if may_delete => self.statistics.protected += 1,
            403 => self.statistics.denied += 1,
            202 => {
                self.statistics.deleted += 1;
                self.acknowledge(AuditKind::TagDeleted, &repository, &tag);
                if is_own {
                    self.tags.remove(&tag);
                }
            }
            _ => {}
        }
    }

    async fn delete_blob(&mut self) {
        let repository = self.somewhere();
        let number = self.random.below(BLOBS);
        let (digest, _) = self.pool.blob(number);
        let needed = self
            .manifests
            .iter()
            .any(|pushed| pushed.repository == repository && pushed.document.blobs.contains(&number));
        let target = format!("/v2/{repository}/blobs/{digest}");
        let answer = self.send(TestRequest::new(Method::DELETE, target)).await;
        let may_delete = self.may(ActionKind::Delete, &repository);
        let allowed: &[u16] = match (needed, repository == self.own() && !self.uncertain) {
            _ if !may_delete => &[403],
            (true, _) => &[405],
            (false, true) => &[202, 404],
            (false, false) => &[202, 404, 405],
        };
        match answer.expect(allowed).status {
            202 => {
                self.statistics.deleted += 1;
                self.acknowledge(AuditKind::BlobDeleted, &repository, &digest);
            }
            403 => self.statistics.denied += 1,
            405 => self.statistics.still_referenced += 1,
            _ => {}
        }
    }

    /// Asks for something in any repository, with or without credentials. Whether the answer is a refusal depends on the
    /// policy alone.
    async fn ask(&mut self) {
        let is_stranger = self.random.percent(30);
        let client = if is_stranger {
            self.stranger.clone()
        } else {
            self.client.clone()
        };
        let worker = (!is_stranger).then_some(self.number);
        if self.random.percent(15) {
            let listed = client.send(TestRequest::new(Method::GET, "/v2/_catalog?n=1000")).await;
            let listed: serde_json::Value = serde_json::from_slice(&listed.expect(&[200]).body).expect("JSON");
            let names = listed["repositories"].as_array().expect("a list");
            for name in names.iter().filter_map(serde_json::Value::as_str) {
                assert!(users::may(worker, ActionKind::Read, name), "{worker:?} sees {name}");
            }
            return;
        }
        let all = repositories(self.options.workers);
        let repository = self.random.choose(&all).cloned().unwrap_or_default();
        let absent = Digest::of(oci::Algorithm::Sha256, b"never pushed");
        let (action, method, path) = match self.random.below(7) {
            0 => (ActionKind::Read, Method::GET, format!("manifests/{absent}")),
            1 => (
                ActionKind::Read,
                Method::GET,
                format!("manifests/t{}", self.random.below(8)),
            ),
            2 => (ActionKind::Read, Method::HEAD, format!("blobs/{}", self.pool.blob(0).0)),
            3 => (ActionKind::Read, Method::GET, "tags/list".to_owned()),
            4 => (ActionKind::Write, Method::PUT, format!("manifests/{absent}")),
            5 => (ActionKind::Delete, Method::DELETE, format!("manifests/{absent}")),
            _ => (ActionKind::Delete, Method::DELETE, format!("blobs/{absent}")),
        };
        let may = users::may(worker, action, &repository);
        // What must be refused is tried on what may exist.
        let path = match action {
            ActionKind::Delete if !may => "manifests/t1".to_owned(),
            _ => path,
        };
        let is_put = method == Method::PUT;
        let mut call = TestRequest::new(method, format!("/v2/{repository}/{path}"));
        if is_put {
            call = call
                .content_type(MediaType::OCI_MANIFEST)
                .body(Bytes::from_static(b"{}"));
        }
        let allowed: &[u16] = match (may, is_stranger) {
            // The bytes are not a manifest.
            (true, _) if is_put => &[400],
            (true, _) => &[200, 404],
            (false, true) => &[401],
            (false, false) => &[403],
        };
        client.send(call).await.expect(allowed);
        self.statistics.denied += u64::from(!may);
    }

    /// Pushes two manifests with the same immutable tag, which names the first one that ever had it, and tries to delete it,
    /// also without credentials.
    async fn challenge_a_release(&mut self) {
        let (repository, tag) = (self.own(), users::release(0));
        for _ in 0..2 {
            let name = self.name();
            let image = self.pool.image(&name, &mut self.random, None);
            let pushed = self.push_tagged(&repository, image, vec![tag.clone()]).await;
            self.count(&pushed);
        }
        let stands = self.releases.get(&repository, &tag);
        let target = format!("/v2/{repository}/manifests/{tag}");
        let delete = || TestRequest::new(Method::DELETE, &*target);
        self.stranger.send(delete()).await.expect(&[401]);
        self.statistics.denied += 1;
        let deleted = self.send(delete()).await;
        deleted.expect(if stands.is_some() { &[403] } else { &[403, 404] });
        self.verify_release(&repository, &tag).await;
    }

    /// Asserts that an immutable tag is what it was.
    async fn verify_release(&self, repository: &str, tag: &str) {
        let known = self.releases.get(repository, tag);
        let target = format!("/v2/{repository}/manifests/{tag}");
        let answer = self.send(TestRequest::new(Method::GET, target)).await;
        let answer = answer.expect(if known.is_some() { &[200] } else { &[200, 404] });
        if answer.status == 200 {
            let named = answer
                .header("docker-content-digest")
                .and_then(|text| text.parse().ok());
            self.releases.stands(repository, tag, named.expect("a digest"));
        }
    }

    async fn verify_one(&mut self) {
        if self.random.percent(30) {
            let (repository, number) = (self.somewhere(), self.random.below(64));
            self.verify_release(&repository, &users::release(number)).await;
        }
        if let Some(pushed) = self.random.choose(&self.manifests).cloned() {
            self.verify(&pushed).await;
        }
        let tags: Vec<_> = self.tags.clone().into_iter().collect();
        if let Some((tag, digest)) = self.random.choose(&tags) {
            self.verify_tag(tag, digest).await;
        }
    }

    /// Asserts that everything that was acknowledged and not deleted exists.
    pub(super) async fn verify_all(&mut self) {
        for pushed in self.manifests.clone() {
            self.verify(&pushed).await;
        }
        for (tag, digest) in self.tags.clone() {
            self.verify_tag(&tag, &digest).await;
        }
    }

    async fn verify_tag(&self, tag: &str, digest: &Digest) {
        let target = format!("/v2/{}/manifests/{tag}", self.own());
        let answer = self.send(TestRequest::new(Method::GET, target)).await.expect(&[200]);
        let named = answer.header("docker-content-digest");
        assert_eq!(named, Some(&*digest.to_string()), "{tag} of {}", self.own());
    }

    /// Asserts that the manifest, its blobs and its children exist, byte for byte.
    async fn verify(&mut self, Pushed { repository, document }: &Pushed) {
        let target = format!("/v2/{repository}/manifests/{}", document.digest);
        let answer = self.send(TestRequest::new(Method::GET, target)).await.expect(&[200]);
        assert!(
            answer.body == document.bytes,
            "{} of {repository} has changed",
            document.digest
        );
        for number in &document.blobs {
            let (digest, bytes) = self.pool.blob(*number);
            let target = format!("/v2/{repository}/blobs/{digest}");
            let answer = self.send(TestRequest::new(Method::GET, target)).await.expect(&[200]);
            assert!(answer.body == bytes, "{digest} of {repository} has changed");
        }
        for child in &document.children {
            let target = format!("/v2/{repository}/manifests/{child}");
            let answer = self.send(TestRequest::new(Method::GET, target)).await.expect(&[200]);
            assert_eq!(Digest::of(child.algorithm(), &answer.body), *child);
        }
        if let Some(subject) = document.subject {
            let target = format!("/v2/{repository}/referrers/{subject}");
            let answer = self.send(TestRequest::new(Method::GET, target)).await.expect(&[200]);
            let listed = answer.says(&document.digest.to_string());
            assert!(listed, "{} is not listed under its subject", document.digest);
        }
        self.statistics.verified += 1;
    }
}
