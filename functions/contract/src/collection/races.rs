//! Collection races those who push and delete: each meets the other before or after, never in between.

use super::{CollectionTest, GRACE, PLAN};
use crate::metadata::DescribeManifest as _;
use crate::metadata::{digest, location, manifest, repository, tag};
use crate::sessions::publishing;
use registry::store::metadata::{Content, ManifestPut, Removal};
use registry::store::sessions::State;

/// How often two meet.
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

    /// A blob of its own round, marked and due to be unlinked.
    async fn due(&self, round: usize) -> oci::Digest {
        let blob = digest(format!("blob {round}"));
        self.names().commit(&repository("a"), &blob).await;
        self.pass(GRACE);
        assert!(self.run(&PLAN).await.marked >= 1);
        self.pass(GRACE);
        blob
    }

    /// A link leads to bytes that their digest names.
    async fn assert_whole(&self, repository: &oci::RepositoryName, blob: &oci::Digest) {
        let link = self.names().link(repository, blob).await.expect("the link");
        assert!(self.is_named(blob, &link.location).await, "{link:?} leads nowhere");
        let linking_repositories = self.names().linking_repositories(blob).await;
        assert!(
            linking_repositories.contains(repository),
            "{repository} does not hold what it links: {linking_repositories:?}"
        );
        self.run(&PLAN).await;
        assert!(self.is_named(blob, &link.location).await, "{link:?} was buried");
    }
}

/// Who was told that a blob is there, and may push, finds it there: a 200 never lies to a push in progress.
pub async fn a_collection_races_the_keeping_of_a_link(test: CollectionTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = test.due(round).await;
        let keep = {
            let (test, name) = (test.clone(), name.clone());
            async move { test.link_and_unmark(&name, &blob).await }
        };
        let (kept, ()) = test.race(round % 2 == 0, keep, test.collecting()).await;
        assert_eq!(test.names().link(&name, &blob).await, kept, "round {round}");
        if kept.is_some() {
            test.assert_whole(&name, &blob).await;
        }
    }
}

/// A manifest is put over a blob that is due: published with the blob, or refused because it is gone.
pub async fn a_collection_races_a_put(test: CollectionTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = test.due(round).await;
        let put = manifest(&name, format!("manifest {round}"))
            .requiring([blob])
            .tagged([tag("latest")]);
        let putting = {
            let (names, put) = (test.names(), put.clone());
            async move { names.try_put(&put).await }
        };
        let (outcome, ()) = test.race(round % 2 == 0, putting, test.collecting()).await;
        let published = test.names().manifest(&name, &put.digest).await.is_some();
        match outcome {
            ManifestPut::Stored | ManifestPut::AsItWas | ManifestPut::StoredElsewhere(_) => {
                assert!(published);
                test.assert_whole(&name, &blob).await;
            }
            ManifestPut::Missing(missing) => {
                assert_eq!(missing, [blob]);
                assert!(!published);
                assert_eq!(test.names().link(&name, &blob).await, None);
            }
            ManifestPut::Gone => panic!("it was put with its bytes"),
            ManifestPut::OtherType(other) => panic!("it was put with its own type, and is {other}"),
        }
    }
}

/// A blob that is due is pushed again, from another upload: it is there afterwards, and its bytes are.
pub async fn a_collection_races_a_commit(test: CollectionTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = test.due(round).await;
        let commit = {
            let (names, name) = (test.names(), name.clone());
            async move { names.commit_at(&name, &blob, &location(round)).await }
        };
        let ((), ()) = test.race(round % 2 == 0, commit, test.collecting()).await;
        test.assert_whole(&name, &blob).await;
        let link = test.names().link(&name, &blob).await.expect("the link");
        let other = [super::place_of(&blob), location(round)];
        for place in other.iter().filter(|place| **place != link.location) {
            assert!(
                test.scheduled().await.contains(place),
                "round {round}: {place:?} lost its name"
            );
        }
    }
}

/// Bytes that nobody holds any more are pushed again while they are buried.
pub async fn a_burial_races_a_commit(test: CollectionTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = digest(format!("blob {round}"));
        test.names().commit(&name, &blob).await;
        assert_eq!(test.names().unlink(&name, &blob).await, Removal::Removed);
        // Half of the rounds repeat the final PUT of the same upload.
        let place = if round % 4 < 2 {
            location(round)
        } else {
            super::place_of(&blob)
        };
        let commit = {
            let (names, name) = (test.names(), name.clone());
            async move { names.commit_at(&name, &blob, &place).await }
        };
        let ((), ()) = test.race(round % 2 == 0, commit, test.collecting()).await;
        test.assert_whole(&name, &blob).await;
    }
}

