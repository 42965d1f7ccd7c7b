//! Converts between the values of the contracts and the columns of the tables.

use std::fmt::Display;
use std::str::FromStr;

use registry::store::records::LinkKind;
use registry::store::sessions::SessionKey;
use registry::store::{Location, Page, SessionId, Timestamp, Uid};
use rusqlite::types::FromSql;
use rusqlite::{Error, Row, RowIndex};

use super::rows::OperationFailure;

/// SQLite's integers are signed. A value that does not fit becomes the maximum; no real size, timestamp or version is
/// that large.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The 64 bits of a uid.
pub(super) fn bits(uid: Uid) -> i64 {
    uid.0.cast_signed()
}

pub(super) fn timestamp(at: Timestamp) -> i64 {
    integer(at.0)
}

/// The two columns of a session's key. The id is big-endian, so that rows sort in the order of the keys.
pub(super) fn session_key(key: SessionKey) -> (i64, [u8; 16]) {
    (timestamp(key.expires), key.id.0.to_be_bytes())
}

pub(super) fn link_kind_text(link_kind: LinkKind) -> &'static str {
    match link_kind {
        LinkKind::Blob => "blob",
        LinkKind::Manifest => "manifest",
    }
}

/// The limit of a statement for a page of `limit` items. It asks for one item more, which shows whether another page
/// follows.
pub(super) fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

/// A page of at most `limit` items from the result of a statement with [`one_more`].
pub(super) fn page<T>(mut items: Vec<T>, limit: usize) -> Page<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    Page { items, more }
}

/// Reads columns, and refuses values that this program does not write.
pub(super) trait Columns {
    fn value<T: FromSql>(&self, column: impl RowIndex) -> Result<T, OperationFailure>;

    fn unsigned(&self, column: impl RowIndex) -> Result<u64, OperationFailure> {
        let value: i64 = self.value(column)?;
        u64::try_from(value).map_err(|_| OperationFailure::Damaged(format!("{value} is negative")))
    }

    fn small(&self, column: impl RowIndex) -> Result<u32, OperationFailure> {
        let value: i64 = self.value(column)?;
        u32::try_from(value).map_err(|_| OperationFailure::Damaged(format!("{value} is out of range")))
    }

    fn timestamp(&self, column: impl RowIndex) -> Result<Timestamp, OperationFailure> {
        self.unsigned(column).map(Timestamp)
    }

    fn timestamp_if_any(&self, column: impl RowIndex) -> Result<Option<Timestamp>, OperationFailure> {
        let value: Option<i64> = self.value(column)?;
        let unsigned = value
            .map(|value| u64::try_from(value).map_err(|_| OperationFailure::Damaged(format!("{value} is negative"))));
        Ok(unsigned.transpose()?.map(Timestamp))
    }

    fn uid(&self, column: impl RowIndex) -> Result<Uid, OperationFailure> {
        let value: i64 = self.value(column)?;
        Ok(Uid(value.cast_unsigned()))
    }

    /// A text that a type parses: a digest, a name, a tag, a media type.
    fn parsed<T: FromStr<Err: Display>>(&self, column: impl RowIndex) -> Result<T, OperationFailure>;

    fn parsed_if_any<T: FromStr<Err: Display>>(&self, column: impl RowIndex) -> Result<Option<T>, OperationFailure>;

    fn location(&self, store: impl RowIndex, key: impl RowIndex) -> Result<Location, OperationFailure> {
        Ok(Location {
            store: self.value(store)?,
            key: self.value(key)?,
        })
    }

    fn session_key(&self, expires: impl RowIndex, id: impl RowIndex) -> Result<SessionKey, OperationFailure> {
        let id: [u8; 16] = self.value(id)?;
        Ok(SessionKey {
            expires: self.timestamp(expires)?,
            id: SessionId(u128::from_be_bytes(id)),
        })
    }
}

impl Columns for Row<'_> {
    fn value<T: FromSql>(&self, column: impl RowIndex) -> Result<T, OperationFailure> {
        self.get(column).map_err(|error| match error {
            // The row was read, but its value does not have this type.
            Error::FromSqlConversionFailure(..) | Error::InvalidColumnType(..) | Error::IntegralValueOutOfRange(..) => {
                OperationFailure::Damaged(error.to_string())
            }
            error => error.into(),
        })
    }

    fn parsed<T: FromStr<Err: Display>>(&self, column: impl RowIndex) -> Result<T, OperationFailure> {
        let text = self.get_ref(column)?;
        parse(
            text.as_str()
                .map_err(|_| OperationFailure::Damaged("the value is not text".to_owned()))?,
        )
    }

    fn parsed_if_any<T: FromStr<Err: Display>>(&self, column: impl RowIndex) -> Result<Option<T>, OperationFailure> {
        let text = self.get_ref(column)?;
        let text = text
            .as_str_or_null()
            .map_err(|_| OperationFailure::Damaged("the value is not text".to_owned()))?;
        text.map(parse).transpose()
    }
}

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, OperationFailure> {
    text.parse()
        .map_err(|error| OperationFailure::Damaged(format!("{text:?}: {error}")))
}
