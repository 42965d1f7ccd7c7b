//! The races that the protocols are made for.

use super::fixtures::{BLOB, EMPTY, IMAGE, INDEX, LARGE, OTHER, SIGNATURE, VOID};
use super::frozen::{FROZEN, RETURNING};
use super::operations::Operation::{
    Body as Request, Collect, CollectWithoutGrace, Delete, DeletePending, Lose, Mount, Pass, Pull, Push, Put, Read,
    Repair, Replay, Return, Sweep, Unlink, UnmarkAndPut, Untag, WrongClock,
};
use super::operations::{Body, Operation, WrongClockCall as Wrong};
use super::search::{Scenario, search};

/// The repository in which most operations happen, and another.
const R: u8 = 0;
const S: u8 = 1;

/// Twenty tags, the maximum of a push.
const TWENTY: &[u8] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];

const PUSHED: &[Operation] = &[Push(R, BLOB)];

macro_rules! scenarios {
    (@judged unjudged) => { false };
    (@judged) => { true };
    (@seldom seldom) => { true };
    (@seldom) => { false };
    ($($(#[$about:meta])* $constant:ident $test:ident $($judged:ident $($seldom:ident)?)? { $before:expr; $([$($operation:expr),* $(,)?])* })*) => {
        $(
            $(#[$about])*
            pub(super) const $constant: Scenario = Scenario {
                name: stringify!($test),
                before: $before,
                tasks: &[$(&[$($operation),*]),*],
                judged: scenarios!(@judged $($judged)?),
                seldom: scenarios!(@seldom $($($seldom)?)?),
            };

            #[test]
            fn $test() {
                search(&$constant);
            }
        )*
    };
}

scenarios! {
    /// A manifest is put while what it refers to is unlinked.
    PUT_UNLINK put_against_unlink {
        PUSHED;
        [Put(R, IMAGE, &[0])]
        [Unlink(R, BLOB)]
    }

    /// A manifest is put by an instance whose clock is two hours behind, while what it refers to is unlinked: its edges
    /// look like the orphaned records of a crash.
    S33_PUT_BEHIND s33_put_by_a_clock_that_is_behind_against_unlink {
        PUSHED;
        [WrongClock(-2, Wrong::Put(R, IMAGE, &[0]))]
        [Unlink(R, BLOB)]
    }

    /// A blob is unlinked by an instance whose clock is two hours ahead, while a manifest is put over it.
    S33_UNLINK_AHEAD s33_unlink_by_a_clock_that_is_ahead_against_put {
        PUSHED;
        [Put(R, IMAGE, &[0])]
        [WrongClock(2, Wrong::Unlink(R, BLOB))]
    }

    /// A collection by an instance whose clock is days ahead, while a manifest is put over an unreferenced link.
    S33_COLLECT_AHEAD s33_collection_by_a_clock_that_is_ahead unjudged {
        PUSHED;
        [UnmarkAndPut(R, BLOB, IMAGE)]
        [WrongClock(26, Wrong::Collect), WrongClock(60, Wrong::Collect)]
        [Put(R, IMAGE, &[0])]
    }

    /// Two identical puts, a delete of the manifest, an unlink, a collection of the bytes.
    PUTS_DELETE puts_against_delete_unlink_and_collection {
        PUSHED;
        [Put(R, IMAGE, &[0])]
        [Put(R, IMAGE, &[1])]
        [Delete(R, IMAGE)]
        [Unlink(R, BLOB)]
        [Collect]
    }

    /// A blob is pushed again while its link and its blob record are removed.
    COMMIT_COLLECT commit_against_unlink_and_collections {
        PUSHED;
        [Push(R, BLOB)]
        [Unlink(R, BLOB)]
        [Collect]
        [Collect]
    }

    /// Two repositories share a digest that is removed and pushed again.
    TWO_REPOSITORIES commits_of_two_repositories {
        PUSHED;
        [Push(R, BLOB)]
        [Push(S, BLOB)]
        [Unlink(R, BLOB)]
        [Unlink(S, BLOB)]
        [Collect]
        [Put(S, IMAGE, &[0])]
    }

    /// A blob is mounted from a repository that unlinks it.
    MOUNT mount_against_unlink_and_collection {
        PUSHED;
        [Mount(S, BLOB, R), Put(S, IMAGE, &[0])]
        [Unlink(R, BLOB)]
        [Collect]
        [Delete(S, IMAGE)]
        [Unlink(S, BLOB)]
        [Collect]
    }

    /// Every operation on one blob and one manifest, twice.
    ALL everything_at_once {
        PUSHED;
        [Put(R, IMAGE, &[0])]
        [Put(R, IMAGE, &[1])]
        [Delete(R, IMAGE)]
        [Delete(R, IMAGE)]
        [Unlink(R, BLOB)]
        [Unlink(R, BLOB)]
        [Push(R, BLOB)]
        [Collect]
        [Collect]
    }

    /// An index is put while its child is deleted, and put again.
    INDEX_CHILD index_against_delete_of_its_child {
        &[Push(R, BLOB), Put(R, IMAGE, &[])];
        [Put(R, INDEX, &[0])]
        [Delete(R, IMAGE)]
        [Put(R, IMAGE, &[1])]
        [Delete(R, INDEX)]
    }

    /// An upload expires while it is committing, is ended by a collection, and finished by a repetition of its last
    /// request.
    COMMIT_SWEEP commit_against_sweep {
        &[Request(Body::Chunk), Pass(26)];
        [Request(Body::Last(R, BLOB))]
        [Sweep]
        [Replay(R, BLOB)]
        [Sweep, DeletePending]
        [DeletePending]
    }

    /// Calls that write a tag, delete it, delete its manifest, and read it.
    TAGS racing_tag_writers {
        &[Put(R, VOID, &[0])];
        [Put(R, EMPTY, &[0]), Read(R, 0)]
        [Put(R, VOID, &[0]), Read(R, 0)]
        [Untag(R, 0)]
        [Delete(R, EMPTY)]
        [Read(R, 0), Read(R, 0)]
    }

    /// A tag is created, deleted and created again by several calls.
    TAG_RECREATED a_tag_that_is_created_again {
        &[Put(R, EMPTY, &[]), Put(R, VOID, &[])];
        [Put(R, EMPTY, &[0]), Untag(R, 0)]
        [Put(R, VOID, &[0]), Untag(R, 0)]
        [Read(R, 0), Put(R, EMPTY, &[0]), Read(R, 0)]
    }

    /// A push of twenty tags while some of them move, and are read.
    TWENTY_TAGS twenty_tags_against_moves {
        &[Put(R, VOID, &[0, 7, 20])];
        [Put(R, EMPTY, TWENTY)]
        [Put(R, VOID, &[7, 19])]
        [Untag(R, 0)]
        [Read(R, 7), Read(R, 19), Read(R, 0)]
        [Delete(R, VOID)]
    }

    /// A manifest with more tags than one transaction holds is deleted, in batches that readers may observe, while it
    /// is put again and its tags move.
    MANY_TAGS deletes_in_batches unjudged {
        &[Put(R, VOID, &[]), Put(R, EMPTY, TWENTY), Put(R, EMPTY, &[20, 21, 22, 23])];
        [Delete(R, EMPTY)]
        [Put(R, EMPTY, &[0])]
        [Put(R, VOID, &[1, 23])]
        [Untag(R, 22)]
        [Delete(R, EMPTY)]
    }

    /// Two manifests compete for a tag that is frozen once it exists, while it is deleted, and its manifests are.
    FROZEN_TAGS frozen_tags_against_moves_and_deletions {
        &[Put(R, EMPTY, &[]), Put(R, VOID, &[0])];
        [Put(R, EMPTY, &[FROZEN]), Read(R, FROZEN)]
        [Put(R, VOID, &[FROZEN, 0])]
        [Untag(R, FROZEN), Delete(R, EMPTY)]
        [Put(R, VOID, &[FROZEN]), Delete(R, VOID)]
        [Read(R, FROZEN), Put(R, EMPTY, &[0])]
    }

    /// Two manifests compete for a frozen tag that may be deleted: it never names another than the first.
    RETURNING_TAG a_frozen_tag_that_comes_back_against_moves {
        &[Put(R, EMPTY, &[]), Put(R, VOID, &[0])];
        [Put(R, EMPTY, &[RETURNING]), Untag(R, RETURNING)]
        [Put(R, VOID, &[RETURNING, 0]), Read(R, RETURNING)]
        [Untag(R, RETURNING), Put(R, VOID, &[RETURNING])]
        [Put(R, EMPTY, &[RETURNING]), Read(R, RETURNING)]
        [Delete(R, EMPTY)]
    }

    /// A frozen tag that has stood for an hour is deleted, alone and with its manifest, and comes back.
    RETURNING_LATER a_frozen_tag_that_comes_back_later {
        &[Put(R, VOID, &[]), Put(R, EMPTY, &[RETURNING]), Pass(1)];
        [Untag(R, RETURNING), Put(R, EMPTY, &[RETURNING])]
        [Delete(R, EMPTY), Put(R, EMPTY, &[RETURNING])]
        [Put(R, VOID, &[RETURNING]), Read(R, RETURNING)]
        [Untag(R, RETURNING), Put(R, VOID, &[RETURNING, 0])]
    }

    /// One of many tags of a manifest is frozen: none of them is deleted with the manifest.
    FROZEN_AMONG_MANY one_frozen_tag_among_many {
        &[Put(R, VOID, &[]), Put(R, EMPTY, TWENTY), Put(R, EMPTY, &[20, 21, FROZEN])];
        [Delete(R, EMPTY)]
        [Put(R, VOID, &[1, FROZEN])]
        [Untag(R, FROZEN)]
        [Put(R, VOID, &[1])]
        [Delete(R, EMPTY), Read(R, 20)]
    }

    /// A large manifest is put, put again, deleted, and pushed as a blob.
    LARGE_MANIFEST large_manifests {
        &[Push(R, BLOB), Put(R, LARGE, &[0])];
        [Put(R, LARGE, &[1])]
        [Put(S, LARGE, &[])]
        [Delete(R, LARGE)]
        [Push(R, LARGE), Unlink(R, LARGE)]
        [Collect]
    }

    /// A large manifest is put and deleted in each of two repositories, which share one object.
    LARGE_UIDS uids_of_a_large_manifest {
        &[Push(R, BLOB), Push(S, BLOB)];
        [Put(R, LARGE, &[0]), Delete(R, LARGE)]
        [Put(S, LARGE, &[0]), Delete(S, LARGE)]
        [Put(R, LARGE, &[1])]
        [Collect]
        [Collect]
    }

    /// A blob is mounted, unlinked and collected in both directions.
    MOUNTS mounts_against_unlinks {
        PUSHED;
        [Mount(S, BLOB, R)]
        [Unlink(R, BLOB), Mount(R, BLOB, S)]
        [Unlink(S, BLOB)]
        [Collect]
    }

    /// One upload: chunks with part records, a last body, a cancel, a reader.
    UPLOAD requests_on_one_upload {
        &[Request(Body::Chunk)];
        [Request(Body::Chunk)]
        [Request(Body::Cut), Request(Body::Last(R, BLOB))]
        [Request(Body::Cancel)]
        [Request(Body::Status), Request(Body::Status)]
        [Request(Body::Chunk), Replay(R, BLOB)]
    }

    /// The same upload, expired, with collections.
    UPLOAD_SWEEP requests_on_one_upload_against_sweeps {
        &[Request(Body::Chunk), Request(Body::Chunk), Pass(26)];
        [Request(Body::Last(R, BLOB))]
        [Request(Body::Chunk), Request(Body::Cancel)]
        [Sweep]
        [Sweep, Request(Body::Status)]
    }

    /// A link that is due to be collected, and pushes that use it again.
    UNMARK unmarking_against_collection {
        &[Push(R, BLOB), Pass(26), Collect, Pass(26)];
        [UnmarkAndPut(R, BLOB, IMAGE)]
        [Collect]
        [Push(R, BLOB)]
        [Collect]
    }

    /// A first collection does not remove a link that the registry has just reported to a client as present.
    UNMARK_FRESH unmarking_against_a_first_collection {
        &[Push(R, BLOB), Pass(26)];
        [UnmarkAndPut(R, BLOB, IMAGE)]
        [Collect]
        [Collect]
    }

    /// A repository that was empty for two days, whose row in the catalog is due for removal, and pushes to it.
    CATALOG pushes_against_the_end_of_a_catalog_row {
        &[Put(R, VOID, &[]), Delete(R, VOID), Pass(26), Collect, Pass(26)];
        [Put(R, EMPTY, &[0]), Delete(R, EMPTY)]
        [Collect]
        [Put(R, VOID, &[1])]
        [Collect]
    }

    /// Collections without a grace period, against puts and deletes: only the promise for unreferenced links is not
    /// kept.
    WITHOUT_GRACE collections_without_grace_periods {
        &[Push(R, BLOB), Push(R, OTHER), CollectWithoutGrace];
        [Put(R, IMAGE, &[0]), Delete(R, IMAGE)]
        [Put(R, SIGNATURE, &[])]
        [CollectWithoutGrace]
        [CollectWithoutGrace]
        [Push(R, BLOB), Mount(S, BLOB, R)]
    }

    /// A referrer and its subject are put and deleted, and their blob is unlinked.
    REFERRERS referrers_and_subjects {
        &[Push(R, BLOB), Put(R, IMAGE, &[0])];
        [Put(R, SIGNATURE, &[1])]
        [Delete(R, SIGNATURE)]
        [Delete(R, IMAGE), Unlink(R, BLOB)]
        [Put(R, SIGNATURE, &[1])]
    }

    /// An object that came back into use by a repeated request after it was scheduled for deletion, and becomes
    /// unreferenced again: its old pending deletion is due, the object is not.
    OLD_PENDING_DELETION an_old_pending_deletion_against_an_unlink {
        &[Request(Body::Chunk), Request(Body::Unfinished(R, BLOB)), Unlink(R, BLOB), Collect, Replay(R, BLOB), Pass(26)];
        [Unlink(R, BLOB)]
        [Collect]
        [DeletePending]
        [Collect, DeletePending]
    }

    /// Objects whose pending deletion is due, and pushes of the same digest.
    PENDING_DELETIONS pending_deletions_against_commits {
        &[Push(R, BLOB), Unlink(R, BLOB), Collect, Pass(26)];
        [DeletePending]
        [Push(R, BLOB)]
        [Push(S, BLOB), Unlink(S, BLOB)]
        [Collect, DeletePending]
    }

    /// An object is lost, and readers find that, while it is pushed again to two repositories and mounted.
    LOST a_lost_object_against_pushes_and_mounts unjudged {
        &[Push(R, BLOB), Put(R, IMAGE, &[0])];
        [Lose(BLOB), Push(R, BLOB)]
        [Mount(S, BLOB, R), Pull(S, BLOB)]
        [Pull(R, BLOB)]
        [Push(S, BLOB)]
    }

    /// A mount races the replacement of its object.
    LOST_MOUNT a_mount_against_a_replacement unjudged {
        &[Push(R, BLOB), Lose(BLOB)];
        [Mount(S, BLOB, R)]
        [Push(R, BLOB)]
    }

    /// An object is lost while its links are removed and collected.
    LOST_COLLECT a_lost_object_against_collection unjudged {
        &[Push(R, BLOB), Mount(S, BLOB, R)];
        [Lose(BLOB), Pull(R, BLOB)]
        [Push(R, BLOB)]
        [Unlink(S, BLOB), Unlink(R, BLOB)]
        [Collect, Repair(BLOB)]
        [Mount(S, BLOB, R), Collect]
    }

    /// An object is lost twice: its replacement is lost as well.
    LOST_TWICE an_object_is_lost_again unjudged {
        &[Push(R, BLOB), Mount(S, BLOB, R), Lose(BLOB)];
        [Push(R, BLOB), Lose(BLOB), Push(R, BLOB)]
        [Push(S, BLOB), Pull(S, BLOB)]
        [Pull(R, BLOB)]
        [Mount(S, BLOB, R)]
    }

    /// An object is lost and restored.
    OUT_OF_SIGHT an_object_comes_back unjudged seldom {
        &[Push(R, BLOB), Mount(S, BLOB, R), Lose(BLOB)];
        [Pull(R, BLOB), Pull(R, BLOB)]
        [Pull(S, BLOB), Pull(S, BLOB)]
        [Return(BLOB)]
        [Repair(BLOB), Mount(S, BLOB, R)]
    }

    /// The object of a large manifest, whose bytes are also a blob, is lost while the manifest is put again.
    LOST_MANIFEST a_lost_manifest unjudged {
        &[Push(R, BLOB), Push(S, BLOB), Put(R, LARGE, &[0]), Put(S, LARGE, &[0])];
        [Lose(LARGE), Put(R, LARGE, &[1])]
        [Pull(S, LARGE), Put(S, LARGE, &[1])]
        [Delete(R, LARGE), Push(R, LARGE)]
        [Pull(R, LARGE), Collect]
    }
}
