//! What a [check](registry::check) must find in a corrupted store: each clause corrupts the store in one way, through
//! the store's own tests, and asserts the finding.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Descriptor, Digest, MediaType, RepositoryName};
use registry::Stores;
use registry::check::{CheckOptions, Event, Finding, Summary, check};
use registry::store::blobs::Upload;
use registry::store::metadata::{AllowAll, ManifestPut, ManifestRecord, NewContent, PutManifest, Referrer};
use registry::store::records::{BackReference, LinkKind, Record};
use registry::store::{Attempt, Location, SessionId, Slice, Uid};
use serde_json::{Value, json};

use super::ContractTest;
use super::fixed_clock::FixedClock;
use super::metadata::{digest, manifest, media_type, repository, tag};
use super::source::Body;
use crate::metadata::DescribeManifest as _;

/// Corrupts the tables of a store in ways that no operation does.
#[async_trait]
pub trait Corruption: Send + Sync + 'static {
    /// Creates a back-reference or deletes it.
    async fn set_back_reference(&self, back_reference: &BackReference, present: bool);

    /// Deletes the row of a manifest in the list of its subject's referrers.
    async fn lose_referrer(&self, repository: &RepositoryName, subject: &Digest, referrer: &Digest);

    /// Replaces the media type in a manifest's record by a text that is no media type.
    async fn corrupt_media_type(&self, repository: &RepositoryName, digest: &Digest);
}

/// Empty stores, and the means to corrupt their metadata.
pub struct CorruptibleStores {
    /// The stores.
    pub stores: Stores,
    /// Changes the tables under the stores.
    pub corruption: Arc<dyn Corruption>,
}

/// The test of a clause about checks.
pub type CheckTest = ContractTest<CorruptibleStores>;

const CONFIG: &[u8] = b"{}";
const LAYER: &[u8] = b"the bytes of a layer";

/// What [`CheckTest::fill`] has pushed.
struct Pushed {
    app: RepositoryName,
    config: Digest,
    layer: Digest,
    /// Inline, under the tag `v1`.
    image: Digest,
    /// The same image with enough white space to be stored in an object, under the tag `large`.
    large: Digest,
    /// Its subject is the image.
    signature: Digest,
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| format!("{finding:?}"));
    findings
}

impl CheckTest {
    /// Seals an object of these bytes, without a record.
    async fn seal(&self, bytes: &Bytes) -> Location {
        let blobs = &self.store.stores.blobs;
        let attempt = Attempt {
            session: SessionId(u128::from(self.cx().uid.0) << 64),
            number: 1,
        };
        let mut body = Body::of(bytes, 10_000);
        let appended = blobs.append(self.cx(), attempt, &[], &mut body).await;
        let appended = appended.unwrap_or_else(|_| panic!("append"));
        let upload = Upload {
            session: attempt.session,
            state: appended.state,
            parts: appended.part.into_iter().collect(),
            size: bytes.len() as u64,
        };
        blobs.seal(self.cx(), &upload).await.expect("seal")
    }

    async fn commit(&self, app: &RepositoryName, bytes: &'static [u8]) -> Digest {
        let (digest, bytes) = (digest(bytes), Bytes::from_static(bytes));
        let location = self.seal(&bytes).await;
        let metadata = &self.store.stores.metadata;
        let committed = metadata.commit_blob(self.cx(), app, &digest, &location, bytes.len() as u64);
        committed.await.expect("commit_blob");
        digest
    }

    async fn put(&self, app: &RepositoryName, bytes: Bytes, required: &[Digest], edit: impl FnOnce(&mut PutManifest)) {
        let mut put = manifest(app, bytes).requiring(required.iter().copied());
        edit(&mut put);
        let answer = self
            .store
            .stores
            .metadata
            .put_manifest(self.cx(), &put, &AllowAll::shared())
            .await;
        assert_eq!(answer.expect("put_manifest"), ManifestPut::Stored);
    }

