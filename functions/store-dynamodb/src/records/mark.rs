//! Marks: a remover announces that it is about to remove a record.

use std::fmt;
use std::str::FromStr;

use registry::store::{Timestamp, Uid};

use super::attributes;
use crate::table::{Value, WriteCondition};

/// Why a record is to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkPurpose {
    /// A client has asked for the removal and waits for the answer.
    Delete,
    /// Nothing refers to the record. The mark of a link stays as long as a push may take to use the link again.
    Collection,
}

/// A remover writes its mark on a record before it looks for back-references to the record. It removes the record only
/// if the mark is still its own. A request that needs the record clears the mark, and another remover replaces it.
///
/// `random` is unique for each try of each request. A request whose answer was lost may be applied late; it then cannot
/// restore a mark that was cleared since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeletionMark {
    /// Why the record is to be removed.
    pub(crate) purpose: MarkPurpose,
    /// When the mark was written.
    pub(crate) at: Timestamp,
    /// The identity of the mark.
    pub(crate) random: Uid,
}

impl DeletionMark {
    /// The value of the attribute.
    pub(crate) fn value(&self) -> Value {
        Value::S(self.to_string())
    }

    /// The condition that the record exists and has this mark.
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
