//! The contents of an export file, and which records refer to missing records.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::hash::Hasher as _;
use std::io::BufReader;
use std::path::Path;

use oci::{Digest, RepositoryName};
use registry::auth::AccountName;
use registry::store::records::{EntryContent, Record};
use registry::store::{Timestamp, Uid};
use sha2::{Digest as _, Sha256};

use super::super::access_record::AccessRecord;
use super::super::format::{Begin, ExportLine, FormatError, Lines, Mark};
use super::allowed;

/// Maximum difference between the clocks of servers, in milliseconds.
const SKEW_MS: u64 = 60_000;

/// The contents of a complete file.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) begin: Begin,
    pub(super) bytes: u64,
    pub(super) records: u64,
    pub(super) repositories: BTreeSet<RepositoryName>,
    pub(super) accounts: BTreeSet<AccountName>,
    /// Where the records about accounts begin, as the offset of a line.
    pub(super) access: u64,
    /// Hashes of the missing records to which others refer.
    missing: HashSet<u64>,
}

/// Something that records refer to. It is stored as a hash of 64 bits: a million records take some tens of megabytes.
#[derive(Hash)]
enum Referent<'a> {
    /// The record of a blob's object.
    Blob(&'a Digest),
    /// A manifest of a repository.
    Manifest(&'a RepositoryName, &'a Digest),
    /// A blob or a manifest of a repository.
    Either(&'a RepositoryName, &'a Digest),
}

impl Referent<'_> {
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        std::hash::Hash::hash(self, &mut hasher);
        hasher.finish()
    }
}

/// What other records refer to in this record.
fn provided(record: &Record) -> impl Iterator<Item = u64> + use<> {
    let provided = match record {
        Record::Blob { digest, .. } => vec![Referent::Blob(digest).hash()],
        Record::Link { repository, digest, .. } => vec![Referent::Either(repository, digest).hash()],
        Record::Manifest(entry) => vec![
            Referent::Manifest(&entry.repository, &entry.digest).hash(),
            Referent::Either(&entry.repository, &entry.digest).hash(),
        ],
        Record::Repository { .. } | Record::Tag { .. } | Record::History { .. } => Vec::new(),
    };
    provided.into_iter()
}

/// What a record requires in the file. The references of a manifest are required only if it was pushed during the export,
/// which began at `began`: an older manifest may refer to blobs that were never in the registry.
fn required(record: &Record, began: Timestamp) -> impl Iterator<Item = u64> + use<> {
    let required = match record {
        Record::Link { digest, .. } => vec![Referent::Blob(digest).hash()],
        Record::Tag { repository, target, .. } => vec![Referent::Manifest(repository, &target.digest).hash()],
        Record::Manifest(entry) => {
            let is_new = entry.at.0.saturating_add(SKEW_MS) >= began.0;
            let references = entry.references.iter().filter(|_| is_new);
            let references = references.map(|digest| Referent::Either(&entry.repository, digest));
            let is_stored = matches!(entry.content, EntryContent::Stored(_));
            let own = is_stored.then_some(Referent::Blob(&entry.digest));
            references.chain(own).map(|referent| referent.hash()).collect()
        }
        Record::Repository { .. } | Record::Blob { .. } | Record::History { .. } => Vec::new(),
    };
    required.into_iter()
}

impl Contents {
    /// Reads and checks the whole file, which must be complete.
    pub(super) fn of(path: &Path) -> Result<Self, FormatError> {
        let mut lines = Lines::new(BufReader::new(File::open(path)?), 0);
        let begin = lines.begin()?;
        let mut records = 0;
        let (mut repositories, mut accounts) = (BTreeSet::new(), BTreeSet::new());
        let (mut present, mut missing) = (HashSet::new(), HashSet::new());
        let mut access = None;
        let expected = loop {
            let offset = lines.offset();
            match lines.next()?.ok_or(FormatError::CutOff)? {
                ExportLine::Record(record) => {
                    records += 1;
                    let record = record.read()?;
                    allowed::check(&record).map_err(|what| lines.wrong(format!("the record \"{record}\": {what}")))?;
                    present.extend(provided(&record));
                    missing.extend(required(&record, begin.at));
                    if let Record::Repository { name, .. } = record {
                        repositories.insert(name);
                    }
                }
                ExportLine::Access(record) => {
                    records += 1;
                    access.get_or_insert(offset);
                    let record = record.read()?;
                    allowed::check_access(&record)
                        .map_err(|what| lines.wrong(format!("the record \"{record}\": {what}")))?;
                    if let AccessRecord::Account(account) = record
                        && let Some(twice) = accounts.replace(account.name)
                    {
                        return Err(lines.wrong(format!("the account {twice} is in the file twice")));
                    }
                }
                ExportLine::Mark(Mark::Cursor { .. }) => {}
                ExportLine::Mark(Mark::Begin(_)) => return Err(lines.wrong("a second first line of an export")),
                ExportLine::Mark(Mark::End { records }) => break records,
            }
        };
        if expected != records {
            return Err(lines.wrong(format!("the end says {expected} records, and the file has {records}")));
        }
        if lines.next()?.is_some() {
            return Err(lines.wrong("there is a line after the end"));
        }
        missing.retain(|referent| !present.contains(referent));
        Ok(Self {
            begin,
            bytes: lines.offset(),
            records,
            repositories,
            accounts,
            access: access.unwrap_or(lines.offset()),
            missing,
        })
    }

