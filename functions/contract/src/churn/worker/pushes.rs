//! Pushes of images and indexes, as clients do them, and uploads that are abandoned.

use http::Method;
use oci::Digest;
use registry::auth::ActionKind;
use registry::store::access::AuditKind;

use super::{COMMON, Pushed, Unpushed, Worker, repositories};
use crate::churn::client::{Answer, TestRequest};
use crate::churn::clock::{MINUTE, Random};
use crate::churn::jitter::cut;
use crate::churn::pool::{self, BLOBS, Document};
use crate::churn::{PUSH, REQUEST, users};

impl Worker {
    pub(super) async fn push_image(&mut self) {
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

    pub(super) async fn push_index(&mut self) {
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
    pub(super) async fn push_again(&mut self) {
        let Some(pushed) = self.random.choose(&self.manifests).cloned() else {
            return;
        };
        let pushed = self.push(&pushed.repository, pushed.document).await;
        self.count(&pushed);
    }

    /// Abandons an upload, or cancels it.
    pub(super) async fn abandon(&mut self) {
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

    pub(super) fn count(&mut self, pushed: &Result<(), Unpushed>) {
        match pushed {
            Ok(()) => self.statistics.pushed += 1,
            Err(Unpushed::Refused) => self.statistics.refused += 1,
            Err(Unpushed::Protected) => self.statistics.protected += 1,
            Err(Unpushed::Cut) => self.statistics.cut += 1,
        }
    }

    /// Whether a push of these tags is refused, which names a tag that may not be moved. `None`: that depends on what this
    /// worker does not know, such as for how long a tag has stood.
    fn is_protected(&self, repository: &str, tags: &[String], digest: Digest) -> Option<bool> {
        let is_own = repository == self.own();
        let may_move = self.may(ActionKind::Move, repository);
        let mut answer = Some(false);
        for tag in tags.iter().filter(|tag| !may_move || users::rule_of(tag).is_some()) {
            let known = match self.tags.get(tag) {
                Some(named) if is_own => Some(*named),
                _ => self.releases.get(repository, tag),
            };
            match known {
                Some(named) if named == digest => {}
                // It may be within its grace.
                Some(_) if may_move && !users::is_release(tag) => answer = None,
                Some(_) => return Some(true),
                // A deleted draft may have been frozen.
                None if is_own && !self.uncertain && !users::is_draft(tag) => {}
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
    pub(super) async fn push_tagged(
        &mut self,
        repository: &str,
        document: Document,
        tags: Vec<String>,
    ) -> Result<(), Unpushed> {
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
                if tags.iter().any(|tag| users::keeps_manifests(tag)) {
                    self.perhaps_frozen.push((repository.to_owned(), document.digest));
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
            } else if users::keeps_manifests(&tag) {
                self.perhaps_frozen.push((repository.to_owned(), document.digest));
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
}
