//! Collects the chunks of a body into batches worth a system call.

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

use super::room::{BASE, Room};

/// A batch is as large as this when there is room, in bytes.
const MAX_BATCH: usize = 1 << 20;

/// By how much a batch asks to grow, in bytes.
const STEP: usize = 256 << 10;

/// Chunks below this size are copied together: each one that is kept pins the buffer it is a part of.
const SMALL: usize = 8 << 10;

/// Some consecutive bytes of a body.
#[derive(Debug, Default)]
pub(super) struct Batch {
    parts: Vec<Bytes>,
    small: BytesMut,
    length: usize,
    extensions: Vec<OwnedSemaphorePermit>,
}

impl Batch {
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Adds a chunk. `false`: there is no room for another, write the batch first.
    pub(super) fn push(&mut self, chunk: Bytes, room: &Room) -> bool {
        self.length += chunk.len();
        if chunk.len() < SMALL {
            self.small.extend_from_slice(&chunk);
        } else {
            self.flush_small();
            self.parts.push(chunk);
        }
        while self.length >= self.capacity() {
            if self.capacity() >= MAX_BATCH {
                return false;
            }
            let Some(permit) = room.more(STEP) else {
                return false;
            };
            self.extensions.push(permit);
        }
        true
    }

    /// The parts in order, none of them empty. The batch keeps its room until it is dropped.
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
        BASE / 2 + self.extensions.len() * STEP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_chunks_are_copied_together_in_order() {
        let room = Room::new(0);
        let mut batch = Batch::default();
        for chunk in [&b"a"[..], b"b", &[b'c'; SMALL], b"d", b"e"] {
            assert!(batch.push(Bytes::copy_from_slice(chunk), &room));
        }
        let parts = batch.parts();
        assert_eq!(parts.len(), 3);
        assert_eq!(
            (&parts[0][..], parts[1].len(), &parts[2][..]),
            (&b"ab"[..], SMALL, &b"de"[..])
        );
    }

    #[test]
    fn a_batch_is_bounded_by_the_room() {
        let chunk = || Bytes::from(vec![0; 16 << 10]);
        let mut batch = Batch::default();
        let poor = Room::new(0);
        while batch.push(chunk(), &poor) {}
        assert_eq!(batch.length(), BASE / 2);
        let mut batch = Batch::default();
        let rich = Room::new(64 << 20);
        while batch.push(chunk(), &rich) {}
        assert!(batch.length() <= MAX_BATCH + BASE / 2 + STEP, "{}", batch.length());
    }
}
