//! Collection races those who push and delete: each meets the other before or after, never in between.

use super::{CollectionTrial, GRACE, PLAN};
use crate::contract::metadata::{digest, location, manifest, repository, tag};
use crate::contract::sessions::publishing;
use crate::store::metadata::{Content, ManifestPut, Removal};
use crate::store::sessions::State;

/// How often two meet.
const ROUNDS: usize = 30;

impl CollectionTrial {
    /// Two passes as a task.
    fn collecting(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let trial = self.clone();
        async move {
            trial.run(&PLAN).await;
            trial.run(&PLAN).await;
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
        let holders = self.names().holders(blob).await;
        assert!(
            holders.contains(repository),
            "{repository} does not hold what it links: {holders:?}"
        );
        self.run(&PLAN).await;
        assert!(self.is_named(blob, &link.location).await, "{link:?} was buried");
    }
}

/// Who was told that a blob is there, and may push, finds it there: a 200 never lies to a push in progress.
pub async fn a_collection_races_the_keeping_of_a_link(trial: CollectionTrial) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = trial.due(round).await;
        let keep = {
            let (trial, name) = (trial.clone(), name.clone());
            async move { trial.keep_link(&name, &blob).await }
        };
        let (kept, ()) = trial.race(round % 2 == 0, keep, trial.collecting()).await;
        assert_eq!(trial.names().link(&name, &blob).await, kept, "round {round}");
        if kept.is_some() {
            trial.assert_whole(&name, &blob).await;
        }
    }
}

/// A manifest is put over a blob that is due: published with the blob, or refused because it is gone.
pub async fn a_collection_races_a_put(trial: CollectionTrial) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = trial.due(round).await;
        let put = manifest(&name, format!("manifest {round}"))
            .requiring([blob])
            .tagged([tag("latest")]);
        let putting = {
            let (names, put) = (trial.names(), put.clone());
            async move { names.try_put(&put).await }
        };
        let (outcome, ()) = trial.race(round % 2 == 0, putting, trial.collecting()).await;
        let published = trial.names().manifest(&name, &put.digest).await.is_some();
        match outcome {
            ManifestPut::Stored | ManifestPut::AsItWas | ManifestPut::StoredElsewhere(_) => {
                assert!(published);
                trial.assert_whole(&name, &blob).await;
            }
            ManifestPut::Missing(missing) => {
                assert_eq!(missing, [blob]);
                assert!(!published);
                assert_eq!(trial.names().link(&name, &blob).await, None);
            }
            ManifestPut::Gone => panic!("it was put with its bytes"),
            ManifestPut::OtherType(other) => panic!("it was put with its own type, and is {other}"),
        }
    }
}

/// A blob that is due is pushed again, from another upload: it is there afterwards, and its bytes are.
pub async fn a_collection_races_a_commit(trial: CollectionTrial) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = trial.due(round).await;
        let commit = {
            let (names, name) = (trial.names(), name.clone());
            async move { names.commit_at(&name, &blob, &location(round)).await }
        };
        let ((), ()) = trial.race(round % 2 == 0, commit, trial.collecting()).await;
        trial.assert_whole(&name, &blob).await;
        let link = trial.names().link(&name, &blob).await.expect("the link");
        let other = [super::place_of(&blob), location(round)];
        for place in other.iter().filter(|place| **place != link.location) {
            assert!(
                trial.buried().await.contains(place),
                "round {round}: {place:?} lost its name"
            );
        }
    }
}

/// Bytes that nobody holds any more are pushed again while they are buried.
pub async fn a_burial_races_a_commit(trial: CollectionTrial) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = digest(format!("blob {round}"));
        trial.names().commit(&name, &blob).await;
        assert_eq!(trial.names().unlink(&name, &blob).await, Removal::Removed);
        // Half of the rounds repeat the final PUT of the same upload.
        let place = if round % 4 < 2 {
            location(round)
        } else {
            super::place_of(&blob)
        };
        let commit = {
            let (names, name) = (trial.names(), name.clone());
            async move { names.commit_at(&name, &blob, &place).await }
        };
        let ((), ()) = trial.race(round % 2 == 0, commit, trial.collecting()).await;
        trial.assert_whole(&name, &blob).await;
    }
}

/// A blob is mounted while its source is collected: the mount is whole, or was refused.
pub async fn a_collection_races_a_mount(trial: CollectionTrial) {
    let (from, to) = (repository("a"), repository("b"));
    for round in 0..ROUNDS {
        let blob = trial.due(round).await;
        let mount = {
            let (names, from, to) = (trial.names(), from.clone(), to.clone());
            async move { names.mount(&to, &blob, &from).await }
        };
        let (mounted, ()) = trial.race(round % 2 == 0, mount, trial.collecting()).await;
        if mounted {
            trial.assert_whole(&to, &blob).await;
        } else {
            assert_eq!(trial.names().link(&to, &blob).await, None);
        }
    }
}

