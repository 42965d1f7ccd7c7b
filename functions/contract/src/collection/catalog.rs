//! Empty repositories leave the catalog, at once or in a later pass, and return with a push.

use oci::RepositoryName;
use registry::store::metadata::{Listing, Removal};

use super::{CollectionTest, DRY, GRACE, PLAN, PassStatistics};
use crate::metadata::DescribeManifest as _;
use crate::metadata::{digest, manifest, repository, tag};

/// The maximum number of passes, each a grace period after the one before, that a store may take for it.
const PASSES: usize = 3;

/// Rounds of the race.
const ROUNDS: usize = 30;

impl CollectionTest {
    /// Puts a manifest and deletes it.
    async fn emptied(&self, name: &RepositoryName, content: &str) {
        let metadata = self.metadata();
        let image = manifest(name, content).tagged([tag("latest")]);
        metadata.put(&image).await;
        assert!(metadata.is_listed(name).await);
        assert_eq!(metadata.delete_manifest(name, &image.digest).await, Removal::Removed);
    }

    /// An empty repository, which the next pass removes from the catalog.
    async fn due_for_removal(&self, round: usize) -> RepositoryName {
        let name = repository(&format!("r{round}"));
        self.emptied(&name, "image").await;
        self.passes(1).await;
        self.advance(GRACE);
        name
    }

    /// A pass, which may run beside other requests.
    fn pass_beside_others(&self) -> impl Future<Output = PassStatistics> + Send + use<> {
        let test = self.clone();
        async move { test.run(&PLAN).await }
    }

    /// Runs this number of passes, each after a grace period, and counts the repositories that left the catalog.
    async fn passes(&self, number: usize) -> u64 {
        let mut gone = 0;
        for _ in 0..number {
            self.advance(GRACE);
            gone += self.run(&PLAN).await.repositories;
        }
        gone
    }
}

/// A repository without manifests and blobs leaves the catalog; others stay. A dry run removes nothing.
pub async fn an_empty_repository_leaves_the_catalog(test: CollectionTest) {
    let metadata = test.metadata();
    let (empty, other) = (repository("team/empty"), repository("team/empty-not"));
    test.emptied(&empty, "image").await;
    metadata.put(&manifest(&other, "image")).await;
    let mut gone = 0;
    for _ in 0..PASSES {
        test.advance(GRACE);
        let before = metadata.is_listed(&empty).await;
        test.run(&DRY).await;
        assert_eq!(metadata.is_listed(&empty).await, before, "by a dry run");
        gone += test.run(&PLAN).await.repositories;
    }
    assert_eq!(gone, 1);
    assert!(!metadata.is_listed(&empty).await);
    assert!(metadata.is_listed(&other).await);
    assert_eq!(test.passes(2).await, 0, "nothing else is left to do");
    assert!(metadata.is_listed(&other).await);
    assert_eq!(
        metadata.history(&empty, &tag("latest")).await.len(),
        2,
        "the history of its tags stays"
    );
}

/// A repository with a blob that a client may still use stays in the catalog.
pub async fn a_repository_with_a_blob_stays_in_the_catalog(test: CollectionTest) {
    let metadata = test.metadata();
    let (name, blob) = (repository("a"), digest("layer"));
    metadata.commit(&name, &blob).await;
    test.emptied(&name, "image").await;
    for _ in 0..=PASSES {
        test.advance(GRACE);
        assert_eq!(test.run(&PLAN).await.repositories, 0);
        // Like a HEAD by a principal that may push.
        assert!(test.link_and_unmark(&name, &blob).await.is_some());
    }
    assert!(metadata.is_listed(&name).await);
    assert_eq!(metadata.unlink(&name, &blob).await, Removal::Removed);
    assert_eq!(test.passes(PASSES).await, 1);
    assert!(!metadata.is_listed(&name).await);
}

