//! The records of the local table: sessions, pending deletions, signing keys, and the collection pass.

use oci::Digest;
use registry::store::collection::PendingDeletion;
use registry::store::sessions::{Progress, Publishing, Session, SessionKey, SigningKey, State};
use registry::store::{Cursor, StoreError, Timestamp, Uid};

use super::fields::ItemBuilder;
use super::{ItemFields, attributes, damaged};
use crate::keys::{self, RecordKey};
use crate::table::{Item, Write, WriteCondition};

/// How many seconds after the expiry of a session DynamoDB may remove its row. Session expiry removes it long before.
const BACKSTOP_SECONDS: u64 = 30 * 24 * 3600;

fn backstop(session: SessionKey) -> u64 {
    session.expires.0 / 1000 + BACKSTOP_SECONDS
}

/// The values of `STATE`.
pub(crate) mod state_text {
    pub(crate) const OPEN: &str = "open";
    /// Committing or published: `PUBLISHED` distinguishes the two. The previous version does not know that flag, and
    /// treats both states as one.
    pub(crate) const COMMITTING: &str = "committing";
    pub(crate) const DONE: &str = "done";
    pub(crate) const CANCELLED: &str = "cancelled";
    pub(crate) const SWEPT: &str = "swept";
}

/// An upload session.
pub(crate) struct SessionRow;

impl SessionRow {
    pub(crate) fn item(key: SessionKey, session: &Session) -> Item {
        let state = match session.state {
            State::Open { .. } => state_text::OPEN,
            State::Committing(_) | State::Published(_) => state_text::COMMITTING,
            State::Done(_) => state_text::DONE,
            State::Cancelled(_) => state_text::CANCELLED,
            State::Swept(_) => state_text::SWEPT,
        };
        let making = ItemBuilder::default()
            .number(attributes::VERSION, session.version)
            .text(attributes::STATE, state)
            .flag(attributes::PUBLISHED, matches!(session.state, State::Published(_)))
            .number(attributes::ATTEMPTS, session.attempts)
            .number(attributes::OFFSET, session.progress.offset)
            .bytes_if_any(attributes::HASH, &session.progress.hash)
            .bytes_if_any(attributes::PROGRESS, &session.progress.store)
            .number(attributes::PARTS, session.progress.parts)
            .number(attributes::EXPIRES, backstop(key));
        let making = match session.claimed_until() {
            Some(until) => making.timestamp(attributes::CLAIMED_UNTIL, until),
            None => making,
        };
        let making = match session.state.publishing() {
            Some(publishing) => making
                .text(attributes::DIGEST, publishing.digest)
                .location(&publishing.location)
                .number(attributes::SIZE, publishing.size),
            None => making,
        };
        making.item(keys::session(key))
    }

    pub(crate) fn read(item: &Item) -> Result<Session, StoreError> {
        let fields = ItemFields(item);
        let publishing = match fields.parsed_if_any::<Digest>(attributes::DIGEST)? {
            Some(digest) => Some(Publishing {
                digest,
                location: fields.location()?,
                size: fields.number(attributes::SIZE)?,
            }),
            None => None,
        };
        let text = fields.text(attributes::STATE)?;
        let state = match (text, publishing) {
            (state_text::OPEN, _) => State::Open {
                claimed_until: fields.number_if_any(attributes::CLAIMED_UNTIL)?.map(Timestamp),
            },
            (state_text::COMMITTING, Some(publishing)) if fields.flag(attributes::PUBLISHED) => {
                State::Published(publishing)
            }
            (state_text::COMMITTING, Some(publishing)) => State::Committing(publishing),
            (state_text::DONE, Some(publishing)) => State::Done(publishing),
            (state_text::CANCELLED, publishing) => State::Cancelled(publishing),
            (state_text::SWEPT, publishing) => State::Swept(publishing),
            (state_text::COMMITTING | state_text::DONE, None) => {
                return Err(damaged(&item.key, format_args!("a session is {text}, and has no blob")));
            }
            (other, _) => return Err(damaged(&item.key, format_args!("unknown state {other}"))),
        };
        Ok(Session {
            version: fields.number(attributes::VERSION)?,
            state,
            attempts: fields.small(attributes::ATTEMPTS)?,
            progress: Progress {
                offset: fields.number(attributes::OFFSET)?,
                hash: fields.bytes_or_none(attributes::HASH)?,
                store: fields.bytes_or_none(attributes::PROGRESS)?,
                parts: fields.small(attributes::PARTS)?,
            },
        })
    }

    /// The key of the session in this row; `None` for other rows.
    pub(crate) fn key(item: &Item) -> Option<SessionKey> {
        match RecordKey::of(&item.key) {
            Some(RecordKey::Session(key)) => Some(key),
            _ => None,
        }
    }
}

