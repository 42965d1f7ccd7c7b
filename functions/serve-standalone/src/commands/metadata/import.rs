//! `roadstead metadata import`.
//!
//! The whole file is read before anything is written: one that is cut off, or has a line that this version does not
//! know, or that no store holds ([`allowed`]), or refers to what is not in it, leaves no half of a registry. How far the writing has come is kept beside the
//! file; and as long as it is not through, no collection goes over what is there ([`lease`]).

mod allowed;
mod contents;
mod lease;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use oci::RepositoryName;
use registry::Stores;
use registry::store::metadata::MetadataStore;
use registry::store::records::{Record, RecordStore};
use serde::{Deserialize, Serialize};

use self::contents::Contents;
use self::lease::ImportLease;
use super::super::progress::Progress;
use super::super::store::{PAGE, cx, with};
use super::format::{Begin, FormatError, Line, Lines, Mark};
use crate::cli::ImportArgs;
use crate::failure::Failure;
use shell::stores::Absent;

/// Records that are written at once, and their bytes in the file.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 1 << 20;
/// Batches in flight.
const AT_ONCE: usize = 4;
/// Records that are named when a file is refused.
const TORN: usize = 10;
/// How often it is noted how far the import has come.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Reads a file into the registry.
pub(in super::super) fn run(args: &ImportArgs) -> Result<(), Failure> {
    let path = args.file.as_path();
    let contents = Contents::of(path).map_err(|error| refused(path, &error))?;
    if !args.force {
        require_whole(path, &contents)?;
    }
    with(&args.stores, Absent::Create, async |opened| {
        let into = opened.identify_metadata(cx()).await;
        import(
            path,
            &contents,
            into.map_err(Failure::Failed)?,
            &opened.stores,
            args.force,
        )
        .await
    })
}

/// Writes what the file holds into the stores, which `into` tells from others.
async fn import(path: &Path, contents: &Contents, into: String, stores: &Stores, force: bool) -> Result<(), Failure> {
    if !force {
        require_no_others(&*stores.metadata, &contents.repositories).await?;
    }
    let mut note = Note::find(path, contents, into)?;
    let lease = ImportLease::take(stores.collection.clone(), contents.name(), force).await?;
    if note.reached.records > 0 {
        // What was written may be gone again: collected, if nothing has kept collection away, or with all else, if the
        // registry was emptied since.
        if lease.is_gone_on_with && !holds_nothing(&*stores.records).await? {
            eprintln!("going on after {} records", note.reached.records);
        } else {
            note.reached = Reached::default();
        }
    }
    let written = write(path, contents, &mut note, &*stores.records).await;
    if written.is_err() {
        // Best effort: without it, records are written once more.
        drop(note.save());
        eprintln!("this import is not through: nothing is collected until it is; run it again, and it goes on");
    }
    written?;
    lease.release().await?;
    note.remove()?;
    eprintln!("{} records from {}", contents.records, path.display());
    Ok(())
}

async fn write(path: &Path, contents: &Contents, note: &mut Note, records: &dyn RecordStore) -> Result<(), Failure> {
    let mut progress = Progress::new();
    let batches = Batches::open(path, &note.reached).map_err(|error| refused(path, &error.into()))?;
    let mut written = stream::iter(batches)
        .map(|batch| async move {
            let batch = batch.map_err(|error| refused(path, &error))?;
            records
                .insert(cx(), &batch.records)
                .await
                .map_err(|error| Failure::failed("cannot write the metadata", error))?;
            Ok::<_, Failure>(batch.end)
        })
        // In their order: what is noted stands for everything before it.
        .buffered(AT_ONCE);
    while let Some(end) = written.next().await {
        note.reached = end?;
        note.save_sometimes()?;
        progress.show(|| format!("{} of {} records", note.reached.records, contents.records));
    }
    Ok(())
}

/// Whether a registry knows nothing at all. A slice may hold no record and yet not be the last.
async fn holds_nothing(records: &dyn RecordStore) -> Result<bool, Failure> {
    let mut after = None;
    loop {
        let slice = records.walk(cx(), after.as_ref(), PAGE).await;
        let slice = slice.map_err(|error| Failure::failed("cannot read the metadata", error))?;
        if !slice.items.is_empty() {
            return Ok(false);
        }
        match slice.next {
            None => return Ok(true),
            next => after = next,
        }
    }
}

