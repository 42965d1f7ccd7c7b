//! `roadstead metadata export`.
//!
//! The records about accounts ([`access`]) come after all others, so an export that continues after a cursor writes all of
//! them again.

pub(super) mod access;

use std::fs::{File, OpenOptions, Permissions};
use std::io::{BufReader, BufWriter, IsTerminal as _, Seek as _, SeekFrom, Write, stdout};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use registry::store::Cursor;
use registry::store::records::RecordStore;

use super::super::progress::ProgressLine;
use super::super::store::{PAGE, cx, with};
use super::format::{Begin, ExportLine, FormatError, Lines, Mark, VERSION, write_line};
use crate::cli::ExportArgs;
use crate::failure::Failure;
use shell::clock;
use shell::opened::Opened;
use shell::stores::Absent;
use shell::text::count;

/// Writes all records of the registry.
pub(in super::super) fn run(args: &ExportArgs) -> Result<(), Failure> {
    let Some(path) = &args.output else {
        return with(&args.stores, Absent::Refuse, async |opened| {
            let begin = begin(&opened).await?;
            let mut writer = BufWriter::new(stdout().lock());
            write_line(&mut writer, &Mark::Begin(begin))?;
            let mut records = walk(&*opened.stores.records, ExportPosition::default(), &mut writer, |_| {
                Ok(())
            })
            .await?;
            records += access::write(&*opened.stores.access, args.audit, &mut writer).await?;
            write_line(&mut writer, &Mark::End { records })?;
            Ok(writer.flush()?)
        });
    };
    // The registry is opened first, so that no file is created if it does not exist.
    with(&args.stores, Absent::Refuse, async |opened| {
        let (file, position) = resume(path, &begin(&opened).await?)?;
        let failed = |error| Failure::failed(format!("cannot write {}", path.display()), error);
        let mut writer = BufWriter::new(file);
        let mut records = walk(&*opened.stores.records, position, &mut writer, |writer| {
            // The records before a cursor must survive a power failure if the cursor does.
            writer.flush()?;
            writer.get_ref().sync_data()
        })
        .await?;
        records += access::write(&*opened.stores.access, args.audit, &mut writer).await?;
        write_line(&mut writer, &Mark::End { records }).map_err(failed)?;
        writer.flush().map_err(failed)?;
        writer.get_ref().sync_all().map_err(failed)?;
        eprintln!("exported {} to {}", count(records, "record", "records"), path.display());
        Ok(())
    })
}

async fn begin(opened: &Opened) -> Result<Begin, Failure> {
    let source = opened.identify_metadata(cx()).await;
    Ok(Begin {
        version: VERSION,
        program: concat!("roadstead ", env!("CARGO_PKG_VERSION")).into(),
        source: source.map_err(Failure::Failed)?,
        at: clock::now(),
    })
}

/// The progress of an export.
#[derive(Debug, Default)]
struct ExportPosition {
    next: Option<Cursor>,
    records: u64,
}

/// Writes all records after `position`, and returns the number of all records. `slice` is called after each slice, before the
/// cursor of the slice is written.
async fn walk<W: Write>(
    store: &dyn RecordStore,
    position: ExportPosition,
    writer: &mut W,
    mut slice: impl FnMut(&mut W) -> std::io::Result<()>,
) -> Result<u64, Failure> {
    let ExportPosition { mut next, mut records } = position;
    // On a terminal, the line of progress would be mixed with the records.
    let mut progress = (!stdout().is_terminal()).then(ProgressLine::new);
    loop {
        let found = store
            .records(cx(), next.as_ref(), PAGE)
            .await
            .map_err(|error| match error.damage() {
                // An export without the damaged record would look complete, and the loss would be noticed too late.
                Some(damage) => Failure::Failed(format!(
                    "a damaged record cannot be exported: {damage}; `roadstead fsck` lists all damaged records"
                )),
                None => Failure::failed("cannot read the metadata", error),
            })?;
        for record in &found.items {
            write_line(writer, record)?;
        }
        records += found.items.len() as u64;
        slice(writer)?;
        let Some(cursor) = found.next else { return Ok(records) };
        write_line(
            writer,
            &Mark::Cursor {
                next: cursor.clone(),
                records,
            },
        )?;
        next = Some(cursor);
        if let Some(progress) = &mut progress {
            progress.show(|| count(records, "record", "records"));
        }
    }
}

