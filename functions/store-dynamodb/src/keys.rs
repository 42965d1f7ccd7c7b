//! The key of each record, ranges of keys, and the parsing of keys.
//!
//! `#` separates the parts of a key. Repository names, tags and digests do not contain it. It sorts before every
//! character that they may contain, so that a range has the order of the parts' texts. All items of one digest in one
//! repository are one item collection. The items of a repository are spread over many collections, so that no
//! repository is a hot partition.
//!
//! | partition | sort | what it is |
//! |---|---|---|
//! | `D#repo#digest` | `L` | the link to a blob |
//! | | `M` | a manifest |
//! | | `e#m#parent#uid` | an edge: the manifest `parent` with this uid refers to this digest |
//! | | `e#s#referrer` | a row of the referrers API |
//! | | `e#t#tag` | a tag that names this digest |
//! | | `r#uid#n` | references of a manifest that are not in its own item |
//! | `T#repo` | `t#tag` | a tag |
//! | | `m#digest` | a manifest, in the list of manifests |
//! | `H#repo#tag` | `version` | a change of a tag |
//! | | `x` | the tombstone of a tag: the version of its last deletion |
//! | `C` | `repo` | the catalog |
//! | `B#digest` | `B` | the blob record: where the bytes of a digest are |
//! | | `l#repo#uid` | a back-link: a repository uses these bytes |
//! | `S#h` | `expiry#id` | an upload session |
//! | | `expiry#id#p<n>` | a part record of it |
//! | `G#h` | `key#store` | the pending deletion of an object |
//! | `K` | `upload#id`, `first` | a key that signs upload tokens; the id of the first such key |
//! | | `token#kid` | the seed of a key that signs access tokens |
//! | | `pass` | the position of the collection pass, and its lease |
//! | | `schema` | the version of this layout, and whether a registry has used the table |
//! | `A` | `state` | the access state |
//! | | `a#name` | an account |
//! | | `policy`, `policy#version` | the policy in force; a version of it with its source |
//! | | `audit` | the time of the first event of the audit trail |
//! | `U#yyyy-mm-dd#h` | `at#id` | an event of the audit trail |
//! | `F#h` | `id` | a counter of wrong passwords |
//! | `V` | `account#id` | the day on which a key of an account was last used |
//!
//! Versions, timestamps and uids are 16 hexadecimal digits, so that they sort as numbers. `h` is one hexadecimal digit:
//! it spreads rows over sixteen collections that would otherwise be appended to one. The keys of the last rows, from `A` on,
//! are in [`access::keys`](crate::access).
//!
//! The tombstone `x` keeps the version of a deleted tag, so that a new tag of this name continues from it. A creation
//! succeeds only if the tombstone has not changed since the creator read it. So a slow creator is refused if the tag
//! was created *and* deleted meanwhile. While the tag exists, the tombstone has no meaning.

use std::fmt::Display;

use oci::{Digest, RepositoryName, Tag};
use registry::store::sessions::SessionKey;
use registry::store::{Location, SessionId, Timestamp, Uid};

use crate::table::{ItemKey, Range};

/// Sorts after every character of the keys here, which are ASCII.
pub(crate) const LAST: char = '\u{7f}';

/// The number of collections over which sessions and pending deletions are spread.
pub(crate) const SHARDS: u8 = 16;

pub(crate) fn key(partition: impl Into<String>, sort: impl Into<String>) -> ItemKey {
    ItemKey {
        partition: partition.into(),
        sort: sort.into(),
    }
}

/// All items of a collection whose sort keys begin with `prefix`.
pub(crate) fn with_prefix(partition: String, prefix: &str) -> Range {
    Range {
        partition,
        from: prefix.to_owned(),
        to: format!("{prefix}{LAST}"),
    }
}

fn of_digest(repository: &RepositoryName, digest: &Digest) -> String {
    format!("D#{repository}#{digest}")
}

