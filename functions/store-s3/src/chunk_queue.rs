//! Queues received chunks without copying them into one buffer.
//!
//! A part is sent as its chunks, and sent again from the same chunks on a retry.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use aws_smithy_types::body::SdkBody;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use sha2::{Digest as _, Sha256};

/// Chunks below this size are copied together: each chunk that is kept also keeps the whole buffer that it is a slice
/// of.
const SMALL_CHUNK: usize = 8 << 10;

/// The size of the buffers for small chunks. Each is filled completely; a growing buffer would reserve up to twice its
/// content.
const SMALL_CHUNKS_BUFFER: usize = 64 << 10;

/// Maximum size of a frame that a connection gets, in bytes. Progress within a body distinguishes a slow connection
/// from a dead one, so frames are small however large the received chunks are.
const MAXIMUM_FRAME: usize = 64 << 10;

/// After hashing this many bytes, the task yields to other tasks of the thread.
const YIELD_AFTER: usize = 1 << 20;

/// Bytes that are still being received.
#[derive(Debug, Default)]
pub(crate) struct ChunkQueue {
    chunks: VecDeque<Bytes>,
    small: BytesMut,
    length: usize,
}

impl ChunkQueue {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.length += chunk.len();
        if chunk.len() < SMALL_CHUNK {
            self.push_small(&chunk);
        } else {
            self.join_small();
            self.chunks.push_back(chunk);
        }
    }

    /// Removes and returns the first `bytes`, or all if there are fewer.
    pub(crate) fn cut(&mut self, bytes: usize) -> ByteChunks {
        self.join_small();
        let mut accepted = Vec::new();
        let mut wanted = bytes.min(self.length);
        self.length -= wanted;
        let length = wanted;
        while wanted > 0 {
            let Some(mut chunk) = self.chunks.pop_front() else {
                break;
            };
            if chunk.len() > wanted {
                self.chunks.push_front(chunk.split_off(wanted));
            }
            wanted -= chunk.len();
            accepted.push(chunk);
        }
        ByteChunks {
            chunks: accepted.into(),
            length,
        }
    }

    fn push_small(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // The free space after bytes that were taken out is used too.
            let mut free = self.small.capacity() - self.small.len();
            if free == 0 {
                self.join_small();
                self.small = BytesMut::with_capacity(SMALL_CHUNKS_BUFFER);
                free = self.small.capacity();
            }
            let (fits, rest) = bytes.split_at(bytes.len().min(free));
            self.small.extend_from_slice(fits);
            bytes = rest;
        }
    }

    fn join_small(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push_back(self.small.split().freeze());
        }
    }
}

/// Bytes that do not change any more. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct ByteChunks {
    chunks: Arc<[Bytes]>,
    length: usize,
}

impl ByteChunks {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn crc32(&self) -> [u8; 4] {
        let mut hasher = crc32fast::Hasher::new();
        for chunk in &*self.chunks {
            hasher.update(chunk);
        }
        hasher.finalize().to_be_bytes()
    }

    pub(crate) async fn sha256(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let mut at_once = 0;
        for chunk in &*self.chunks {
            hasher.update(chunk);
            at_once += chunk.len();
            if at_once >= YIELD_AFTER {
                at_once = 0;
                tokio::task::yield_now().await;
            }
        }
        hasher.finalize().into()
    }

    /// A request body, and a counter of its bytes that the connection has accepted.
    pub(crate) fn body(&self) -> (SdkBody, Arc<AtomicUsize>) {
        let accepted = Arc::<AtomicUsize>::default();
        if self.length == 0 {
            return (SdkBody::empty(), accepted);
        }
        let body = ChunksBody {
            content: self.clone(),
            next: (0, 0),
            left: self.length as u64,
            accepted: Arc::clone(&accepted),
        };
        (SdkBody::from_body_1_x(body), accepted)
    }
}

struct ChunksBody {
    content: ByteChunks,
    /// The index of the next chunk, and how many of its bytes were sent.
    next: (usize, usize),
    left: u64,
    accepted: Arc<AtomicUsize>,
}

