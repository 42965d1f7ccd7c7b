//! Checks: a healthy registry has no findings, and each kind of damage has its finding.

use bytes::Bytes;
use oci::{Digest, MediaType, RepositoryName};
use registry::check::{CheckOptions, Event, Finding, Summary, check};
use registry::store::metadata::MetadataStore as _;
use registry::store::records::{BackReference, EntryContent, LinkKind, ManifestEntry, Record, RecordStore as _};
use registry::store::wrapped::StoreMethod;
use registry::store::{Context, Location, Timestamp, Uid};
use registry::{Limits, Sparse};
use serde_json::json;

use crate::support::content::{Image, artifact, bytes_of, image, index, padded};
use crate::support::{World, sha256, sha512};

pub(super) const CX: Context = Context::internal(Timestamp(1_900_000_000_000), 60_000, Uid(4711));

pub(super) fn options() -> CheckOptions {
    CheckOptions {
        hash: true,
        slice: 3,
        ..CheckOptions::default()
    }
}

/// Whether a finding reports what cannot be pulled because of another finding.
pub(super) fn is_for_pulls(finding: &Finding) -> bool {
    matches!(
        finding,
        Finding::ManifestNotPullable { .. } | Finding::BlobNotPullable { .. }
    )
}

impl World {
    pub(super) async fn check_as(&self, options: &CheckOptions) -> (Summary, Vec<Finding>) {
        let mut found = Vec::new();
        let mut tell = |event: Event<'_>| {
            if let Event::Found(finding) = event {
                found.push(finding.clone());
            }
        };
        let summary = check(&self.stores, self.clock.clone(), options, &mut tell)
            .await
            .unwrap();
        assert_eq!(summary.findings, found.len() as u64);
        (summary, found)
    }

    /// The findings, without those that report what cannot be pulled.
    pub(super) async fn check(&self) -> Vec<Finding> {
        let mut findings = self.check_as(&options()).await.1;
        findings.retain(|finding| !is_for_pulls(finding));
        findings
    }

    pub(super) async fn plant(&self, record: Record) {
        self.metadata.insert(CX, &[record]).await.unwrap();
    }

    pub(super) async fn location_of(&self, repository: &str, digest: &Digest) -> Location {
        let link = self
            .stores
            .metadata
            .link(CX, &repository.parse().unwrap(), digest)
            .await;
        link.unwrap().unwrap().location
    }

    /// Content of every kind. The image is in `a` under `one`.
    async fn push_everything(&self) -> Image {
        let one = self.push_image("a", "one", "one").await;
        self.push_blob("a", "{}").await;
        let large = padded(&image(b"{}", &[]), 40_000);
        self.put_manifest("a", "large", large.clone()).await.expect(201);
        let list = bytes_of(&index(&[&one.manifest, &large]));
        self.put_manifest("a", "list", list).await.expect(201);
        let signature = bytes_of(&artifact("a/signature", &one.manifest));
        self.put_manifest("a", "signature", signature).await.expect(201);
        let mut foreign = image(b"{}", &[]);
        foreign["layers"] = json!([{
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "digest": sha256(b"foreign"), "size": 7, "urls": ["https://example.com/foreign"],
        }]);
        self.put_manifest("a", "foreign", bytes_of(&foreign)).await.expect(201);
        let mount = format!("/v2/b/blobs/uploads/?mount={}&from=a", one.layer);
        self.post(mount).send().await.expect(201);
        // Sessions of several states with their objects; objects that lost a race, and unreferenced objects.
        let location = self.open_upload("a").await;
        for chunk in ["abandoned ", "upload"] {
            self.patch(&location).bytes(chunk).send().await.expect(202);
        }
        let location = self.open_upload("a").await;
        for chunk in ["joi", "ned"] {
            self.patch(&location).bytes(chunk).send().await.expect(202);
        }
        let target = format!("{location}?digest={}", sha256(b"joined"));
        self.put(target).send().await.expect(201);
        self.push_blob("b", "{}").await;
        let long = format!("/v2/b/blobs/uploads/?digest={}", sha512(b"{}"));
        self.post(long).bytes("{}").send().await.expect(201);
        let gone = self.push_blob("b", "gone").await;
        self.delete(format!("/v2/b/blobs/{gone}")).send().await.expect(202);
        self.delete("/v2/a/manifests/foreign").send().await.expect(202);
        one
    }

    pub(super) async fn furnished() -> (Self, Image) {
        let world = Self::new().await;
        let image = world.push_everything().await;
        (world, image)
    }
}

