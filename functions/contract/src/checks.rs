//! What a [check](registry::check) must find in a store that lost something behind its back: each clause does one kind of
//! harm, by the hands of the store's own tests, and asks for the finding.

use crate::metadata::DescribeManifest as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Descriptor, Digest, MediaType, RepositoryName};
use serde_json::{Value, json};

use super::ContractTest;
use super::fixed_clock::FixedClock;
use super::metadata::{digest, manifest, media_type, repository, tag};
use super::source::Body;
use registry::AllStores;
use registry::check::{Event, Finding, Options, Summary, check};
use registry::store::blobs::Upload;
use registry::store::metadata::{ManifestPut, ManifestRecord, NewContent, PutManifest, Referrer};
use registry::store::records::{BackReference, LinkKind, Record};
use registry::store::sessions::{Attempt, SessionId};
use registry::store::{Location, Slice, Uid};

/// Does to a store's tables what no operation does.
#[async_trait]
pub trait Harm: Send + Sync + 'static {
    /// Makes a hold that belongs to nothing, or loses one that belongs to something.
    async fn set_hold(&self, hold: &BackReference, present: bool);

    /// Loses the row of a manifest under its subject.
    async fn lose_referrer(&self, repository: &RepositoryName, subject: &Digest, referrer: &Digest);

    /// Makes the media type in a manifest's record something that is none.
    async fn garble(&self, repository: &RepositoryName, digest: &Digest);
}

/// Empty stores, and who harms their names.
pub struct Harmed {
    /// The stores.
    pub stores: AllStores,
    /// Who knows what lies under them.
    pub harm: Arc<dyn Harm>,
}

/// What a clause about checks is given.
pub type CheckTest = ContractTest<Harmed>;

const CONFIG: &[u8] = b"{}";
const LAYER: &[u8] = b"the bytes of a layer";

/// What [`CheckTest::furnish`] has pushed.
struct Pushed {
    app: RepositoryName,
    config: Digest,
    layer: Digest,
    /// In its record, under `v1`.
    image: Digest,
    /// The same image with so much white space that it lies in an object, under `large`.
    large: Digest,
    /// Has the image as its subject.
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
    /// An object of these bytes, which nothing names.
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
        let answer = self.store.stores.metadata.put_manifest(self.cx(), &put).await;
        assert_eq!(answer.expect("put_manifest"), ManifestPut::Stored);
    }

    /// All of [`Pushed`], and an index over both forms of the image.
    async fn furnish(&self) -> Pushed {
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
        let options = Options {
            hash: true,
            ..Options::default()
        };
        let environment = Arc::new(FixedClock::at(self.now()));
        let summary = check(&self.store.stores, environment, &options, &mut tell).await;
        let summary = summary.expect("a check goes on");
        assert_eq!(summary.findings, found.len() as u64);
        (summary, sorted(found))
    }

    /// What does not agree, without what follows from it for those who pull.
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

    /// The hold of a manifest on what it refers to.
    async fn edge(&self, app: &RepositoryName, parent: &Digest, target: &Digest) -> BackReference {
        BackReference::Edge {
            repository: app.clone(),
            target: *target,
            parent: *parent,
            uid: self.manifest(app, parent).await.uid,
        }
    }

    async fn lose(&self, hold: &BackReference) {
        self.store.harm.set_hold(hold, false).await;
    }

    async fn one_too_many(&self, hold: &BackReference) {
        self.store.harm.set_hold(hold, true).await;
    }

    /// Everything that is recorded.
    async fn records(&self) -> Vec<Record> {
        super::records::walk(&self.of(self.store.stores.records.clone()), 1000).await
    }

    async fn plant(&self, record: Record) {
        let records = &self.store.stores.records;
        records.insert(self.cx(), &[record]).await.expect("insert");
    }
}

/// In a registry in which nothing went wrong there is nothing to find.
pub async fn nothing_is_found_where_nothing_is_lost(test: CheckTest) {
    test.furnish().await;
    let (summary, found) = test.check().await;
    assert_eq!(found, []);
    let counts = (summary.blobs, summary.links, summary.manifests, summary.tags);
    assert_eq!((counts, summary.hashed), ((3, 2, 4, 2), 3));
}