/// Fails when records of the file refer to what is not in it.
fn require_whole(path: &Path, contents: &Contents) -> Result<(), Failure> {
    let torn = contents.incomplete(path, TORN + 1);
    let mut torn = torn.map_err(|error| refused(path, &error))?;
    if torn.is_empty() {
        return Ok(());
    }
    if torn.len() > TORN {
        torn.truncate(TORN);
        torn.push("and others".into());
    }
    Err(Failure::Failed(format!(
        "{} lacks what these refer to, because the registry was written to while it was exported: {}. Export it to \
         another file while nobody pushes or deletes; or import what there is with --force, and let `roadstead fsck` \
         tell what is missing",
        path.display(),
        torn.join(", ")
    )))
}

fn refused(path: &Path, error: &FormatError) -> Failure {
    let what = match error {
        FormatError::CutOff => {
            "it is cut off: the export was interrupted. Run the same export again, which goes on where it was"
                .to_owned()
        }
        other => other.to_string(),
    };
    Failure::failed(format!("cannot import {}", path.display()), what)
}

/// Fails when the registry holds a repository that is not among those of the file.
async fn require_no_others(metadata: &dyn MetadataStore, ours: &BTreeSet<RepositoryName>) -> Result<(), Failure> {
    let mut last: Option<RepositoryName> = None;
    loop {
        let page = metadata
            .repositories(cx(), last.as_ref().map(AsRef::as_ref), PAGE)
            .await
            .map_err(|error| Failure::failed("cannot read the metadata", error))?;
        if let Some(other) = page.items.iter().find(|name| !ours.contains(*name)) {
            return Err(Failure::Failed(format!(
                "the registry holds the repository {other}, which is not in the file: import into an empty registry, \
                 or mix the two with --force (records that are in both become those of the file)"
            )));
        }
        last = page.items.into_iter().next_back();
        if !page.more || last.is_none() {
            return Ok(());
        }
    }
}

/// A place in the file, and how many records stand before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Reached {
    offset: u64,
    records: u64,
}

/// The file beside the export that tells how far an import of it has come.
#[derive(Debug)]
struct Note {
    path: PathBuf,
    about: About,
    reached: Reached,
    saved: Instant,
}

/// Which import a note is about: another file, or another registry, begins anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    into: String,
    begin: Begin,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Noted {
    #[serde(flatten)]
    about: About,
    #[serde(flatten)]
    reached: Reached,
}

impl Note {
    fn find(file: &Path, contents: &Contents, into: String) -> Result<Self, Failure> {
        let mut path = file.as_os_str().to_owned();
        path.push(".progress");
        let path = PathBuf::from(path);
        let about = About {
            into,
            begin: contents.begin.clone(),
            bytes: contents.bytes,
        };
        let reached = match std::fs::read(&path) {
            // One that cannot be read is as good as none: records may be written twice.
            Ok(text) => serde_json::from_slice::<Noted>(&text)
                .ok()
                .filter(|noted| noted.about == about && noted.reached.offset <= about.bytes)
                .map(|noted| noted.reached)
                .unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Reached::default(),
            Err(error) => return Err(Failure::failed(format!("cannot read {}", path.display()), error)),
        };
        Ok(Self {
            path,
            about,
            reached,
            saved: Instant::now(),
        })
    }

    fn save_sometimes(&mut self) -> Result<(), Failure> {
        if self.saved.elapsed() < NOTE_EVERY {
            return Ok(());
        }
        self.saved = Instant::now();
        self.save()
    }

    fn save(&self) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::failed(format!("cannot write {}", self.path.display()), error);
        let noted = Noted {
            about: self.about.clone(),
            reached: self.reached,
        };
        let noted = serde_json::to_vec(&noted).map_err(|error| failed(error.into()))?;
        let mut new = self.path.as_os_str().to_owned();
        new.push(".new");
        std::fs::write(&new, noted).map_err(failed)?;
        std::fs::rename(&new, &self.path).map_err(failed)
    }

    fn remove(&self) -> Result<(), Failure> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::failed(format!("cannot remove {}", self.path.display()), error))
            }
            _ => Ok(()),
        }
    }
}

/// Records that are written together.
#[derive(Debug)]
struct Batch {
    records: Vec<Record>,
    end: Reached,
}

