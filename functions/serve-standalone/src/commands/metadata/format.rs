//! The format of an export: a line of JSON for each record, and marks between the records.
//!
//! ```text
//! {"export":"begin","version":1,"program":"roadstead 1.2.3","source":"sqlite in /data","at":1770000000000}
//! {"record":"repository",…}
//! {"export":"cursor","next":"…","records":1000}
//! {"record":"tag",…}
//! {"record":"account",…}
//! {"export":"end","records":1002}
//! ```
//!
//! A file is complete if its last line is `end` and has the right number of records. A cursor says where the walk over the
//! records continues after the records before it. An export that finds a file without `end` truncates the file after its
//! last cursor, and continues from this cursor. A record may be in a file more than once, which is harmless.

use std::fmt;
use std::io::{self, BufRead, Read as _, Write};
use std::marker::PhantomData;

use registry::store::records::Record;
use registry::store::{Cursor, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::access_record::AccessRecord;

/// The version of the format that this program writes, and the newest version that it reads.
pub(crate) const VERSION: u32 = 1;
/// The beginning of each mark.
const MARK: &[u8] = b"{\"export\":";
/// Maximum length of a line, in bytes: longer than the record of the largest manifest with all its references and
/// annotations.
const LONGEST: u64 = 32 << 20;

/// A line that is not a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "export", rename_all = "snake_case")]
pub(super) enum Mark {
    /// The first line.
    Begin(Begin),
    /// The walk over the records continues at `next`.
    Cursor {
        /// The cursor of the walk.
        next: Cursor,
        /// The number of records before this line.
        records: u64,
    },
    /// The last line.
    End {
        /// The number of all records.
        records: u64,
    },
}

/// The origin of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begin {
    /// The version of the format.
    pub(super) version: u32,
    /// The program that wrote the file, with its version.
    pub(super) program: String,
    /// A description of the store that was read. An interrupted export continues only with the same store.
    pub(super) source: String,
    /// When the export began.
    pub(super) at: Timestamp,
}

/// Writes one line.
pub(super) fn write_line(writer: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, line)?;
    writer.write_all(b"\n")
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FormatError {
    /// The file ends within a line, or has no first line.
    #[error("the file is incomplete")]
    CutOff,
    /// A line is not valid in an export.
    #[error("line {line}: {what}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A line as it was read.
#[derive(Debug)]
pub(super) enum ExportLine {
    /// A mark.
    Mark(Mark),
    /// A record that is not parsed yet.
    Record(UnparsedRecord<Record>),
    /// A record about accounts that is not parsed yet.
    Access(UnparsedRecord<AccessRecord>),
}

/// The text of a record of one type.
#[derive(Debug)]
pub(super) struct UnparsedRecord<T> {
    text: Vec<u8>,
    line: u64,
    parsed: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> UnparsedRecord<T> {
    fn new(text: Vec<u8>, line: u64) -> Self {
        let parsed = PhantomData;
        Self { text, line, parsed }
    }

    /// The length of the text in bytes.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Parses the record.
    pub(super) fn read(&self) -> Result<T, FormatError> {
        serde_json::from_slice(&self.text).map_err(|error| FormatError::Line {
            line: self.line,
            what: format!("this is not a record that this version of roadstead knows: {error}"),
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
    /// Reads the lines of `reader`, which begins at `offset` in the file.
    pub(super) fn new(reader: R, offset: u64) -> Self {
        Self {
            reader,
            line: 0,
            offset,
        }
    }

    /// The offset of the next line in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next line; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<ExportLine>, FormatError> {
        let mut text = Vec::new();
        self.reader.by_ref().take(LONGEST).read_until(b'\n', &mut text)?;
        if text.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        let length = text.len() as u64;
        if text.pop() != Some(b'\n') {
            return Err(match length {
                LONGEST => self.wrong("the line is too long"),
                _ => FormatError::CutOff,
            });
        }
        self.offset += length;
        if text.starts_with(MARK) {
            let mark = serde_json::from_slice(&text).map_err(|error| self.wrong(error))?;
            return Ok(Some(ExportLine::Mark(mark)));
        }
        if AccessRecord::is(&text) {
            return Ok(Some(ExportLine::Access(UnparsedRecord::new(text, self.line))));
        }
        Ok(Some(ExportLine::Record(UnparsedRecord::new(text, self.line))))
    }

    /// The first line, which must be a [`Mark::Begin`] of a version that this program reads.
    pub(super) fn begin(&mut self) -> Result<Begin, FormatError> {
        match self.next()? {
            Some(ExportLine::Mark(Mark::Begin(begin))) if begin.version <= VERSION => Ok(begin),
            Some(ExportLine::Mark(Mark::Begin(begin))) => Err(self.wrong(format!(
                "the export has version {} of the format, and this program reads versions up to {VERSION}: use a newer roadstead",
                begin.version
            ))),
            Some(_) => Err(self.wrong("this is not the first line of an export")),
            None => Err(FormatError::CutOff),
        }
    }

    /// An error in the line that was read last.
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
    fn marks_and_records_begin_differently() {
        let next = Cursor("x".into());
        let marks = [begin(1), Mark::Cursor { next, records: 2 }, Mark::End { records: 2 }];
        let text = text(&marks);
        assert!(
            text.split(|byte| *byte == b'\n')
                .all(|line| line.is_empty() || line.starts_with(MARK))
        );
        let mut lines = Lines::new(text.as_slice(), 0);
        for mark in marks {
            assert!(matches!(lines.next().unwrap(), Some(ExportLine::Mark(read)) if read == mark));
        }
        assert!(lines.next().unwrap().is_none());
        assert_eq!(lines.offset(), text.len() as u64);
    }

    #[test]
    fn incomplete_and_foreign_files_are_errors() {
        let whole = text(&[begin(1)]);
        let read = |bytes: &[u8]| Lines::new(bytes, 0).begin();
        assert!(read(&whole).is_ok());
        assert!(matches!(read(&whole[..whole.len() - 1]), Err(FormatError::CutOff)));
        assert!(matches!(read(b""), Err(FormatError::CutOff)));
        assert!(matches!(read(b"hello\n"), Err(FormatError::Line { line: 1, .. })));
        assert!(read(&text(&[begin(2)])).unwrap_err().to_string().contains("newer"));
        let mut lines = Lines::new(&b"{\"record\":\"unheard of\"}\n"[..], 0);
        let Some(ExportLine::Record(record)) = lines.next().unwrap() else {
            panic!("a record")
        };
        assert!(record.read().unwrap_err().to_string().starts_with("line 1"));
    }
}