fn entry(repository: &str, bytes: &Bytes) -> ManifestEntry {
    ManifestEntry {
        repository: repository.parse().unwrap(),
        digest: sha256(bytes),
        media_type: MediaType::OCI_MANIFEST.parse().unwrap(),
        size: bytes.len() as u64,
        content: EntryContent::Inline(bytes.clone()),
        subject: None,
        artifact_type: None,
        references: Vec::new(),
        uid: Uid(9),
        at: CX.now,
    }
}

/// A healthy registry has no findings, also before, between and after collections.
#[tokio::test]
async fn a_healthy_registry_has_no_findings() {
    let (world, _) = World::furnished().await;
    let (summary, found) = world.check_as(&options()).await;
    assert_eq!(found, []);
    let expected = Summary {
        repositories: 1,
        blobs: 7,
        links: 7,
        manifests: 5,
        tags: 4,
        changes: 6,
        sessions: 9,
        pending_deletions: 1,
        objects: 10,
        // One image, the large manifest, the joined parts, `{}` three times, the unreferenced objects, and the
        // abandoned upload.
        object_bytes: 16 + 12 + 40_000 + 6 + 3 * 2 + 4 + 16,
        hashed: 7,
        absent: 1,
        findings: 0,
        repaired: 0,
    };
    assert_eq!(summary, expected);
    for _ in 0..4 {
        world.clock.pass(26 * 3_600_000);
        world.collect().await;
        assert_eq!(world.check().await, []);
    }
    let before = world.counts.writes();
    world.check().await;
    assert_eq!(world.counts.writes(), before, "a check writes nothing");
}

/// A check without hashing reads no object except large manifests, since nothing else has their references.
#[tokio::test]
async fn objects_are_read_only_with_hash() {
    let (world, _) = World::furnished().await;
    let _ = world.counts.take();
    let options = CheckOptions {
        hash: false,
        ..options()
    };
    let (summary, found) = world.check_as(&options).await;
    assert_eq!((summary.hashed, found.len()), (0, 0));
    assert_eq!(world.counts.of(StoreMethod::Read), 1, "the large manifest");
}

#[tokio::test]
async fn a_manifest_with_a_wrong_digest_is_found() {
    let (world, image) = World::furnished().await;
    let mut damaged = entry("a", &image.manifest);
    let bytes = String::from_utf8(image.manifest.to_vec())
        .unwrap()
        .replace("layer", "liver");
    damaged.content = EntryContent::Inline(bytes.clone().into());
    damaged.references = vec![sha256(b"not even there")];
    world.plant(Record::Manifest(Box::new(damaged))).await;
    let finding = Finding::Corrupt {
        repository: Some("a".parse().unwrap()),
        digest: image.digest,
        location: None,
        computed: sha256(bytes.as_bytes()),
    };
    assert_eq!(world.check().await, [finding]);
}

#[tokio::test]
async fn a_link_with_another_location_is_found() {
    let (world, image) = World::furnished().await;
    let location = Location::main("123.1");
    world
        .plant(Record::Link {
            repository: "a".parse().unwrap(),
            digest: image.layer,
            location: location.clone(),
            size: 12,
            uid: Uid(5),
            at: CX.now,
        })
        .await;
    world
        .plant(Record::Link {
            repository: "b".parse().unwrap(),
            digest: sha256(b"nowhere"),
            location: location.clone(),
            size: 12,
            uid: Uid(6),
            at: CX.now,
        })
        .await;
    let differing = |repository: &str, digest| Finding::LinkLocationDiffers {
        repository: repository.parse().unwrap(),
        digest,
        location: location.clone(),
    };
    assert_eq!(
        world.check().await,
        [differing("a", image.layer), differing("b", sha256(b"nowhere"))]
    );
}

#[tokio::test]
async fn a_link_without_a_back_link_is_found() {
    let (world, image) = World::furnished().await;
    let mut expected = Vec::new();
    for repository in ["a", "b"] {
        let repository: RepositoryName = repository.parse().unwrap();
        let link = world.metadata.link(CX, &repository, &image.layer).await;
        let hold = BackReference::BackLink {
            digest: image.layer,
            repository: repository.clone(),
            link_kind: LinkKind::Blob,
            uid: link.unwrap().unwrap().uid,
        };
        world.metadata.lose(&hold);
        expected.push(Finding::LinkWithoutBackReference {
            repository,
            digest: image.layer,
        });
    }
    assert_eq!(world.check().await, expected);
}

