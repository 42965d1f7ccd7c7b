//! What belongs to one region: sessions, graves, signing keys, and the pass of the collection.

use oci::Digest;
use registry::store::collection::PendingDeletion;
use registry::store::sessions::{Progress, Publishing, Session, SessionKey, SigningKey, State};
use registry::store::{Cursor, StoreError, Timestamp, Uid};

use super::fields::Making;
use super::{Fields, damaged, names};
use crate::keys::{self, Name};
use crate::table::{Condition, Item, Write};

/// For how many seconds after its end a session's row waits for the sweep before DynamoDB may remove it.
const BACKSTOP_SECONDS: u64 = 30 * 24 * 3600;

fn backstop(session: SessionKey) -> u64 {
    session.expires.0 / 1000 + BACKSTOP_SECONDS
}

/// The value of `STATE`.
pub(crate) fn state_text(state: State) -> &'static str {
    match state {
        State::Open => "open",
        // `PUBLISHED` tells the two apart. The version before does not know it, and may take the one for the other.
        State::Committing | State::Published => "committing",
        State::Done => "done",
        State::Cancelled => "cancelled",
        State::Swept => "swept",
    }
}

/// An upload session.
pub(crate) struct SessionRow;

impl SessionRow {
    pub(crate) fn item(key: SessionKey, session: &Session) -> Item {
        let making = Making::default()
            .number(names::VERSION, session.version)
            .text(names::STATE, state_text(session.state))
            .flag(names::PUBLISHED, session.state == State::Published)
            .number(names::ATTEMPTS, session.attempts)
            .number(names::OFFSET, session.progress.offset)
            .bytes_if_any(names::HASH, &session.progress.hash)
            .bytes_if_any(names::PROGRESS, &session.progress.store)
            .number(names::PARTS, session.progress.parts)
            .number(names::EXPIRES, backstop(key));
        let making = match session.claimed_until {
            Some(until) => making.timestamp(names::CLAIMED_UNTIL, until),
            None => making,
        };
        let making = match &session.publishing {
            Some(publishing) => making
                .text(names::DIGEST, publishing.digest)
                .location(&publishing.location)
                .number(names::SIZE, publishing.size),
            None => making,
        };
        making.item(keys::session(key))
    }

    pub(crate) fn read(item: &Item) -> Result<Session, StoreError> {
        let fields = Fields(item);
        let state = match fields.text(names::STATE)? {
            "open" => State::Open,
            "committing" if fields.flag(names::PUBLISHED) => State::Published,
            "committing" => State::Committing,
            "done" => State::Done,
            "cancelled" => State::Cancelled,
            "swept" => State::Swept,
            other => return Err(damaged(&item.key, format_args!("{other} is no state"))),
        };
        let publishing = match fields.parsed_if_any::<Digest>(names::DIGEST)? {
            Some(digest) => Some(Publishing {
                digest,
                location: fields.location()?,
                size: fields.number(names::SIZE)?,
            }),
            None => None,
        };
        Ok(Session {
            version: fields.number(names::VERSION)?,
            state,
            attempts: fields.small(names::ATTEMPTS)?,
            claimed_until: fields.number_if_any(names::CLAIMED_UNTIL)?.map(Timestamp),
            progress: Progress {
                offset: fields.number(names::OFFSET)?,
                hash: fields.bytes_or_none(names::HASH)?,
                store: fields.bytes_or_none(names::PROGRESS)?,
                parts: fields.small(names::PARTS)?,
            },
            publishing,
        })
    }

    /// The session of a row.
    pub(crate) fn key(item: &Item) -> Option<SessionKey> {
        match Name::of(&item.key) {
            Some(Name::Session(key)) => Some(key),
            _ => None,
        }
    }
}

/// A part record of a session.
pub(crate) struct PartRow;

impl PartRow {
    pub(crate) fn item(key: SessionKey, number: u32, part: &[u8]) -> Item {
        Making::default()
            .bytes_if_any(names::PART, part)
            .number(names::EXPIRES, backstop(key))
            .item(keys::part(key, number))
    }

