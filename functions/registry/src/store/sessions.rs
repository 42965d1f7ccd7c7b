//! Uploads in progress: intents that name every object before it exists.
//!
//! Sessions are apart from the other records because they are never replicated between regions. A session's key comes
//! from its signed token, so opening an upload writes nothing; the row is first written by [`SessionStore::claim`],
//! before the first byte is stored.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use oci::Digest;

use super::{Context, Location, StoreError, Timestamp};

/// The random 128-bit id of a session, chosen when the upload was opened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(oci::hex::write(&self.0.to_be_bytes(), &mut [0; 32]))
    }
}

impl FromStr for SessionId {
    type Err = AttemptError;

    /// Reads the 32 lower-case hexadecimal digits that [`fmt::Display`] writes, and no other spelling.
    fn from_str(text: &str) -> Result<Self, AttemptError> {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return Err(AttemptError);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| AttemptError)
    }
}

/// The key of a session's row. Both parts can be read from the upload token, and rows sort by expiry, so that one row
/// serves the look-up and the question what is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionKey {
    /// When the token ends.
    pub expires: Timestamp,
    /// The session.
    pub id: SessionId,
}

/// The name of one attempt to store one request body.
///
/// Claims of a session are serialised by its version, so that counting them gives every attempt a name of its own; all
/// objects that a session may ever have made can be derived from its row: attempts 1 to [`Session::attempts`].
/// Displayed as `<id>.<number>`, which is the key of the object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Attempt {
    /// The session it belongs to.
    pub session: SessionId,
    /// 1 for the first claim of the session.
    pub number: u32,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.number)
    }
}

/// The text is not the name of an attempt, or not the id of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected 32 lower-case hexadecimal digits, for an attempt followed by a dot and a number from 1 on")]
pub struct AttemptError;

impl FromStr for Attempt {
    type Err = AttemptError;

    /// Reads the one spelling that [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, AttemptError> {
        match Self::of_key(text) {
            Some((attempt, "")) => Ok(attempt),
            _ => Err(AttemptError),
        }
    }
}

impl Attempt {
    /// The attempt that wrote the object of this key, and what follows its name in the key: nothing, or a dot and more.
    /// `None`: no attempt wrote it. Only the one spelling that [`fmt::Display`] writes is read, so that no other text
    /// becomes the name of an object.
    ///
    /// ```
    /// use registry::store::sessions::Attempt;
    ///
    /// let (attempt, rest) = Attempt::of_key("00000000000000000000000000000abc.7.0").unwrap();
    /// assert_eq!((attempt.session.0, attempt.number, rest), (0xabc, 7, ".0"));
    /// assert_eq!(Attempt::of_key("00000000000000000000000000000abc.07"), None);
    /// ```
    #[must_use]
    pub fn of_key(key: &str) -> Option<(Self, &str)> {
        let (session, rest) = key.split_once('.')?;
        let session = session.parse().ok()?;
        let (number, rest) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
        let is_canonical = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
        let number = number.parse().ok().filter(|_| is_canonical)?;
        Some((Self { session, number }, rest))
    }
}

/// The life of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Takes bodies.
    Open,
    /// A final PUT with a verified digest is publishing it; its objects must not be touched.
    Committing,
    /// Committed under the digest in [`Session::publishing`], and something beside that object may be left of it, which
    /// only collection finds.
    Published,
    /// Committed under the digest in [`Session::publishing`], and nothing but that object is left of it.
    Done,
    /// Ended without a commit: by DELETE, or by a digest that the bytes do not have.
    Cancelled,
    /// Expired, and its objects are on their way to the graveyard.
    Swept,
}

/// What a session becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publishing {
    /// The verified digest.
    pub digest: Digest,
    /// The sealed object.
    pub location: Location,
    /// Its bytes.
    pub size: u64,
}