/// A push to a repository that has left the catalog, or is about to, lists it again.
pub async fn a_repository_that_is_pushed_to_again_is_listed_again(test: CollectionTest) {
    let metadata = test.metadata();
    let name = repository("a");
    for passes in 0..=PASSES {
        test.emptied(&name, &format!("image {passes}")).await;
        test.passes(passes).await;
        test.advance(GRACE);
        metadata.put(&manifest(&name, format!("again {passes}"))).await;
        assert!(metadata.is_listed(&name).await, "after {passes} passes");
        assert_eq!(test.passes(PASSES).await, 0, "after {passes} passes");
        assert!(metadata.is_listed(&name).await, "after {passes} passes");
        let again = metadata.manifests(&name, None, 10).await.items;
        assert_eq!(again.len(), 1);
        assert_eq!(metadata.delete_manifest(&name, &again[0]).await, Removal::Removed);
    }
}

/// A repository that was created is listed while it is empty, also after it was used, and in an export.
pub async fn a_created_repository_stays_in_the_catalog(test: CollectionTest) {
    let metadata = test.metadata();
    let (new, used, passing) = (repository("new"), repository("used"), repository("passing"));
    assert!(metadata.create_repository(&new).await);
    assert!(metadata.is_listed(&new).await);
    assert_eq!(metadata.listing(&new).await, Some(Listing::Permanent));
    assert!(!metadata.create_repository(&new).await, "again");
    // One that exists becomes permanent too, also if a pass has marked it.
    test.emptied(&used, "image").await;
    test.emptied(&passing, "image").await;
    test.advance(GRACE);
    test.run(&DRY).await;
    assert_eq!(metadata.listing(&used).await, Some(Listing::Published));
    assert!(!metadata.create_repository(&used).await, "it was listed");
    assert_eq!(metadata.listing(&used).await, Some(Listing::Permanent));
    test.emptied(&new, "image").await;
    test.passes(PASSES).await;
    assert!(metadata.is_listed(&new).await);
    assert!(metadata.is_listed(&used).await);
    assert!(!metadata.is_listed(&passing).await);
    assert_eq!(metadata.listing(&passing).await, None);
    assert_eq!(metadata.tags(&new, None, 10).await.items, []);
    // It can be used as any other.
    metadata.put(&manifest(&new, "image").tagged([tag("latest")])).await;
    assert!(!metadata.create_repository(&new).await);
}

/// A repository is created while its row is due for removal, or while others create it: it is listed, and one caller
/// has created it.
pub async fn a_creation_races_a_collection_and_another_creation(test: CollectionTest) {
    let metadata = test.metadata();
    for round in 0..ROUNDS {
        let name = test.due_for_removal(round).await;
        let creating = {
            let (metadata, name) = (metadata.clone(), name.clone());
            async move { metadata.create_repository(&name).await }
        };
        let collecting = test.pass_beside_others();
        test.race(round % 2 == 0, creating, collecting).await;
        assert!(metadata.is_listed(&name).await, "round {round}");
        let name = repository(&format!("s{round}"));
        let created = metadata
            .together(2, |_| {
                let (metadata, name) = (metadata.clone(), name.clone());
                async move { metadata.create_repository(&name).await }
            })
            .await;
        assert_ne!(created[0], created[1], "round {round}");
        assert!(metadata.is_listed(&name).await, "round {round}");
    }
    test.passes(PASSES).await;
    for round in 0..ROUNDS {
        for kind in ["r", "s"] {
            assert!(metadata.is_listed(&repository(&format!("{kind}{round}"))).await);
        }
    }
}

/// A manifest is put while the row of its repository is due for removal: in either order, a repository with a manifest
/// is listed.
pub async fn a_collection_of_the_catalog_races_a_put(test: CollectionTest) {
    let metadata = test.metadata();
    for round in 0..ROUNDS {
        let name = test.due_for_removal(round).await;
        let put = manifest(&name, "again");
        let putting = {
            let (metadata, put) = (metadata.clone(), put.clone());
            async move { metadata.put(&put).await }
        };
        let collecting = test.pass_beside_others();
        let ((), _) = test.race(round % 2 == 0, putting, collecting).await;
        assert!(metadata.manifest(&name, &put.digest).await.is_some());
        assert!(metadata.is_listed(&name).await, "round {round}");
        assert_eq!(metadata.delete_manifest(&name, &put.digest).await, Removal::Removed);
    }
}
