//! Standard output of the commands that list: a table on a terminal, plain lines in a pipe, JSON where asked for.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};

use registry::store::Timestamp;
use serde_json::Value;

/// In which form a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Columns under a heading.
    Table,
    /// Columns with a tab between them.
    Lines,
    /// One JSON object per line.
    Json,
}

/// Where a list is printed, line by line, as it is read.
pub(super) struct Output {
    form: Form,
    writer: BufWriter<io::StdoutLock<'static>>,
    headings: &'static [(&'static str, usize)],
}

impl Output {
    /// `headings` are the columns of a table with their least widths.
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

    /// Prints what is still held back.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A moment as RFC 3339 writes it, in UTC and whole seconds.
pub(super) fn time(at: Timestamp) -> String {
    let seconds = at.0 / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days are counted in years that begin in March, so that a leap day is the last of its year and its 400 years.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(time(Timestamp(seconds * 1000 + 999)), text);
        }
    }
}
