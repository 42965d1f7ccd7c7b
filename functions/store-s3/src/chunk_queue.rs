//! Received bytes, kept as they came.
//!
//! A part is not gathered into one buffer: its chunks are sent as they are, as often as it takes.

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

/// Chunks below this size are copied together: each one that is kept pins the buffer it is a part of.
const SMALL: usize = 8 << 10;

/// In buffers of this size, each filled to its end: a buffer that grew would hold up to twice what is in it.
const BUFFER: usize = 64 << 10;

/// How much of a body is handed to a connection at a time, in bytes: whether bytes are taken is how a slow connection is
/// told from a dead one, however large the chunks are in which they came.
const FRAME: usize = 64 << 10;

/// After so many bytes a hash lets other tasks of the thread go on.
const HASH_AT_ONCE: usize = 1 << 20;

/// Bytes that are still being received.
#[derive(Debug, Default)]
pub(crate) struct Rope {
    chunks: VecDeque<Bytes>,
    small: BytesMut,
    length: usize,
}

impl Rope {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.length += chunk.len();
        if chunk.len() < SMALL {
            self.push_small(&chunk);
        } else {
            self.join_small();
            self.chunks.push_back(chunk);
        }
    }

    /// Takes the first `bytes`, or all there are.
    pub(crate) fn cut(&mut self, bytes: usize) -> Content {
        self.join_small();
        let mut taken = Vec::new();
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
            taken.push(chunk);
        }
        Content {
            chunks: taken.into(),
            length,
        }
    }

    fn push_small(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // What is behind bytes that were taken out is used as well.
            let mut free = self.small.capacity() - self.small.len();
            if free == 0 {
                self.join_small();
                self.small = BytesMut::with_capacity(BUFFER);
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
pub(crate) struct Content {
    chunks: Arc<[Bytes]>,
    length: usize,
}

impl Content {
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
            if at_once >= HASH_AT_ONCE {
                at_once = 0;
                tokio::task::yield_now().await;
            }
        }
        hasher.finalize().into()
    }

    /// A request body, and how many of its bytes were taken so far.
    pub(crate) fn body(&self) -> (SdkBody, Arc<AtomicUsize>) {
        let taken = Arc::<AtomicUsize>::default();
        if self.length == 0 {
            return (SdkBody::empty(), taken);
        }
        let sent = Sending {
            content: self.clone(),
            next: (0, 0),
            left: self.length as u64,
            taken: Arc::clone(&taken),
        };
        (SdkBody::from_body_1_x(sent), taken)
    }
}

struct Sending {
    content: Content,
    /// The next chunk, and how much of it was taken.
    next: (usize, usize),
    left: u64,
    taken: Arc<AtomicUsize>,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (at, begin) = self.next;
        let Some(chunk) = self.content.chunks.get(at) else {
            return Poll::Ready(None);
        };
        let end = chunk.len().min(begin + FRAME);
        let is_last = end == chunk.len();
        let chunk = chunk.slice(begin..end);
        self.next = if is_last { (at + 1, 0) } else { (at, end) };
        self.left -= chunk.len() as u64;
        self.taken.fetch_add(chunk.len(), Ordering::Relaxed);
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

    fn bytes(content: &Content) -> Vec<u8> {
        content.chunks.concat()
    }

    #[test]
    fn bytes_come_out_in_order_however_they_are_cut() {
        let whole: Vec<u8> = (0..100_000_u32)
            .map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1])
            .collect();
        for step in [1, 999, SMALL - 1, SMALL, 30_000] {
            for cut in [1, 70, SMALL, 99_999] {
                let mut rope = Rope::default();
                let mut out = Vec::new();
                for chunk in whole.chunks(step) {
                    rope.push(Bytes::copy_from_slice(chunk));
                    if rope.len() > 40_000 {
                        out.extend(bytes(&rope.cut(cut)));
                    }
                }
                let rest = rope.cut(usize::MAX);
                assert_eq!(rest.len(), bytes(&rest).len());
                out.extend(bytes(&rest));
                assert_eq!(rope.len(), 0);
                assert!(out == whole, "chunks of {step}, cut at {cut}");
            }
        }
    }

    /// What is held of small chunks is what was received, and not what a growing buffer would reserve.
    #[test]
    fn small_chunks_hold_no_more_memory_than_they_have_bytes() {
        for step in [1, 1000, 4 << 10, SMALL - 1] {
            let mut rope = Rope::default();
            let mut received = 0;
            while received < 10 * BUFFER + 5 {
                rope.push(Bytes::from(vec![7; step]));
                received += step;
                assert!(rope.small.capacity() <= BUFFER);
            }
            let content = rope.cut(usize::MAX);
            assert_eq!(content.len(), received);
            drop(rope);
            let chunks: Vec<Bytes> = content.chunks.to_vec();
            drop(content);
            let held: usize = chunks
                .into_iter()
                .map(|chunk| chunk.try_into_mut().unwrap().capacity())
                .sum();
            assert!(held < received + BUFFER, "{held} for {received} by {step}");
        }
    }

    /// Between large chunks as well.
    #[test]
    fn a_buffer_is_filled_to_its_end() {
        let mut rope = Rope::default();
        for _ in 0..100 {
            rope.push(Bytes::from(vec![7; 1000]));
            let begin = rope.small.as_ptr();
            rope.push(Bytes::from(vec![7; SMALL]));
            // The next small chunk lies behind the last.
            assert_eq!(
                rope.small.as_ptr(),
                begin.wrapping_add(rope.chunks[rope.chunks.len() - 2].len())
            );
        }
    }

    /// Small chunks are large ones in memory, and are sent little by little.
    #[tokio::test]
    async fn a_body_is_taken_in_small_frames() {
        use http_body_util::BodyExt as _;

        const SIZE: usize = 3 * FRAME + 5;
        for step in [1000, SIZE] {
            let mut rope = Rope::default();
            let whole: Vec<u8> = (0..SIZE).map(|at| at.to_le_bytes()[0]).collect();
            whole
                .chunks(step)
                .for_each(|chunk| rope.push(Bytes::copy_from_slice(chunk)));
            let (mut body, taken) = rope.cut(SIZE).body();
            let mut sent = Vec::new();
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                assert!(data.len() <= FRAME);
                sent.extend_from_slice(&data);
                assert_eq!(taken.load(Ordering::Relaxed), sent.len());
            }
            assert!(sent == whole, "in chunks of {step}");
        }
    }

    #[tokio::test]
    async fn checksums_are_those_of_the_whole() {
        let mut rope = Rope::default();
        for chunk in [&b"1234"[..], b"56789"] {
            rope.push(Bytes::from_static(chunk));
        }
        let content = rope.cut(9);
        assert_eq!(
            content.crc32(),
            0xcbf4_3926_u32.to_be_bytes(),
            "the check value of CRC-32"
        );
        let expected: [u8; 32] = Sha256::digest(b"123456789").into();
        assert_eq!(content.sha256().await, expected);
    }
}