    pub(crate) fn read(item: &Item) -> Result<Vec<u8>, StoreError> {
        Fields(item).bytes_or_none(names::PART)
    }
}

/// An object that lost its name.
pub(crate) struct PendingDeletionRow;

impl PendingDeletionRow {
    const ATTRIBUTES: [&str; 5] = [names::STORE, names::OBJECT, names::DIGEST, names::UNFINISHED, names::AT];

    /// Makes the row this one, whether there was one or not.
    pub(crate) fn becomes(pending_deletion: &PendingDeletion, condition: Condition) -> Write {
        Write::change_to(Self::item(pending_deletion), &Self::ATTRIBUTES, condition)
    }

    pub(super) fn item(pending_deletion: &PendingDeletion) -> Item {
        Making::default()
            .location(&pending_deletion.location)
            .text_if_any(names::DIGEST, pending_deletion.digest)
            .flag(names::UNFINISHED, pending_deletion.unfinished)
            .timestamp(names::AT, pending_deletion.at)
            .item(keys::pending_deletion(&pending_deletion.location))
    }

    pub(crate) fn read(item: &Item) -> Result<PendingDeletion, StoreError> {
        let fields = Fields(item);
        Ok(PendingDeletion {
            location: fields.location()?,
            digest: fields.parsed_if_any(names::DIGEST)?,
            unfinished: fields.flag(names::UNFINISHED),
            at: fields.timestamp(names::AT)?,
        })
    }
}

/// A key that signs upload tokens.
pub(crate) struct SigningKeyRow;

impl SigningKeyRow {
    pub(crate) fn item(key: &SigningKey) -> Item {
        Making::default()
            .bytes(names::SECRET, key.secret.to_vec())
            .timestamp(names::CREATED, key.created)
            .item(keys::signing_key(key.id))
    }

    pub(crate) fn read(item: &Item) -> Result<SigningKey, StoreError> {
        let Some(Name::SigningKey(id)) = Name::of(&item.key) else {
            return Err(damaged(&item.key, "not a signing key"));
        };
        let fields = Fields(item);
        let secret = fields.bytes(names::SECRET)?;
        Ok(SigningKey {
            id,
            secret: secret
                .as_ref()
                .try_into()
                .map_err(|_| damaged(&item.key, "not a secret"))?,
            created: fields.timestamp(names::CREATED)?,
        })
    }
}

/// The id of the first signing key.
pub(crate) struct FirstKey;

impl FirstKey {
    pub(crate) fn item(id: u32) -> Item {
        Making::default().number(names::ID, id).item(keys::first_signing_key())
    }
}

/// The walk over the names: who is at it, until when, and where it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PassRow {
    /// Who.
    pub(crate) pass: Uid,
    /// Until when it is theirs alone.
    pub(crate) until: Timestamp,
    /// Where it goes on; `None`: from the beginning.
    pub(crate) next: Option<Cursor>,
}

impl PassRow {
    const ATTRIBUTES: [&str; 3] = [names::PASS, names::UNTIL, names::CURSOR];

    /// Makes the row this one, whether there was one or not.
    pub(crate) fn becomes(&self, condition: Condition) -> Write {
        Write::change_to(self.item(), &Self::ATTRIBUTES, condition)
    }

    pub(super) fn item(&self) -> Item {
        Making::default()
            .text(names::PASS, self.pass)
            .timestamp(names::UNTIL, self.until)
            .text_if_any(names::CURSOR, self.next.as_ref().map(|next| &next.0))
            .item(keys::pass())
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = Fields(item);
        let next = fields.text_if_any(names::CURSOR)?;
        Ok(Self {
            pass: fields.uid(names::PASS)?,
            until: fields.timestamp(names::UNTIL)?,
            next: next.map(|next| Cursor(next.to_owned())),
        })
    }
}
