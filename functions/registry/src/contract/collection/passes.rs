//! Passes over all names: one at a time, resumable, in slices of any size, and harmless.

use super::{CollectionTrial, DEEP, DRY, ENDLESS, GRACE, HOUR, PLAN};
use crate::contract::metadata::{digest, location, manifest, repository, tag};
use crate::contract::sessions::progress;
use crate::store::collection::{Begun, LONGEST_LEASE_MS, Plan, Tally, UNTIL_IMPORTED};
use crate::store::metadata::Removal;
use crate::store::sessions::End;
use crate::store::{Cursor, Incarnation, Timestamp};

/// A minute, in milliseconds.
const MINUTE: u64 = 60_000;

impl CollectionTrial {
    async fn begin(&self, pass: u64) -> Begun {
        let until = self.now().plus_millis(MINUTE);
        let answer = self
            .store
            .collection
            .begin_pass(self.cx(), Incarnation(pass), until)
            .await;
        answer.expect("begin_pass")
    }

    async fn checkpoint(&self, pass: u64, next: Option<&Cursor>) -> bool {
        let until = self.now().plus_millis(MINUTE);
        let answer = self
            .store
            .collection
            .checkpoint(self.cx(), Incarnation(pass), next, until)
            .await;
        answer.expect("checkpoint")
    }

    /// Links `count` blobs in several repositories; nothing refers to them.
    async fn loose(&self, count: usize) {
        let names = self.names();
        for number in 0..count {
            let name = repository(&format!("r{}", number % 3));
            names.commit(&name, &digest(format!("loose {number}"))).await;
        }
    }

    async fn cursor(&self) -> Cursor {
        let next = self.slice(&PLAN, None, 1).await.next;
        next.expect("there is more than one name")
    }
}

/// What a process with a wrong clock has taken does not keep others out for longer than a lease may be; an import is
/// waited for whatever the time is.
pub async fn s33_a_lease_of_a_wrong_clock_holds_nobody_up(trial: CollectionTrial) {
    const YEARS: u64 = 5 * 365 * 24 * HOUR;
    let begin = async |pass, until| {
        let collection = &trial.store.collection;
        collection
            .begin_pass(trial.cx(), Incarnation(pass), until)
            .await
            .expect("begin_pass")
    };
    assert_eq!(begin(1, trial.now().plus_millis(YEARS)).await, Begun::Fresh);
    let longest = trial.now().plus_millis(LONGEST_LEASE_MS);
    assert_eq!(begin(2, longest).await, Begun::Fresh, "years are no lease");
    assert_eq!(
        begin(3, longest).await,
        Begun::Busy(longest),
        "the longest lease is one"
    );
    trial.pass(LONGEST_LEASE_MS);
    assert_eq!(
        begin(3, trial.now().plus_millis(LONGEST_LEASE_MS + 1)).await,
        Begun::Fresh
    );
    assert_eq!(
        begin(4, UNTIL_IMPORTED).await,
        Begun::Fresh,
        "one past the longest is none"
    );
    assert_eq!(begin(5, longest).await, Begun::Busy(UNTIL_IMPORTED));
}

/// One pass runs at a time: while it says so nobody else begins; when it has not said so in time, somebody else may.
pub async fn a_pass_runs_alone(trial: CollectionTrial) {
    assert_eq!(trial.begin(1).await, Begun::Fresh);
    let until = trial.now().plus_millis(MINUTE);
    assert_eq!(trial.begin(2).await, Begun::Busy(until));
    assert!(!trial.checkpoint(2, None).await, "who was refused has nothing to say");
    assert_eq!(trial.begin(3).await, Begun::Busy(until));
    trial.pass(MINUTE - 1);
    assert_eq!(trial.begin(2).await, Begun::Busy(until));
    trial.pass(1);
    assert_eq!(
        trial.begin(2).await,
        Begun::Fresh,
        "nothing was recorded of how far it had come"
    );
    assert!(!trial.checkpoint(1, None).await, "it was taken over");
    assert!(matches!(trial.begin(1).await, Begun::Busy(_)));
    assert!(trial.checkpoint(2, None).await);
    assert_eq!(trial.begin(1).await, Begun::Fresh, "it has ended");
}

