//! Between the values of the contracts and the columns of the tables.

use std::fmt::Display;
use std::str::FromStr;

use registry::store::records::LinkKind;
use registry::store::sessions::{SessionId, SessionKey, State};
use registry::store::{Location, Page, Timestamp, Uid};
use rusqlite::types::FromSql;
use rusqlite::{Error, Row, RowIndex};

use super::rows::Failure;

/// SQLite's integers are signed. What does not fit is beyond any size, moment or version that occurs, and stays the
/// largest.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The 64 bits of an incarnation.
pub(super) fn bits(uid: Uid) -> i64 {
    uid.0.cast_signed()
}

pub(super) fn timestamp(at: Timestamp) -> i64 {
    integer(at.0)
}

/// The two columns of a session's key. The id is big-endian, so that rows sort like keys.
pub(super) fn session_key(key: SessionKey) -> (i64, [u8; 16]) {
    (timestamp(key.expires), key.id.0.to_be_bytes())
}

pub(super) fn holding_text(link_kind: LinkKind) -> &'static str {
    match link_kind {
        LinkKind::Blob => "blob",
        LinkKind::Manifest => "manifest",
    }
}

pub(super) fn state_text(state: State) -> &'static str {
    match state {
        State::Open => "open",
        // See `ACKNOWLEDGED` of the sessions for what tells the two apart.
        State::Committing | State::Published => "committing",
        State::Done => "done",
        State::Cancelled => "cancelled",
        // Never stored: a sweep is one transaction, after which there is no row.
        State::Swept => "swept",
    }
}

/// A statement's limit for a page of `limit` items: one more tells whether anything follows.
pub(super) fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

/// A page of at most `limit` out of what a statement with [`one_more`] has found.
pub(super) fn page<T>(mut items: Vec<T>, limit: usize) -> Page<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    Page { items, more }
}

/// Reads columns, refusing what this program would not have written.
pub(super) trait Columns {
    fn value<T: FromSql>(&self, column: impl RowIndex) -> Result<T, Failure>;

    fn unsigned(&self, column: impl RowIndex) -> Result<u64, Failure> {
        let value: i64 = self.value(column)?;
        u64::try_from(value).map_err(|_| Failure::Damaged(format!("{value} is negative")))
    }

    fn small(&self, column: impl RowIndex) -> Result<u32, Failure> {
        let value: i64 = self.value(column)?;
        u32::try_from(value).map_err(|_| Failure::Damaged(format!("{value} is out of range")))
    }

    fn timestamp(&self, column: impl RowIndex) -> Result<Timestamp, Failure> {
        self.unsigned(column).map(Timestamp)
    }

    fn uid(&self, column: impl RowIndex) -> Result<Uid, Failure> {
        let value: i64 = self.value(column)?;
        Ok(Uid(value.cast_unsigned()))
    }

    /// A text with a parser: a digest, a name, a tag, a media type.
    fn parsed<T: FromStr<Err: Display>>(&self, column: impl RowIndex) -> Result<T, Failure>;

    fn parsed_if_any<T: FromStr<Err: Display>>(&self, column: impl RowIndex) -> Result<Option<T>, Failure>;

    fn location(&self, store: impl RowIndex, key: impl RowIndex) -> Result<Location, Failure> {
        Ok(Location {
            store: self.value(store)?,
            key: self.value(key)?,
        })
    }

    fn session_key(&self, expires: impl RowIndex, id: impl RowIndex) -> Result<SessionKey, Failure> {
        let id: [u8; 16] = self.value(id)?;
        Ok(SessionKey {
            expires: self.timestamp(expires)?,
            id: SessionId(u128::from_be_bytes(id)),
        })
    }
}

impl Columns for Row<'_> {
    fn value<T: FromSql>(&self, column: impl RowIndex) -> Result<T, Failure> {
        self.get(column).map_err(|error| match error {
            // The row was read, and its value is none of this type.
            Error::FromSqlConversionFailure(..) | Error::InvalidColumnType(..) | Error::IntegralValueOutOfRange(..) => {
                Failure::Damaged(error.to_string())
            }
            error => error.into(),
        })
    }

    fn parsed<T: FromStr<Err: Display>>(&self, column: impl RowIndex) -> Result<T, Failure> {
        let text = self.get_ref(column)?;
        parse(
            text.as_str()
                .map_err(|_| Failure::Damaged("a text was expected".to_owned()))?,
        )
    }

    fn parsed_if_any<T: FromStr<Err: Display>>(&self, column: impl RowIndex) -> Result<Option<T>, Failure> {
        let text = self.get_ref(column)?;
        let text = text
            .as_str_or_null()
            .map_err(|_| Failure::Damaged("a text was expected".to_owned()))?;
        text.map(parse).transpose()
    }
}

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, Failure> {
    text.parse()
        .map_err(|error| Failure::Damaged(format!("{text:?}: {error}")))
}
