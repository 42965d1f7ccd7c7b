//! Marks: who is about to remove a record.

use std::fmt;
use std::str::FromStr;

use registry::store::{Timestamp, Uid};

use super::attributes;
use crate::table::{Value, WriteCondition};

/// Why a record is to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkPurpose {
    /// Somebody asked for it, and waits.
    Delete,
    /// Nothing refers to it. The mark of a link stays for as long as a push may take to come back to it.
    Collection,
}

/// Written on a record before its remover looks for claims on it. The record is removed only while the mark is the
/// remover's own: whoever needs the record takes the mark away, and whoever else would remove it replaces it.
///
/// `random` is of one try of one request, so that a request which was thought lost and is done late does not bring
/// back a mark that somebody has taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeletionMark {
    /// Why.
    pub(crate) purpose: MarkPurpose,
    /// Since when.
    pub(crate) at: Timestamp,
    /// Whose.
    pub(crate) random: Uid,
}

impl DeletionMark {
    /// The attribute's value.
    pub(crate) fn value(&self) -> Value {
        Value::S(self.to_string())
    }

    /// The record has this mark, and so exists.
    pub(crate) fn is_present(&self) -> WriteCondition {
        WriteCondition::Is(attributes::MARK, self.value())
    }
}

impl fmt::Display for DeletionMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let purpose = match self.purpose {
            MarkPurpose::Delete => "delete",
            MarkPurpose::Collection => "collection",
        };
        write!(f, "{purpose} {:016x} {}", self.at.0, self.random)
    }
}

impl FromStr for DeletionMark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(());
        let purpose = match word()? {
            "delete" => MarkPurpose::Delete,
            "collection" => MarkPurpose::Collection,
            _ => return Err(()),
        };
        let mut number = || crate::keys::number(word()?).ok_or(());
        Ok(Self {
            purpose,
            at: Timestamp(number()?),
            random: Uid(number()?),
        })
    }
}
