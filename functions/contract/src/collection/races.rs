//! Collection races pushes and deletions: each happens before or after the other.

use registry::store::metadata::{Content, ManifestPut, Removal};
use registry::store::sessions::State;

use super::{CollectionTest, GRACE, PLAN};
use crate::metadata::DescribeManifest as _;
use crate::metadata::{digest, location, manifest, repository, tag};
use crate::sessions::publishing;

/// Rounds of each race.
const ROUNDS: usize = 30;

impl CollectionTest {
    /// Two passes as a task.
    fn collecting(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let test = self.clone();
        async move {
            test.run(&PLAN).await;
            test.run(&PLAN).await;
        }
    }

    /// The blob of this round, marked and due to be unlinked.
    async fn due(&self, round: usize) -> oci::Digest {
        let blob = digest(format!("blob {round}"));
        self.metadata().commit(&repository("a"), &blob).await;
        self.advance(GRACE);
        assert!(self.run(&PLAN).await.marked >= 1);
        self.advance(GRACE);
        blob
    }

    /// Asserts that a link has the location of its blob record, and is a back-reference of it.
    async fn assert_whole(&self, repository: &oci::RepositoryName, blob: &oci::Digest) {
        let link = self.metadata().link(repository, blob).await.expect("the link");
        assert!(
            self.is_recorded_location(blob, &link.location).await,
            "{link:?} has no object"
        );
        let linking_repositories = self.metadata().linking_repositories(blob).await;
        assert!(
            linking_repositories.contains(repository),
            "{repository} does not hold what it links: {linking_repositories:?}"
        );
        self.run(&PLAN).await;
        assert!(
            self.is_recorded_location(blob, &link.location).await,
            "{link:?} is scheduled for deletion"
        );
    }
}

/// A client that may push and got the answer that a blob exists finds it afterwards: a 200 must be true for a push in
/// progress.
pub async fn a_collection_races_link_and_unmark(test: CollectionTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = test.due(round).await;
        let keep = {
            let (test, name) = (test.clone(), name.clone());
            async move { test.link_and_unmark(&name, &blob).await }
        };
        let (kept, ()) = test.race(round % 2 == 0, keep, test.collecting()).await;
        assert_eq!(test.metadata().link(&name, &blob).await, kept, "round {round}");
        if kept.is_some() {
            test.assert_whole(&name, &blob).await;
        }
    }
}

/// A manifest is put over a blob that is due for collection: it is published with the blob, or refused because the blob
/// is gone.
pub async fn a_collection_races_a_put(test: CollectionTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = test.due(round).await;
        let put = manifest(&name, format!("manifest {round}"))
            .requiring([blob])
            .tagged([tag("latest")]);
        let putting = {
            let (metadata, put) = (test.metadata(), put.clone());
            async move { metadata.try_put(&put).await }
        };
        let (outcome, ()) = test.race(round % 2 == 0, putting, test.collecting()).await;
        let published = test.metadata().manifest(&name, &put.digest).await.is_some();
        match outcome {
            ManifestPut::Stored | ManifestPut::AsItWas | ManifestPut::StoredElsewhere(_) => {
                assert!(published);
                test.assert_whole(&name, &blob).await;
            }
            ManifestPut::Missing(missing) => {
                assert_eq!(missing, [blob]);
                assert!(!published);
                assert_eq!(test.metadata().link(&name, &blob).await, None);
            }
            ManifestPut::Gone => panic!("it was put with its bytes"),
            ManifestPut::Protected(protected) => panic!("{protected:?}"),
            ManifestPut::OtherType(other) => panic!("it was put with its own type, and is {other}"),
        }
    }
}

/// A blob that is due for collection is pushed again by another upload: afterwards it exists, with its bytes.
pub async fn a_collection_races_a_commit(test: CollectionTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = test.due(round).await;
        let commit = {
            let (metadata, name) = (test.metadata(), name.clone());
            async move { metadata.commit_at(&name, &blob, &location(round)).await }
        };
        let ((), ()) = test.race(round % 2 == 0, commit, test.collecting()).await;
        test.assert_whole(&name, &blob).await;
        let link = test.metadata().link(&name, &blob).await.expect("the link");
        let other = [super::own_location(&blob), location(round)];
        for location in other.iter().filter(|location| **location != link.location) {
            assert!(
                test.scheduled().await.contains(location),
                "round {round}: {location:?} has no record"
            );
        }
    }
}

/// Unreferenced bytes are pushed again while they are scheduled for deletion.
pub async fn a_schedule_for_deletion_races_a_commit(test: CollectionTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = digest(format!("blob {round}"));
        test.metadata().commit(&name, &blob).await;
        assert_eq!(test.metadata().unlink(&name, &blob).await, Removal::Removed);
        // Half of the rounds repeat the final PUT of the same upload.
        let location = if round % 4 < 2 {
            location(round)
        } else {
            super::own_location(&blob)
        };
        let commit = {
            let (metadata, name) = (test.metadata(), name.clone());
            async move { metadata.commit_at(&name, &blob, &location).await }
        };
        let ((), ()) = test.race(round % 2 == 0, commit, test.collecting()).await;
        test.assert_whole(&name, &blob).await;
    }
}