/// A checkpoint holds the pass for longer, also one that came late while nobody else did.
pub async fn a_checkpoint_holds_the_pass(trial: CollectionTrial) {
    trial.loose(3).await;
    let cursor = trial.cursor().await;
    assert_eq!(trial.begin(1).await, Begun::Fresh);
    for _ in 0..3 {
        trial.pass(MINUTE - 1);
        assert!(trial.checkpoint(1, Some(&cursor)).await);
        assert_eq!(trial.begin(2).await, Begun::Busy(trial.now().plus_millis(MINUTE)));
    }
    trial.pass(MINUTE * 2);
    assert!(trial.checkpoint(1, Some(&cursor)).await, "late, but nobody had come");
    assert!(matches!(trial.begin(2).await, Begun::Busy(_)));
}

/// A pass that was interrupted goes on where it was, in another process; one that has ended leaves nothing.
pub async fn a_pass_is_resumed(trial: CollectionTrial) {
    trial.loose(9).await;
    trial.pass(GRACE);
    assert_eq!(trial.begin(1).await, Begun::Fresh);
    let mut total = Tally::default();
    let mut next = None;
    for _ in 0..4 {
        let slice = trial.slice(&PLAN, next.as_ref(), 2).await;
        total += slice.tally;
        next = slice.next;
        assert!(trial.checkpoint(1, next.as_ref()).await);
    }
    trial.pass(MINUTE);
    let cursor = next.expect("the walk has not ended");
    assert_eq!(trial.begin(2).await, Begun::Resumed(cursor.clone()));
    assert!(!trial.checkpoint(1, None).await, "it was taken over");
    let mut next = Some(cursor);
    for _ in 0..ENDLESS {
        let slice = trial.slice(&PLAN, next.as_ref(), 2).await;
        total += slice.tally;
        next = slice.next;
        assert!(trial.checkpoint(2, next.as_ref()).await);
        if next.is_none() {
            break;
        }
    }
    assert_eq!(total.marked, 9, "each was met once");
    assert!(!trial.checkpoint(2, None).await, "it has ended");
    assert_eq!(trial.begin(3).await, Begun::Fresh);
}

/// Of passes that begin at once, one begins.
pub async fn racing_passes_begin_one(trial: CollectionTrial) {
    for round in 0..8 {
        let begun = trial
            .together(8, |number| {
                let trial = trial.clone();
                async move { trial.begin(round * 8 + number as u64 + 1).await }
            })
            .await;
        let granted = begun.iter().filter(|begun| !matches!(begun, Begun::Busy(_))).count();
        assert_eq!(granted, 1, "{begun:?}");
        trial.pass(MINUTE);
    }
}

/// Slices of any size meet everything, and do to it the same.
pub async fn slices_meet_everything(trial: CollectionTrial) {
    let names = trial.names();
    let kept = repository("kept");
    for number in 0..5 {
        let blob = digest(format!("kept {number}"));
        names.commit(&kept, &blob).await;
        names
            .put(&manifest(&kept, format!("manifest {number}")).requiring([blob]))
            .await;
    }
    for limit in [1, 2, 3, 7, 1000] {
        trial.loose(13).await;
        assert_eq!(trial.pass_by(&PLAN, limit).await.done(), (0, 0, 0, 0));
        trial.pass(GRACE);
        assert_eq!(trial.pass_by(&PLAN, limit).await.marked, 13, "in slices of {limit}");
        trial.pass(GRACE);
        let mut tally = trial.pass_by(&PLAN, limit).await;
        assert_eq!(tally.unlinked, 13, "in slices of {limit}");
        tally += trial.pass_by(&PLAN, limit).await;
        assert_eq!((tally.buried, tally.buried_bytes), (13, 13_000), "in slices of {limit}");
        let graves = trial.graves().await;
        assert_eq!(graves.len(), 13);
        trial.forget(&graves).await;
    }
    for number in 0..5 {
        assert!(names.link(&kept, &digest(format!("kept {number}"))).await.is_some());
    }
}