/// What a session holds after its last complete body.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes stored, 0 or more.
    pub offset: u64,
    /// The saved state of the hash over them (see `oci::Hasher::save`); empty before the first body.
    pub hash: Vec<u8>,
    /// What the blob store needs to go on, opaque to everyone else; small, replaced by each body.
    pub store: Vec<u8>,
    /// How many part records there are (see [`SessionStore::parts`]).
    pub parts: u32,
}

/// A session's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Counts changes of the row; every write is conditional on it.
    pub version: u64,
    /// Where it is in its life.
    pub state: State,
    /// How many attempts were ever claimed.
    pub attempts: u32,
    /// The end of the live claim, if there is one. A claim that is not renewed ends by itself.
    pub claimed_until: Option<Timestamp>,
    /// What is stored.
    pub progress: Progress,
    /// What is being or was committed; `None` while open.
    pub publishing: Option<Publishing>,
}

/// The right to store one body in a session, until it is saved, released, or lost.
///
/// It is lost when the row's version has changed: another request claimed or cancelled the session. Its time passing
/// only lets that happen. A claim that ran out while nobody else came is as good as before, so that a seal which
/// takes longer than a minute does not cost an upload.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The session.
    pub key: SessionKey,
    /// This attempt.
    pub attempt: Attempt,
    /// The row's version as the claim left it. Renewals do not change it.
    pub version: u64,
    /// What was stored before.
    pub progress: Progress,
}

/// What a request lets one expect of its session before the row is looked at. A wrong guess costs a request of the
/// table, and changes no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// Nothing was stored yet: there is no row.
    New,
    /// Bytes were stored before: there is a row.
    Existing,
}

/// The answer to [`SessionStore::claim`].
#[derive(Clone, Debug)]
pub enum Claimed {
    /// The caller alone may store a body now.
    Granted(Claim),
    /// Another request holds a live claim; the session is as given.
    Busy(Session),
    /// The session is open, and has claimed as many attempts as it may; it is as given.
    AttemptsExhausted(Session),
    /// The session takes no more bodies; it is as given.
    Ended(Session),
}

/// How [`SessionStore::finish`] leaves a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Its digest is published, and something may be left of it.
    Published,
    /// Its digest is published, and nothing else is left of it.
    Done,
    /// It ended without a commit.
    Cancelled,
}

impl From<End> for State {
    fn from(end: End) -> Self {
        match end {
            End::Published => Self::Published,
            End::Done => Self::Done,
            End::Cancelled => Self::Cancelled,
        }
    }
}

