//! The races that the protocols are made for.

use super::acts::Act::{
    Body as Request, Collect, CollectHastily, Delete, Graves, KeepAndPut, Lose, Mount, Off, Pass, Pull, Push, Put,
    Read, Repair, Replay, Return, Sweep, Unlink, Untag,
};
use super::acts::{Act, Body, Off as Wrong};
use super::cast::{BLOB, EMPTY, IMAGE, INDEX, LARGE, OTHER, SIGNATURE, VOID};
use super::search::{Scenario, search};

/// The repository in which most happens, and another.
const R: u8 = 0;
const S: u8 = 1;

/// Twenty tags, as many as a push may have.
const TWENTY: &[u8] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];

const PUSHED: &[Act] = &[Push(R, BLOB)];

macro_rules! scenarios {
    (@judged unjudged) => { false };
    (@judged) => { true };
    (@seldom seldom) => { true };
    (@seldom) => { false };
    ($($(#[$about:meta])* $constant:ident $test:ident $($judged:ident $($seldom:ident)?)? { $before:expr; $([$($act:expr),* $(,)?])* })*) => {
        $(
            $(#[$about])*
            pub(super) const $constant: Scenario = Scenario {
                name: stringify!($test),
                before: $before,
                tasks: &[$(&[$($act),*]),*],
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
    /// look like the leftovers of a crash.
    S33_PUT_BEHIND s33_put_by_a_clock_that_is_behind_against_unlink {
        PUSHED;
        [Off(-2, Wrong::Put(R, IMAGE, &[0]))]
        [Unlink(R, BLOB)]
    }

    /// A blob is unlinked by an instance whose clock is two hours ahead, while a manifest is put over it.
    S33_UNLINK_AHEAD s33_unlink_by_a_clock_that_is_ahead_against_put {
        PUSHED;
        [Put(R, IMAGE, &[0])]
        [Off(2, Wrong::Unlink(R, BLOB))]
    }

    /// A collection by an instance whose clock is days ahead, while a manifest is put over a link that nothing refers to
    /// yet.
    S33_COLLECT_AHEAD s33_collection_by_a_clock_that_is_ahead unjudged {
        PUSHED;
        [KeepAndPut(R, BLOB, IMAGE)]
        [Off(26, Wrong::Collect), Off(60, Wrong::Collect)]
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

    /// A blob is pushed again while its link and its bytes go.
    COMMIT_COLLECT commit_against_unlink_and_collections {
        PUSHED;
        [Push(R, BLOB)]
        [Unlink(R, BLOB)]
        [Collect]
        [Collect]
    }

    /// Two repositories share the bytes of a digest that go and come.
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

    /// Everything about one blob and one manifest, twice.
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

    /// An upload that has expired while it was committing is swept, and finished by whoever repeats its last request.
    COMMIT_SWEEP commit_against_sweep {
        &[Request(Body::Chunk), Pass(26)];
        [Request(Body::Last(R, BLOB))]
        [Sweep]
        [Replay(R, BLOB)]
        [Sweep, Graves]
        [Graves]
    }

    /// Those who write a tag, delete it, delete what it names, and read it.
    TAGS racing_tag_writers {
        &[Put(R, VOID, &[0])];
        [Put(R, EMPTY, &[0]), Read(R, 0)]
        [Put(R, VOID, &[0]), Read(R, 0)]
        [Untag(R, 0)]
        [Delete(R, EMPTY)]
        [Read(R, 0), Read(R, 0)]
    }

    /// A tag that is created, deleted and created again by many.
    TAG_LIVES racing_lives_of_a_tag {
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

    /// A manifest with more tags than one transaction takes is deleted, in batches that readers may tell apart, while it
    /// is put again and its tags move.
    MANY_TAGS deletes_in_batches unjudged {
        &[Put(R, VOID, &[]), Put(R, EMPTY, TWENTY), Put(R, EMPTY, &[20, 21, 22, 23])];
        [Delete(R, EMPTY)]
        [Put(R, EMPTY, &[0])]
        [Put(R, VOID, &[1, 23])]
        [Untag(R, 22)]
        [Delete(R, EMPTY)]
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

    /// A large manifest has a life in each of two repositories, whose bytes are one object.
    LARGE_LIVES lives_of_a_large_manifest {
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

    /// The same upload, past its end, with those who sweep.
    UPLOAD_SWEEP requests_on_one_upload_against_sweeps {
        &[Request(Body::Chunk), Request(Body::Chunk), Pass(26)];
        [Request(Body::Last(R, BLOB))]
        [Request(Body::Chunk), Request(Body::Cancel)]
        [Sweep]
        [Sweep, Request(Body::Status)]
    }

    /// A link that is due to be collected, and those who come back to it.
    KEEP keeping_against_collection {
        &[Push(R, BLOB), Pass(26), Collect, Pass(26)];
        [KeepAndPut(R, BLOB, IMAGE)]
        [Collect]
        [Push(R, BLOB)]
        [Collect]
    }

    /// A collection that has never been there before does not take what somebody was just told is there.
    KEEP_FRESH keeping_against_a_first_collection {
        &[Push(R, BLOB), Pass(26)];
        [KeepAndPut(R, BLOB, IMAGE)]
        [Collect]
        [Collect]
    }

    /// A repository that was empty for two days, and whose row in the catalog is due to go, and those who push to it.
    CATALOG pushes_against_the_end_of_a_catalog_row {
        &[Put(R, VOID, &[]), Delete(R, VOID), Pass(26), Collect, Pass(26)];
        [Put(R, EMPTY, &[0]), Delete(R, EMPTY)]
        [Collect]
        [Put(R, VOID, &[1])]
        [Collect]
    }

    /// Collections without patience, against puts and deletes: only what they promise for links is not kept.
    HASTE hasty_collections {
        &[Push(R, BLOB), Push(R, OTHER), CollectHastily];
        [Put(R, IMAGE, &[0]), Delete(R, IMAGE)]
        [Put(R, SIGNATURE, &[])]
        [CollectHastily]
        [CollectHastily]
        [Push(R, BLOB), Mount(S, BLOB, R)]
    }

    /// A referrer and its subject come and go, and their blob.
    REFERRERS referrers_and_subjects {
        &[Push(R, BLOB), Put(R, IMAGE, &[0])];
        [Put(R, SIGNATURE, &[1])]
        [Delete(R, SIGNATURE)]
        [Delete(R, IMAGE), Unlink(R, BLOB)]
        [Put(R, SIGNATURE, &[1])]
    }

    /// Bytes that got their name back, by a request that was repeated, after they were buried, and lose it again: their
    /// old grave is due, and their object is not.
    OLD_GRAVE an_old_grave_against_a_loss {
        &[Request(Body::Chunk), Request(Body::Torn(R, BLOB)), Unlink(R, BLOB), Collect, Replay(R, BLOB), Pass(26)];
        [Unlink(R, BLOB)]
        [Collect]
        [Graves]
        [Collect, Graves]
    }

    /// Bytes that have lain in the graveyard for long enough, and those who bring them back.
    GRAVES graves_against_commits {
        &[Push(R, BLOB), Unlink(R, BLOB), Collect, Pass(26)];
        [Graves]
        [Push(R, BLOB)]
        [Push(S, BLOB), Unlink(S, BLOB)]
        [Collect, Graves]
    }

    /// An object is lost, and found to be so by readers, while it is pushed again in two repositories and mounted.
    LOST a_lost_object_against_pushes_and_mounts unjudged {
        &[Push(R, BLOB), Put(R, IMAGE, &[0])];
        [Lose(BLOB), Push(R, BLOB)]
        [Mount(S, BLOB, R), Pull(S, BLOB)]
        [Pull(R, BLOB)]
        [Push(S, BLOB)]
    }

    /// A mount meets the replacement of the object that it links.
    LOST_MOUNT a_mount_against_a_replacement unjudged {
        &[Push(R, BLOB), Lose(BLOB)];
        [Mount(S, BLOB, R)]
        [Push(R, BLOB)]
    }

    /// An object is lost while what links it goes and is collected.
    LOST_COLLECT a_lost_object_against_collection unjudged {
        &[Push(R, BLOB), Mount(S, BLOB, R)];
        [Lose(BLOB), Pull(R, BLOB)]
        [Push(R, BLOB)]
        [Unlink(S, BLOB), Unlink(R, BLOB)]
        [Collect, Repair(BLOB)]
        [Mount(S, BLOB, R), Collect]
    }

    /// An object is lost twice: what took the place of the first is lost as well.
    LOST_TWICE an_object_is_lost_again unjudged {
        &[Push(R, BLOB), Mount(S, BLOB, R), Lose(BLOB)];
        [Push(R, BLOB), Lose(BLOB), Push(R, BLOB)]
        [Push(S, BLOB), Pull(S, BLOB)]
        [Pull(R, BLOB)]
        [Mount(S, BLOB, R)]
    }

    /// An object is out of sight for a while.
    OUT_OF_SIGHT an_object_comes_back unjudged seldom {
        &[Push(R, BLOB), Mount(S, BLOB, R), Lose(BLOB)];
        [Pull(R, BLOB), Pull(R, BLOB)]
        [Pull(S, BLOB), Pull(S, BLOB)]
        [Return(BLOB)]
        [Repair(BLOB), Mount(S, BLOB, R)]
    }

    /// The object of a large manifest, whose bytes are a blob too, is lost while it is put again.
    LOST_MANIFEST a_lost_manifest unjudged {
        &[Push(R, BLOB), Push(S, BLOB), Put(R, LARGE, &[0]), Put(S, LARGE, &[0])];
        [Lose(LARGE), Put(R, LARGE, &[1])]
        [Pull(S, LARGE), Put(S, LARGE, &[1])]
        [Delete(R, LARGE), Push(R, LARGE)]
        [Pull(R, LARGE), Collect]
    }
}