impl Body for ChunksBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (at, begin) = self.next;
        let Some(chunk) = self.content.chunks.get(at) else {
            return Poll::Ready(None);
        };
        let end = chunk.len().min(begin + MAXIMUM_FRAME);
        let is_last = end == chunk.len();
        let chunk = chunk.slice(begin..end);
        self.next = if is_last { (at + 1, 0) } else { (at, end) };
        self.left -= chunk.len() as u64;
        self.accepted.fetch_add(chunk.len(), Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn bytes(content: &ByteChunks) -> Vec<u8> {
        content.chunks.concat()
    }

    #[test]
    fn bytes_keep_their_order_however_they_are_cut() {
        let whole: Vec<u8> = (0..100_000_u32)
            .map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1])
            .collect();
        for step in [1, 999, SMALL_CHUNK - 1, SMALL_CHUNK, 30_000] {
            for cut in [1, 70, SMALL_CHUNK, 99_999] {
                let mut queue = ChunkQueue::default();
                let mut out = Vec::new();
                for chunk in whole.chunks(step) {
                    queue.push(Bytes::copy_from_slice(chunk));
                    if queue.len() > 40_000 {
                        out.extend(bytes(&queue.cut(cut)));
                    }
                }
                let rest = queue.cut(usize::MAX);
                assert_eq!(rest.len(), bytes(&rest).len());
                out.extend(bytes(&rest));
                assert_eq!(queue.len(), 0);
                assert!(out == whole, "chunks of {step}, cut at {cut}");
            }
        }
    }

    /// Small chunks hold no more memory than their bytes; a growing buffer would reserve more.
    #[test]
    fn small_chunks_hold_no_more_memory_than_they_have_bytes() {
        for step in [1, 1000, 4 << 10, SMALL_CHUNK - 1] {
            let mut queue = ChunkQueue::default();
            let mut received = 0;
            while received < 10 * SMALL_CHUNKS_BUFFER + 5 {
                queue.push(Bytes::from(vec![7; step]));
                received += step;
                assert!(queue.small.capacity() <= SMALL_CHUNKS_BUFFER);
            }
            let content = queue.cut(usize::MAX);
            assert_eq!(content.len(), received);
            drop(queue);
            let chunks: Vec<Bytes> = content.chunks.to_vec();
            drop(content);
            let held: usize = chunks
                .into_iter()
                .map(|chunk| chunk.try_into_mut().unwrap().capacity())
                .sum();
            assert!(held < received + SMALL_CHUNKS_BUFFER, "{held} for {received} by {step}");
        }
    }

    /// The buffer is also filled if large chunks come in between.
    #[test]
    fn a_buffer_for_small_chunks_is_filled_completely() {
        let mut queue = ChunkQueue::default();
        for _ in 0..100 {
            queue.push(Bytes::from(vec![7; 1000]));
            let begin = queue.small.as_ptr();
            queue.push(Bytes::from(vec![7; SMALL_CHUNK]));
            // The next small chunk is behind the last one in the buffer.
            assert_eq!(
                queue.small.as_ptr(),
                begin.wrapping_add(queue.chunks[queue.chunks.len() - 2].len())
            );
        }
    }

    /// Small chunks are joined to large buffers, but frames are small.
    #[tokio::test]
    async fn a_body_is_sent_in_small_frames() {
        use http_body_util::BodyExt as _;

        const SIZE: usize = 3 * MAXIMUM_FRAME + 5;
        for step in [1000, SIZE] {
            let mut queue = ChunkQueue::default();
            let whole: Vec<u8> = (0..SIZE).map(|at| at.to_le_bytes()[0]).collect();
            whole
                .chunks(step)
                .for_each(|chunk| queue.push(Bytes::copy_from_slice(chunk)));
            let (mut body, accepted) = queue.cut(SIZE).body();
            let mut sent = Vec::new();
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                assert!(data.len() <= MAXIMUM_FRAME);
                sent.extend_from_slice(&data);
                assert_eq!(accepted.load(Ordering::Relaxed), sent.len());
            }
            assert!(sent == whole, "in chunks of {step}");
        }
    }

    #[tokio::test]
    async fn checksums_cover_all_chunks() {
        let mut queue = ChunkQueue::default();
        for chunk in [&b"1234"[..], b"56789"] {
            queue.push(Bytes::from_static(chunk));
        }
        let content = queue.cut(9);
        assert_eq!(
            content.crc32(),
            0xcbf4_3926_u32.to_be_bytes(),
            "the check value of CRC-32"
        );
        let expected: [u8; 32] = Sha256::digest(b"123456789").into();
        assert_eq!(content.sha256().await, expected);
    }
}