    /// Identifies the import of this file. It is the same in each run.
    pub(super) fn name(&self) -> Uid {
        let Begin {
            version,
            program,
            source,
            at,
        } = &self.begin;
        let text = format!("import\n{version}\n{program}\n{source}\n{}\n{}", at.0, self.bytes);
        let mut name = [0; 8];
        name.copy_from_slice(&Sha256::digest(text)[..8]);
        Uid(u64::from_be_bytes(name))
    }

    /// At most `limit` of the records that refer to missing records; empty if no record does.
    pub(super) fn incomplete(&self, path: &Path, limit: usize) -> Result<Vec<String>, FormatError> {
        let mut found = Vec::new();
        if self.missing.is_empty() {
            return Ok(found);
        }
        let mut lines = Lines::new(BufReader::new(File::open(path)?), 0);
        while found.len() < limit
            && let Some(line) = lines.next()?
        {
            if let ExportLine::Record(record) = line {
                let record = record.read()?;
                if required(&record, self.begin.at).any(|referent| self.missing.contains(&referent)) {
                    found.push(record.to_string());
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use bytes::Bytes;
    use oci::Algorithm;
    use registry::store::Location;
    use registry::store::metadata::TagRecord;
    use registry::store::records::ManifestEntry;

    use super::super::super::format::{VERSION, write_line};
    use super::*;

    /// When the export began.
    const BEGAN: u64 = 1_000_000_000;

    fn name() -> RepositoryName {
        "team/app".parse().unwrap()
    }

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    fn location(text: &str) -> Location {
        let hex = digest(text).to_string();
        Location::main(format!("{}.1", &hex["sha256:".len()..][..32]))
    }

    fn blob(text: &str) -> Record {
        Record::Blob {
            digest: digest(text),
            location: location(text),
            size: 1,
            at: Timestamp(1),
        }
    }

    fn link(text: &str) -> Record {
        Record::Link {
            repository: name(),
            digest: digest(text),
            location: location(text),
            size: 1,
            uid: Uid(1),
            at: Timestamp(1),
        }
    }

    fn manifest(text: &str, at: u64, references: &[&str], content: EntryContent) -> Record {
        Record::Manifest(Box::new(ManifestEntry {
            repository: name(),
            digest: digest(text),
            media_type: "a/b".parse().unwrap(),
            size: 1,
            content,
            subject: None,
            artifact_type: None,
            references: references.iter().map(|text| digest(text)).collect(),
            uid: Uid(1),
            at: Timestamp(at),
        }))
    }

    fn tag(text: &str) -> Record {
        Record::Tag {
            repository: name(),
            tag: "v1".parse().unwrap(),
            target: TagRecord {
                is_suspect: false,
                digest: digest(text),
                media_type: "a/b".parse().unwrap(),
                size: 1,
                version: 1,
                at: Timestamp(1),
            },
        }
    }

    /// The incomplete records in a file of these records.
    fn incomplete(records: &[Record]) -> Vec<String> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("export");
        let mut text = Vec::new();
        let begin = Begin {
            version: VERSION,
            program: "test".into(),
            source: "there".into(),
            at: Timestamp(BEGAN),
        };
        write_line(&mut text, &Mark::Begin(begin)).unwrap();
        for record in records {
            write_line(&mut text, record).unwrap();
        }
        let records = records.len() as u64;
        write_line(&mut text, &Mark::End { records }).unwrap();
        std::fs::write(&path, text).unwrap();
        Contents::of(&path).unwrap().incomplete(&path, 10).unwrap()
    }

    #[test]
    fn records_with_missing_references_are_listed() {
        let inline = || EntryContent::Inline(Bytes::from_static(b"m"));
        let stored = || EntryContent::Stored(location("m"));
        let whole = [
            tag("m"),
            link("one"),
            manifest("m", BEGAN, &["one", "other"], inline()),
            manifest("other", BEGAN, &[], stored()),
            blob("other"),
            blob("one"),
        ];
        assert_eq!(incomplete(&whole), [] as [String; 0], "in whatever order");

        let layer = digest("one");
        assert_eq!(incomplete(&[link("one")]), [format!("link team/app {layer}")]);
        let m = digest("m");
        assert_eq!(incomplete(&[tag("m"), blob("m")]), ["tag team/app v1".to_owned()]);
        let expected = format!("manifest team/app {m}");
        assert_eq!(incomplete(&[manifest("m", 1, &[], stored())]), [expected.as_str()]);
        // Pushed during the export, by a server whose clock is a little behind.
        let late = manifest("m", BEGAN - SKEW_MS, &["one"], inline());
        assert_eq!(incomplete(&[late, blob("one")]), [expected.as_str()]);
        // Pushed long before the export: it refers to a blob that was never in the registry.
        let early = manifest("m", BEGAN - SKEW_MS - 1, &["one"], inline());
        assert_eq!(incomplete(&[early]), [] as [String; 0]);
    }
}