/// What is written and removed during a walk does not keep it from meeting everything else.
pub async fn a_walk_goes_on_while_names_change(trial: CollectionTrial) {
    let names = trial.names();
    trial.loose(12).await;
    trial.pass(GRACE);
    let busy = repository("r1");
    let mut total = Tally::default();
    let mut next = None;
    for round in 0..ENDLESS {
        let slice = trial.slice(&PLAN, next.as_ref(), 2).await;
        total += slice.tally;
        next = slice.next;
        if next.is_none() {
            break;
        }
        if round < 20 {
            let young = digest(format!("young {round}"));
            names.commit(&busy, &young).await;
            if round % 2 == 0 {
                assert_eq!(names.unlink(&busy, &young).await, Removal::Removed);
            }
        }
    }
    assert!(next.is_none(), "the walk ends");
    assert_eq!(total.marked, 12);
    assert_eq!(total.unlinked, 0, "what is young stays");
}

/// A registry of everything: mounted and shared blobs, both digests of the same bytes, images, an index, large
/// manifests, a signature, tags that have moved and that are gone; and something of each kind that is garbage.
async fn furnish(trial: &CollectionTrial) {
    let names = trial.names();
    let (one, two) = (repository("one"), repository("two/deep"));
    let shared = digest("shared layer");
    names.commit(&one, &shared).await;
    assert!(names.mount(&two, &shared, &one).await);
    let mut images = Vec::new();
    for number in 0..4 {
        let config = digest(format!("config {number}"));
        names.commit(&one, &config).await;
        let mut image = manifest(&one, format!("image {number}"))
            .requiring([shared, config])
            .excepting([digest("foreign")])
            .tagged([tag("latest"), tag(&format!("v{number}"))]);
        if number % 2 == 1 {
            image = image.stored_at(location(number));
        }
        names.put(&image).await;
        images.push(image.digest);
    }
    let index = manifest(&one, "index")
        .requiring([images[0], images[1]])
        .tagged([tag("index")]);
    names.put(&index).await;
    names
        .put(
            &manifest(&one, "signature")
                .about(index.digest)
                .requiring([digest("config 0")]),
        )
        .await;
    names
        .put(&manifest(&two, "image 1").requiring([shared]).stored_at(location(9)))
        .await;
    assert!(names.delete_tag(&one, &tag("v3")).await);
    names.commit(&two, &digest("loose")).await;
    assert_eq!(names.unlink(&two, &digest("loose")).await, Removal::Removed);
}

/// Deletes every manifest of a repository, parents first.
async fn delete_all(trial: &CollectionTrial, name: &str) {
    let names = trial.names();
    let name = repository(name);
    for _ in 0..ENDLESS {
        let manifests = names.manifests(&name, None, 100).await.items;
        if manifests.is_empty() {
            return;
        }
        for digest in manifests {
            assert_ne!(names.delete_manifest(&name, &digest).await, Removal::Absent);
        }
    }
    panic!("manifests refer to each other");
}

/// Nothing that is young is touched, by any plan: pushes in progress look like garbage.
pub async fn nothing_young_is_touched(trial: CollectionTrial) {
    furnish(&trial).await;
    assert_eq!(
        trial.run_twice(&PLAN).await.done(),
        (0, 0, 1, 0),
        "only the bytes that nobody holds"
    );
    trial.loose(3).await;
    let before = trial.everything().await;
    for plan in [PLAN, DEEP] {
        let tally = trial.run_twice(&plan).await;
        assert_eq!(tally.done(), (0, 0, 0, 0));
        assert!(tally.seen > 0);
        trial.pass(HOUR * 8);
    }
    assert_eq!(trial.everything().await, before);
}

