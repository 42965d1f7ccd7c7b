//! `roadstead metadata export`.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, IsTerminal as _, Seek as _, SeekFrom, Write, stdout};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use registry::store::Cursor;
use registry::store::records::RecordStore;

use super::super::progress::Progress;
use super::super::store::{PAGE, cx, with};
use super::format::{Begin, FormatError, Line, Lines, Mark, VERSION, write_line};
use crate::cli::ExportArgs;
use crate::failure::Failure;
use shell::clock;
use shell::opened::Opened;
use shell::stores::Absent;

/// Writes everything that the registry knows.
pub(in super::super) fn run(args: &ExportArgs) -> Result<(), Failure> {
    let Some(path) = &args.output else {
        return with(&args.stores, Absent::Refuse, async |opened| {
            let begin = begin(&opened).await?;
            let mut writer = BufWriter::new(stdout().lock());
            write_line(&mut writer, &Mark::Begin(begin))?;
            let walked = walk(&*opened.stores.records, Reached::default(), &mut writer, |_| Ok(())).await?;
            write_line(&mut writer, &Mark::End { records: walked })?;
            Ok(writer.flush()?)
        });
    };
    // The registry is opened first: a file is not begun for one that is not there.
    with(&args.stores, Absent::Refuse, async |opened| {
        let (file, reached) = resume(path, &begin(&opened).await?)?;
        let failed = |error| Failure::failed(format!("cannot write {}", path.display()), error);
        let mut writer = BufWriter::new(file);
        let records = walk(&*opened.stores.records, reached, &mut writer, |writer| {
            // What a cursor says to be there must be there after a loss of power too.
            writer.flush()?;
            writer.get_ref().sync_data()
        })
        .await?;
        write_line(&mut writer, &Mark::End { records }).map_err(failed)?;
        writer.flush().map_err(failed)?;
        writer.get_ref().sync_all().map_err(failed)?;
        eprintln!("{records} records in {}", path.display());
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

/// How far an export has come.
#[derive(Debug, Default)]
struct Reached {
    next: Option<Cursor>,
    records: u64,
}

/// Writes all records from there on, and answers how many there are in all. `slice` is called after each slice, before
/// the cursor behind it is written.
async fn walk<W: Write>(
    store: &dyn RecordStore,
    reached: Reached,
    writer: &mut W,
    mut slice: impl FnMut(&mut W) -> std::io::Result<()>,
) -> Result<u64, Failure> {
    let Reached { mut next, mut records } = reached;
    // Progress would be mixed with what is printed on the same terminal.
    let mut progress = (!stdout().is_terminal()).then(Progress::new);
    loop {
        let found = store
            .records(cx(), next.as_ref(), PAGE)
            .await
            .map_err(|error| match error.damage() {
                // A part left out would be missed when it is too late.
                Some(damage) => Failure::Failed(format!(
                    "nothing can be exported past what is damaged: {damage}; `roadstead fsck` lists all of it"
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
            progress.show(|| format!("{records} records"));
        }
    }
}

/// Opens the file at its end, or at the end of what can be gone on with.
fn resume(path: &Path, begin: &Begin) -> Result<(File, Reached), Failure> {
    let failed = |error| Failure::failed(format!("cannot write {}", path.display()), error);
    // For this user alone: it tells who stores what.
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(path).map_err(failed)?;
    let (end, reached) = match look(&file, begin) {
        Ok(found) => found,
        Err(Refusal::Whole(records)) => {
            return Err(Failure::Failed(format!(
                "{} is a whole export of {records} records already: name another file, or remove it",
                path.display()
            )));
        }
        Err(Refusal::OtherSource(source)) => {
            return Err(Failure::Failed(format!(
                "{} was begun with another registry ({source}): name another file, or remove it",
                path.display()
            )));
        }
        Err(Refusal::Foreign(error)) => {
            return Err(Failure::Failed(format!(
                "{} is there and is no export that could be gone on with ({error}): name another file, or remove it",
                path.display()
            )));
        }
    };
    file.set_len(end).map_err(failed)?;
    file.seek(SeekFrom::Start(end)).map_err(failed)?;
    if end == 0 {
        write_line(&mut file, &Mark::Begin(begin.clone())).map_err(failed)?;
    } else {
        eprintln!("going on after {} records", reached.records);
    }
    Ok((file, reached))
}

/// Why a file that is there is left alone.
#[derive(Debug)]
enum Refusal {
    Whole(u64),
    OtherSource(String),
    Foreign(FormatError),
}

/// Where the part of a file ends that an export from the same source can go on behind.
fn look(file: &File, begin: &Begin) -> Result<(u64, Reached), Refusal> {
    let mut lines = Lines::new(BufReader::new(file), 0);
    match lines.begin() {
        Ok(there) if there.source == begin.source => {}
        Ok(there) => return Err(Refusal::OtherSource(there.source)),
        // Nothing is there, or not even the first line: one that was begun by this program all the same.
        Err(FormatError::CutOff) if is_beginning(file) => return Ok((0, Reached::default())),
        Err(error) => return Err(Refusal::Foreign(error)),
    }
    let mut end = lines.offset();
    let mut reached = Reached::default();
    loop {
        match lines.next() {
            Ok(Some(Line::Mark(Mark::Cursor { next, records }))) => {
                end = lines.offset();
                reached = Reached {
                    next: Some(next),
                    records,
                };
            }
            Ok(Some(Line::Mark(Mark::End { records }))) => return Err(Refusal::Whole(records)),
            Ok(Some(Line::Record(_))) => {}
            Ok(Some(Line::Mark(Mark::Begin(_)))) => {
                return Err(Refusal::Foreign(lines.wrong("a second beginning")));
            }
            // It ends here, in good order or in the middle of a line. So does what a loss of power has left.
            Ok(None) | Err(FormatError::CutOff | FormatError::Line { .. }) => return Ok((end, reached)),
            Err(error @ FormatError::Io(_)) => return Err(Refusal::Foreign(error)),
        }
    }
}

/// Whether all that a file holds could be the beginning of a first line.
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

    /// Records that are counted, two in a slice; those from `fails_at` on cannot be read, and `damaged` is damaged.
    struct Counted {
        records: usize,
        fails_at: usize,
        damaged: usize,
    }

    #[async_trait]
    impl RecordStore for Counted {
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

        async fn place(&self, _: Context, _: &Digest) -> Result<Option<RecordedObject>, StoreError> {
            Err(StoreError::failed("only walked over"))
        }

        async fn lost(&self, _: Context, _: &[BackReference]) -> Result<Vec<BackReference>, StoreError> {
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

    async fn export(path: &Path, store: &Counted) -> Result<u64, Failure> {
        let (mut file, reached) = resume(path, &begin("here"))?;
        let records = walk(store, reached, &mut file, |_| Ok(())).await?;
        write_line(&mut file, &Mark::End { records }).unwrap();
        Ok(records)
    }

    /// The names of the records in a file, in order; and the number that its end tells.
    fn names(path: &Path) -> (Vec<String>, Option<u64>) {
        let mut lines = Lines::new(BufReader::new(File::open(path).unwrap()), 0);
        lines.begin().unwrap();
        let (mut names, mut told) = (Vec::new(), None);
        while let Some(line) = lines.next().unwrap() {
            match line {
                Line::Record(record) => match record.read().unwrap() {
                    Record::Repository { name, .. } => names.push(name.to_string()),
                    other => panic!("{other:?}"),
                },
                Line::Mark(Mark::End { records }) => told = Some(records),
                Line::Mark(_) => {}
            }
        }
        (names, told)
    }

    /// Cut off at every byte, an export ends up the same.
    #[tokio::test]
    async fn an_interrupted_export_goes_on_wherever_it_was_cut_off() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("export");
        let store = Counted {
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
    async fn a_store_that_fails_leaves_what_can_be_gone_on_with() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("export");
        let failing = Counted {
            records: 9,
            fails_at: 4,
            damaged: usize::MAX,
        };
        assert!(export(&path, &failing).await.is_err());
        let before = std::fs::read(&path).unwrap();
        let whole = Counted {
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
    async fn a_damaged_record_is_named_and_not_left_out() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("export");
        let store = Counted {
            records: 9,
            fails_at: usize::MAX,
            damaged: 5,
        };
        let Err(Failure::Failed(told)) = export(&path, &store).await else {
            panic!("it was exported")
        };
        for part in ["repository r5", "illegible", "roadstead fsck"] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(names(&path).1, None, "it has no end");
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("file");
        let mut other = Vec::new();
        write_line(&mut other, &Mark::Begin(begin("elsewhere"))).unwrap();
        let mut whole = Vec::new();
        write_line(&mut whole, &Mark::Begin(begin("here"))).unwrap();
        write_line(&mut whole, &Mark::End { records: 0 }).unwrap();
        for (content, told) in [
            (other, "another registry (elsewhere)"),
            (whole, "whole export of 0 records"),
            (b"my diary".to_vec(), "no export"),
            (b"my diary\n".to_vec(), "no export"),
        ] {
            std::fs::write(&path, &content).unwrap();
            let Err(Failure::Failed(text)) = resume(&path, &begin("here")) else {
                panic!("{told}")
            };
            assert!(text.contains(told), "{text}");
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
    }
}
