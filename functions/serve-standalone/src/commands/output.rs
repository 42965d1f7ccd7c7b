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

    /// Prints one item as JSON. Control characters that JSON need not escape are escaped too: a terminal may obey them.
    pub(super) fn json(&mut self, item: &Value) -> io::Result<()> {
        writeln!(self.writer, "{}", escaped(item.to_string()))
    }

    /// Writes the buffered lines, and goes on.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Writes the buffered lines.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// JSON without control characters. There are some only in its texts.
fn escaped(json: String) -> String {
    use std::fmt::Write as _;

    if !json.contains(char::is_control) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if character.is_control() {
            // Writing to a text does not fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_has_no_control_characters() {
        let item = json!({ "a\u{9b}": "\u{1b}[2J\u{7f}\u{85}\n", "b": "Zoë" });
        let text = escaped(item.to_string());
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(text.contains("Zoë"));
        assert_eq!(serde_json::from_str::<Value>(&text).ok(), Some(item));
    }
}