/// A blob is mounted while its source is collected: the mount is complete or refused.
pub async fn a_collection_races_a_mount(test: CollectionTest) {
    let (from, to) = (repository("a"), repository("b"));
    for round in 0..ROUNDS {
        let blob = test.due(round).await;
        let mount = {
            let (metadata, from, to) = (test.metadata(), from.clone(), to.clone());
            async move { metadata.mount(&to, &blob, &from).await }
        };
        let (mounted, ()) = test.race(round % 2 == 0, mount, test.collecting()).await;
        if mounted {
            test.assert_whole(&to, &blob).await;
        } else {
            assert_eq!(test.metadata().link(&to, &blob).await, None);
        }
    }
}

/// A large manifest is put again while the bytes of its earlier uid are scheduled for deletion.
pub async fn a_schedule_for_deletion_races_a_large_manifest(test: CollectionTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let put = manifest(&name, format!("large {round}"));
        test.metadata().put(&put.clone().stored_at(location(2 * round))).await;
        assert_eq!(
            test.metadata().delete_manifest(&name, &put.digest).await,
            Removal::Removed
        );
        let again = put.clone().stored_at(location(2 * round + 1));
        let putting = {
            let (metadata, again) = (test.metadata(), again.clone());
            async move { metadata.put(&again).await }
        };
        let ((), ()) = test.race(round % 2 == 0, putting, test.collecting()).await;
        test.run(&PLAN).await;
        let record = test
            .metadata()
            .manifest(&name, &put.digest)
            .await
            .expect("the manifest");
        let Content::Stored(location) = record.content else {
            panic!("it was stored");
        };
        assert!(test.is_recorded_location(&put.digest, &location).await, "round {round}");
    }
}

/// Manifests, tags and links are deleted while they are collected: all are gone, and each object is scheduled once.
pub async fn a_collection_races_deletes(test: CollectionTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = test.due(round).await;
        let put = manifest(&name, format!("manifest {round}")).tagged([tag("latest")]);
        test.metadata().put(&put).await;
        let deleting = {
            let (metadata, name, put) = (test.metadata(), name.clone(), put.clone());
            async move {
                let unlinked = metadata.unlink(&name, &blob).await;
                assert_ne!(unlinked, Removal::Referenced(put.digest));
                assert_eq!(metadata.delete_manifest(&name, &put.digest).await, Removal::Removed);
            }
        };
        let ((), ()) = test.race(round % 2 == 0, deleting, test.collecting()).await;
        test.run(&PLAN).await;
        assert_eq!(test.metadata().link(&name, &blob).await, None);
        let scheduled = test.scheduled().await;
        let own = super::own_location(&blob);
        assert_eq!(scheduled.iter().filter(|location| **location == own).count(), 1);
        assert!(!test.is_recorded_location(&blob, &own).await);
    }
}

/// Several collections at the same time do what one does.
pub async fn racing_collections_schedule_each_object_once(test: CollectionTest) {
    let metadata = test.metadata();
    let name = repository("a");
    let blobs: Vec<_> = (0..20).map(|number| digest(format!("blob {number}"))).collect();
    for blob in &blobs {
        metadata.commit(&name, blob).await;
    }
    let kept = manifest(&name, "manifest").requiring(blobs[..10].iter().copied());
    metadata.put(&kept).await;
    for _ in 0..2 {
        test.advance(GRACE);
        test.together(4, |number| {
            let test = test.clone();
            async move { test.pass_by(&PLAN, 3 + number).await }
        })
        .await;
    }
    test.run(&PLAN).await;
    for blob in &blobs[..10] {
        test.assert_whole(&name, blob).await;
    }
    for blob in &blobs[10..] {
        assert_eq!(metadata.link(&name, blob).await, None);
        assert!(!test.is_recorded_location(blob, &super::own_location(blob)).await);
    }
    assert_eq!(test.scheduled().await.len(), 10);
}

/// A session expires while its last request commits it: either it is committing and nothing was scheduled, or it has
/// expired and the commit has failed.
pub async fn an_expiry_races_the_commit(test: CollectionTest) {
    let sessions = test.sessions();
    for round in 0..ROUNDS {
        let key = sessions.key(round as u128);
        let claim = sessions.claim(key).await;
        test.advance(GRACE);
        let session = sessions.row(key).await;
        let commit = {
            let (sessions, claim) = (sessions.clone(), claim.clone());
            async move { sessions.commit(&claim, &digest("blob")).await }
        };
        let sweep = {
            let test = test.clone();
            async move { test.sweep(key, &session).await }
        };
        let (committed, swept) = test.race(round % 2 == 0, commit, sweep).await;
        let publishing = publishing(&claim, &digest("blob"));
        let location = &publishing.location;
        assert_eq!(
            test.scheduled().await.contains(location),
            swept.is_some(),
            "round {round}"
        );
        assert_ne!(committed, swept.is_some(), "round {round}");
        let row = sessions.get(key).await;
        assert_eq!(
            row.map(|row| row.state),
            committed.then_some(State::Committing(publishing))
        );
    }
}