fn of_tags(repository: &RepositoryName) -> String {
    format!("T#{repository}")
}

fn of_history(repository: &RepositoryName, tag: &Tag) -> String {
    format!("H#{repository}#{tag}")
}

fn of_blob(digest: &Digest) -> String {
    format!("B#{digest}")
}

/// The sort key after which a list starts that asks for parts greater than `after`, which may be any text. A stored
/// part has at most `longest` bytes, all ASCII. A longer `after` is cut, which changes no comparison with a stored
/// part.
pub(crate) fn start_after(prefix: &str, after: &str, longest: usize) -> String {
    let end = (longest..after.len()).find(|end| after.is_char_boundary(*end));
    format!("{prefix}{}", &after[..end.unwrap_or(after.len())])
}

pub(crate) fn link(repository: &RepositoryName, digest: &Digest) -> ItemKey {
    key(of_digest(repository, digest), "L")
}

pub(crate) fn manifest(repository: &RepositoryName, digest: &Digest) -> ItemKey {
    key(of_digest(repository, digest), "M")
}

pub(crate) fn edge(repository: &RepositoryName, target: &Digest, parent: &Digest, uid: Uid) -> ItemKey {
    key(of_digest(repository, target), format!("e#m#{parent}#{uid}"))
}

/// The edges to `target`.
pub(crate) fn edges(repository: &RepositoryName, target: &Digest) -> Range {
    with_prefix(of_digest(repository, target), "e#m#")
}

pub(crate) fn referrer(repository: &RepositoryName, subject: &Digest, referrer: &Digest) -> ItemKey {
    key(of_digest(repository, subject), format!("e#s#{referrer}"))
}

/// The rows of the referrers API for `subject`.
pub(crate) fn referrers(repository: &RepositoryName, subject: &Digest) -> Range {
    with_prefix(of_digest(repository, subject), "e#s#")
}

pub(crate) fn tagged(repository: &RepositoryName, digest: &Digest, tag: &Tag) -> ItemKey {
    key(of_digest(repository, digest), format!("e#t#{tag}"))
}

/// The tags that name `digest`.
pub(crate) fn all_tagged(repository: &RepositoryName, digest: &Digest) -> Range {
    with_prefix(of_digest(repository, digest), "e#t#")
}

pub(crate) fn references(repository: &RepositoryName, digest: &Digest, uid: Uid, row: u32) -> ItemKey {
    key(of_digest(repository, digest), format!("r#{uid}#{row:06}"))
}

pub(crate) fn tag(repository: &RepositoryName, tag: &Tag) -> ItemKey {
    key(of_tags(repository), format!("t#{tag}"))
}

/// The tags of a repository.
pub(crate) fn tags(repository: &RepositoryName) -> Range {
    with_prefix(of_tags(repository), "t#")
}

pub(crate) fn tombstone(repository: &RepositoryName, tag: &Tag) -> ItemKey {
    key(of_history(repository, tag), "x")
}

pub(crate) fn listed(repository: &RepositoryName, digest: &Digest) -> ItemKey {
    key(of_tags(repository), format!("m#{digest}"))
}

/// The manifests of a repository.
pub(crate) fn all_listed(repository: &RepositoryName) -> Range {
    with_prefix(of_tags(repository), "m#")
}

pub(crate) fn change(repository: &RepositoryName, tag: &Tag, version: u64) -> ItemKey {
    key(of_history(repository, tag), format!("{version:016x}"))
}

/// The changes of a tag up to this version, inclusive.
pub(crate) fn changes(repository: &RepositoryName, tag: &Tag, up_to: u64) -> Range {
    Range {
        partition: of_history(repository, tag),
        from: format!("{:016x}", 0),
        to: format!("{up_to:016x}"),
    }
}

pub(crate) fn repository(repository: &RepositoryName) -> ItemKey {
    key("C", repository.as_str())
}

/// The key of the catalog's partition, with an empty sort key, which no row has.
pub(crate) fn catalog_partition() -> ItemKey {
    key("C", "")
}