/// A key that signs upload tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its public id.
    pub id: u32,
    /// 32 secret bytes.
    pub secret: [u8; 32],
    /// When it was made.
    pub created: Timestamp,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret must not reach a log through a derived Debug.
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Keeps upload sessions and the keys that sign their tokens.
///
/// # The states of a session
///
/// A row of the table is a [`State`]; an open session has three rows, for it may be claimed, and the claim may be live or
/// have run out. A column is what happens to the session. A cell is the next state, or in *italics* the answer that
/// refuses it and changes nothing.
///
/// | | claim | save, release | commit | finish | cancel | expire |
/// |---|---|---|---|---|---|---|
/// | no row | claimed | *lost* | *lost* | *lost* | cancelled | – |
/// | open, not claimed | claimed ¹ | *lost* | *lost* | *lost* | cancelled | swept |
/// | open, claimed | *busy* | not claimed | committing | ended ² | cancelled | *spared* |
/// | open, claim run out | claimed ¹ | not claimed | committing | ended ² | cancelled | swept |
/// | committing | *ended* | *lost* | *lost* | ended ³ | *ended* | swept |
/// | published | *ended* | *lost* | *lost* | *lost* | *ended* | swept |
/// | done | *ended* | *lost* | *lost* | *lost* | *ended* | swept ⁴ |
/// | cancelled | *ended* | *lost* | *lost* | *lost* | *ended* | swept |
/// | swept | *ended* | *lost* | *lost* | *lost* | *ended* | swept |
///
/// * *busy* is [`Claimed::Busy`]; *ended* is [`Claimed::Ended`] or [`Cancelled::Ended`].
/// * *lost*: the caller's claim is not the session's any more. [`save`](Self::save) and [`commit`](Self::commit) answer
///   `false`; [`release`](Self::release) and [`finish`](Self::finish) do nothing.
/// * ¹ Unless the session has had as many attempts as it may: [`Claimed::AttemptsExhausted`].
/// * ² Published, done or cancelled, as the caller says ([`End`]). The protocol core only cancels here, when the bytes do
///   not have the digest that they should.
/// * ³ Likewise; by the claim that committed the session, or by [`finish_committing`](Self::finish_committing) for a
///   request that repeats an interrupted one.
/// * *expire* is [`CollectionStore::sweep`](super::collection::CollectionStore::sweep), after the session's token has
///   ended. What the session may have left in the blob store is scheduled for deletion, then the row is removed; *swept*
///   is what a store shows meanwhile that cannot do both at once. *spared*: a later pass looks at the session again.
/// * ⁴ A done session has left nothing, so that only its row is removed.
///
/// The protocol core uses these as save (a chunk was stored), release (nothing was stored), fail (a body failed: release,
/// unless the session ended meanwhile), commit and finish (the last body), and cancel (DELETE, or a wrong digest).
///
/// # All methods
///
/// Every method is atomic, and what it acknowledged is visible to the next call on every instance. Implementations
/// retry their own faults until the deadline of the [`Context`].
#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// The row, or `None`: the token was issued and nothing was stored yet.
    async fn get(&self, cx: Context, key: SessionKey) -> Result<Option<Session>, StoreError>;

    /// Claims the session until `until` for one body, creating the row when there is none. Granted exactly when the
    /// session is open, has no claim that is live at `cx.now`, and has claimed fewer than `max_attempts` attempts (1 or more)
    /// before. Counts an attempt. Durable when it returns: the row names the object that the caller is about to write.
    /// `expected` only tells a store, in which looking and creating are requests of their own, which to try first.
    async fn claim(
        &self,
        cx: Context,
        key: SessionKey,
        expected: Expected,
        until: Timestamp,
        max_attempts: u32,
    ) -> Result<Claimed, StoreError>;

    /// Moves the end of a claim. `false`: the claim is lost, and the body must be given up.
    async fn renew(&self, cx: Context, claim: &Claim, until: Timestamp) -> Result<bool, StoreError>;

    /// Records a whole body and ends the claim. `progress` replaces the session's (its `parts` is counted by the
    /// store, what the caller sets there is ignored); `part`, if given, is added to the part records under the next
    /// number. `false`: the claim was lost, nothing is recorded.
    async fn save(
        &self,
        cx: Context,
        claim: &Claim,
        progress: Progress,
        part: Option<Vec<u8>>,
    ) -> Result<bool, StoreError>;

    /// Gives the claim back after a body that was cut or refused; the session is as before it. Without effect when
    /// the claim is lost.
    async fn release(&self, cx: Context, claim: &Claim) -> Result<(), StoreError>;

    /// All part records, in the order in which they were saved; empty when there is no row.
    async fn parts(&self, cx: Context, key: SessionKey) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Marks a claimed session as [`State::Committing`] and records what it becomes, so that a publication which was
    /// interrupted can be finished by whoever repeats the request. `false`: the claim was lost, and nothing may be
    /// published. From then on nobody else can claim or cancel it; it is swept only when it has expired, and then what
    /// it names is buried, not deleted.
    async fn commit(&self, cx: Context, claim: &Claim, publishing: &Publishing) -> Result<bool, StoreError>;

    /// Ends a session that the caller has claimed, or marked as committing with the same claim. Idempotent. The row
    /// stays until the token has expired, so that a replay meets it. What does not end as [`End::Done`] is swept. No
    /// commit is acknowledged before its end: a replay would publish once more what was deleted since.
    async fn finish(&self, cx: Context, claim: &Claim, end: End) -> Result<(), StoreError>;

    /// Ends a session that is committing, for a caller that has finished the publication of another. Without effect when
    /// it is anything else.
    async fn finish_committing(&self, cx: Context, key: SessionKey, end: End) -> Result<(), StoreError>;

    /// Cancels a session on a client's word, creating the row when there is none: a cancelled session stays
    /// cancelled for as long as its token lives. Answers the row as it was before (`None`: there was none) when it is
    /// cancelled now. A live claim does not protect it: the body that is streaming loses its claim, and learns that
    /// when it renews or saves it. A session that is committing or has ended stays as it is.
    async fn cancel(&self, cx: Context, key: SessionKey) -> Result<Cancelled, StoreError>;

    /// Sessions whose token ended before `before`, in an order of the store's own, at most `limit`, those after the
    /// session `after` in that order.
    async fn expired(
        &self,
        cx: Context,
        before: Timestamp,
        after: Option<SessionKey>,
        limit: usize,
    ) -> Result<Vec<(SessionKey, Session)>, StoreError>;

    /// The keys that sign and verify upload tokens, newest first; stores `candidate` if there is none yet. Racing
    /// first calls all answer the same key.
    async fn signing_keys(&self, cx: Context, candidate: SigningKey) -> Result<Vec<SigningKey>, StoreError>;
}