    /// Pushes all of [`Pushed`], and an index over both images.
    async fn fill(&self) -> Pushed {
        let app = repository("team/app");
        let (config, layer) = (self.commit(&app, CONFIG).await, self.commit(&app, LAYER).await);
        let image = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_MANIFEST,
            "config": descriptor(MediaType::OCI_CONFIG, CONFIG),
            "layers": [descriptor(MediaType::OCI_LAYER, LAYER)],
        });
        let image = Bytes::from(image.to_string());
        self.put(&app, image.clone(), &[config, layer], |put| put.tags = vec![tag("v1")])
            .await;
        let mut large = image.to_vec();
        large.resize(40_000, b' ');
        let large = Bytes::from(large);
        let location = self.seal(&large).await;
        self.put(&app, large.clone(), &[config, layer], |put| {
            put.content = NewContent::Sealed(location);
            put.tags = vec![tag("large")];
        })
        .await;
        let signature = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_MANIFEST,
            "config": descriptor(MediaType::OCI_CONFIG, CONFIG),
            "layers": [],
            "subject": descriptor(MediaType::OCI_MANIFEST, &image),
        });
        let signature = Bytes::from(signature.to_string());
        let referrer = Referrer {
            descriptor: Descriptor::new(
                media_type(MediaType::OCI_MANIFEST),
                digest(&signature),
                signature.len() as u64,
            ),
            annotations_omitted: false,
        };
        self.put(&app, signature.clone(), &[config], |put| {
            put.subject = Some((digest(&image), referrer));
        })
        .await;
        let index = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_INDEX,
            "manifests": [
                descriptor(MediaType::OCI_MANIFEST, &image),
                descriptor(MediaType::OCI_MANIFEST, &large),
            ],
        });
        let children = [digest(&image), digest(&large)];
        self.put(&app, Bytes::from(index.to_string()), &children, |put| {
            put.media_type = media_type(MediaType::OCI_INDEX);
        })
        .await;
        Pushed {
            app,
            config,
            layer,
            image: digest(image),
            large: digest(large),
            signature: digest(signature),
        }
    }

    async fn check(&self) -> (Summary, Vec<Finding>) {
        let mut found = Vec::new();
        let mut tell = |event: Event<'_>| {
            if let Event::Found(finding) = event {
                found.push(finding.clone());
            }
        };
        let options = CheckOptions {
            hash: true,
            ..CheckOptions::default()
        };
        let environment = Arc::new(FixedClock::at(self.now()));
        let summary = check(&self.store.stores, environment, &options, &mut tell).await;
        let summary = summary.expect("a check succeeds");
        assert_eq!(summary.findings, found.len() as u64);
        (summary, sorted(found))
    }

    /// The findings without their consequences for pulls.
    async fn found(&self) -> Vec<Finding> {
        let mut findings = self.check().await.1;
        findings.retain(|finding| {
            !matches!(
                finding,
                Finding::ManifestNotPullable { .. } | Finding::BlobNotPullable { .. }
            )
        });
        findings
    }

    async fn manifest(&self, app: &RepositoryName, digest: &Digest) -> ManifestRecord {
        let record = self.store.stores.metadata.manifest(self.cx(), app, digest).await;
        record.expect("manifest").expect("it is there")
    }

    /// The edge from a manifest to its reference.
    async fn edge(&self, app: &RepositoryName, parent: &Digest, target: &Digest) -> BackReference {
        BackReference::Edge {
            repository: app.clone(),
            target: *target,
            parent: *parent,
            uid: self.manifest(app, parent).await.uid,
        }
    }

    async fn lose(&self, back_reference: &BackReference) {
        self.store.corruption.set_back_reference(back_reference, false).await;
    }

    async fn add(&self, back_reference: &BackReference) {
        self.store.corruption.set_back_reference(back_reference, true).await;
    }

    /// All records.
    async fn records(&self) -> Vec<Record> {
        super::every_record::walk(&self.of(self.store.stores.records.clone()), 1000).await
    }

    async fn insert(&self, record: Record) {
        let records = &self.store.stores.records;
        records.insert(self.cx(), &[record]).await.expect("insert");
    }
}

/// A check of a consistent registry finds nothing.
pub async fn a_check_of_a_consistent_registry_finds_nothing(test: CheckTest) {
    test.fill().await;
    let (summary, found) = test.check().await;
    assert_eq!(found, []);
    let counts = (summary.blobs, summary.links, summary.manifests, summary.tags);
    assert_eq!((counts, summary.hashed), ((3, 2, 4, 2), 3));
}