/// Opens the file for writing. If it holds an interrupted export, the file is truncated after its last cursor, and the
/// export continues there.
fn resume(path: &Path, begin: &Begin) -> Result<(File, ExportPosition), Failure> {
    let failed = |error| Failure::failed(format!("cannot write {}", path.display()), error);
    // Only the owner can read the file, because it contains the hashes of passwords and keys.
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(path).map_err(failed)?;
    let (end, position) = match look(&file, begin) {
        Ok(found) => found,
        Err(ResumeError::Whole(records)) => {
            return Err(Failure::Failed(format!(
                "{} already holds a complete export of {}: name another file, or remove this one",
                path.display(),
                count(records, "record", "records")
            )));
        }
        Err(ResumeError::OtherSource(source)) => {
            return Err(Failure::Failed(format!(
                "{} holds an export of another registry ({source}): name another file, or remove this one",
                path.display()
            )));
        }
        Err(ResumeError::Foreign(error)) => {
            return Err(Failure::Failed(format!(
                "{} exists and is not an interrupted export ({error}): name another file, or remove this one",
                path.display()
            )));
        }
    };
    // An existing file can have any mode.
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    file.set_len(end).map_err(failed)?;
    file.seek(SeekFrom::Start(end)).map_err(failed)?;
    if end == 0 {
        write_line(&mut file, &Mark::Begin(begin.clone())).map_err(failed)?;
    } else {
        eprintln!("continuing after {}", count(position.records, "record", "records"));
    }
    Ok((file, position))
}

/// Why an existing file is not changed.
#[derive(Debug)]
enum ResumeError {
    Whole(u64),
    OtherSource(String),
    Foreign(FormatError),
}

/// The offset in the file, and the progress, from which an export of the same source can continue.
fn look(file: &File, begin: &Begin) -> Result<(u64, ExportPosition), ResumeError> {
    let mut lines = Lines::new(BufReader::new(file), 0);
    match lines.begin() {
        Ok(there) if there.source == begin.source => {}
        Ok(there) => return Err(ResumeError::OtherSource(there.source)),
        // The file is empty, or holds a part of the first line: an export of this program was interrupted.
        Err(FormatError::CutOff) if is_beginning(file) => return Ok((0, ExportPosition::default())),
        Err(error) => return Err(ResumeError::Foreign(error)),
    }
    let mut end = lines.offset();
    let mut position = ExportPosition::default();
    loop {
        match lines.next() {
            Ok(Some(ExportLine::Mark(Mark::Cursor { next, records }))) => {
                end = lines.offset();
                position = ExportPosition {
                    next: Some(next),
                    records,
                };
            }
            Ok(Some(ExportLine::Mark(Mark::End { records }))) => return Err(ResumeError::Whole(records)),
            Ok(Some(ExportLine::Record(_) | ExportLine::Access(_))) => {}
            Ok(Some(ExportLine::Mark(Mark::Begin(_)))) => {
                return Err(ResumeError::Foreign(lines.wrong("a second beginning")));
            }
            // The file ends here, after a line or within one. A power failure may also leave a line of zero bytes.
            Ok(None) | Err(FormatError::CutOff | FormatError::Line { .. }) => return Ok((end, position)),
            Err(error @ FormatError::Io(_)) => return Err(ResumeError::Foreign(error)),
        }
    }
}