/// A deep pass removes nothing from a registry in which nothing was cut off, however old all of it is.
pub async fn a_deep_pass_leaves_a_healthy_registry_alone(trial: CollectionTrial) {
    furnish(&trial).await;
    assert_eq!(trial.run_twice(&PLAN).await.done(), (0, 0, 1, 0));
    let before = trial.everything().await;
    for _ in 0..3 {
        trial.pass(GRACE * 10);
        assert_eq!(trial.run_twice(&DEEP).await.done(), (0, 0, 0, 0));
    }
    assert_eq!(trial.everything().await, before);
}

/// A dry run counts what a run would do, and writes nothing: no mark either.
pub async fn a_dry_run_writes_nothing(trial: CollectionTrial) {
    let names = trial.names();
    furnish(&trial).await;
    trial.loose(5).await;
    let deep = Plan { deep: true, ..DRY };
    for step in ["young", "to be marked", "to be unlinked", "to be buried"] {
        if step == "to be buried" {
            let tally = trial.run(&DRY).await;
            assert_eq!(tally.unlinked, 0, "{step}");
        }
        let before = trial.everything().await;
        let graves = trial.graves().await;
        let dry = trial.run(&DRY).await;
        assert_eq!(trial.run(&DRY).await, dry, "{step}: nothing has changed");
        assert_eq!(trial.run(&deep).await.done(), dry.done(), "{step}");
        assert_eq!(trial.everything().await, before, "{step}");
        assert_eq!(trial.graves().await, graves, "{step}");
        let real = trial.run(&PLAN).await;
        assert_eq!((dry.marked, dry.unlinked), (real.marked, real.unlinked), "{step}");
        assert!(
            real.buried >= dry.buried,
            "{step}: a run also buries what it has let go of"
        );
        match step {
            "young" => assert_eq!(dry.done(), (0, 0, 1, 0)),
            "to be marked" => assert_eq!(dry.done(), (5, 0, 0, 0)),
            "to be unlinked" => assert_eq!(dry.done(), (0, 5, 0, 0)),
            _ => {}
        }
        trial.pass(GRACE);
    }
    let loose = names.link(&repository("r0"), &digest("loose 0")).await;
    assert_eq!(loose, None);
}

/// When everything was deleted and the graces have passed, nothing is left but the history.
pub async fn nothing_is_left_in_the_end(trial: CollectionTrial) {
    let (names, sessions) = (trial.names(), trial.sessions());
    furnish(&trial).await;
    trial.loose(3).await;
    for id in 0..6 {
        let key = sessions.key(id);
        let claim = sessions.claim(key).await;
        match id {
            0 => {}
            1 => sessions.release(&claim).await,
            2 => assert!(sessions.save(&claim, progress(5), Some(b"part")).await),
            3 => drop(sessions.cancel(key).await),
            4 => assert!(sessions.commit(&claim, &digest("cut off")).await),
            _ => {
                assert!(sessions.commit(&claim, &digest("done")).await);
                sessions.finish(&claim, End::Done).await;
            }
        }
    }
    for name in ["one", "two/deep"] {
        delete_all(&trial, name).await;
    }
    for _ in 0..3 {
        trial.pass(GRACE);
        trial.run(&DEEP).await;
        let due = Timestamp(trial.now().0 - PLAN.graces.session_ms);
        for (key, session) in sessions.expired(due, None, 100).await {
            assert!(trial.sweep(key, &session).await.is_some());
        }
    }
    let graves = trial.graves().await;
    // Two large manifests and the object that one of them did not need, four configs and their layer, four blobs that
    // nothing used, and the attempts of five sessions.
    assert_eq!(graves.len(), 17, "{graves:#?}");
    for grave in &graves {
        if let Some(digest) = &grave.digest {
            assert!(!trial.is_named(digest, &grave.location).await);
        }
    }
    trial.forget(&graves).await;
    trial.assert_empty().await;
    assert_eq!(names.repositories(None, 100).await.items, [], "the catalog is empty");
}
