//! Standard output of the commands that list something: a table on a terminal, lines in a pipe, JSON with `--json`.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};

use serde_json::Value;

/// The form in which a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Columns under a heading.
    Table,
    /// Columns with a tab between them.
    Lines,
    /// One JSON object per line.
    Json,
}

/// Prints a list, item by item, while it is read.
pub(super) struct Output {
    form: Form,
    writer: BufWriter<io::StdoutLock<'static>>,
    headings: &'static [(&'static str, usize)],
}

impl Output {
    /// `headings` are the columns of a table with their minimum widths.
    pub(super) fn new(json: bool, headings: &'static [(&'static str, usize)]) -> io::Result<Self> {
        let stdout = io::stdout().lock();
        let form = match (json, stdout.is_terminal()) {
            (true, _) => Form::Json,
            (false, true) => Form::Table,
            (false, false) => Form::Lines,
        };
        let mut output = Self {
            form,
            writer: BufWriter::new(stdout),
            headings,
        };
        if form == Form::Table {
            let names: Vec<_> = headings.iter().map(|(name, _)| (*name).to_owned()).collect();
            output.columns(&names)?;
        }
        Ok(output)
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Prints the columns of one item.
    pub(super) fn columns(&mut self, columns: &[String]) -> io::Result<()> {
        let last = columns.len().saturating_sub(1);
        for (index, column) in columns.iter().enumerate() {
            let width = match self.form {
                Form::Table if index < last => self.headings.get(index).map_or(0, |(_, width)| *width),
                _ => 0,
            };
            write!(self.writer, "{column:width$}")?;
            if index < last {
                self.writer
                    .write_all(if self.form == Form::Table { b"  " } else { b"\t" })?;
            }
        }
        self.writer.write_all(b"\n")
    }

    /// Prints one item as JSON.
    pub(super) fn json(&mut self, item: &Value) -> io::Result<()> {
        writeln!(self.writer, "{item}")
    }

    /// Writes the buffered lines.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
