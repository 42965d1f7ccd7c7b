//! Reconstructs the multipart uploads of a session from all of its records.
//!
//! Usually there is one upload. After an attempt with an unknown outcome another upload follows, and so on. Each of
//! them begins with bytes copied from the one before.

use registry::store::StoreError;

use crate::record::{PartsRecord, StoredPart};
use crate::state::UploadState;

/// A multipart upload and its own parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    /// The attempt that began it. The key of its object contains this number.
    pub(crate) attempt: u32,
    pub(crate) id: String,
    /// The number of bytes that are copied from the stage before.
    pub(crate) prefix: u64,
    /// The number of the first own part.
    pub(crate) first: u16,
    /// All own parts, in order.
    pub(crate) parts: Vec<StoredPart>,
}

impl Stage {
    /// The number of bytes up to the end of its parts.
    pub(crate) fn end(&self) -> u64 {
        self.prefix + self.parts.iter().map(|part| part.size).sum::<u64>()
    }

    /// Whether its parts have checksums.
    pub(crate) fn has_checksums(&self) -> bool {
        self.parts.iter().any(|part| part.crc32.is_some())
    }

    /// All stages of an upload, checked against its state. Empty if the upload is one object.
    pub(crate) fn collect(records: &[Vec<u8>], state: &UploadState) -> Result<Vec<Self>, StoreError> {
        let mut stages: Vec<Self> = Vec::new();
        for record in records {
            let PartsRecord {
                attempt,
                id,
                prefix,
                first,
                parts,
            } = PartsRecord::decode(record)?;
            match stages.last_mut() {
                Some(last) if last.attempt == attempt && last.id == id => last.parts.extend(parts),
                _ => stages.push(Self {
                    attempt,
                    id,
                    prefix,
                    first,
                    parts,
                }),
            }
        }
        let Some(open) = &state.upload else {
            return if stages.is_empty() { Ok(stages) } else { Err(mismatch()) };
        };
        // An upload that has only staged bytes and no parts yet has no record.
        if stages.last().is_none_or(|last| last.id != open.id) {
            stages.push(Self {
                attempt: open.attempt,
                id: open.id.clone(),
                prefix: open.prefix,
                first: open.first,
                parts: Vec::new(),
            });
        }
        let mut before = 0;
        for stage in &stages {
            let numbers = stage.parts.iter().map(|part| part.number);
            if stage.prefix != before || !numbers.eq((stage.first..).take(stage.parts.len())) {
                return Err(mismatch());
            }
            before = stage.end();
        }
        if before == open.end() {
            Ok(stages)
        } else {
            Err(mismatch())
        }
    }
}

fn mismatch() -> StoreError {
    StoreError::failed("the part records of an upload do not agree with its state")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::state::{OpenMultipart, TailObject};

    fn run(attempt: u32, prefix: u64, first: u16, numbers: std::ops::Range<u16>) -> Vec<u8> {
        let parts = numbers.map(|number| StoredPart {
            number,
            size: 10,
            etag: crate::record::EntityTag::Whole(format!("{number:032x}")),
            crc32: None,
        });
        let run = PartsRecord {
            attempt,
            id: format!("upload {attempt}"),
            prefix,
            first,
            parts: parts.collect(),
        };
        run.encode().unwrap()
    }

    fn state(attempt: u32, prefix: u64, first: u16, own: u64) -> UploadState {
        UploadState {
            bodies: 1,
            last: attempt,
            upload: Some(OpenMultipart {
                attempt,
                id: format!("upload {attempt}"),
                prefix,
                first,
                next: first + u16::try_from(own / 10).unwrap(),
                own,
                checksums: false,
            }),
            tail: Some(TailObject { attempt, size: 3 }),
            has_unrecorded_uploads: false,
        }
    }

    #[test]
    fn records_of_one_upload_are_one_stage() {
        let records = [run(1, 0, 1, 1..4), run(1, 0, 1, 4..5)];
        let stages = Stage::collect(&records, &state(1, 0, 1, 40)).unwrap();
        assert_eq!(stages.len(), 1);
        assert_eq!((stages[0].parts.len(), stages[0].end()), (4, 40));
    }

    #[test]
    fn stages_follow_each_other() {
        let records = [run(1, 0, 1, 1..4), run(3, 30, 2, 2..3)];
        let stages = Stage::collect(&records, &state(3, 30, 2, 10)).unwrap();
        assert_eq!(stages.iter().map(Stage::end).collect::<Vec<_>>(), [30, 40]);
        // The last stage has no parts of its own.
        let stages = Stage::collect(&records[..1], &state(3, 30, 2, 0)).unwrap();
        assert_eq!(stages.len(), 2);
    }

    #[test]
    fn contradicting_records_are_refused() {
        let one = [run(1, 0, 1, 1..4)];
        assert!(Stage::collect(&one, &state(1, 0, 1, 40)).is_err(), "a part is missing");
        assert!(
            Stage::collect(&one, &UploadState::default()).is_err(),
            "the state has no upload"
        );
        let gap = [run(1, 0, 1, 1..2), run(1, 0, 1, 3..4)];
        assert!(Stage::collect(&gap, &state(1, 0, 1, 20)).is_err());
        let order = [run(3, 30, 2, 2..3), run(1, 0, 1, 1..4)];
        assert!(Stage::collect(&order, &state(1, 0, 1, 30)).is_err());
        assert!(Stage::collect(&[], &UploadState::default()).unwrap().is_empty());
    }
}