/// A missing edge is found: the manifest itself says what it refers to.
pub async fn a_lost_edge_is_found(test: CheckTest) {
    let pushed = test.fill().await;
    let mut expected = Vec::new();
    for (parent, target) in [
        (pushed.image, pushed.layer),
        (pushed.large, pushed.layer),
        (pushed.signature, pushed.config),
    ] {
        test.lose(&test.edge(&pushed.app, &parent, &target).await).await;
        expected.push(Finding::EdgeMissing {
            repository: pushed.app.clone(),
            digest: parent,
            target,
        });
    }
    assert_eq!(test.found().await, sorted(expected));
}

/// An edge of an earlier uid of the manifest does not count.
pub async fn an_edge_of_another_uid_does_not_count(test: CheckTest) {
    let pushed = test.fill().await;
    let edge = test.edge(&pushed.app, &pushed.image, &pushed.layer).await;
    let mut other = edge.clone();
    if let BackReference::Edge { uid, .. } = &mut other {
        *uid = Uid(1);
    }
    test.add(&other).await;
    assert_eq!(test.found().await, []);
    test.lose(&edge).await;
    let finding = Finding::EdgeMissing {
        repository: pushed.app,
        digest: pushed.image,
        target: pushed.layer,
    };
    assert_eq!(test.found().await, [finding]);
}

/// Only for stores that list the references of a manifest beside its edges: `lose` empties the list of this manifest.
/// An export would take that for the truth.
pub async fn an_unlisted_reference_is_found(test: CheckTest, lose: impl AsyncFnOnce(&RepositoryName, &Digest)) {
    let pushed = test.fill().await;
    lose(&pushed.app, &pushed.image).await;
    let unlisted = |target| Finding::ReferenceUnlisted {
        repository: pushed.app.clone(),
        digest: pushed.image,
        target,
    };
    let expected = vec![unlisted(pushed.config), unlisted(pushed.layer)];
    assert_eq!(test.found().await, sorted(expected));
}

/// A manifest in an object must have a back-reference from the blob record.
pub async fn a_large_manifest_without_its_back_reference_is_found(test: CheckTest) {
    let pushed = test.fill().await;
    let uid = test.manifest(&pushed.app, &pushed.large).await.uid;
    let back_reference = |link_kind, uid| BackReference::BackLink {
        digest: pushed.large,
        repository: pushed.app.clone(),
        link_kind,
        uid,
    };
    test.lose(&back_reference(LinkKind::Manifest, uid)).await;
    let finding = Finding::ManifestWithoutBackReference {
        repository: pushed.app.clone(),
        digest: pushed.large,
    };
    assert_eq!(test.found().await, std::slice::from_ref(&finding));
    for other in [
        back_reference(LinkKind::Manifest, Uid(1)),
        back_reference(LinkKind::Blob, uid),
    ] {
        test.add(&other).await;
        assert_eq!(test.found().await, std::slice::from_ref(&finding), "with {other:?}");
    }
}

/// A back-reference of another uid, or of a manifest of the same bytes, does not count for a link.
pub async fn a_link_without_its_own_back_reference_is_found(test: CheckTest) {
    let pushed = test.fill().await;
    let metadata = &test.store.stores.metadata;
    let link = metadata.link(test.cx(), &pushed.app, &pushed.layer).await;
    let uid = link.expect("link").expect("it is linked").uid;
    let back_reference = |link_kind, uid| BackReference::BackLink {
        digest: pushed.layer,
        repository: pushed.app.clone(),
        link_kind,
        uid,
    };
    test.lose(&back_reference(LinkKind::Blob, uid)).await;
    let finding = Finding::LinkWithoutBackReference {
        repository: pushed.app.clone(),
        digest: pushed.layer,
    };
    assert_eq!(test.found().await, std::slice::from_ref(&finding));
    for other in [
        back_reference(LinkKind::Blob, Uid(1)),
        back_reference(LinkKind::Manifest, uid),
    ] {
        test.add(&other).await;
        assert_eq!(test.found().await, std::slice::from_ref(&finding), "with {other:?}");
    }
}

