//! Records and keys are read as they were written.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use oci::{Algorithm, Descriptor, Digest, MediaType, RepositoryName, Tag};
use registry::store::collection::PendingDeletion;
use registry::store::metadata::{Content, Defect, HistoryRecord, Link, ManifestRecord, Referrer, TagRecord};
use registry::store::sessions::{Progress, Publishing, Session, SessionKey, SigningKey, State};
use registry::store::{Cursor, Location, SessionId, Timestamp, Uid};

use super::*;
use crate::keys::{self, RecordKey};
use crate::table::{Item, ItemKey, Value};

fn repository() -> RepositoryName {
    "team/app.one-two_three".parse().unwrap()
}

fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

fn long_digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha512, text.as_bytes())
}

fn tag() -> Tag {
    "v1.0_rc-1".parse().unwrap()
}

fn media_type() -> MediaType {
    MediaType::OCI_MANIFEST.parse().unwrap()
}

fn session() -> SessionKey {
    SessionKey {
        expires: Timestamp(1_900_000_000_123),
        id: SessionId(0xabcd_0000_0000_0000_0000_0000_0000_0001),
    }
}

const UID: Uid = Uid(0x00ab_cdef_0123_4567);
const AT: Timestamp = Timestamp(1_900_000_000_000);
const MARK: DeletionMark = DeletionMark {
    purpose: MarkPurpose::Collection,
    at: AT,
    random: Uid(7),
};

#[test]
fn a_key_is_parsed_into_its_record() {
    let (repository, digest, other, tag, session) = (repository(), digest("a"), long_digest("b"), tag(), session());
    let named = [
        (
            keys::link(&repository, &digest),
            RecordKey::Link(repository.clone(), digest),
        ),
        (
            keys::manifest(&repository, &digest),
            RecordKey::Manifest(repository.clone(), digest),
        ),
        (
            keys::edge(&repository, &digest, &other, UID),
            RecordKey::Edge {
                repository: repository.clone(),
                target: digest,
                parent: other,
                uid: UID,
            },
        ),
        (
            keys::referrer(&repository, &digest, &other),
            RecordKey::Referrer {
                repository: repository.clone(),
                subject: digest,
                referrer: other,
            },
        ),
        (
            keys::tagged(&repository, &digest, &tag),
            RecordKey::Tagged(repository.clone(), digest, tag.clone()),
        ),
        (
            keys::references(&repository, &digest, UID, 4),
            RecordKey::References {
                repository: repository.clone(),
                digest,
                uid: UID,
                row: 4,
            },
        ),
        (
            keys::tag(&repository, &tag),
            RecordKey::Tag(repository.clone(), tag.clone()),
        ),
        (
            keys::tombstone(&repository, &tag),
            RecordKey::Tombstone(repository.clone(), tag.clone()),
        ),
        (
            keys::listed(&repository, &other),
            RecordKey::Listed(repository.clone(), other),
        ),
        (
            keys::change(&repository, &tag, 1 << 52),
            RecordKey::Change(repository.clone(), tag.clone(), 1 << 52),
        ),
        (keys::repository(&repository), RecordKey::Repository(repository.clone())),
        (keys::blob(&digest), RecordKey::Blob(digest)),
        (
            keys::back_link(&digest, &repository, UID),
            RecordKey::BackLink {
                digest,
                repository,
                uid: UID,
            },
        ),
        (keys::session(session), RecordKey::Session(session)),
        (keys::part(session, 12), RecordKey::Part(session, 12)),
        (
            keys::pending_deletion(&Location::main("0a.1")),
            RecordKey::PendingDeletion,
        ),
        (keys::signing_key(9), RecordKey::SigningKey(9)),
        (keys::first_signing_key(), RecordKey::FirstSigningKey),
        (keys::pass(), RecordKey::Pass),
        (keys::schema(), RecordKey::Schema),
    ];
    for (key, name) in named {
        assert_eq!(RecordKey::of(&key), Some(name), "{key}");
    }
    let unknown = ItemKey {
        partition: "Z#of the next version".to_owned(),
        sort: "x".to_owned(),
    };
    assert_eq!(RecordKey::of(&unknown), None);
}