/// Whether the content of a file could be a part of the first line.
fn is_beginning(file: &File) -> bool {
    use std::os::unix::fs::FileExt as _;
    const FIRST: &[u8] = b"{\"export\":\"begin\",";
    let mut start = [0; FIRST.len()];
    file.read_at(&mut start, 0)
        .is_ok_and(|read| FIRST.starts_with(&start[..read]))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use async_trait::async_trait;
    use oci::Digest;
    use registry::store::records::{BackReference, Record, RecordedObject, Unreadable};
    use registry::store::{Context, Slice, StoreError, Timestamp};

    use super::*;

    /// Numbered records, two in a slice. Those from `fails_at` on cannot be read, and `damaged` is damaged.
    struct NumberedRecords {
        records: usize,
        fails_at: usize,
        damaged: usize,
    }

    #[async_trait]
    impl RecordStore for NumberedRecords {
        async fn walk(
            &self,
            _: Context,
            after: Option<&Cursor>,
            _: usize,
        ) -> Result<Slice<Result<Record, Unreadable>>, StoreError> {
            let start: usize = after.map_or(0, |cursor| cursor.0.parse().unwrap());
            if start >= self.fails_at {
                return Err(StoreError::unavailable("not now"));
            }
            let end = (start + 2).min(self.records);
            let items = (start..end).map(|index| {
                let record = Record::Repository {
                    name: format!("r{index}").parse().unwrap(),
                    created: Timestamp(1),
                    permanent: false,
                };
                let damage = || Unreadable {
                    record: record.to_string(),
                    reason: "illegible".into(),
                };
                (index != self.damaged).then_some(record.clone()).ok_or_else(damage)
            });
            Ok(Slice {
                items: items.collect(),
                next: (end < self.records).then(|| Cursor(end.to_string())),
            })
        }

        async fn recorded_object(&self, _: Context, _: &Digest) -> Result<Option<RecordedObject>, StoreError> {
            Err(StoreError::failed("only walked over"))
        }

        async fn missing_back_references(
            &self,
            _: Context,
            _: &[BackReference],
        ) -> Result<Vec<BackReference>, StoreError> {
            Err(StoreError::failed("only walked over"))
        }

        async fn insert(&self, _: Context, _: &[Record]) -> Result<(), StoreError> {
            Err(StoreError::failed("only walked over"))
        }
    }

    fn begin(source: &str) -> Begin {
        Begin {
            version: VERSION,
            program: "test".into(),
            source: source.into(),
            at: Timestamp(1),
        }
    }

    async fn export(path: &Path, store: &NumberedRecords) -> Result<u64, Failure> {
        let (mut file, position) = resume(path, &begin("here"))?;
        let records = walk(store, position, &mut file, |_| Ok(())).await?;
        write_line(&mut file, &Mark::End { records }).unwrap();
        Ok(records)
    }

    /// The names of the records in a file, in order; and the number in its last line.
    fn names(path: &Path) -> (Vec<String>, Option<u64>) {
        let mut lines = Lines::new(BufReader::new(File::open(path).unwrap()), 0);
        lines.begin().unwrap();
        let (mut names, mut counted) = (Vec::new(), None);
        while let Some(line) = lines.next().unwrap() {
            match line {
                ExportLine::Record(record) => match record.read().unwrap() {
                    Record::Repository { name, .. } => names.push(name.to_string()),
                    other => panic!("{other:?}"),
                },
                ExportLine::Access(record) => panic!("{record:?}"),
                ExportLine::Mark(Mark::End { records }) => counted = Some(records),
                ExportLine::Mark(_) => {}
            }
        }
        (names, counted)
    }

    /// Cut off at every byte, an export ends up the same.
    #[tokio::test]
    async fn an_interrupted_export_continues_wherever_it_was_cut_off() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("export");
        let store = NumberedRecords {
            records: 5,
            fails_at: usize::MAX,
            damaged: usize::MAX,
        };
        assert_eq!(export(&path, &store).await.unwrap(), 5);
        let whole = std::fs::read(&path).unwrap();
        let expected = names(&path);
        assert_eq!(expected, ((0..5).map(|index| format!("r{index}")).collect(), Some(5)));
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(export(&path, &store).await.unwrap(), 5, "cut at {cut}");
            assert_eq!(names(&path), expected, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn an_export_continues_after_a_store_has_failed() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("export");
        let failing = NumberedRecords {
            records: 9,
            fails_at: 4,
            damaged: usize::MAX,
        };
        assert!(export(&path, &failing).await.is_err());
        let before = std::fs::read(&path).unwrap();
        let whole = NumberedRecords {
            records: 9,
            fails_at: usize::MAX,
            damaged: usize::MAX,
        };
        assert_eq!(export(&path, &whole).await.unwrap(), 9);
        assert!(
            std::fs::read(&path).unwrap().starts_with(&before),
            "it did not begin again"
        );
        assert_eq!(names(&path).0.len(), 9);
    }

    #[tokio::test]
    async fn a_damaged_record_is_reported_and_not_left_out() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("export");
        let store = NumberedRecords {
            records: 9,
            fails_at: usize::MAX,
            damaged: 5,
        };
        let Err(Failure::Failed(counted)) = export(&path, &store).await else {
            panic!("it was exported")
        };
        for part in ["repository r5", "illegible", "roadstead fsck"] {
            assert!(counted.contains(part), "{counted}");
        }
        assert_eq!(names(&path).1, None, "it has no end");
    }

    #[test]
    fn other_files_are_not_changed() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("file");
        let mut other = Vec::new();
        write_line(&mut other, &Mark::Begin(begin("elsewhere"))).unwrap();
        let mut whole = Vec::new();
        write_line(&mut whole, &Mark::Begin(begin("here"))).unwrap();
        write_line(&mut whole, &Mark::End { records: 0 }).unwrap();
        for (content, counted) in [
            (other, "another registry (elsewhere)"),
            (whole, "complete export of 0 records"),
            (b"my diary".to_vec(), "not an interrupted export"),
            (b"my diary\n".to_vec(), "not an interrupted export"),
        ] {
            std::fs::write(&path, &content).unwrap();
            let Err(Failure::Failed(text)) = resume(&path, &begin("here")) else {
                panic!("{counted}")
            };
            assert!(text.contains(counted), "{text}");
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
    }
}
