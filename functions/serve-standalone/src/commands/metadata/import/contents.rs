//! What a whole file holds, and what it lacks.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::hash::Hasher as _;
use std::io::BufReader;
use std::path::Path;

use oci::{Digest, RepositoryName};
use registry::store::records::{EntryContent, Record};
use registry::store::{Timestamp, Uid};
use sha2::{Digest as _, Sha256};

use super::super::format::{Begin, FormatError, Line, Lines, Mark};
use super::allowed;

/// How far the clocks of servers may be apart, in milliseconds.
const SKEW_MS: u64 = 60_000;

/// What a whole file holds.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) begin: Begin,
    pub(super) bytes: u64,
    pub(super) records: u64,
    pub(super) repositories: BTreeSet<RepositoryName>,
    /// What is referred to and not there.
    lacking: HashSet<u64>,
}

/// What others refer to. It is remembered by a hash of 64 bits: a million records take some tens of megabytes.
#[derive(Hash)]
enum Thing<'a> {
    /// The bytes of a digest.
    Bytes(&'a Digest),
    /// A manifest of a repository.
    Manifest(&'a RepositoryName, &'a Digest),
    /// A blob or a manifest of a repository.
    Either(&'a RepositoryName, &'a Digest),
}

impl Thing<'_> {
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        std::hash::Hash::hash(self, &mut hasher);
        hasher.finish()
    }
}

/// What a record is to others.
fn things(record: &Record) -> impl Iterator<Item = u64> + use<> {
    let things = match record {
        Record::Blob { digest, .. } => vec![Thing::Bytes(digest).hash()],
        Record::Link { repository, digest, .. } => vec![Thing::Either(repository, digest).hash()],
        Record::Manifest(entry) => vec![
            Thing::Manifest(&entry.repository, &entry.digest).hash(),
            Thing::Either(&entry.repository, &entry.digest).hash(),
        ],
        Record::Repository { .. } | Record::Tag { .. } | Record::History { .. } => Vec::new(),
    };
    things.into_iter()
}

/// What must be there for a record. Of what a manifest refers to, that is certain only if it was put while the export was
/// under way, which began at `began`: an older one may refer to what was never there.
fn needs(record: &Record, began: Timestamp) -> impl Iterator<Item = u64> + use<> {
    let needs = match record {
        Record::Link { digest, .. } => vec![Thing::Bytes(digest).hash()],
        Record::Tag { repository, names, .. } => vec![Thing::Manifest(repository, &names.digest).hash()],
        Record::Manifest(entry) => {
            let is_new = entry.at.0.saturating_add(SKEW_MS) >= began.0;
            let references = entry.references.iter().filter(|_| is_new);
            let references = references.map(|digest| Thing::Either(&entry.repository, digest));
            let is_stored = matches!(entry.content, EntryContent::Stored(_));
            let own = is_stored.then_some(Thing::Bytes(&entry.digest));
            references.chain(own).map(|thing| thing.hash()).collect()
        }
        Record::Repository { .. } | Record::Blob { .. } | Record::History { .. } => Vec::new(),
    };
    needs.into_iter()
}

impl Contents {
    /// Reads the file to its end, which must be in good order.
    pub(super) fn of(path: &Path) -> Result<Self, FormatError> {
        let mut lines = Lines::new(BufReader::new(File::open(path)?), 0);
        let begin = lines.begin()?;
        let mut records = 0;
        let mut repositories = BTreeSet::new();
        let (mut there, mut needed) = (HashSet::new(), HashSet::new());
        let told = loop {
            match lines.next()?.ok_or(FormatError::CutOff)? {
                Line::Record(record) => {
                    records += 1;
                    let record = record.read()?;
                    allowed::check(&record).map_err(|what| lines.wrong(format!("the record \"{record}\": {what}")))?;
                    there.extend(things(&record));
                    needed.extend(needs(&record, begin.at));
                    if let Record::Repository { name, .. } = record {
                        repositories.insert(name);
                    }
                }
                Line::Mark(Mark::Cursor { .. }) => {}
                Line::Mark(Mark::Begin(_)) => return Err(lines.wrong("a second beginning")),
                Line::Mark(Mark::End { records }) => break records,
            }
        };
        if told != records {
            return Err(lines.wrong(format!("the end tells of {told} records, and {records} are there")));
        }
        if lines.next()?.is_some() {
            return Err(lines.wrong("something comes after the end"));
        }
        needed.retain(|thing| !there.contains(thing));
        Ok(Self {
            begin,
            bytes: lines.offset(),
            records,
            repositories,
            lacking: needed,
        })
    }

    /// The name by which every run of the import of this file knows itself.
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

    /// Some of the records that refer to what the file lacks, at most `most`; none: it agrees in itself.
    pub(super) fn incomplete(&self, path: &Path, most: usize) -> Result<Vec<String>, FormatError> {
        let mut found = Vec::new();
        if self.lacking.is_empty() {
            return Ok(found);
        }
        let mut lines = Lines::new(BufReader::new(File::open(path)?), 0);
        while found.len() < most
            && let Some(line) = lines.next()?
        {
            if let Line::Record(record) = line {
                let record = record.read()?;
                if needs(&record, self.begin.at).any(|thing| self.lacking.contains(&thing)) {
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

    fn place(text: &str) -> Location {
        let hex = digest(text).to_string();
        Location::main(format!("{}.1", &hex["sha256:".len()..][..32]))
    }

    fn blob(text: &str) -> Record {
        Record::Blob {
            digest: digest(text),
            location: place(text),
            size: 1,
            at: Timestamp(1),
        }
    }

    fn link(text: &str) -> Record {
        Record::Link {
            repository: name(),
            digest: digest(text),
            location: place(text),
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
            names: TagRecord {
                is_suspect: false,
                digest: digest(text),
                media_type: "a/b".parse().unwrap(),
                size: 1,
                version: 1,
                at: Timestamp(1),
            },
        }
    }

    /// What is incomplete in a file of these records.
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
    fn what_a_push_has_torn_is_named() {
        let inline = || EntryContent::Inline(Bytes::from_static(b"m"));
        let stored = || EntryContent::Stored(place("m"));
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
        let torn = format!("manifest team/app {m}");
        assert_eq!(incomplete(&[manifest("m", 1, &[], stored())]), [torn.as_str()]);
        // Put while the export was under way, by a clock that is a little behind.
        let late = manifest("m", BEGAN - SKEW_MS, &["one"], inline());
        assert_eq!(incomplete(&[late, blob("one")]), [torn.as_str()]);
        // Long before: it refers to what was never there.
        let early = manifest("m", BEGAN - SKEW_MS - 1, &["one"], inline());
        assert_eq!(incomplete(&[early]), [] as [String; 0]);
    }
}