/// A large manifest is put again while the bytes of its last life are buried.
pub async fn a_burial_races_a_large_manifest(trial: CollectionTrial) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let put = manifest(&name, format!("large {round}"));
        trial.names().put(&put.clone().stored_at(location(2 * round))).await;
        assert_eq!(
            trial.names().delete_manifest(&name, &put.digest).await,
            Removal::Removed
        );
        let again = put.clone().stored_at(location(2 * round + 1));
        let putting = {
            let (names, again) = (trial.names(), again.clone());
            async move { names.put(&again).await }
        };
        let ((), ()) = trial.race(round % 2 == 0, putting, trial.collecting()).await;
        trial.run(&PLAN).await;
        let record = trial.names().manifest(&name, &put.digest).await.expect("the manifest");
        let Content::Stored(place) = record.content else {
            panic!("it was stored");
        };
        assert!(trial.is_named(&put.digest, &place).await, "round {round}");
    }
}

/// Manifests, tags and links are deleted while they are collected: all are gone, and the bytes are buried once.
pub async fn a_collection_races_deletes(trial: CollectionTrial) {
    let name = repository("a");
    for round in 0..ROUNDS {
        let blob = trial.due(round).await;
        let put = manifest(&name, format!("manifest {round}")).tagged([tag("latest")]);
        trial.names().put(&put).await;
        let deleting = {
            let (names, name, put) = (trial.names(), name.clone(), put.clone());
            async move {
                let unlinked = names.unlink(&name, &blob).await;
                assert_ne!(unlinked, Removal::Referenced(put.digest));
                assert_eq!(names.delete_manifest(&name, &put.digest).await, Removal::Removed);
            }
        };
        let ((), ()) = trial.race(round % 2 == 0, deleting, trial.collecting()).await;
        trial.run(&PLAN).await;
        assert_eq!(trial.names().link(&name, &blob).await, None);
        let buried = trial.buried().await;
        let place = super::place_of(&blob);
        assert_eq!(buried.iter().filter(|location| **location == place).count(), 1);
        assert!(!trial.is_named(&blob, &place).await);
    }
}

/// Several collections at once do what one does.
pub async fn racing_collections_do_it_once(trial: CollectionTrial) {
    let names = trial.names();
    let name = repository("a");
    let blobs: Vec<_> = (0..20).map(|number| digest(format!("blob {number}"))).collect();
    for blob in &blobs {
        names.commit(&name, blob).await;
    }
    let kept = manifest(&name, "manifest").requiring(blobs[..10].iter().copied());
    names.put(&kept).await;
    for _ in 0..2 {
        trial.pass(GRACE);
        trial
            .together(4, |number| {
                let trial = trial.clone();
                async move { trial.pass_by(&PLAN, 3 + number).await }
            })
            .await;
    }
    trial.run(&PLAN).await;
    for blob in &blobs[..10] {
        trial.assert_whole(&name, blob).await;
    }
    for blob in &blobs[10..] {
        assert_eq!(names.link(&name, blob).await, None);
        assert!(!trial.is_named(blob, &super::place_of(blob)).await);
    }
    assert_eq!(trial.buried().await.len(), 10);
}

/// A session is swept while its last request commits it: it is committing and nothing was buried, or it is swept and
/// the commit has failed.
pub async fn a_sweep_races_the_commit(trial: CollectionTrial) {
    let sessions = trial.sessions();
    for round in 0..ROUNDS {
        let key = sessions.key(round as u128);
        let claim = sessions.claim(key).await;
        trial.pass(GRACE);
        let session = sessions.row(key).await;
        let commit = {
            let (sessions, claim) = (sessions.clone(), claim.clone());
            async move { sessions.commit(&claim, &digest("blob")).await }
        };
        let sweep = {
            let trial = trial.clone();
            async move { trial.sweep(key, &session).await }
        };
        let (committed, swept) = trial.race(round % 2 == 0, commit, sweep).await;
        let place = publishing(&claim, &digest("blob")).location;
        assert_eq!(trial.buried().await.contains(&place), swept.is_some(), "round {round}");
        assert_ne!(committed, swept.is_some(), "round {round}");
        let row = sessions.get(key).await;
        assert_eq!(row.map(|row| row.state), committed.then_some(State::Committing));
    }
}
