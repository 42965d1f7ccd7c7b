//! Marks: who is about to remove a record.

use std::fmt;
use std::str::FromStr;

use registry::store::{Timestamp, Uid};

use super::names;
use crate::table::{Condition, Value};

/// Why a record is to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
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
pub(crate) struct Mark {
    /// Why.
    pub(crate) purpose: Purpose,
    /// Since when.
    pub(crate) at: Timestamp,
    /// Whose.
    pub(crate) random: Uid,
}

impl Mark {
    /// The attribute's value.
    pub(crate) fn value(&self) -> Value {
        Value::S(self.to_string())
    }

    /// The record has this mark, and so exists.
    pub(crate) fn stands(&self) -> Condition {
        Condition::Is(names::CONDEMNED, self.value())
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let purpose = match self.purpose {
            Purpose::Delete => "delete",
            Purpose::Collection => "collection",
        };
        write!(f, "{purpose} {:016x} {}", self.at.0, self.random)
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(());
        let purpose = match word()? {
            "delete" => Purpose::Delete,
            "collection" => Purpose::Collection,
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