/// A blob is mounted while its source is collected: the mount is whole, or was refused.
pub async fn a_collection_races_a_mount(test: CollectionTest) {
    let (from, to) = (repository("a"), repository("b"));
    for round in 0..ROUNDS {
        let blob = test.due(round).await;
        let mount = {
            let (names, from, to) = (test.names(), from.clone(), to.clone());
            async move { names.mount(&to, &blob, &from).await }
        };
        let (mounted, ()) = test.race(round % 2 == 0, mount, test.collecting()).await;
        if mounted {
            test.assert_whole(&to, &blob).await;
        } else {
            assert_eq!(test.names().link(&to, &blob).await, None);
        }
    }
}

/// A large manifest is put again while the bytes of its last life are buried.
pub async fn a_burial_races_a_large_manifest(test: CollectionTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let put = manifest(&name, format!("large {round}"));
        test.names().put(&put.clone().stored_at(location(2 * round))).await;
        assert_eq!(test.names().delete_manifest(&name, &put.digest).await, Removal::Removed);
        let again = put.clone().stored_at(location(2 * round + 1));
        let putting = {
            let (names, again) = (test.names(), again.clone());
            async move { names.put(&again).await }
        };
        let ((), ()) = test.race(round % 2 == 0, putting, test.collecting()).await;
        test.run(&PLAN).await;
        let record = test.names().manifest(&name, &put.digest).await.expect("the manifest");
        let Content::Stored(place) = record.content else {
            panic!("it was stored");
        };
        assert!(test.is_named(&put.digest, &place).await, "round {round}");
    }
}

/// Manifests, tags and links are deleted while they are collected: all are gone, and the bytes are buried once.
pub async fn a_collection_races_deletes(test: CollectionTest) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = test.due(round).await;
        let put = manifest(&name, format!("manifest {round}")).tagged([tag("latest")]);
        test.names().put(&put).await;
        let deleting = {
            let (names, name, put) = (test.names(), name.clone(), put.clone());
            async move {
                let unlinked = names.unlink(&name, &blob).await;
                assert_ne!(unlinked, Removal::Referenced(put.digest));
                assert_eq!(names.delete_manifest(&name, &put.digest).await, Removal::Removed);
            }
        };
        let ((), ()) = test.race(round % 2 == 0, deleting, test.collecting()).await;
        test.run(&PLAN).await;
        assert_eq!(test.names().link(&name, &blob).await, None);
        let scheduled = test.scheduled().await;
        let place = super::place_of(&blob);
        assert_eq!(scheduled.iter().filter(|location| **location == place).count(), 1);
        assert!(!test.is_named(&blob, &place).await);
    }
}

/// Several collections at once do what one does.
pub async fn racing_collections_do_it_once(test: CollectionTest) {
    let names = test.names();
    let name = repository("a");
    let blobs: Vec<_> = (0..20).map(|number| digest(format!("blob {number}"))).collect();
    for blob in &blobs {
        names.commit(&name, blob).await;
    }
    let kept = manifest(&name, "manifest").requiring(blobs[..10].iter().copied());
    names.put(&kept).await;
    for _ in 0..2 {
        test.pass(GRACE);
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
        assert_eq!(names.link(&name, blob).await, None);
        assert!(!test.is_named(blob, &super::place_of(blob)).await);
    }
    assert_eq!(test.scheduled().await.len(), 10);
}

/// A session is swept while its last request commits it: it is committing and nothing was buried, or it is swept and
/// the commit has failed.
pub async fn a_sweep_races_the_commit(test: CollectionTest) {
    let sessions = test.sessions();
    for round in 0..ROUNDS {
        let key = sessions.key(round as u128);
        let claim = sessions.claim(key).await;
        test.pass(GRACE);
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
        let place = publishing(&claim, &digest("blob")).location;
        assert_eq!(
            test.scheduled().await.contains(&place),
            swept.is_some(),
            "round {round}"
        );
        assert_ne!(committed, swept.is_some(), "round {round}");
        let row = sessions.get(key).await;
        assert_eq!(row.map(|row| row.state), committed.then_some(State::Committing));
    }
}
