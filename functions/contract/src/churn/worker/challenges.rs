//! Requests whose answer follows from the policy: what a principal may not do, and immutable tags.

use bytes::Bytes;
use http::Method;
use oci::{Digest, MediaType};
use registry::auth::ActionKind;
use registry::store::access::AuditKind;

use super::{Unpushed, Worker, repositories};
use crate::churn::client::TestRequest;
use crate::churn::users;

impl Worker {
    /// Asks for something in any repository, with or without credentials. Whether the answer is a refusal depends on the
    /// policy alone.
    pub(super) async fn ask(&mut self) {
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
    pub(super) async fn challenge_a_release(&mut self) {
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

    /// Deletes a draft, which comes back with its manifest. Whether another manifest may have its tag afterwards depends on how
    /// long it had stood: the history is checked in the end.
    pub(super) async fn return_a_draft(&mut self) {
        let repository = self.own();
        let drafts = self.tags.iter().filter(|(tag, _)| users::is_draft(tag));
        let drafts: Vec<_> = drafts.map(|(tag, digest)| (tag.clone(), *digest)).collect();
        let Some((tag, digest)) = self.random.choose(&drafts).cloned() else {
            return;
        };
        let mut known = self.manifests.iter().filter(|pushed| pushed.repository == repository);
        let Some(document) = known.find(|pushed| pushed.document.digest == digest) else {
            return;
        };
        let document = document.document.clone();
        let target = format!("/v2/{repository}/manifests/{tag}");
        let deleted = self.send(TestRequest::new(Method::DELETE, target)).await;
        deleted.expect(&[202]);
        self.statistics.deleted += 1;
        self.acknowledge(AuditKind::TagDeleted, &repository, &tag);
        self.tags.remove(&tag);
        let returned = self.push_tagged(&repository, document, vec![tag.clone()]).await;
        self.count(&returned);
        let is_refused = matches!(returned, Err(Unpushed::Protected));
        assert!(
            !is_refused || self.uncertain,
            "{tag} does not come back with its manifest"
        );
        let name = self.name();
        let image = self.pool.image(&name, &mut self.random, None);
        let pushed = self.push_tagged(&repository, image, vec![tag]).await;
        self.count(&pushed);
    }
}