#[test]
fn a_range_contains_exactly_its_keys() {
    let (repository, digest, tag) = (repository(), digest("a"), tag());
    let contains = |range: &crate::table::Range, key: &ItemKey| {
        range.partition == key.partition && range.from <= key.sort && key.sort <= range.to
    };
    assert!(contains(
        &keys::edges(&repository, &digest),
        &keys::edge(&repository, &digest, &digest, UID)
    ));
    assert!(!contains(
        &keys::edges(&repository, &digest),
        &keys::tagged(&repository, &digest, &tag)
    ));
    assert!(contains(
        &keys::tags(&repository),
        &keys::tag(&repository, &"zzzz".parse().unwrap())
    ));
    let all_changes = keys::changes(&repository, &tag, u64::MAX);
    assert!(contains(&all_changes, &keys::change(&repository, &tag, u64::MAX)));
    assert!(!contains(&all_changes, &keys::tombstone(&repository, &tag)));
    assert!(contains(&keys::repositories(), &keys::repository(&repository)));
    let session = session();
    assert!(contains(&keys::parts(session), &keys::part(session, 999_999)));
    assert!(!contains(&keys::parts(session), &keys::session(session)));
    let due = |before| keys::sessions_due(0xa, Timestamp(before));
    assert!(contains(&due(session.expires.0 + 1), &keys::session(session)));
    assert!(
        !contains(&due(session.expires.0), &keys::session(session)),
        "not before it has expired"
    );
    let pending_deletion = keys::pending_deletion(&Location::main("f0.1"));
    assert!(contains(&keys::pending_deletions(15), &pending_deletion));
    assert!(!contains(&keys::pending_deletions(14), &pending_deletion));
}

#[test]
fn a_start_longer_than_any_key_is_cut_without_changing_the_order() {
    let long = "a".repeat(200);
    assert_eq!(keys::start_after("t#", &long, 128).len(), 2 + 128);
    // The cut does not split a character that straddles the limit: without it, the text would sort lower.
    let straddling = format!("{}ä{}", "a".repeat(127), "b".repeat(100));
    assert_eq!(
        keys::start_after("t#", &straddling, 128),
        format!("t#{}ä", "a".repeat(127))
    );
    assert_eq!(keys::start_after("t#", "", 128), "t#");
}

#[test]
fn links_and_blob_records_are_read_as_written() {
    let defects = [None, Some(Defect::Missing), Some(Defect::Damaged)];
    for (mark, defect) in [None, Some(MARK)]
        .into_iter()
        .flat_map(|mark| defects.map(|defect| (mark, defect)))
    {
        let link = LinkRow {
            link: Link {
                location: Location::main("0a.1"),
                size: u64::MAX,
                uid: UID,
                defect,
            },
            at: AT,
            mark,
        };
        assert_eq!(LinkRow::read(&link.item(&repository(), &digest("a"))).unwrap(), link);
        let blob = BlobRow {
            location: Location::main("0a.1"),
            size: 0,
            at: AT,
            defect,
            mark,
        };
        assert_eq!(BlobRow::read(&blob.item(&digest("a"))).unwrap(), blob);
    }
    for link_kind in [LinkKind::Blob, LinkKind::Manifest] {
        let back_link = BackLink {
            repository: repository(),
            uid: UID,
            link_kind,
            at: AT,
        };
        assert_eq!(BackLink::read(&back_link.item(&digest("a"))).unwrap(), back_link);
    }
}

