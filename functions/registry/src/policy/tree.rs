//! A tree of values with their positions, which the readers of all syntaxes fill.

use std::fmt;

/// A place in a text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl Position {
    /// The first character.
    pub const START: Self = Self { line: 1, column: 1 };
    /// The place of what no text has.
    pub const NONE: Self = Self { line: 0, column: 0 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A value, and where it begins.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// The value.
    pub value: NodeValue,
}

/// A value of a document.
#[derive(Clone, PartialEq, Debug)]
pub enum NodeValue {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// A list.
    List(Vec<Node>),
    /// A table with members, no two of which have the same name.
    Table(Vec<Member>),
    /// A value that no policy has, in words: "null", for instance.
    Other(&'static str),
}

/// A member of a table.
#[derive(Clone, PartialEq, Debug)]
pub struct Member {
    /// Where the name begins.
    pub at: Position,
    /// The name.
    pub name: String,
    /// The value.
    pub node: Node,
}

impl NodeValue {
    /// What kind of value it is, in words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}
