//! Deletions of manifests, tags and blobs.

use http::Method;
use registry::auth::ActionKind;
use registry::store::access::AuditKind;

use super::{Pushed, Worker};
use crate::churn::client::TestRequest;
use crate::churn::pool::BLOBS;
use crate::churn::users;

impl Worker {
    pub(super) async fn delete_manifest(&mut self) {
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
        let perhaps_frozen = self.perhaps_frozen.contains(&(repository.clone(), digest));
        let target = format!("/v2/{repository}/manifests/{digest}");
        let answer = self.send(TestRequest::new(Method::DELETE, target)).await;
        let mut allowed = Vec::new();
        if !may_delete || is_released || perhaps_frozen {
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

    pub(super) async fn delete_tag(&mut self) {
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
            // It may be frozen by now.
            (true, false) if users::keeps_manifests(&tag) => &[202, 403, 404],
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

    pub(super) async fn delete_blob(&mut self) {
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
}