/// What a manifest refers to is told by the manifest, whatever the records have lost.
pub async fn a_lost_edge_is_found(test: CheckTest) {
    let pushed = test.furnish().await;
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

/// The edge of an earlier life keeps nothing.
pub async fn an_edge_of_another_life_is_none(test: CheckTest) {
    let pushed = test.furnish().await;
    let edge = test.edge(&pushed.app, &pushed.image, &pushed.layer).await;
    let mut other = edge.clone();
    if let BackReference::Edge { uid, .. } = &mut other {
        *uid = Uid(1);
    }
    test.one_too_many(&other).await;
    assert_eq!(test.found().await, []);
    test.lose(&edge).await;
    let finding = Finding::EdgeMissing {
        repository: pushed.app,
        digest: pushed.image,
        target: pushed.layer,
    };
    assert_eq!(test.found().await, [finding]);
}

/// Only for stores that list what a manifest refers to beside its edges: `lose` empties the list of this manifest. An
/// export would take that for the truth.
pub async fn an_unlisted_reference_is_found(test: CheckTest, lose: impl AsyncFnOnce(&RepositoryName, &Digest)) {
    let pushed = test.furnish().await;
    lose(&pushed.app, &pushed.image).await;
    let unlisted = |target| Finding::ReferenceUnlisted {
        repository: pushed.app.clone(),
        digest: pushed.image,
        target,
    };
    let expected = vec![unlisted(pushed.config), unlisted(pushed.layer)];
    assert_eq!(test.found().await, sorted(expected));
}

/// A manifest in an object must be among those who hold that.
pub async fn a_large_manifest_without_its_back_link_is_found(test: CheckTest) {
    let pushed = test.furnish().await;
    let life = test.manifest(&pushed.app, &pushed.large).await.uid;
    let holder = |link_kind, uid| BackReference::BackLink {
        digest: pushed.large,
        repository: pushed.app.clone(),
        link_kind,
        uid,
    };
    test.lose(&holder(LinkKind::Manifest, life)).await;
    let finding = Finding::ManifestWithoutHolder {
        repository: pushed.app.clone(),
        digest: pushed.large,
    };
    assert_eq!(test.found().await, std::slice::from_ref(&finding));
    for other in [holder(LinkKind::Manifest, Uid(1)), holder(LinkKind::Blob, life)] {
        test.one_too_many(&other).await;
        assert_eq!(test.found().await, std::slice::from_ref(&finding), "with {other:?}");
    }
}

/// A back-link of another life, or of a manifest of the same bytes, does not hold a link.
pub async fn a_link_without_its_own_back_link_is_found(test: CheckTest) {
    let pushed = test.furnish().await;
    let metadata = &test.store.stores.metadata;
    let link = metadata.link(test.cx(), &pushed.app, &pushed.layer).await;
    let life = link.expect("link").expect("it is linked").uid;
    let holder = |link_kind, uid| BackReference::BackLink {
        digest: pushed.layer,
        repository: pushed.app.clone(),
        link_kind,
        uid,
    };
    test.lose(&holder(LinkKind::Blob, life)).await;
    let finding = Finding::LinkWithoutHolder {
        repository: pushed.app.clone(),
        digest: pushed.layer,
    };
    assert_eq!(test.found().await, std::slice::from_ref(&finding));
    for other in [holder(LinkKind::Blob, Uid(1)), holder(LinkKind::Manifest, life)] {
        test.one_too_many(&other).await;
        assert_eq!(test.found().await, std::slice::from_ref(&finding), "with {other:?}");
    }
}

/// A holder is looked for by its own name, however many others there are before it.
pub async fn a_holder_is_found_among_a_thousand(test: CheckTest) {
    let pushed = test.furnish().await;
    for number in 0..1_100_u64 {
        let other = BackReference::BackLink {
            digest: pushed.layer,
            repository: repository(&format!("many/{number:04}")),
            link_kind: LinkKind::Manifest,
            uid: Uid(number),
        };
        test.one_too_many(&other).await;
    }
    assert_eq!(test.found().await, []);
}

/// A link that says another length than the bytes have.
pub async fn a_link_of_another_size_is_found(test: CheckTest) {
    let pushed = test.furnish().await;
    for mut record in test.records().await {
        if let Record::Link { digest, size, .. } = &mut record
            && *digest == pushed.layer
        {
            *size += 1;
            test.plant(record).await;
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

/// A manifest that says another length than it has, in its record or in an object.
pub async fn a_manifest_of_another_size_is_found(test: CheckTest) {
    let pushed = test.furnish().await;
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
            test.plant(Record::Manifest(entry)).await;
        }
    }
    expected.push(Finding::TagDiffers {
        repository: pushed.app,
        tag: tag("large"),
        digest: pushed.large,
    });
    assert_eq!(test.found().await, sorted(expected));
}

/// A part of a record that is missing is a finding, and not the end; who needs everything is refused, and told why.
pub async fn a_missing_part_ends_an_export_and_no_check(test: CheckTest) {
    let pushed = test.furnish().await;
    let Pushed {
        app, image, signature, ..
    } = &pushed;
    test.lose(&test.edge(app, &pushed.large, &pushed.layer).await).await;
    test.store.harm.lose_referrer(app, image, signature).await;
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

/// A record that cannot be read is a finding, and so is what has to be compared with it. Nothing is called nobody's
/// while it may be the one that names it.
pub async fn an_unreadable_record_ends_an_export_and_no_check(test: CheckTest) {
    let pushed = test.furnish().await;
    let Pushed { app, image, .. } = &pushed;
    let location = test.seal(&Bytes::from_static(b"nobody's")).await;
    assert_eq!(test.found().await, [Finding::Stray { location, size: 8 }]);
    test.lose(&test.edge(app, &pushed.large, &pushed.layer).await).await;
    test.store.harm.garble(app, image).await;
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

/// Whoever needs all records gets an error that names this one.
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