/// The answer to [`SessionStore::cancel`].
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "short-lived, and almost always the large variant"
)]
pub enum Cancelled {
    /// It is cancelled now; this is how it was before, `None` when nothing had been stored.
    Now(Option<Session>),
    /// It had ended, or is being committed.
    Ended,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::Location;

    #[test]
    fn only_the_name_of_an_attempt_is_read_as_one() {
        let session = SessionId(0xabc);
        let attempt = Attempt { session, number: 7 };
        assert_eq!(attempt.to_string().parse(), Ok(attempt));
        assert_eq!(session.to_string().parse(), Ok(session));
        for other in [
            "",
            ".",
            "abc.7",
            &format!("{session}"),
            &format!("{session}."),
            &format!("{session}.0"),
            &format!("{session}.07"),
            &format!("{session}.+7"),
            &format!("{session}.7."),
            &format!("{session}.7.0"),
            &format!("{session}.7/x"),
            &format!("{session}.4294967296"),
            &format!("{session}0.7"),
            &format!("+{}.7", &session.to_string()[1..]),
            &attempt.to_string().to_uppercase(),
            &format!(" {attempt}"),
        ] {
            assert_eq!(other.parse::<Attempt>(), Err(AttemptError), "{other}");
            assert_eq!(
                other.parse::<SessionId>().is_ok(),
                other == session.to_string(),
                "{other}"
            );
        }
    }

    #[test]
    fn a_key_tells_the_attempt_that_wrote_its_object() {
        let attempt = Attempt {
            session: SessionId(u128::MAX),
            number: u32::MAX,
        };
        for (rest, is_of_main) in [("", true), (".0", true), (".0.0", false), (".1", false), (".", false)] {
            let key = format!("{attempt}{rest}");
            assert_eq!(Attempt::of_key(&key), Some((attempt, rest)));
            assert_eq!(Location::main(key.as_str()).is_of_main(), is_of_main, "{key}");
            let elsewhere = Location {
                store: "other".to_owned(),
                key,
            };
            assert!(!elsewhere.is_of_main());
        }
    }

    proptest! {
        #[test]
        fn names_of_attempts_are_read_back(session in any::<u128>(), number in 1..=u32::MAX, rest in "(\\.[0-9.]{0,9})?") {
            let attempt = Attempt { session: SessionId(session), number };
            let key = format!("{attempt}{rest}");
            prop_assert_eq!(Attempt::of_key(&key), Some((attempt, rest.as_str())));
        }

        /// What is read has one spelling.
        #[test]
        fn any_text(text in "[0-9a-fA-F.+ /]{0,45}") {
            if let Some((attempt, rest)) = Attempt::of_key(&text) {
                prop_assert_eq!(format!("{attempt}{rest}"), text);
            }
        }
    }
}
