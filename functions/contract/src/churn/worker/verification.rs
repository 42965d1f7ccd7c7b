//! Reads of what must exist.

use http::Method;
use oci::Digest;

use super::{Pushed, Worker};
use crate::churn::client::TestRequest;
use crate::churn::users;

impl Worker {
    /// Asserts that an immutable tag is what it was.
    pub(super) async fn verify_release(&self, repository: &str, tag: &str) {
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

    pub(super) async fn verify_one(&mut self) {
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

    pub(super) async fn verify_tag(&self, tag: &str, digest: &Digest) {
        let target = format!("/v2/{}/manifests/{tag}", self.own());
        let answer = self.send(TestRequest::new(Method::GET, target)).await.expect(&[200]);
        let named = answer.header("docker-content-digest");
        assert_eq!(named, Some(&*digest.to_string()), "{tag} of {}", self.own());
    }

    /// Asserts that the manifest, its blobs and its children exist, byte for byte.
    pub(super) async fn verify(&mut self, Pushed { repository, document }: &Pushed) {
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