#[test]
fn manifests_are_read_as_written() {
    let references = [
        ReferenceList::Inline(Vec::new()),
        ReferenceList::Inline(vec![digest("a"), long_digest("b"), digest("c")]),
        ReferenceList::Separate(5),
    ];
    let contents = [
        Content::Inline(Bytes::from_static(b"{}")),
        Content::Stored(Location::main("0a.1")),
        Content::Defective(Location::main("0a.1"), Defect::Missing),
        Content::Defective(Location::main("0a.1"), Defect::Damaged),
    ];
    for (references, content) in references.iter().zip(contents.iter().cycle()) {
        let row = ManifestRow {
            record: ManifestRecord {
                media_type: media_type(),
                size: 2,
                content: content.clone(),
                subject: Some(digest("s")),
                artifact_type: Some(media_type()),
                uid: UID,
            },
            at: AT,
            version: 3,
            references: references.clone(),
            mark: Some(MARK),
        };
        assert_eq!(ManifestRow::read(&row.item(&repository(), &digest("m"))).unwrap(), row);
    }
}

#[test]
fn many_references_are_read_as_written_from_their_rows() {
    let digests: Vec<Digest> = (0..4096).map(|number| long_digest(&number.to_string())).collect();
    let items = ReferencesRow::all(&repository(), &digest("m"), UID, &digests, AT);
    assert_eq!(
        ReferenceList::of(&digests),
        ReferenceList::Separate(u32::try_from(items.len()).unwrap())
    );
    let rows = items.iter().map(|item| ReferencesRow::read(item).unwrap());
    let read: Vec<Digest> = rows.flat_map(|row| row.digests).collect();
    assert_eq!(read, digests);
}

#[test]
fn tags_history_referrers_and_edges_are_read_as_written() {
    let record = TagRecord {
        is_suspect: false,
        digest: digest("m"),
        media_type: media_type(),
        size: 2,
        version: 1 << 53,
        at: AT,
    };
    assert_eq!(
        TagRow::read(&TagRow::item(&repository(), &tag(), &record)).unwrap(),
        record
    );
    for (before, since) in [(None, None), (Some(digest("m")), None), (Some(digest("m")), Some(AT))] {
        let tombstone = Tombstone {
            version: 4,
            at: AT,
            before,
            since,
        };
        assert_eq!(
            Tombstone::read(&tombstone.item(&repository(), &tag())).unwrap(),
            tombstone
        );
    }
    for (before, after, since, promoted_from) in [
        (None, Some(digest("m")), None, None),
        (None, Some(digest("m")), None, Some("a/b:1.0".to_owned())),
        (Some(digest("m")), None, None, None),
        (Some(digest("m")), None, Some(AT), None),
    ] {
        let change = HistoryRecord {
            version: 5,
            before,
            after,
            principal: "user \"Zoë\"".to_owned(),
            promoted_from,
            at: AT,
            since,
        };
        assert_eq!(
            ChangeRow::read(&ChangeRow::item(&repository(), &tag(), &change)).unwrap(),
            change
        );
    }
    let referrer = Referrer {
        descriptor: Descriptor::new(media_type(), digest("m"), 2),
        annotations_omitted: true,
    };
    let item = ReferrerRow::item(&repository(), &digest("s"), &referrer).unwrap();
    assert_eq!(ReferrerRow::read(&item).unwrap(), referrer);
    let edge = EdgeRow {
        target: digest("a"),
        parent: long_digest("m"),
        uid: UID,
        at: AT,
    };
    assert_eq!(EdgeRow::read(&edge.item(&repository())).unwrap(), edge);
}

