//! The sizes of the parts of a multipart upload.
//!
//! The protocol allows 10,000 parts of 5 MiB to 5 GiB each; only the last part of an upload may be smaller. Parts grow
//! with their number, so that small uploads send many parts at once and 500 GiB still fit the 10,000 numbers: 8 MiB up
//! to number 500, then 16, 32, and 59 MiB. A part is sent only when 5 MiB beyond it have arrived, so the end of a body
//! is large enough for a part. 59 + 5 MiB = 64 MiB, the maximum memory of one upload. When memory is short, a part is
//! sent earlier.

/// One MiB in bytes.
pub(crate) const MIB: usize = 1 << 20;

/// The minimum size of a part that is not the last one, in bytes.
pub(crate) const MINIMUM_PART: usize = 5 * MIB;

/// Maximum memory for received bytes and parts in flight of one upload, in bytes.
pub(crate) const MAXIMUM_MEMORY: usize = 64 * MIB;

/// The largest part number that appends use.
pub(crate) const LAST_NUMBER: u16 = 9_999;

/// The number of the last part, which a seal makes of staged bytes. Appends never use it, so a part that arrives late
/// cannot replace it during a seal.
pub(crate) const TAIL_NUMBER: u16 = 10_000;

/// An upload that has used more numbers than this is continued in another upload if its parts are small: the remaining
/// numbers must suffice for a large body.
const NEARLY_FULL: u16 = 9_000;

/// Maximum number of parts for bytes copied from another upload.
const MAXIMUM_COPIES: u16 = 200;

/// Preferred size of one copy, in bytes.
const COPY_SIZE: u64 = 64 << 20;

/// The size of equal parts: 10,000 of them hold 500 GiB, and the rest of [`MAXIMUM_MEMORY`] receives bytes while one is
/// sent.
const EQUAL_SIZE: usize = 52 * MIB;

/// How the bytes of an upload are divided into parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parts {
    /// Parts grow with their number. The last part of a body has all bytes that remain.
    #[default]
    Growing,
    /// All parts of an upload except the last have one size, 52 MiB, for stores that require it (R2). The rest of a
    /// body is staged. The maximum is 507 GiB.
    Equal,
}

impl Parts {
    /// The size of part `number`, if `buffered` bytes are enough to send it now while more bytes may follow.
    pub(crate) fn cut(self, number: u16, buffered: usize) -> Option<usize> {
        match self {
            Self::Growing => {
                let full = (growing(number) + MINIMUM_PART).min(MAXIMUM_MEMORY);
                (buffered >= full).then(|| full - MINIMUM_PART)
            }
            Self::Equal => (buffered >= EQUAL_SIZE).then_some(EQUAL_SIZE),
        }
    }

    /// The size of a part to send early, because there is no memory for more of the `buffered` bytes. If possible,
    /// enough bytes remain so that the end of the body can still be a part.
    pub(crate) fn cut_early(self, buffered: usize) -> Option<usize> {
        match self {
            Self::Growing if buffered >= 2 * MINIMUM_PART => Some(buffered - MINIMUM_PART),
            Self::Growing if buffered >= MINIMUM_PART => Some(buffered),
            _ => None,
        }
    }

    /// Whether the end of a body can be a part although another part may follow it.
    pub(crate) fn is_part(self, bytes: usize) -> bool {
        match self {
            Self::Growing => bytes >= MINIMUM_PART,
            Self::Equal => bytes == EQUAL_SIZE,
        }
    }

    /// The memory with which an upload of this many bytes can always proceed. A small body gets memory for all of its
    /// bytes, so it is one request however little memory there is.
    pub(crate) fn base(self, bytes: usize) -> usize {
        match self {
            Self::Growing if bytes < growing(1) + MINIMUM_PART => bytes,
            Self::Growing => MINIMUM_PART + MIB,
            Self::Equal => bytes.min(EQUAL_SIZE),
        }
    }

    /// Whether an upload should be continued in another upload. It has used the numbers below `next`, and the remaining
    /// numbers do not suffice for the next body, or might not if the length of the body is unknown.
    pub(crate) fn is_nearly_full(self, next: u16, body: Option<u64>) -> bool {
        let rest = || (next..=LAST_NUMBER).map(|number| growing(number) as u64).sum::<u64>();
        self == Self::Growing && (next > NEARLY_FULL || body.is_some_and(|body| body > rest()))
    }

