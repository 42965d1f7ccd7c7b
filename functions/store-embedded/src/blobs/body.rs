//! Collects the chunks of a body into batches that are worth a system call.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use registry::budget::Grant;

/// The size of a batch in bytes, if there is enough memory.
const MAX_BATCH: usize = 1 << 20;

/// The maximum step by which a batch grows, in bytes. Below it, a batch doubles.
const STEP: usize = 256 << 10;

/// Chunks below this size are copied together: each chunk that is kept also keeps the whole buffer that it belongs to.
const SMALL: usize = 8 << 10;

/// Consecutive bytes of a body, and the memory permit for them.
#[derive(Debug, Default)]
pub(super) struct BodyBatch {
    parts: Vec<Bytes>,
    small: BytesMut,
    length: usize,
    memory: Option<Grant>,
    /// When its first bytes arrived.
    began: Option<Instant>,
}

impl BodyBatch {
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Whether it has memory for at least one byte.
    pub(super) fn has_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Gives a memory permit to an empty batch.
    pub(super) fn begin(&mut self, memory: Grant) {
        self.memory = Some(memory);
    }

    /// Whether there is memory for `bytes` more. Takes more of the budget if some is free.
    pub(super) fn has_memory_for(&mut self, bytes: usize) -> bool {
        let wanted = self.length + bytes;
        let capacity = self.capacity();
        if wanted <= capacity {
            return true;
        }
        let missing = (wanted - capacity) as u64;
        let step = capacity.min(STEP) as u64;
        let Some(memory) = &mut self.memory else { return false };
        memory.try_grow(step.max(missing)) || memory.try_grow(missing)
    }

    /// Adds a chunk. The batch must have memory for it.
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.began.get_or_insert_with(Instant::now);
        self.length += chunk.len();
        if chunk.len() < SMALL {
            self.small.extend_from_slice(&chunk);
        } else {
            self.flush_small();
            self.parts.push(chunk);
        }
    }

    /// Whether the batch must be written before another chunk is read.
    pub(super) fn is_full(&mut self) -> bool {
        self.length >= MAX_BATCH || !self.has_memory_for(1)
    }

    /// Whether the first bytes arrived at least `age` ago.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.began.is_some_and(|began| began.elapsed() >= age)
    }

    /// The parts in order; none is empty. The batch keeps its memory until it is dropped.
    pub(super) fn parts(&mut self) -> &[Bytes] {
        self.flush_small();
        &self.parts
    }

    fn flush_small(&mut self) {
        if !self.small.is_empty() {
            self.parts.push(self.small.split().freeze());
        }
    }

    fn capacity(&self) -> usize {
        let bytes = self.memory.as_ref().map_or(0, Grant::amount);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use registry::budget::{Budget, ClientKey};

    use super::*;

    const BASE: usize = 16 << 10;

    fn batch(budget: &Budget) -> BodyBatch {
        let mut batch = BodyBatch::default();
        batch.begin(budget.try_take(ClientKey::INTERNAL, BASE as u64).expect("it is free"));
        batch
    }

    #[test]
    fn small_chunks_are_copied_together_in_order() {
        let mut batch = batch(&Budget::new(1 << 20, 1));
        for chunk in [&b"a"[..], b"b", &[b'c'; SMALL], b"d", b"e"] {
            assert!(batch.has_memory_for(chunk.len()));
            batch.push(Bytes::copy_from_slice(chunk));
        }
        let parts = batch.parts();
        assert_eq!(parts.len(), 3);
        assert_eq!(
            (&parts[0][..], parts[1].len(), &parts[2][..]),
            (&b"ab"[..], SMALL, &b"de"[..])
        );
    }

    #[test]
    fn a_batch_is_bounded_by_its_memory() {
        const CHUNK: usize = 6 << 10;
        for (total, bound) in [(BASE, BASE), (64 << 20, MAX_BATCH + CHUNK)] {
            let budget = Budget::new(total as u64, 1);
            let mut batch = batch(&budget);
            while !batch.is_full() && batch.has_memory_for(CHUNK) {
                batch.push(Bytes::from(vec![0; CHUNK]));
            }
            assert!(
                batch.length() <= bound && batch.length() > bound - 2 * CHUNK,
                "{}",
                batch.length()
            );
            assert!(budget.free() <= (total - batch.length()) as u64);
            drop(batch);
            assert_eq!(budget.free(), total as u64);
        }
    }

    /// The first byte takes one base amount. After that, the memory doubles as bytes arrive.
    #[test]
    fn memory_follows_the_bytes() {
        let budget = Budget::new(64 << 20, 1);
        let mut batch = batch(&budget);
        for (length, held) in [(1, BASE), (BASE, 2 * BASE), (3 * BASE, 4 * BASE)] {
            batch.push(Bytes::from(vec![0; length - batch.length()]));
            assert!(!batch.is_full());
            assert_eq!(batch.capacity(), held, "after {length} bytes");
        }
    }
}
