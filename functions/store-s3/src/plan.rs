//! How large the parts of a multipart upload are.
//!
//! The protocol allows 10,000 parts, of 5 MiB to 5 GiB each; only the last of an upload may be smaller. Growing parts
//! let small uploads have many parts under way at once while 500 GiB still fit in the numbers: 8 MiB each up to number
//! 500, then 16, 32, and 59 MiB. (59 and not 64: what was received is cut only when 5 MiB more are there, so that the
//! end of a body is never too small for a part, and both together are the 64 MiB that an upload may hold.)

/// One MiB in bytes.
pub(crate) const MIB: usize = 1 << 20;

/// The smallest part that is not the last, in bytes.
pub(crate) const LEAST: usize = 5 * MIB;

/// What an upload may hold in memory, received or under way, in bytes.
pub(crate) const MEMORY: usize = 64 * MIB;

/// The largest number that appends give to parts.
pub(crate) const LAST_NUMBER: u16 = 9_999;

/// The number of a last part that seals make of staged bytes. Appends never use it, so that a late one cannot replace
/// what is being sealed.
pub(crate) const TAIL_NUMBER: u16 = 10_000;

/// An upload that has used up to this number is continued in another one, if its parts are small: the rest must be
/// enough for a large body.
const CROWDED: u16 = 9_000;

/// At most so many parts hold what was copied from another upload.
const MOST_COPIES: u16 = 200;

/// What is copied in one piece if it can be, in bytes.
const COPY: u64 = 64 << 20;

/// The size of equal parts: 10,000 of them hold 500 GiB, and the rest of [`MEMORY`] receives while one is sent.
const EQUAL: usize = 52 * MIB;

/// How the bytes of an upload are divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parts {
    /// Parts grow with their number, and the last one of a body is as large as the body makes it.
    #[default]
    Growing,
    /// All parts of an upload but its last have one size, 52 MiB, for stores that ask for it (R2). What a body leaves
    /// over is staged. At most 507 GiB fit.
    Equal,
}

impl Parts {
    /// How many of `buffered` bytes are to become part `number` now, while more may follow.
    pub(crate) fn cut(self, number: u16, buffered: usize) -> Option<usize> {
        match self {
            Self::Growing => {
                let full = (growing(number) + LEAST).min(MEMORY);
                (buffered >= full).then(|| full - LEAST)
            }
            Self::Equal => (buffered >= EQUAL).then_some(EQUAL),
        }
    }

    /// How many of `buffered` bytes become a part although it is not time, because there is no room for more: if
    /// possible so many that the end of the body can still be one.
    pub(crate) fn cut_early(self, buffered: usize) -> Option<usize> {
        match self {
            Self::Growing if buffered >= 2 * LEAST => Some(buffered - LEAST),
            Self::Growing if buffered >= LEAST => Some(buffered),
            _ => None,
        }
    }

    /// Whether the end of a body can be a part although another may follow it.
    pub(crate) fn is_part(self, bytes: usize) -> bool {
        match self {
            Self::Growing => bytes >= LEAST,
            Self::Equal => bytes == EQUAL,
        }
    }

    /// With how much memory an upload can always go on, if it is said to have so many bytes. Small bodies take what
    /// they need, so that each of them is one request however little room there is.
    pub(crate) fn base(self, bytes: usize) -> usize {
        match self {
            Self::Growing if bytes < growing(1) + LEAST => bytes,
            Self::Growing => LEAST + MIB,
            Self::Equal => bytes.min(EQUAL),
        }
    }

    /// Whether an upload should be continued in another, because it has used up to `next - 1` of its numbers, and the
    /// rest do not hold the body that begins, or perhaps not, if nobody has told its bytes.
    pub(crate) fn is_crowded(self, next: u16, body: Option<u64>) -> bool {
        let rest = || (next..=LAST_NUMBER).map(|number| growing(number) as u64).sum::<u64>();
        self == Self::Growing && (next > CROWDED || body.is_some_and(|body| body > rest()))
    }

    /// In how many parts the first `bytes` of an upload are copied, which had at most `before` parts so far. They are
    /// as equal as can be, so that none is too small.
    pub(crate) fn copies(self, bytes: u64, before: u16) -> u16 {
        match self {
            Self::Growing => {
                let wanted = u16::try_from(bytes / COPY).unwrap_or(u16::MAX);
                wanted.min(MOST_COPIES).min(before).max(1)
            }
            Self::Equal => u16::try_from(bytes / EQUAL as u64).unwrap_or(u16::MAX),
        }
    }
}

fn growing(number: u16) -> usize {
    match number {
        ..=500 => 8 * MIB,
        501..=1000 => 16 * MIB,
        1001..=1500 => 32 * MIB,
        1501.. => MEMORY - LEAST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: u64 = 500 << 30;

    /// The sizes of the parts of one body, the end joined to the last.
    fn cut_all(parts: Parts, size: u64) -> Vec<u64> {
        let (mut left, mut sizes) = (size, Vec::new());
        loop {
            let number = u16::try_from(sizes.len() + 1).expect("a part number");
            let buffered = usize::try_from(left.min(MEMORY as u64)).expect("fits");
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
    fn the_largest_layer_fits_in_the_numbers() {
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
                    sizes.iter().all(|size| *size >= LEAST as u64),
                    "{size}+{odd}: {sizes:?}"
                );
            }
        }
    }

    #[test]
    fn an_upload_goes_on_while_its_numbers_hold_the_next_body() {
        let parts = Parts::Growing;
        for (next, body, crowded) in [
            (2, Some(LAYER), false),
            (250, Some(LAYER), false),
            (5_000, Some(LAYER / 2), false),
            (5_000, Some(LAYER), true),
            (CROWDED, None, false),
            (CROWDED, Some(50 << 30), false),
            (CROWDED, Some(60 << 30), true),
            (CROWDED + 1, None, true),
            (CROWDED + 1, Some(1), true),
        ] {
            assert_eq!(parts.is_crowded(next, body), crowded, "{next}, {body:?}");
        }
        assert!(!Parts::Equal.is_crowded(LAST_NUMBER, Some(LAYER)));
    }

    #[test]
    fn equal_parts_are_equal() {
        let sizes = cut_all(Parts::Equal, 1 << 30);
        let (last, others) = sizes.split_last().expect("parts");
        assert!(others.iter().all(|size| *size == EQUAL as u64) && *last < EQUAL as u64);
        assert_eq!(Parts::Equal.copies(7 * EQUAL as u64, 7), 7);
    }

    #[test]
    fn copies_are_few_and_large_enough() {
        assert_eq!(Parts::Growing.copies(5 << 20, 1), 1);
        assert_eq!(Parts::Growing.copies(1 << 30, 120), 16);
        // 9,000 parts of the smallest size, and of the largest.
        assert_eq!(Parts::Growing.copies(9_000 * LEAST as u64, 9_000), 200);
        let copies = Parts::Growing.copies(LAYER, 9_000);
        assert!(LAYER / u64::from(copies) < 5 << 30);
    }

    #[test]
    fn memory_is_enough_to_go_on() {
        for parts in [Parts::Growing, Parts::Equal] {
            let base = parts.base(usize::MAX);
            assert!(base <= MEMORY);
            let cut = parts.cut_early(base).or(parts.cut(1, base));
            assert!(cut.is_some_and(|bytes| parts.is_part(bytes)));
            assert_eq!(parts.base(1000), 1000);
        }
    }
}