/// A back-reference is looked up by its own key, however many others sort before it.
pub async fn a_back_reference_is_found_among_a_thousand(test: CheckTest) {
    let pushed = test.fill().await;
    for number in 0..1_100_u64 {
        let other = BackReference::BackLink {
            digest: pushed.layer,
            repository: repository(&format!("many/{number:04}")),
            link_kind: LinkKind::Manifest,
            uid: Uid(number),
        };
        test.add(&other).await;
    }
    assert_eq!(test.found().await, []);
}

/// A link with another size than the blob record is found.
pub async fn a_link_of_another_size_is_found(test: CheckTest) {
    let pushed = test.fill().await;
    for mut record in test.records().await {
        if let Record::Link { digest, size, .. } = &mut record
            && *digest == pushed.layer
        {
            *size += 1;
            test.insert(record).await;
        }
    }
    let finding = Finding::LinkResized {
        repository: pushed.app,
        digest: pushed.layer,
        recorded: LAYER.len() as u64 + 1,
        found: LAYER.len() as u64,
    };
    assert_eq!(test.found().await, [finding]);
}

/// A manifest with another size than its bytes is found, in its record or in an object.
pub async fn a_manifest_of_another_size_is_found(test: CheckTest) {
    let pushed = test.fill().await;
    let mut expected = Vec::new();
    for record in test.records().await {
        if let Record::Manifest(mut entry) = record
            && entry.digest != pushed.image
        {
            expected.push(Finding::ManifestResized {
                repository: pushed.app.clone(),
                digest: entry.digest,
                recorded: entry.size + 1,
                found: entry.size,
            });
            entry.size += 1;
            test.insert(Record::Manifest(entry)).await;
        }
    }
    expected.push(Finding::TagDiffers {
        repository: pushed.app,
        tag: tag("large"),
        digest: pushed.large,
    });
    assert_eq!(test.found().await, sorted(expected));
}

/// A missing part of a record is a finding and does not end the check. An export fails with an error that names it.
pub async fn a_missing_part_fails_an_export_but_not_a_check(test: CheckTest) {
    let pushed = test.fill().await;
    let Pushed {
        app, image, signature, ..
    } = &pushed;
    test.lose(&test.edge(app, &pushed.large, &pushed.layer).await).await;
    test.store.corruption.lose_referrer(app, image, signature).await;
    let found = test.found().await;
    let [Finding::Damaged { record, .. }, other] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(*record, format!("manifest {app} {signature}"));
    let expected = Finding::EdgeMissing {
        repository: app.clone(),
        digest: pushed.large,
        target: pushed.layer,
    };
    assert_eq!(*other, expected);
    assert_refused(&test, record).await;
}

/// An unreadable record is a finding, and so is every record that has to be compared with it. No object is reported as
/// an orphan while an unreadable record may name it.
pub async fn an_unreadable_record_fails_an_export_but_not_a_check(test: CheckTest) {
    let pushed = test.fill().await;
    let Pushed { app, image, .. } = &pushed;
    let location = test.seal(&Bytes::from_static(b"an orphan")).await;
    assert_eq!(test.found().await, [Finding::Orphan { location, size: 9 }]);
    test.lose(&test.edge(app, &pushed.large, &pushed.layer).await).await;
    test.store.corruption.corrupt_media_type(app, image).await;
    let found = test.found().await;
    let [
        Finding::Damaged { record: first, .. },
        Finding::Damaged { record: second, .. },
        Finding::EdgeMissing { .. },
    ] = found.as_slice()
    else {
        panic!("{found:?}");
    };
    let manifest = format!("manifest {app} {image}");
    assert_eq!([first, second], [&manifest, &format!("tag {app} v1")]);
    assert_refused(&test, &manifest).await;
}

/// Asserts that a walk over all records fails with an error that names this record.
async fn assert_refused(test: &CheckTest, record: &str) {
    let records = &test.store.stores.records;
    let mut next = None;
    loop {
        match records.records(test.cx(), next.as_ref(), 1000).await {
            Ok(Slice { next: Some(cursor), .. }) => next = Some(cursor),
            Ok(_) => panic!("{record} was left out"),
            Err(error) => {
                assert!(error.damage().is_some(), "{error}");
                assert!(error.to_string().contains(record), "{error}");
                return;
            }
        }
    }
}