/// A part record of a session.
pub(crate) struct PartRow;

impl PartRow {
    pub(crate) fn item(key: SessionKey, number: u32, part: &[u8]) -> Item {
        ItemBuilder::default()
            .bytes_if_any(attributes::PART, part)
            .number(attributes::EXPIRES, backstop(key))
            .item(keys::part(key, number))
    }

    pub(crate) fn read(item: &Item) -> Result<Vec<u8>, StoreError> {
        ItemFields(item).bytes_or_none(attributes::PART)
    }
}

/// An object that waits for its deletion.
pub(crate) struct PendingDeletionRow;

impl PendingDeletionRow {
    const ATTRIBUTES: [&str; 5] = [
        attributes::STORE,
        attributes::OBJECT,
        attributes::DIGEST,
        attributes::UNFINISHED,
        attributes::AT,
    ];

    /// A write that gives the row these values, whether or not the row exists.
    pub(crate) fn update(pending_deletion: &PendingDeletion, condition: WriteCondition) -> Write {
        Write::change_to(Self::item(pending_deletion), &Self::ATTRIBUTES, condition)
    }

    pub(super) fn item(pending_deletion: &PendingDeletion) -> Item {
        ItemBuilder::default()
            .location(&pending_deletion.location)
            .text_if_any(attributes::DIGEST, pending_deletion.digest)
            .flag(attributes::UNFINISHED, pending_deletion.unfinished)
            .timestamp(attributes::AT, pending_deletion.at)
            .item(keys::pending_deletion(&pending_deletion.location))
    }

    pub(crate) fn read(item: &Item) -> Result<PendingDeletion, StoreError> {
        let fields = ItemFields(item);
        Ok(PendingDeletion {
            location: fields.location()?,
            digest: fields.parsed_if_any(attributes::DIGEST)?,
            unfinished: fields.flag(attributes::UNFINISHED),
            at: fields.timestamp(attributes::AT)?,
        })
    }
}

/// A key that signs upload tokens.
pub(crate) struct SigningKeyRow;

impl SigningKeyRow {
    pub(crate) fn item(key: &SigningKey) -> Item {
        ItemBuilder::default()
            .bytes(attributes::SECRET, key.secret.to_vec())
            .timestamp(attributes::CREATED, key.created)
            .item(keys::signing_key(key.id))
    }

    pub(crate) fn read(item: &Item) -> Result<SigningKey, StoreError> {
        let Some(RecordKey::SigningKey(id)) = RecordKey::of(&item.key) else {
            return Err(damaged(&item.key, "not a signing key"));
        };
        let fields = ItemFields(item);
        let secret = fields.bytes(attributes::SECRET)?;
        Ok(SigningKey {
            id,
            secret: secret
                .as_ref()
                .try_into()
                .map_err(|_| damaged(&item.key, "the secret has the wrong length"))?,
            created: fields.timestamp(attributes::CREATED)?,
        })
    }
}

/// The id of the first signing key.
pub(crate) struct FirstKey;

impl FirstKey {
    pub(crate) fn item(id: u32) -> Item {
        ItemBuilder::default()
            .number(attributes::ID, id)
            .item(keys::first_signing_key())
    }
}

/// The walk of the collection over the main table: its uid, its lease, and where it continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PassRow {
    /// The uid of the pass.
    pub(crate) pass: Uid,
    /// The end of its lease. Until then no other pass may take over.
    pub(crate) until: Timestamp,
    /// Where the walk continues; `None`: at the beginning.
    pub(crate) next: Option<Cursor>,
}

impl PassRow {
    const ATTRIBUTES: [&str; 3] = [attributes::PASS, attributes::UNTIL, attributes::CURSOR];

    /// A write that gives the row these values, whether or not the row exists.
    pub(crate) fn update(&self, condition: WriteCondition) -> Write {
        Write::change_to(self.item(), &Self::ATTRIBUTES, condition)
    }

    pub(super) fn item(&self) -> Item {
        ItemBuilder::default()
            .text(attributes::PASS, self.pass)
            .timestamp(attributes::UNTIL, self.until)
            .text_if_any(attributes::CURSOR, self.next.as_ref().map(|next| &next.0))
            .item(keys::pass())
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = ItemFields(item);
        let next = fields.text_if_any(attributes::CURSOR)?;
        Ok(Self {
            pass: fields.uid(attributes::PASS)?,
            until: fields.timestamp(attributes::UNTIL)?,
            next: next.map(|next| Cursor(next.to_owned())),
        })
    }
}
