//! The mistakes of a document.

use std::fmt;

use super::tree::Position;

/// How many mistakes of a document are reported at most.
pub const MAX_MISTAKES: usize = 50;

/// How many characters of a document's text a message repeats at most.
const MAX_QUOTED: usize = 60;

/// A mistake of a document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// Where it is.
    pub at: Position,
    /// What is wrong, and what was expected.
    pub message: String,
}

impl Mistake {
    /// A mistake.
    #[must_use]
    pub fn new(at: Position, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// Collects the mistakes of a document.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Adds a mistake, unless there are [`MAX_MISTAKES`].
    pub fn add(&mut self, at: Position, message: impl Into<String>) {
        if self.0.len() < MAX_MISTAKES {
            self.0.push(Mistake::new(at, message));
        }
    }

    /// The value that was read, if it has no mistakes; else all mistakes, in the order of their positions.
    pub fn result<T>(mut self, value: Option<T>) -> Result<T, Vec<Mistake>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => {
                self.0.sort_by_key(|mistake| mistake.at);
                Err(self.0)
            }
        }
    }
}

/// A text of the document for a message: in quotes, escaped, and not too long.
#[must_use]
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
