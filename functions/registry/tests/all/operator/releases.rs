//! Rollback and promotion, by an operator and by principals with less permissions.

mod rollbacks;

use std::sync::Arc;

use bytes::Bytes;
use contract::faulty::{Fault, FaultKind, FaultPoint};
use oci::{Digest, MediaType, Reference, RepositoryName, Tag};
use registry::auth::{
    AccessRule, Actions, Creation, ImmutableRule, RepositoryRule, RepositorySettings, Rules, SharedRules,
};
use registry::releases::{Earlier, MAX_DEPTH, MAX_REFERRERS, Promoted, Promotion, ReleaseError, RolledBack};
use registry::store::access::Author;
use registry::store::metadata::{Defect, HistoryRecord, MetadataStore as _};
use registry::store::wrapped::StoreMethod;
use registry::{Anonymous, Identity, Principal, Settings, Sparse};
use serde_json::{Value, json};

use super::check::CX;
use crate::support::content::{EMPTY, artifact, bytes_of, descriptor, image, index, padded};
use crate::support::{Setup, World, sha256};

const OPERATOR: &str = ":operator";
const GRACE_MS: u64 = 600_000;
/// The requests to the store of objects.
const OBJECT_REQUESTS: [StoreMethod; 9] = [
    StoreMethod::Append,
    StoreMethod::Seal,
    StoreMethod::Discard,
    StoreMethod::Read,
    StoreMethod::Redirect,
    StoreMethod::Delete,
    StoreMethod::Tidy,
    StoreMethod::Stat,
    StoreMethod::Objects,
];

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

pub(super) fn operator() -> Identity {
    Identity::new(Principal::ANONYMOUS, Rules::everything())
}

/// The operator of a registry with these rules.
pub(super) fn operator_under(shared: Arc<SharedRules>) -> Identity {
    Identity::new(Principal::ANONYMOUS, Rules::everything().with_shared(shared))
}

/// Who made a change, and what it has promoted.
fn author(change: &HistoryRecord) -> (&str, Option<&str>) {
    (&change.principal, change.promoted_from.as_deref())
}

/// Releases of `prod/**` are immutable after a grace, and `listed/**` exists only if an administrator has created it.
fn shared() -> Arc<SharedRules> {
    let releases = ImmutableRule {
        name: "releases".into(),
        repositories: vec!["prod/**".parse().unwrap()],
        tags: vec!["semver".parse().unwrap()],
        except: Vec::new(),
        grace_ms: GRACE_MS,
        delete: true,
    };
    let listed = RepositoryRule {
        repositories: vec!["listed/**".parse().unwrap()],
        settings: RepositorySettings {
            create: Creation::Listed,
            ..RepositorySettings::default()
        },
    };
    Arc::new(SharedRules::new(vec![releases], vec![listed]))
}

/// `REPOSITORY:TAG` or `REPOSITORY@DIGEST`.
fn reference(text: &str) -> (RepositoryName, Reference) {
    let (repository, reference) = match text.split_once('@') {
        Some(parts) => parts,
        None => text.split_once(':').unwrap(),
    };
    (name(repository), reference.parse().unwrap())
}

impl World {
    pub(super) async fn promote_as(
        &self,
        identity: &Identity,
        from: &str,
        to: &str,
        with_referrers: bool,
    ) -> Result<Promoted, ReleaseError> {
        let (source, reference) = reference(from);
        let (target, tag) = to.split_once(':').unwrap();
        let promotion = Promotion {
            source: &identity.permit(&source).unwrap(),
            reference: &reference,
            target: &identity.permit_tags(&name(target), vec![tag.parse().unwrap()]).unwrap(),
            principal: OPERATOR,
            with_referrers,
        };
        self.registry.promote(&promotion).await
    }

    pub(super) async fn promote(&self, from: &str, to: &str) -> Result<Promoted, ReleaseError> {
        self.promote_as(&operator(), from, to, true).await
    }

    async fn roll_back_as(&self, identity: &Identity, tag: &str, to: Earlier) -> Result<RolledBack, ReleaseError> {
        let (repository, tag) = tag.split_once(':').unwrap();
        let permit = identity.permit_tags(&name(repository), vec![tag.parse().unwrap()]);
        self.registry.roll_back(&permit.unwrap(), to, OPERATOR).await
    }

