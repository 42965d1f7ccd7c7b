//! The form of an export: a line of JSON for each record, and marks between them.
//!
//! ```text
//! {"export":"begin","version":1,"program":"roadstead 1.2.3","source":"sqlite in /data","at":1770000000000}
//! {"record":"repository",…}
//! {"export":"cursor","next":"…","records":1000}
//! {"record":"tag",…}
//! {"export":"end","records":1001}
//! ```
//!
//! A file is whole when its last line is `end` and counts as many records as there are. A cursor says where the walk
//! goes on after the records before it: whoever finds a file without an end cuts it off behind its last cursor, and
//! goes on there. Records in a file may repeat, and repeating is harmless.

use std::fmt;
use std::io::{self, BufRead, Read as _, Write};

use registry::store::records::Record;
use registry::store::{Cursor, Timestamp};
use serde::{Deserialize, Serialize};

/// The form that this program writes, and the newest that it reads.
pub(crate) const VERSION: u32 = 1;
/// What the lines begin with that are no records.
const MARK: &[u8] = b"{\"export\":";
/// The longest line, in bytes: more than a manifest with all its references and annotations takes.
const LONGEST: u64 = 32 << 20;

/// A line that is no record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "export", rename_all = "snake_case")]
pub(super) enum Mark {
    /// The first line.
    Begin(Begin),
    /// The walk goes on at `next`.
    Cursor {
        /// Where.
        next: Cursor,
        /// How many records stand before this line.
        records: u64,
    },
    /// The last line.
    End {
        /// How many records there are.
        records: u64,
    },
}

/// Where an export comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begin {
    /// The version of the form.
    pub(super) version: u32,
    /// What wrote it.
    pub(super) program: String,
    /// The store that was read, in words; an interrupted export goes on only with the same.
    pub(super) source: String,
    /// When it was begun.
    pub(super) at: Timestamp,
}

/// Writes one line.
pub(super) fn write_line(writer: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, line)?;
    writer.write_all(b"\n")
}

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum FormatError {
    /// It ends in the middle of a line, or before it has begun.
    #[error("the file is cut off")]
    CutOff,
    /// A line is not what an export consists of.
    #[error("line {line}: {what}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A line as it was read.
#[derive(Debug)]
pub(super) enum Line {
    /// A mark.
    Mark(Mark),
    /// A record that nobody has looked at yet.
    Record(Unread),
}

/// The text of a record.
#[derive(Debug)]
pub(super) struct Unread {
    text: Vec<u8>,
    line: u64,
}

impl Unread {
    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Reads it.
    pub(super) fn read(&self) -> Result<Record, FormatError> {
        serde_json::from_slice(&self.text).map_err(|error| FormatError::Line {
            line: self.line,
            what: format!("not a record that this version knows: {error}"),
        })
    }
}

/// The lines of an export, one after the other.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    line: u64,
    offset: u64,
}

impl<R: BufRead> Lines<R> {
    /// Reads what `reader` gives; `offset` is where that begins in the file.
    pub(super) fn new(reader: R, offset: u64) -> Self {
        Self {
            reader,
            line: 0,
            offset,
        }
    }

    /// Where the next line begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next line; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Line>, FormatError> {
        let mut text = Vec::new();
        self.reader.by_ref().take(LONGEST).read_until(b'\n', &mut text)?;
        if text.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        let length = text.len() as u64;
        if text.pop() != Some(b'\n') {
            return Err(match length {
                LONGEST => self.wrong("it is too long"),
                _ => FormatError::CutOff,
            });
        }
        self.offset += length;
        if text.starts_with(MARK) {
            let mark = serde_json::from_slice(&text).map_err(|error| self.wrong(error))?;
            return Ok(Some(Line::Mark(mark)));
        }
        Ok(Some(Line::Record(Unread { text, line: self.line })))
    }

    /// The first line, which must be a beginning that this version can read.
    pub(super) fn begin(&mut self) -> Result<Begin, FormatError> {
        match self.next()? {
            Some(Line::Mark(Mark::Begin(begin))) if begin.version <= VERSION => Ok(begin),
            Some(Line::Mark(Mark::Begin(begin))) => Err(self.wrong(format!(
                "the export has the form {} and this version reads forms up to {VERSION}: use a newer one",
                begin.version
            ))),
            Some(_) => Err(self.wrong("an export does not begin like that")),
            None => Err(FormatError::CutOff),
        }
    }

    /// An error at the line that was read last.
    pub(super) fn wrong(&self, what: impl fmt::Display) -> FormatError {
        FormatError::Line {
            line: self.line,
            what: what.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn begin(version: u32) -> Mark {
        Mark::Begin(Begin {
            version,
            program: "p".into(),
            source: "s".into(),
            at: Timestamp(1),
        })
    }

    fn text(marks: &[Mark]) -> Vec<u8> {
        let mut text = Vec::new();
        for mark in marks {
            write_line(&mut text, mark).unwrap();
        }
        text
    }

    #[test]
    fn marks_are_told_from_records_by_how_they_begin() {
        let next = Cursor("x".into());
        let marks = [begin(1), Mark::Cursor { next, records: 2 }, Mark::End { records: 2 }];
        let text = text(&marks);
        assert!(
            text.split(|byte| *byte == b'\n')
                .all(|line| line.is_empty() || line.starts_with(MARK))
        );
        let mut lines = Lines::new(text.as_slice(), 0);
        for mark in marks {
            assert!(matches!(lines.next().unwrap(), Some(Line::Mark(read)) if read == mark));
        }
        assert!(lines.next().unwrap().is_none());
        assert_eq!(lines.offset(), text.len() as u64);
    }

    #[test]
    fn what_is_cut_off_or_foreign_is_told() {
        let whole = text(&[begin(1)]);
        let read = |bytes: &[u8]| Lines::new(bytes, 0).begin();
        assert!(read(&whole).is_ok());
        assert!(matches!(read(&whole[..whole.len() - 1]), Err(FormatError::CutOff)));
        assert!(matches!(read(b""), Err(FormatError::CutOff)));
        assert!(matches!(read(b"hello\n"), Err(FormatError::Line { line: 1, .. })));
        assert!(read(&text(&[begin(2)])).unwrap_err().to_string().contains("newer"));
        let mut lines = Lines::new(&b"{\"record\":\"unheard of\"}\n"[..], 0);
        let Some(Line::Record(record)) = lines.next().unwrap() else {
            panic!("a record")
        };
        assert!(record.read().unwrap_err().to_string().starts_with("line 1"));
    }
}
