//! `roadstead metadata import`.
//!
//! The whole file is read and checked before anything is written. So these files change nothing in the registry: an
//! incomplete one, one with a line that this version does not know, one with a record that no store accepts ([`allowed`]),
//! and one with records that refer to missing records ([`contents`]). The progress of the import is saved beside the file.
//! Until the import is complete, no collection pass examines the registry ([`lease`]). Accounts, policies and the audit trail
//! ([`access`]) are written last.

mod access;
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
use super::super::progress::ProgressLine;
use super::super::store::{PAGE, cx, with};
use super::format::{Begin, ExportLine, FormatError, Lines, Mark};
use crate::cli::ImportArgs;
use crate::failure::Failure;
use shell::stores::Absent;
use shell::text::count;

/// Records that are written in one call.
const BATCH: usize = 500;
/// Size of these records in the file, in bytes.
const BATCH_BYTES: usize = 1 << 20;
/// Number of batches that are written at the same time.
const AT_ONCE: usize = 4;
/// Number of records that the error lists when records refer to missing records.
const MAX_LISTED: usize = 10;
/// How often progress is saved.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Imports a file into the registry.
pub(in super::super) fn run(args: &ImportArgs) -> Result<(), Failure> {
    let path = args.file.as_path();
    let contents = Contents::of(path).map_err(|error| refused(path, &error))?;
    if !args.force {
        require_consistent(path, &contents)?;
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

/// Writes the records of the file into the stores. `into` identifies the stores.
async fn import(path: &Path, contents: &Contents, into: String, stores: &Stores, force: bool) -> Result<(), Failure> {
    if !force {
        require_no_others(&*stores.metadata, &contents.repositories).await?;
        access::require_no_others(&*stores.access, &contents.accounts).await?;
        access::require_no_replacements(path, contents.access, &*stores.access).await?;
    }
    let mut progress = ImportProgress::find(path, contents, into)?;
    let lease = ImportLease::take(stores.collection.clone(), contents.name(), force).await?;
    if progress.position.records > 0 {
        // The records that were written may be gone: collected, if collection was not prevented all the time, or deleted
        // with all others, if the registry was emptied since.
        if lease.is_continued && !is_empty(&*stores.records).await? {
            eprintln!(
                "continuing after {}",
                count(progress.position.records, "record", "records")
            );
        } else {
            progress.position = ImportPosition::default();
        }
    }
    let written = async {
        write(path, contents, &mut progress, &*stores.records).await?;
        access::write(path, contents.access, &*stores.access).await
    };
    let written = written.await;
    if written.is_err() {
        // If this fails too, the next run writes some records once more.
        drop(progress.save());
        eprintln!(
            "the import is not complete. Run the same command again, which continues it. Until the import is complete, \
             nothing is collected in this registry"
        );
    }
    written?;
    lease.release().await?;
    progress.remove()?;
    eprintln!(
        "imported {} from {}",
        count(contents.records, "record", "records"),
        path.display()
    );
    Ok(())
}

async fn write(
    path: &Path,
    contents: &Contents,
    progress: &mut ImportProgress,
    records: &dyn RecordStore,
) -> Result<(), Failure> {
    let mut line = ProgressLine::new();
    let batches = Batches::open(path, &progress.position).map_err(|error| refused(path, &error.into()))?;
    let mut written = stream::iter(batches)
        .map(|batch| async move {
            let batch = batch.map_err(|error| refused(path, &error))?;
            records
                .insert(cx(), &batch.records)
                .await
                .map_err(|error| Failure::failed("cannot write the metadata", error))?;
            Ok::<_, Failure>(batch.end)
        })
        // In the order of the file: saved progress says that everything before it was written.
        .buffered(AT_ONCE);
    while let Some(end) = written.next().await {
        progress.position = end?;
        progress.save_sometimes()?;
        line.show(|| {
            let records = count(contents.records, "record", "records");
            format!("{} of {records}", progress.position.records)
        });
    }
    Ok(())
}

/// Whether a registry has no records. A slice without records need not be the last one.
async fn is_empty(records: &dyn RecordStore) -> Result<bool, Failure> {
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

/// Fails if records of the file refer to missing records.
fn require_consistent(path: &Path, contents: &Contents) -> Result<(), Failure> {
    let incomplete = contents.incomplete(path, MAX_LISTED + 1);
    let mut incomplete = incomplete.map_err(|error| refused(path, &error))?;
    if incomplete.is_empty() {
        return Ok(());
    }
    if incomplete.len() > MAX_LISTED {
        incomplete.truncate(MAX_LISTED);
        incomplete.push("and others".into());
    }
    Err(Failure::Failed(format!(
        "in {}, these records refer to missing records, because the registry was changed during the export: {}. Export it \
         to another file while no client pushes or deletes. Or import this file with --force; `roadstead fsck` then \
         lists what is missing",
        path.display(),
        incomplete.join(", ")
    )))
}

fn refused(path: &Path, error: &FormatError) -> Failure {
    let what = match error {
        FormatError::CutOff => {
            "the file is incomplete, because the export was interrupted. Run the same export again, which continues it"
                .to_owned()
        }
        other => other.to_string(),
    };
    Failure::failed(format!("cannot import {}", path.display()), what)
}

/// Fails if the registry has a repository that is not in the file.
async fn require_no_others(metadata: &dyn MetadataStore, ours: &BTreeSet<RepositoryName>) -> Result<(), Failure> {
    let mut last: Option<RepositoryName> = None;
    loop {
        let page = metadata
            .repositories(cx(), last.as_ref().map(AsRef::as_ref), PAGE)
            .await
            .map_err(|error| Failure::failed("cannot read the metadata", error))?;
        if let Some(other) = page.items.iter().find(|name| !ours.contains(*name)) {
            return Err(Failure::Failed(format!(
                "the registry has the repository {other}, which is not in the file: import into an empty registry, or \
                 merge the two with --force (a record that is in both becomes that of the file)"
            )));
        }
        last = page.items.into_iter().next_back();
        if !page.more || last.is_none() {
            return Ok(());
        }
    }
}

/// An offset in the file, and the number of records before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ImportPosition {
    offset: u64,
    records: u64,
}

/// The progress of an import, which is saved in a file beside the export.
#[derive(Debug)]
struct ImportProgress {
    path: PathBuf,
    identity: ImportIdentity,
    position: ImportPosition,
    saved: Instant,
}

/// Identifies an import. Progress counts only for the same file and the same registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ImportIdentity {
    into: String,
    begin: Begin,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct SavedProgress {
    #[serde(flatten)]
    identity: ImportIdentity,
    #[serde(flatten)]
    position: ImportPosition,
}

impl ImportProgress {
    fn find(file: &Path, contents: &Contents, into: String) -> Result<Self, Failure> {
        let mut path = file.as_os_str().to_owned();
        path.push(".progress");
        let path = PathBuf::from(path);
        let identity = ImportIdentity {
            into,
            begin: contents.begin.clone(),
            bytes: contents.bytes,
        };
        let position = match std::fs::read(&path) {
            // An unreadable file counts as no progress: it is harmless to write records twice.
            Ok(text) => serde_json::from_slice::<SavedProgress>(&text)
                .ok()
                .filter(|saved| saved.identity == identity && saved.position.offset <= identity.bytes)
                .map(|saved| saved.position)
                .unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => ImportPosition::default(),
            Err(error) => return Err(Failure::failed(format!("cannot read {}", path.display()), error)),
        };
        Ok(Self {
            path,
            identity,
            position,
            saved: Instant::now(),
        })
    }

    fn save_sometimes(&mut self) -> Result<(), Failure> {
        if self.saved.elapsed() < SAVE_EVERY {
            return Ok(());
        }
        self.saved = Instant::now();
        self.save()
    }

    fn save(&self) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::failed(format!("cannot write {}", self.path.display()), error);
        let saved = SavedProgress {
            identity: self.identity.clone(),
            position: self.position,
        };
        let text = serde_json::to_vec(&saved).map_err(|error| failed(error.into()))?;
        let mut new = self.path.as_os_str().to_owned();
        new.push(".new");
        std::fs::write(&new, text).map_err(failed)?;
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

/// Records that are written in one call.
#[derive(Debug)]
struct Batch {
    records: Vec<Record>,
    end: ImportPosition,
}

/// The records of a file, in batches.
#[derive(Debug)]
struct Batches {
    lines: Lines<BufReader<File>>,
    records: u64,
    ended: bool,
}

impl Batches {
    fn open(path: &Path, position: &ImportPosition) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(position.offset))?;
        Ok(Self {
            lines: Lines::new(BufReader::new(file), position.offset),
            records: position.records,
            ended: false,
        })
    }

    fn batch(&mut self) -> Result<Option<Batch>, FormatError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        while !self.ended && records.len() < BATCH && bytes < BATCH_BYTES {
            match self.lines.next()? {
                Some(ExportLine::Record(record)) => {
                    bytes += record.len();
                    records.push(record.read()?);
                }
                Some(ExportLine::Mark(Mark::End { .. })) | None => self.ended = true,
                Some(ExportLine::Mark(_) | ExportLine::Access(_)) => {}
            }
        }
        self.records += records.len() as u64;
        let end = ImportPosition {
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
        // After an error, nothing more is read.
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

    fn file(records: u32, declared: u64) -> Vec<u8> {
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
                permanent: false,
            };
            write_line(&mut text, &record).unwrap();
        }
        write_line(&mut text, &Mark::End { records: declared }).unwrap();
        text
    }

    #[test]
    fn only_a_complete_file_is_accepted() {
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
        assert!(
            read(&file(3, 4))
                .unwrap_err()
                .contains("says 4 records, and the file has 3")
        );
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
    fn batches_continue_from_the_saved_progress() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("export");
        let count = u32::try_from(2 * BATCH + 7).unwrap();
        std::fs::write(&path, file(count, count.into())).unwrap();
        let contents = Contents::of(&path).unwrap();
        let mut progress = ImportProgress::find(&path, &contents, "sqlite".into()).unwrap();
        assert_eq!(progress.position, ImportPosition::default());
        let all: Vec<_> = Batches::open(&path, &progress.position)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(
            all.iter().map(|batch| batch.records.len()).collect::<Vec<_>>(),
            [BATCH, BATCH, 7]
        );
        progress.position = all[0].end;
        progress.save().unwrap();
        let again = ImportProgress::find(&path, &contents, "sqlite".into()).unwrap();
        assert_eq!(again.position, all[0].end);
        let rest: Vec<_> = Batches::open(&path, &again.position)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(rest[0].records, all[1].records);
        assert_eq!(rest[1].end.records, u64::from(count));
        let elsewhere = ImportProgress::find(&path, &contents, "dynamodb://table".into()).unwrap();
        assert_eq!(elsewhere.position, ImportPosition::default());
        progress.remove().unwrap();
        progress.remove().unwrap();
    }
}