/// The whole catalog.
pub(crate) fn repositories() -> Range {
    Range {
        partition: "C".to_owned(),
        // A sort key is not empty, and every repository name sorts after this.
        from: "#".to_owned(),
        to: LAST.to_string(),
    }
}

pub(crate) fn blob(digest: &Digest) -> ItemKey {
    key(of_blob(digest), "B")
}

pub(crate) fn back_link(digest: &Digest, repository: &RepositoryName, uid: Uid) -> ItemKey {
    key(of_blob(digest), format!("l#{repository}#{uid}"))
}

/// The back-links of a digest.
pub(crate) fn back_links(digest: &Digest) -> Range {
    with_prefix(of_blob(digest), "l#")
}

fn of_session(id: SessionId) -> String {
    format!("S#{:x}", id.0 >> 124)
}

fn session_sort(session: SessionKey) -> String {
    format!("{:016x}#{}", session.expires.0, session.id)
}

pub(crate) fn session(session: SessionKey) -> ItemKey {
    key(of_session(session.id), session_sort(session))
}

/// The part record with this number, counted from 0.
pub(crate) fn part(session: SessionKey, number: u32) -> ItemKey {
    key(
        of_session(session.id),
        format!("{}#p{number:06}", session_sort(session)),
    )
}

/// The part records of a session, in order.
pub(crate) fn parts(session: SessionKey) -> Range {
    with_prefix(of_session(session.id), &format!("{}#p", session_sort(session)))
}

/// The sessions of a shard that expired before `before`, and their part records.
pub(crate) fn sessions_due(shard: u8, before: Timestamp) -> Range {
    Range {
        partition: format!("S#{shard:x}"),
        from: format!("{:016x}", 0),
        // Every key that begins with this timestamp is longer, and so sorts after this.
        to: format!("{:016x}", before.0),
    }
}

/// The shard of a pending deletion: the first digit of the object's key, which begins with random digits.
fn shard(location: &Location) -> char {
    let first = location.key.chars().next();
    first.filter(char::is_ascii_hexdigit).unwrap_or('0')
}

/// The pending deletion of an object. An object has only one, however often it is scheduled.
pub(crate) fn pending_deletion(location: &Location) -> ItemKey {
    key(
        format!("G#{}", shard(location)),
        format!("{}#{}", location.key, location.store),
    )
}

/// The pending deletions of a shard, in the order of their objects' keys.
pub(crate) fn pending_deletions(shard: u8) -> Range {
    Range {
        partition: format!("G#{shard:x}"),
        // A sort key is not empty, and every object key sorts after this.
        from: "#".to_owned(),
        to: LAST.to_string(),
    }
}

pub(crate) fn signing_key(id: u32) -> ItemKey {
    key("K", format!("upload#{id:08x}"))
}

/// All signing keys.
pub(crate) fn signing_keys() -> Range {
    with_prefix("K".to_owned(), "upload#")
}

/// The row with the id of the first signing key. It decides a race between first calls.
pub(crate) fn first_signing_key() -> ItemKey {
    key("K", "first")
}

pub(crate) fn pass() -> ItemKey {
    key("K", "pass")
}

pub(crate) fn schema() -> ItemKey {
    key("K", "schema")
}

/// The record that a key identifies, for walks over the whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RecordKey {
    Link(RepositoryName, Digest),
    Manifest(RepositoryName, Digest),
    Edge {
        repository: RepositoryName,
        target: Digest,
        parent: Digest,
        uid: Uid,
    },
    Referrer {
        repository: RepositoryName,
        subject: Digest,
        referrer: Digest,
    },
    Tagged(RepositoryName, Digest, Tag),
    References {
        repository: RepositoryName,
        digest: Digest,
        uid: Uid,
        row: u32,
    },
    Tag(RepositoryName, Tag),
    Tombstone(RepositoryName, Tag),
    Listed(RepositoryName, Digest),
    Change(RepositoryName, Tag, u64),
    Repository(RepositoryName),
    Blob(Digest),
    BackLink {
        digest: Digest,
        repository: RepositoryName,
        uid: Uid,
    },
    Session(SessionKey),
    Part(SessionKey, u32),
    PendingDeletion,
    SigningKey(u32),
    FirstSigningKey,
    Pass,
    Schema,
}

