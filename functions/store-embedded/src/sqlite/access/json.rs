//! Columns with JSON: lists and maps.

use rusqlite::{Row, RowIndex};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::rows::OperationFailure;
use super::super::values::Columns as _;

/// The text of a column.
pub(super) fn text(value: &impl Serialize) -> Result<String, OperationFailure> {
    serde_json::to_string(value).map_err(|error| OperationFailure::Damaged(error.to_string()))
}

/// The value of a column.
pub(super) fn value<T: DeserializeOwned>(row: &Row<'_>, column: impl RowIndex) -> Result<T, OperationFailure> {
    let text: String = row.value(column)?;
    serde_json::from_str(&text).map_err(|error| OperationFailure::Damaged(error.to_string()))
}