#[test]
fn local_records_are_read_as_written() {
    let publishing = Publishing {
        digest: digest("a"),
        location: Location::main("0a.1"),
        size: 1 << 40,
    };
    for state in [
        State::UNCLAIMED,
        State::Open {
            claimed_until: Some(AT),
        },
        State::Committing(publishing.clone()),
        State::Published(publishing.clone()),
        State::Done(publishing.clone()),
        State::Cancelled(None),
        State::Cancelled(Some(publishing.clone())),
        State::Swept(None),
        State::Swept(Some(publishing)),
    ] {
        let row = Session {
            version: 9,
            state,
            attempts: 2,
            progress: Progress {
                offset: 1 << 40,
                hash: vec![1, 2, 3],
                store: Vec::new(),
                parts: 7,
            },
        };
        let item = SessionRow::item(session(), &row);
        assert_eq!(SessionRow::read(&item).unwrap(), row);
        assert_eq!(SessionRow::key(&item), Some(session()));
        // A session that is published has a blob, and a row without one is damaged.
        let mut damaged = item.clone();
        damaged.attributes.remove(super::attributes::DIGEST);
        let has_a_blob = matches!(row.state, State::Committing(_) | State::Published(_) | State::Done(_));
        assert_eq!(SessionRow::read(&damaged).is_err(), has_a_blob, "{row:?}");
        // In seconds, thirty days after the expiry of the session.
        let expires = session().expires.0 / 1000 + 30 * 86_400;
        assert_eq!(
            item.attributes.get(super::attributes::EXPIRES),
            Some(&Value::N(expires))
        );
    }
    for part in [vec![], vec![0, 255]] {
        assert_eq!(PartRow::read(&PartRow::item(session(), 1, &part)).unwrap(), part);
    }
    let pending_deletion = PendingDeletion {
        location: Location::main("0a.1"),
        digest: Some(digest("a")),
        unfinished: true,
        at: AT,
    };
    assert_eq!(
        PendingDeletionRow::read(&PendingDeletionRow::item(&pending_deletion)).unwrap(),
        pending_deletion
    );
    let key = SigningKey {
        id: u32::MAX,
        secret: [7; 32],
        created: AT,
    };
    assert!(SigningKeyRow::read(&SigningKeyRow::item(&key)).unwrap() == key);
    let pass = PassRow {
        pass: UID,
        until: AT,
        next: Some(Cursor("a\nb".to_owned())),
    };
    assert_eq!(PassRow::read(&pass.item()).unwrap(), pass);
}

#[test]
fn the_error_for_a_damaged_item_contains_its_key_and_the_attribute() {
    let whole = LinkRow {
        link: Link {
            location: Location::main("0a.1"),
            size: 1,
            uid: UID,
            defect: None,
        },
        at: AT,
        mark: None,
    };
    let damage = |change: fn(&mut Item)| {
        let mut item = whole.item(&repository(), &digest("a"));
        change(&mut item);
        LinkRow::read(&item).expect_err("damaged").to_string()
    };
    let without = damage(|item| {
        item.attributes.remove("size");
    });
    assert!(
        without.contains("team/app") && without.contains("size is missing"),
        "{without}"
    );
    let text = |text: &str| Value::S(text.to_owned());
    for (name, value) in [
        ("incarnation", text("x")),
        ("condemned", text("perhaps")),
        ("at", text("now")),
        ("object", Value::N(1)),
    ] {
        let mut item = whole.item(&repository(), &digest("a"));
        item.attributes.insert(name.to_owned(), value);
        let wrong = LinkRow::read(&item).expect_err("damaged").to_string();
        assert!(wrong.contains(name), "{wrong}");
    }
}

#[test]
fn an_unknown_attribute_is_not_damage() {
    let row = BlobRow {
        location: Location::main("0a.1"),
        size: 1,
        at: AT,
        defect: None,
        mark: None,
    };
    let mut item = row.item(&digest("a"));
    item.attributes.insert("colour".to_owned(), Value::S("blue".to_owned()));
    assert_eq!(BlobRow::read(&item).unwrap(), row);
}

/// A reader treats a defect that this version does not know as damage.
#[test]
fn an_unknown_defect_is_read_as_damaged() {
    let row = BlobRow {
        location: Location::main("0a.1"),
        size: 1,
        at: AT,
        defect: None,
        mark: None,
    };
    let mut item = row.item(&digest("a"));
    item.attributes
        .insert("defect".to_owned(), Value::S("moth-eaten".to_owned()));
    assert_eq!(BlobRow::read(&item).unwrap().defect, Some(Defect::Damaged));
}