impl RecordKey {
    /// Parses a key; `None` for a key that this version does not write.
    pub(crate) fn of(key: &ItemKey) -> Option<Self> {
        let partition: Vec<&str> = key.partition.split('#').collect();
        let sort: Vec<&str> = key.sort.split('#').collect();
        match (partition.as_slice(), sort.as_slice()) {
            (["D", repository, digest], sort) => Self::of_digest(repository.parse().ok()?, digest.parse().ok()?, sort),
            (["T", repository], [kind, name]) => {
                let repository = repository.parse().ok()?;
                match *kind {
                    "t" => Some(Self::Tag(repository, name.parse().ok()?)),
                    "m" => Some(Self::Listed(repository, name.parse().ok()?)),
                    _ => None,
                }
            }
            (["H", repository, tag], ["x"]) => Some(Self::Tombstone(repository.parse().ok()?, tag.parse().ok()?)),
            (["H", repository, tag], [version]) => Some(Self::Change(
                repository.parse().ok()?,
                tag.parse().ok()?,
                number(version)?,
            )),
            (["C"], [repository]) => Some(Self::Repository(repository.parse().ok()?)),
            (["B", digest], ["B"]) => Some(Self::Blob(digest.parse().ok()?)),
            (["B", digest], ["l", repository, uid]) => Some(Self::BackLink {
                digest: digest.parse().ok()?,
                repository: repository.parse().ok()?,
                uid: Uid(number(uid)?),
            }),
            (["S", _], [expires, id]) => session_key(expires, id).map(Self::Session),
            (["S", _], [expires, id, part]) => {
                let part = part.strip_prefix('p')?.parse().ok()?;
                session_key(expires, id).map(|session| Self::Part(session, part))
            }
            (["G", _], [_, _]) => Some(Self::PendingDeletion),
            (["K"], ["upload", id]) => u32::from_str_radix(id, 16).ok().map(Self::SigningKey),
            (["K"], ["first"]) => Some(Self::FirstSigningKey),
            (["K"], ["pass"]) => Some(Self::Pass),
            (["K"], ["schema"]) => Some(Self::Schema),
            _ => None,
        }
    }

    fn of_digest(repository: RepositoryName, digest: Digest, sort: &[&str]) -> Option<Self> {
        match sort {
            ["L"] => Some(Self::Link(repository, digest)),
            ["M"] => Some(Self::Manifest(repository, digest)),
            ["e", "m", parent, uid] => Some(Self::Edge {
                repository,
                target: digest,
                parent: parent.parse().ok()?,
                uid: Uid(number(uid)?),
            }),
            ["e", "s", referrer] => Some(Self::Referrer {
                repository,
                subject: digest,
                referrer: referrer.parse().ok()?,
            }),
            ["e", "t", tag] => Some(Self::Tagged(repository, digest, tag.parse().ok()?)),
            ["r", uid, row] => Some(Self::References {
                repository,
                digest,
                uid: Uid(number(uid)?),
                row: row.parse().ok()?,
            }),
            _ => None,
        }
    }
}

/// Parses sixteen hexadecimal digits.
pub(crate) fn number(text: &str) -> Option<u64> {
    let whole = text.len() == 16 && !text.starts_with('+');
    whole.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

fn session_key(expires: &str, id: &str) -> Option<SessionKey> {
    Some(SessionKey {
        expires: Timestamp(number(expires)?),
        id: id.parse().ok()?,
    })
}

impl Display for ItemKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} / {}", self.partition, self.sort)
    }
}