    /// The number of parts that copy the first `bytes` of an upload, which had at most `before` parts so far. The
    /// copies have nearly equal sizes, so none is too small.
    pub(crate) fn copies(self, bytes: u64, before: u16) -> u16 {
        match self {
            Self::Growing => {
                let wanted = u16::try_from(bytes / COPY_SIZE).unwrap_or(u16::MAX);
                wanted.min(MAXIMUM_COPIES).min(before).max(1)
            }
            Self::Equal => u16::try_from(bytes / EQUAL_SIZE as u64).unwrap_or(u16::MAX),
        }
    }
}

fn growing(number: u16) -> usize {
    match number {
        ..=500 => 8 * MIB,
        501..=1000 => 16 * MIB,
        1001..=1500 => 32 * MIB,
        1501.. => MAXIMUM_MEMORY - MINIMUM_PART,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: u64 = 500 << 30;

    /// The sizes of the parts of one body.
    fn cut_all(parts: Parts, size: u64) -> Vec<u64> {
        let (mut left, mut sizes) = (size, Vec::new());
        loop {
            let number = u16::try_from(sizes.len() + 1).expect("a part number");
            let buffered = usize::try_from(left.min(MAXIMUM_MEMORY as u64)).expect("fits");
            let Some(bytes) = parts.cut(number, buffered) else {
                break;
            };
            sizes.push(bytes as u64);
            left -= bytes as u64;
        }
        if left > 0 {
            sizes.push(left);
        }
        sizes
    }

    #[test]
    fn the_largest_layer_fits_the_part_numbers() {
        for parts in [Parts::Growing, Parts::Equal] {
            let sizes = cut_all(parts, LAYER);
            assert_eq!(sizes.iter().sum::<u64>(), LAYER);
            assert!(sizes.len() <= LAST_NUMBER.into(), "{parts:?}: {}", sizes.len());
        }
        assert_eq!(cut_all(Parts::Growing, LAYER).len(), 9_704);
    }

    #[test]
    fn the_end_of_a_body_is_large_enough_for_a_part() {
        for size in [5, 8, 13, 14, 18, 100, 4_000, 4_100, 30_000] {
            for odd in [0, 1, 4_999_999] {
                let sizes = cut_all(Parts::Growing, (size << 20) + odd);
                assert!(
                    sizes.iter().all(|size| *size >= MINIMUM_PART as u64),
                    "{size}+{odd}: {sizes:?}"
                );
            }
        }
    }

    #[test]
    fn an_upload_is_continued_while_its_numbers_suffice_for_the_next_body() {
        let parts = Parts::Growing;
        for (next, body, nearly_full) in [
            (2, Some(LAYER), false),
            (250, Some(LAYER), false),
            (5_000, Some(LAYER / 2), false),
            (5_000, Some(LAYER), true),
            (NEARLY_FULL, None, false),
            (NEARLY_FULL, Some(50 << 30), false),
            (NEARLY_FULL, Some(60 << 30), true),
            (NEARLY_FULL + 1, None, true),
            (NEARLY_FULL + 1, Some(1), true),
        ] {
            assert_eq!(parts.is_nearly_full(next, body), nearly_full, "{next}, {body:?}");
        }
        assert!(!Parts::Equal.is_nearly_full(LAST_NUMBER, Some(LAYER)));
    }

    #[test]
    fn equal_parts_have_one_size_except_the_last() {
        let sizes = cut_all(Parts::Equal, 1 << 30);
        let (last, others) = sizes.split_last().expect("parts");
        assert!(others.iter().all(|size| *size == EQUAL_SIZE as u64) && *last < EQUAL_SIZE as u64);
        assert_eq!(Parts::Equal.copies(7 * EQUAL_SIZE as u64, 7), 7);
    }

    #[test]
    fn copies_are_few_and_large_enough() {
        assert_eq!(Parts::Growing.copies(5 << 20, 1), 1);
        assert_eq!(Parts::Growing.copies(1 << 30, 120), 16);
        // 9,000 parts of the smallest size, and 9,000 of the largest.
        assert_eq!(Parts::Growing.copies(9_000 * MINIMUM_PART as u64, 9_000), 200);
        let copies = Parts::Growing.copies(LAYER, 9_000);
        assert!(LAYER / u64::from(copies) < 5 << 30);
    }

    #[test]
    fn the_base_memory_is_enough_to_proceed() {
        for parts in [Parts::Growing, Parts::Equal] {
            let base = parts.base(usize::MAX);
            assert!(base <= MAXIMUM_MEMORY);
            let cut = parts.cut_early(base).or(parts.cut(1, base));
            assert!(cut.is_some_and(|bytes| parts.is_part(bytes)));
            assert_eq!(parts.base(1000), 1000);
        }
    }
}