/// The records of a whole file in batches.
#[derive(Debug)]
struct Batches {
    lines: Lines<BufReader<File>>,
    records: u64,
    ended: bool,
}

impl Batches {
    fn open(path: &Path, reached: &Reached) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(reached.offset))?;
        Ok(Self {
            lines: Lines::new(BufReader::new(file), reached.offset),
            records: reached.records,
            ended: false,
        })
    }

    fn batch(&mut self) -> Result<Option<Batch>, FormatError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        while !self.ended && records.len() < BATCH && bytes < BATCH_BYTES {
            match self.lines.next()? {
                Some(Line::Record(record)) => {
                    bytes += record.len();
                    records.push(record.read()?);
                }
                Some(Line::Mark(Mark::End { .. })) | None => self.ended = true,
                Some(Line::Mark(_)) => {}
            }
        }
        self.records += records.len() as u64;
        let end = Reached {
            offset: self.lines.offset(),
            records: self.records,
        };
        Ok((!records.is_empty()).then_some(Batch { records, end }))
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batch().transpose();
        // After an error there is nothing to go on with.
        self.ended |= matches!(batch, Some(Err(_)));
        batch
    }
}

#[cfg(test)]
mod interrupted;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use registry::store::Timestamp;

    use super::super::format::{VERSION, write_line};
    use super::*;

    fn file(records: u32, told: u64) -> Vec<u8> {
        let mut text = Vec::new();
        let begin = Begin {
            version: VERSION,
            program: "test".into(),
            source: "there".into(),
            at: Timestamp(1),
        };
        write_line(&mut text, &Mark::Begin(begin)).unwrap();
        for index in 0..records {
            let record = Record::Repository {
                name: format!("r{index}").parse().unwrap(),
                created: Timestamp(1),
            };
            write_line(&mut text, &record).unwrap();
        }
        write_line(&mut text, &Mark::End { records: told }).unwrap();
        text
    }

    #[test]
    fn only_a_whole_file_is_taken() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("export");
        let read = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            Contents::of(&path).map_err(|error| error.to_string())
        };
        let whole = file(3, 3);
        let contents = read(&whole).unwrap();
        assert_eq!((contents.records, contents.repositories.len()), (3, 3));
        assert_eq!(contents.bytes, whole.len() as u64);
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(read(&file(3, 4)).unwrap_err().contains("tells of 4 records, and 3"));
        assert!(
            read(&[&whole[..], b"{}\n"].concat())
                .unwrap_err()
                .contains("after the end")
        );
        assert!(
            read(&whole.replace_first(b"repository", b"depository"))
                .unwrap_err()
                .contains("line 2")
        );
    }

    trait ReplaceFirst {
        fn replace_first(&self, from: &[u8], to: &[u8]) -> Vec<u8>;
    }

    impl ReplaceFirst for Vec<u8> {
        fn replace_first(&self, from: &[u8], to: &[u8]) -> Vec<u8> {
            let at = self.windows(from.len()).position(|window| window == from).unwrap();
            [&self[..at], to, &self[at + from.len()..]].concat()
        }
    }

    #[test]
    fn batches_go_on_where_a_note_says() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("export");
        let count = u32::try_from(2 * BATCH + 7).unwrap();
        std::fs::write(&path, file(count, count.into())).unwrap();
        let contents = Contents::of(&path).unwrap();
        let mut note = Note::find(&path, &contents, "sqlite".into()).unwrap();
        assert_eq!(note.reached, Reached::default());
        let all: Vec<_> = Batches::open(&path, &note.reached)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(
            all.iter().map(|batch| batch.records.len()).collect::<Vec<_>>(),
            [BATCH, BATCH, 7]
        );
        note.reached = all[0].end;
        note.save().unwrap();
        let again = Note::find(&path, &contents, "sqlite".into()).unwrap();
        assert_eq!(again.reached, all[0].end);
        let rest: Vec<_> = Batches::open(&path, &again.reached)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(rest[0].records, all[1].records);
        assert_eq!(rest[1].end.records, u64::from(count));
        let elsewhere = Note::find(&path, &contents, "dynamodb://table".into()).unwrap();
        assert_eq!(elsewhere.reached, Reached::default());
        note.remove().unwrap();
        note.remove().unwrap();
    }
}