/// A collection would delete the layer of a tagged image, because its edge is missing. A check before the collection
/// finds that.
#[tokio::test]
async fn a_missing_edge_is_found_before_a_collection_acts_on_it() {
    let (world, image) = World::furnished().await;
    let repository: RepositoryName = "a".parse().unwrap();
    let manifest = world.metadata.manifest(CX, &repository, &image.digest).await;
    let hold = BackReference::Edge {
        repository: repository.clone(),
        target: image.layer,
        parent: image.digest,
        uid: manifest.unwrap().unwrap().uid,
    };
    world.metadata.lose(&hold);
    let lost = Finding::EdgeMissing {
        repository: repository.clone(),
        digest: image.digest,
        target: image.layer,
    };
    assert_eq!(world.check().await, std::slice::from_ref(&lost));
    for _ in 0..4 {
        world.clock.pass(26 * 3_600_000);
        world.collect().await;
    }
    let gone = Finding::ReferenceMissing {
        repository,
        digest: image.digest,
        target: image.layer,
    };
    assert_eq!(world.check().await, [lost, gone], "also after the collection");
}

/// A damaged record is one finding among others, and no orphan is reported meanwhile.
#[tokio::test]
async fn a_damaged_record_is_found() {
    let (world, image) = World::furnished().await;
    let signature = bytes_of(&artifact("a/signature", &image.manifest));
    let (repository, digest) = ("a".parse().unwrap(), sha256(&signature));
    world.metadata.lose_referrer(&repository, &image.digest, &digest);
    let found = world.check().await;
    let [Finding::Damaged { record, reason }] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(*record, format!("manifest a {digest}"));
    assert!(reason.contains("subject"), "{reason}");
}

#[tokio::test]
async fn a_large_manifest_with_another_location_is_found() {
    let (world, _) = World::furnished().await;
    let bytes = padded(&image(b"{}", &[]), 40_000);
    let mut differing = entry("a", &bytes);
    let location = Location::main("123.1");
    differing.content = EntryContent::Stored(location.clone());
    differing.references = vec![sha256(b"{}")];
    let digest = differing.digest;
    world.plant(Record::Manifest(Box::new(differing))).await;
    let finding = Finding::ManifestLocationDiffers {
        repository: "a".parse().unwrap(),
        digest,
        location,
    };
    assert_eq!(world.check().await, [finding]);
}

/// A missing reference is a finding only if the policy requires its target.
#[tokio::test]
async fn a_missing_reference_is_found() {
    let (world, one) = World::furnished().await;
    let mut broken = image(b"{}", &[b"lost"]);
    broken["layers"].as_array_mut().unwrap().push(json!({
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": sha256(b"foreign"), "size": 7,
    }));
    let broken = bytes_of(&broken);
    let mut small = entry("a", &broken);
    small.references = vec![sha256(b"lost"), sha256(b"foreign"), sha256(b"{}")];
    world.plant(Record::Manifest(Box::new(small))).await;
    let list = bytes_of(&index(&[&one.manifest, b"lost"]));
    let mut list_entry = entry("a", &list);
    list_entry.media_type = MediaType::OCI_INDEX.parse().unwrap();
    list_entry.references = vec![one.digest, sha256(b"lost")];
    world.plant(Record::Manifest(Box::new(list_entry))).await;

    let missing = |digest| Finding::ReferenceMissing {
        repository: "a".parse().unwrap(),
        digest,
        target: sha256(b"lost"),
    };
    let cases: [(Sparse, &[Digest]); 3] = [
        (Sparse::Refuse, &[sha256(&broken), sha256(&list)]),
        (Sparse::Indexes, &[sha256(&broken)]),
        (Sparse::Allow, &[]),
    ];
    for (sparse, digests) in cases {
        let options = CheckOptions { sparse, ..options() };
        let (summary, mut found) = world.check_as(&options).await;
        let not_pullable = found.iter().filter(|finding| is_for_pulls(finding)).count();
        assert_eq!(
            not_pullable,
            digests.len(),
            "{sparse:?}: the same manifests cannot be pulled"
        );
        found.retain(|finding| !is_for_pulls(finding));
        let mut expected: Vec<_> = digests.iter().map(|digest| missing(*digest)).collect();
        expected.sort_by_key(|finding| format!("{finding:?}"));
        found.sort_by_key(|finding| format!("{finding:?}"));
        assert_eq!(found, expected, "{sparse:?}");
        assert_eq!(summary.absent, 2 + 2 - expected.len() as u64, "{sparse:?}");
    }
}