    /// The changes of a tag, the latest one first.
    async fn changes(&self, tag: &str) -> Vec<HistoryRecord> {
        let (repository, tag) = tag.split_once(':').unwrap();
        let page = self
            .metadata
            .history(CX, &name(repository), &tag.parse().unwrap(), None, 100)
            .await;
        page.unwrap().items
    }

    async fn tags(&self, repository: &str) -> Vec<Tag> {
        let page = self.metadata.tags(CX, &name(repository), None, 1000).await;
        page.unwrap().items
    }

    pub(super) async fn digest_of(&self, tag: &str) -> Option<Digest> {
        let (repository, tag) = tag.split_once(':').unwrap();
        let row = self.metadata.tag(CX, &name(repository), &tag.parse().unwrap()).await;
        row.unwrap().map(|row| row.digest)
    }

    /// The artifact types of what refers to a manifest.
    async fn referrers(&self, repository: &str, subject: &Digest) -> Vec<String> {
        let answer = self.get(format!("/v2/{repository}/referrers/{subject}")).send().await;
        let index = answer.expect(200).json();
        let entries = index["manifests"].as_array().unwrap().iter();
        entries
            .map(|entry| entry["artifactType"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Pulls a manifest with everything to which it refers.
    pub(super) async fn pull_all(&self, repository: &str, reference: &str) {
        let mut left = vec![reference.to_owned()];
        while let Some(reference) = left.pop() {
            let get = self.get(format!("/v2/{repository}/manifests/{reference}"));
            let manifest = get.send().await.expect(200).json();
            let listed = |member: &str| manifest[member].as_array().cloned().unwrap_or_default();
            let text = |entry: &Value| entry["digest"].as_str().unwrap().to_owned();
            left.extend(listed("manifests").iter().map(text));
            let config = manifest.get("config").cloned();
            for blob in listed("layers").iter().chain(&config) {
                let digest = text(blob).parse().unwrap();
                assert!(self.blob(repository, &digest).await.is_some(), "{repository} {digest}");
            }
        }
    }

    pub(super) async fn push_manifest(&self, repository: &str, reference: impl ToString, manifest: &Bytes) -> Digest {
        self.put_manifest(repository, reference, manifest.clone())
            .await
            .expect(201);
        sha256(manifest)
    }

    /// Pushes a manifest without a tag.
    pub(super) async fn put_by_digest(&self, repository: &str, manifest: &Bytes) -> Digest {
        self.push_manifest(repository, sha256(manifest), manifest).await
    }

    /// Pushes the layers of an image, and the image, which has this tag or only its digest.
    pub(super) async fn push_layers(&self, repository: &str, layers: &[&[u8]], tag: Option<&str>) -> Bytes {
        for blob in layers.iter().chain([&EMPTY]) {
            self.push_blob(repository, Bytes::copy_from_slice(blob)).await;
        }
        let manifest = bytes_of(&image(EMPTY, layers));
        match tag {
            Some(tag) => self.push_manifest(repository, tag, &manifest).await,
            None => self.put_by_digest(repository, &manifest).await,
        };
        manifest
    }

    /// Pushes an image for two platforms to `staging/app`, as tag `1`: with a signature, which is signed too, with an attestation
    /// of one platform, and with a signature as cosign stores it.
    async fn push_signed(&self) -> Signed {
        let repository = "staging/app";
        let amd64 = self.push_layers(repository, &[&b"base"[..], &b"amd64"[..]], None).await;
        let arm64 = self.push_layers(repository, &[&b"base"[..], &b"arm64"[..]], None).await;
        let list = bytes_of(&index(&[&amd64, &arm64]));
        let digest = self.push_manifest(repository, "1", &list).await;
        let signature = bytes_of(&artifact("a/signature", &list));
        for referrer in [
            &signature,
            &bytes_of(&artifact("a/signature-of-signature", &signature)),
            &bytes_of(&artifact("a/attestation", &amd64)),
        ] {
            self.put_by_digest(repository, referrer).await;
        }
        let tag = format!("sha256-{}.sig", digest.hex());
        self.push_layers(repository, &[&b"signature"[..]], Some(&tag)).await;
        // Neither of these stands for the image.
        for other in [
            format!("sha256-{}", "0".repeat(64)),
            format!("sha256-{}", "f".repeat(64)),
        ] {
            self.push_layers(repository, &[&b"other"[..]], Some(&other)).await;
        }
        Signed {
            digest,
            amd64: sha256(&amd64),
            signature: sha256(&signature),
            tag,
        }
    }
}

/// The result of [`World::push_signed`].
struct Signed {
    digest: Digest,
    amd64: Digest,
    signature: Digest,
    tag: String,
}

impl Signed {
    /// Checks that the image is in a repository as it was pushed.
    async fn check(&self, world: &World, repository: &str, tag: &str) {
        assert_eq!(world.digest_of(&format!("{repository}:{tag}")).await, Some(self.digest));
        assert_eq!(
            world.tags(repository).await,
            [tag.parse().unwrap(), self.tag.parse().unwrap()]
        );
        for (subject, expected) in [
            (&self.digest, "a/signature"),
            (&self.signature, "a/signature-of-signature"),
            (&self.amd64, "a/attestation"),
        ] {
            assert_eq!(world.referrers(repository, subject).await, [expected]);
        }
        for reference in [tag, &self.tag, &self.signature.to_string()] {
            world.pull_all(repository, reference).await;
        }
    }
}

fn words(outcome: Result<impl std::fmt::Debug, ReleaseError>) -> String {
    outcome.unwrap_err().to_string()
}

#[tokio::test]
async fn a_signed_image_is_promoted_without_a_request_to_the_object_store() {
    let world = World::new().await;
    let image = world.push_signed().await;
    for moved in [true, false] {
        let _ = world.counts.take();
        let promoted = world.promote("staging/app:1", "prod/app:1").await.unwrap();
        let expected = Promoted {
            digest: image.digest,
            moved,
            manifests: 3,
            referrers: 4,
            kept: Vec::new(),
            copied_bytes: 0,
        };
        assert_eq!(promoted, expected);
        for method in OBJECT_REQUESTS {
            assert_eq!(world.counts.of(method), 0, "{method:?}");
        }
        image.check(&world, "prod/app", "1").await;
    }
    // The history says who promoted what. A repeated promotion is no change.
    for (tag, source) in [
        ("1", "staging/app:1"),
        (&image.tag, &format!("staging/app:{}", image.tag)),
    ] {
        let changes = world.changes(&format!("prod/app:{tag}")).await;
        assert_eq!(changes.len(), 1);
        assert_eq!(author(&changes[0]), (OPERATOR, Some(source)));
    }
    assert_eq!(author(&world.changes("staging/app:1").await[0]), (":anonymous", None));
    // What belongs to the target stays when the source is deleted.
    let list = format!("/v2/staging/app/manifests/{}", image.digest);
    world.delete(list).send().await.expect(202);
    image.check(&world, "prod/app", "1").await;
}

#[tokio::test]
async fn an_image_is_promoted_by_digest_and_without_referrers() {
    let world = World::new().await;
    let image = world.push_signed().await;
    let from = format!("staging/app@{}", image.digest);
    let promoted = world.promote_as(&operator(), &from, "prod/app:1", false).await.unwrap();
    assert_eq!((promoted.manifests, promoted.referrers), (3, 0));
    assert_eq!(world.tags("prod/app").await, ["1".parse().unwrap()]);
    assert!(world.referrers("prod/app", &image.digest).await.is_empty());
    world.pull_all("prod/app", "1").await;
    let changes = world.changes("prod/app:1").await;
    assert_eq!(author(&changes[0]), (OPERATOR, Some(&*from)));
    // Later, with them.
    world.promote(&from, "prod/app:1").await.unwrap();
    image.check(&world, "prod/app", "1").await;
    assert_eq!(world.changes("prod/app:1").await.len(), 1);
}

/// In one repository, only the tag is written.
#[tokio::test]
async fn a_tag_is_promoted_within_its_repository() {
    let world = World::new().await;
    let image = world.push_image("a", "rc", "one").await;
    let _ = world.counts.take();
    let promoted = world.promote("a:rc", "a:final").await.unwrap();
    assert_eq!(
        (promoted.digest, promoted.moved, promoted.manifests),
        (image.digest, true, 0)
    );
    assert_eq!(
        (world.counts.writes(), world.counts.of(StoreMethod::PutManifest)),
        (1, 1)
    );
    assert_eq!(world.digest_of("a:final").await, Some(image.digest));
    assert_eq!(author(&world.changes("a:final").await[0]), (OPERATOR, Some("a:rc")));
}

/// Each call of a store fails in turn, before it has done anything and after it has done everything. Whatever was done then,
/// every tag of the target can be pulled, and the tag of the image comes last.
#[tokio::test]
async fn an_interrupted_promotion_leaves_no_incomplete_tag() {
    for point in [FaultPoint::Before, FaultPoint::After] {
        let mut nth = 1;
        loop {
            let world = World::new().await;
            let image = world.push_signed().await;
            world.faults.plan(Fault {
                method: None,
                nth,
                kind: FaultKind::Failed,
                point,
            });
            let outcome = world.promote("staging/app:1", "prod/app:1").await;
            let is_interrupted = world.faults.struck() > 0;
            world.faults.clear();
            assert_eq!(outcome.is_err(), is_interrupted, "call {nth}: {outcome:?}");
            for tag in world.tags("prod/app").await {
                world.pull_all("prod/app", tag.as_str()).await;
            }
            if world.digest_of("prod/app:1").await.is_some() {
                image.check(&world, "prod/app", "1").await;
            }
            world.promote("staging/app:1", "prod/app:1").await.unwrap();
            image.check(&world, "prod/app", "1").await;
            assert_eq!(world.changes("prod/app:1").await.len(), 1);
            if !is_interrupted {
                break;
            }
            nth += 1;
        }
        assert!(nth > 30, "{nth} calls");
    }
}

#[tokio::test]
async fn s03_an_immutable_tag_is_not_released_again() {
    let world = World::new().await;
    let (one, two) = (
        world.push_image("staging/app", "1", "one").await,
        world.push_image("staging/app", "2", "two").await,
    );
    let identity = operator_under(shared());
    let promote = async |from: &str, to: &str| world.promote_as(&identity, from, to, true).await;
    promote("staging/app:2", "prod/app:1.0.0").await.unwrap();
    // Within the grace.
    promote("staging/app:1", "prod/app:1.0.0").await.unwrap();
    world.clock.pass(GRACE_MS);
    let _ = world.counts.take();
    let refused = promote("staging/app:2", "prod/app:1.0.0").await;
    assert!(matches!(refused, Err(ReleaseError::Protected(_))), "{refused:?}");
    let refused = words(refused);
    assert!(
        refused.contains("\"releases\"") && refused.contains(&one.digest.to_string()),
        "{refused}"
    );
    for to in [Earlier::Digest(two.digest), {
        let first = &world.changes("prod/app:1.0.0").await[1];
        Earlier::Version(first.version)
    }] {
        let refused = world.roll_back_as(&identity, "prod/app:1.0.0", to).await;
        assert!(matches!(refused, Err(ReleaseError::Protected(_))), "{refused:?}");
    }
    assert_eq!(world.counts.writes(), 0);
    // What it names already, and a tag that no rule freezes.
    assert!(!promote("staging/app:1", "prod/app:1.0.0").await.unwrap().moved);
    assert!(promote("staging/app:2", "prod/app:latest").await.unwrap().moved);
    // Deleted while it was frozen, it comes back with its digest only.
    world.delete("/v2/prod/app/manifests/1.0.0").send().await.expect(202);
    let refused = words(promote("staging/app:2", "prod/app:1.0.0").await);
    assert!(refused.contains("stays immutable"), "{refused}");
    assert!(promote("staging/app:1", "prod/app:1.0.0").await.unwrap().moved);
    // Its grace does not begin again.
    let refused = words(promote("staging/app:2", "prod/app:1.0.0").await);
    assert!(refused.contains("is immutable"), "{refused}");
    let refused = world.roll_back_as(&identity, "prod/app:1.0.0", Earlier::Digest(two.digest));
    assert!(matches!(refused.await, Err(ReleaseError::Protected(_))));
    assert_eq!(world.digest_of("prod/app:1.0.0").await, Some(one.digest));
}

#[tokio::test]
async fn s04_a_creator_releases_new_tags_only() {
    let world = World::new().await;
    world.push_image("a", "1", "one").await;
    world.push_image("a", "2", "two").await;
    let rule = AccessRule {
        name: "r".into(),
        repositories: vec!["**".parse().unwrap()],
        actions: Actions::CREATE.union(Actions::PULL),
    };
    let creator = Identity::new(Principal::robot("ci").unwrap(), Rules::new(vec![rule], Vec::new()));
    for (from, is_allowed) in [("a:1", true), ("a:1", true), ("a:2", false)] {
        let outcome = world.promote_as(&creator, from, "b:latest", true).await;
        assert_eq!(outcome.is_ok(), is_allowed, "{from}: {outcome:?}");
    }
    let old = world.changes("b:latest").await[0].version;
    world.promote("a:2", "b:latest").await.unwrap();
    let refused = words(world.roll_back_as(&creator, "b:latest", Earlier::Version(old)).await);
    assert!(refused.contains("only create tags"), "{refused}");
}

#[tokio::test]
async fn a_promotion_creates_no_listed_repository() {
    let world = World::new().await;
    world.push_image("a", "1", "one").await;
    let identity = operator_under(shared());
    let refused = world.promote_as(&identity, "a:1", "listed/app:1", true).await;
    assert!(matches!(refused, Err(ReleaseError::NoRepository(_))), "{refused:?}");
    world
        .metadata
        .create_repository(CX, &name("listed/app"), &Author::operator())
        .await
        .unwrap();
    world.promote_as(&identity, "a:1", "listed/app:1", true).await.unwrap();
    world.pull_all("listed/app", "1").await;
}

/// The bytes of a large manifest are stored again, since its object belongs to its record.
#[tokio::test]
async fn a_large_manifest_is_copied() {
    let world = World::new().await;
    world.push_blob("a", EMPTY).await;
    let large = padded(&image(EMPTY, &[]), 50_000);
    let digest = world.push_manifest("a", "1", &large).await;
    for copied in [50_000, 0] {
        let promoted = world.promote("a:1", "b:1").await.unwrap();
        assert_eq!((promoted.digest, promoted.copied_bytes), (digest, copied));
        world.pull_all("b", "1").await;
    }
    let get = world.get("/v2/b/manifests/1").send().await.expect(200);
    assert_eq!(get.body, large);
}

#[tokio::test]
async fn referrers_are_bounded() {
    for (number, is_allowed) in [(MAX_REFERRERS, true), (MAX_REFERRERS + 1, false)] {
        let world = World::new().await;
        let manifest = world.push_layers("a", &[], Some("1")).await;
        for index in 0..number {
            let referrer = bytes_of(&artifact(&format!("a/type-{index}"), &manifest));
            world.put_by_digest("a", &referrer).await;
        }
        let outcome = world.promote("a:1", "b:1").await;
        if is_allowed {
            assert_eq!(outcome.unwrap().referrers, number);
            assert_eq!(world.referrers("b", &sha256(&manifest)).await.len(), number);
            continue;
        }
        assert!(matches!(outcome, Err(ReleaseError::TooManyReferrers)), "{outcome:?}");
        assert_eq!(world.digest_of("b:1").await, None);
        let without = world.promote_as(&operator(), "a:1", "b:1", false).await;
        assert!(without.unwrap().moved);
    }
}

#[tokio::test]
async fn the_depth_of_indexes_is_bounded() {
    let world = World::new().await;
    let mut inner = bytes_of(&index(&[]));
    world.push_manifest("a", "0", &inner).await;
    for depth in 1..=MAX_DEPTH + 1 {
        let mut outer = index(&[]);
        outer["manifests"] = json!([descriptor(MediaType::OCI_INDEX, &inner)]);
        inner = bytes_of(&outer);
        world.push_manifest("a", depth, &inner).await;
    }
    let promoted = world.promote(&format!("a:{MAX_DEPTH}"), "b:1").await.unwrap();
    assert_eq!(promoted.manifests, MAX_DEPTH + 1);
    let refused = world.promote(&format!("a:{}", MAX_DEPTH + 1), "c:1").await;
    assert!(matches!(refused, Err(ReleaseError::TooDeep)), "{refused:?}");
    assert!(world.tags("c").await.is_empty());
}

/// Signatures that were made in the target are not lost, and new ones of the source are added.
#[tokio::test]
async fn a_tag_of_signatures_in_the_target_loses_nothing() {
    let world = World::new().await;
    let manifest = world.push_layers("a", &[&b"layer"[..]], Some("1")).await;
    let tag = format!("sha256-{}.sig", sha256(&manifest).hex());
    let (one, two, three): (&[u8], &[u8], &[u8]) = (b"one", b"two", b"three");
    world.push_layers("a", &[one], Some(&tag)).await;
    assert!(world.promote("a:1", "b:1").await.unwrap().kept.is_empty());
    // Signed once more there.
    let there = world.push_layers("b", &[one, two], Some(&tag)).await;
    let promoted = world.promote("a:1", "b:1").await.unwrap();
    assert_eq!(promoted.kept, [tag.parse().unwrap()]);
    assert_eq!(world.digest_of(&format!("b:{tag}")).await, Some(sha256(&there)));
    let more = world.push_layers("a", &[one, two, three], Some(&tag)).await;
    assert!(world.promote("a:1", "b:1").await.unwrap().kept.is_empty());
    assert_eq!(world.digest_of(&format!("b:{tag}")).await, Some(sha256(&more)));
    world.pull_all("b", &tag).await;
}

/// The entries of a cache's index are blobs.
#[tokio::test]
async fn an_index_may_list_blobs() {
    let world = World::new().await;
    world.push_blob("a", "layer").await;
    let mut cache = index(&[]);
    cache["manifests"] = json!([descriptor(MediaType::OCI_LAYER, b"layer")]);
    world.push_manifest("a", "cache", &bytes_of(&cache)).await;
    assert_eq!(world.promote("a:cache", "b:cache").await.unwrap().manifests, 1);
    assert!(world.blob("b", &sha256(b"layer")).await.is_some());
}

#[tokio::test]
async fn what_the_source_lacks_is_not_promoted() {
    let sparse = |sparse| Settings {
        sparse,
        ..Settings::default()
    };
    let world = World::with(Setup {
        settings: sparse(Sparse::Indexes),
        ..Setup::default()
    })
    .await;
    let present = world.push_layers("a", &[], None).await;
    let absent = bytes_of(&image(EMPTY, &[&b"absent"[..]]));
    world
        .push_manifest("a", "1", &bytes_of(&index(&[&present, &absent])))
        .await;
    let strict = world.another(Arc::new(Anonymous::all()), sparse(Sparse::Refuse)).await;
    let refused = words(strict.promote("a:1", "b:1").await);
    assert!(refused.contains(&sha256(&absent).to_string()), "{refused}");
    assert_eq!(world.digest_of("b:1").await, None);
    assert_eq!(world.promote("a:1", "b:1").await.unwrap().manifests, 2);
    // A lost object is never left out.
    let world = World::new().await;
    let image = world.push_image("a", "1", "one").await;
    let location = world.location_of("a", &image.layer).await;
    let recorded = world
        .metadata
        .record_defect(CX, None, &image.layer, &location, Defect::Missing)
        .await;
    assert_eq!(recorded.unwrap(), None);
    let refused = words(world.promote("a:1", "b:1").await);
    assert!(refused.contains(&image.layer.to_string()), "{refused}");
    assert_eq!(world.digest_of("b:1").await, None);
    for (from, reported) in [
        ("a:2".to_owned(), "has no tag 2"),
        ("absent:1".to_owned(), "absent has no tag 1"),
        (format!("b@{}", image.digest), "has no manifest"),
    ] {
        let refused = words(world.promote(&from, "c:1").await);
        assert!(refused.contains(reported), "{refused}");
    }
}
