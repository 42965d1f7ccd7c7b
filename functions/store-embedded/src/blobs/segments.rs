//! The list of the segments of a session. It is stored in the session's state and part records.

use registry::store::{SessionId, StoreError};

use crate::files::{FileForm, FileName};

/// The first byte of a state or part record.
const FORMAT: u8 = 1;

/// The maximum number of segments that a state lists itself. Beyond it, the listed segments move to a part record
/// together. So the state does not grow with the number of bodies, and not every body costs a record.
const MAX_INLINE: usize = 16;

/// The size of one entry in bytes: number and length, little-endian.
const ENTRY: usize = 4 + 8;

/// The file of one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) length: u64,
}

impl Segment {
    pub(super) fn name(self, session: SessionId) -> FileName {
        FileName::new(session, self.number, FileForm::Segment)
    }
}

/// Reads a state or a part record. The state of a session without stored bytes is empty.
pub(super) fn decode(record: &[u8]) -> Result<Vec<Segment>, StoreError> {
    let Some((&format, entries)) = record.split_first() else {
        return Ok(Vec::new());
    };
    let (entries, rest) = entries.as_chunks::<ENTRY>();
    if format != FORMAT || !rest.is_empty() {
        return Err(StoreError::failed(
            "the state of an upload has a format that this version does not know",
        ));
    }
    Ok(entries
        .iter()
        .map(|&[n0, n1, n2, n3, ref length @ ..]| Segment {
            number: u32::from_le_bytes([n0, n1, n2, n3]),
            length: u64::from_le_bytes(*length),
        })
        .collect())
}

fn encode(segments: &[Segment]) -> Vec<u8> {
    let mut record = Vec::with_capacity(1 + segments.len() * ENTRY);
    record.push(FORMAT);
    for segment in segments {
        record.extend(segment.number.to_le_bytes());
        record.extend(segment.length.to_le_bytes());
    }
    record
}

/// Returns the state and the part record after one more segment.
pub(super) fn extend(mut segments: Vec<Segment>, segment: Segment) -> (Vec<u8>, Option<Vec<u8>>) {
    let part = (segments.len() >= MAX_INLINE).then(|| encode(&std::mem::take(&mut segments)));
    segments.push(segment);
    (encode(&segments), part)
}

/// Returns all segments of an upload in order, and checks them against its size.
pub(super) fn collect(parts: &[Vec<u8>], state: &[u8], size: u64) -> Result<Vec<Segment>, StoreError> {
    let mut segments = Vec::new();
    for record in parts.iter().map(Vec::as_slice).chain([state]) {
        segments.extend(decode(record)?);
    }
    let total = segments
        .iter()
        .try_fold(0_u64, |sum, segment| sum.checked_add(segment.length));
    if segments.is_empty() || total != Some(size) {
        return Err(StoreError::failed(format!(
            "an upload of {size} bytes has {} segments of {total:?} bytes",
            segments.len()
        )));
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn segments_keep_their_order_through_states_and_parts() {
        let (mut state, mut parts, mut size) = (Vec::new(), Vec::new(), 0);
        for number in 1..=100_u32 {
            let segment = Segment {
                number,
                length: u64::from(number) << 33,
            };
            size += segment.length;
            let part;
            (state, part) = extend(decode(&state).unwrap(), segment);
            parts.extend(part);
            assert!(state.len() <= 1 + MAX_INLINE * ENTRY);
        }
        assert_eq!(parts.len(), 6);
        let segments = collect(&parts, &state, size).unwrap();
        assert!(segments.iter().map(|segment| segment.number).eq(1..=100));
        assert!(collect(&parts, &state, size + 1).is_err());
        assert!(collect(&parts[1..], &state, size).is_err());
    }

    #[test]
    fn a_damaged_state_is_refused() {
        let (state, _) = extend(Vec::new(), Segment { number: 1, length: 1 });
        assert!(decode(&state[..state.len() - 1]).is_err());
        assert!(decode(&[2]).is_err());
        assert!(collect(&[], &[], 0).is_err(), "there is no segment");
    }
}