/// The references of a large manifest are read from its object.
#[tokio::test]
async fn a_missing_reference_of_a_large_manifest_is_found() {
    let (world, _) = World::furnished().await;
    let bytes = padded(&image(b"{}", &[]), 40_000);
    let location = {
        let record = world
            .stores
            .metadata
            .manifest(CX, &"a".parse().unwrap(), &sha256(&bytes))
            .await;
        match record.unwrap().unwrap().content {
            registry::store::metadata::Content::Stored(location) => location,
            other => panic!("it is large and intact: {other:?}"),
        }
    };
    let mut other = entry("c", &bytes);
    other.content = EntryContent::Stored(location);
    other.references = vec![sha256(b"{}")];
    world.plant(Record::Manifest(Box::new(other))).await;
    let repository = || "c".parse().unwrap();
    let expected = [
        Finding::RepositoryUnlisted {
            repository: repository(),
        },
        Finding::ReferenceMissing {
            repository: repository(),
            digest: sha256(&bytes),
            target: sha256(b"{}"),
        },
    ];
    assert_eq!(world.check().await, expected);
}

/// A stored manifest that would be refused now, because the limits are lower or the program checks more: its references
/// cannot be checked.
#[tokio::test]
async fn a_manifest_that_would_be_refused_is_found() {
    let (world, _) = World::furnished().await;
    let text = Bytes::from_static(b"not a manifest");
    let mut refused = entry("a", &text);
    refused.references = vec![sha256(b"lost")];
    world.plant(Record::Manifest(Box::new(refused))).await;
    let found = world.check().await;
    let [Finding::ManifestRefused { digest, reason, .. }] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(*digest, sha256(&text));
    assert!(!reason.is_empty());

    let narrow = CheckOptions {
        limits: Limits {
            manifest_references: 0,
            ..Limits::default()
        },
        ..options()
    };
    let found = world.check_as(&narrow).await.1;
    assert_eq!(
        found.len(),
        6,
        "all that refer to something, and what is none: {found:?}"
    );
}

#[tokio::test]
async fn a_tag_without_a_manifest_is_found() {
    let (world, one) = World::furnished().await;
    let name = "a".parse().unwrap();
    let mut record = world
        .stores
        .metadata
        .tag(CX, &name, &"one".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    record.size += 1;
    let plant = |tag: &str, target| Record::Tag {
        repository: "a".parse().unwrap(),
        tag: tag.parse().unwrap(),
        target,
    };
    world.plant(plant("differs", record.clone())).await;
    record.digest = sha256(b"lost");
    world.plant(plant("dangling", record)).await;
    let expected = [
        Finding::TagDangling {
            repository: "a".parse().unwrap(),
            tag: "dangling".parse().unwrap(),
            digest: sha256(b"lost"),
        },
        Finding::TagDiffers {
            repository: "a".parse().unwrap(),
            tag: "differs".parse().unwrap(),
            digest: one.digest,
        },
    ];
    assert_eq!(world.check().await, expected);
}

#[tokio::test]
async fn a_repository_that_is_not_listed_is_found() {
    let (world, _) = World::furnished().await;
    let config = world.push_blob("unlisted", "{}").await;
    let bytes = bytes_of(&image(b"{}", &[]));
    let mut unlisted = entry("unlisted", &bytes);
    unlisted.references = vec![config];
    world.plant(Record::Manifest(Box::new(unlisted))).await;
    let repository = "unlisted".parse().unwrap();
    assert_eq!(world.check().await, [Finding::RepositoryUnlisted { repository }]);
}

/// A store that cannot be read ends the check. The findings until then were reported.
#[tokio::test]
async fn a_check_ends_with_the_store() {
    use contract::faulty::{Fault, FaultKind, FaultPoint};

    let (world, _) = World::furnished().await;
    let mut nth = 1;
    loop {
        world.faults.plan(Fault {
            method: None,
            nth,
            kind: FaultKind::Unavailable,
            point: FaultPoint::Before,
        });
        let checked = check(&world.stores, world.clock.clone(), &options(), &mut |_| {}).await;
        assert_eq!(checked.is_err(), world.faults.struck() > 0);
        if checked.is_ok() {
            break;
        }
        nth += 1;
    }
    assert!(nth > 60, "{nth}");
}
